"""Who may do what in the web app: keys, sessions, foreign pages, guessing; bodies; hosts."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from tests.web_catalog import HTML, error, filled_catalog, pictures_folder
from tests.web_site import Site, emptied, running, without_proxies
from vistadex import connections
from vistadex.catalog import Catalog
from vistadex.connections import is_public
from vistadex.downloads import download, fetch, head
from vistadex.errors import SourceDeniedError, SourceUnavailableError, UsageError
from vistadex.sources.places import Places
from vistadex.web import create_app, limits
from vistadex.web.access import SESSION_S, Keys, read_keys
from vistadex.web.throttle import ADDRESS, MAX_ADDRESSES, Throttle

TOKEN = "t0ken-that-nobody-guesses"
PASSWORD = "correct horse"
KEYS = Keys(token=TOKEN, password=PASSWORD)
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PAGES = ("/", "/api/v1/search", "/picture/1", "/thumbnail/1", "/openapi.json", "/metrics", "/docs")
OURS = {"Origin": "http://127.0.0.1:8765"}

folder = pytest.fixture(pictures_folder)
catalog = pytest.fixture(filled_catalog)
_proxies = pytest.fixture(autouse=True)(without_proxies)
Opened = Callable[..., TestClient]


@pytest.fixture
def opened(catalog: Catalog, tmp_path: Path) -> Opened:
    """Makes clients of apps with a route that changes something and one that takes files."""

    def make(*, base_url: str = "http://127.0.0.1:8765", **options: object) -> TestClient:
        app: FastAPI = create_app(catalog, tmp_path / "cache", **options)  # type: ignore[arg-type]

        async def change(request: Request) -> dict[str, int]:
            return {"bytes": len(await request.body())}

        app.router.routes.insert(0, _route(app, "/change", change))
        return TestClient(app, base_url=base_url, follow_redirects=False)

    return make


def _route(app: FastAPI, path: str, function: Callable[..., object]) -> object:
    app.add_api_route(path, function, methods=["POST", "PUT", "PATCH", "DELETE"])
    return app.router.routes.pop()


@pytest.fixture
def client(opened: Opened) -> TestClient:
    return opened(keys=KEYS)


def signed_in(client: TestClient, key: str = PASSWORD, **fields: str) -> httpx.Response:
    return client.post("/login", data={"key": key, **fields}, headers=OURS)


# Keys


@pytest.mark.parametrize(
    "path",
    [
        *PAGES,
        "/nowhere",
        "//static/style.css",
        "/login/x",
        "/healthy",
        "/static",
        "/static/../metrics",
    ],
)
def test_without_a_key_nothing_is_shown(client: TestClient, path: str) -> None:
    problem = error(client.get(path), 401)
    assert problem["type"] == "AccessError"
    assert client.get(path).headers["WWW-Authenticate"] == "Bearer"
    page = client.get(path, headers=HTML)
    assert page.status_code == 303
    assert page.headers["location"].startswith("/login?next=%2F")


@pytest.mark.parametrize("path", ["/login", "/health", "/static/style.css"])
def test_what_signing_in_needs_is_open(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200


def test_no_static_path_leads_out_of_its_folder(client: TestClient) -> None:
    for path in ("/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static/..%5capp.py"):
        assert client.get(path).status_code in (401, 404)


def test_a_program_comes_in_with_the_token_alone(client: TestClient) -> None:
    assert client.get("/api/v1/search", headers=BEARER).status_code == 200
    assert client.post("/change", headers=BEARER).status_code == 200
    for wrong in (f"Bearer {PASSWORD}", f"Bearer {TOKEN}x", "Bearer ", f"Basic {TOKEN}", TOKEN):
        given = {"Authorization": wrong}
        assert client.get("/api/v1/search", headers=given).status_code == 401


def test_a_person_signs_in_with_either_key(client: TestClient, opened: Opened) -> None:
    for key in (PASSWORD, TOKEN):
        client.cookies.clear()
        answer = signed_in(client, key, next="/classes?prefix=d")
        assert (answer.status_code, answer.headers["location"]) == (303, "/classes?prefix=d")
        assert client.get("/classes").status_code == 200
    only_token = opened(keys=Keys(token=TOKEN))
    assert signed_in(only_token, "").status_code == 401
    assert signed_in(only_token, PASSWORD).status_code == 401


def test_a_session_s_cookie_is_strict(client: TestClient, opened: Opened) -> None:
    said = signed_in(client).headers["set-cookie"]
    name, _, rest = said.partition("=")
    assert name == "vistadex"
    for part in ("HttpOnly", "SameSite=strict", "Path=/", f"Max-Age={SESSION_S}"):
        assert part in rest
    assert "Secure" not in rest
    assert "Domain" not in rest
    safe = opened(keys=KEYS, base_url="https://127.0.0.1:8765")
    said = signed_in(safe).headers["set-cookie"]
    assert said.startswith("__Host-vistadex=")
    assert "Secure" in said
    assert "Domain" not in said
    assert safe.get("/classes").status_code == 200


def test_a_session_of_http_is_none_over_https(opened: Opened) -> None:
    safe = opened(keys=KEYS, base_url="https://127.0.0.1:8765")
    cookie = {"Cookie": f"vistadex={KEYS.session(2e9)}"}
    assert safe.get("/classes", headers=cookie).status_code == 401


def test_signing_out_takes_the_cookie_away(client: TestClient) -> None:
    signed_in(client)
    answer = client.post("/logout", headers=OURS)
    assert answer.status_code == 303
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert client.get("/classes").status_code == 401


def test_a_session_holds_until_it_ends_or_a_key_changes() -> None:
    session = KEYS.session(1000)
    assert KEYS.is_session(session, 1000 + SESSION_S - 1)
    assert Keys(token=TOKEN, password=PASSWORD).is_session(session, 1000)
    assert not KEYS.is_session(session, 1000 + SESSION_S)
    assert not Keys(token=TOKEN, password=PASSWORD + "!").is_session(session, 1000)
    assert not Keys(token=TOKEN + "!", password=PASSWORD).is_session(session, 1000)


def test_a_session_can_not_be_made_or_stretched_without_the_keys() -> None:
    ends, _, signature = KEYS.session(1000).partition(".")
    for forged in (
        f"{int(ends) + 1}.{signature}",
        f"{ends}.{'0' * 64}",
        f"{ends}.",
        ends,
        "",
        ".",
        f"{ends}.{signature}0",
        f" {ends}.{signature}",
        "9" * 5000 + ".x",
        "é.é",
    ):
        assert not KEYS.is_session(forged, 1000)
    assert not Keys().is_session(Keys().session(1000), 1000)


def test_keys_are_in_no_text_of_theirs() -> None:
    assert repr(KEYS) == "Keys()"


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "/\\evil.example", "https://evil.example/", "evil", "", "/\r\nX: y", "/a b"],
)
def test_signing_in_leads_to_pages_of_this_app_alone(client: TestClient, path: str) -> None:
    assert signed_in(client, next=path).headers["location"] == "/"
    assert 'value="/"' in client.get("/login", params={"next": path}).text


def test_the_login_page_shows_no_foreign_markup(client: TestClient) -> None:
    page = client.get("/login", params={"next": '/"><script>alert(1)</script>'})
    assert "<script>alert" not in page.text
    answer = signed_in(client, '"><script>alert(1)</script>')
    assert answer.status_code == 401
    assert "alert(1)" not in answer.text


# Foreign pages


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:8766"},
        {"Origin": "http://127.0.0.1:8765.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": ""},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8765"},
        {},
    ],
)
def test_a_foreign_page_changes_nothing_with_a_session(
    client: TestClient, method: str, headers: dict[str, str]
) -> None:
    signed_in(client)
    answer = client.request(method, "/change", headers=headers)
    assert error(answer, 403)["type"] == "AccessError"


@pytest.mark.parametrize(
    "headers", [OURS, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]
)
def test_our_own_pages_change_what_they_may(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/change", headers=headers).status_code == 401
    signed_in(client)
    assert client.post("/change", headers=headers).status_code == 200


def test_without_keys_foreign_pages_are_refused_and_programs_are_not(opened: Opened) -> None:
    client = opened()
    assert client.post("/change").status_code == 200
    assert client.post("/change", headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.post("/change", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.post("/change", headers={"Cookie": "a=b"}).status_code == 403


def test_a_foreign_page_can_not_sign_anyone_in(client: TestClient) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = client.post("/login", data={"key": PASSWORD}, headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


def test_a_refused_browser_gets_a_page(opened: Opened) -> None:
    answer = opened(read_only=True).post("/change", headers={**HTML, **OURS})
    assert answer.status_code == 403
    assert "<main" in answer.text
    assert "--read-only" in answer.text


def test_read_only_refuses_changes_even_with_the_token(opened: Opened) -> None:
    client = opened(keys=KEYS, read_only=True)
    assert client.app.state.read_only  # type: ignore[attr-defined]
    assert "--read-only" in error(client.post("/change", headers=BEARER), 403)["message"]
    assert signed_in(client).status_code == 303
    assert client.get("/classes").status_code == 200
    assert client.post("/logout", headers=OURS).status_code == 303


def test_read_only_answers_questions_about_uploads(opened: Opened) -> None:
    client = opened(read_only=True)
    sent = {"file": ("a.txt", b"no picture", "image/jpeg")}
    assert client.post("/api/v1/similar", files=sent).json()["error"]["type"] != "AccessError"
    foreign = {"Origin": "https://evil.example"}
    assert client.post("/api/v1/similar", files=sent, headers=foreign).status_code == 403


@pytest.mark.parametrize("path", ["/login", "/", "/health", "/change"])
def test_refusals_carry_the_headers_of_every_answer(client: TestClient, path: str) -> None:
    for answer in (client.get(path), client.post(path)):
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


# Guessing


def test_guessing_is_slowed_down_and_the_wait_is_said(client: TestClient) -> None:
    for _ in range(ADDRESS.free + 1):
        assert signed_in(client, "wrong").status_code == 401
    answer = signed_in(client, PASSWORD)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert "set-cookie" not in answer.headers
    assert client.get("/classes", headers=BEARER).status_code == 200


def test_each_failure_doubles_the_wait_up_to_a_bound() -> None:
    throttle, now, waits = Throttle(), 0.0, []
    for _ in range(25):
        throttle.failed("192.0.2.1", now)
        waits.append(throttle.wait_s("192.0.2.1", now))
        now += waits[-1]
    assert waits[: ADDRESS.free] == [0.0] * ADDRESS.free
    assert waits[ADDRESS.free] == 1.0
    assert waits[ADDRESS.free + 4] == pytest.approx(16, rel=0.1)
    assert 200 < max(waits) <= ADDRESS.longest_s
    assert throttle.wait_s("192.0.2.1", now + 86_400) == 0
    assert throttle.wait_s("192.0.2.2", now) == 0


def test_many_addresses_get_no_further_than_a_few() -> None:
    throttle = Throttle()
    for i in range(200):
        throttle.failed(f"198.51.100.{i}", 0.0)
    assert 0 < throttle.wait_s("203.0.113.1", 0.0) <= 30


def test_one_network_of_ipv6_is_one_client() -> None:
    throttle = Throttle()
    for i in range(10):
        throttle.failed(f"2001:db8::{i}", 0.0)
    assert throttle.wait_s("2001:db8::ffff", 0.0) > 0
    assert throttle.wait_s("2001:db8:0:1::1", 0.0) == 0


def test_remembering_failures_takes_bounded_memory() -> None:
    throttle = Throttle()
    for i in range(MAX_ADDRESSES + 500):
        throttle.failed(f"client {i}", 0.0)
    assert len(throttle._addresses) == MAX_ADDRESSES


# Files with keys


def test_keys_are_the_first_lines_of_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\r\nnot this\n")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    for file in tmp_path.iterdir():
        file.chmod(0o600)
    assert read_keys(tmp_path / "token", tmp_path / "password") == KEYS
    assert not read_keys(None, None)


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"short\n", 0o600, "5 characters in the first line, expected 20 or more"),
        (b"", 0o600, "0 characters"),
        (b"\n" + TOKEN.encode(), 0o600, "0 characters"),
        (b"a token that has spaces in it", 0o600, "no spaces"),
        (b"\xff" * 30, 0o600, "not UTF-8"),
        (TOKEN.encode(), 0o602, "chmod 600"),
    ],
)
def test_a_bad_key_file_stops_the_start_and_is_not_shown(
    tmp_path: Path, content: bytes, mode: int, said: str
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(UsageError) as caught:
        read_keys(file, None)
    assert said in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert "a token that" not in str(caught.value)


def test_a_missing_key_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: No such file.*one line"):
        read_keys(None, tmp_path / "nowhere")


def test_a_key_that_everyone_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert read_keys(file, None).is_token(TOKEN)
    assert "every user of this machine can read it" in caplog.text
    assert TOKEN not in caplog.text


# Large and slow bodies


def test_a_body_that_says_it_is_too_large_is_refused_unread(client: TestClient) -> None:
    size = str(limits.MAX_BODY_BYTES + 1)
    answer = client.post("/change", content=b"x", headers={**BEARER, "Content-Length": size})
    assert "1,048,576 bytes" in error(answer, 413)["message"]


def test_a_body_that_grows_too_large_is_refused(client: TestClient) -> None:
    def grow() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(100_000)

    assert client.post("/change", content=bytes(1 << 20), headers=BEARER).status_code == 200
    answer = client.post("/change", content=grow(), headers=BEARER)
    assert "1,048,576 bytes" in error(answer, 413)["message"]


def test_a_body_that_does_not_arrive_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_S", 0.05)
    app = FastAPI()

    async def change(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    app.add_api_route("/change", change, methods=["POST"])
    sent: list[dict[str, object]] = []

    async def silence() -> dict[str, object]:
        await asyncio.sleep(5)
        raise AssertionError

    async def keep(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/change",
        "headers": [],
        "query_string": b"",
    }
    limited = limits.Limits(app, ())
    asyncio.run(limited(scope, silence, keep))  # type: ignore[arg-type]
    assert sent[0]["status"] == 408


def test_waiting_for_a_visitor_to_go_away_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, object]:
        if messages:
            return messages.pop()
        await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    async def listen() -> str:
        body = limits._Body(receive, 10, 0.05)  # type: ignore[arg-type]
        await body.receive()
        return str((await body.receive())["type"])

    assert asyncio.run(listen()) == "http.disconnect"


# Private networks

PRIVATE = """
127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 0.0.0.0 100.64.0.1 224.0.0.1 240.0.0.1
255.255.255.255 192.0.2.1 198.18.0.1 168.63.129.16 :: ::1 fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254
ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1::
2002:a00:1:: 2001:db8::1 2001::1 fec0::1
"""
NAMES = """
127.0.0.1 localhost [::1] [::ffff:127.0.0.1] 0x7f.1 2130706433 0177.0.0.1 127.1 0 localhost.
LOCALHOST
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_addresses_of_private_networks_are_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"],
)
def test_public_addresses_are_known(address: str) -> None:
    assert is_public(address)


