"""vistadex.downloads: bytes of http(s) addresses, against a real server that behaves badly."""

from __future__ import annotations

import errno
import hashlib
import re
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vistadex import downloads
from vistadex.downloads import Response, download, fetch, head, redirect_target, shown
from vistadex.errors import (
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
    UsageError,
)

DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()
KILLED = """
import os, sys
from pathlib import Path
from vistadex.downloads import download
def end(done, whole):
    if done > 1 << 20:
        os._exit(9)
download(sys.argv[1], Path(sys.argv[2]), progress=end)
"""
"""Downloads until a megabyte has come, then ends without any farewell."""
CHANGED = "Wed, 21 Oct 2015 07:28:00 GMT"


@dataclass
class File:
    """What the server does when it is asked for one path."""

    data: bytes = DATA
    etag: str = '"v1"'
    modified: str = ""
    status: int = 0
    """Answered instead of the file."""
    location: str = ""
    ranges: bool = True
    shift: int = 0
    """Bytes by which a range begins elsewhere than asked."""
    cut_after: int | None = None
    """Bytes after which the connection breaks off."""
    chunked: bool = False
    refuses_head: int = 0
    silent: bool = False
    drips: bool = False
    """Sends its bytes one by one, slowly."""
    honors_if_range: bool = True
    only_for: str = ""
    """The Authorization that it wants."""


class Site(ThreadingHTTPServer):
    """A server on a free port with files to set up, and a log of what it was asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, File] = {}
        self.log: list[tuple[str, str, Message]] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients go away on purpose here."""


class Handler(BaseHTTPRequestHandler):
    """Answers as the file of that path says."""

    server: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        self.server.log.append((self.command, self.path, self.headers))
        file = self.server.files.get(self.path.partition("?")[0], File(status=404))
        if file.silent:
            self.server.released.wait(20)
            self.close_connection = True
        elif status := self.refusal(file):
            self.send_response(status)
            if file.location:
                self.send_header("Location", file.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_file(file, body=body)

    def refusal(self, file: File) -> int:
        if file.only_for and self.headers.get("Authorization") != file.only_for:
            return 401
        return file.status or (file.refuses_head if self.command == "HEAD" else 0)

    def send_file(self, file: File, *, body: bool) -> None:
        start, stop = self.range(file)
        if start is None:
            data = file.data
            self.send_response(200)
        elif start >= len(file.data):
            data = b""
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(file.data)}")
        else:
            start += file.shift
            data = file.data[start:stop]
            self.send_response(206)
            last = start + len(data) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(file.data)}")
        if file.etag:
            self.send_header("ETag", file.etag)
        if file.modified:
            self.send_header("Last-Modified", file.modified)
        if file.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
        else:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if file.drips:
            with suppress(OSError):
                for i in range(len(data)):
                    self.wfile.write(data[i : i + 1])
                    self.server.released.wait(0.02)
            self.close_connection = True
        elif body:
            self.wfile.write(data[: file.cut_after])
            self.close_connection = file.cut_after is not None

    def range(self, file: File) -> tuple[int | None, int | None]:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range", "")
        if not file.ranges or found is None:
            return None, None
        if file.honors_if_range and condition not in ("", file.etag, file.modified):
            return None, None
        return int(found[1]), int(found[2]) + 1 if found[2] else None


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def _running() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    site.released.set()
    site.shutdown()
    thread.join()
    site.server_close()
    downloads._pool.cache_clear()


@pytest.fixture
def site(_running: Site) -> Site:
    _running.files = {"/a.bin": File()}
    _running.log.clear()
    return _running


def test_a_whole_file_comes_with_version_and_size(site: Site) -> None:
    assert fetch(f"{site.url}/a.bin") == Response(DATA, "v1", len(DATA))
    assert re.fullmatch(r"vistadex/\d[\w.]*", site.log[0][2]["User-Agent"])


@pytest.mark.parametrize("ranges", [True, False])
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(start=st.integers(0, 1100), stop=st.none() | st.integers(0, 1100))
def test_a_range_is_the_slice_of_the_file(
    site: Site, ranges: bool, start: int, stop: int | None
) -> None:
    site.files["/small"] = File(data=DATA[:1000], ranges=ranges)
    if not ranges and start > 0 and (stop is None or stop > start):
        with pytest.raises(SourceError, match=r"does not give ranges.*download the file"):
            fetch(f"{site.url}/small", start=start, stop=stop)
        return
    found = fetch(f"{site.url}/small", start=start, stop=stop)
    assert found == Response(DATA[:1000][start:stop], "v1", 1000)


