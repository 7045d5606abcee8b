"""Fixtures for all tests, and the rule that nothing is skipped on CI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import databases

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("VISTADEX_TEST_DATA", ROOT.parent / "shared" / "data"))
NOT_REQUIRED = "Azurite is not installed"
"""In the reason of skipped tests that CI may be without: npm is not reached everywhere."""
AWS_SECRET = "s3cr3t-k3y-of-the-test"


def pytest_addoption(parser: pytest.Parser) -> None:
    """--database: where the catalogs of tests are that don't care."""
    parser.addoption(
        "--database",
        default="sqlite",
        help="sqlite, postgresql, mariadb, some of them with commas, or all; or the address of a "
        "server on which databases may be made",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for a database runs on each that was chosen, for a server on each server."""
    chosen = metafunc.config.getoption("--database")
    names = ["sqlite", *databases.STARTED] if chosen == "all" else chosen.split(",")
    if "://" in chosen:
        names = [chosen]
    if "database_server" in metafunc.fixturenames:
        names = [name for name in names if name != "sqlite"]
    if "database" in metafunc.fixturenames:
        ids = [name.partition("://")[0] for name in names]
        metafunc.parametrize("database", names, indirect=True, ids=ids, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of servers are left out where none was chosen."""
    if config.getoption("--database") == "sqlite":
        gone = [item for item in items if "database_server" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in set(gone)]


class _Started:
    """Servers that run by now: each is started once, and all end with the session."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.servers: dict[str, databases.Server | str] = {}

    def server(self, name: str) -> databases.Server:
        """A server by name or address; the test is skipped where it is not installed."""
        if name not in self.servers:
            start = databases.STARTED.get(name)
            try:
                opened = databases.at(name) if start is None else start()
                self.servers[name] = self.stack.enter_context(opened)
            except databases.Missing as error:
                self.servers[name] = str(error)
        found = self.servers[name]
        if isinstance(found, str):
            pytest.skip(f"{name}: {found}")
        return found


@pytest.fixture(scope="session")
def _started() -> Iterator[_Started]:
    started = _Started()
    with started.stack:
        yield started


@pytest.fixture(scope="session")
def database(
    request: pytest.FixtureRequest,
    _started: _Started,
    tmp_path_factory: pytest.TempPathFactory,
) -> databases.Place:
    """Where catalogs are made: SQLite, and what --database says."""
    if request.param == "sqlite":
        return databases.Files(tmp_path_factory.mktemp("databases"))
    return _started.server(request.param)


@pytest.fixture(scope="session")
def database_server(database: databases.Place) -> databases.Server:
    """The servers among them."""
    assert isinstance(database, databases.Server)
    return database


@pytest.fixture
def catalog_url(database: databases.Place) -> Iterator[str]:
    """The address of a catalog that is as if new."""
    with database.catalog() as url:
        yield url


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the cache of the person who runs it."""
    monkeypatch.setenv("VISTADEX_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real pictures, annotations and weights that lies beside the repository."""
    if not (SHARED_DATA / "README.md").exists():
        pytest.skip(f"{SHARED_DATA} is absent; set VISTADEX_TEST_DATA")
    return SHARED_DATA


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a real S3 protocol server."""
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def aws(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment of someone who uses the server; tests change it."""
    empty = tmp_path / "empty"
    empty.write_text("")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(empty))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(empty))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS_SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    return monkeypatch


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """On CI, a skipped test is a failed run, but for what CONTRIBUTING.md says is not required."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = [] if reporter is None else reporter.stats.get("skipped", [])
    required = [report for report in skipped if NOT_REQUIRED not in str(report.longrepr)]
    if os.environ.get("CI") and required:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names and counts what did not run on this machine."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests can't run on this machine:")
        for report in skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            terminalreporter.write_line(f"  {report.nodeid}: {reason}")
