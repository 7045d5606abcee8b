"""The catalog in MariaDB or MySQL, through PyMySQL."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from vistadex.catalog.database import SCHEMA_LOCK_S, Database
from vistadex.catalog.servers import LOCK_STATE, Limits, need_database, pooled, shown, split_limits
from vistadex.errors import CatalogError, UsageError

MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
"""Of TLS, as libpq calls them."""
SAME_OPTIONS = {"sslrootcert": "ssl_ca", "sslcert": "ssl_cert", "sslkey": "ssl_key"}
"""Options as PostgreSQL's addresses call them."""
PATIENCE_S = 7200
"""How long the server waits for a reader who does something else between two rows."""
OPTIONS = ("sslmode", "ssl_ca", "ssl_cert", "ssl_key", "unix_socket", "read_timeout")


class Mysql(Database):
    """MariaDB 10.6 and MySQL 8 and newer."""

    driver = "pymysql"

    def engine(self, url: sa.URL, *, create: bool) -> sa.Engine:
        """An engine for mysql://user@host/database or mariadb://user@host/database."""
        need_database(url)
        limits, url = split_limits(url.set(drivername="mysql+pymysql"))
        query = {SAME_OPTIONS.get(name, name): _last(value) for name, value in url.query.items()}
        unknown = sorted(set(query) - set(OPTIONS))
        if unknown:
            raise UsageError(
                f"{shown(url)}: unknown option {unknown[0]!r}; known are: "
                f"{', '.join([*OPTIONS, *Limits.__slots__])}"
            )
        connect_args: dict[str, Any] = {
            "charset": "utf8mb4",
            "connect_timeout": limits.connect_timeout,
            "program_name": limits.application_name,
            **_tls(url, query),
        }
        if "unix_socket" in query:
            connect_args["unix_socket"] = query["unix_socket"]
        if "read_timeout" in query:
            if not query["read_timeout"].isdecimal():
                found = query["read_timeout"]
                raise UsageError(f"{shown(url)}: read_timeout={found!r} is no number; give seconds")
            connect_args["read_timeout"] = int(query["read_timeout"])
        engine = pooled(url.set(query={}), limits, connect_args, "mysql")

        def on_connect(connection: Any, _: object) -> None:
            _on_connect(connection, limits)

        def on_begin(connection: sa.Connection) -> None:
            _on_begin(connection, limits)

        sa.event.listen(engine, "connect", on_connect)
        sa.event.listen(engine, "begin", on_begin)
        return engine

    def place(self, url: sa.URL) -> str:
        """The address as messages show it."""
        return shown(url)

    @contextmanager
    def schema_lock(self, connection: sa.Connection) -> Iterator[None]:
        """A lock by name: making a table ends a transaction here, and would free any other."""
        database = str(connection.engine.url.database)
        name = "vistadex." + hashlib.sha256(database.encode()).hexdigest()[:40]
        got = connection.exec_driver_sql(f"SELECT GET_LOCK('{name}', {SCHEMA_LOCK_S})").scalar()
        if got != 1:
            raise CatalogError(
                f"{shown(connection.engine.url)}: another process has been making the tables for "
                f"{SCHEMA_LOCK_S} s; try again later"
            )
        try:
            yield
            connection.exec_driver_sql("COMMIT")  # before another process may look
            connection.exec_driver_sql(f"SELECT RELEASE_LOCK('{name}')")
        except BaseException:
            connection.invalidate()  # a lock ends with its connection
            raise

    def cure(self, error: BaseException) -> str | None:
        """What to do, by the server's code."""
        code, message = _code(error), str(error.args[-1]) if error.args else ""
        if code == 2003:
            return _unreached(message)
        for codes, cure in _CURES:
            if code in codes:
                return cure.format(message=message)
        return None

    def is_passing(self, error: BaseException) -> bool:
        """A lost connection, a server that restarts, or a deadlock."""
        if type(error).__name__ == "InterfaceError":  # the driver's own: the socket is closed
            return True
        return _code(error) in _PASSING


