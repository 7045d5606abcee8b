"""`vistadex serve` as a process: addresses and keys, workers, signals, proxies, numbers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx2 as httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.web_catalog import filled_catalog, pictures_folder
from vistadex.catalog import Catalog
from vistadex.errors import UsageError
from vistadex.web import Serving, serve

TOKEN = "t0ken-that-nobody-guesses"
ENDED = {0, 130, -signal.SIGTERM}
"""Exit codes of a server that was told to end: the signal's own where it is one process."""
BEARER = {"Authorization": f"Bearer {TOKEN}"}

pytestmark = pytest.mark.timeout(60)
folder = pytest.fixture(pictures_folder)
catalog = pytest.fixture(filled_catalog)


class Server:
    """A running `vistadex serve`."""

    def __init__(self, *options: str, catalog: Catalog, log: Path) -> None:
        self.log = log
        command = [sys.executable, "-m", "vistadex", "serve", "--json", "--port", "0", *options]
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [*command, "--catalog", catalog.location],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, log.read_text()
        self.url = str(json.loads(said)["url"]).replace("0.0.0.0", "127.0.0.1")
        self.client = httpx.Client(base_url=self.url, timeout=20)

    def ready(self) -> None:
        """Waits until it answers."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with suppress(httpx.HTTPError):
                if self.client.get("/health").status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ends it with a signal, and returns its exit code."""
        self.client.close()
        self.process.send_signal(number)
        return self.process.wait(30)

    def workers(self) -> set[int]:
        """The ids of its children that answer requests."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = set()
        for child in children.read_text().split():
            with suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.add(int(child))
        return found


Starting = Callable[..., Server]


@pytest.fixture
def starting(catalog: Catalog, tmp_path: Path) -> Iterator[Starting]:
    """Starts servers that end with the test."""
    started: list[Server] = []

    def start(*options: str) -> Server:
        server = Server(*options, catalog=catalog, log=tmp_path / f"log-{len(started)}")
        started.append(server)
        server.ready()
        return server

    yield start
    for server in started:
        server.client.close()
        with suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    return file


# Where it may be reached


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_a_key_it_answers_on_loopback_alone(
    catalog: Catalog, tmp_path: Path, host: str
) -> None:
    said: list[str] = []
    with pytest.raises(UsageError, match=f"^{host}: .*--token.*--host 127"):
        serve(catalog, Serving(host=host, port=0, cache=tmp_path), said.append)
    assert said == []


def test_the_address_that_is_bound_decides_not_its_name(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "create_server", lambda address, **how: _bound("0.0.0.0"))
    with pytest.raises(UsageError, match="--token"):
        serve(catalog, Serving(host="localhost", port=0, cache=tmp_path))


def _bound(host: str) -> socket.socket:
    bound = socket.socket()
    bound.bind((host, 0))
    bound.listen()
    return bound


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "--workers 0"),
        ({"workers": 65}, "1 to 64"),
        ({"host_names": ("http://a.example",)}, "--host-name"),
        ({"host_names": ("a.example:80",)}, "--host-name"),
        ({"host_names": ("*",)}, "--host-name"),
        ({"proxies": ("*",)}, "--proxy"),
        ({"proxies": ("proxy.example",)}, "--proxy"),
    ],
)
def test_options_that_can_not_be_meant_stop_the_start(
    catalog: Catalog, tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        serve(catalog, Serving(host="127.0.0.1", port=0, cache=tmp_path, **options))  # type: ignore[arg-type]


def test_names_are_those_of_the_address_and_further_ones(tmp_path: Path) -> None:
    def hosts(host: str, *names: str) -> frozenset[str] | None:
        return Serving(host=host, port=1, cache=tmp_path, host_names=names).hosts

    local = {"127.0.0.1", "localhost", "::1"}
    assert hosts("127.0.0.1") == local
    assert hosts("127.0.0.1", "Photos.example") == {*local, "photos.example"}
    assert hosts("0.0.0.0") is None
    assert hosts("0.0.0.0", "photos.example") == {*local, "photos.example"}


def test_on_every_network_it_wants_the_token_and_shows_it_nowhere(
    starting: Starting, token: Path
) -> None:
    server = starting("--host", "0.0.0.0", "--token", str(token))
    assert server.client.get("/api/v1/search").status_code == 401
    assert server.client.get("/api/v1/search", headers=BEARER).status_code == 200
    command = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
    assert TOKEN.encode() not in command
    assert TOKEN not in Path(f"/proc/{server.process.pid}/environ").read_text()
    assert server.end() in ENDED
    assert TOKEN not in server.log.read_text()


def test_the_server_says_where_it_is_and_nothing_else(starting: Starting) -> None:
    server = starting()
    assert server.url.startswith("http://127.0.0.1:")
    assert server.client.get("/health").json() == {"status": "ok"}
    assert server.client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert "server" not in server.client.get("/").headers
    assert server.process.stdout is not None
    assert server.end() in ENDED
    assert server.process.stdout.read() == ""
    assert server.log.read_text() == ""


def test_further_names_and_probes_are_answered(starting: Starting) -> None:
    server = starting("--host-name", "photos.example")
    for name, status in (("photos.example", 200), ("PHOTOS.example:443", 200), ("evil", 400)):
        assert server.client.get("/classes", headers={"Host": name}).status_code == status
    assert server.client.get("/health", headers={"Host": "10.0.0.7:8765"}).status_code == 200


@pytest.mark.parametrize(("trusted", "cookie"), [(True, "__Host-vistadex="), (False, "vistadex=")])
def test_a_proxy_is_believed_where_the_operator_says(
    starting: Starting, token: Path, trusted: bool, cookie: str
) -> None:
    options = ("--proxy", "127.0.0.0/8") if trusted else ()
    server = starting("--token", str(token), *options)
    forwarded = {"X-Forwarded-Proto": "https", "Sec-Fetch-Site": "same-origin"}
    answer = server.client.post("/login", data={"key": TOKEN}, headers=forwarded)
    assert answer.headers["set-cookie"].startswith(cookie)
    for i in range(8):
        forged = {**forwarded, "X-Forwarded-For": f"203.0.113.{i}"}
        answer = server.client.post("/login", data={"key": "wrong"}, headers=forged)
    assert answer.status_code == (401 if trusted else 429)


def test_a_body_without_end_is_refused_on_the_wire(starting: Starting) -> None:
    server = starting()
    place = server.url.removeprefix("http://").rstrip("/")
    host, _, port = place.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        head = f"POST /login HTTP/1.1\r\nHost: {place}\r\nTransfer-Encoding: chunked\r\n\r\n"
        wire.sendall(head.encode())
        with suppress(OSError):
            for _ in range(40):
                wire.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
        assert b" 413 " in wire.recv(4096).partition(b"\r\n")[0] + b" "


# Several processes


def test_a_session_holds_for_every_worker_and_after_a_restart(
    starting: Starting, token: Path
) -> None:
    def session(server: Server) -> str:
        headers = {"Origin": server.url.rstrip("/")}
        said = server.client.post("/login", data={"key": TOKEN}, headers=headers)
        return said.headers["set-cookie"].partition(";")[0]

    first = starting("--token", str(token), "--workers", "2")
    cookie = {"Cookie": session(first)}
    answers = [httpx.get(first.url + "classes", headers=cookie).status_code for _ in range(20)]
    assert answers == [200] * 20
    assert first.end() in ENDED
    second = starting("--token", str(token))
    assert second.client.get("/classes", headers=cookie).status_code == 200


def test_numbers_of_all_workers_are_added_up(starting: Starting) -> None:
    server = starting("--workers", "2")
    for _ in range(30):
        assert httpx.get(server.url + "classes").status_code == 200
    httpx.get(server.url + "image/999")
    text = httpx.get(server.url + "metrics").text
    samples = {
        (one.name, *(one.labels[name] for name in sorted(one.labels) if name != "le")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
    assert samples["vistadex_requests_total", "GET", "/classes", "200"] == 30
    assert samples["vistadex_requests_total", "GET", "/image/{id}", "404"] == 1
    assert samples["vistadex_request_seconds_count", "/classes"] == 30
    assert samples["vistadex_catalog_images", "failed"] == 1
    counted = {int(one[1]) for one in samples if one[0] == "vistadex_process_resident_bytes"}
    assert counted
    assert counted <= server.workers()


def test_a_worker_that_dies_is_replaced(starting: Starting) -> None:
    server = starting("--workers", "2")
    before = server.workers()
    assert len(before) == 2
    os.kill(min(before), signal.SIGKILL)
    until = time.monotonic() + 60
    while time.monotonic() < until and len(server.workers() - before) < 1:
        time.sleep(0.1)
    assert len(server.workers()) == 2
    server.ready()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_of_it_within_seconds(
    starting: Starting, workers: str, number: signal.Signals
) -> None:
    server = starting("--workers", workers)
    place = server.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((place[0], int(place[1]))):  # an idle visitor
        children = server.workers()
        begun = time.monotonic()
        code = server.end(number)
    assert time.monotonic() - begun < 15
    assert code in ENDED
    for child in children:
        assert not Path(f"/proc/{child}").exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


def test_a_cache_that_can_not_be_made_stops_the_start(catalog: Catalog, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vistadex", "serve", "--port", "0", "--workers", "2"]
    (tmp_path / "file").write_text("")
    ended = subprocess.run(
        [*command, "--catalog", catalog.location, "--cache", str(tmp_path / "file")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "VISTADEX_CACHE" in ended.stderr
    assert "Traceback" not in ended.stderr


# Numbers


def test_thumbnails_are_counted_by_origin(starting: Starting, token: Path) -> None:
    server = starting("--token", str(token))
    first = server.client.get("/api/v1/search", headers=BEARER).json()["results"][0]["id"]
    for _ in range(3):
        server.client.get(f"/thumbnail/{first}", headers=BEARER)
    assert server.client.get("/metrics").status_code == 401
    text = server.client.get("/metrics", headers=BEARER).text
    assert 'vistadex_thumbnails_total{origin="made"} 1.0' in text
    assert 'vistadex_thumbnails_total{origin="cached"} 2.0' in text
    assert 'route="/api/v1/search"' in text
    assert f"/thumbnail/{first}" not in text


def test_the_health_check_of_the_image_passes_where_it_answers(
    starting: Starting, token: Path
) -> None:
    dockerfile = Path(__file__).parent.parent / "deploy" / "Dockerfile"
    code = re.search(r'"-c", "(.*?)"\]$', dockerfile.read_text(encoding="utf-8"), re.MULTILINE)
    assert code is not None
    server = starting("--token", str(token))
    here = code[1].replace("http://127.0.0.1:8765/", server.url)
    assert here != code[1]
    ended = subprocess.run([sys.executable, "-c", here], capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
