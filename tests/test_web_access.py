"""Who may do what in the web app: keys, sessions, foreign pages, guessing; bodies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from tests.web_catalog import HTML, error, filled_catalog, pictures_folder
from vistadex.catalog import Catalog
from vistadex.errors import UsageError
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
