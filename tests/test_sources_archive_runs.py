"""Archives from the address to the catalog: indexed like their folders, resumed, from a bucket."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from starlette.testclient import TestClient

import vistadex
from tests.archives import pack
from vistadex.catalog import Catalog
from vistadex.errors import SourceError, SourceUnavailableError
from vistadex.sources import Source, open_source, read_images
from vistadex.sources.folder import FolderSource
from vistadex.sources.s3 import S3Source
from vistadex.testing import RedSquareDetector, scene_jpeg
from vistadex.web.app import create_app

RED = ("red square", 10, 20, 40)
BLUE = ("blue square", 60, 20, 30)
PHOTOS = {
    "a b.jpg": scene_jpeg([RED]),
    "sub/ü.jpg": scene_jpeg([RED, BLUE]),
    "sub/100%.jpg": scene_jpeg([BLUE]),
    "sub/deep/none.jpg": scene_jpeg([]),
    "notes.txt": b"no picture",
    "broken.jpg": scene_jpeg([RED])[:200],
    "unnamed": scene_jpeg([BLUE]),
    ".hidden.jpg": scene_jpeg([RED]),
}
KINDS = ("zip", "stored.zip", "tar", "tar.gz")


@pytest.fixture
def bucket(s3_server: str, aws: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A bucket of its own for each test."""
    resource = boto3.resource("s3", endpoint_url=s3_server, region_name="us-east-1")
    return resource.create_bucket(Bucket=f"archives-{abs(hash(request.node.name)):x}")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Every range that is read of a file or an object."""
    ranges: list[tuple[int, int]] = []

    def counted(read: Callable[..., bytes]) -> Callable[..., bytes]:
        def counting(self: Source, key: str, start: int, stop: int) -> bytes:
            ranges.append((start, stop))
            return read(self, key, start, stop)

        return counting

    for kind in (FolderSource, S3Source):
        monkeypatch.setattr(kind, "read_range", counted(kind.read_range))
    return ranges


def index(uri: str | Path, catalog: Catalog) -> vistadex.Summary:
    return vistadex.index(uri, detector=RedSquareDetector(), catalog=catalog)


def told(catalog: Catalog, uri: str) -> dict[str, object]:
    """What a catalog says of each image of a source, by key."""
    good = {
        image.key: (image.width, image.height, image.classes, image.boxes)
        for image in catalog.walk()
        if image.source == uri
    }
    bad = {one.uri.removeprefix(f"{uri}/"): one.reason for one in catalog.errors()}
    return {**good, **bad}


def unpack(folder: Path) -> Path:
    for key, data in PHOTOS.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def in_folder(tmp_path: Path) -> dict[str, object]:
    folder = unpack(tmp_path / "unpacked")
    with Catalog(str(tmp_path / "folder.db"), create=True) as catalog:
        index(folder, catalog)
        return told(catalog, str(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_indexed_as_its_unpacked_folder(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    path.write_bytes(pack(kind, PHOTOS))
    with Catalog(str(tmp_path / "c.db"), create=True) as catalog:
        summary = index(path, catalog)
        assert (summary.images, summary.indexed, summary.failed) == (7, 5, 2)
        assert told(catalog, str(path)) == in_folder(tmp_path)
        found = {result.image.uri for result in catalog.search("blue square").results}
        assert found == {f"{path}/{key}" for key in ("sub/ü.jpg", "sub/100%.jpg", "unnamed")}


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_in_a_bucket_is_indexed_as_its_unpacked_folder(
    kind: str, bucket: Any, tmp_path: Path
) -> None:
    bucket.put_object(Key=f"in/x ü.{kind}", Body=pack(kind, PHOTOS))
    uri = f"s3://{bucket.name}/in/x ü.{kind}"
    with Catalog(str(tmp_path / "c.db"), create=True) as catalog:
        index(uri, catalog)
        assert told(catalog, uri) == in_folder(tmp_path)
        assert index(uri.replace("s3://", "s3a://"), catalog).unchanged == 7


class Ranges(BaseHTTPRequestHandler):
    """A web server with one file, that answers to ranges."""

    data = b""
    etag = '"one"'
    ranges = True

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.data)))
        if self.etag:
            self.send_header("ETag", self.etag)
        self.end_headers()

    def do_GET(self) -> None:
        if not self.ranges:
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.data)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(self.data)
            return
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        part = self.data[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(self.data)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, data: bytes, **how: object) -> Iterator[str]:
    for name, value in {"data": data, **how}.items():
        monkeypatch.setattr(Ranges, name, value)
    with ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_on_a_server_without_ranges_is_an_error_with_the_cure(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pack(kind, {f"{i}.jpg": bytes(100_000) + bytes([i]) for i in range(20)})
    with (
        serving(monkeypatch, data, ranges=False) as url,
        pytest.raises(SourceError, match=r"does not give ranges.*download the file and give its"),
    ):
        list(open_source(f"{url}/x.{kind}").pages())


@pytest.mark.parametrize(("etag", "listings"), [("", 0), ('"one"', 1)])
def test_the_listing_of_an_archive_without_a_version_is_not_kept(
    etag: str, listings: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(monkeypatch, pack("zip", PHOTOS), etag=etag) as url:
        assert list(open_source(f"{url}/x.zip").pages())
    assert len(list((tmp_path / "cache").rglob("*.db"))) == listings


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_on_a_web_server_is_indexed_as_its_unpacked_folder(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ranges, "data", pack(kind, PHOTOS))
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as server,
        Catalog(str(tmp_path / "c.db"), create=True) as catalog,
    ):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            uri = f"http://127.0.0.1:{server.server_port}/in/x.{kind}?token=1"
            index(uri, catalog)
            assert told(catalog, uri) == in_folder(tmp_path)
        finally:
            server.shutdown()
            thread.join()


def test_a_prefix_that_ends_like_an_archive_is_a_prefix_with_a_slash(bucket: Any) -> None:
    bucket.put_object(Key="x.zip/a.jpg", Body=PHOTOS["a b.jpg"])
    assert isinstance(open_source(f"s3://{bucket.name}/x.zip/"), S3Source)
    assert isinstance(open_source("s3://bucket.zip"), S3Source)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unchanged_archive_is_not_read_again(
    kind: str, tmp_path: Path, reads: list[tuple[int, int]]
) -> None:
    path = tmp_path / f"x.{kind}"
    path.write_bytes(pack(kind, {**PHOTOS, "large.bin": os.urandom(3 << 20)}))
    with Catalog(str(tmp_path / "c.db"), create=True) as catalog:
        index(path, catalog)
        reads.clear()
        assert index(path, catalog).unchanged == 8
        assert sum(stop - start for start, stop in reads) <= 512


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_changed_in_an_archive_is_indexed_again(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    path.write_bytes(pack(kind, PHOTOS))
    with Catalog(str(tmp_path / "c.db"), create=True) as catalog:
        index(path, catalog)
        changed = {**PHOTOS, "a b.jpg": scene_jpeg([]), "new.jpg": scene_jpeg([BLUE])}
        del changed["sub/ü.jpg"]
        path.write_bytes(pack(kind, changed))
        summary = index(path, catalog)
        assert (summary.indexed, summary.unchanged, summary.vanished) == (2, 5, 1)
        assert catalog.image(f"{path}/sub/ü.jpg").status == "vanished"


def test_members_of_a_bucket_are_read_by_one_request_each(
    bucket: Any, reads: list[tuple[int, int]]
) -> None:
    files = {f"{i}.jpg": os.urandom(100_000) for i in range(6)}
    for kind in ("zip", "stored.zip", "tar"):
        bucket.put_object(Key=f"x.{kind}", Body=pack(kind, files))
        source = open_source(f"s3://{bucket.name}/x.{kind}")
        listed = [entry for page in source.pages() for entry in page]
        reads.clear()
        assert {key.key: data for key, data in read_images(source, listed)} == files
        assert len(reads) == 6
        assert all(stop - start < 102_000 for start, stop in reads)


def test_a_table_of_contents_is_read_without_the_rest(
    bucket: Any, reads: list[tuple[int, int]]
) -> None:
    bucket.put_object(Key="x.zip", Body=pack("zip", {"a.jpg": os.urandom(2 << 20), "b.jpg": b"1"}))
    list(open_source(f"s3://{bucket.name}/x.zip").pages())
    assert sum(stop - start for start, stop in reads) < 70_000


def test_a_damaged_member_is_a_row_and_the_rest_is_indexed(tmp_path: Path) -> None:
    data = bytearray(pack("stored.zip", PHOTOS))
    data[data.index(PHOTOS["sub/ü.jpg"]) + 200] ^= 1
    path = tmp_path / "x.zip"
    path.write_bytes(data)
    with Catalog(str(tmp_path / "c.db"), create=True) as catalog:
        summary = index(path, catalog)
        assert (summary.indexed, summary.failures["unreadable"]) == (4, 1)
        (bad,) = [one for one in catalog.errors() if one.reason == "unreadable"]
        assert bad.uri == f"{path}/sub/ü.jpg"
        assert "CRC differs" in bad.message


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_an_archive_that_breaks_off_loses_nothing_that_is_known(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    files = {f"{i:02}.jpg": scene_jpeg([RED]) + os.urandom(9000) for i in range(40)}
    data = pack(kind, files)
    path.write_bytes(data[: len(data) // 2])
    with Catalog(str(tmp_path / "c.db"), create=True) as catalog:
        with pytest.raises(SourceError, match=r"breaks off after .* what could be read was read"):
            index(path, catalog)
        assert catalog.stats().images >= 18
        path.write_bytes(data)
        index(path, catalog)
        assert catalog.count("red square") == 40
        path.write_bytes(data[: len(data) // 3])
        with pytest.raises(SourceError, match="breaks off"):
            index(path, catalog)
        assert catalog.count("red square") == 40


def test_the_page_shows_pictures_of_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(pack("zip", PHOTOS))
    with Catalog(str(tmp_path / "c.db"), create=True) as catalog:
        index(path, catalog)
        client = TestClient(create_app(catalog, tmp_path / "web"), base_url="http://127.0.0.1")
        image = catalog.image(f"{path}/sub/ü.jpg")
        assert client.get(f"/picture/{image.id}").content == PHOTOS["sub/ü.jpg"]
        assert client.get(f"/thumbnail/{image.id}").status_code == 200
        path.write_bytes(pack("zip", {"other.jpg": b"1"}))
        answer = client.get(f"/picture/{image.id}")
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "SourceMissingError")


def test_several_processes_may_open_an_archive_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(pack("tar", {f"{i:04}.jpg": b"1" for i in range(1500)}))
    code = (
        "import sys; from vistadex.sources import open_source; sys.stdin.read(); "
        "print(*(one.key for page in open_source(sys.argv[1]).pages() for one in page))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.close()
    for process in running:
        assert process.stdout is not None
        with process:
            assert process.stdout.read().split() == [b"%04d.jpg" % i for i in range(1500)]
    assert len(list((tmp_path / "cache" / "archives").iterdir())) == 1


def test_a_listing_is_tried_again_when_a_bucket_does_not_answer(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"a.jpg": os.urandom(300_000), "b.jpg": b"1"}
    for kind in ("zip", "tar", "tar.gz"):
        bucket.put_object(Key=f"x.{kind}", Body=pack(kind, files))
        source = open_source(f"s3://{bucket.name}/x.{kind}")
        read, calls = S3Source.read_range, io.StringIO()

        def flaky(
            self: S3Source,
            key: str,
            start: int,
            stop: int,
            read: Any = read,
            calls: io.StringIO = calls,
        ) -> bytes:
            calls.write("x")
            if len(calls.getvalue()) % 2:
                raise SourceUnavailableError("not now")
            data: bytes = read(self, key, start, stop)
            return data

        monkeypatch.setattr("vistadex.sources.retrying.FIRST_WAIT_S", 0)
        monkeypatch.setattr(S3Source, "read_range", flaky)
        listed = [entry for page in source.pages() for entry in page]
        assert {entry.key: data for entry, data in read_images(source, listed)} == files
        assert calls.getvalue()
        monkeypatch.setattr(S3Source, "read_range", read)
