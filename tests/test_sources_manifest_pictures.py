"""Pictures that manifests name, on web servers, in buckets and on disk."""

from __future__ import annotations

import json
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import vistadex
from tests.manifests import JPEG, Web, entries, listed_bucket, served, written
from vistadex.catalog import Catalog
from vistadex.errors import (
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
)
from vistadex.records import Failure, ImageEntry
from vistadex.sources import open_source, read_images
from vistadex.sources.places import file_address
from vistadex.sources.web_files import WebSource
from vistadex.testing import RedSquareDetector

web = pytest.fixture(served)
bucket = pytest.fixture(listed_bucket)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(str(tmp_path / "catalog.db"), create=True) as opened:
        yield opened


@pytest.mark.usefixtures("aws")
def test_pictures_of_web_bucket_and_disk_in_one_manifest(
    tmp_path: Path, web: Web, bucket: Any, catalog: Catalog
) -> None:
    names = ["a b.jpg", "100%.jpg", "é.jpg", "a#1.jpg", "what?.jpg"]
    folder = tmp_path / "sub folder"
    folder.mkdir()
    for name in names:
        written(folder / name, JPEG)
    bucket.put_object(Bucket="listed", Key="in/a b#?.jpg", Body=JPEG)
    web.files = {"/x.jpg?size=2&q=é": JPEG, "/y.jpg": JPEG}
    lines = ["url,caption", f"{web.url}/x.jpg?size=2&q=é,web", f"{web.url}/y.jpg,web"]
    lines += ["s3://listed/in/a b#?.jpg,bucket", f'"{folder}/{names[0]}",disk']
    lines += [f'"sub folder/{name}",disk' for name in names[1:]]
    file = written(tmp_path / "list.csv", "\n".join(lines))
    summary = vistadex.index(file, detector=RedSquareDetector(), catalog=catalog)
    assert (summary.images, summary.indexed, summary.failed) == (8, 8, 0)
    for place, caption in [
        (f"{web.url}/x.jpg?size=2&q=é", "web"),
        ("s3://listed/in/a b#?.jpg", "bucket"),
        *((f"{folder}/{name}", "disk") for name in names),
    ]:
        assert catalog.image(place).attributes == {"caption": caption}


def test_a_second_run_asks_the_server_for_nothing(
    tmp_path: Path, web: Web, catalog: Catalog
) -> None:
    web.files = {f"/{i}.jpg": JPEG for i in range(9)}
    rows = [{"url": f"{web.url}/{i}.jpg", "n": i} for i in range(9)]
    file = written(tmp_path / "u.jsonl", "\n".join(map(json.dumps, rows)))
    assert vistadex.index(file, detector=RedSquareDetector(), catalog=catalog).indexed == 9
    web.asked.clear()
    rows[3]["n"] = "three"
    del rows[4]["n"]
    written(file, "\n".join(map(json.dumps, rows)))
    again = vistadex.index(file, detector=RedSquareDetector(), catalog=catalog)
    assert (again.unchanged, again.indexed, web.asked.total()) == (9, 0, 0)
    assert catalog.image(f"{web.url}/3.jpg").attributes == {"n": "three"}
    rows[5] |= {"version": "2"}
    rows.pop()
    written(file, "\n".join(map(json.dumps, rows)))
    last = vistadex.index(file, detector=RedSquareDetector(), catalog=catalog)
    assert (last.unchanged, last.indexed, last.vanished) == (7, 1, 1)
    assert web.asked == {"/5.jpg": 1}


def test_what_the_server_refuses_is_a_row_and_what_passes_by_is_tried_again(
    tmp_path: Path, web: Web, catalog: Catalog
) -> None:
    web.files = {"/ok.jpg": JPEG, "/busy.jpg": JPEG, "/text": b"no picture", "/picture": JPEG}
    web.refusals = {"/busy.jpg": [503, 429], "/denied.jpg": [403]}
    names = ["ok.jpg", "busy.jpg", "none.jpg", "denied.jpg", "text", "picture"]
    file = written(tmp_path / "u.txt", "\n".join(f"{web.url}/{name}" for name in names))
    summary = vistadex.index(file, detector=RedSquareDetector(), catalog=catalog)
    assert (summary.indexed, summary.failures) == (3, {"unreadable": 2, "not_an_image": 1})
    assert web.asked["/busy.jpg"] == 3
    assert catalog.image(f"{web.url}/none.jpg").reason == "unreadable"


