"""Rows by column into MariaDB or MySQL, by INSERT statements with many rows, written here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from vistadex.catalog.columns import Name, Nullable, Prose
from vistadex.catalog.database import as_statement

ROWS_AT_A_TIME = 20_000
"""Of rows that are held as text."""
STATEMENT_BYTES = 1 << 20
"""About how long a statement may be; the server's limit is max_allowed_packet, 16 MB."""


def insert(
    connection: sa.Connection, table: sa.Table, columns: Mapping[str, Any], rows: int
) -> None:
    """Inserts rows that are given by column, as bulk_sqlite.insert does; JSON is given as text.

    The driver would look at every value of every row, which takes longer than the server's work.

    Raises: CatalogError for a name that no server can hold.
    """
    quote = connection.dialect.identifier_preparer.quote
    head = f"INSERT INTO {quote(table.name)} ({','.join(map(quote, columns))}) VALUES "
    driver: Any = connection.connection.dbapi_connection
    kinds = [table.c[name].type for name in columns]
    written = [_Written(kind, connection.dialect, driver.escape) for kind in kinds]
    with as_statement(connection, head), driver.cursor() as cursor:
        for start in range(0, rows, ROWS_AT_A_TIME):
            end = min(start + ROWS_AT_A_TIME, rows)
            literals = [
                one.literals(_part(values, start, end), end - start)
                for one, values in zip(written, columns.values(), strict=True)
            ]
            for values in _limited(list(map(",".join, zip(*literals, strict=True)))):
                cursor.execute(f"{head}({'),('.join(values)})")


def delete(connection: sa.Connection, table: sa.Table, keys: Mapping[str, list[int]]) -> None:
    """Removes rows by their keys, many in a statement.

    Args:
        keys: (N,) whole numbers by column.
    """
    quote = connection.dialect.identifier_preparer.quote
    name = quote(table.name)
    columns = [f"{quote(one)} INT PATH '$[{i}]'" for i, one in enumerate(keys)]
    matched = [f"{name}.{quote(one)} = gone.{quote(one)}" for one in keys]
    text = (
        f"DELETE {name} FROM JSON_TABLE(:gone, '$[*]' COLUMNS({', '.join(columns)})) gone "
        f"STRAIGHT_JOIN {name} ON {' AND '.join(matched)}"
    )
    rows = list(zip(*keys.values(), strict=True))
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        part = rows[start : start + ROWS_AT_A_TIME]
        connection.execute(sa.text(text), {"gone": json.dumps(part)})


def _part(values: Any, start: int, end: int) -> Any:
    if isinstance(values, Nullable):
        part = values.values[start:end].tolist()
        return [None if one == values.unknown else one for one in part]
    if isinstance(values, np.ndarray):
        return values[start:end].tolist()
    return values[start:end] if isinstance(values, list) else values


class _Written:
    """How values of a column stand in a statement."""

    def __init__(
        self, kind: sa.types.TypeEngine[Any], dialect: sa.Dialect, quoted: Callable[[str], str]
    ) -> None:
        named = isinstance(kind, Name | Prose)
        self._storable = kind.bind_processor(dialect) if named else None
        self._quoted = quoted

    def literals(self, values: Any, rows: int) -> Sequence[str]:
        """A literal for each row.

        Args:
            values: of each row, or what all have.
        """
        if not isinstance(values, list):
            return [self._literal(values)] * rows
        if values and isinstance(values[0], int | float) and None not in values:
            return list(map(repr, values))
        return list(map(self._literal, values))

    def _literal(self, value: Any) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, str) and self._storable is not None:
            value = self._storable(value)
        if isinstance(value, bytes):
            return f"0x{value.hex()}" if value else "''"
        return self._quoted(value) if isinstance(value, str) else repr(value)


def _limited(rows: Sequence[str]) -> Iterator[Sequence[str]]:
    """Rows for one statement each."""
    start = length = 0
    for end, row in enumerate(rows):
        if length and length + len(row) > STATEMENT_BYTES:
            yield rows[start:end]
            start, length = end, 0
        length += len(row) + 3
    if rows:
        yield rows[start:]