def test_only_the_range_is_asked_for(site: Site) -> None:
    fetch(f"{site.url}/a.bin", start=10, stop=20)
    assert site.log[0][2]["Range"] == "bytes=10-19"


def test_a_file_without_a_stated_size_is_read_to_its_end(site: Site) -> None:
    site.files["/a.bin"] = File(chunked=True)
    assert fetch(f"{site.url}/a.bin") == Response(DATA, "v1", None)


def test_an_empty_file_is_no_error(site: Site) -> None:
    site.files["/a.bin"] = File(data=b"")
    assert fetch(f"{site.url}/a.bin") == Response(b"", "v1", 0)
    assert head(f"{site.url}/a.bin") == Response(b"", "v1", 0)


@pytest.mark.parametrize(
    ("file", "version"),
    [
        (File(etag='"abc"', modified=CHANGED), "abc"),
        (File(etag='W/"abc"'), "abc"),
        (File(etag="", modified=CHANGED), f"{CHANGED} {len(DATA)}"),
        (File(etag="", modified=CHANGED, chunked=True), CHANGED),
        (File(etag=""), ""),
    ],
)
def test_the_version_is_the_etag_else_the_last_change(site: Site, file: File, version: str) -> None:
    site.files["/a.bin"] = file
    assert fetch(f"{site.url}/a.bin").version == version


def test_a_range_has_the_version_of_the_whole_file(site: Site) -> None:
    site.files["/a.bin"] = File(etag="", modified=CHANGED)
    versions = {fetch(f"{site.url}/a.bin", start=n).version for n in (0, 1, 100, len(DATA))}
    assert versions == {head(f"{site.url}/a.bin").version}


def test_head_asks_for_no_bytes(site: Site) -> None:
    assert head(f"{site.url}/a.bin") == Response(b"", "v1", len(DATA))
    assert [entry[0] for entry in site.log] == ["HEAD"]


@pytest.mark.parametrize("status", [403, 405, 501])
@pytest.mark.parametrize("ranges", [True, False])
def test_where_head_is_refused_one_byte_is_asked_for(site: Site, status: int, ranges: bool) -> None:
    site.files["/a.bin"] = File(refuses_head=status, ranges=ranges)
    assert head(f"{site.url}/a.bin") == Response(b"", "v1", len(DATA))
    assert site.log[1][0] == "GET"
    assert site.log[1][2]["Range"] == "bytes=0-0"


def test_where_head_states_no_size_one_byte_is_asked_for(site: Site) -> None:
    site.files["/a.bin"] = File(chunked=True)
    assert head(f"{site.url}/a.bin").size_bytes == len(DATA)
    site.files["/a.bin"] = File(chunked=True, ranges=False)
    assert head(f"{site.url}/a.bin").size_bytes is None


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 5000), (10, None)])
def test_more_than_the_limit_is_refused(
    site: Site, chunked: bool, start: int, stop: int | None
) -> None:
    site.files["/a.bin"] = File(chunked=chunked)
    with pytest.raises(SourceError, match=r"/a\.bin: more than 1,000 bytes, expected no more"):
        fetch(f"{site.url}/a.bin", start=start, stop=stop, max_bytes=1000)
    assert fetch(f"{site.url}/a.bin", start=start, stop=start + 1000, max_bytes=1000).data


def test_another_range_than_the_one_asked_for_is_an_error(site: Site) -> None:
    site.files["/a.bin"] = File(shift=5)
    with pytest.raises(SourceError, match="other bytes than those from 100 on"):
        fetch(f"{site.url}/a.bin", start=100, stop=200)


