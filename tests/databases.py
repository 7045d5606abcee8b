"""Real database servers for tests: Debian's PostgreSQL and MariaDB on private ports and folders.

They run as an unprivileged user, with fsync, TLS by a certificate of their own, and passwords, and
end with the process that started them.
"""

from __future__ import annotations

import datetime
import getpass
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

from vistadex.catalog import Catalog, opening, tables

USER, PASSWORD = "vistadex", "s3cr3t-of-the-t3st"
START_S = 60
_TABLES = tables.metadata.sorted_tables


class Missing(Exception):
    """A server is not installed."""


class Place(Protocol):
    """Where tests make catalogs: files, or a server."""

    name: str

    def empty(self) -> str:
        """The address of a catalog that does not exist yet."""
        ...

    def catalog(self) -> AbstractContextManager[str]:
        """The address of a catalog that is as if new."""
        ...


class Files:
    """SQLite."""

    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def empty(self) -> str:
        """The address of a catalog that does not exist yet."""
        return str(Path(tempfile.mkdtemp(dir=self.folder)) / "sub" / "catalog.db")

    @contextmanager
    def catalog(self) -> Iterator[str]:
        """The address of a catalog that is as if new."""
        place = self.empty()
        Catalog(place, create=True).close()
        yield place


class Server(ABC):
    """A server in which tests make databases."""

    name: str
    certificate: Path | None = None
    """What those trust who ask for TLS by this server."""

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)
        self.numbers = itertools.count(1)
        self.made: list[str] = []
        self.free: list[str] = []

    def url_of(self, database: str) -> str:
        """The address of one of its databases."""
        return self.url.set(database=database).render_as_string(hide_password=False)

    @contextmanager
    def admin(self, database: str | None = None) -> Iterator[sa.Connection]:
        """A connection on which every statement stands alone."""
        url = opening.database_of(self.url).driver
        driver = {"psycopg": "postgresql+psycopg", "pymysql": "mysql+pymysql"}[url]
        target = self.url.set(drivername=driver, database=database or self.url.database)
        engine = sa.create_engine(target, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            yield connection

    @abstractmethod
    def create(self, database: str) -> None:
        """Makes a database without tables."""

    def empty(self) -> str:
        """The address of a database without tables."""
        database = f"vistadex_test_{os.getpid()}_{next(self.numbers)}"
        self.create(database)
        self.made.append(database)
        return self.url_of(database)

    @contextmanager
    def catalog(self) -> Iterator[str]:
        """The address of a catalog that is as if new; another test has it later."""
        if self.free:
            url = self.free.pop()
        else:
            url = self.empty()
            Catalog(url, create=True).close()
        yield url
        self.clean(url)
        self.free.append(url)

    @abstractmethod
    def clean(self, url: str) -> None:
        """Removes all rows, and lets numbers begin at 1 again."""

    @abstractmethod
    def reader(self, database: str) -> str:
        """The address of a database for someone who may only read it."""

    @abstractmethod
    def terminate(self, database: str) -> int:
        """Breaks all connections to a database; returns how many."""

    def drop_all(self) -> None:
        """Removes what tests have made."""
        with self.admin() as connection:
            for database in self.made:
                connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {database}")


class PostgresqlServer(Server):
    """PostgreSQL."""

    name = "postgresql"

    def create(self, database: str) -> None:
        """Makes a database without tables."""
        with self.admin() as connection:
            connection.exec_driver_sql(
                f"CREATE DATABASE {database} ENCODING 'UTF8' TEMPLATE template0"
            )

    def clean(self, url: str) -> None:
        """Removes all rows, and lets numbers begin at 1 again."""
        gone = [f'DELETE FROM "{table.name}"' for table in reversed(_TABLES)]
        numbered = [table.name for table in _TABLES if table.autoincrement_column is not None]
        again = [f'ALTER SEQUENCE "{name}_id_seq" RESTART' for name in numbered]
        first = "INSERT INTO state VALUES (1, gen_random_uuid()::text, 0)"
        with self.admin(sa.make_url(url).database) as connection:
            together = "; ".join([*gone, *again, first])
            connection.exec_driver_sql(together, execution_options={"no_parameters": True})

    def reader(self, database: str) -> str:
        """The address of a database for someone who may only read it."""
        name = f"reader_{next(self.numbers)}"
        with self.admin(database) as connection:
            connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
            connection.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
        url = self.url.set(database=database, username=name, password=PASSWORD)
        return url.render_as_string(hide_password=False)

    def terminate(self, database: str) -> int:
        """Breaks all connections to a database; returns how many."""
        with self.admin() as connection:
            query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = "
            return int(connection.exec_driver_sql(f"{query}'{database}'").scalar_one())


class MariadbServer(Server):
    """MariaDB or MySQL."""

    name = "mariadb"

    def create(self, database: str) -> None:
        """Makes a database without tables; its default is of no help to us."""
        with self.admin() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {database} CHARACTER SET latin1")

    def clean(self, url: str) -> None:
        """Removes all rows, and lets numbers begin at 1 again."""
        with self.admin(sa.make_url(url).database) as connection:
            connection.exec_driver_sql("START TRANSACTION")
            for table in reversed(_TABLES):
                connection.exec_driver_sql(f"DELETE FROM `{table.name}`")
            connection.exec_driver_sql("INSERT INTO state VALUES (1, UUID(), 0)")
            connection.exec_driver_sql("COMMIT")
            query = (
                "SELECT table_name FROM information_schema.tables "
                "WHERE table_schema = DATABASE() AND auto_increment > 1"
            )
            for name in connection.exec_driver_sql(query).scalars().all():
                connection.exec_driver_sql(f"ALTER TABLE `{name}` AUTO_INCREMENT = 1")

    def reader(self, database: str) -> str:
        """The address of a database for someone who may only read it."""
        name = f"reader_{next(self.numbers)}"
        with self.admin() as connection:
            for text in (
                f"CREATE USER {name}@'%' IDENTIFIED BY '{PASSWORD}'",
                f"GRANT SELECT ON {database}.* TO {name}@'%'",
            ):
                connection.execute(sa.text(text))
        url = self.url.set(database=database, username=name, password=PASSWORD)
        return url.render_as_string(hide_password=False)

    def terminate(self, database: str) -> int:
        """Breaks all connections to a database; returns how many."""
        with self.admin() as connection:
            query = "SELECT id FROM information_schema.processlist WHERE db = "
            ids = connection.exec_driver_sql(f"{query}'{database}'").scalars().all()
            for one in ids:
                connection.exec_driver_sql(f"KILL {one}")
            return len(ids)


def _program(name: str, *folders: str) -> str:
    """Where a program is.

    Raises: Missing where it is not installed.
    """
    for folder in folders:
        for found in sorted(Path("/").glob(f"{folder[1:]}/{name}"), reverse=True):
            return str(found)
    found_ = shutil.which(name)
    if found_ is None:
        raise Missing(f"{name} is not installed")
    return found_


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def _owner(*names: str) -> str:
    """Who runs a server: servers refuse root."""
    if os.getuid() != 0:
        return getpass.getuser()
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in (*names, "nobody") if name in known)


