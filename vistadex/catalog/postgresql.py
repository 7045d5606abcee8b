"""The catalog in PostgreSQL, through psycopg 3."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

from vistadex.catalog.database import SCHEMA_LOCK_S, Database
from vistadex.catalog.servers import LOCK_STATE, need_database, pooled, shown, split_limits
from vistadex.errors import CatalogError

if TYPE_CHECKING:
    import psycopg

SCHEMA_LOCK = zlib.crc32(b"vistadex schema")
ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""A server that is gone without a word is noticed after a minute, not after two hours."""
SAME_OPTIONS = {"ssl_ca": "sslrootcert", "ssl_cert": "sslcert", "ssl_key": "sslkey"}
"""Options as MySQL's addresses call them."""


class Postgresql(Database):
    """PostgreSQL 13 and newer."""

    driver = "psycopg"

    def engine(self, url: sa.URL, *, create: bool) -> sa.Engine:
        """An engine for postgresql://user@host/database; options of libpq may follow."""
        need_database(url)
        limits, url = split_limits(url.set(drivername="postgresql+psycopg"))
        query = {SAME_OPTIONS.get(name, name): value for name, value in url.query.items()}
        options = f"-c statement_timeout={limits.statement_timeout}s {query.pop('options', '')}"
        connect_args = {
            **{name: value for name, value in ALIVE.items() if name not in query},
            "connect_timeout": limits.connect_timeout,
            "application_name": limits.application_name,
            "client_encoding": "utf8",
            "options": options.strip(),
        }
        engine = pooled(url.set(query=query), limits, connect_args, "postgres")
        lock = (
            f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{limits.lock_timeout}s'; "
        )

        def on_begin(connection: sa.Connection) -> None:
            _on_begin(connection, lock)

        sa.event.listen(engine, "begin", on_begin)
        return engine

    def place(self, url: sa.URL) -> str:
        """The address as messages show it."""
        return shown(url)

    @contextmanager
    def schema_lock(self, connection: sa.Connection) -> Iterator[None]:
        """Held to the end of the transaction, which makes all tables or none.

        Raises: CatalogError where the database does not hold Unicode.
        """
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            raise CatalogError(
                f"{shown(connection.engine.url)}: the database's encoding is {encoding}, expected "
                "UTF8; make it with: createdb --encoding=UTF8 --template=template0 ..."
            )
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{SCHEMA_LOCK_S}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
        yield

    def cure(self, error: BaseException) -> str | None:
        """What to do, by PostgreSQL's code, or by libpq's words where there is no server yet."""
        code = getattr(error, "sqlstate", None) or ""
        message = " ".join(str(error).split())
        for sign, cure in _BY_CODE:
            if code.startswith(sign):
                return cure.format(message=message)
        for words, cure in _BY_WORDS:
            if re.search(words, message):
                return cure.format(message=_short(message))
        return None

    def is_passing(self, error: BaseException) -> bool:
        """A lost connection, a server that restarts, a deadlock, or a transaction too late."""
        code = getattr(error, "sqlstate", None) or ""
        if code.startswith(_PASSING):
            return True
        return not code and bool(re.search(_LOST, str(error)))


def _on_begin(connection: sa.Connection, lock: str) -> None:
    """Readers see one state of the catalog; a writer takes its lock at once."""
    import psycopg

    options = connection.get_execution_options()
    write, schema = options.get("write", False), options.get("schema", False)
    levels = psycopg.IsolationLevel
    raw = cast("psycopg.Connection[Any]", connection.connection.dbapi_connection)
    raw.isolation_level = levels.READ_COMMITTED if write or schema else levels.REPEATABLE_READ
    raw.read_only = None if schema else not write
    if write:
        once = {"no_parameters": True}  # several statements, one way there and back
        connection.exec_driver_sql(lock + LOCK_STATE, execution_options=once)
    elif schema or options.get("patient", False):
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")


def _short(message: str) -> str:
    """What libpq says, without what it tried before."""
    return message[-200:]


_PASSING = ("08", "40001", "40P01", "57P01", "57P02", "57P03", "25P03", "57P05")
_LOST = (
    "server closed the connection|connection is lost|connection is bad|the connection is closed|"
    "terminating connection|Connection refused|SSL connection has been closed|"
    "could not receive data|could not send data|starting up|shutting down|SSL SYSCALL|timed out"
)
_AGAIN = "run the same command again"
_BY_CODE = (
    ("3D000", "there is no such database; make it with: createdb NAME"),
    ("28", "the server refuses this user or password; check both, and the server's pg_hba.conf"),
    ("53100", f"the server's disk is full; free some space there and {_AGAIN}"),
    ("53200", f"the server is out of memory; {_AGAIN}, or raise its limits"),
    ("53300", "the server has too many connections; lower pool_size, or raise max_connections"),
    ("57014", "a statement took longer than statement_timeout; raise it in the catalog's address"),
    ("55P03", "another process has been writing for lock_timeout seconds; try again later"),
    ("42501", "{message}; grant it: ALTER DATABASE NAME OWNER TO USER"),
    ("25006", "the server only lets us read; give the address of one that can be written"),
    ("54000", "{message}; a name is too long to be indexed, shorten it"),
    ("57P", f"the server stopped or restarted; {_AGAIN}"),
    ("08", f"the connection was lost; {_AGAIN}"),
    ("40", f"another transaction was in the way; {_AGAIN}"),
    ("XX", "the server reports damage: {message}; see its log"),
)
_BY_WORDS = (
    ('database ".*" does not exist', "there is no such database; make it with: createdb NAME"),
    (
        "Connection refused|No such file",
        "no server answers there; check host, port and whether PostgreSQL runs",
    ),
    ("resolve|translate host", "there is no such host; check the address"),
    (
        "password|pg_hba.conf|Peer authentication|Ident authentication|no password supplied",
        "the server refuses this user or password; check both, and the server's pg_hba.conf",
    ),
    (
        'role ".*" does not exist',
        "the server refuses this user or password; check both, and the server's pg_hba.conf",
    ),
    (
        "too many (clients|connections)|remaining connection slots",
        "the server has too many connections; lower pool_size, or raise max_connections",
    ),
    (
        "[Cc]ertificate|SSL|sslmode",
        "no connection by TLS: {message}; check sslmode and sslrootcert",
    ),
    (
        'invalid connection option|invalid URI|missing "="',
        "{message}; options are those of libpq, as sslmode",
    ),
    (
        "timeout expired|timed out",
        "the server does not answer; check host, port and firewall, or raise connect_timeout",
    ),
    ("starting up|shutting down", f"the server is starting or stopping; {_AGAIN}"),
    (_LOST, f"the connection was lost; {_AGAIN}"),
)
