"""vistadex.catalog.opening: addresses, what messages show of them, errors, retries: no server."""

import socket
from pathlib import Path

import psycopg
import pymysql
import pytest
import sqlalchemy as sa

from vistadex.catalog import Catalog, opening, servers
from vistadex.catalog.columns import MOST_NAME_BYTES, Name, Prose, dumped
from vistadex.errors import CatalogError, UsageError

SECRET = "s3cr3t-p4ss"


@pytest.fixture
def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "mysql", "mariadb"])
def test_a_server_that_is_not_there_is_an_error_with_place_and_cure(
    scheme: str, closed_port: int
) -> None:
    url = f"{scheme}://me:{SECRET}@127.0.0.1:{closed_port}/photos"
    with pytest.raises(CatalogError, match="no server answers there; check host, port") as caught:
        Catalog(url)
    assert f"://me@127.0.0.1:{closed_port}/photos: " in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("oracle://me:{s}@host/db", "the catalog can be in sqlite, postgresql"),
        ("postgresql://me:{s}@host", "names no database; write postgresql://me@host/vistadex"),
        ("postgresql://me:{s}@@host:port/db", "no address of a database, expected postgresql://"),
        ("postgresql://me:{s}@host/db?pool_size=0", "pool_size='0' is no number that fits"),
        ("postgresql://me:{s}@host/db?lock_timeout=-1", "lock_timeout='-1' is no number"),
        ("mysql://me:{s}@host/db?pool_timeout=soon", "pool_timeout='soon' is no number"),
        ("mysql://me:{s}@host/db?foo={s}", "unknown option 'foo'; known are: sslmode"),
        ("mysql://me:{s}@host/db?sslmode=yes", "sslmode='yes'; known are: disable, prefer"),
        ("mysql://me:{s}@host/db?ssl_ca=none.pem", "no certificate that can be read"),
        ("mysql://me:{s}@host/db?read_timeout=soon", "read_timeout='soon' is no number"),
    ],
)
def test_a_wrong_address_is_an_error_without_the_password(url: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Catalog(url.format(s=SECRET))
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None or SECRET not in str(caught.value.__cause__)


def test_an_address_is_shown_without_password_and_options() -> None:
    url = sa.make_url(f"postgresql+psycopg://me:{SECRET}@host:5433/photos?sslpassword={SECRET}")
    assert opening.place_of(url) == "postgresql://me@host:5433/photos"
    by_socket = sa.make_url(f"mysql://me:{SECRET}@/photos?unix_socket=/run/my.sock&x={SECRET}")
    assert opening.place_of(by_socket) == "mysql://me@/run/my.sock/photos"


def test_limits_are_taken_out_of_an_address() -> None:
    url = sa.make_url("postgresql://h/db?pool_size=3&statement_timeout=0&sslmode=require")
    limits, rest = servers.split_limits(url)
    assert (limits.pool_size, limits.statement_timeout, limits.lock_timeout) == (3, 0, 300)
    assert dict(rest.query) == {"sslmode": "require"}


def test_engines_have_a_pool_of_the_size_that_the_address_says() -> None:
    engine = opening.engine_for("mysql://h/db?pool_size=2&pool_overflow=0")
    assert isinstance(engine.pool, sa.pool.QueuePool)
    assert engine.pool.size() == 2
    assert engine.pool._max_overflow == 0


def lost(text: str = "server closed the connection unexpectedly") -> sa.exc.DBAPIError:
    return sa.exc.OperationalError("SELECT 1", None, psycopg.OperationalError(text))


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (psycopg.OperationalError("server closed the connection unexpectedly"), True),
        (psycopg.OperationalError("the connection is lost"), True),
        (psycopg.errors.DeadlockDetected("deadlock detected"), True),
        (psycopg.errors.SerializationFailure("could not serialize"), True),
        (psycopg.errors.AdminShutdown("terminating connection"), True),
        (psycopg.errors.UniqueViolation("the connection is lost, says a key"), False),
        (psycopg.errors.LockNotAvailable("lock timeout"), False),
        (psycopg.errors.QueryCanceled("statement timeout"), False),
        (psycopg.errors.DiskFull("no space"), False),
        (pymysql.err.OperationalError(2013, "Lost connection"), True),
        (pymysql.err.OperationalError(1213, "Deadlock found"), True),
        (pymysql.err.InterfaceError(0, ""), True),
        (pymysql.err.OperationalError(1205, "Lock wait timeout"), False),
        (pymysql.err.IntegrityError(1062, "Duplicate entry"), False),
    ],
)
def test_only_what_passes_is_run_again(error: Exception, passing: bool) -> None:
    wrapped = sa.exc.DBAPIError("SELECT 1", None, error)
    assert opening.is_passing(wrapped) is passing
    with pytest.raises(CatalogError) as caught, opening.translated("here"):
        raise wrapped
    assert opening.is_passing(caught.value) is passing