def test_a_range_that_begins_too_early_is_cut(site: Site) -> None:
    site.files["/a.bin"] = File(shift=-5)
    assert fetch(f"{site.url}/a.bin", start=100, stop=200).data[:90] == DATA[100:190]


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_breaks_off_is_unavailable(site: Site, chunked: bool) -> None:
    site.files["/a.bin"] = File(cut_after=100, chunked=chunked)
    with pytest.raises(SourceUnavailableError, match=r"/a\.bin: the connection broke off"):
        fetch(f"{site.url}/a.bin")


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (404, SourceMissingError, r"no such file \(HTTP 404\); check the address"),
        (410, SourceMissingError, r"no such file \(HTTP 410\)"),
        (401, SourceDeniedError, r"access denied \(HTTP 401\), .*user:password@host"),
        (403, SourceDeniedError, r"access denied \(HTTP 403\)"),
        (407, SourceDeniedError, r"access denied \(HTTP 407\)"),
        (408, SourceUnavailableError, r"the server can't answer now \(HTTP 408\); try again later"),
        (429, SourceUnavailableError, r"the server can't answer now \(HTTP 429\)"),
        (500, SourceUnavailableError, r"the server can't answer now \(HTTP 500\)"),
        (503, SourceUnavailableError, r"the server can't answer now \(HTTP 503\)"),
        (418, SourceError, r"HTTP 418, expected a file"),
        (304, SourceError, r"HTTP 304, expected a file"),
        (416, SourceError, r"HTTP 416, expected a file"),
    ],
)
def test_a_bad_status_is_an_error_with_place_and_cure(
    site: Site, tmp_path: Path, status: int, kind: type[SourceError], words: str
) -> None:
    site.files["/a.bin"] = File(status=status)
    place = re.escape(f"{site.url}/a.bin: ")
    with pytest.raises(kind, match=place + words) as caught:
        fetch(f"{site.url}/a.bin")
    assert type(caught.value) is kind
    with pytest.raises(kind):
        head(f"{site.url}/a.bin")
    with pytest.raises(SourceError):
        download(f"{site.url}/a.bin", tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_silent_server_is_unavailable(site: Site, tmp_path: Path) -> None:
    site.files["/a.bin"] = File(silent=True)
    calls: list[Callable[[], object]] = [
        lambda: fetch(f"{site.url}/a.bin", timeout_s=0.1),
        lambda: head(f"{site.url}/a.bin", timeout_s=0.1),
        lambda: download(f"{site.url}/a.bin", tmp_path / "a.bin", timeout_s=0.1),
    ]
    for call in calls:
        with pytest.raises(SourceUnavailableError, match="the server fell silent; try again"):
            call()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_server_that_sends_a_byte_at_a_time_is_unavailable(site: Site, chunked: bool) -> None:
    site.files["/a.bin"] = File(chunked=chunked, drips=True)
    begun = time.monotonic()
    with pytest.raises(SourceUnavailableError, match=r"only [0-9]+ bytes came in 0 s; try again"):
        fetch(f"{site.url}/a.bin", timeout_s=0.2)
    assert time.monotonic() - begun < 5


def test_a_refused_connection_is_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a"
    with pytest.raises(SourceUnavailableError, match=f"{url}: nothing answers at that host"):
        fetch(url)


@pytest.mark.parametrize("number", [socket.EAI_AGAIN, socket.EAI_NONAME])
def test_without_name_lookup_the_message_says_no_network(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def nowhere(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    with pytest.raises(SourceUnavailableError, match=r"https://host\.invalid/a: no network"):
        fetch("https://host.invalid/a")


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EHOSTUNREACH])
def test_without_a_route_the_message_says_no_network(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def unreachable(*_: object) -> None:
        raise OSError(number, "unreachable")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    with pytest.raises(SourceUnavailableError, match=r"127\.0\.0\.1/a: no network; connect"):
        fetch("http://127.0.0.1/a")


def test_a_connection_that_takes_too_long_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket.socket, "connect", slow)
    with pytest.raises(SourceUnavailableError, match="no answer within 5 s; check network"):
        fetch("http://127.0.0.1/a")


def test_encryption_that_is_not_trusted_is_an_error(site: Site) -> None:
    with pytest.raises(SourceError, match="the encryption is not trusted") as caught:
        fetch(site.url.replace("http:", "https:"))
    assert not isinstance(caught.value, SourceUnavailableError)


@pytest.mark.parametrize(
    "url",
    ["", "a.bin", "ftp://h/a", "http://", "http:///a", "http://u@/a", "http://[1/a", "http://h:x/"],
)
def test_what_is_no_web_address_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match=r"expected http\(s\)://host/path"):
        fetch(url)


