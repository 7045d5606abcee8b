"""Proof that a catalog is consistent: what is kept twice agrees, and nothing points nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import Catalog, checking_postings, opening, tables
from vistadex.catalog.checksums import Words, integers, row_words, streamed
from vistadex.catalog.packing import columns as unpacked
from vistadex.catalog.scope import STATUSES
from vistadex.catalog.tables import ANY_ANALYZER

EXAMPLES = 5
BUCKETS = 1 << 16
"""Sums are kept for images in groups, so that a difference leads to its images."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a catalog that can't be right."""

    table: str
    what: str
    number: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        some = f": {', '.join(self.examples)}" if self.examples else ""
        more = " ..." if self.number > len(self.examples) > 0 else ""
        return f"{self.table}: {self.number:,} {self.what}{some}{more}"


Check = Callable[[sa.Connection], Iterable[Finding]]


def check_catalog(location: str) -> list[Finding]:
    """Everything that is wrong in a catalog, in one state of it; empty where all is right.

    Args:
        location: file name or address.
    Raises: CatalogError where it can't be opened or read at all.
    """
    found: list[Finding] = []
    with (
        Catalog(location) as catalog,
        opening.translated(catalog.place),
        catalog.engine.connect().execution_options(patient=True) as connection,
        connection.begin(),
    ):
        found += _schema(connection)
        if found:  # what follows would fail
            return found
        checks: tuple[Check, ...] = (_file, _state, _orphans, _image_counts, _counts, _forward)
        for check in checks:
            found += check(connection)
        if catalog.postings is not None:
            for table, what, ids in checking_postings.differences(connection, catalog.postings):
                found.append(Finding(table, what, len(ids), tuple(map(str, ids[:EXAMPLES]))))
    return found


def _schema(connection: sa.Connection) -> Iterator[Finding]:
    inspector = sa.inspect(connection)
    there = set(inspector.get_table_names())
    for table in tables.metadata.sorted_tables:
        if table.name not in there:
            yield Finding(table.name, "table is missing", 1)
            continue
        known = {column["name"] for column in inspector.get_columns(table.name)}
        missing = [column.name for column in table.c if column.name not in known]
        if missing:
            yield Finding(table.name, "columns are missing", len(missing), tuple(missing))


def _file(connection: sa.Connection) -> Iterator[Finding]:
    """What SQLite itself finds wrong in its file; servers have tools of their own."""
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql(f"PRAGMA integrity_check({EXAMPLES})").scalars().all()
        wrong = tuple(str(row) for row in rows if row != "ok")
        if wrong:
            yield Finding("file", "damages found by SQLite", len(wrong), wrong)


def _state(connection: sa.Connection) -> Iterator[Finding]:
    state, change, image = tables.state, tables.change, tables.image
    rows = connection.execute(sa.select(state.c.revision)).scalars().all()
    if len(rows) != 1:
        yield Finding("state", "rows, expected 1", len(rows))
        return
    last = connection.execute(sa.select(sa.func.max(change.c.revision))).scalar() or 0
    if last > rows[0]:
        yield Finding("change", f"changes after revision {rows[0]}", last - rows[0])
    query = sa.select(image.c.id).where(image.c.status.not_in(STATUSES))
    yield from _listed(connection, query, "image", "images with an unknown status")


def _listed(
    connection: sa.Connection, query: sa.Select[Any], table: str, what: str
) -> Iterator[Finding]:
    """A finding if the query has rows: how many, and some of them."""
    number = connection.execute(sa.select(sa.func.count()).select_from(query.subquery())).scalar()
    if number:
        rows = connection.execute(query.limit(EXAMPLES)).all()
        yield Finding(table, what, number, tuple("/".join(map(str, row)) for row in rows))


