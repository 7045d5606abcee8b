"""Writing to the catalog: a shard's results enter in one transaction, counts included."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from vistadex.catalog import changes, tables
from vistadex.catalog.attributes import own_part, replace_attributes, whole
from vistadex.catalog.counting import Counts, slices
from vistadex.catalog.reading import ANNOTATIONS, annotated
from vistadex.catalog.registering import RegisteredAnalyzer
from vistadex.catalog.results import NewRows, Row, by_columns, delete_results
from vistadex.records import NOMINAL_SIDE, Outcome, Relations

GEOMETRY = "geometry"
"""The name of models that derive relations from boxes; their parameter `of_analyzer` says whose."""

FRACTIONS = (NOMINAL_SIDE, NOMINAL_SIDE)
"""The size of an image whose boxes are known as fractions alone."""


def write_outcomes(
    connection: sa.Connection,
    source_id: int,
    analyzers: Sequence[RegisteredAnalyzer],
    outcomes: Sequence[Outcome],
) -> None:
    """Puts a shard's outcomes in place of what was known, inside the caller's transaction.

    Results of another version of an image go, whichever model made them, but what people have
    annotated stays; results of other analyzers for the same version stay, of one that refuses the
    picture too, and so do all results where only the reading failed.
    """
    known = _known_images(connection, source_id, [outcome.entry.key for outcome in outcomes])
    stale = []
    again: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for outcome in outcomes:
        row = known.get(outcome.entry.key)
        if row is not None and row.version != outcome.entry.version:
            stale.append(row.id)
        elif row is not None and outcome.failure is None:
            refusing = tuple(i for i, one in enumerate(outcome.results) if one is None)
            again[refusing].append(row.id)
    outcomes = _warned(known, annotated(connection, stale) if stale else set(), outcomes)
    with _counted(connection, [row.id for row in known.values()]) as changed:
        delete_results(connection, stale, _models_analyzers(connection) if stale else [])
        for refusing, image_ids in again.items():
            looked = [one for i, one in enumerate(analyzers) if i not in refusing]
            delete_results(connection, image_ids, _with_derived(connection, looked))
        _to_pixels(connection, known, outcomes)
        ids = _write_images(connection, source_id, known, outcomes)
        _write_results(connection, ids, analyzers, outcomes)
        changed.update(ids[key] for key in ids.keys() - known.keys())


def _warned(
    known: Mapping[str, Any], said: Collection[int], outcomes: Sequence[Outcome]
) -> list[Outcome]:
    """Outcomes of which those have a warning whose annotations were made for another size."""
    found = []
    for outcome in outcomes:
        row = known.get(outcome.entry.key)
        size = (row.width, row.height) if row is not None and row.id in said else None
        unknown = size is not None and (0 in size or size == FRACTIONS)
        if size and outcome.width and not unknown and size != (outcome.width, outcome.height):
            text = f"annotations were made for {size[0]} x {size[1]} pixels; import them again"
            outcome = replace(outcome, warning="; ".join(filter(None, [outcome.warning, text])))
        found.append(outcome)
    return found


def write_annotations(
    connection: sa.Connection,
    source_id: int,
    analyzers: Sequence[RegisteredAnalyzer],
    outcomes: Sequence[Outcome],
) -> None:
    """Puts annotations in place of those of the same analyzers, in the caller's transaction.

    An image that is known in this version stays as it is; its attributes are added to, a size that
    was not known is entered, and one that had vanished is back. Of an image in another version all
    results of models go, as in write_outcomes.
    """
    known = _known_images(connection, source_id, [outcome.entry.key for outcome in outcomes])
    same = [one for one in outcomes if _is_version(known.get(one.entry.key), one)]
    kept = {one.entry.key for one in same}
    again = [row.id for row in known.values()]
    stale = [row.id for key, row in known.items() if key not in kept]
    with _counted(connection, again) as changed:
        delete_results(connection, stale, _models_analyzers(connection) if stale else [])
        delete_results(connection, again, _with_derived(connection, analyzers))
        other = [one for one in outcomes if one.entry.key not in kept]
        _to_pixels(connection, known, other)
        ids = _write_images(connection, source_id, known, other)
        _write_results(connection, ids, analyzers, outcomes)
        changed.update(ids[key] for key in ids.keys() - known.keys())
    _complete(connection, known, same)


def write_relations(
    connection: sa.Connection,
    analyzer: RegisteredAnalyzer,
    found: Mapping[int, tuple[str, Relations]],
) -> None:
    """Puts relations of images, by id with the version that they are of, in place of older ones.

    An image that is in another version by now is left alone: its relations are of other boxes.
    """
    image = tables.image
    same: dict[int, tuple[str, Relations]] = {}
    for part in slices(sorted(found)):
        query = sa.select(image.c.id, image.c.version).where(image.c.id.in_(part))
        for id_, version in connection.execute(query):
            if found[id_][0] == version:
                same[id_] = found[id_]
    with _counted(connection, list(same)):
        delete_results(connection, list(same), [analyzer.id])
        new = NewRows(connection)
        for image_id, (version, relations) in same.items():
            new.add(image_id, analyzer, version, relations)
        new.insert()


def _is_version(row: Any, outcome: Outcome) -> bool:
    """Whether what is known of an image stays: what never saw it can't say that it has changed."""
    return row is not None and (not outcome.seen or row.version == outcome.entry.version)


