"""Collections: images that people have put together under a name.

They say nothing about what is in an image, so a change of one is no change of results.
"""

from __future__ import annotations

import difflib
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.errors import NotFoundError, UsageError
from vistadex.records import IntArray

MOST_LETTERS = 255
"""Of a name."""
AT_A_TIME = 5_000
"""Images that one statement puts in or takes out."""
NAMED = 5
"""Ids that an error names."""


@dataclass(frozen=True, slots=True)
class ImageCollection:
    """Images that somebody has put together."""

    id: int
    name: str
    images: int
    made_at: int
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What became of a collection."""

    collection: ImageCollection
    changed: int
    """How many images came in, or went out."""


def checked_name(name: str) -> str:
    """The name without spaces around it.

    Raises: UsageError where no query could write it: empty, longer than 255 characters, with a
        double quote or a control character.
    """
    name = name.strip()
    if not 1 <= len(name) <= MOST_LETTERS:
        raise UsageError(
            f"collection name: {len(name)} characters, expected 1 to {MOST_LETTERS}; give another"
        )
    bad = next((one for one in name if one == '"' or unicodedata.category(one) in _BAD), None)
    if bad is not None:
        problem = f"collection name {name!r}: {bad!r} is in it"
        raise UsageError(f"{problem}, expected no double quote and no control character")
    return name


_BAD = ("Cc", "Cs")


def listed(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[ImageCollection]:
    """Every collection, or those for which conditions hold, by name."""
    one, of = tables.collection, tables.collection_image
    number = sa.select(sa.func.count()).where(of.c.collection_id == one.c.id).scalar_subquery()
    query = sa.select(one.c.id, one.c.name, number, one.c.made_at).where(*conditions)
    return [ImageCollection(*row) for row in connection.execute(query.order_by(one.c.name))]


def names_of_image(connection: sa.Connection, image_id: int) -> list[str]:
    """The collections that an image is in, by name."""
    one, of = tables.collection, tables.collection_image
    has = sa.exists().where(of.c.collection_id == one.c.id, of.c.image_id == image_id)
    return list(connection.execute(sa.select(one.c.name).where(has).order_by(one.c.name)).scalars())


def image_ids(connection: sa.Connection, collection_id: int) -> IntArray:
    """Rising ids of the images in a collection."""
    of = tables.collection_image
    query = sa.select(of.c.image_id).where(of.c.collection_id == collection_id)
    rows = connection.execute(query.order_by(of.c.image_id).execution_options(yield_per=10_000))
    return np.fromiter(rows.scalars(), np.int64)


def get(connection: sa.Connection, name: str | int) -> ImageCollection:
    """A collection by its name or id.

    Raises: NotFoundError with the nearest names.
    """
    column = tables.collection.c.id if isinstance(name, int) else tables.collection.c.name
    found = listed(connection, column == name)
    if found:
        return found[0]
    if isinstance(name, int):
        raise NotFoundError(f"collection {name}: no such id; `vistadex collections` lists all")
    hint, _ = nearest(connection, name)
    raise NotFoundError(f"unknown collection {name!r}: {hint}")


def nearest(connection: sa.Connection, name: str) -> tuple[str, tuple[str, ...]]:
    """What to say where there is no such collection, and names most like it."""
    known = list(connection.execute(sa.select(tables.collection.c.name)).scalars())
    folded = {one.casefold(): one for one in sorted(known)}
    found = difflib.get_close_matches(name.casefold(), list(folded), n=3, cutoff=0.5)
    names = tuple(folded[one] for one in found)
    if names:
        return f"did you mean {', '.join(names)}?", names
    if known:
        return "`vistadex collections` lists all", ()
    return "there is none yet; `vistadex collect NAME --query QUERY` makes one", ()


def need_images(connection: sa.Connection, ids: Sequence[int]) -> None:
    """Raises: NotFoundError that names some of the ids which no image has."""
    known = tables.image.c.id
    unknown: list[int] = []
    for part in _parts(ids):
        query = sa.select(known).where(_among(known, part))
        unknown += sorted(set(part) - set(connection.execute(query).scalars()))
    if unknown:
        named = ", ".join(map(str, unknown[:NAMED])) + (", …" if len(unknown) > NAMED else "")
        what = "no image has the id" if len(unknown) == 1 else "no images have the ids"
        raise NotFoundError(f"{what} {named}; `vistadex search --json` prints ids")


def add(connection: sa.Connection, name: str, ids: Sequence[int]) -> Collected:
    """Puts images into a collection, which is made where there is none of that name.

    Images that are in it stay; ids that no image has are passed over.
    Raises: UsageError for a name that can't be one.
    """
    name, one = checked_name(name), tables.collection
    id_ = connection.execute(sa.select(one.c.id).where(one.c.name == name)).scalar()
    if id_ is None:
        row = {"name": name, "made_at": int(time.time())}
        key = connection.execute(sa.insert(one).values(row)).inserted_primary_key
        assert key is not None
        id_ = key[0]
    of, image = tables.collection_image, tables.image
    is_in = sa.exists().where(of.c.collection_id == id_, of.c.image_id == image.c.id)
    before = get(connection, name).images
    for part in _parts(ids):
        new = sa.select(sa.literal(id_, sa.Integer), image.c.id)
        new = new.where(_among(image.c.id, part), ~is_in.correlate(image))
        connection.execute(sa.insert(of).from_select(["collection_id", "image_id"], new))
    found = get(connection, name)
    return Collected(found, found.images - before)


def remove(connection: sa.Connection, name: str, ids: Sequence[int]) -> Collected:
    """Takes images out of a collection; those that are not in it are passed over.

    Raises: NotFoundError for an unknown collection.
    """
    found, of = get(connection, name), tables.collection_image
    for part in _parts(ids):
        condition = of.c.collection_id == found.id, _among(of.c.image_id, part)
        connection.execute(sa.delete(of).where(*condition))
    left = get(connection, name)
    return Collected(left, found.images - left.images)


def rename(connection: sa.Connection, name: str | int, new: str) -> ImageCollection:
    """Gives a collection another name.

    Raises: NotFoundError; UsageError where the new name can't be one, or another one has it.
    """
    found, new, one = get(connection, name), checked_name(new), tables.collection
    taken = sa.select(one.c.id).where(one.c.name == new, one.c.id != found.id)
    if connection.execute(taken).first():
        raise UsageError(f"collection {new!r}: there is one already; give another name")
    connection.execute(sa.update(one).where(one.c.id == found.id).values(name=new))
    return get(connection, found.id)


def delete(connection: sa.Connection, name: str | int) -> ImageCollection:
    """Removes a collection and returns what it was; its images stay in the catalog.

    Raises: NotFoundError.
    """
    found, of, one = get(connection, name), tables.collection_image, tables.collection
    connection.execute(sa.delete(of).where(of.c.collection_id == found.id))
    connection.execute(sa.delete(one).where(one.c.id == found.id))
    return found


def _parts(ids: Sequence[int]) -> list[Sequence[int]]:
    return [ids[start : start + AT_A_TIME] for start in range(0, len(ids), AT_A_TIME)]


def _among(column: Any, ids: Sequence[int]) -> sa.ColumnElement[bool]:
    """Whether a column has one of the ids, which stand in the text: databases limit parameters."""
    listed = ", ".join(str(int(one)) for one in ids)
    among: sa.ColumnElement[bool] = column.op("IN")(sa.literal_column(f"({listed})"))
    return among
