"""Writing to the catalog: a shard's results enter in one transaction, counts included."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.counting import Counts, slices
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

    Results of another version of an image go, whichever analyzer made them; results of other
    analyzers for the same version stay, and so do all results where only the reading failed.
    """
    known = _known_images(connection, source_id, [outcome.entry.key for outcome in outcomes])
    stale, again = [], []
    for outcome in outcomes:
        row = known.get(outcome.entry.key)
        if row is not None and row.version != outcome.entry.version:
            stale.append(row.id)
        elif row is not None and outcome.failure is None:
            again.append(row.id)
    counts = Counts()
    replaced = stale + again
    counts.add_images(connection, replaced, -1)
    delete_results(connection, stale, None)
    delete_results(connection, again, [analyzer.id for analyzer in analyzers])
    ids = _write_images(connection, source_id, known, outcomes)
    rows: dict[sa.Table, list[Row]] = {table: [] for table in RESULT_TABLES}
    for outcome in outcomes:
        image_id = ids[outcome.entry.key]
        for analyzer, result in zip(analyzers, outcome.results, strict=False):
            version = outcome.entry.version
            rows[tables.analysis].append(
                {"image_id": image_id, "analyzer_id": analyzer.id, "version": version}
            )
            _add_rows(rows, image_id, analyzer, result)
    for table, new in rows.items():
        if new:
            connection.execute(sa.insert(table), new)
    counts.add_images(connection, replaced, +1)
    existed = set(replaced)
    counts.add_rows(row for row in rows[tables.image_class] if row["image_id"] not in existed)
    counts.write(connection)


def _known_images(connection: sa.Connection, source_id: int, keys: Sequence[str]) -> dict[str, Any]:
    image = tables.image
    known: dict[str, Any] = {}
    for part in slices(keys):
        query = sa.select(
            image.c.key, image.c.id, image.c.version, image.c.width, image.c.height
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
        if outcome.entry.attributes is not None:
            row["attributes"] = outcome.entry.attributes or None
        if before := known.get(outcome.entry.key):
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
    groups: dict[frozenset[str], list[Row]] = {}
    for row in rows:
        groups.setdefault(frozenset(row), []).append(row)
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
        corners = result.boxes_xyxy.tolist()
        flags = map(packed_flags, result.flags or repeat({}))
        attributes: Iterable[Mapping[str, Json]] = result.attributes or repeat({})
        for ordinal, (class_id, score, (x0, y0, x1, y1), bits, more) in enumerate(
            zip(class_ids, scores, corners, flags, attributes, strict=False)
        ):
            rows[tables.box].append(
                {
                    **place,
                    "ordinal": ordinal,
                    "class_id": class_id,
                    "score": score,
                    "x0": x0,
                    "y0": y0,
                    "x1": x1,
                    "y1": y1,
                    "flags": bits,
                    "attributes": more or None,
                }
            )
    for class_id, score in best.items():
        rows[tables.image_class].append(
            {**place, "class_id": class_id, "score": score, "boxes": boxes[class_id]}
        )


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
