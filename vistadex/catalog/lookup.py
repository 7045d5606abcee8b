"""Statements at the driver's own speed: SQLAlchemy writes them once, and stays out after.

A page of results reads hundreds of rows; row objects and parameters would take most of its time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import sqlalchemy as sa

Process: TypeAlias = Callable[[Sequence[Any]], Sequence[Any]]
"""Makes a column's values of what the driver gives."""


class _Prepared(NamedTuple):
    """A statement as one kind of database has it."""

    text: str
    values: dict[str, Any]
    """Of parameters; None where each call gives another."""
    order: Sequence[str] | None
    """Of parameters in the text; None: they stand there by name."""
    processes: list[tuple[int, Process]]
    """What is to be done to which columns."""


class Statement:
    """A SELECT that is run again and again; only numbers among its parameters may differ."""

    def __init__(self, select: sa.Select[Any]) -> None:
        self.select = select
        self.width = len(select.selected_columns)
        self._prepared: dict[str, _Prepared] = {}

    def rows(self, connection: sa.Connection, **given: int) -> Sequence[tuple[Any, ...]]:
        """All rows.

        Args:
            given: numbers by the names of their parameters.
        """
        prepared = self.prepared(connection)
        values: Any = {**prepared.values, **given}
        if prepared.order is not None:
            values = [values[name] for name in prepared.order]
        found = _all_rows(connection, prepared.text, values)
        if not prepared.processes or not found:
            return found
        columns: list[Sequence[Any]] = list(zip(*found, strict=True))
        return list(zip(*_processed(columns, prepared.processes), strict=True))

    def prepared(self, connection: sa.Connection) -> _Prepared:
        """The statement as the connection's database has it."""
        dialect = connection.dialect
        if dialect.name not in self._prepared:
            self._prepared[dialect.name] = _prepared(self.select, dialect)
        return self._prepared[dialect.name]


class Lookup(Statement):
    """A statement for the rows of some ids."""

    def __init__(
        self,
        statement: sa.Select[Any],
        id_: sa.Column[Any],
        order: Sequence[sa.Column[Any]] = (),
    ) -> None:
        """
        Args:
            statement: a SELECT of columns of tables without conditions.
            id_: the column by which rows are looked up.
            order: sorted by these columns, rising.
        """
        wanted = id_.op("IN")(sa.literal_column(f"({_IDS})"))
        super().__init__(statement.where(wanted).order_by(*order))

    def columns(self, connection: sa.Connection, ids: Iterable[int]) -> list[Sequence[Any]]:
        """The statement's columns, each with a value for every row that there is."""
        # Ids in the text mean the same to every driver, and one that has no marks left in it.
        listed = ",".join(map(str, ids))
        if not listed:
            return [()] * self.width
        prepared = self.prepared(connection)
        rows = _all_rows(connection, prepared.text.replace(_IDS, listed))
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * self.width
        return _processed(columns, prepared.processes)


_IDS = "ids to look up"


def _prepared(select: sa.Select[Any], dialect: sa.Dialect) -> _Prepared:
    compiled = select.compile(dialect=dialect)
    values: dict[str, Any] = {}
    for name, value in compiled.params.items():
        type_ = compiled.binds[name].type.dialect_impl(dialect)
        process = type_.bind_processor(dialect)
        values[name] = value if process is None or value is None else process(value)
    order = compiled.positiontup if compiled.positional else None
    processes: list[tuple[int, Process]] = []
    for i, column in enumerate(select.selected_columns):
        if isinstance(column.type, sa.Integer | sa.Float):
            continue  # every driver gives numbers as they are
        process = column.type.dialect_impl(dialect).result_processor(dialect, None)
        if process is not None:
            is_json = isinstance(column.type, sa.JSON)
            processes.append((i, _from_json if is_json else partial(_each, process)))
    return _Prepared(str(compiled), values, order, processes)


def _each(process: Callable[[Any], Any], column: Sequence[Any]) -> Sequence[Any]:
    return [None if one is None else process(one) for one in column]


def _from_json(column: Sequence[str | None]) -> Sequence[Any]:
    """Read in one go: names that all of the objects have are made once."""
    if column.count(None) == len(column):
        return column
    found: list[Any] = json.loads(f"[{','.join([one or 'null' for one in column])}]")
    return found


def _processed(
    columns: list[Sequence[Any]], processes: Sequence[tuple[int, Process]]
) -> list[Sequence[Any]]:
    """Columns with the values that are meant, not those that the driver gives."""
    for i, process in processes:
        columns[i] = process(columns[i])
    return columns


def _all_rows(
    connection: sa.Connection,
    text: str,
    values: Sequence[Any] | Mapping[str, Any] | None = None,
) -> Sequence[tuple[Any, ...]]:
    """All rows of a statement that the driver is given as it is, in the transaction at hand.

    Raises: DBAPIError, like SQLAlchemy's own reading.
    """
    dialect = connection.dialect
    driver, raw = dialect.loaded_dbapi, connection.connection
    cursor = raw.cursor()
    try:
        if values is None:
            cursor.execute(text)
        else:
            cursor.execute(text, values)
        rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
    except driver.Error as error:  # SQLite reads while it fetches
        lost = dialect.is_disconnect(error, raw, cursor)
        if lost:
            connection.invalidate(error)
        raise sa.exc.DBAPIError(text, values, error, connection_invalidated=lost) from error
    finally:
        cursor.close()
    return rows
