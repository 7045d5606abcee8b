"""Attributes of images: those that many share are in sets, written once; the rest is the image's.

An image has {**set, **own}. Sets never change and are never removed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.columns import attribute_member, attribute_text, dumped
from vistadex.catalog.counting import slices
from vistadex.records import Json

Attributes = Mapping[str, Json]


def whole(own: Attributes | None, shared: Attributes | None) -> dict[str, Json]:
    """What an image has, by what it has alone and what its set says."""
    return {**(shared or {}), **(own or {})}


def own_part(attributes: Attributes, shared: Attributes | None) -> dict[str, Json] | None:
    """What stays for the image alone, beside a set that has nothing but what the image has."""
    if not shared:
        return dict(attributes) or None
    return {n: one for n, one in attributes.items() if not _says(shared, n, one)} or None


def _says(shared: Attributes, name: str, value: Json) -> bool:
    """Whether a set says the same: 1, 1.0 and true are equal, and not the same."""
    return name in shared and dumped(shared[name]) == dumped(value)


def set_ids(connection: sa.Connection, texts: Sequence[str]) -> list[int]:
    """The ids of sets that are given as JSON objects, made where they are new."""
    table = tables.attribute_set
    known = {dumped(said): id_ for id_, said in connection.execute(sa.select(table))}
    found: list[int] = []
    for text in texts:
        said = json.loads(text)
        key = dumped(said)
        if key not in known:
            made = connection.execute(sa.insert(table).values(attributes=said))
            made_key: Any = made.inserted_primary_key
            known[key] = int(made_key.id)
        found.append(known[key])
    return found


def sets_by_id(connection: sa.Connection, ids: Collection[int]) -> dict[int, dict[str, Json]]:
    """What sets say."""
    table = tables.attribute_set
    found: dict[int, dict[str, Json]] = {}
    for part in slices(sorted(ids)):
        query = sa.select(table.c.id, table.c.attributes).where(table.c.id.in_(part))
        found.update((id_, said) for id_, said in connection.execute(query))
    return found


def replace_attributes(
    connection: sa.Connection, attributes: Mapping[int, Attributes | None]
) -> None:
    """Puts attributes of images, by id, in place of all that are known.

    An image keeps its set while the set says nothing that the image has not.
    """
    image = tables.image
    rows = []
    for part in slices(sorted(attributes)):
        query = sa.select(image.c.id, image.c.attribute_set_id).where(image.c.id.in_(part))
        set_of = {row.id: row.attribute_set_id for row in connection.execute(query)}
        shared = sets_by_id(connection, {one for one in set_of.values() if one is not None})
        for id_, set_id in set_of.items():
            new = attributes[id_] or {}
            if not shared.get(set_id, {}).keys() <= new.keys():
                set_id = None
            own = own_part(new, shared.get(set_id))
            rows.append({"image_id": id_, "own": own, "set_id": set_id})
    if rows:
        statement = (
            sa.update(image)
            .where(image.c.id == sa.bindparam("image_id"))
            .values(attributes=sa.bindparam("own"), attribute_set_id=sa.bindparam("set_id"))
        )
        connection.execute(statement, rows)


def has_attribute(
    image: sa.FromClause, name: str, values: Collection[str]
) -> sa.ColumnElement[bool]:
    """Whether an image has one of the values, as text: its own, else one of its set."""
    shared = tables.attribute_set
    saying = sa.select(shared.c.id).where(_one_of(shared.c.attributes, name, values))
    own = image.c.attributes
    of_set = sa.and_(image.c.attribute_set_id.in_(saying), attribute_member(own, name).is_(None))
    return sa.or_(of_set, _one_of(own, name, values))


def _one_of(column: Any, name: str, values: Collection[str]) -> sa.ColumnElement[bool]:
    """Whether a member is one of a few values, in a text that is the same for all of them."""
    return sa.or_(*(attribute_text(column, name) == value for value in sorted(values)))
