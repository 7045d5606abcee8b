"""Opening a catalog: address to engine, schema version, retries, and errors that say the cure."""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from vistadex.catalog.database import Database
from vistadex.catalog.mysql import Mysql
from vistadex.catalog.postgresql import Postgresql
from vistadex.catalog.sqlite import Sqlite
from vistadex.catalog.tables import SCHEMA_REVISION, metadata, state
from vistadex.errors import CatalogError, UsageError

if TYPE_CHECKING:
    from alembic.config import Config

T = TypeVar("T")
log = logging.getLogger(__name__)
DATABASES: dict[str, Database] = {
    "sqlite": Sqlite(),
    "postgresql": (_postgresql := Postgresql()),
    "postgres": _postgresql,
    "mysql": (_mysql := Mysql()),
    "mariadb": _mysql,
}
"""By the first word of an address."""
MARK = "alembic_version"
"""The table that says which schema a catalog has."""
ATTEMPTS = 10
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 10.0
"""Between attempts: three quarters of a minute in all, in which a server restarts."""


def engine_for(location: str, *, create: bool = True) -> sa.Engine:
    """A database engine for a file name or a URL.

    Args:
        create: to fill it; see Sqlite.engine.
    Raises: UsageError for what is no address of a database that is supported; CatalogError
        without permission.
    """
    url = _url(location)
    return database_of(url).engine(url, create=create)


def _url(location: str) -> sa.URL:
    if "://" not in location:
        return sa.URL.create("sqlite", database=location)
    try:
        return sa.make_url(location)
    except (sa.exc.ArgumentError, ValueError):
        scheme = location.partition("://")[0]
        # Without its cause, which would show the address with the password in it.
        raise UsageError(
            f"{scheme}://...: no address of a database, expected {scheme}://user@host/database; "
            "write special letters of a password as %40"
        ) from None


def database_of(url: sa.URL) -> Database:
    """The kind of database that an address names.

    Raises: UsageError for one that is not supported.
    """
    backend = url.drivername.partition("+")[0]
    if backend not in DATABASES:
        raise UsageError(
            f"{backend}://...: the catalog can be in {', '.join(DATABASES)}; give a file name or "
            "such an address"
        )
    return DATABASES[backend]


def place_of(url: sa.URL) -> str:
    """Where a catalog is, for messages: a file's name, or an address without its secrets."""
    return database_of(url).place(url)


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Database and disk errors inside become CatalogError with place and cure."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise CatalogError(f"{place}: {_cure(error)}") from error
    except sa.exc.StatementError as error:
        if isinstance(error.orig, CatalogError):  # a value that no server can hold
            raise CatalogError(f"{place}: {error.orig}") from error.orig
        raise
    except sa.exc.TimeoutError as error:
        raise CatalogError(
            f"{place}: all connections of this process are in use; raise pool_size in the address"
        ) from error
    except OSError as error:
        raise CatalogError(
            f"{place}: {error.strerror or error}; give another file with --catalog"
        ) from error