class Endless(BaseHTTPRequestHandler):
    """Sends 24 MiB without saying so first."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            for _ in range(24):
                self.wfile.write(b"\xff\xd8\xff".ljust(1 << 20, b"\0"))

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def endless() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("column", ["url", "url,size_bytes"])
@pytest.mark.parametrize(("limit_mib", "bound_mib"), [(8, 30), (32, 75)])
def test_pictures_of_unknown_or_false_size_stay_within_memory(
    tmp_path: Path, column: str, limit_mib: int, bound_mib: int
) -> None:
    with endless() as url:
        more = ",10" if "," in column else ""
        rows = [f"{url}/{i:02}.jpg{more}" for i in range(12)]
        source = open_source(written(tmp_path / "u.csv", "\n".join([column, *rows])))
        page = next(source.pages())
        tracemalloc.start()
        found = []
        for _, outcome in read_images(
            source, page, budget_bytes=8 << 20, max_file_bytes=limit_mib << 20
        ):
            found.append(outcome.reason if isinstance(outcome, Failure) else len(outcome) >> 20)
            del outcome
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert found == [24 if limit_mib > 24 else "too_large"] * 12
    assert peak < bound_mib << 20


def test_a_file_of_this_machine_above_the_limit_is_never_read(tmp_path: Path) -> None:
    with open(tmp_path / "a.jpg", "wb") as file:
        file.truncate(1 << 40)
    source = open_source(written(tmp_path / "u.txt", "a.jpg"))
    ((_, outcome),) = read_images(source, next(source.pages()))
    assert outcome == Failure("too_large", f"{2**20:.1f} MiB, more than the limit of 256.0 MiB")


def test_a_picture_that_says_its_size_is_read_once_there_is_room(tmp_path: Path, web: Web) -> None:
    data = JPEG.ljust(5 << 20, b"\0")
    web.files = {f"/{i}.jpg": data for i in range(6)}
    source = open_source(
        written(tmp_path / "u.txt", "\n".join(f"{web.url}/{i}.jpg" for i in range(6)))
    )
    read = read_images(source, next(source.pages()), budget_bytes=8 << 20)
    assert [outcome for _, outcome in read] == [data] * 6


def test_what_a_manifest_names_and_was_never_there_is_not_said_to_have_vanished(
    tmp_path: Path, web: Web, bucket: Any
) -> None:
    (tmp_path / "folder.jpg").mkdir()
    rows = [f"{web.url}/none.jpg", "s3://nob/a.jpg", "s3://listed/a.jpg", "folder.jpg", "no.jpg"]
    source = open_source(written(tmp_path / "u.txt", "\n".join(rows)))
    said = {}
    for entry, outcome in read_images(source, next(source.pages())):
        assert isinstance(outcome, Failure)
        assert outcome.reason == "unreadable"
        assert "vanished" not in outcome.message
        said[entry.key] = outcome.message
    assert "HTTP 404" in said[f"{web.url}/none.jpg"]
    assert "no bucket 'nob'" in said["s3://nob/a.jpg"]
    assert "no such key" in said["s3://listed/a.jpg"]


def test_pictures_come_in_the_order_of_the_list(tmp_path: Path, web: Web) -> None:
    web.files = {f"/{i:02}.jpg": b"\xff\xd8\xff%02d" % i for i in range(40)}
    file = written(tmp_path / "u.txt", "\n".join(f"{web.url}/{i:02}.jpg" for i in range(40)))
    source = open_source(file)
    read = list(read_images(source, next(source.pages())))
    assert [data for _, data in read] == list(web.files.values())
    assert {(entry.version, entry.size_bytes) for entry, _ in read} == {("manifest", 5)}


@pytest.mark.usefixtures("aws")
def test_manifests_lie_on_servers_and_in_buckets_too(
    tmp_path: Path, web: Web, bucket: Any, catalog: Catalog
) -> None:
    web.files = {"/d/list.csv?token=1": b"path,n\nsub/a b.jpg,1\n/etc/hosts,2\n"}
    web.files["/d/sub/a b.jpg"] = JPEG
    web.refusals = {"/d/list.csv?token=1": [503]}
    uri = f"{web.url}/d/list.csv?token=1"
    summary = vistadex.index(uri, detector=RedSquareDetector(), catalog=catalog)
    assert (summary.indexed, summary.failures) == (1, {"bad_name": 1})
    assert catalog.image(f"{web.url}/d/sub/a%20b.jpg").attributes == {"n": "1"}
    local = f"{uri}#line=3"
    assert "which only a manifest on it may do" in str(catalog.image(local).error)
    pq.write_table(pa.table({"path": ["a.jpg", "../up.jpg"]}), tmp_path / "p")
    for key, data in {"x/p.parquet": (tmp_path / "p").read_bytes(), "x/a.jpg": JPEG}.items():
        bucket.put_object(Bucket="listed", Key=key, Body=data)
    bucket.put_object(Bucket="listed", Key="up.jpg", Body=JPEG)
    keys = [entry.key for entry in entries("s3://listed/x/p.parquet")]
    assert keys == ["s3://listed/up.jpg", "s3://listed/x/a.jpg"]
    assert (
        vistadex.index(
            "s3://listed/x/p.parquet", detector=RedSquareDetector(), catalog=catalog
        ).indexed
        == 2
    )


def test_a_manifest_from_elsewhere_reads_no_file_of_this_machine(web: Web, tmp_path: Path) -> None:
    secret = written(tmp_path / "a.jpg", JPEG)
    source = open_source(f"{web.url}/list.csv")
    with pytest.raises(SourceMissingError, match="may name"):
        source.read(file_address(str(secret)))


def test_a_picture_is_read_by_its_key_alone(tmp_path: Path, web: Web) -> None:
    web.files = {"/a.jpg": JPEG}
    file = written(tmp_path / "u.txt", "/elsewhere.jpg")
    source = open_source(file)
    key = f"{web.url}/a.jpg"
    assert source.read(key).data == b"".join(source.chunks(key)) == JPEG
    assert source.read_range(key, 0, 5) == JPEG[:5]
    with pytest.raises(SourceError, match="the server does not give ranges"):
        source.read_range(key, 2, 5)
    assert source.stat(key) == ImageEntry(key, len(JPEG), "manifest")
    assert source.image_uri(key) == key
    assert source.image_uri("file:///a%20b.jpg") == "/a b.jpg"
    for wrong in ("http://[::1/a.jpg", "a.jpg", f"{web.url}/none.jpg", "file:///none"):
        with pytest.raises(SourceMissingError):
            source.read(wrong)


def test_a_web_server_can_be_read_and_not_listed(web: Web) -> None:
    web.files = {"/d/a.jpg": JPEG}
    source = open_source(f"{web.url}/d/")
    assert isinstance(source, WebSource)
    assert source.read("a.jpg").data == JPEG
    with pytest.raises(SourceError, match=r"can't be listed.*manifest"):
        next(source.pages())
    web.refusals = {"/d/a.jpg": [503]}
    with pytest.raises(SourceUnavailableError):
        source.read("a.jpg")


def test_folder_and_manifest_in_one_run(tmp_path: Path, web: Web, catalog: Catalog) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    written(folder / "a.jpg", JPEG)
    web.files = {"/a.jpg": JPEG}
    file = written(tmp_path / "u.txt", f"{web.url}/a.jpg")
    summary = vistadex.index(folder, file, detector=RedSquareDetector(), catalog=catalog)
    assert summary.indexed == 2
