"""Archives that break off, are damaged, or change while they are read."""

from __future__ import annotations

import io
import os
import random
import struct
import tarfile
import time
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.archives import contents, entries, header, keys, pack, put
from vistadex.errors import SourceError, SourceUnavailableError
from vistadex.records import ImageEntry
from vistadex.sources import Source, open_source
from vistadex.sources.archive import ArchiveSource
from vistadex.testing import MemorySource

FILES = {f"{i:02}.jpg": random.Random(i).randbytes(3000) for i in range(50)}


def listed(source: Source) -> tuple[list[ImageEntry], str]:
    """What is listed before the listing's error, and the error."""
    found: list[ImageEntry] = []
    try:
        for page in source.pages():
            found += page
    except SourceError as error:
        return found, str(error)
    return found, "no error"


def whole(source: Source, found: list[ImageEntry]) -> dict[str, bytes]:
    """The files that are listed without a failure, which must be readable."""
    return {one.key: source.read(one.key).data for one in found if one.failure is None}


def test_a_truncated_zip_is_an_error_that_says_where(tmp_path: Path) -> None:
    data = pack("zip", FILES)
    source = put(tmp_path / "x.zip", data[:-40])
    with pytest.raises(SourceError, match=r"x\.zip: has no table of contents.*at byte 15.*zip -FF"):
        entries(source)
    assert list((tmp_path / "cache").rglob("*.*")) == []


def test_a_zip_that_lost_bytes_before_its_table_is_an_error(tmp_path: Path) -> None:
    data = pack("zip", FILES)
    source = put(tmp_path / "x.zip", data[9000:])
    with pytest.raises(SourceError, match="bytes are missing before it"):
        entries(source)


def test_a_zip_with_a_damaged_table_gives_what_stands_before(tmp_path: Path) -> None:
    data = bytearray(pack("zip", FILES))
    at = data.index(b"PK\1\2")
    for _ in range(20):
        at = data.index(b"PK\1\2", at + 1)
    data[at] = 0
    source = put(tmp_path / "x.zip", data)
    found, error = listed(source)
    assert whole(source, found) == dict(list(FILES.items())[:20])
    assert f"x.zip: breaks off after 20 files, at byte {at:,} (its table of" in error
    assert source.partial


@pytest.mark.parametrize("kind", ["zip", "stored.zip"])
def test_a_damaged_member_of_a_zip_is_an_error_that_names_it(kind: str, tmp_path: Path) -> None:
    data = bytearray(pack(kind, FILES))
    data[data.index(FILES["07.jpg"][1000:1010])] ^= 1
    source = put(tmp_path / f"x.{kind}", data)
    assert keys(source) == sorted(FILES)
    with pytest.raises(SourceError, match=r"07\.jpg: the member is damaged: its CRC differs"):
        source.read("07.jpg")
    with pytest.raises(SourceError, match="CRC differs"):
        list(source.chunks("07.jpg"))
    assert source.read("08.jpg").data == FILES["08.jpg"]


@pytest.mark.parametrize("damage", ["data", "header", "encrypted"])
def test_a_damaged_link_of_a_zip_is_one_row(damage: str, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.jpg", FILES["07.jpg"])
        link = zipfile.ZipInfo("link.jpg")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "a.jpg")
    data = bytearray(packed.getvalue())
    second = data.index(b"PK\3\4", 4)
    if damage == "data":
        data[second + 30 + len("link.jpg")] ^= 1
    elif damage == "header":
        data[second] = 0
    else:
        data[data.rindex(b"PK\1\2") + 8] |= 1
    source = put(tmp_path / "x.zip", data)
    one, other = entries(source)
    assert whole(source, [one]) == {"a.jpg": FILES["07.jpg"]}
    assert other.failure is not None
    assert (other.key, other.failure.reason) == ("link.jpg", "unreadable")
    assert not source.partial