def _orphans(connection: sa.Connection) -> Iterator[Finding]:
    """Rows that point to rows which are not there."""
    for table in tables.metadata.sorted_tables:
        for key in sorted(table.foreign_keys, key=lambda key: key.parent.name):
            parent = key.column.table.alias("parent")
            wanted = parent.c[key.column.name]
            query = (
                sa.select(*table.primary_key)
                .select_from(table.outerjoin(parent, key.parent == wanted))
                .where(key.parent.is_not(None), wanted.is_(None))
            )
            what = f"rows whose {key.parent.name} is no {key.column.table.name}"
            yield from _listed(connection, query, table.name, what)
    image, shared = tables.image, tables.attribute_set
    query = (
        sa.select(image.c.id)
        .select_from(image.outerjoin(shared, image.c.attribute_set_id == shared.c.id))
        .where(image.c.attribute_set_id.is_not(None), shared.c.id.is_(None))
    )
    yield from _listed(
        connection, query, "image", "rows whose attribute_set_id is no attribute_set"
    )
    analysis = tables.analysis
    for table in (tables.box, tables.relation, tables.embedding):
        both = sa.and_(
            table.c.image_id == analysis.c.image_id, table.c.analyzer_id == analysis.c.analyzer_id
        )
        query = (
            sa.select(*table.primary_key)
            .select_from(table.outerjoin(analysis, both))
            .where(analysis.c.image_id.is_(None))
        )
        yield from _listed(connection, query, table.name, "rows without an analysis")


def _image_counts(connection: sa.Connection) -> Iterator[Finding]:
    """Images of sources, and those that analyzers have seen."""
    source, analyzer = tables.source, tables.analyzer
    for table, of, name in (
        (source, tables.image.c.source_id, source.c.uri),
        (analyzer, tables.analysis.c.analyzer_id, analyzer.c.id),
    ):
        there = dict(map(tuple, connection.execute(sa.select(of, sa.func.count()).group_by(of))))
        kept = connection.execute(sa.select(table.c.id, name, table.c.images))
        wrong = [
            f"{place} says {images:,}, has {there.get(id_, 0):,}"
            for id_, place, images in kept
            if images != there.get(id_, 0)
        ]
        if wrong:
            what = f"{table.name}s with a wrong number of images"
            yield Finding(table.name, what, len(wrong), tuple(wrong[:EXAMPLES]))


def _counts(connection: sa.Connection) -> Iterator[Finding]:
    """Counts that are kept against what is counted now."""
    ranked, related, types = tables.image_class, tables.image_relation, tables.relation_type
    of_type = related.join(types, related.c.type_id == types.c.id)
    for kept, key, rows, number in (
        (tables.class_count, ranked.c.class_id, ranked, ranked.c.boxes),
        (tables.relation_count, related.c.type_id, related, related.c.relations),
        (tables.predicate_count, types.c.predicate_id, of_type, related.c.relations),
    ):
        table = related if rows is of_type else rows
        images = sa.func.count(sa.distinct(table.c.image_id))
        found: dict[tuple[int, int], tuple[int, int]] = {}
        for by in ([table.c.analyzer_id], []):
            query = sa.select(key, *by, images, sa.func.sum(number)).select_from(rows)
            for row in connection.execute(query.group_by(key, *by)):
                analyzer = row[1] if by else ANY_ANALYZER
                found[row[0], analyzer] = int(row[-2]), int(row[-1])
        yield from _differences(connection, kept, found)


def _differences(
    connection: sa.Connection, table: sa.Table, found: dict[tuple[int, int], tuple[int, int]]
) -> Iterator[Finding]:
    kept = {(row[0], row[1]): (row[2], row[3]) for row in connection.execute(sa.select(table))}
    wrong = [
        f"{table.columns.keys()[0]} {pair[0]} analyzer {pair[1]} says {kept.get(pair, (0, 0))}, "
        f"has {found.get(pair, (0, 0))}"
        for pair in sorted(kept.keys() | found.keys())
        if kept.get(pair, (0, 0)) != found.get(pair, (0, 0))
    ]
    if wrong:
        yield Finding(table.name, "counts are wrong", len(wrong), tuple(wrong[:EXAMPLES]))


