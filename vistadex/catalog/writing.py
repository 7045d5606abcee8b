"""Writing to the catalog: a shard's results enter in one transaction, counts included."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.counting import Counts, slices
from vistadex.catalog.reading import ANNOTATIONS, annotated
from vistadex.catalog.tables import RESULT_TABLES
from vistadex.records import (
    FLAGS,
    SCORE_SCALE,
    Analyzer,
    Detections,
    Embedding,
    Flags,
    Json,
    Outcome,
    Result,
)

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RegisteredAnalyzer:
    """An analyzer as the catalog knows it."""

    id: int
    class_ids: tuple[int, ...]
    """The catalog's class ids by the model's class index."""


def register_source(connection: sa.Connection, uri: str) -> int:
    """The id of a source, made where it is new."""
    return _id_of(connection, tables.source, {"uri": uri}, {})


def register_analyzer(connection: sa.Connection, analyzer: Analyzer) -> RegisteredAnalyzer:
    """The ids of an analyzer and of its classes, made where they are new."""
    card = json.dumps(analyzer.card, sort_keys=True)
    values = {"name": analyzer.name, "task": analyzer.task, "card": card}
    model_id = _id_of(connection, tables.model, {"sha256": analyzer.sha256}, values)
    newest = sa.update(tables.model).where(tables.model.c.id == model_id).values(**values)
    connection.execute(newest)  # the name or the card may have been corrected
    parameters = json.dumps(analyzer.parameters, sort_keys=True)
    identity = {
        "model_id": model_id,
        "parameters_hash": hashlib.sha256(parameters.encode()).hexdigest(),
    }
    analyzer_id = _id_of(connection, tables.analyzer, identity, {"parameters": parameters})
    return RegisteredAnalyzer(analyzer_id, _class_ids(connection, analyzer.classes))


def _id_of(connection: sa.Connection, table: sa.Table, identity: Row, values: Row) -> int:
    match = sa.and_(*(table.c[name] == value for name, value in identity.items()))
    query = sa.select(table.c.id).where(match)
    found = connection.execute(query).scalar()
    if found is None:
        connection.execute(sa.insert(table).values(**identity, **values))
        found = connection.execute(query).scalar_one()
    return int(found)


def _class_ids(connection: sa.Connection, names: Sequence[str]) -> tuple[int, ...]:
    klass = tables.klass
    known: dict[str, int] = {}
    for part in slices(sorted(set(names))):
        rows = connection.execute(sa.select(klass.c.name, klass.c.id).where(klass.c.name.in_(part)))
        known.update((name, id_) for name, id_ in rows)
    new = [{"name": name} for name in dict.fromkeys(names) if name not in known]
    if new:
        connection.execute(sa.insert(klass), new)
        return _class_ids(connection, names)
    return tuple(known[name] for name in names)


def write_outcomes(
    connection: sa.Connection,
    source_id: int,
    analyzers: Sequence[RegisteredAnalyzer],
    outcomes: Sequence[Outcome],
) -> None:
    """Puts a shard's outcomes in place of what was known, inside the caller's transaction.

    Results of another version of an image go, whichever model made them, but what people have
    annotated stays; results of other analyzers for the same version stay, and so do all results
    where only the reading failed.
    """
    known = _known_images(connection, source_id, [outcome.entry.key for outcome in outcomes])
    stale, again = [], []
    for outcome in outcomes:
        row = known.get(outcome.entry.key)
        if row is not None and row.version != outcome.entry.version:
            stale.append(row.id)
        elif row is not None and outcome.failure is None:
            again.append(row.id)
    outcomes = _warned(known, annotated(connection, stale) if stale else set(), outcomes)
    with _counted(connection, stale + again) as counts:
        delete_results(connection, stale, _models_analyzers(connection) if stale else [])
        delete_results(connection, again, [analyzer.id for analyzer in analyzers])
        ids = _write_images(connection, source_id, known, outcomes)
        counts.add_rows(_write_results(connection, ids, analyzers, outcomes, stale + again))


def _warned(
    known: Mapping[str, Any], said: Collection[int], outcomes: Sequence[Outcome]
) -> list[Outcome]:
    """Outcomes of which those have a warning whose annotations were made for another size."""
    found = []
    for outcome in outcomes:
        row = known.get(outcome.entry.key)
        size = (row.width, row.height) if row is not None and row.id in said else None
        if size and outcome.width and 0 not in size and size != (outcome.width, outcome.height):
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
    with _counted(connection, again) as counts:
        delete_results(connection, stale, _models_analyzers(connection) if stale else [])
        delete_results(connection, again, [analyzer.id for analyzer in analyzers])
        changed = [one for one in outcomes if one.entry.key not in kept]
        ids = _write_images(connection, source_id, known, changed)
        counts.add_rows(_write_results(connection, ids, analyzers, outcomes, again))
    _complete(connection, known, same)


def _is_version(row: Any, outcome: Outcome) -> bool:
    return row is not None and row.version == outcome.entry.version


def _complete(
    connection: sa.Connection, known: Mapping[str, Any], outcomes: Sequence[Outcome]
) -> None:
    """Enters what an annotation tells of images that are known: attributes, size, existence."""
    described = {
        known[one.entry.key].id: {
            **(known[one.entry.key].attributes or {}),
            **one.entry.attributes,
        }
        for one in outcomes
        if one.entry.attributes
    }
    if described:
        set_attributes(connection, described)
    sizes = [
        {"image_id": known[one.entry.key].id, "w": one.width, "h": one.height}
        for one in outcomes
        if not known[one.entry.key].width
    ]
    if sizes:
        image = tables.image
        statement = sa.update(image).where(image.c.id == sa.bindparam("image_id"))
        connection.execute(
            statement.values(width=sa.bindparam("w"), height=sa.bindparam("h")), sizes
        )
    for status in ("ok", "failed"):
        gone = [known[one.entry.key] for one in outcomes]
        ids = [
            row.id
            for row in gone
            if row.status == "vanished" and (row.reason is None) == (status == "ok")
        ]
        set_status(connection, ids, status)


@contextmanager
def _counted(connection: sa.Connection, image_ids: Sequence[int]) -> Iterator[Counts]:
    """Keeps class_count right while results of these images are replaced inside."""
    counts = Counts()
    counts.add_images(connection, image_ids, -1)
    yield counts
    counts.add_images(connection, image_ids, +1)
    counts.write(connection)


def _models_analyzers(connection: sa.Connection) -> list[int]:
    """Ids of the analyzers that look at pictures: all but those of imported annotations."""
    model, analyzer = tables.model, tables.analyzer
    query = sa.select(analyzer.c.id).join_from(analyzer, model)
    looks = ~model.c.sha256.startswith(ANNOTATIONS, autoescape=True)
    return list(connection.execute(query.where(looks)).scalars())


def _write_results(
    connection: sa.Connection,
    ids: Mapping[str, int],
    analyzers: Sequence[RegisteredAnalyzer],
    outcomes: Sequence[Outcome],
    counted: Sequence[int],
) -> list[Row]:
    """Inserts the results of images by key; the rows of image_class of images not in counted."""
    rows: dict[sa.Table, list[Row]] = {table: [] for table in RESULT_TABLES}
    for outcome in outcomes:
        image_id = ids[outcome.entry.key]
        for analyzer, result in zip(analyzers, outcome.results, strict=False):
            if result is None:
                continue
            version = outcome.entry.version
            rows[tables.analysis].append(
                {"image_id": image_id, "analyzer_id": analyzer.id, "version": version}
            )
            _add_rows(rows, image_id, analyzer, result)
    for table, new in rows.items():
        for alike in _by_columns(new):
            connection.execute(sa.insert(table), alike)
    existed = set(counted)
    return [row for row in rows[tables.image_class] if row["image_id"] not in existed]


def _known_images(connection: sa.Connection, source_id: int, keys: Sequence[str]) -> dict[str, Any]:
    image = tables.image
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
        ).where(image.c.source_id == source_id, image.c.key.in_(part))
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
            "status": "failed" if failure else "ok",
            "reason": failure.reason if failure else None,
            "error": failure.message if failure else None,
            "indexed_at": now,
            "warning": outcome.warning or None,
        }
        before = known.get(outcome.entry.key)
        if outcome.entry.attributes:
            known_ones = (before.attributes if before is not None else None) or {}
            row["attributes"] = {**known_ones, **outcome.entry.attributes}
        if before is not None:
            if failure and before.version == outcome.entry.version:
                row |= {"width": before.width, "height": before.height}
            changed.append(row | {"image_id": before.id})
        else:
            new.append(row | {"source_id": source_id, "key": outcome.entry.key})
    update = sa.update(image).where(image.c.id == sa.bindparam("image_id"))
    for alike in _by_columns(changed):
        connection.execute(update, alike)
    for alike in _by_columns(new):
        connection.execute(sa.insert(image), alike)
    if new:
        keys = [row["key"] for row in new]
        known = {**known, **_known_images(connection, source_id, keys)}
    return {key: row.id for key, row in known.items()}


def _by_columns(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows grouped by their columns: a statement sets the same ones in all of its rows."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row), []).append(row)
    return list(groups.values())


def _add_rows(
    rows: dict[sa.Table, list[Row]], image_id: int, analyzer: RegisteredAnalyzer, result: Result
) -> None:
    """Appends the rows that one analyzer's result for one image becomes."""
    place = {"image_id": image_id, "analyzer_id": analyzer.id}
    if isinstance(result, Embedding):
        vector = result.vector.astype("<f2").tobytes()
        rows[tables.embedding].append(place | {"vector": vector})
        return
    scores = np.rint(np.asarray(result.scores, np.float64) * SCORE_SCALE).astype(int).tolist()
    class_ids = [analyzer.class_ids[i] for i in result.class_ids.tolist()]
    best: dict[int, int] = {}
    for class_id, score in zip(class_ids, scores, strict=True):
        best[class_id] = max(score, best.get(class_id, 0))
    boxes = Counter(class_ids) if isinstance(result, Detections) else Counter[int]()
    if isinstance(result, Detections):
        rows[tables.box] += _box_rows(place, class_ids, scores, result)
    for class_id, score in best.items():
        rows[tables.image_class].append(
            {**place, "class_id": class_id, "score": score, "boxes": boxes[class_id]}
        )