def _driver_error(error: BaseException) -> tuple[Database, BaseException] | None:
    """What the driver said inside an error, and whose driver it is; None: it was no driver."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, sa.exc.DBAPIError) and inner.orig is not None:
            inner = inner.orig
        module = type(inner).__module__.partition(".")[0]
        for database in DATABASES.values():
            if module == database.driver:
                return database, inner
        inner = inner.__cause__
    return None


def _cure(error: sa.exc.DBAPIError) -> str:
    found = _driver_error(error)
    cure = None if found is None else found[0].cure(found[1])
    return cure or " ".join(str(error.orig).split())


def is_passing(error: BaseException) -> bool:
    """Whether a transaction that ended so would do if run again: lost connections, deadlocks."""
    found = _driver_error(error)
    return found is not None and found[0].is_passing(found[1])


def retried(attempt: Callable[[], T]) -> T:
    """What attempt returns, a whole transaction, run again where only the moment was bad.

    It may be run again although it has been committed, if the connection was lost just then: it
    has to end in the same state when it is done twice.
    Raises: what the last of ATTEMPTS attempts raised.
    """
    wait = FIRST_WAIT_S
    for _ in range(ATTEMPTS - 1):
        try:
            return attempt()
        except (sa.exc.SQLAlchemyError, CatalogError) as error:
            if not is_passing(error):
                raise
            log.warning("transaction broken off (%s), tried again", type(error).__name__)
        # Jitter keeps processes that lost one server from coming back all at once.
        time.sleep(wait * random.uniform(0.75, 1.25))
        wait = min(2 * wait, LONGEST_WAIT_S)
    return attempt()


def prepare(engine: sa.Engine, place: str, *, create: bool) -> None:
    """Brings the schema to this version: made anew, upgraded, or refused.

    Raises: CatalogError where there is no catalog and create is False, where the database is
        something else, or where a newer Vistadex wrote it.
    """
    database = database_of(engine.url)
    with translated(place), _closed_on_error(engine):
        missing = None if create else database.missing(engine.url)
        if missing is not None:
            raise CatalogError(f"{place}: {missing}")
        names, revision = _schema(engine)
        if revision == SCHEMA_REVISION:
            return
        # MySQL shows tables one by one while they are made, and after a process died at it.
        begun = revision is None and names <= {*metadata.tables, MARK}
        if names and revision is None and not (begun and engine.dialect.name == "mysql"):
            raise CatalogError(f"{place}: this database is no catalog; give another --catalog")
        if revision is not None:
            _upgrade(engine, database, place, revision)
        elif create:
            _create(engine, database)
        else:
            raise CatalogError(f"{place}: the catalog is empty; `vistadex index FOLDER` fills it")


@contextmanager
def _closed_on_error(engine: sa.Engine) -> Iterator[None]:
    try:
        yield
    except BaseException:
        engine.dispose()
        raise


def migrate(location: str) -> tuple[str, str, str]:
    """Brings a catalog's schema to this version; its place, the schema before, and that after.

    Raises: CatalogError where there is no catalog, or a newer Vistadex wrote it.
    """
    engine = engine_for(location, create=False)
    try:
        place = place_of(engine.url)
        with translated(place):
            there = database_of(engine.url).missing(engine.url) is None
            before = _schema(engine)[1] if there else None
        prepare(engine, place, create=False)
        return place, str(before), SCHEMA_REVISION
    finally:
        engine.dispose()


def _schema(engine: sa.Engine) -> tuple[set[str], str | None]:
    """The tables that a database has, and which schema they say they are."""
    with engine.connect().execution_options(latest=True) as connection:
        names = set(sa.inspect(connection).get_table_names())
        return names, _revision(connection) if MARK in names else None


def _revision(connection: sa.Connection) -> str | None:
    return connection.execute(sa.text(f"SELECT version_num FROM {MARK}")).scalar()


def _create(engine: sa.Engine, database: Database) -> None:
    """All tables at once and the newest revision's mark: Alembic itself takes 0.2 s to import.

    The mark comes last: where making a table can't be undone, what has none is unfinished.
    """
    with (
        engine.connect().execution_options(schema=True) as connection,
        connection.begin(),
        database.schema_lock(connection),
    ):
        names = set(sa.inspect(connection).get_table_names())
        if MARK in names and _revision(connection) is not None:
            return
        metadata.create_all(connection)
        if connection.execute(sa.select(state.c.id)).first() is None:
            first = {"id": 1, "uuid": str(uuid.uuid4()), "revision": 0}
            connection.execute(sa.insert(state).values(**first))
        if MARK not in names:
            mark = f"CREATE TABLE {MARK} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"
            connection.execute(sa.text(mark))
        statement = sa.text(f"INSERT INTO {MARK} VALUES (:revision)")
        connection.execute(statement, {"revision": SCHEMA_REVISION})


def _upgrade(engine: sa.Engine, database: Database, place: str, revision: str) -> None:
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
    with (
        engine.connect().execution_options(schema=True) as connection,
        connection.begin(),
        database.schema_lock(connection),
    ):
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def alembic_config() -> Config:
    """Alembic's configuration for the migrations of this package, without a connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
