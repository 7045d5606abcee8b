"""vistadex.copy: every file arrives whole, is verified, and is not copied twice."""

import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import boto3
import pytest

import vistadex
from vistadex.errors import SourceError, SourceMissingError, SourceUnavailableError, UsageError
from vistadex.sources import Content, local_key, open_source
from vistadex.sources.contract import CHUNK_BYTES
from vistadex.testing import MemorySource

FILES = {
    "a b.jpg": b"one",
    "deep/er/ü %20#?.png": b"two" * 1000,
    "deep/labels.txt": b"",
    "z.bin": bytes(range(256)) * 40,
}


def contents(uri: str | Path) -> dict[str, bytes]:
    """All files of a source."""
    source = open_source(uri)
    return {e.key: source.read(e.key).data for page in source.pages() for e in page}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vistadex.sources.retrying.FIRST_WAIT_S", 0.001)


@pytest.fixture
def bucket(aws: pytest.MonkeyPatch, s3_server: str, request: pytest.FixtureRequest) -> str:
    """An empty bucket of a real S3 protocol server."""
    name = "copy-" + hashlib.md5(request.node.name.encode()).hexdigest()[:12]
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def source() -> MemorySource:
    return MemorySource.create("copied", FILES)


def test_every_file_arrives_as_it_was(source: MemorySource, tmp_path: Path) -> None:
    done = vistadex.copy(source.uri, tmp_path / "new" / "folder")
    assert (done.files, done.copied, done.unchanged, done.failed) == (4, 4, 0, 0)
    assert done.bytes == sum(map(len, FILES.values()))
    assert contents(tmp_path / "new" / "folder") == FILES