def _box_rows(
    place: Row, class_ids: Sequence[int], scores: Sequence[int], found: Detections
) -> list[Row]:
    """The rows of boxes; only those of annotations have columns for what else is said."""
    boxes = [
        {**place, "ordinal": i, "class_id": class_id, "score": score}
        | {"x0": x0, "y0": y0, "x1": x1, "y1": y1}
        for i, (class_id, score, (x0, y0, x1, y1)) in enumerate(
            zip(class_ids, scores, found.boxes_xyxy.tolist(), strict=True)
        )
    ]
    if not found.flags and not found.attributes:
        return boxes
    flags = map(packed_flags, found.flags or repeat({}))
    attributes: Iterable[Mapping[str, Json]] = found.attributes or repeat({})
    return [
        {**box, "flags": bits, "attributes": more or None}
        for box, bits, more in zip(boxes, flags, attributes, strict=False)
    ]


def packed_flags(flags: Flags) -> int | None:
    """Flags as bits: two for each of FLAGS, 0 unknown, 1 no, 2 yes; None where all are unknown."""
    if not flags:
        return None
    return sum((1 + value) << 2 * FLAGS.index(name) for name, value in flags.items())


def delete_results(
    connection: sa.Connection, image_ids: Sequence[int], analyzer_ids: Collection[int] | None
) -> None:
    """Removes results of images: those of some analyzers, or all. Counts are the caller's."""
    for part in slices(image_ids):
        for table in RESULT_TABLES:
            statement = sa.delete(table).where(table.c.image_id.in_(part))
            if analyzer_ids is not None:
                statement = statement.where(table.c.analyzer_id.in_(analyzer_ids))
            connection.execute(statement)


def delete_images(connection: sa.Connection, image_ids: Sequence[int]) -> None:
    """Removes images with all their results, counts included."""
    counts = Counts()
    counts.add_images(connection, image_ids, -1)
    delete_results(connection, image_ids, None)
    for part in slices(image_ids):
        connection.execute(sa.delete(tables.image).where(tables.image.c.id.in_(part)))
    counts.write(connection)


def set_attributes(
    connection: sa.Connection, attributes: Mapping[int, Mapping[str, Json] | None]
) -> None:
    """Puts attributes of images, by id, in place of those that are known."""
    rows = [{"image_id": id_, "new": values or None} for id_, values in attributes.items()]
    image = tables.image
    statement = sa.update(image).where(image.c.id == sa.bindparam("image_id"))
    connection.execute(statement.values(attributes=sa.bindparam("new")), rows)


def set_status(connection: sa.Connection, image_ids: Sequence[int], status: str) -> None:
    """Marks images as ok, failed or vanished; what is known about them stays."""
    for part in slices(image_ids):
        statement = sa.update(tables.image).where(tables.image.c.id.in_(part))
        connection.execute(statement.values(status=status))