def _as(owner: str, command: Sequence[str]) -> list[str]:
    """The command run by an owner, and ended with us, whatever becomes of us."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return list(command)
    who = ["--reuid", owner, "--regid", owner, "--clear-groups"] if os.getuid() == 0 else []
    return [setpriv, *who, "--pdeathsig", "SIGTERM", *command]


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that is its own authority, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "server.crt", folder / "server.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    private.chmod(0o600)
    return public, private


# Servers are not stopped gently: what they hold is thrown away, and MariaDB would wait ten seconds
# for connections that tests have left open.
@contextmanager
def _process(command: Sequence[str], log: Path, stop: signal.Signals) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(server: Server, log: Path) -> None:
    """Raises: AssertionError with the server's log where it does not come up."""
    until = time.monotonic() + START_S
    while True:
        try:
            with server.admin() as connection:
                connection.exec_driver_sql("SELECT 1")
            return
        except sa.exc.DBAPIError:
            if time.monotonic() > until:
                raise AssertionError(log.read_text(errors="replace")[-4000:]) from None
            time.sleep(0.1)


@contextmanager
def _folder(owner: str) -> Iterator[Path]:
    """A folder of its own for a server, with a short name: sockets may not have a long one."""
    folder = Path(tempfile.mkdtemp(prefix="vxdb"))
    try:
        if os.getuid() == 0:
            shutil.chown(folder, owner)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _give(owner: str, *paths: Path) -> None:
    if os.getuid() == 0:
        for path in paths:
            shutil.chown(path, owner)