def test_a_host_name_that_can_t_be_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="can't be used"):
        fetch("http://a..b/")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://user:pa%20ss@h.de:8443/a/b.zip?X-Sig=se#cret", "https://h.de:8443/a/b.zip"),
        ("https://h.de/?token=secret", "https://h.de/"),
        ("http://user:sec/ret@h.de/", "an address that can't be read"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
    ],
)
def test_secrets_in_an_address_are_not_shown(url: str, text: str) -> None:
    assert shown(url) == text


@pytest.mark.parametrize("status", [0, 404, 401, 503, 418])
def test_no_error_prints_a_secret(site: Site, tmp_path: Path, status: int) -> None:
    site.files["/a.bin"] = File(status=status, cut_after=5)
    url = f"{site.url.replace('//', '//user:s3cret@')}/a.bin?sig=s3cret"
    for call in (lambda: fetch(url), lambda: download(url, tmp_path / "a", sha256="0" * 64)):
        with pytest.raises(SourceError) as caught:
            call()
        assert "s3cret" not in str(caught.value)
        assert f"{site.url}/a.bin: " in str(caught.value)


def test_user_and_password_of_an_address_are_sent(site: Site) -> None:
    site.files["/a.bin"] = File(only_for="Basic bWU6YSBi")  # me:a b
    assert fetch(f"{site.url.replace('//', '//me:a%20b@')}/a.bin").data == DATA


def test_redirects_are_followed(site: Site) -> None:
    site.files["/there"] = File(status=302, location="/a.bin?x=1")
    site.files["/first"] = File(status=307, location=f"{site.url}/there")
    assert fetch(f"{site.url}/first", start=3, stop=5).data == DATA[3:5]
    assert head(f"{site.url}/first").size_bytes == len(DATA)


@pytest.mark.parametrize("location", ["/around", ""])
def test_a_circle_of_redirects_ends(site: Site, location: str) -> None:
    site.files["/around"] = File(status=302, location=location)
    with pytest.raises(SourceError, match="redirected more than 5 times"):
        fetch(f"{site.url}/around")
    assert len(site.log) == 6


def test_a_redirect_target_is_absolute() -> None:
    assert redirect_target("https://a/b/c", "d?e") == "https://a/b/d?e"
    assert redirect_target("http://a/b", "https://c/d") == "https://c/d"


@pytest.mark.parametrize("location", ["http://a/b?s3cret", "file:///etc/passwd", "https://[1/"])
def test_a_redirect_away_from_https_is_refused(location: str) -> None:
    with pytest.raises(SourceError, match=r"https://a/b: redirected to .*, expected https;") as e:
        redirect_target("https://a/b", location)
    assert "s3cret" not in str(e.value)


def test_a_redirect_away_from_the_web_is_refused(site: Site) -> None:
    site.files["/out"] = File(status=301, location="ftp://127.0.0.1/a")
    with pytest.raises(SourceError, match="expected http or https"):
        fetch(f"{site.url}/out")


def test_credentials_stay_with_the_host_they_are_for(site: Site, tmp_path: Path) -> None:
    site.files["/away"] = File(
        status=302, location=f"http://localhost:{site.server_port}/a.bin", only_for="Bearer t0ken"
    )
    site.files["/near"] = File(status=302, location="/a.bin", only_for="Bearer t0ken")
    download(f"{site.url}/away", tmp_path / "a", bearer="t0ken")
    download(f"{site.url}/near", tmp_path / "b", bearer="t0ken")
    sent = [entry[2].get("Authorization") for entry in site.log]
    assert sent == ["Bearer t0ken", None, "Bearer t0ken", "Bearer t0ken"]


def test_a_proxy_of_the_environment_is_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", site.url.replace("http://", "me:word@"))
    site.files["http://host.invalid/a"] = File()
    assert fetch("http://host.invalid/a").data == DATA
    assert site.log[0][2]["Proxy-Authorization"] == "Basic bWU6d29yZA=="
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fetch(f"{site.url}/a.bin")
    assert site.log[1][1] == "/a.bin"


def test_a_proxy_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused.getsockname()[1]}")
    with pytest.raises(SourceUnavailableError, match="the proxy can't be reached; check http_prox"):
        fetch("http://host.invalid/a")


