"""Uploads: read within limits, refused with the limit's name, never taken for a path."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from vistadex.web import problems, uploads
from vistadex.web.uploads import Form, UploadLimits

LIMITS = UploadLimits(max_files=3, max_file_bytes=1000, max_bytes=2500, timeout_s=0.3)
BOUNDARY = "xyz"
KIND = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def make_app() -> FastAPI:
    app = FastAPI()

    def show(form: Annotated[Form, Depends(uploads.uploaded(LIMITS))]) -> dict[str, Any]:
        files = [[one.name, len(one.data)] for one in form.files]
        return {"files": files, "fields": dict(form.fields)}

    app.add_api_route("/up", show, methods=["POST"])
    problems.install(app, lambda *_: pytest.fail("no page was asked for"))
    return app


@pytest.fixture
def client() -> TestClient:
    return TestClient(make_app(), raise_server_exceptions=False)


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + data + b"\r\n"


def test_files_and_fields_arrive_in_order(client: TestClient) -> None:
    body = part("q", b"dog") + part("file", b"ab", "a.jpg") + part("file", b"", "b.jpg")
    answer = client.post("/up", content=body + f"--{BOUNDARY}--\r\n".encode(), headers=KIND)
    assert answer.json() == {"files": [["a.jpg", 2], ["b.jpg", 0]], "fields": {"q": "dog"}}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\\\pictures\\\\a.jpg", "a.jpg"),
        ("a\tb.jpg", "ab.jpg"),
        ("folder/", "upload"),
        ("x" * 400, "x" * 255),
    ],
)
def test_a_name_is_shown_without_folders_and_control_characters(
    client: TestClient, given: str, shown: str
) -> None:
    body = part("file", b"ab", given) + f"--{BOUNDARY}--\r\n".encode()
    assert client.post("/up", content=body, headers=KIND).json()["files"] == [[shown, 2]]


def refused(answer: Any, status: int, kind: str, text: str) -> None:
    problem = answer.json()["error"]
    assert (answer.status_code, problem["type"]) == (status, kind), answer.text
    assert text in problem["message"]


def test_too_many_files_are_refused(client: TestClient) -> None:
    files = [("file", (f"{i}.jpg", b"x")) for i in range(4)]
    refused(client.post("/up", files=files), 413, "UploadTooLargeError", "more than 3 files")


def test_a_file_with_too_many_bytes_is_refused_by_name(client: TestClient) -> None:
    answer = client.post("/up", files={"file": ("big.jpg", b"x" * 1001)})
    refused(answer, 413, "UploadTooLargeError", "big.jpg: 1,001 bytes, at most 1,000")


def test_a_request_that_announces_too_much_is_refused_unread(client: TestClient) -> None:
    def never() -> Any:
        pytest.fail("the body was read")
        yield b""

    headers = {**KIND, "Content-Length": "999999"}
    answer = client.post("/up", content=never(), headers=headers)
    refused(answer, 413, "UploadTooLargeError", "more than 2,500 bytes")


def test_a_request_that_brings_more_than_it_announces_is_refused() -> None:
    """Called below the client, which would not send what it has not announced."""
    sent = [part("file", b"x" * 900, "a"), b"x" * 900, b"x" * 900, b"x" * 900]
    answer = call(sent)
    assert answer["status"] == 413


def test_a_body_that_comes_too_slowly_is_refused() -> None:
    answer = call([part("file", b"x", "a")], then_wait=True)
    assert answer["status"] == 408
    assert b"did not arrive within 0.3 s" in answer["body"]


def test_a_body_that_breaks_off_is_no_error_of_ours() -> None:
    answer = call([part("file", b"x" * 900, "a")], then_leave=True)
    assert answer["status"] == 400
    assert b"the body broke off" in answer["body"]


def call(
    parts: list[bytes],
    *,
    then_wait: bool = False,
    then_leave: bool = False,
    length: bytes | None = None,
) -> dict[str, Any]:
    """The app's answer to a chunked body."""
    found: dict[str, Any] = {"body": b""}

    async def messages() -> AsyncIterator[dict[str, Any]]:
        for i, one in enumerate(parts):
            more = then_wait or then_leave or i < len(parts) - 1
            yield {"type": "http.request", "body": one, "more_body": more}
        if then_leave:
            yield {"type": "http.disconnect"}
        await anyio.sleep(5)

    async def run() -> None:
        stream = messages()

        async def receive() -> dict[str, Any]:
            return await anext(stream)

        async def send(message: Any) -> None:
            found["status"] = message.get("status", found.get("status"))
            found["body"] += message.get("body", b"")

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/up",
            "raw_path": b"/up",
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": [
                (b"content-type", KIND["Content-Type"].encode()),
                *([(b"content-length", length)] if length is not None else []),
            ],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        await make_app()(scope, receive, send)

    anyio.run(run)
    return found


def test_a_length_that_is_no_number_is_passed_over() -> None:
    """As bytes: the client would send them encoded otherwise."""
    body = part("file", b"ab", "a.jpg") + f"--{BOUNDARY}--\r\n".encode()
    assert call([body], length="²".encode("latin-1"))["status"] == 200


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
def test_another_kind_of_body_is_refused(client: TestClient, kind: str) -> None:
    answer = client.post("/up", content=b"{}", headers={"Content-Type": kind})
    refused(answer, 400, "UsageError", "expected multipart/form-data with a file")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        part("q", b"dog"),
        b"--xyz\r\nContent-Disposition: form-data\r\n\r\nx\r\n--xyz--",
        part("file", b"", ""),
    ],
)
def test_a_body_without_a_file_is_refused(client: TestClient, body: bytes) -> None:
    if body.startswith(b"--xyz") and not body.endswith(b"--"):
        body += b"--xyz--\r\n"
    answer = client.post("/up", content=body, headers=KIND)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "UsageError"


def test_a_body_without_a_boundary_is_refused(client: TestClient) -> None:
    answer = client.post("/up", content=b"x", headers={"Content-Type": "multipart/form-data"})
    refused(answer, 400, "UsageError", "not readable as multipart/form-data")
