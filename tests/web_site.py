"""A real web server that behaves badly, for tests of what reads from the web."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vistadex import connections

DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()
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


def running() -> Iterator[Site]:
    """A site that answers; for a fixture."""
    site = Site()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    site.released.set()
    site.shutdown()
    thread.join()
    site.server_close()
    connections.pool.cache_clear()


def emptied(site: Site) -> Site:
    """The site with one file, and nothing asked yet."""
    site.files = {"/a.bin": File()}
    site.log.clear()
    return site


def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies of the person who runs the tests are left out; for a fixture."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