def test_a_kind_of_proxy_that_is_not_known_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "gopher://127.0.0.1")
    with pytest.raises(UsageError, match="or its proxy's, can't be used"):
        fetch("http://host.invalid/a")


def test_connections_are_used_again(site: Site) -> None:
    pool = downloads._pool(downloads.os.getpid(), "").connection_from_url(site.url)
    fetch(f"{site.url}/a.bin")
    before = pool.num_connections
    for start in range(5):
        fetch(f"{site.url}/a.bin", start=start, stop=start + 9)
        head(f"{site.url}/a.bin")
    assert pool.num_connections == before


def test_threads_share_the_connections(site: Site) -> None:
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(f"{site.url}/a.bin").data))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [DATA] * 8


# Into a file


@dataclass
class Watched:
    """Remembers what it was told."""

    told: list[tuple[int, int | None]] = field(default_factory=list)

    def __call__(self, done: int, whole: int | None) -> None:
        self.told.append((done, whole))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def broken_off(site: Site, to: Path, file: File) -> None:
    """A download of which the first 100 bytes have come."""
    file.cut_after = 100
    site.files["/a.bin"] = file
    with pytest.raises(SourceUnavailableError, match="the connection broke off"):
        download(f"{site.url}/a.bin", to)
    assert not to.exists()
    file.cut_after = None
    site.log.clear()


@pytest.mark.parametrize("chunked", [True, False])
def test_a_download_is_the_file_and_says_its_hash(
    site: Site, tmp_path: Path, chunked: bool
) -> None:
    site.files["/a.bin"] = File(chunked=chunked)
    to, watched = tmp_path / "new" / "a.bin", Watched()
    found = download(f"{site.url}/a.bin", to, sha256=SHA256.upper(), progress=watched)
    assert (found, to.read_bytes()) == (SHA256, DATA)
    assert watched.told[-1] == (len(DATA), None if chunked else len(DATA))
    assert names(to.parent) == ["a.bin"]


def test_a_download_takes_the_place_of_an_older_file(site: Site, tmp_path: Path) -> None:
    to = tmp_path / "a.bin"
    to.write_bytes(b"old")
    site.files["/a.bin"] = File(data=b"")
    assert download(f"{site.url}/a.bin", to, size_bytes=0) == hashlib.sha256(b"").hexdigest()
    assert to.read_bytes() == b""
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    "file", [File(), File(etag="", modified=CHANGED), File(etag='W/"v1"', modified=CHANGED)]
)
def test_a_download_goes_on_where_it_broke_off(site: Site, tmp_path: Path, file: File) -> None:
    to = tmp_path / "a.bin"
    broken_off(site, to, file)
    assert (tmp_path / "a.bin.part").read_bytes() == DATA[:100]
    assert download(f"{site.url}/a.bin", to, sha256=SHA256) == SHA256
    assert site.log[0][2]["Range"] == "bytes=100-"
    assert site.log[0][2]["If-Range"] == (CHANGED if file.modified else '"v1"')
    assert to.read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]


def test_a_download_that_breaks_off_twice_goes_on_twice(site: Site, tmp_path: Path) -> None:
    to, file = tmp_path / "a.bin", File()
    broken_off(site, to, file)
    broken_off(site, to, file)
    assert (tmp_path / "a.bin.part").read_bytes() == DATA[:200]
    assert download(f"{site.url}/a.bin", to) == SHA256


@pytest.mark.parametrize("file", [File(etag=""), File(etag='W/"v1"')])
def test_a_file_without_a_sure_version_is_begun_again(
    site: Site, tmp_path: Path, file: File
) -> None:
    to = tmp_path / "a.bin"
    broken_off(site, to, file)
    assert download(f"{site.url}/a.bin", to, sha256=SHA256) == SHA256
    assert "Range" not in site.log[0][2]


def test_a_file_that_has_changed_is_begun_again(site: Site, tmp_path: Path) -> None:
    to = tmp_path / "a.bin"
    broken_off(site, to, File())
    site.files["/a.bin"] = File(data=DATA[::-1], etag='"v2"')
    download(f"{site.url}/a.bin", to)
    assert to.read_bytes() == DATA[::-1]
    assert len(site.log) == 1


