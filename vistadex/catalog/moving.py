"""Moving a whole catalog from one database to another, proved by sums over both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from vistadex.catalog import Catalog, bulk_postgresql, changes, opening, tables
from vistadex.catalog.checksums import Checksum, streamed
from vistadex.catalog.columns import Name, Prose, dumped
from vistadex.catalog.database import as_statement
from vistadex.errors import CatalogError, UsageError
from vistadex.progress import Progress, Silent

OWN = (tables.state, tables.change)
"""Tables that say which catalog it is, and so are not copied."""


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """One table: its rows and the sum over them, the same on both sides."""

    name: str
    rows: int
    checksum: str


@dataclass(frozen=True, slots=True)
class CatalogCopy:
    """What was copied."""

    source: str
    target: str
    tables: tuple[CopiedTable, ...]
    seconds: float

    @property
    def rows(self) -> int:
        """Of all tables."""
        return sum(one.rows for one in self.tables)


def copy_catalog(source: str, target: str, progress: Progress | None = None) -> CatalogCopy:
    """Copies all that a catalog holds into an empty one, in one transaction of the target.

    Numbers of images and all else stay; the target is another catalog, with posting lists of its
    own. The rows are read again from the target, before they are committed, and compared.

    Args:
        source, target: file names or addresses; the target's tables are made if need be.
        progress: told of rows.
    Raises: CatalogError where the target is not empty, or does not hold what it was given.
    """
    started = time.monotonic()
    progress = progress or Silent()
    with Catalog(source) as old, Catalog(target, create=True) as new:
        if old.place == new.place:
            raise UsageError(f"{new.place}: the copy needs another place than the catalog itself")
        with _patient(old) as reader, new.writing() as writer:
            _need_empty(writer, new.place)
            total = _estimate(reader)
            copied: list[CopiedTable] = []
            for table in tables.metadata.sorted_tables:
                if table not in OWN:
                    before = sum(one.rows for one in copied)
                    copied.append(
                        _copied(reader, writer, table, new.place, progress, before, total)
                    )
            changes.note(writer, None)
        place, to = old.place, new.place
    done = sum(one.rows for one in copied)
    progress.update(listed=done, listing=False, done=done, failed=0)
    return CatalogCopy(place, to, tuple(copied), time.monotonic() - started)


@contextmanager
def _patient(catalog: Catalog) -> Iterator[sa.Connection]:
    """A reading connection whose statements may take any time."""
    with (
        opening.translated(catalog.place),
        catalog.engine.connect().execution_options(patient=True) as connection,
        connection.begin(),
    ):
        yield connection


def _need_empty(connection: sa.Connection, place: str) -> None:
    """Raises: CatalogError where something is in the catalog."""
    for table in tables.metadata.sorted_tables:
        if table not in OWN and connection.execute(sa.select(table).limit(1)).first() is not None:
            raise CatalogError(
                f"{place}: table {table.name} has rows, expected an empty catalog; give another "
                "target, or remove this one first"
            )


def _estimate(connection: sa.Connection) -> int:
    """Rows in all: images as they are counted anyway, and a guess for the rest."""
    images = connection.execute(sa.select(sa.func.sum(tables.source.c.images))).scalar()
    return 10 * int(images or 0)


def _copied(
    reader: sa.Connection,
    writer: sa.Connection,
    table: sa.Table,
    place: str,
    progress: Progress,
    before: int,
    total: int,
) -> CopiedTable:
    read, written = Checksum(table), Checksum(table)
    query = sa.select(table)
    if writer.dialect.name != "postgresql":  # its tables have no order
        query = query.order_by(*table.primary_key)
    with _inserting(writer, table) as insert:
        for rows in streamed(reader, query):
            read.add(rows)
            insert(rows)
            done = before + read.rows
            progress.update(listed=max(total, done), listing=True, done=done, failed=0)
    bulk_postgresql.set_number(writer, table)
    for rows in streamed(writer, sa.select(table)):
        written.add(rows)
    if (read.rows, read.sum) != (written.rows, written.sum):
        raise CatalogError(
            f"{place}: table {table.name} holds {written.rows:,} rows with the sum {written.text}, "
            f"expected {read.rows:,} with {read.text}; nothing was copied. Report this"
        )
    return CopiedTable(table.name, read.rows, read.text)


Insert = Callable[[Sequence[sa.Row[Any]]], None]


@contextmanager
def _inserting(connection: sa.Connection, table: sa.Table) -> Iterator[Insert]:
    """What puts rows into a table: COPY on PostgreSQL, statements with many rows elsewhere."""
    prepare = [(i, _prepared(column, connection.dialect)) for i, column in enumerate(table.c)]
    needed = [(i, process) for i, process in prepare if process is not None]

    def stored(rows: Sequence[sa.Row[Any]]) -> list[tuple[Any, ...]]:
        if not needed:
            return [tuple(row) for row in rows]
        found = []
        for row in rows:
            values = list(row)
            for i, process in needed:
                values[i] = process(values[i])
            found.append(tuple(values))
        return found

    quoted = connection.dialect.identifier_preparer
    names = ", ".join(quoted.quote(column.name) for column in table.c)
    into = f"{quoted.format_table(table)} ({names})"
    if connection.dialect.name == "postgresql":
        statement = f"COPY {into} FROM STDIN"
        driver: Any = connection.connection.dbapi_connection
        with (
            as_statement(connection, statement),
            driver.cursor() as cursor,
            cursor.copy(statement) as copy,
        ):

            def into_copy(rows: Sequence[sa.Row[Any]]) -> None:
                for row in stored(rows):
                    copy.write_row(row)

            yield into_copy
        return
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    statement = f"INSERT INTO {into} VALUES ({', '.join([mark] * len(table.c))})"

    def into_statement(rows: Sequence[sa.Row[Any]]) -> None:
        connection.exec_driver_sql(statement, stored(rows))

    yield into_statement


def _prepared(column: sa.Column[Any], dialect: sa.Dialect) -> Callable[[Any], Any] | None:
    """What makes of a value what the driver is given; None: nothing is to be made."""
    if isinstance(column.type, sa.JSON):
        return _dumped
    if isinstance(column.type, (Name, Prose)):
        found: Callable[[Any], Any] | None = column.type.bind_processor(dialect)
        return found
    return None


def _dumped(value: Any) -> str | None:
    return None if value is None else dumped(value)
