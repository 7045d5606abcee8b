"""Rows of the tables for posting lists, as arrays, some images at a time.

Python objects for each value of each row would take most of the time of a build: SQLite puts the
values of a column into one text instead. Shape letters: R rows of a batch.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.counting import slices
from vistadex.catalog.postings import Array

BATCH = 4000
"""Rows of a table read at a time: small enough for the processor's cache."""
IMAGES = 2000
"""Images whose rows SQLite puts together at a time."""
_FIRST, _LAST = -(1 << 62), 1 << 62


class Columns(NamedTuple):
    """What to read of a table, and by which rising id of an image."""

    image_id: Any
    numbers: Sequence[Any]
    """Columns of integers, the image's id first."""
    order: Sequence[Any]
    """Of the rows; begins with the image's id."""
    real: Any = None
    """A column of floating-point numbers."""
    packed: Any = None
    """A column of bytes; rows without any are left out."""
    grouped: bool = False
    """One row for those that are the same in `order`."""


class Range(NamedTuple):
    """Ids of images."""

    first: int
    last: int


class Batch(NamedTuple):
    """Rows in order."""

    numbers: list[Array]
    """(R,) int64 each."""
    real: Array
    """(R,) float64; empty where it is not asked for."""
    packed: bytes
    """Of all rows."""
    sizes: Array
    """(R,) bytes of each row."""


def of_some(
    connection: sa.Connection, columns: Columns, image_ids: Sequence[int]
) -> Iterator[Batch]:
    """The rows of some images."""
    query = _query(columns)
    for part in slices(image_ids):
        rows = connection.execute(query.where(columns.image_id.in_(part))).all()
        if rows:
            yield _batch(columns, rows)


def of_all(
    connection: sa.Connection, columns: Columns, ranges: Sequence[Range]
) -> Generator[Batch, None, None]:
    """Every row.

    Args:
        ranges: see ranges_of.
    """
    if connection.dialect.name == "sqlite":
        yield from _put_together(connection, columns, ranges)
        return
    streamed = {"stream_results": True, "max_row_buffer": BATCH}
    with connection.execute(_query(columns), execution_options=streamed) as result:
        for rows in result.partitions(BATCH):
            yield _batch(columns, rows)


def ranges_of(connection: sa.Connection) -> list[Range]:
    """Ranges of ids that together hold every id, with IMAGES images each; [] if not needed."""
    if connection.dialect.name != "sqlite":
        return []
    found = [_FIRST]
    image_id = tables.image.c.id
    some = sa.select(image_id).where(image_id > sa.bindparam("after")).order_by(image_id)
    statement = sa.select(sa.func.max(some.limit(IMAGES).subquery().c.id))
    while (last := connection.execute(statement, {"after": found[-1]}).scalar()) is not None:
        found.append(last)
    return [Range(before + 1, last) for before, last in pairwise([*found[:-1], _LAST])]


def _query(columns: Columns) -> sa.Select[Any]:
    given = [one for one in (columns.real, columns.packed) if one is not None]
    query = sa.select(*columns.numbers, *given).order_by(*columns.order)
    if columns.packed is not None:
        query = query.where(columns.packed.is_not(None))
    return query.group_by(*columns.order) if columns.grouped else query


def _batch(columns: Columns, rows: Sequence[Any]) -> Batch:
    values = list(zip(*rows, strict=True))
    numbers = [np.array(values[i], np.int64) for i in range(len(columns.numbers))]
    real, packed, sizes = np.empty(0), b"", np.empty(0, np.int64)
    if columns.real is not None:
        real = np.array(values[len(numbers)], np.float64)
    if columns.packed is not None:
        packed = b"".join(values[-1])
        sizes = np.fromiter(map(len, values[-1]), np.int64, len(rows))
    return Batch(numbers, real, packed, sizes)


def _put_together(
    connection: sa.Connection, columns: Columns, ranges: Sequence[Range]
) -> Iterator[Batch]:
    """Every row of a table of SQLite, in which numbers arrive as texts, and bytes as digits."""
    within = columns.image_id.between(sa.bindparam("first"), sa.bindparam("last"))
    rows = tuple(_query(columns._replace(real=None)).where(within).subquery().c)
    texts = [sa.func.group_concat(one) for one in rows[: len(columns.numbers)]]
    if columns.packed is not None:
        texts.append(sa.func.group_concat(sa.func.length(rows[-1])))
        texts.append(sa.func.group_concat(sa.func.hex(rows[-1]), ""))
    statement = sa.select(*texts)
    for one in ranges:
        found = connection.execute(statement, one._asdict()).one()
        if found[0] is None:
            continue
        packed = b"" if columns.packed is None else bytes.fromhex(found[-1])
        numbers = [np.fromstring(text, np.int64, sep=",") for text in found[: len(rows)]]
        sizes = numbers.pop() if columns.packed is not None else np.empty(0, np.int64)
        yield Batch(numbers, _reals(connection, columns, one), packed, sizes)


def _reals(connection: sa.Connection, columns: Columns, of: Range) -> Array:
    """The column of floating-point numbers: as texts they would lose digits."""
    if columns.real is None:
        return np.empty(0)
    query = sa.select(columns.real).where(columns.image_id.between(*of)).order_by(*columns.order)
    cursor: Any = connection.execute(query).cursor
    values = cursor.fetchall()
    return np.fromiter((value for (value,) in values), np.float64, len(values))
