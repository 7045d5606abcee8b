"""vistadex.downloads into a file: resumed, verified, whole or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.web_site import CHANGED, DATA, SHA256, File, Site, emptied, running, without_proxies
from vistadex.downloads import download
from vistadex.errors import (
    SourceError,
    SourceUnavailableError,
)

KILLED = """
import os, sys
from pathlib import Path
from vistadex.downloads import download
def end(done, whole):
    if done > 1 << 20:
        os._exit(9)
download(sys.argv[1], Path(sys.argv[2]), progress=end)
"""
"""Downloads until a megabyte has come, then ends without any farewell."""
_no_proxies = pytest.fixture(autouse=True)(without_proxies)
_running = pytest.fixture(scope="module")(running)


@pytest.fixture
def site(_running: Site) -> Site:
    return emptied(_running)


@dataclass
class Watched:
    """Remembers what it was told."""

    told: list[tuple[int, int | None]] = field(default_factory=list)

    def __call__(self, done: int, whole: int | None) -> None:
        self.told.append((done, whole))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def broken_off(site: Site, to: Path, file: File) -> None:
    """A download of which the first 100 bytes have come."""
    file.cut_after = 100
    site.files["/a.bin"] = file
    with pytest.raises(SourceUnavailableError, match="the connection broke off"):
        download(f"{site.url}/a.bin", to)
    assert not to.exists()
    file.cut_after = None
    site.log.clear()


@pytest.mark.parametrize("chunked", [True, False])
def test_a_download_is_the_file_and_says_its_hash(
    site: Site, tmp_path: Path, chunked: bool
) -> None:
    site.files["/a.bin"] = File(chunked=chunked)
    to, watched = tmp_path / "new" / "a.bin", Watched()
    found = download(f"{site.url}/a.bin", to, sha256=SHA256.upper(), progress=watched)
    assert (found, to.read_bytes()) == (SHA256, DATA)
    assert watched.told[-1] == (len(DATA), None if chunked else len(DATA))
    assert names(to.parent) == ["a.bin"]


def test_a_download_takes_the_place_of_an_older_file(site: Site, tmp_path: Path) -> None:
    to = tmp_path / "a.bin"
    to.write_bytes(b"old")
    site.files["/a.bin"] = File(data=b"")
    assert download(f"{site.url}/a.bin", to, size_bytes=0) == hashlib.sha256(b"").hexdigest()
    assert to.read_bytes() == b""
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    "file", [File(), File(etag="", modified=CHANGED), File(etag='W/"v1"', modified=CHANGED)]
)
def test_a_download_goes_on_where_it_broke_off(site: Site, tmp_path: Path, file: File) -> None:
    to = tmp_path / "a.bin"
    broken_off(site, to, file)
    assert (tmp_path / "a.bin.part").read_bytes() == DATA[:100]
    assert download(f"{site.url}/a.bin", to, sha256=SHA256) == SHA256
    assert site.log[0][2]["Range"] == "bytes=100-"
    assert site.log[0][2]["If-Range"] == (CHANGED if file.modified else '"v1"')
    assert to.read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]


def test_a_download_that_breaks_off_twice_goes_on_twice(site: Site, tmp_path: Path) -> None:
    to, file = tmp_path / "a.bin", File()
    broken_off(site, to, file)
    broken_off(site, to, file)
    assert (tmp_path / "a.bin.part").read_bytes() == DATA[:200]
    assert download(f"{site.url}/a.bin", to) == SHA256


@pytest.mark.parametrize("file", [File(etag=""), File(etag='W/"v1"')])
def test_a_file_without_a_sure_version_is_begun_again(
    site: Site, tmp_path: Path, file: File
) -> None:
    to = tmp_path / "a.bin"
    broken_off(site, to, file)
    assert download(f"{site.url}/a.bin", to, sha256=SHA256) == SHA256
    assert "Range" not in site.log[0][2]


def test_a_file_that_has_changed_is_begun_again(site: Site, tmp_path: Path) -> None:
    to = tmp_path / "a.bin"
    broken_off(site, to, File())
    site.files["/a.bin"] = File(data=DATA[::-1], etag='"v2"')
    download(f"{site.url}/a.bin", to)
    assert to.read_bytes() == DATA[::-1]
    assert len(site.log) == 1


def test_a_server_without_ranges_sends_the_file_again(site: Site, tmp_path: Path) -> None:
    to = tmp_path / "a.bin"
    broken_off(site, to, File(ranges=False))
    assert download(f"{site.url}/a.bin", to) == SHA256
    assert to.read_bytes() == DATA


@pytest.mark.parametrize(
    "file", [File(etag='"v2"', honors_if_range=False), File(shift=1), File(data=DATA[:50])]
)
def test_an_answer_that_does_not_fit_is_dropped_and_said(
    site: Site, tmp_path: Path, file: File
) -> None:
    to = tmp_path / "a.bin"
    broken_off(site, to, File())
    site.files["/a.bin"] = file
    with pytest.raises(SourceUnavailableError, match=r"does not go on from byte 100; .*try again"):
        download(f"{site.url}/a.bin", to)
    assert names(tmp_path) == []
    assert download(f"{site.url}/a.bin", to) == hashlib.sha256(file.data).hexdigest()


def test_a_part_that_was_complete_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(DATA)
    (tmp_path / "a.bin.part.version").write_text('"v1"')
    assert download(f"{site.url}/a.bin", tmp_path / "a.bin", sha256=SHA256) == SHA256
    assert site.log[0][2]["Range"] == f"bytes={len(DATA)}-"
    assert names(tmp_path) == ["a.bin"]


def test_a_wrong_hash_deletes_what_came(site: Site, tmp_path: Path) -> None:
    words = f"SHA-256 of what came is {SHA256}, expected {'0' * 64}; .*check address and SHA-256"
    with pytest.raises(SourceError, match=words):
        download(f"{site.url}/a.bin", tmp_path / "a.bin", sha256="0" * 64)
    assert names(tmp_path) == []


def test_a_damaged_part_is_found_by_the_hash(site: Site, tmp_path: Path) -> None:
    to = tmp_path / "a.bin"
    broken_off(site, to, File())
    (tmp_path / "a.bin.part").write_bytes(b"x" * 100)
    with pytest.raises(SourceError, match="SHA-256"):
        download(f"{site.url}/a.bin", to, sha256=SHA256)
    assert names(tmp_path) == []


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("expected", [len(DATA) + 1, len(DATA) - 1, 0])
def test_a_wrong_size_deletes_what_came(
    site: Site, tmp_path: Path, chunked: bool, expected: int
) -> None:
    site.files["/a.bin"] = File(chunked=chunked)
    with pytest.raises(SourceError, match=rf"10,240 bytes, expected {expected:,}; it is not"):
        download(f"{site.url}/a.bin", tmp_path / "a.bin", size_bytes=expected)
    assert names(tmp_path) == []


def test_a_file_that_can_t_be_written_is_an_error(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceError, match=r"file/a\.bin: can't be written"):
        download(f"{site.url}/a.bin", tmp_path / "file" / "a.bin")


def test_two_downloads_of_one_file_do_not_mix(site: Site, tmp_path: Path) -> None:
    to, refused = tmp_path / "a.bin", []

    def meanwhile(done: int, whole: int | None) -> None:
        with pytest.raises(SourceUnavailableError, match="another download writes this file") as e:
            download(f"{site.url}/a.bin", to)
        refused.append(e.value)

    assert download(f"{site.url}/a.bin", to, progress=meanwhile) == SHA256
    assert refused
    assert to.read_bytes() == DATA


def test_a_killed_download_leaves_what_the_next_one_goes_on_with(
    site: Site, tmp_path: Path
) -> None:
    site.files["/a.bin"] = File(data=DATA * 200)
    process = subprocess.run(
        [sys.executable, "-c", KILLED, f"{site.url}/a.bin", str(tmp_path / "a.bin")], check=False
    )
    assert process.returncode == 9
    assert not (tmp_path / "a.bin").exists()
    site.log.clear()
    download(f"{site.url}/a.bin", tmp_path / "a.bin")
    assert int(site.log[0][2]["Range"].removeprefix("bytes=").removesuffix("-")) > 0
    assert (tmp_path / "a.bin").read_bytes() == DATA * 200


def test_memory_stays_flat(site: Site, tmp_path: Path) -> None:
    site.files["/a.bin"] = File(data=bytes(32 << 20))
    download(f"{site.url}/a.bin", tmp_path / "warm")
    tracemalloc.start()
    download(f"{site.url}/a.bin", tmp_path / "a.bin")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
