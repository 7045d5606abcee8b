"""Archives as sources: what is listed, under which names, and that it is read back equal."""

from __future__ import annotations

import bz2
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archives import KINDS, contents, entries, header, keys, pack, put
from vistadex.errors import SourceError, SourceMissingError
from vistadex.sources import open_source
from vistadex.sources.archive import ArchiveSource
from vistadex.sources.folder import FolderSource
from vistadex.testing import MemorySource

NAMES = {
    "a b.jpg": b"one" * 1000,
    "100%/ü日.png": bytes(range(256)) * 700,
    "d/e/f.jpg": b"",
    "/root.jpg": b"leading slash",
    "../up.jpg": b"two points",
    "Z.jpg": os.urandom(300_000),
}


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_listed_in_key_order_and_read_by_any_method(kind: str, tmp_path: Path) -> None:
    source = put(tmp_path / f"x.{kind}", pack(kind, NAMES))
    listed = entries(source)
    assert [entry.key for entry in listed] == sorted(NAMES)
    assert [entry.size_bytes for entry in listed] == [len(NAMES[key]) for key in sorted(NAMES)]
    for entry in listed:
        content = source.read(entry.key)
        assert (content.data, content.version) == (NAMES[entry.key], entry.version)
        assert source.stat(entry.key) == entry
        assert b"".join(source.chunks(entry.key)) == content.data
        assert source.read_range(entry.key, 2, 90_001) == content.data[2:90_001]
        assert source.read_range(entry.key, 9, 9) == b""
        assert source.read_start(entry.key, 1 << 30) == content.data
    assert [entry.key for entry in entries(source, "a b.jpg")] == sorted(NAMES)[-1:]
    assert (source.partial, source.read_ahead) == (False, 0)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    files=st.dictionaries(
        st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1
        ).filter(lambda name: not name.endswith("/")),
        st.binary(max_size=2000),
        max_size=20,
    ),
)
def test_whatever_is_packed_is_listed_sorted_and_read_back(
    kind: str, files: dict[str, bytes]
) -> None:
    with TemporaryDirectory() as folder:
        source = put(Path(folder, f"x.{kind}"), pack(kind, files))
        expected = {as_key(name): data for name, data in files.items() if is_shown(as_key(name))}
        assert keys(source) == sorted(expected)
        assert contents(source) == expected


def as_key(name: str) -> str:
    while name.startswith("./"):
        name = name[2:]
    return name


def is_shown(key: str) -> bool:
    parts = key.split("/")
    return key != "" and not any(part[:1] == "." and part not in (".", "..") for part in parts)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_what_folders_leave_out_is_left_out(kind: str, tmp_path: Path) -> None:
    names = (".hidden", "a/.git/x.jpg", "__MACOSX/a/b.jpg", "a/._b.jpg", ".DS_Store", "a/b.jpg")
    source = put(tmp_path / f"x.{kind}", pack(kind, dict.fromkeys(names, b"1")))
    assert keys(source) == ["a/b.jpg"]
    with pytest.raises(SourceMissingError, match=r"/\.hidden: the archive has no such file"):
        source.read(".hidden")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_the_last_of_a_name_counts(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = pack(kind, {"a.jpg": b"first", "c.jpg": b"3", "b.jpg": b"2", "./a.jpg": b"second"})
    source = put(tmp_path / f"x.{kind}", data)
    assert isinstance(source, ArchiveSource)
    assert contents(source) == {"a.jpg": b"second", "b.jpg": b"2", "c.jpg": b"3"}
    assert "1 files whose name comes again" in caplog.text


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_many_members_come_in_pages_of_a_thousand(kind: str, tmp_path: Path) -> None:
    files = {f"{number * 7919 % 2500:05}.jpg": b"%d" % number for number in range(2500)}
    source = put(tmp_path / f"x.{kind}", pack(kind, files))
    pages = list(source.pages())
    assert [len(page) for page in pages] == [1000, 1000, 500]
    assert [entry.key for page in pages for entry in page] == sorted(files)


def test_what_it_is_the_bytes_say_not_the_name(tmp_path: Path) -> None:
    for kind, name in (("tar", "a.zip"), ("tgz", "b.tar"), ("zip", "c.tar.gz"), ("zip", "D.ZIP")):
        assert keys(put(tmp_path / name, pack(kind, {"x.jpg": b"1"}))) == ["x.jpg"]


def test_a_folder_named_like_an_archive_is_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "photos.zip"
    folder.mkdir()
    for uri in (str(folder), folder.as_uri(), f"{folder}/"):
        assert isinstance(open_source(uri), FolderSource)


def test_an_archive_has_one_address_however_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "real ü%.zip"
    path.write_bytes(pack("zip", {"a/b.jpg": b"1"}))
    (tmp_path / "link.zip").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    calls = (path, path.as_uri(), "link.zip", "~/link.zip", f"{tmp_path}/./x/../link.zip")
    opened = [open_source(call) for call in calls]
    assert {source.uri for source in opened} == {str(path)}
    assert opened[0].image_uri("a/b.jpg") == f"{path}/a/b.jpg"
    assert contents(opened[2]) == {"a/b.jpg": b"1"}


def test_a_link_to_a_file_that_is_not_named_as_an_archive_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "0f3a").write_bytes(pack("zip", {"a.jpg": b"1"}))
    (tmp_path / "x.zip").symlink_to(tmp_path / "0f3a")
    source = open_source(tmp_path / "x.zip")
    assert source.uri == str(tmp_path / "x.zip")
    assert contents(open_source(source.uri)) == {"a.jpg": b"1"}


