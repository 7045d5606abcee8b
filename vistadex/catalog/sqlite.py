"""The catalog in one file: SQLite, with readers and one writer side by side."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from vistadex.catalog.columns import dumped
from vistadex.catalog.database import Database
from vistadex.errors import CatalogError

BUSY_TIMEOUT_S = 30
MAPPED_BYTES = 1 << 40


class Sqlite(Database):
    """SQLite through Python's own driver."""

    driver = "sqlite3"

    def engine(self, url: sa.URL, *, create: bool) -> sa.Engine:
        """An engine for a file.

        Args:
            create: to fill it: its folder is made where it is missing. Else, to read it, the file
                is mapped into memory: a sixth faster, but what was read counts as the process's.
        """
        if url.database:
            path = Path(url.database).expanduser()
            url = url.set(database=str(path))
            if create:
                _make_folder(path)
        engine = sa.create_engine(
            url, connect_args={"timeout": BUSY_TIMEOUT_S}, json_serializer=dumped
        )
        sa.event.listen(engine, "connect", _on_connect)
        if not create:
            sa.event.listen(engine, "connect", _map)
        sa.event.listen(engine, "begin", _on_begin)
        return engine

    def place(self, url: sa.URL) -> str:
        """The file's name."""
        return url.database or url.render_as_string()

    def missing(self, url: sa.URL) -> str | None:
        """Says it where there is no file: SQLite would make one."""
        file = url.database
        if not file or file == ":memory:" or Path(file).exists():
            return None
        return "no catalog here; `vistadex index FOLDER` makes one"

    def cure(self, error: BaseException) -> str | None:
        """What to do, by a word of SQLite's message."""
        return next((cure for sign, cure in _CURES if sign in str(error)), None)

    def is_passing(self, error: BaseException) -> bool:
        """Never: SQLite has waited for the other writer already."""
        return False


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CatalogError(f"{path}: {error.strerror}; give another file with --catalog") from error


def _on_connect(connection: sqlite3.Connection, _: object) -> None:
    """Leaves BEGIN to us, and lets readers and one writer work side by side."""
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _map(connection: sqlite3.Connection, _: object) -> None:
    connection.execute(f"PRAGMA mmap_size={MAPPED_BYTES}")


def _on_begin(connection: sa.Connection) -> None:
    """A writer takes its lock at once: waiting for it later could end in a dead lock."""
    options = connection.get_execution_options()
    if options.get("write", False) or options.get("schema", False):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:  # which nothing can refuse, and which stands before every answer
        driver: Any = connection.connection.driver_connection
        driver.execute("BEGIN")


_CURES = (
    ("full", "the disk is full; free some space and run the same command again"),
    ("readonly", "the catalog can't be written; check its permissions, and those of its folder"),
    ("unable to open", "can't be opened; check the permissions, or give another --catalog"),
    ("not a database", "this is no catalog; give another file with --catalog"),
    ("malformed", "the catalog is damaged; restore a copy, or delete it and index again"),
    ("locked", f"another process has been writing for {BUSY_TIMEOUT_S} s; try again later"),
    ("disk I/O", "the disk reports an error; check it, then run the same command again"),
)