class _Sums:
    """The difference of two sets of rows, by groups of images."""

    def __init__(self) -> None:
        self.sums = np.zeros(BUCKETS, np.uint64)

    def add(self, image_ids: Words, other: Sequence[Words], *, sign: int) -> None:
        """Adds rows, or takes them away."""
        words = row_words([image_ids, *other])
        groups = (image_ids % np.uint64(BUCKETS)).astype(np.int64)
        np.add.at(self.sums, groups, words if sign > 0 else ~words + np.uint64(1))

    def groups(self) -> list[int]:
        """The groups in which the two sets differ."""
        found: list[int] = np.flatnonzero(self.sums).tolist()
        return found


def _forward(connection: sa.Connection) -> Iterator[Finding]:
    """Packed classes and boxes against image_class, relations against image_relation."""
    box, relation = tables.box, tables.relation
    of_boxes = _best(box, box.c.class_id)
    of_relations = _best(relation, relation.c.type_id)
    ranked, related = tables.image_class, tables.image_relation
    classes = _ranked(ranked, ranked.c.class_id, ranked.c.boxes)
    types = _ranked(related, related.c.type_id, related.c.relations)
    for table, what, one, other in (
        ("analysis", "images whose classes are not those of image_class", _packed, _rows(classes)),
        (
            "box",
            "images whose boxes are not those of image_class",
            _rows(of_boxes),
            _rows(classes.where(ranked.c.boxes > 0)),
        ),
        (
            "relation",
            "images whose relations are not those of image_relation",
            _rows(of_relations),
            _rows(types),
        ),
    ):
        sums = _Sums()
        for columns in one(connection, None):
            sums.add(columns[0], columns[1:], sign=1)
        for columns in other(connection, None):
            sums.add(columns[0], columns[1:], sign=-1)
        if groups := sums.groups():
            images = _unlike(
                one(connection, groups[:EXAMPLES]), other(connection, groups[:EXAMPLES])
            )
            shown = tuple(f"image {id_}" for id_ in images[:EXAMPLES])
            yield Finding(table, what, max(len(groups), len(images)), shown)


Columns = Iterator[list[Words]]
"""Image, analyzer, class or type, score, number: (N,) words each."""
Reader = Callable[[sa.Connection, "list[int] | None"], Columns]


def _best(table: sa.Table, key: Any) -> sa.Select[Any]:
    keys = (table.c.image_id, table.c.analyzer_id, key)
    return sa.select(*keys, sa.func.max(table.c.score), sa.func.count()).group_by(*keys)


def _ranked(table: sa.Table, key: Any, number: Any) -> sa.Select[Any]:
    return sa.select(table.c.image_id, table.c.analyzer_id, key, table.c.score, number)


def _rows(query: sa.Select[Any]) -> Reader:
    """Reads rows of numbers, of all images or of some groups."""

    def read(connection: sa.Connection, groups: list[int] | None) -> Columns:
        for rows in streamed(connection, _of_groups(query, groups)):
            yield [integers(one) for one in zip(*rows, strict=True)]

    return read


def _of_groups(query: sa.Select[Any], groups: list[int] | None) -> sa.Select[Any]:
    if groups is None:
        return query
    image_id: Any = next(iter(query.selected_columns))
    return query.where((image_id % BUCKETS).in_(groups))


def _packed(connection: sa.Connection, groups: list[int] | None) -> Columns:
    """Reads what analysis.classes says, without the classes that are not there."""
    table = tables.analysis
    query = sa.select(table.c.image_id, table.c.analyzer_id, table.c.classes)
    query = query.where(table.c.classes.is_not(None))
    for rows in streamed(connection, _of_groups(query, groups)):
        images, analyzers, classes = zip(*rows, strict=True)
        numbers = [len(one) // 8 for one in classes]
        there = unpacked(b"".join(classes))
        present = (there[1] > 0) | (there[2] > 0)
        placed = [np.repeat(integers(one), numbers) for one in (images, analyzers)]
        columns = [*placed, *(one.astype(np.uint64) for one in there)]
        yield [one[present] for one in columns]


def _unlike(one: Columns, other: Columns) -> list[int]:
    """The images of which one has other rows than the other."""
    sets = []
    for columns in (one, other):
        sets.append(
            {row for part in columns for row in zip(*(c.tolist() for c in part), strict=True)}
        )
    return sorted({row[0] for row in sets[0] ^ sets[1]})
