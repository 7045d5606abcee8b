"""Sums over rows that do not depend on their order: two tables are equal if their sums are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

ROWS = 20_000
"""In memory at a time."""
Words = NDArray[np.uint64]
_STEP, _FIRST, _SECOND, _NOTHING = (
    np.uint64(one)
    for one in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93)
)


def mixed(words: Words) -> Words:
    """Each word spread over all of its bits (splitmix64)."""
    words = words + _STEP
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))


def row_words(columns: Sequence[Words]) -> Words:
    """(N,) one word a row, of (N,) words of each column; the order of columns matters."""
    found = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        found = mixed(found ^ mixed(column))
    return found


def integers(values: Sequence[Any]) -> Words:
    """(N,) the words of whole numbers."""
    return np.array(values, np.int64).view(np.uint64)


class Checksum:
    """The number of a table's rows and their sum."""

    def __init__(self, table: sa.Table) -> None:
        self.kinds = [_kind(column) for column in table.c]
        self.rows = 0
        self.sum = 0

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Adds rows with all columns of the table."""
        if rows:
            columns = [
                _words(kind, values)
                for kind, values in zip(self.kinds, zip(*rows, strict=True), strict=True)
            ]
            self.rows += len(rows)
            self.sum = (self.sum + int(row_words(columns).sum(dtype=np.uint64))) % (1 << 64)

    @property
    def text(self) -> str:
        """The sum in 16 digits."""
        return f"{self.sum:016x}"


def _kind(column: sa.Column[Any]) -> str:
    if isinstance(column.type, sa.Integer):
        return "int"
    return "float" if isinstance(column.type, sa.Float) else "bytes"


def _words(kind: str, values: Sequence[Any]) -> Words:
    """(N,) the words of a column's values, of which some may be None."""
    absent = [i for i, value in enumerate(values) if value is None]
    if len(absent) == len(values):
        return np.full(len(values), _NOTHING)
    if kind == "bytes":
        found = np.array([0 if one is None else _digest(one) for one in values], np.uint64)
    else:
        numbers = [0 if one is None else one for one in values] if absent else values
        dtype = np.int64 if kind == "int" else np.float64
        found = (np.array(numbers, dtype) + 0).view(np.uint64)  # -0.0 and 0.0 are one
    if absent:
        found[absent] = _NOTHING
    return found


def _digest(value: object) -> int:
    if isinstance(value, str):
        whole = b"t" + value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes):
        whole = b"b" + value
    else:
        whole = b"j" + json.dumps(value, sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest(), "little")


def streamed(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[Sequence[sa.Row[Any]]]:
    """The rows of a query, ROWS of them in memory at a time."""
    result = connection.execute(query.execution_options(yield_per=ROWS))
    yield from result.partitions()