@contextmanager
def postgresql(more: Mapping[str, str] | None = None) -> Iterator[PostgresqlServer]:
    """A PostgreSQL server of our own.

    Args:
        more: settings of it beyond those that it needs.

    Raises: Missing where it is not installed.
    """
    initdb = _program("initdb", "/usr/lib/postgresql/*/bin")
    program = _program("postgres", "/usr/lib/postgresql/*/bin")
    owner = _owner("postgres")
    with _folder(owner) as folder:
        (folder / "password").write_text(PASSWORD)
        public, private = certificate(folder)
        _give(owner, folder / "password", public, private)
        data, port = folder / "data", _free_port()
        options = ["-U", USER, "--pwfile", str(folder / "password"), "--auth", "scram-sha-256"]
        locale = ["--encoding", "UTF8", "--locale", "C.UTF-8"]
        made = _as(owner, [initdb, "-D", str(data), "--no-sync", *options, *locale])
        subprocess.run(made, check=True, capture_output=True, cwd=folder)
        settings = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": folder,
            "max_connections": 40,
            "ssl": "on",
            "ssl_cert_file": public,
            "ssl_key_file": private,
            **(more or {}),
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        log = folder / "log"
        with _process(_as(owner, [program, "-D", str(data), *words]), log, signal.SIGQUIT):
            server = PostgresqlServer(f"postgresql://{USER}:{PASSWORD}@localhost:{port}/postgres")
            server.certificate = public
            _wait_for(server, log)
            yield server


@contextmanager
def mariadb(more: Mapping[str, str] | None = None) -> Iterator[MariadbServer]:
    """A MariaDB server of our own.

    Args:
        more: settings of it beyond those that it needs.

    Raises: Missing where it is not installed.
    """
    install, program = _program("mariadb-install-db"), _program("mariadbd", "/usr/sbin")
    owner = _owner("mysql")
    with _folder(owner) as folder:
        public, private = certificate(folder)
        _give(owner, public, private)
        data, port = folder / "data", _free_port()
        quiet = ["--no-defaults", f"--datadir={data}"]
        made = [install, *quiet, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(_as(owner, made), check=True, capture_output=True, cwd=folder)
        begin = folder / "begin.sql"
        begin.write_text(
            f"CREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO {USER}@'%' WITH GRANT OPTION;\n"
        )
        _give(owner, begin)
        settings = {
            "socket": folder / "socket",
            "port": port,
            "bind-address": "127.0.0.1",
            "pid-file": folder / "pid",
            "init-file": begin,
            "ssl-cert": public,
            "ssl-key": private,
            "skip-name-resolve": "ON",
            **(more or {}),
        }
        words = [f"--{name}={value}" for name, value in settings.items()]
        log = folder / "log"
        with _process(_as(owner, [program, *quiet, *words]), log, signal.SIGKILL):
            server = MariadbServer(f"mariadb://{USER}:{PASSWORD}@localhost:{port}/mysql")
            server.certificate = public
            _wait_for(server, log)
            yield server


STARTED = {"postgresql": postgresql, "mariadb": mariadb}
"""What starts a server, by the name that --database gives it."""


@contextmanager
def at(url: str) -> Iterator[Server]:
    """A server that runs already; its user may make databases."""
    kind = PostgresqlServer if url.startswith("postgres") else MariadbServer
    server = kind(url)
    yield server
    server.drop_all()