def _complete(
    connection: sa.Connection, known: Mapping[str, Any], outcomes: Sequence[Outcome]
) -> None:
    """Enters what an annotation tells of images that are known: attributes, size, existence."""
    described = [(known[one.entry.key], one.entry.attributes) for one in outcomes]
    replace_attributes(
        connection,
        {row.id: {**whole(row.attributes, row.shared), **more} for row, more in described if more},
    )
    sizes = [
        {"image_id": known[one.entry.key].id, "w": one.width, "h": one.height}
        for one in outcomes
        if one.width and not known[one.entry.key].width
    ]
    if sizes:
        image = tables.image
        statement = sa.update(image).where(image.c.id == sa.bindparam("image_id"))
        connection.execute(
            statement.values(width=sa.bindparam("w"), height=sa.bindparam("h")), sizes
        )
    for status in ("ok", "failed"):
        gone = [known[one.entry.key] for one in outcomes if one.seen]
        ids = [
            row.id
            for row in gone
            if row.status == "vanished" and (row.reason is None) == (status == "ok")
        ]
        set_status(connection, ids, status)


@contextmanager
def _counted(connection: sa.Connection, image_ids: Sequence[int]) -> Iterator[set[int]]:
    """Keeps counts and log right while results of images are replaced inside.

    Args:
        image_ids: those that have results already; images that are new are added to the set.
    """
    counts = Counts()
    changed = set(image_ids)
    counts.add_images(connection, image_ids, -1)
    yield changed
    counts.add_images(connection, sorted(changed), +1)
    counts.write(connection)
    changes.note(connection, changed)


def _models_analyzers(connection: sa.Connection) -> list[int]:
    """Ids of the analyzers that look at pictures: all but those of imported annotations."""
    model, analyzer = tables.model, tables.analyzer
    query = sa.select(analyzer.c.id).join_from(analyzer, model)
    looks = ~model.c.sha256.startswith(ANNOTATIONS, autoescape=True)
    return list(connection.execute(query.where(looks)).scalars())


def _with_derived(connection: sa.Connection, analyzers: Sequence[RegisteredAnalyzer]) -> list[int]:
    """Ids of analyzers and of those that work on their boxes: relations follow from boxes."""
    model, analyzer = tables.model, tables.analyzer
    ids = {one.id for one in analyzers}
    query = sa.select(analyzer.c.id, analyzer.c.parameters).join_from(analyzer, model)
    derived = query.where(model.c.task == "relater", model.c.name == GEOMETRY)
    for id_, parameters in connection.execute(derived).all():
        if json.loads(parameters).get("of_analyzer") in ids:
            ids.add(id_)
    return sorted(ids)


def _to_pixels(
    connection: sa.Connection, known: Mapping[str, Any], outcomes: Sequence[Outcome]
) -> None:
    """Gives boxes in pixels to images that were known by fractions and have now been read."""
    sizes = [
        {"an_image": known[one.entry.key].id, "w": one.width, "h": one.height}
        for one in outcomes
        if one.width and one.entry.key in known and _has_fractions(known[one.entry.key])
    ]
    if not sizes:
        return
    for table in (tables.box, tables.relation):
        scaled = {
            column: column * sa.bindparam("w" if column.name[-2] == "x" else "h") / NOMINAL_SIDE
            for column in table.c
            if column.name[-2:] in ("x0", "y0", "x1", "y1")
        }
        statement = sa.update(table).where(table.c.image_id == sa.bindparam("an_image"))
        connection.execute(statement.values(scaled), sizes)


def _has_fractions(row: Any) -> bool:
    """Whether the boxes of a known image stand in millionths of its sides."""
    return (row.width, row.height) == FRACTIONS