def test_an_archive_in_another_source_is_read_by_ranges() -> None:
    data = pack("zip", NAMES)
    MemorySource.create("box", {"sub/x.zip": data})
    source = open_source("memory://box/sub/x.zip")
    assert contents(source) == NAMES
    assert (source.uri, source.read_ahead) == ("memory://box/sub/x.zip", 8)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_source_is_pickled_as_its_address_and_opened_by_another_process(
    kind: str, tmp_path: Path
) -> None:
    source = put(tmp_path / f"x.{kind}", pack(kind, {"a.jpg": b"1" * 5000}))
    assert len(pickle.dumps(source)) < 300
    assert contents(pickle.loads(pickle.dumps(source))) == {"a.jpg": b"1" * 5000}
    code = (
        "import pickle, sys; source = pickle.load(sys.stdin.buffer); "
        "print(source.read('a.jpg').data == b'1' * 5000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(source), capture_output=True, check=True
    )
    assert done.stdout == b"True\n"


@pytest.mark.parametrize("kind", ["zip", "stored.zip", "tar", "tar.gz"])
def test_threads_read_at_once(kind: str, tmp_path: Path) -> None:
    files = {f"{i:02}.jpg": os.urandom(40_000) + bytes(80_000) for i in range(60)}
    source = put(tmp_path / f"x.{kind}", pack(kind, files))
    backwards = sorted(files, reverse=True)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda key: source.read(key).data, [*files, *backwards] * 2))
    assert found == [files[key] for key in [*files, *backwards]] * 2


def test_two_threads_that_open_an_archive_read_it_once(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(pack("tar", {f"{i}.jpg": b"1" for i in range(500)}))
    ready = threading.Barrier(2)

    def listed() -> int:
        source = open_source(path)
        ready.wait()
        return len(keys(source))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: listed(), range(2))) == [500, 500]
    assert len(list((tmp_path / "cache" / "archives").iterdir())) == 1


# Names and kinds of members that the standard library does not write.


def raw_zip(name: bytes, flags: int, system: int, extra: bytes = b"", mode: int = 0) -> bytes:
    """A zip archive with one stored file of a name as raw bytes."""
    data = b"content"
    crc, size = zlib.crc32(data), len(data)
    sizes = struct.pack("<LLL", crc, size, size)
    local = struct.pack("<4sHHHHH", b"PK\3\4", 20, flags, 0, 0, 0) + sizes
    local += struct.pack("<HH", len(name), 0) + name + data
    table = struct.pack("<4sBBHHHHH", b"PK\1\2", 20, system, 20, flags, 0, 0, 0) + sizes
    table += struct.pack("<HHHHHLL", len(name), len(extra), 0, 0, 0, mode, 0) + name + extra
    end = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 1, 1, len(table), len(local), 0)
    return local + table + end


UNICODE_PATH = struct.pack("<HHBL", 0x7075, 5 + 6, 1, zlib.crc32(b"x.jpg")) + "ü日.".encode()


@pytest.mark.parametrize(
    ("name", "flags", "system", "extra", "key"),
    [
        (b"\x81.jpg", 0, 0, b"", "ü.jpg"),
        ("ü.jpg".encode(), 0x800, 0, b"", "ü.jpg"),
        ("ü.jpg".encode(), 0, 3, b"", "ü.jpg"),
        (b"\x81.jpg", 0, 3, b"", "ü.jpg"),
        (rb"a\b\c.jpg", 0, 0, b"", "a/b/c.jpg"),
        (rb"a\b.jpg", 0, 3, b"", "a\\b.jpg"),
        (b"x.jpg", 0, 3, UNICODE_PATH, "ü日."),
        (b"y.jpg", 0, 3, UNICODE_PATH, "y.jpg"),
        (b"a.jpg\0.exe", 0, 3, b"", "a.jpg"),
    ],
)
def test_names_in_zip_are_read_as_their_makers_wrote_them(
    name: bytes, flags: int, system: int, extra: bytes, key: str, tmp_path: Path
) -> None:
    source = put(tmp_path / "x.zip", raw_zip(name, flags, system, extra))
    assert contents(source) == {key: b"content"}