@pytest.fixture(scope="module")
def _site() -> Iterator[Site]:
    yield from running()


@pytest.fixture
def site(_site: Site) -> Site:
    connections.pool.cache_clear()  # of a test that took this machine for a public one
    return emptied(_site)


@pytest.mark.parametrize("host", NAMES.split())
def test_nothing_is_sent_to_a_private_host_by_any_name(site: Site, host: str) -> None:
    url = f"http://{host}:{site.server_port}/a.bin"
    for read in (fetch, head):
        with pytest.raises((SourceDeniedError, SourceUnavailableError), match=r"private|no host"):
            read(url, public_only=True)
    assert site.log == []


def test_a_download_is_refused_likewise(site: Site, tmp_path: Path) -> None:
    with pytest.raises(SourceDeniedError, match="--allow-private-addresses"):
        download(f"{site.url}/a.bin", tmp_path / "a.bin", public_only=True)
    assert site.log == []
    assert list(tmp_path.iterdir()) == []


def test_without_the_rule_private_hosts_are_read(site: Site) -> None:
    assert fetch(f"{site.url}/a.bin").data
    with pytest.raises(SourceDeniedError):  # and the kept connection is not used again
        fetch(f"{site.url}/a.bin", public_only=True)


def resolving(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[list[str]]]) -> dict[str, int]:
    """A resolver that gives other addresses each time it is asked; how often it was."""
    asked: dict[str, int] = {}
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *rest: object, **more: object) -> list[object]:
        if host not in names:
            return real(host, port, *rest, **more)  # type: ignore[arg-type]
        answers = names[host]
        addresses = answers[min(asked.get(host, 0), len(answers) - 1)]
        asked[host] = asked.get(host, 0) + 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def as_public(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Takes some addresses of this machine for public ones."""
    real = connections.is_public
    monkeypatch.setattr(connections, "is_public", lambda one: one in addresses or real(one))


def test_a_name_is_looked_up_once_so_that_it_can_not_change_its_mind(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_public(monkeypatch, "127.0.0.2")
    asked = resolving(monkeypatch, {"rebinding.example": [["127.0.0.2"], ["127.0.0.1"]]})
    with pytest.raises(SourceUnavailableError):  # nobody answers at the address that was checked
        fetch(f"http://rebinding.example:{site.server_port}/a.bin", public_only=True)
    assert asked == {"rebinding.example": 1}
    assert site.log == []


def test_a_name_with_one_private_address_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_public(monkeypatch, "127.0.0.1")
    resolving(monkeypatch, {"mixed.example": [["127.0.0.1", "10.0.0.1"]]})
    with pytest.raises(SourceDeniedError, match=r"^mixed\.example: lies in a private network"):
        fetch(f"http://mixed.example:{site.server_port}/a.bin", public_only=True)
    assert site.log == []


def test_a_public_host_is_read_under_its_own_name(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_public(monkeypatch, "127.0.0.1", "127.0.0.9")
    resolving(monkeypatch, {"public.example": [["127.0.0.9", "127.0.0.1"]]})
    place = f"public.example:{site.server_port}"
    assert fetch(f"http://{place}/a.bin", public_only=True).data == site.files["/a.bin"].data
    assert [one[2]["Host"] for one in site.log] == [place]


@pytest.mark.parametrize("host", ["10.0.0.1", "[::1]", "169.254.169.254", "private.example"])
def test_no_redirect_leads_to_a_private_host(
    site: Site, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    as_public(monkeypatch, "127.0.0.1")
    resolving(monkeypatch, {"private.example": [["192.168.0.1"]]})
    first, second = site.files["/a.bin"], f"{site.url}/b.bin"
    first.status, first.location = 302, second
    site.files["/b.bin"] = type(first)(status=307, location=f"http://{host}/c.bin")
    with pytest.raises(SourceDeniedError, match="private network"):
        fetch(f"{site.url}/a.bin", public_only=True)
    assert len(site.log) == 2


def test_a_proxy_is_not_asked_for_private_hosts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.url)
    with pytest.raises(SourceDeniedError):
        fetch("http://10.0.0.1/a.bin", public_only=True)
    assert site.log == []


def test_places_and_manifests_keep_to_the_rule(site: Site, tmp_path: Path) -> None:
    from vistadex.sources import open_source

    source, key = Places(local=False, public_only=True).locate(f"{site.url}/a.bin")
    with pytest.raises(SourceDeniedError):
        source.read_within(key, 10_000_000)
    for ask in (source.stat, source.read, lambda key: list(source.chunks(key))):
        with pytest.raises(SourceDeniedError):
            ask(key)
    with pytest.raises(SourceDeniedError):
        source.read_range(key, 0, 5)
    (tmp_path / "list.txt").write_text(f"{site.url}/a.bin\n")
    manifest = open_source(tmp_path / "list.txt")
    assert manifest.read(f"{site.url}/a.bin").data
    site.log.clear()
    manifest.only_public()
    with pytest.raises(SourceDeniedError):
        manifest.read(f"{site.url}/a.bin")
    assert site.log == []