def test_a_link_that_leads_in_a_circle_says_so(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, target in (("a.jpg", "b.jpg"), ("b.jpg", "a.jpg")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    for entry in entries(put(tmp_path / "x.tar", packed.getvalue())):
        assert entry.failure is not None
        assert "leads in a circle" in entry.failure.message


def test_what_killed_runs_have_left_in_the_cache_is_removed_after_a_day(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "archives"
    folder.mkdir(parents=True)
    for name, days in (("old.part", 2), ("young.part", 0.5), ("old.db", 2)):
        (folder / name).touch()
        when = time.time() - days * 86_400
        os.utime(folder / name, (when, when))
    entries(put(tmp_path / "x.zip", pack("zip", FILES)))
    left = {path.name for path in folder.iterdir()}
    assert "old.part" not in left
    assert {"young.part", "old.db"} < left


def test_a_member_that_is_larger_than_it_says_is_not_unpacked_further(tmp_path: Path) -> None:
    data = bytearray(pack("zip", {"bomb.jpg": bytes(50 << 20)}))
    table = data.index(b"PK\1\2")
    data[table + 24 : table + 28] = struct.pack("<L", 1000)
    source = put(tmp_path / "x.zip", data)
    with pytest.raises(SourceError, match="more, expected 1,000"):
        source.read("bomb.jpg")


def test_a_zip_whose_member_lies_elsewhere_is_damaged(tmp_path: Path) -> None:
    data = bytearray(pack("zip", FILES))
    table = data.index(b"PK\1\2")
    data[table + 42 : table + 46] = struct.pack("<L", 77)
    source = put(tmp_path / "x.zip", data)
    with pytest.raises(SourceError, match="its header is not there"):
        source.read("00.jpg")
    with pytest.raises(SourceError, match="its header is not there"):
        source.read_range("00.jpg", 0, 9)


def test_a_tar_that_breaks_off_gives_what_is_whole_and_says_where(tmp_path: Path) -> None:
    data = pack("gnu.tar", FILES)
    cut = 10 * 3584 + 512 + 1000
    source = put(tmp_path / "x.tar", data[:cut])
    found, error = listed(source)
    assert whole(source, found) == dict(list(FILES.items())[:10])
    assert [(one.key, one.failure.reason) for one in found if one.failure] == [
        ("10.jpg", "unreadable")
    ]
    assert "x.tar: breaks off after 11 files, at byte" in error
    assert f"{cut:,}" in error
    assert "fetch it again; what could be read was read" in error
    assert source.partial
    assert list((tmp_path / "cache").rglob("*.*")) == []
    assert listed(source) == (found, error)


@pytest.mark.parametrize("cut", [3584 * 7, 3584 * 7 + 100, 3584 * 50, 3584 * 50 + 511])
def test_a_tar_without_its_end_is_partial(cut: int, tmp_path: Path) -> None:
    source = put(tmp_path / "x.tar", pack("gnu.tar", FILES)[:cut])
    found, error = listed(source)
    assert whole(source, found) == dict(list(FILES.items())[: cut // 3584])
    assert "its end is missing" in error


def test_a_tar_with_a_damaged_header_gives_what_lies_before(tmp_path: Path) -> None:
    data = bytearray(pack("gnu.tar", FILES))
    data[3584 * 9 + 3] ^= 1
    source = put(tmp_path / "x.tar", data)
    found, error = listed(source)
    assert whole(source, found) == dict(list(FILES.items())[:9])
    assert f"at byte {3584 * 9:,} (a header is damaged" in error


def test_headers_that_lead_back_or_are_endless_are_damage(tmp_path: Path) -> None:
    back = header("a.jpg", 10)
    block = bytearray(back.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 10 + b"\xf0\x00"
    huge = header("x" * 200)
    for data in (bytes(signed(block)), endless(huge), deep()):
        first = pack("gnu.tar", {"first.jpg": b"1"})[:1024]
        source = put(tmp_path / "x.tar", first + data + bytes(2048))
        found, error = listed(source)
        assert "first.jpg" in [one.key for one in found]
        assert "damaged" in error or "a header of" in error


def signed(block: bytearray) -> bytearray:
    """A tar header with the checksum that its bytes need."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return block


def endless(info: tarfile.TarInfo) -> bytes:
    """A header of a long name that claims 7 GB."""
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    block[124:136] = b"%011o\0" % (7 << 30)
    return bytes(signed(block))


def deep() -> bytes:
    """Headers of attributes, each of which leads to the next."""
    info = header("pax")
    info.type = tarfile.XHDTYPE
    return info.tobuf(tarfile.USTAR_FORMAT) * 3000


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97, 0.9999])
def test_a_tar_gz_that_breaks_off_gives_what_is_whole(share: float, tmp_path: Path) -> None:
    data = pack("tar.gz", FILES)
    cut = int(len(data) * share)
    source = put(tmp_path / "x.tar.gz", data[:cut])
    found, error = listed(source)
    expected = dict(list(FILES.items())[: len(whole(source, found))])
    assert whole(source, found) == expected
    assert len(expected) >= int(share * 50) - 1
    assert f"at byte {cut:,} (the gzip data breaks off)" in error


def test_a_tar_gz_with_damaged_data_gives_what_lies_before(tmp_path: Path) -> None:
    files = {f"{i:03}.jpg": (b"%05d" % i) * 4000 + os.urandom(500) for i in range(300)}
    data = bytearray(pack("tar.gz", files))
    middle = len(data) // 2
    data[middle : middle + 50] = b"\xff" * 50
    source = put(tmp_path / "x.tar.gz", data)
    found, error = listed(source)
    read = whole(source, found)
    # Where the damage shows, some bytes before it may have been unpacked wrong.
    assert dict(list(read.items())[:-1]).items() <= files.items()
    assert 120 <= len(read) <= 160
    assert "damaged" in error
    good = put(tmp_path / "y.tar.gz", pack("tar.gz", files))
    assert not {one.version for one in found} & {one.version for one in entries(good)}


def test_a_tar_gz_whose_checksum_differs_is_listed_and_an_error(tmp_path: Path) -> None:
    data = bytearray(pack("tar.gz", FILES))
    data[-8] ^= 1
    source = put(tmp_path / "x.tar.gz", data)
    found, error = listed(source)
    assert whole(source, found) == FILES
    assert "(the gzip data is damaged: incorrect data check)" in error


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["zip", "tar", "gnu.tar", "tar.gz"]), data=st.data())
def test_damaged_archives_give_errors_of_ours_and_nothing_else(
    kind: str, data: st.DataObject
) -> None:
    packed = bytearray(pack(kind, dict(list(FILES.items())[:4])))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    cut = packed[: data.draw(st.integers(0, len(packed)))]
    MemorySource.create("damaged", {f"x.{kind}": bytes(cut)})
    source = ArchiveSource(f"memory://damaged/x.{kind}")
    error = trouble(source)
    assert not error or "memory://damaged/" in error


def trouble(source: Source) -> str:
    """What ends listing and reading everything; empty where nothing does."""
    try:
        for entry in entries(source):
            if entry.failure is None:
                source.read_start(entry.key, 64)
                source.read(entry.key)
    except SourceError as error:
        return str(error)
    return ""


def test_a_member_is_read_from_the_archive_that_lies_there(tmp_path: Path) -> None:
    for kind in ("zip", "tar", "tar.gz"):
        path = tmp_path / f"x.{kind}"
        source = put(path, pack(kind, {"a.jpg": b"1", "b.jpg": b"old"}))
        assert source.read("b.jpg").data == b"old"
        path.write_bytes(pack(kind, {"new.jpg": b"2" * 9000, "b.jpg": b"changed"}))
        assert source.read("b.jpg").data == b"changed"
        with pytest.raises(SourceError, match=r"a\.jpg: the archive has no such file"):
            source.read("a.jpg")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_replaced_in_its_bucket_is_noticed(kind: str) -> None:
    files = {f"{i}.jpg": os.urandom(50_000) for i in range(9)}
    bucket = MemorySource.create("bucket", {"x." + kind: pack(kind, files)})
    source = open_source(f"memory://bucket/x.{kind}")
    assert contents(source) == files
    other = {"first.jpg": os.urandom(70_000)} | {key: data[::-1] for key, data in files.items()}
    bucket.files["x." + kind] = pack(kind, other)
    for key in ("8.jpg", "7.jpg"):
        found = read_or_why(source, key)
        if isinstance(found, str):
            assert "was changed while it was read" in found
            found = source.read(key).data
        assert found == other[key]
    assert source.read("first.jpg").data == other["first.jpg"]


def test_an_archive_that_is_being_written_is_tried_later(tmp_path: Path) -> None:
    class Growing(MemorySource):
        def read_range(self, key: str, start: int, stop: int) -> bytes:
            self.files[key] += b"\0" * 512
            return super().read_range(key, start, stop)

    MemorySource.create("growing", {"x.tar": pack("tar", FILES)})
    source = ArchiveSource("memory://growing/x.tar")
    source._archive._source = Growing("memory://growing")
    with pytest.raises(SourceUnavailableError, match="is being written; try later"):
        source._archive.latest()


def test_a_damaged_listing_in_the_cache_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(pack("zip", FILES))
    assert keys(open_source(path)) == sorted(FILES)
    (kept,) = (tmp_path / "cache" / "archives").iterdir()
    kept.write_bytes(b"no listing" * 100)
    assert contents(open_source(path)) == FILES
    assert "reading the archive again" in caplog.text


def test_without_a_cache_folder_archives_are_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VISTADEX_CACHE", "/proc/nowhere")
    assert contents(put(tmp_path / "x.tar", pack("tar", FILES))) == FILES
    assert "listings of archives are not kept" in caplog.text


def test_a_split_zip_is_an_error_that_says_how_to_join_it(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("a.jpg", b"1")
    data = bytearray(out.getvalue())
    data[-18:-14] = struct.pack("<HH", 1, 1)
    with pytest.raises(SourceError, match=r"one of several disks.*zip -s 0"):
        entries(put(tmp_path / "x.zip", data))


def test_a_gzip_that_unpacks_to_gigabytes_takes_little_memory(tmp_path: Path) -> None:
    import tracemalloc

    packer = zlib.compressobj(9, wbits=31)
    first = pack("tar", {"a.jpg": b"1"})[:1024]
    data = packer.compress(first) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(120))
    source = put(tmp_path / "x.tar.gz", data + packer.flush())
    tracemalloc.start()
    assert contents(source) == {"a.jpg": b"1"}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def read_or_why(source: Source, key: str) -> bytes | str:
    """A file's bytes, or why they can't be had at the moment."""
    try:
        return source.read(key).data
    except SourceUnavailableError as error:
        return str(error)
