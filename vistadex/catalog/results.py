"""Results of analyzers as rows: what is inserted and removed for an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import bulk_mysql, bulk_postgresql, tables
from vistadex.catalog.columns import dumped
from vistadex.catalog.counting import Ranked, ranked_classes, ranked_relations, slices
from vistadex.catalog.packing import PackedClass, pack
from vistadex.catalog.registering import RegisteredAnalyzer, ids_by_name
from vistadex.catalog.tables import RESULT_TABLES
from vistadex.records import (
    FLAGS,
    SCORE_SCALE,
    Classification,
    Detections,
    DoubleArray,
    Embedding,
    Flags,
    FloatArray,
    Json,
    Relation,
    Relations,
    Result,
    stored_score,
)

Row: TypeAlias = dict[str, Any]
_SERVERS = {"postgresql": bulk_postgresql, "mysql": bulk_mysql}
"""Where SQLAlchemy would take longer than the server itself, or ask it once for each row."""


class NewRows:
    """Rows of results, collected and then inserted at once."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.rows: dict[sa.Table, list[Row]] = {table: [] for table in RESULT_TABLES}
        self.related: list[tuple[Row, Relations]] = []
        """Places of relations: their types are looked up for all images at once."""
        self.named: dict[str, int] = {}
        """Ids of classes that results name themselves."""

    def add(
        self, image_id: int, analyzer: RegisteredAnalyzer, version: str, result: Result
    ) -> None:
        """Notes what an analyzer has found in a version of an image."""
        place = {"image_id": image_id, "analyzer_id": analyzer.id}
        packed = None
        if isinstance(result, Relations):
            self.related.append((place, result))
        else:
            packed = _add_rows(self.rows, place, self._class_ids(analyzer, result), result)
        self.rows[tables.analysis].append({**place, "version": version, "classes": packed})

    def _class_ids(
        self, analyzer: RegisteredAnalyzer, result: Detections | Classification | Embedding
    ) -> Sequence[int]:
        """The catalog's ids of the classes that a result's class_ids point into."""
        names = () if isinstance(result, Embedding) else result.names
        if not names:
            return analyzer.class_ids
        new = [name for name in names if name not in self.named]
        if new:
            self.named.update(ids_by_name(self.connection, tables.klass, new))
        return [self.named[name] for name in names]

    def insert(self) -> None:
        """Inserts all rows."""
        triplets = {_parts(one) for _, found in self.related for one in found.relations}
        types = _type_ids(self.connection, sorted(triplets))
        for place, found in self.related:
            _add_relations(self.rows, types, place, found)
        for table, new in self.rows.items():
            for alike in by_columns(new):
                _insert(self.connection, table, alike)


def _insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
    """Inserts rows of the same columns."""
    if connection.dialect.name in _SERVERS:
        given = {name: _values(table.c[name], rows) for name in rows[0]}
        _SERVERS[connection.dialect.name].insert(connection, table, given, len(rows))
        return
    # Thousands of rows, a few bytes each: SQLAlchemy would take longer than SQLite itself.
    names = tuple(rows[0])
    text = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    columns = [map(itemgetter(name), rows) for name in names]
    for i, name in enumerate(names):
        process = (
            table.c[name].type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
        )
        if process is not None:
            columns[i] = map(process, columns[i])
    connection.exec_driver_sql(text, list(zip(*columns, strict=True)))


def _values(column: sa.Column[Any], rows: Sequence[Row]) -> list[Any]:
    """What rows have in a column, JSON as text."""
    found = [row[column.name] for row in rows]
    if isinstance(column.type, sa.JSON):
        return [None if one is None else dumped(one) for one in found]
    return found