def test_a_name_that_is_no_text_is_a_row_that_says_so(tmp_path: Path) -> None:
    zipped = put(tmp_path / "x.zip", raw_zip(b"\xff.jpg", 0x800, 3))
    tar = pack("gnu.tar", {"\udcff.jpg": b"1", "b.jpg": b"2"})
    for source in (zipped, put(tmp_path / "x.tar", tar)):
        entry = next(entry for entry in entries(source) if entry.failure)
        assert entry.key == r"\xff.jpg"
        assert entry.failure is not None
        assert entry.failure.reason == "bad_name"


def test_a_large_zip_with_64_bit_fields_and_bytes_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 10)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for i in range(20):
            made.writestr(f"{i:05}.jpg", b"")
        with made.open(zipfile.ZipInfo("big.jpg"), "w", force_zip64=True) as member:
            member.write(b"large")
        made.comment = b"c" * 3000
    source = put(tmp_path / "x.zip", b"#!/bin/sh\n" * 60 + out.getvalue())
    assert source.read("big.jpg").data == b"large"
    assert b"PK\6\6" in out.getvalue()
    assert len(keys(source)) == 21


def test_members_packed_by_bzip2_and_lzma_are_read(tmp_path: Path) -> None:
    out = io.BytesIO()
    data = os.urandom(1000) + b"ab" * 200_000
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("b.jpg", data, zipfile.ZIP_BZIP2)
        made.writestr("l.jpg", data, zipfile.ZIP_LZMA)
    source = put(tmp_path / "x.zip", out.getvalue())
    for key in ("b.jpg", "l.jpg"):
        assert source.read(key).data == data
        assert source.read_start(key, 64) == data[:64]


def test_encrypted_and_otherwise_packed_members_are_rows_that_say_so(tmp_path: Path) -> None:
    encrypted = put(tmp_path / "e.zip", raw_zip(b"a.jpg", 1, 3))
    other = bytearray(raw_zip(b"b.jpg", 0, 3))
    table = other.index(b"PK\1\2")
    other[table + 10 : table + 12] = struct.pack("<H", 93)
    failures = [entries(one)[0].failure for one in (encrypted, put(tmp_path / "o.zip", other))]
    assert [failure.reason for failure in failures if failure] == ["unreadable", "unsupported"]
    assert failures[0] is not None
    assert "unpack it with its password" in failures[0].message
    assert failures[1] is not None
    assert "Zstandard" in failures[1].message
    with pytest.raises(SourceError, match=r"a\.jpg: it is encrypted"):
        encrypted.read("a.jpg")


