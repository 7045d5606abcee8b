"""Rows by column into PostgreSQL, by its COPY in binary: NumPy lays out what the server reads."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vistadex.catalog.columns import Name, Nullable, Prose
from vistadex.catalog.database import as_statement

ROWS_AT_A_TIME = 20_000
"""Of rows that are held as bytes."""
_HEAD = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_END = struct.pack(">h", -1)
_NULL = -1
"""The length of what is NULL."""


def delete(connection: sa.Connection, table: sa.Table, keys: Mapping[str, list[int]]) -> None:
    """Removes rows by their keys, all in one statement.

    Args:
        keys: (N,) whole numbers by column.
    """
    quote = connection.dialect.identifier_preparer.quote
    given = [f"CAST(:{name} AS integer[])" for name in keys]
    matched = [f"{quote(table.name)}.{quote(name)} = gone.{quote(name)}" for name in keys]
    text = (
        f"DELETE FROM {quote(table.name)} USING unnest({', '.join(given)}) "
        f"AS gone({', '.join(map(quote, keys))}) WHERE {' AND '.join(matched)}"
    )
    connection.execute(sa.text(text), dict(keys))


def set_number(connection: sa.Connection, table: sa.Table) -> None:
    """Lets the next row have a number behind all that there are; others do so by themselves."""
    column = table.autoincrement_column
    if column is None or connection.dialect.name != "postgresql":
        return
    sequence = sa.func.pg_get_serial_sequence(
        connection.dialect.identifier_preparer.format_table(table), column.name
    )
    last = sa.select(sa.func.max(column)).scalar_subquery()
    query = sa.select(sa.func.setval(sequence, last)).where(last.is_not(None))
    connection.execute(query)


class _Field(NamedTuple):
    """A column as COPY has it: each value is its length in bytes, then these."""

    lengths: NDArray[np.int32] | int
    fixed: NDArray[Any] | None = None
    """(N,) where all are equally long."""
    varying: list[bytes] | None = None


def insert(
    connection: sa.Connection, table: sa.Table, columns: Mapping[str, Any], rows: int
) -> None:
    """Inserts rows that are given by column, as bulk_sqlite.insert does; JSON is given as text.

    Raises: CatalogError for a name that no server can hold.
    """
    quote = connection.dialect.identifier_preparer.quote
    names = ",".join(map(quote, columns))
    statement = f"COPY {quote(table.name)} ({names}) FROM STDIN (FORMAT BINARY)"
    kinds = [_Kind.of(table.c[name].type, connection.dialect) for name in columns]
    driver: Any = connection.connection.dbapi_connection
    with (
        as_statement(connection, statement),
        driver.cursor() as cursor,
        cursor.copy(statement) as copying,
    ):
        copying.write(_HEAD)
        for start in range(0, rows, ROWS_AT_A_TIME):
            end = min(start + ROWS_AT_A_TIME, rows)
            fields = [
                _field(kind, _part(values, start, end), end - start)
                for kind, values in zip(kinds, columns.values(), strict=True)
            ]
            copying.write(_laid_out(fields, end - start))
        copying.write(_END)


def _part(values: Any, start: int, end: int) -> Any:
    if isinstance(values, Nullable):
        return Nullable(values.values[start:end], values.unknown)
    return values[start:end] if isinstance(values, np.ndarray | list) else values


class _Kind(NamedTuple):
    """What the server reads in a column."""

    number: str | None
    """Numbers of this form; None: text or bytes."""
    storable: Callable[[str], str] | None
    """What makes of a text what the server can hold; None: it can."""

    @classmethod
    def of(cls, kind: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> _Kind:
        storable = kind.bind_processor(dialect) if isinstance(kind, Name | Prose) else None
        for known, number in ((sa.Float, ">f8"), (sa.BigInteger, ">i8"), (sa.Integer, ">i4")):
            if isinstance(kind, known):
                return cls(number, storable)
        return cls(None, storable)

    def encoded(self, value: Any) -> bytes | None:
        """Raises: CatalogError for a name that no server can hold."""
        if value is None or isinstance(value, bytes):
            return value
        found: bytes = (value if self.storable is None else self.storable(value)).encode()
        return found


def _field(kind: _Kind, values: Any, rows: int) -> _Field:
    number = kind.number
    if isinstance(values, Nullable):
        return _numbers(values.values, values.values == values.unknown, number or ">i4")
    if isinstance(values, np.ndarray) and number:
        return _Field(np.dtype(number).itemsize, values.astype(number))
    if not isinstance(values, list):
        return _constant(kind, values, rows)
    if number:
        unknown = np.array([one is None for one in values], bool)
        given = [0 if one is None else one for one in values] if unknown.any() else values
        return _numbers(np.array(given), unknown, number)
    found = [kind.encoded(one) for one in values]
    lengths = np.fromiter((_NULL if one is None else len(one) for one in found), np.int32, rows)
    if (lengths <= 0).all():
        return _Field(lengths)
    return _Field(lengths, varying=[one or b"" for one in found])


def _numbers(values: NDArray[Any], unknown: NDArray[np.bool_], number: str) -> _Field:
    size = np.dtype(number).itemsize
    if not unknown.any():
        return _Field(size, values.astype(number))
    if unknown.all():
        return _Field(_NULL)
    found: list[bytes] = values.astype(number).view(f"V{size}").tolist()
    varying = [b"" if no else one for one, no in zip(found, unknown.tolist(), strict=True)]
    return _Field(np.where(unknown, _NULL, size).astype(np.int32), varying=varying)


def _constant(kind: _Kind, value: Any, rows: int) -> _Field:
    """What all rows have."""
    if value is not None and kind.number:
        return _Field(np.dtype(kind.number).itemsize, np.full(rows, value, kind.number))
    found = kind.encoded(value)
    if not found:
        return _Field(_NULL if found is None else 0)
    return _Field(len(found), np.full(rows, found, f"S{len(found)}"))


def _laid_out(fields: list[_Field], rows: int) -> bytes:
    """Rows one after the other: what is equally long in all of them is written in one go."""
    parts: list[list[tuple[str, Any]]] = [[(">i2", len(fields))]]
    varying: list[list[bytes]] = []
    for field in fields:
        parts[-1].append((">i4", field.lengths))
        if field.fixed is not None:
            parts[-1].append((field.fixed.dtype.str, field.fixed))
        if field.varying is not None:
            varying.append(field.varying)
            parts.append([])
    fixed = [_records(part, rows) for part in parts if part]
    if not varying:
        return fixed[0].tobytes()
    pieces: list[bytes] = [b""] * (rows * (len(fixed) + len(varying)))
    step = len(fixed) + len(varying)
    for i, one in enumerate(fixed):
        pieces[2 * i :: step] = one.view(f"V{one.dtype.itemsize}").tolist()
    for i, texts in enumerate(varying):
        pieces[2 * i + 1 :: step] = texts
    return b"".join(pieces)


def _records(part: list[tuple[str, Any]], rows: int) -> NDArray[Any]:
    records = np.empty(rows, [(f"f{i}", kind) for i, (kind, _) in enumerate(part)])
    for i, (_, values) in enumerate(part):
        records[f"f{i}"] = values
    return records
