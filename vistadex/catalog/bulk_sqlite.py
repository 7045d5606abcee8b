"""Rows by column into SQLite: many of them in a statement, and whole tables page by page."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vistadex.catalog import Catalog, tables
from vistadex.catalog.columns import Nullable
from vistadex.errors import CatalogError

ROWS_IN_STATEMENT = 64
CACHE_KIB = 64 << 10
BUSY_TIMEOUT_S = 30
"""What a writer is waited for."""


def side_file(path: str) -> sqlite3.Connection:
    """A database that nobody else sees: a killed process leaves it whole, a crashed machine not."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for pragma in (
        "journal_mode=TRUNCATE",
        "synchronous=OFF",
        "locking_mode=EXCLUSIVE",
        f"cache_size=-{CACHE_KIB}",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def insert(
    connection: sqlite3.Connection, table: str, columns: Mapping[str, Any], rows: int
) -> None:
    """Inserts rows that are given by column.

    Args:
        columns: by name: (N,) an array, a Nullable or a list; or what all rows have.
    """
    terms: list[str] = []
    varying: list[NDArray[Any] | list[Any]] = []
    for given in columns.values():
        if isinstance(given, Nullable):
            terms.append(f"NULLIF(?,{given.unknown})")
            varying.append(given.values)
        elif isinstance(given, np.ndarray | list):
            terms.append("?")
            varying.append(given)
        else:
            terms.append(_literal(given))
    row = f"({','.join(terms)})"
    head = f"INSERT INTO {table} ({','.join(columns)}) VALUES "
    whole = rows // ROWS_IN_STATEMENT * ROWS_IN_STATEMENT
    for start, end, several in ((0, whole, ROWS_IN_STATEMENT), (whole, rows, 1)):
        if end > start:
            values_ = _by_row([one[start:end] for one in varying], several)
            connection.executemany(head + ",".join([row] * several), values_)


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(int(value))


def _by_row(columns: Sequence[NDArray[Any] | list[Any]], several: int) -> Sequence[list[Any]]:
    """The values of so many rows after each other, for each statement."""
    width = len(columns)
    if all(isinstance(one, np.ndarray) for one in columns):
        table = np.stack([np.asarray(one, np.int64) for one in columns], axis=1)
        found: list[list[Any]] = table.reshape(-1, width * several).tolist()
        return found
    flat: list[Any] = [None] * (width * len(columns[0]))
    for i, one in enumerate(columns):
        flat[i::width] = one.tolist() if isinstance(one, np.ndarray) else one
    step = width * several
    return [flat[start : start + step] for start in range(0, len(flat), step)]


class Pouring:
    """One transaction that enters whole tables of side files into an empty catalog.

    SQLite copies them without looking into their rows, and fills every page. Where nobody else has
    the catalog open, that needs no copy in the WAL.
    """

    def __init__(self, catalog: Catalog) -> None:
        """Begins; others wait with writing, and see nothing before commit().

        Those who open the catalog from here on wait as for a writer, unless some have it open.
        """
        catalog.close()
        self.place = catalog.place
        database = str(catalog.engine.url.database)
        self._to = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        with suppress(sqlite3.OperationalError):  # others have it open: then by way of the WAL
            self._to.execute("PRAGMA busy_timeout=0")
            self._to.execute("PRAGMA journal_mode=DELETE")
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_S * 1000}",
            "synchronous=FULL",
            f"cache_size=-{CACHE_KIB}",
        ):
            self._to.execute(f"PRAGMA {pragma}")
        # At once: a reader that comes in between would keep changed pages from the disk.
        self._to.execute("BEGIN EXCLUSIVE")
        self._to.execute("UPDATE main.state SET revision = revision + 1")

    def pour(self, path: Path, chosen: Sequence[sa.Table]) -> None:
        """Enters tables of a side file.

        Raises: CatalogError where the catalog is not empty any more.
        """
        schema = f"side{path.stem}"
        self._to.execute(f"ATTACH ? AS {schema}", (str(path),))
        for table in chosen:
            _pour_table(self._to, schema, table.name, self.place)

    def interrupt(self) -> None:
        """Stops what another thread is pouring."""
        self._to.interrupt()

    def prove(self, expected: Mapping[str, int]) -> None:
        """Counts the rows of tables.

        Raises: CatalogError where a table has more or fewer rows; nothing is kept then.
        """
        for name, number in expected.items():
            found = self._to.execute(f'SELECT count(*) FROM main."{name}"').fetchone()[0]
            if found != number:
                raise CatalogError(
                    f"{self.place}: {found:,} rows came into {name}, expected {number:,}; "
                    "nothing was kept: check the disk and load again"
                )

    def commit(self) -> None:
        """Counts predicates, notes that any image may have changed, and ends."""
        for analyzer, group in (("analyzer_id", "1, 2"), (str(tables.ANY_ANALYZER), "1")):
            self._to.execute(
                "INSERT INTO main.predicate_count (predicate_id, analyzer_id, images, relations) "
                f"SELECT predicate_id, {analyzer}, count(DISTINCT image_id), sum(relations) "
                "FROM main.image_relation JOIN main.relation_type ON relation_type.id = type_id "
                f"GROUP BY {group}"
            )
        self._to.execute(
            "INSERT INTO main.change (revision, token, images) "
            "SELECT revision, ?, NULL FROM main.state",
            (secrets.token_hex(16),),
        )
        self._to.execute("COMMIT")

    def __enter__(self) -> Pouring:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._to.in_transaction:
            self._to.execute("ROLLBACK")
        self._to.close()


def _pour_table(to: sqlite3.Connection, side: str, name: str, place: str) -> None:
    quoted = f'"{name}"'
    if to.execute(f"SELECT 1 FROM main.{quoted} LIMIT 1").fetchone():
        raise CatalogError(
            f"{place}: others have written to it, expected an empty catalog; load again"
        )
    columns = [
        [row[1] for row in to.execute(f"PRAGMA {schema}.table_info({quoted})")]
        for schema in ("main", side)
    ]
    # Only a copy of all columns in their order is made page by page.
    names = "" if columns[0] == columns[1] else "({})".format(",".join(columns[1]))
    chosen = ",".join(columns[1]) if names else "*"
    to.execute(f"INSERT INTO main.{quoted} {names} SELECT {chosen} FROM {side}.{quoted}")
