"""Manifests: rows of each kind, addresses, and pictures of a real web server, bucket and disk."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vistadex
from tests.conftest import AWS_SECRET
from vistadex.catalog import Catalog
from vistadex.errors import (
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
    UsageError,
)
from vistadex.records import Failure, ImageEntry
from vistadex.sources import open_source, read_images
from vistadex.sources.manifest import ManifestSource
from vistadex.sources.places import AddressError, Places, address, file_address
from vistadex.sources.spool import Spool
from vistadex.sources.web_files import WebSource
from vistadex.testing import RedSquareDetector, scene_jpeg

RED = ("red square", 10, 20, 40)
JPEG = scene_jpeg([RED])


@dataclass
class Web:
    """A web server: files by path, refusals to be given first, and what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    refusals: dict[str, list[int]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    url: str = ""


@pytest.fixture
def web() -> Iterator[Web]:
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


@pytest.fixture
def bucket(s3_server: str, aws: pytest.MonkeyPatch) -> Any:
    client = boto3.client(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id="AKTEST",
        aws_secret_access_key=AWS_SECRET,
    )
    client.create_bucket(Bucket="listed")
    return client


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(str(tmp_path / "catalog.db"), create=True) as opened:
        yield opened


def entries(file: Path | str, after: str | None = None) -> list[ImageEntry]:
    return [entry for page in open_source(file).pages(after) for entry in page]


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems(file: Path) -> list[str]:
    found = [entry.failure for entry in entries(file) if entry.failure is not None]
    assert {failure.reason for failure in found} <= {"bad_name"}
    return [failure.message.removeprefix(f"{file} ") for failure in found]


# Rows


def test_a_list_names_one_address_a_line(tmp_path: Path) -> None:
    text = "\ufeffhttps://h/b.jpg\r\n\n  # not a picture\n# nor this\n#1.jpg\n/abs/a b.jpg\n"
    file = written(tmp_path / "list.txt", text)
    assert entries(file) == [
        ImageEntry("file:///abs/a%20b.jpg", None, "manifest"),
        ImageEntry(file_address(f"{tmp_path}/#1.jpg"), None, "manifest"),
        ImageEntry("https://h/b.jpg", None, "manifest"),
    ]


def test_other_columns_of_csv_become_attributes(tmp_path: Path) -> None:
    text = (
        'url,caption,split,etag,size_bytes\r\n"https://h/a.jpg","2\nlines, ""quoted""",train,v7,12'
        "\r\nhttps://h/b.jpg,,,,\r\n"
    )
    assert entries(written(tmp_path / "u.csv", text)) == [
        ImageEntry(
            "https://h/a.jpg",
            12,
            "v7",
            attributes={"caption": '2\nlines, "quoted"', "split": "train"},
        ),
        ImageEntry("https://h/b.jpg", None, "manifest", attributes={}),
    ]


def test_a_tsv_and_a_csv_without_other_columns(tmp_path: Path) -> None:
    tabs = written(tmp_path / "u.TSV", "License\tPath\nCC-BY, 4.0\t/a.jpg\n")
    assert entries(tabs)[0].attributes == {"License": "CC-BY, 4.0"}
    plain = written(tmp_path / "u.csv", "path\n/a.jpg\n")
    assert entries(plain) == [ImageEntry("file:///a.jpg", None, "manifest")]


def test_json_lines_keep_numbers_and_what_is_nested(tmp_path: Path) -> None:
    rows = [
        {"uri": "s3a://b/k?#.jpg", "year": 1999, "ok": True, "gps": {"lat": 1.5}, "no": None},
        {"uri": "/a.jpg", "version": 3, "etag": "e", "size_bytes": 7},
        {"uri": "/b.jpg"},
    ]
    file = written(tmp_path / "u.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    assert entries(file) == [
        ImageEntry("file:///a.jpg", 7, "3", attributes={"etag": "e"}),
        ImageEntry("file:///b.jpg", None, "manifest"),
        ImageEntry(
            "s3://b/k?#.jpg",
            None,
            "manifest",
            attributes={"year": 1999, "ok": True, "gps": {"lat": 1.5}},
        ),
    ]


def test_parquet_keeps_numbers_and_writes_dates_as_iso_text(tmp_path: Path) -> None:
    moment = datetime(2024, 5, 6, 7, 8, 9, 12, tzinfo=UTC)
    table = pa.table(
        {
            "file_name": pa.array(["b c.jpg", "a.jpg"]).dictionary_encode(),
            "year": pa.array([1999, None]),
            "ratio": [0.5, float("nan")],
            "taken": pa.array([moment, None], pa.timestamp("ns", "UTC")),
            "day": [date(2024, 5, 6), None],
            "price": [Decimal("1.50"), None],
            "tags": [["x", "y"], None],
            "gps": [{"lat": 1.5}, None],
            "thumbnail": [b"\xff\xd8", None],
            "nested": [{"bytes": b"\xff"}, None],
            "size_bytes": [4.0, float("nan")],
            "etag": ["e1", None],
        }
    )
    pq.write_table(table, tmp_path / "u.parquet")
    said = {entry.key.rpartition("/")[2]: entry for entry in entries(tmp_path / "u.parquet")}
    assert said["a.jpg"] == ImageEntry(
        file_address(f"{tmp_path}/a.jpg"), None, "manifest", attributes={}
    )
    assert said["b%20c.jpg"] == ImageEntry(
        file_address(f"{tmp_path}/b c.jpg"),
        4,
        "e1",
        attributes={
            "year": 1999,
            "ratio": 0.5,
            "taken": "2024-05-06T07:08:09.000012+00:00",
            "day": "2024-05-06",
            "price": "1.50",
            "tags": ["x", "y"],
            "gps": {"lat": 1.5},
        },
    )


def test_bad_rows_are_entries_that_name_their_line(tmp_path: Path) -> None:
    file = written(
        tmp_path / "u.csv",
        b"url,size_bytes\n/ok.jpg,1\n,1\nftp://h/a.jpg,1\n/a.jpg\n\xe9.jpg,1\n/b.jpg,-1\n"
        b"s3://bucket,1\nhttps://me:pw@h/a.jpg,1\nhttp://[::1/a.jpg,1\n/nul\0.jpg,1\n",
    )
    assert sorted(problems(file), key=lambda text: int(text.split()[1][:-1])) == [
        "line 3: the address is empty",
        "line 4: ftp:// is unknown, expected http(s)://, s3://, gs://, az://, file:/// or a path",
        "line 5: 1 fields, expected 2",
        "line 6: is not UTF-8; save the file as UTF-8",
        "line 7: size_bytes is '-1', expected a whole number",
        "line 8: names no file; write s3://bucket/name",
        "line 9: names a user; keys don't belong in an address",
        "line 10: no web address (Invalid IPv6 URL)",
        "line 11: the address is not UTF-8, or holds a NUL",
    ]
    listed = entries(file)
    assert [entry.key for entry in listed if entry.failure is None] == ["file:///ok.jpg"]
    assert f"{file_address(str(file))}#line=3" in {entry.key for entry in listed}


def test_bad_json_is_an_entry_too(tmp_path: Path) -> None:
    lines = ['{"url": "/a.jpg"}', "{", "[1]", '{"image": "/b.jpg"}', '{"url": 5}']
    lines += ['{"url": "/c.jpg", "x": NaN}', '{"url": "/d.jpg", "x": "\\ud800"}', "[" * 10**5]
    file = written(tmp_path / "u.jsonl", "\n".join(lines))
    starts = [" ".join(text.split()[:5]) for text in problems(file)]
    assert starts == [
        "line 2: is not JSON",
        "line 3: expected a JSON",
        "line 4: 'url' is missing",
        "line 5: 'url' is 5,",
        "line 6: is not JSON",
        "line 7: holds text that",
        "line 8: is not JSON",
    ]


def test_text_in_parquet_that_is_not_utf8_is_an_entry(tmp_path: Path) -> None:
    raw = pa.array([b"/a.jpg", b"/\xe9.jpg"]).view(pa.string())
    pq.write_table(pa.table({"url": raw}), tmp_path / "u.parquet")
    assert problems(tmp_path / "u.parquet") == ["line 2: is not UTF-8; save the file as UTF-8"]


def test_while_rows_are_unreadable_nothing_counts_as_vanished(tmp_path: Path) -> None:
    file = written(tmp_path / "u.csv", "url,a\n/a.jpg,1\n/b.jpg\n")
    source = open_source(file)
    next(source.pages())
    assert source.partial
    written(file, "url,a\n/a.jpg,1\nftp://b.jpg,1\n")
    next(source.pages())
    assert not source.partial


@pytest.mark.parametrize(
    "second",
    [
        '/1.jpg,"never closed',
        '"/1.jpg,x',
        '/1.jpg,"closed" late',
        '"/1.jpg\n/2.jpg",x',
        '/1.jpg,"' + "x" * 200_000,
    ],
)
def test_a_stray_quote_removes_no_image(
    tmp_path: Path, web: Web, catalog: Catalog, second: str
) -> None:
    web.files = {f"/{i}.jpg": JPEG for i in range(5)}
    rows = [f"/{i}.jpg,{i}" for i in range(5)]

    def table(rows: list[str]) -> str:
        return "\n".join(["url,caption", *rows]).replace("/", f"{web.url}/") + "\n"

    file = written(tmp_path / "u.csv", table(rows))
    vistadex.index(file, detector=RedSquareDetector(), catalog=catalog)
    written(file, table([rows[0], second, *rows[2:]]))
    told = vistadex.index(file, detector=RedSquareDetector(), catalog=catalog, prune=True)
    assert (told.vanished, told.pruned) == (0, 0)
    assert told.failures["bad_name"] >= 1
    assert sum(one.split()[0] == "line" for one in problems(file)) >= 1
    assert catalog.image(f"{web.url}/4.jpg").status == "ok"


def test_a_quote_that_is_not_closed_names_the_lines_that_are_lost(tmp_path: Path) -> None:
    file = written(tmp_path / "u.csv", 'url,a\n/a.jpg,1\n/b.jpg,"2\n/c.jpg,3\n')
    (said,) = problems(file)
    assert said == "line 3: unexpected end of data, lines 3 to 4 are lost; check the quotes"
    with pytest.raises(SourceError, match=r"u.csv line 1: unexpected end of data, lines 1 to 2"):
        entries(written(file, '"url\n/a.jpg\n'))


def test_quotes_in_a_tsv_are_characters_as_any_other(tmp_path: Path) -> None:
    file = written(tmp_path / "u.tsv", 'url\tcaption\n/a.jpg\t"open\n/b.jpg\t5" wide\n')
    assert [entry.attributes for entry in entries(file)] == [
        {"caption": '"open'},
        {"caption": '5" wide'},
    ]


def test_an_address_that_comes_again_is_one_image_as_its_last_row_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = written(
        tmp_path / "u.csv", "url,a\n/x/../a.jpg,1\nfile:///a.jpg,2\n//a.jpg,3\n/b.jpg,4\n"
    )
    source = ManifestSource(str(file))
    listed = [entry for page in source.pages() for entry in page]
    assert [(entry.key, entry.attributes) for entry in listed] == [
        ("file:///a.jpg", {"a": "3"}),
        ("file:///b.jpg", {"a": "4"}),
    ]
    assert "u.csv: 2 rows whose address comes again" in caplog.text


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("u.csv", "link,b\n/a.jpg,1\n", r"u.csv: no column .*'link', 'b'.*one of url, uri, path"),
        ("u.csv", "url,image_url\n/a,/b\n", "url and image_url both might"),
        ("u.csv", "url,a,a\n/a.jpg,1,2\n", "column 'a' is there twice"),
        ("u.csv", "\xe9;url\n".encode("latin-1"), "line 1: is no header in UTF-8"),
        ("u.csv", "url\n/a.jpg\n".encode("utf-16"), "is UTF-16, expected UTF-8"),
        ("u.csv", b"PK\3\4\0\0\0\0", "a NUL byte, expected lines of text"),
        ("u.txt", "x" * (1 << 21), "a line without end"),
        ("u.txt", "\n# nothing\n", "names no pictures"),
        ("u.csv", "", "names no pictures"),
        ("u.csv", "url\n", "names no pictures"),
        ("u.jsonl", '{"a": 1}\n', "u.jsonl line 1: no column holds addresses"),
        ("u.parquet", "no parquet", "can't be read as Parquet"),
        ("u.parquet", "", "can't be read as Parquet"),
    ],
)
def test_what_is_no_manifest_says_what_is_expected(
    tmp_path: Path, name: str, data: str | bytes, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        entries(written(tmp_path / name, data))


def test_parquet_without_an_address_or_cut_off_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "u.parquet"
    pq.write_table(pa.table({"image": [b"\xff\xd8"], "n": [1]}), file)
    with pytest.raises(SourceError, match=r"no column holds addresses \(columns: 'n'\)"):
        entries(file)
    written(file, file.read_bytes()[:-20])
    with pytest.raises(SourceError, match="can't be read as Parquet"):
        entries(file)


def test_a_manifest_that_is_missing_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(SourceMissingError, match=r"none\.csv"):
        open_source(tmp_path / "none.csv")
    with pytest.raises(UsageError, match=r"expected \.txt, \.csv"):
        ManifestSource(str(tmp_path / "a.json"))
    (tmp_path / "folder.csv").mkdir()
    written(tmp_path / "folder.csv" / "a.jpg", JPEG)
    assert [entry.key for entry in entries(tmp_path / "folder.csv")] == ["a.jpg"]


# Addresses


@pytest.mark.parametrize(
    ("text", "folder", "expected"),
    [
        ("a b%20#?.jpg", "file:///x%20y/", "file:///x%20y/a%20b%2520%23%3F.jpg"),
        ("../a.jpg", "file:///x/y/", "file:///x/a.jpg"),
        ("file://localhost/%C3%A9.jpg", "file:///x/", "file:///%C3%A9.jpg"),
        ("../a b?.jpg", "https://h/x%20/y/", "https://h/x%20/a%20b%3F.jpg"),
        ("./a//b.jpg", "s3://b/x//", "s3://b/x//a//b.jpg"),
        ("HTTPS://H/a.jpg?x=%20&y#z", "s3://b/", "https://h/a.jpg?x=%20&y"),
        ("https://H:443/A.jpg#", "s3://b/", "https://h/A.jpg"),
        ("http://h:80?x=1#/a", "s3://b/", "http://h/?x=1"),
        ("http://h:/a.jpg", "s3://b/", "http://h/a.jpg"),
        ("http://h:443/a.jpg", "s3://b/", "http://h:443/a.jpg"),
        ("https://h/a.jpg#z", "s3://b/", "https://h/a.jpg"),
        ("https://h?x=1", "s3://b/", "https://h/?x=1"),
        ("S3A://b/a%20b", "file:///", "s3://b/a%20b"),
        ("gs://b/x/../y", "file:///", "gs://b/x/../y"),
    ],
)
def test_an_address_is_written_in_one_way(text: str, folder: str, expected: str) -> None:
    assert address(text, folder) == expected
    assert address(expected, folder) == expected


@pytest.mark.parametrize("text", ["../a.jpg", "x/../../a.jpg"])
@pytest.mark.parametrize("folder", ["s3://b/", "https://h/"])
def test_a_name_leads_out_of_no_bucket_and_no_server(text: str, folder: str) -> None:
    with pytest.raises(AddressError, match="leads out"):
        address(text, folder)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_any_file_name_comes_back_from_its_address(name: str) -> None:
    path = "/folder/" + name.replace("/", "") + "x"
    source, key = Places(local=True).locate(address(file_address(path), "file:///"))
    assert (source.uri, "/" + key) == ("/", path)


# Pictures


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


# Size


def test_a_large_parquet_file_is_listed_in_flat_memory(tmp_path: Path) -> None:
    for count in (50_000, 200_000):
        names = [f"https://h/{(i * 7919) % count:06}.jpg" for i in range(count)]
        pq.write_table(pa.table({"url": names, "n": range(count)}), tmp_path / f"{count}.parquet")
    code = (
        "import sys\n"
        "from vistadex.indexing import peak_rss_bytes\n"
        "from vistadex.sources import open_source\n"
        "for file in sys.argv[1:]:\n"
        "    print(sum(map(len, open_source(file).pages())), peak_rss_bytes())\n"
    )
    files = [str(tmp_path / "50000.parquet"), str(tmp_path / "200000.parquet")]
    told = subprocess.run(
        [sys.executable, "-c", code, *files], capture_output=True, text=True, check=True
    )
    (few, before), (many, after) = (map(int, line.split()) for line in told.stdout.splitlines())
    assert (few, many) == (50_000, 200_000)
    assert after - before < 24 << 20, "150,000 entries in memory would take 60 MiB"


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.text("ab"))))
def test_a_spool_gives_back_every_row_by_rising_key(rows: list[tuple[str, str]]) -> None:
    with Spool() as spool:
        for key, value in rows:
            spool.add(key, value)
        assert list(spool.items()) == sorted(dict(rows).items())
        assert spool.duplicates == len(rows) - len(dict(rows))
        groups = list(spool.groups())
        assert sorted((key, one) for key, values in groups for one in values) == sorted(rows)
        for key, _ in rows:
            expected = sorted(pair for pair in dict(rows).items() if pair[0] > key)
            assert list(spool.items(key)) == expected
            assert dict(groups)[key] == [value for other, value in rows if other == key]


def test_a_spool_goes_on_past_its_batch() -> None:
    with Spool() as spool:
        for i in range(2500):
            spool.add(f"{i % 2000:04}", str(i))
        assert [value for _, value in spool.items()][498:501] == ["2498", "2499", "500"]
        assert (spool.rows, spool.duplicates) == (2500, 500)


def test_failures_keep_the_shape_of_a_row(tmp_path: Path) -> None:
    file = written(tmp_path / "u.txt", "gopher://x\n")
    (entry,) = entries(file)
    assert isinstance(entry.failure, Failure)
    assert entry.key.endswith("/u.txt#line=1")