def linked_tar(links: Mapping[str, tuple[bytes, str]]) -> bytes:
    """A tar with files, a folder, and links (type, target) before and after what they lead to."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number, (name, (kind, target)) in enumerate(links.items()):
            if number == 1:
                for key in ("a/1.jpg", ".annex/2.jpg"):
                    tar.addfile(header(key, len(key)), io.BytesIO(key.encode()))
                folder = header("empty")
                folder.type = tarfile.DIRTYPE
                tar.addfile(folder)
                device = header("pipe.jpg")
                device.type = tarfile.FIFOTYPE
                tar.addfile(device)
            link = header(name)
            link.type, link.linkname = kind, target
            tar.addfile(link)
    return out.getvalue()


def test_links_in_tar_are_what_they_lead_to(tmp_path: Path) -> None:
    links = {
        "b/early.jpg": (tarfile.SYMTYPE, "../a/1.jpg"),
        "hard.jpg": (tarfile.LNKTYPE, "a/1.jpg"),
        "over.jpg": (tarfile.SYMTYPE, "hard.jpg"),
        "annex.jpg": (tarfile.SYMTYPE, "./.annex/2.jpg"),
        "folder": (tarfile.SYMTYPE, "a"),
        "lost.jpg": (tarfile.SYMTYPE, "/etc/passwd"),
        "round.jpg": (tarfile.SYMTYPE, "round.jpg"),
    }
    source = put(tmp_path / "x.tar", linked_tar(links))
    found = {entry.key: entry for entry in entries(source)}
    assert sorted(found) == sorted({"a/1.jpg", *links} - {"folder"})
    for key in ("b/early.jpg", "hard.jpg", "over.jpg"):
        assert source.read(key).data == b"a/1.jpg"
        assert found[key].version == found["a/1.jpg"].version
    assert source.read("annex.jpg").data == b".annex/2.jpg"
    said = {"lost.jpg": "not in the archive", "round.jpg": "leads in a circle"}
    for key, words in said.items():
        failure = found[key].failure
        assert failure is not None
        assert (failure.reason, words in failure.message) == ("unreadable", True)


def test_links_in_zip_are_what_they_lead_to(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        link = zipfile.ZipInfo("a/link.jpg")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        made.writestr(link, "../b/1.jpg")
        made.writestr("b/1.jpg", b"one")
    source = put(tmp_path / "x.zip", out.getvalue())
    assert contents(source) == {"a/link.jpg": b"one", "b/1.jpg": b"one"}


def test_long_names_and_files_with_holes_are_read(tmp_path: Path) -> None:
    name = "/".join(["long folder"] * 30) + "/x.jpg"
    folder = tmp_path / "in"
    folder.mkdir()
    with (folder / "holes.bin").open("wb") as file:
        for at in range(0, 12 << 20, 1 << 20):
            file.seek(at)
            file.write(b"data")
        file.truncate(13 << 20)
    for form in ("gnu", "posix"):
        for kind in ("tar", "tar.gz"):
            packed = tmp_path / f"{form}.{kind}"
            subprocess.run(
                ["tar", "-caSf", packed, f"--format={form}", "-C", folder, "holes.bin"], check=True
            )
            source = open_source(packed)
            assert source.read("holes.bin").data == (folder / "holes.bin").read_bytes()
            assert source.read_range("holes.bin", 1 << 20, (1 << 20) + 6) == b"data\0\0"
    for kind in ("tar", "gnu.tar", "tar.gz"):
        assert contents(put(tmp_path / f"x.{kind}", pack(kind, {name: b"1"}))) == {name: b"1"}


def test_gzip_in_several_parts_with_zeros_behind_is_read(tmp_path: Path) -> None:
    tar = pack("tar", NAMES)
    parts = [zlib.compress(tar[i : i + 70_000], wbits=31) for i in range(0, len(tar), 70_000)]
    for rest in (b"", bytes(5000), b"garbage"):
        source = put(tmp_path / "x.tar.gz", b"".join(parts) + rest)
        assert contents(source) == NAMES


def test_what_changed_has_another_version_and_the_rest_the_same(tmp_path: Path) -> None:
    for kind in ("zip", "tar", "tar.gz"):
        path = tmp_path / f"x.{kind}"
        source = put(path, pack(kind, {"a.jpg": b"1", "b.jpg": b"2"}))
        before = {entry.key: entry.version for entry in entries(source)}
        path.write_bytes(pack(kind, {"b.jpg": b"2", "a.jpg": b"other", "c.jpg": b"3"}))
        after = {entry.key: entry.version for entry in entries(source)}
        assert [after["a.jpg"] == before["a.jpg"], after["b.jpg"] == before["b.jpg"]] == [0, 1]
        assert source.read("c.jpg").data == b"3"
        assert len(list((tmp_path / "cache" / "archives").iterdir())) == 1
        os.unlink(next((tmp_path / "cache" / "archives").iterdir()))


def test_without_times_a_tar_is_all_new_when_anything_changes(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    source = put(path, pack("tar", {"a.jpg": b"1"}, mtime=0))
    before = entries(source)
    path.write_bytes(pack("tar", {"a.jpg": b"2", "b.jpg": b"2"}, mtime=0))
    assert entries(source)[0].version != before[0].version


def test_an_unknown_kind_of_archive_is_an_error_that_names_it(tmp_path: Path) -> None:
    for start, said in (
        (b"7z\xbc\xaf\x27\x1c" + bytes(600), "is 7z, expected a zip, tar or tar.gz; unpack it"),
        (bz2.compress(b"x" * 9000), "is bzip2"),
        (b"\xff\xd8\xff\xe0" + b"1" * 600, r"begins with b'.xff.xd8"),
        (b"", "is empty"),
        (zlib.compress(b"no tar" * 9000, wbits=31), "is no tar archive"),
    ):
        source = put(tmp_path / "x.tar.gz", start)
        with pytest.raises(SourceError, match=said):
            entries(source)
    with pytest.raises(SourceMissingError, match=r"gone\.zip: No such file"):
        open_source(tmp_path / "gone.zip")
