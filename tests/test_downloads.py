"""vistadex.downloads: bytes of http(s) addresses, against a real server that behaves badly."""

from __future__ import annotations

import errno
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.web_site import CHANGED, DATA, File, Site, emptied, running, without_proxies
from vistadex import connections, downloads
from vistadex.downloads import Response, download, fetch, head, redirect_target, shown
from vistadex.errors import (
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
    UsageError,
)

_no_proxies = pytest.fixture(autouse=True)(without_proxies)
_running = pytest.fixture(scope="module")(running)


@pytest.fixture
def site(_running: Site) -> Site:
    return emptied(_running)


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
    pool = connections.pool(downloads.os.getpid(), "", False).connection_from_url(site.url)
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
