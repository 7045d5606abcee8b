"""Opening a catalog: URL, SQLite's settings, schema version, and errors that say the cure."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from vistadex.catalog.tables import SCHEMA_REVISION, metadata
from vistadex.errors import CatalogError, UsageError

if TYPE_CHECKING:
    from alembic.config import Config

BUSY_TIMEOUT_S = 30
MAPPED_BYTES = 1 << 40


def engine_for(location: str, *, create: bool = True) -> sa.Engine:
    """A database engine for a file name or an SQLAlchemy URL.

    Args:
        create: to fill it: its folder is made where it is missing. Else, to read it, the file is
            mapped into memory: a sixth faster, but what was read counts as the process's memory.
    Raises: UsageError for a database that is not supported; CatalogError without permission.
    """
    url = sa.make_url(location) if "://" in location else sa.URL.create("sqlite", database=location)
    if url.get_backend_name() != "sqlite":
        raise UsageError(
            f"{url.render_as_string()}: this version keeps its catalog in SQLite; give a file name"
        )
    if url.database:
        path = Path(url.database).expanduser()
        url = url.set(database=str(path))
        if create:
            with translated(str(path)):
                path.parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
    sa.event.listen(engine, "connect", _on_connect)
    if not create:
        sa.event.listen(engine, "connect", _map)
    sa.event.listen(engine, "begin", _on_begin)
    return engine


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
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Database and disk errors inside become CatalogError with place and cure."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise CatalogError(f"{place}: {_cure(str(error.orig))}") from error
    except OSError as error:
        raise CatalogError(
            f"{place}: {error.strerror}; give another file with --catalog"
        ) from error


_CURES = (
    ("full", "the disk is full; free some space and run the same command again"),
    ("readonly", "the catalog can't be written; check its permissions, and those of its folder"),
    ("unable to open", "can't be opened; check the permissions, or give another --catalog"),
    ("not a database", "this is no catalog; give another file with --catalog"),
    ("malformed", "the catalog is damaged; restore a copy, or delete it and index again"),
    ("locked", f"another process has been writing for {BUSY_TIMEOUT_S} s; try again later"),
    ("disk I/O", "the disk reports an error; check it, then run the same command again"),
)


def _cure(message: str) -> str:
    for sign, cure in _CURES:
        if sign in message:
            return cure
    return message


def prepare(engine: sa.Engine, place: str, *, create: bool) -> None:
    """Brings the schema to this version: made anew, upgraded, or refused.

    Raises: CatalogError where there is no catalog and create is False, where the database is
        something else, or where a newer Vistadex wrote it.
    """
    with translated(place):
        if not create and not _file_exists(engine):
            raise CatalogError(f"{place}: no catalog here; `vistadex index FOLDER` makes one")
        with engine.connect() as connection:
            names = set(sa.inspect(connection).get_table_names())
            revision = _revision(connection) if "alembic_version" in names else None
        if revision == SCHEMA_REVISION:
            return
        if names and revision is None:
            raise CatalogError(f"{place}: this database is no catalog; give another --catalog")
        if names:
            _upgrade(engine, place, str(revision))
        elif create:
            _create(engine)
        else:
            raise CatalogError(f"{place}: the catalog is empty; `vistadex index FOLDER` fills it")


def _file_exists(engine: sa.Engine) -> bool:
    database = engine.url.database
    return not database or database == ":memory:" or Path(database).exists()


def _revision(connection: sa.Connection) -> str | None:
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _create(engine: sa.Engine) -> None:
    """All tables at once and the newest revision's mark: Alembic itself takes 0.2 s to import."""
    with engine.connect().execution_options(write=True) as connection, connection.begin():
        if sa.inspect(connection).get_table_names():
            return
        metadata.create_all(connection)
        mark = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"
        connection.execute(sa.text(mark))
        statement = sa.text("INSERT INTO alembic_version VALUES (:revision)")
        connection.execute(statement, {"revision": SCHEMA_REVISION})


def _upgrade(engine: sa.Engine, place: str, revision: str) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = alembic_config()
    try:
        ScriptDirectory.from_config(config).get_revision(revision)
    except CommandError as error:
        raise CatalogError(
            f"{place}: written by a newer Vistadex (schema {revision}, this one knows up to "
            f"{SCHEMA_REVISION}); upgrade Vistadex, or give another --catalog"
        ) from error
    with engine.connect().execution_options(write=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def alembic_config() -> Config:
    """Alembic's configuration for the migrations of this package, without a connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
