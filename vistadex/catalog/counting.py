"""Counts per class, relation type and predicate, kept in the transaction that changes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.packing import triplets
from vistadex.catalog.tables import ANY_ANALYZER

V = TypeVar("V")
SQL_LIST = 500
"""Values in one IN (...): databases limit the number of parameters."""


def slices(values: Sequence[V]) -> Iterable[Sequence[V]]:
    """The values in parts that fit into one IN (...)."""
    for start in range(0, len(values), SQL_LIST):
        yield values[start : start + SQL_LIST]


class Ranked(NamedTuple):
    """A row of image_class or image_relation."""

    image_id: int
    analyzer_id: int
    key: int
    """A class or a relation type."""
    score: int
    number: int
    """Boxes or relations."""


def ranked_classes(
    connection: sa.Connection, image_ids: Sequence[int], analyzers: Sequence[int] | None = None
) -> list[Ranked]:
    """The rows of image_class of these images, as analysis.classes has them."""
    table = tables.analysis
    found: list[Ranked] = []
    for part in slices(image_ids):
        query = sa.select(table.c.image_id, table.c.analyzer_id, table.c.classes).where(
            table.c.image_id.in_(part), table.c.classes.is_not(None)
        )
        if analyzers is not None:
            query = query.where(table.c.analyzer_id.in_(analyzers))
        for image_id, analyzer_id, packed in connection.execute(query):
            found += [
                Ranked(image_id, analyzer_id, class_id, score, boxes)
                for class_id, score, boxes in triplets(packed)
                if score or boxes
            ]
    return found


def ranked_relations(
    connection: sa.Connection, image_ids: Sequence[int], analyzers: Sequence[int] | None = None
) -> list[Ranked]:
    """The rows of image_relation of these images, as relation has them."""
    table = tables.relation
    found: list[Ranked] = []
    keys = (table.c.image_id, table.c.analyzer_id, table.c.type_id)
    for part in slices(image_ids):
        query = sa.select(*keys, sa.func.max(table.c.score), sa.func.count()).group_by(*keys)
        query = query.where(table.c.image_id.in_(part))
        if analyzers is not None:
            query = query.where(table.c.analyzer_id.in_(analyzers))
        found += [Ranked(*row) for row in connection.execute(query)]
    return found


class _Tally:
    """Differences to one table of counts."""

    def __init__(self, table: sa.Table, things: str) -> None:
        self.table, self.things = table, things
        self.images: Counter[tuple[int, int]] = Counter()
        self.numbers: Counter[tuple[int, int]] = Counter()

    def add(self, rows: Iterable[Ranked], sign: int) -> None:
        seen: set[tuple[int, int, int]] = set()
        for image_id, analyzer_id, key, _, number in rows:
            for counted in (ANY_ANALYZER, analyzer_id):
                if (image_id, key, counted) not in seen:
                    seen.add((image_id, key, counted))
                    self.images[key, counted] += sign
                self.numbers[key, counted] += sign * number

    def write(self, connection: sa.Connection) -> None:
        pairs = sorted(pair for pair in self.images if self.images[pair] or self.numbers[pair])
        if not pairs:
            return
        table, (key, analyzer) = self.table, tuple(self.table.primary_key)
        known: set[tuple[int, int]] = set()
        for part in slices(sorted({one for one, _ in pairs})):
            query = sa.select(key, analyzer).where(key.in_(part))
            known.update((row[0], row[1]) for row in connection.execute(query))
        new = [
            {key.name: pair[0], analyzer.name: pair[1], "images": 0, self.things: 0}
            for pair in pairs
            if pair not in known
        ]
        if new:
            connection.execute(sa.insert(table), new)
        number = table.c[self.things]
        statement = (
            sa.update(table)
            .where(key == sa.bindparam("a_key"), analyzer == sa.bindparam("an_analyzer"))
            .values(
                {
                    "images": table.c.images + sa.bindparam("more_images"),
                    self.things: number + sa.bindparam("more_things"),
                }
            )
        )
        changes = [
            {
                "a_key": pair[0],
                "an_analyzer": pair[1],
                "more_images": self.images[pair],
                "more_things": self.numbers[pair],
            }
            for pair in pairs
        ]
        connection.execute(statement, changes)


class Counts:
    """Differences that a transaction makes to the tables of counts, written at its end."""

    def __init__(self) -> None:
        self.classes = _Tally(tables.class_count, "boxes")
        self.types = _Tally(tables.relation_count, "relations")
        self.predicates = _Tally(tables.predicate_count, "relations")
        self.seen: Counter[int] = Counter()
        """Images that each analyzer has seen."""

    def add_images(self, connection: sa.Connection, image_ids: Sequence[int], sign: int) -> None:
        """Adds, or with sign -1 takes away, what the catalog holds for these images."""
        for analyzer_id, number in _analyses(connection, image_ids):
            self.seen[analyzer_id] += sign * number
        self.classes.add(ranked_classes(connection, image_ids), sign)
        self._add_relations(connection, ranked_relations(connection, image_ids), sign)

    def _add_relations(self, connection: sa.Connection, rows: Sequence[Ranked], sign: int) -> None:
        if not rows:
            return
        self.types.add(rows, sign)
        predicates = predicates_of(connection, sorted({row.key for row in rows}))
        of_predicate = [row._replace(key=predicates[row.key]) for row in rows]
        self.predicates.add(of_predicate, sign)

    def write(self, connection: sa.Connection) -> None:
        """Adds the differences to the tables."""
        for tally in (self.classes, self.types, self.predicates):
            tally.write(connection)
        add_to_analyzers(connection, self.seen)


def _analyses(connection: sa.Connection, image_ids: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Analyzers, and how many of some of these images each has seen."""
    table = tables.analysis
    for part in slices(image_ids):
        query = sa.select(table.c.analyzer_id, sa.func.count()).where(table.c.image_id.in_(part))
        yield from map(tuple, connection.execute(query.group_by(table.c.analyzer_id)))


def add_to_analyzers(connection: sa.Connection, seen: Mapping[int, int]) -> None:
    """Keeps the numbers of images that analyzers have seen."""
    table = tables.analyzer
    for analyzer_id, number in sorted(seen.items()):
        if number:
            statement = sa.update(table).where(table.c.id == analyzer_id)
            connection.execute(statement.values(images=table.c.images + number))


def predicates_of(connection: sa.Connection, type_ids: Sequence[int]) -> dict[int, int]:
    """The predicate of each relation type."""
    table = tables.relation_type
    found: dict[int, int] = {}
    for part in slices(type_ids):
        query = sa.select(table.c.id, table.c.predicate_id).where(table.c.id.in_(part))
        found.update((row.id, row.predicate_id) for row in connection.execute(query))
    return found