def test_another_error_is_never_passing() -> None:
    assert not opening.is_passing(ValueError("server closed the connection"))
    assert not opening.is_passing(CatalogError("the connection is lost"))


def test_a_transaction_is_run_again_until_it_succeeds() -> None:
    calls: list[int] = []

    def attempt() -> str:
        calls.append(len(calls))
        if len(calls) < 3:
            raise lost()
        return "done"

    assert opening.retried(attempt) == "done"
    assert calls == [0, 1, 2]


def test_a_transaction_is_run_again_a_limited_number_of_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opening, "FIRST_WAIT_S", 0.0001)
    calls: list[int] = []

    def attempt() -> None:
        calls.append(1)
        raise lost()

    with pytest.raises(sa.exc.DBAPIError):
        opening.retried(attempt)
    assert len(calls) == opening.ATTEMPTS


def test_a_mistake_is_not_run_again() -> None:
    calls: list[int] = []

    def attempt() -> None:
        calls.append(1)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        opening.retried(attempt)
    assert calls == [1]


def test_json_has_no_characters_that_a_database_refuses() -> None:
    value = {"a\0b": ["x\ud800y", "\U0001f600", "back\\u0000slash"]}
    assert dumped(value) == ('{"a\ufffdb": ["x\ufffdy", "\U0001f600", "back\\\\u0000slash"]}')


@pytest.mark.parametrize("name", ["postgresql", "mysql"])
def test_a_name_that_a_server_cannot_hold_is_an_error_with_the_cure(name: str) -> None:
    dialect = opening.engine_for(f"{name}://h/db").dialect
    stored = Name(10).bind_processor(dialect)
    assert stored is not None
    assert stored("ä" * (MOST_NAME_BYTES // 2)) in ("ä" * 1300, ("ä" * 1300).encode())
    with pytest.raises(CatalogError, match=r"2,602 bytes, expected at most 2,600.*shorten it"):
        stored("ä" * (MOST_NAME_BYTES // 2 + 1))
    with pytest.raises(CatalogError, match="a NUL character"):
        stored("a\0b")


def test_prose_holds_no_nul(tmp_path: Path) -> None:
    dialect = opening.engine_for(str(tmp_path / "x.db")).dialect
    assert Prose().process_bind_param("a\0b", dialect) == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (psycopg.errors.DiskFull("could not extend file"), "the server's disk is full; free some"),
        (psycopg.errors.TooManyConnections("too many"), "too many connections; lower pool_size"),
        (psycopg.errors.QueryCanceled("canceling"), "took longer than statement_timeout; raise"),
        (psycopg.errors.LockNotAvailable("canceling"), "another process has been writing for"),
        (psycopg.errors.InsufficientPrivilege("denied for x"), "denied for x; grant it: ALTER"),
        (psycopg.errors.ReadOnlySqlTransaction("cannot"), "the server only lets us read; give"),
        (psycopg.OperationalError("timeout expired"), "the server does not answer; check host"),
        (psycopg.OperationalError('FATAL: database "x" does not exist'), "createdb NAME"),
        (psycopg.OperationalError("failed to resolve host 'x'"), "there is no such host; check"),
        (psycopg.OperationalError("FATAL: sorry, too many clients"), "too many connections"),
        (psycopg.ProgrammingError('invalid connection option "foo"'), "options are those of libpq"),
        (pymysql.err.OperationalError(1114, "The table is full"), "the server's disk is full"),
        (pymysql.err.OperationalError(1021, "Disk full"), "the server's disk is full; free some"),
        (pymysql.err.OperationalError(1040, "Too many"), "too many connections; lower pool_size"),
        (pymysql.err.OperationalError(1969, "max_statement_time"), "longer than statement_timeout"),
        (pymysql.err.OperationalError(3024, "max_execution_time"), "longer than statement_timeout"),
        (pymysql.err.OperationalError(1205, "Lock wait"), "another process has been writing for"),
        (pymysql.err.OperationalError(1142, "INSERT denied"), "INSERT denied; grant it: GRANT ALL"),
        (pymysql.err.OperationalError(1290, "--read-only"), "the server only lets us read; give"),
        (pymysql.err.OperationalError(1153, "Got a packet"), "raise max_allowed_packet"),
        (pymysql.err.OperationalError(2003, "(timed out)"), "the server does not answer; check"),
        (pymysql.err.OperationalError(2003, "(Name or service not known)"), "no such host; check"),
        (pymysql.err.ProgrammingError(4711, "odd {thing}"), "odd {thing}"),
    ],
)
def test_errors_of_servers_say_the_cure(error: Exception, words: str) -> None:
    with pytest.raises(CatalogError, match=r"^there: ") as caught, opening.translated("there"):
        raise sa.exc.DBAPIError("SELECT 1", None, error)
    assert words in str(caught.value)