def _last(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else value[-1]


def _code(error: BaseException) -> int:
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def _tls(url: sa.URL, query: Mapping[str, str]) -> dict[str, Any]:
    """What the driver is told of TLS.

    Raises: UsageError for an unknown mode, or a file that is no certificate.
    """
    files = {name: query[name] for name in ("ssl_ca", "ssl_cert", "ssl_key") if name in query}
    mode = query.get("sslmode", "verify-full" if "ssl_ca" in files else "prefer")
    if mode not in MODES:
        raise UsageError(f"{shown(url)}: sslmode={mode!r}; known are: {', '.join(MODES)}")
    if mode == "disable":
        return {"ssl_disabled": True}
    if mode == "prefer" and not files:
        return {}
    try:
        context = ssl.create_default_context(cafile=files.get("ssl_ca"))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = mode == "verify-full"
        context.verify_mode = ssl.CERT_REQUIRED if mode[:6] == "verify" else ssl.CERT_NONE
        if "ssl_cert" in files:
            context.load_cert_chain(files["ssl_cert"], files.get("ssl_key"))
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(files.values())
        raise UsageError(
            f"{shown(url)}: {names}: no certificate that can be read ({error}); check the files"
        ) from error
    return {"ssl": context}


def _on_connect(connection: Any, limits: Limits) -> None:
    """What holds for a whole connection; MySQL and MariaDB count different times."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        wait = limits.lock_timeout or 1 << 24
        cursor.execute(
            f"SET SESSION innodb_lock_wait_timeout={wait}, "
            "sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
            f"{_statement_limit(connection, limits.statement_timeout)}"
        )


def _statement_limit(connection: Any, seconds: int) -> str:
    if "mariadb" in connection.get_server_info().lower():
        return f"max_statement_time={seconds}"
    return f"max_execution_time={seconds * 1000}"


def _on_begin(connection: sa.Connection, limits: Limits) -> None:
    """Readers see one state of the catalog; a writer takes its lock at once, and may take long."""
    options = connection.get_execution_options()
    write, schema = options.get("write", False), options.get("schema", False)
    patient = options.get("patient", False)
    wanted = 0 if write or schema or patient else limits.statement_timeout
    if connection.info.get("statement_limit", limits.statement_timeout) != wanted:
        raw = connection.connection.dbapi_connection
        connection.exec_driver_sql(f"SET SESSION {_statement_limit(raw, wanted)}")
        connection.info["statement_limit"] = wanted
    if patient:
        connection.exec_driver_sql(f"SET SESSION net_write_timeout={PATIENCE_S}")
    if not (write or schema or options.get("latest", False)):
        connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        return
    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
    connection.exec_driver_sql("START TRANSACTION")
    if write:
        connection.exec_driver_sql(LOCK_STATE)


def _unreached(message: str) -> str:
    if "timed out" in message:
        return "the server does not answer; check host, port and firewall, or raise connect_timeout"
    if "not known" in message or "resolution" in message or "No address" in message:
        return "there is no such host; check the address"
    if "CERTIFICATE" in message or "SSL" in message:
        return f"no connection by TLS: {message}; check sslmode and ssl_ca"
    return "no server answers there; check host, port and whether the server runs"


_PASSING = frozenset({1053, 1213, 1317, 1927, 2002, 2003, 2006, 2013, 2014, 2055, 4031})
_AGAIN = "run the same command again"
_CURES: tuple[tuple[tuple[int, ...], str], ...] = (
    ((1045, 1698, 1251), "the server refuses this user or password; check both"),
    (
        (1044, 1142, 1143, 1227, 1370),
        "{message}; grant it: GRANT ALL ON DATABASE.* TO USER",
    ),
    ((1049,), "there is no such database; make it with: CREATE DATABASE NAME"),
    (
        (1040, 1203, 1226),
        "the server has too many connections; lower pool_size, or raise its limit",
    ),
    ((1021, 1114), f"the server's disk is full; free some space there and {_AGAIN}"),
    ((1205,), "another process has been writing for lock_timeout seconds; try again later"),
    (
        (1969, 3024),
        "a statement took longer than statement_timeout; raise it in the catalog's address",
    ),
    (
        (1290, 1792, 1836),
        "the server only lets us read; give the address of one that can be written",
    ),
    ((1406, 1071), "{message}; a name is too long to be held, shorten it"),
    ((1153, 1301), "{message}; raise max_allowed_packet of the server"),
    ((2026,), "no connection by TLS: {message}; check sslmode and ssl_ca"),
    ((1213,), f"another transaction was in the way; {_AGAIN}"),
    ((2006, 2013, 2055, 1927, 1317, 4031), f"the connection was lost; {_AGAIN}"),
    ((1053,), f"the server stopped or restarted; {_AGAIN}"),
)