def test_a_server_without_ranges_sends_the_file_again(site: Site, tmp_path: Path) -> None:
    to = tmp_path / "a.bin"
    broken_off(site, to, File(ranges=False))
    assert download(f"{site.url}/a.bin", to) == SHA256
    assert to.read_bytes() == DATA


@pytest.mark.parametrize(
    "file", [File(etag='"v2"', honors_if_range=False), File(shift=1), File(data=DATA[:50])]
)
def test_an_answer_that_does_not_fit_is_dropped_and_said(
    site: Site, tmp_path: Path, file: File
) -> None:
    to = tmp_path / "a.bin"
    broken_off(site, to, File())
    site.files["/a.bin"] = file
    with pytest.raises(SourceUnavailableError, match=r"does not go on from byte 100; .*try again"):
        download(f"{site.url}/a.bin", to)
    assert names(tmp_path) == []
    assert download(f"{site.url}/a.bin", to) == hashlib.sha256(file.data).hexdigest()


def test_a_part_that_was_complete_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(DATA)
    (tmp_path / "a.bin.part.version").write_text('"v1"')
    assert download(f"{site.url}/a.bin", tmp_path / "a.bin", sha256=SHA256) == SHA256
    assert site.log[0][2]["Range"] == f"bytes={len(DATA)}-"
    assert names(tmp_path) == ["a.bin"]


def test_a_wrong_hash_deletes_what_came(site: Site, tmp_path: Path) -> None:
    words = f"SHA-256 of what came is {SHA256}, expected {'0' * 64}; .*check address and SHA-256"
    with pytest.raises(SourceError, match=words):
        download(f"{site.url}/a.bin", tmp_path / "a.bin", sha256="0" * 64)
    assert names(tmp_path) == []


def test_a_damaged_part_is_found_by_the_hash(site: Site, tmp_path: Path) -> None:
    to = tmp_path / "a.bin"
    broken_off(site, to, File())
    (tmp_path / "a.bin.part").write_bytes(b"x" * 100)
    with pytest.raises(SourceError, match="SHA-256"):
        download(f"{site.url}/a.bin", to, sha256=SHA256)
    assert names(tmp_path) == []


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("expected", [len(DATA) + 1, len(DATA) - 1, 0])
def test_a_wrong_size_deletes_what_came(
    site: Site, tmp_path: Path, chunked: bool, expected: int
) -> None:
    site.files["/a.bin"] = File(chunked=chunked)
    with pytest.raises(SourceError, match=rf"10,240 bytes, expected {expected:,}; it is not"):
        download(f"{site.url}/a.bin", tmp_path / "a.bin", size_bytes=expected)
    assert names(tmp_path) == []


def test_a_file_that_can_t_be_written_is_an_error(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceError, match=r"file/a\.bin: can't be written"):
        download(f"{site.url}/a.bin", tmp_path / "file" / "a.bin")


def test_two_downloads_of_one_file_do_not_mix(site: Site, tmp_path: Path) -> None:
    to, refused = tmp_path / "a.bin", []

    def meanwhile(done: int, whole: int | None) -> None:
        with pytest.raises(SourceUnavailableError, match="another download writes this file") as e:
            download(f"{site.url}/a.bin", to)
        refused.append(e.value)

    assert download(f"{site.url}/a.bin", to, progress=meanwhile) == SHA256
    assert refused
    assert to.read_bytes() == DATA


def test_a_killed_download_leaves_what_the_next_one_goes_on_with(
    site: Site, tmp_path: Path
) -> None:
    site.files["/a.bin"] = File(data=DATA * 200)
    process = subprocess.run(
        [sys.executable, "-c", KILLED, f"{site.url}/a.bin", str(tmp_path / "a.bin")], check=False
    )
    assert process.returncode == 9
    assert not (tmp_path / "a.bin").exists()
    site.log.clear()
    download(f"{site.url}/a.bin", tmp_path / "a.bin")
    assert int(site.log[0][2]["Range"].removeprefix("bytes=").removesuffix("-")) > 0
    assert (tmp_path / "a.bin").read_bytes() == DATA * 200


def test_memory_stays_flat(site: Site, tmp_path: Path) -> None:
    site.files["/a.bin"] = File(data=bytes(32 << 20))
    download(f"{site.url}/a.bin", tmp_path / "warm")
    tracemalloc.start()
    download(f"{site.url}/a.bin", tmp_path / "a.bin")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