def test_a_second_run_copies_nothing(source: MemorySource, tmp_path: Path) -> None:
    vistadex.copy(source.uri, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    done = vistadex.copy(source.uri, tmp_path)
    assert (done.copied, done.unchanged) == (0, 4)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before


def test_a_run_goes_on_with_what_is_missing(source: MemorySource, tmp_path: Path) -> None:
    vistadex.copy(source.uri, tmp_path)
    (tmp_path / "a b.jpg").unlink()
    (tmp_path / "z.bin").write_bytes(b"cut off")
    done = vistadex.copy(source.uri, tmp_path)
    assert (done.copied, done.unchanged) == (2, 2)
    assert contents(tmp_path) == FILES


def test_verify_finds_other_bytes_of_the_same_length(source: MemorySource, tmp_path: Path) -> None:
    vistadex.copy(source.uri, tmp_path)
    (tmp_path / "a b.jpg").write_bytes(b"eno")
    assert vistadex.copy(source.uri, tmp_path).copied == 0
    assert vistadex.copy(source.uri, tmp_path, verify=True).copied == 1
    assert contents(tmp_path) == FILES


def test_a_bucket_gets_every_name_and_gives_it_back(
    source: MemorySource, bucket: str, tmp_path: Path
) -> None:
    source.files["odd//name\x07.jpg"] = b"unnameable for obstore"
    large = bytes(CHUNK_BYTES) + b"more than one part"
    source.files["large.bin"] = large
    done = vistadex.copy(source.uri, bucket + "/data")
    assert (done.copied, done.failed) == (6, 0)
    assert contents(bucket + "/data") == source.files
    again = vistadex.copy(source.uri, bucket + "/data")
    assert (again.copied, again.unchanged) == (0, 6)
    del source.files["odd//name\x07.jpg"]
    back = vistadex.copy(bucket + "/data", tmp_path / "back")
    assert (back.copied, back.failed) == (5, 1)
    assert "odd//name" in next(iter(back.failures))
    assert contents(tmp_path / "back") == source.files


def test_a_zipped_data_set_gets_into_a_bucket(bucket: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    done = vistadex.copy(tmp_path / "set.zip", bucket)
    assert (done.copied, done.failed) == (4, 0)
    assert contents(bucket) == FILES


def test_names_that_lead_out_of_the_folder_are_refused_and_said(tmp_path: Path) -> None:
    names = ["../evil.jpg", "/etc/evil.jpg", "ok.jpg", "sub/../../evil.jpg", "a//b.jpg"]
    source = MemorySource.create("evil", dict.fromkeys(names, b"x"))
    done = vistadex.copy(source.uri, tmp_path / "in")
    assert (done.copied, done.failed) == (1, 4)
    assert [path.name for path in tmp_path.rglob("*.jpg")] == ["ok.jpg"]
    assert all("rename it at its source" in why for why in done.failures.values())


def test_a_file_and_a_folder_of_one_name_are_a_failure(tmp_path: Path) -> None:
    source = MemorySource.create("both", {"a": b"file", "a/b": b"below"})
    done = vistadex.copy(source.uri, tmp_path, threads=1)
    assert (done.copied, done.failed) == (1, 1)
    assert "can't both lie there" in next(iter(done.failures.values()))


class Damaging(MemorySource):
    """Damages what is written, the first times."""

    def __init__(self, uri: str) -> None:
        self.times = 2
        super().__init__(uri)

    def write(self, key: str, chunks: Iterable[bytes], size_bytes: int) -> None:
        data = b"".join(chunks)
        self.times -= 1
        super().write(key, [data if self.times < 0 else b"X" + data[1:]], len(data))


def test_what_arrives_damaged_is_copied_again(
    source: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    MemorySource.create("target", {})
    target = Damaging("memory://target")
    monkeypatch.setattr("vistadex.copying.open_target", lambda uri: target)
    assert vistadex.copy(source.uri, "memory://target", threads=1).failed == 0
    assert target.files == FILES
    target.times = 1000
    target.files.clear()
    done = vistadex.copy(source.uri, "memory://target", threads=1)
    assert (done.copied, done.failed) == (0, 4)
    assert all("arrived damaged" in why for why in done.failures.values())


class Unavailable(MemorySource):
    """Breaks off in the middle of each file, the first times."""

    times = 2

    def chunks(self, key: str) -> Iterator[bytes]:
        data = self.read(key).data
        yield data[: len(data) // 2]
        self.times -= 1
        if self.times >= 0:
            raise SourceUnavailableError(f"{key}: broke off")
        yield data[len(data) // 2 :]

    def read(self, key: str) -> Content:
        return super().read(key)


def test_a_source_that_breaks_off_is_asked_again(
    source: MemorySource, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Unavailable(source.uri)
    monkeypatch.setattr("vistadex.copying.open_source", lambda uri: broken)
    assert vistadex.copy(source.uri, tmp_path / "in", threads=1).failed == 0
    assert contents(tmp_path / "in") == FILES
    broken.times = 1000
    done = vistadex.copy(source.uri, bucket, threads=1)
    assert done.copied == 0
    assert all("broke off" in why for why in done.failures.values())
    assert contents(bucket) == {}


def test_failures_are_written_into_the_report(tmp_path: Path) -> None:
    source = MemorySource.create("evil", {"../evil.jpg": b"x", "good.jpg": b"y"})
    vistadex.copy(source.uri, tmp_path / "in", report=tmp_path / "failed.jsonl")
    (line,) = (tmp_path / "failed.jsonl").read_text().splitlines()
    assert '"uri": "memory://evil/../evil.jpg"' in line


def test_a_place_inside_of_the_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="lies in the other"):
        vistadex.copy(tmp_path, tmp_path / "copy")


def test_a_source_inside_of_the_target_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    for name in ("b/x", "b/b/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    with pytest.raises(UsageError, match="lies in the other"):
        vistadex.copy(tmp_path / "b", tmp_path)
    with pytest.raises(UsageError, match="lies in the other"):
        vistadex.copy(tmp_path / "b", tmp_path / "b" / "new")
    with pytest.raises(UsageError, match="lies in the other"):
        vistadex.copy("/", tmp_path / "elsewhere")
    assert (tmp_path / "b" / "x").read_text() == "b/x"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b", "b", "x", "x"]


def test_a_long_name_is_copied_and_one_that_is_too_long_says_so(tmp_path: Path) -> None:
    names = {"\N{BEAR FACE}" * 60 + ".jpg": b"1", "n" * 300: b"2"}
    done = vistadex.copy(MemorySource.create("long", names).uri, tmp_path / "in")
    assert (done.copied, done.failed) == (1, 1)
    assert "shorten it at its source" in next(iter(done.failures.values()))


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("no-such-folder", "t", "no-such-folder"),
        ("memory://copied", "s3://no-such-bucket-here/x", "no bucket 'no-such-bucket-here'"),
        ("memory://copied", "ftp://host/x", "unknown"),
        ("memory://empty", "t", "no files found"),
    ],
)
def test_what_can_not_be_used_is_one_error(
    source: str,
    target: str,
    message: str,
    tmp_path: Path,
    aws: pytest.MonkeyPatch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    MemorySource.create("copied", FILES)
    MemorySource.create("empty", {})
    with pytest.raises((SourceError, SourceMissingError, UsageError), match=message):
        vistadex.copy(source, target)


def test_whole_addresses_get_a_name_each() -> None:
    def name(key: str) -> str:
        return local_key("/data/list.csv", key)

    assert name("a/b.jpg") == "a/b.jpg"
    assert name("https://host/a/b.jpg") == "https/host/a/b.jpg"
    assert name("file:///data/b.jpg") == "file/data/b.jpg"
    first, second = name("https://host/b.jpg?w=1"), name("https://host/b.jpg?w=2")
    assert first != second
    assert first.startswith("https/host/b-")
    assert first.endswith(".jpg")
    assert local_key("s3://bucket", "web/https://host/b.jpg?w=1") == "web/https://host/b.jpg?w=1"
    assert local_key("s3://bucket", "https://host/b.jpg") == "https://host/b.jpg"


def test_a_killed_copy_leaves_no_half_file_and_is_finished_by_the_next(tmp_path: Path) -> None:
    folder, target = tmp_path / "source", tmp_path / "target"
    folder.mkdir()
    for i in range(400):
        (folder / f"{i:03}.bin").write_bytes(bytes([i % 251]) * 200_000)
    command = [sys.executable, "-m", "vistadex", "copy", str(folder), str(target)]
    running = subprocess.Popen(
        command, preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    )
    deadline = time.monotonic() + 30
    while len(list(target.glob("[0-9]*"))) < 5:
        assert time.monotonic() < deadline
        assert running.poll() is None
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    sizes = {path.stat().st_size for path in target.glob("[0-9]*")}
    assert sizes == {200_000}
    assert vistadex.copy(folder, target).failed == 0
    assert contents(target) == contents(folder)
