"""Manifests, and the places that they name: a web server and a bucket."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3
import pytest

from tests.conftest import AWS_SECRET
from vistadex.records import ImageEntry
from vistadex.sources import open_source
from vistadex.testing import scene_jpeg

RED = ("red square", 10, 20, 40)
JPEG = scene_jpeg([RED])


@dataclass
class Web:
    """A web server: files by path, refusals to be given first, and what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    refusals: dict[str, list[int]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    url: str = ""


def served() -> Iterator[Web]:
    """A web server with files, that counts what it is asked; for a fixture."""
    told = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            told.asked[self.path] += 1
            path = unquote(self.path)
            refusals = told.refusals.get(path)
            data = told.files.get(path)
            status = refusals.pop(0) if refusals else 404 if data is None else 200
            body = data if status == 200 and data is not None else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"changes-{told.asked.total()}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}"
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


def listed_bucket(s3_server: str, aws: pytest.MonkeyPatch) -> Any:
    """A client of a server with an empty bucket; for a fixture."""
    client = boto3.client(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id="AKTEST",
        aws_secret_access_key=AWS_SECRET,
    )
    client.create_bucket(Bucket="listed")
    return client


def entries(file: Path | str, after: str | None = None) -> list[ImageEntry]:
    return [entry for page in open_source(file).pages(after) for entry in page]


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems(file: Path) -> list[str]:
    found = [entry.failure for entry in entries(file) if entry.failure is not None]
    assert {failure.reason for failure in found} <= {"bad_name"}
    return [failure.message.removeprefix(f"{file} ") for failure in found]