def _write_results(
    connection: sa.Connection,
    ids: Mapping[str, int],
    analyzers: Sequence[RegisteredAnalyzer],
    outcomes: Sequence[Outcome],
) -> None:
    """Inserts the results of images by key."""
    new = NewRows(connection)
    for outcome in outcomes:
        for analyzer, result in zip(analyzers, outcome.results, strict=False):
            if result is not None:
                new.add(ids[outcome.entry.key], analyzer, outcome.entry.version, result)
    new.insert()


def _known_images(connection: sa.Connection, source_id: int, keys: Sequence[str]) -> dict[str, Any]:
    image, shared = tables.image, tables.attribute_set
    described = image.outerjoin(shared, image.c.attribute_set_id == shared.c.id)
    known: dict[str, Any] = {}
    for part in slices(keys):
        query = sa.select(
            image.c.key,
            image.c.id,
            image.c.version,
            image.c.width,
            image.c.height,
            image.c.status,
            image.c.reason,
            image.c.attributes,
            shared.c.attributes.label("shared"),
        ).select_from(described)
        query = query.where(image.c.source_id == source_id, image.c.key.in_(part))
        for row in connection.execute(query):
            known[row.key] = row
    return known


def _write_images(
    connection: sa.Connection,
    source_id: int,
    known: Mapping[str, Any],
    outcomes: Sequence[Outcome],
) -> dict[str, int]:
    """Inserts or updates the image rows; returns the ids by key."""
    image = tables.image
    now = int(time.time())
    new: list[Row] = []
    changed: list[Row] = []
    for outcome in outcomes:
        failure = outcome.failure
        row = {
            "version": outcome.entry.version,
            "size_bytes": outcome.entry.size_bytes or 0,
            "width": outcome.width,
            "height": outcome.height,
            "status": "failed" if failure else "ok" if outcome.seen else "unseen",
            "reason": failure.reason if failure else None,
            "error": failure.message if failure else None,
            "indexed_at": now,
            "warning": outcome.warning or None,
        }
        if outcome.content_hash is not None:
            row["content_hash"] = outcome.content_hash
            row["perceptual_hash"] = outcome.perceptual_hash
        before = known.get(outcome.entry.key)
        if outcome.entry.attributes:
            own, shared = (before.attributes, before.shared) if before is not None else (None, None)
            described = {**whole(own, shared), **outcome.entry.attributes}
            row["attributes"] = own_part(described, shared)
        if before is not None:
            if before.version != outcome.entry.version and outcome.content_hash is None:
                row |= {"content_hash": None, "perceptual_hash": None}  # those of other bytes
            if failure:  # Boxes that people drew stay, in the size that is known.
                row |= {"width": before.width, "height": before.height}
            changed.append(row | {"image_id": before.id})
        else:
            new.append(row | {"source_id": source_id, "key": outcome.entry.key})
    update = sa.update(image).where(image.c.id == sa.bindparam("image_id"))
    for alike in by_columns(changed):
        connection.execute(update, alike)
    for alike in by_columns(new):
        connection.execute(sa.insert(image), alike)
    if new:
        add_to_source(connection, source_id, len(new))
        keys = [row["key"] for row in new]
        known = {**known, **_known_images(connection, source_id, keys)}
    return {key: row.id for key, row in known.items()}


def delete_images(connection: sa.Connection, image_ids: Sequence[int]) -> None:
    """Removes images with all their results, counts included, from collections too."""
    image, collected = tables.image, tables.collection_image
    collections = sa.select(tables.collection.c.id)  # so that the primary key can be used
    with _counted(connection, image_ids):
        delete_results(connection, image_ids, None)
        gone: Counter[int] = Counter()
        for part in slices(image_ids):
            query = sa.select(image.c.source_id, sa.func.count()).where(image.c.id.in_(part))
            for source_id, number in connection.execute(query.group_by(image.c.source_id)):
                gone[source_id] += number
            of_images = collected.c.collection_id.in_(collections), collected.c.image_id.in_(part)
            connection.execute(sa.delete(collected).where(*of_images))
            connection.execute(sa.delete(image).where(image.c.id.in_(part)))
        for source_id, number in gone.items():
            add_to_source(connection, source_id, -number)


def add_to_source(connection: sa.Connection, source_id: int, number: int) -> None:
    """Keeps the number of a source's images."""
    source = tables.source
    statement = sa.update(source).where(source.c.id == source_id)
    connection.execute(statement.values(images=source.c.images + number))


def set_status(connection: sa.Connection, image_ids: Sequence[int], status: str) -> None:
    """Marks images as ok, failed or vanished; what is known about them stays.

    It is a change all the same: what is gone is no copy of another image.
    """
    changes.note(connection, image_ids)
    for part in slices(image_ids):
        statement = sa.update(tables.image).where(tables.image.c.id.in_(part))
        connection.execute(statement.values(status=status))
