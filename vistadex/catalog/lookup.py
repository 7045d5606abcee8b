"""Rows by id at the driver's own speed: SQLAlchemy writes the statement once, and stays out after.

A page of results reads hundreds of rows; row objects and parameters would take most of its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa

Process: TypeAlias = Callable[[Any], Any]
"""Makes a value of what the driver gives."""


class Lookup:
    """A statement that is run again and again for the rows of some ids."""

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
        self.statement = statement.where(wanted).order_by(*order)
        self.width = len(statement.selected_columns)
        self._prepared: dict[str, tuple[str, list[tuple[int, Process]]]] = {}

    def columns(self, connection: sa.Connection, ids: Iterable[int]) -> list[Sequence[Any]]:
        """The statement's columns, each with a value for every row that there is."""
        dialect = connection.dialect
        if dialect.name not in self._prepared:
            self._prepared[dialect.name] = self._prepare(dialect)
        text, processes = self._prepared[dialect.name]
        # Ids in the text mean the same to every driver, and one that has no marks left in it.
        listed = ",".join(map(str, ids))
        if not listed:
            return [()] * self.width
        rows = _all_rows(connection, text.replace(_IDS, listed))
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * self.width
        for i, process in processes:
            columns[i] = [None if one is None else process(one) for one in columns[i]]
        return columns

    def _prepare(self, dialect: sa.Dialect) -> tuple[str, list[tuple[int, Process]]]:
        """The statement's text, and what is to be done to which columns."""
        processes: list[tuple[int, Process]] = []
        for i, column in enumerate(self.statement.selected_columns):
            if isinstance(column.type, sa.Integer | sa.Float):
                continue  # every driver gives numbers as they are
            process = column.type.dialect_impl(dialect).result_processor(dialect, None)
            if process is not None:
                processes.append((i, process))
        return str(self.statement.compile(dialect=dialect)), processes


_IDS = "ids to look up"


def _all_rows(connection: sa.Connection, text: str) -> Sequence[tuple[Any, ...]]:
    """Raises: DBAPIError, like SQLAlchemy's own reading."""
    result = connection.exec_driver_sql(text)
    cursor, driver = result.cursor, connection.dialect.loaded_dbapi
    assert cursor is not None
    try:
        rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
    except driver.Error as error:  # SQLite reads while it fetches
        raise sa.exc.DBAPIError(text, None, error) from error
    result.close()
    return rows