def by_columns(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows grouped by their columns: a statement sets the same ones in all of its rows."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row), []).append(row)
    return list(groups.values())


def _add_rows(
    rows: dict[sa.Table, list[Row]],
    place: Row,
    known_ids: Sequence[int],
    result: Detections | Classification | Embedding,
) -> bytes | None:
    """Appends the rows that one analyzer's result for one image becomes; the packed classes."""
    if isinstance(result, Embedding):
        vector = result.vector.astype("<f2").tobytes()
        rows[tables.embedding].append(place | {"vector": vector})
        return None
    scores = _stored_scores(result.scores)
    class_ids = [known_ids[i] for i in result.class_ids.tolist()]
    best: dict[int, int] = {}
    for class_id, score in zip(class_ids, scores, strict=True):
        best[class_id] = max(score, best.get(class_id, 0))
    boxes = Counter(class_ids) if isinstance(result, Detections) else Counter[int]()
    if isinstance(result, Detections):
        rows[tables.box] += _box_rows(place, class_ids, scores, result)
    packed = [PackedClass(class_id, score, boxes[class_id]) for class_id, score in best.items()]
    rows[tables.image_class] += [
        {**place, "class_id": class_id, "score": score, "boxes": number}
        for class_id, score, number in packed
        if score or number
    ]
    return pack(packed)


def _stored_scores(scores: FloatArray | DoubleArray) -> list[int]:
    """Scores as the catalog has them; a small one stays above 0, which says: it is not there."""
    exact = np.asarray(scores, np.float64)
    stored = np.rint(exact * SCORE_SCALE).astype(int)
    found: list[int] = np.where((exact > 0) & (stored == 0), 1, stored).tolist()
    return found


def _add_relations(
    rows: dict[sa.Table, list[Row]],
    types: Mapping[tuple[str, str, str], int],
    place: Row,
    found: Relations,
) -> None:
    """Appends the rows that relations of one image become."""
    best: dict[int, int] = {}
    numbers: Counter[int] = Counter()
    for i, one in enumerate(found.relations):
        type_id = types[_parts(one)]
        score = stored_score(one.score)
        best[type_id] = max(score, best.get(type_id, 0))
        numbers[type_id] += 1
        both = (one.subject_xyxy or _NONE) + (one.object_xyxy or _NONE)
        corners = dict(zip(_CORNERS, both, strict=True))
        row = {**place, "ordinal": i, "type_id": type_id, "score": score, **corners}
        rows[tables.relation].append(row)
    rows[tables.image_relation] += [
        {**place, "type_id": type_id, "score": score, "relations": numbers[type_id]}
        for type_id, score in best.items()
    ]


_NONE = (None, None, None, None)
_CORNERS = tuple(
    f"{part}_{corner}" for part in ("subject", "object") for corner in ("x0", "y0", "x1", "y1")
)


def _parts(one: Relation) -> tuple[str, str, str]:
    return one.subject, one.predicate, one.object


def _type_ids(
    connection: sa.Connection, triplets: Sequence[tuple[str, str, str]]
) -> dict[tuple[str, str, str], int]:
    """The relation types of triplets, made where they are new."""
    if not triplets:
        return {}
    names = sorted({name for one in triplets for name in (one[0], one[2])})
    classes = ids_by_name(connection, tables.klass, names)
    predicates = ids_by_name(connection, tables.predicate, sorted({one[1] for one in triplets}))
    parts = [(classes[s], predicates[p], classes[o]) for s, p, o in triplets]
    known = _known_types(connection, parts)
    new = [one for one in dict.fromkeys(parts) if one not in known]
    if new:
        columns = ("subject_id", "predicate_id", "object_id")
        rows = [dict(zip(columns, one, strict=True)) for one in new]
        connection.execute(sa.insert(tables.relation_type), rows)
        known = _known_types(connection, parts)
    return {triplet: known[one] for triplet, one in zip(triplets, parts, strict=True)}


def _known_types(
    connection: sa.Connection, parts: Sequence[tuple[int, int, int]]
) -> dict[tuple[int, int, int], int]:
    table = tables.relation_type
    query = sa.select(table.c.subject_id, table.c.predicate_id, table.c.object_id, table.c.id)
    found: dict[tuple[int, int, int], int] = {}
    for subjects in slices(sorted({one[0] for one in parts})):
        for subject, predicate, object_, id_ in connection.execute(
            query.where(table.c.subject_id.in_(subjects))
        ):
            found[subject, predicate, object_] = id_
    return found


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
    only = None if analyzer_ids is None else sorted(analyzer_ids)
    if only is not None and not only:
        return
    for table, key, ranked in (
        (tables.image_class, "class_id", ranked_classes),
        (tables.image_relation, "type_id", ranked_relations),
    ):
        rows = ranked(connection, image_ids, only)
        if rows:
            _delete_ranked(connection, table, key, rows)
    for part in slices(image_ids):
        for table in (tables.box, tables.relation, tables.embedding, tables.analysis):
            statement = sa.delete(table).where(table.c.image_id.in_(part))
            if only is not None:
                statement = statement.where(table.c.analyzer_id.in_(only))
            connection.execute(statement)


def _delete_ranked(
    connection: sa.Connection, table: sa.Table, key: str, rows: Sequence[Ranked]
) -> None:
    """Removes rows of image_class or image_relation by their primary key."""
    keys = {
        key: [row.key for row in rows],
        "score": [row.score for row in rows],
        "image_id": [row.image_id for row in rows],
        "analyzer_id": [row.analyzer_id for row in rows],
    }
    if connection.dialect.name in _SERVERS:
        _SERVERS[connection.dialect.name].delete(connection, table, keys)
        return
    matched = " AND ".join(f"{name} = ?" for name in keys)
    values = list(zip(*keys.values(), strict=True))
    connection.exec_driver_sql(f"DELETE FROM {table.name} WHERE {matched}", values)
