"""Counts of images and boxes per class, kept in the transaction that changes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.tables import ANY_ANALYZER

V = TypeVar("V")
SQL_LIST = 500
"""Values in one IN (...): databases limit the number of parameters."""


def slices(values: Sequence[V]) -> Iterable[Sequence[V]]:
    """The values in parts that fit into one IN (...)."""
    for start in range(0, len(values), SQL_LIST):
        yield values[start : start + SQL_LIST]


class Counts:
    """Differences that a transaction makes to class_count, collected and then written at once."""

    def __init__(self) -> None:
        self.images: Counter[tuple[int, int]] = Counter()
        self.boxes: Counter[tuple[int, int]] = Counter()

    def add_images(self, connection: sa.Connection, image_ids: Sequence[int], sign: int) -> None:
        """Adds, or with sign -1 takes away, what image_class holds for these images."""
        table = tables.image_class
        for part in slices(image_ids):
            query = sa.select(
                table.c.image_id, table.c.class_id, table.c.analyzer_id, table.c.boxes
            ).where(table.c.image_id.in_(part))
            rows = connection.execute(query).mappings()
            self.add_rows(rows, sign)

    def add_rows(self, rows: Iterable[Mapping[Any, Any]], sign: int = 1) -> None:
        """Adds rows of image_class; all rows of an image must come in one call."""
        seen: set[tuple[int, int]] = set()
        for row in rows:
            class_id, analyzer_id = row["class_id"], row["analyzer_id"]
            if (row["image_id"], class_id) not in seen:
                seen.add((row["image_id"], class_id))
                self.images[class_id, ANY_ANALYZER] += sign
            self.images[class_id, analyzer_id] += sign
            self.boxes[class_id, ANY_ANALYZER] += sign * row["boxes"]
            self.boxes[class_id, analyzer_id] += sign * row["boxes"]

    def write(self, connection: sa.Connection) -> None:
        """Adds the differences to class_count."""
        pairs = sorted(self.images)
        if not pairs:
            return
        table = tables.class_count
        known = self._known(connection, sorted({class_id for class_id, _ in pairs}))
        new = [
            {"class_id": class_id, "analyzer_id": analyzer_id, "images": 0, "boxes": 0}
            for class_id, analyzer_id in pairs
            if (class_id, analyzer_id) not in known
        ]
        if new:
            connection.execute(sa.insert(table), new)
        statement = (
            sa.update(table)
            .where(
                table.c.class_id == sa.bindparam("a_class"),
                table.c.analyzer_id == sa.bindparam("an_analyzer"),
            )
            .values(
                images=table.c.images + sa.bindparam("more_images"),
                boxes=table.c.boxes + sa.bindparam("more_boxes"),
            )
        )
        changes = [
            {
                "a_class": class_id,
                "an_analyzer": analyzer_id,
                "more_images": self.images[class_id, analyzer_id],
                "more_boxes": self.boxes[class_id, analyzer_id],
            }
            for class_id, analyzer_id in pairs
        ]
        connection.execute(statement, changes)

    @staticmethod
    def _known(connection: sa.Connection, class_ids: Sequence[int]) -> set[tuple[int, int]]:
        table = tables.class_count
        known: set[tuple[int, int]] = set()
        for part in slices(class_ids):
            query = sa.select(table.c.class_id, table.c.analyzer_id).where(
                table.c.class_id.in_(part)
            )
            known.update((row.class_id, row.analyzer_id) for row in connection.execute(query))
        return known
