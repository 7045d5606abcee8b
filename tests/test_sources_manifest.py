"""Manifests: rows of each kind, addresses, and pictures of a real web server, bucket and disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import vistadex
from tests.manifests import JPEG, Web, entries, listed_bucket, problems, served, written
from vistadex.catalog import Catalog
from vistadex.errors import (
    SourceError,
    SourceMissingError,
    UsageError,
)
from vistadex.records import Failure, ImageEntry
from vistadex.sources import open_source
from vistadex.sources.manifest import ManifestSource
from vistadex.sources.places import file_address
from vistadex.testing import RedSquareDetector

web = pytest.fixture(served)
bucket = pytest.fixture(listed_bucket)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(str(tmp_path / "catalog.db"), create=True) as opened:
        yield opened


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


def test_failures_keep_the_shape_of_a_row(tmp_path: Path) -> None:
    file = written(tmp_path / "u.txt", "gopher://x\n")
    (entry,) = entries(file)
    assert isinstance(entry.failure, Failure)
    assert entry.key.endswith("/u.txt#line=1")
