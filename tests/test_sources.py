"""Sources: the contract, folders, and reading ahead with retries."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistadex.errors import (
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
    UsageError,
)
from vistadex.records import FAILURE_REASONS, Failure, ImageEntry
from vistadex.registry import lookup
from vistadex.sources import SCHEMES, Content, Source, folder, open_source, read_images
from vistadex.sources.contract import PAGE_SIZE
from vistadex.sources.retrying import ATTEMPTS

JPEG = b"\xff\xd8\xff\xe0" + b"x" * 96


def keys(source: Source, after: str | None = None) -> list[str]:
    return [entry.key for page in source.pages(after) for entry in page]


def failures(source: Source) -> dict[str, str]:
    entries = [entry for page in source.pages() for entry in page]
    return {entry.key: entry.failure.reason for entry in entries if entry.failure}


def fill(root: Path, *names: str) -> Source:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)
    return open_source(root)


# Opening


def test_a_folder_has_one_uri_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my photos"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for written in (
        folder,
        f"{folder}/",
        "my photos",
        "./my photos/../my photos",
        "~/my photos",
        folder.as_uri(),
        f"file://localhost{folder}",
        tmp_path / "link",
    ):
        assert open_source(written).uri == str(folder)


@pytest.mark.parametrize("uri", ["gs://", "ftp://host/a", "file://host/a", "s3://", "s3:///p"])
def test_an_address_that_can_not_be_meant_is_a_usage_error(uri: str) -> None:
    with pytest.raises(UsageError):
        open_source(uri)


def test_a_missing_folder_and_a_file_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SourceMissingError, match="check the path"):
        open_source(tmp_path / "none")
    (tmp_path / "a.jpg").write_bytes(JPEG)
    with pytest.raises(SourceError, match=f"give its folder: {tmp_path}"):
        open_source(tmp_path / "a.jpg")


@pytest.mark.parametrize("uri", [".", "s3://bucket/a/b"])
def test_a_source_travels_as_its_uri(uri: str) -> None:
    source = open_source(uri)
    twin = pickle.loads(pickle.dumps(source))
    assert type(twin) is type(source)
    assert twin.uri == source.uri
    assert len(pickle.dumps(source)) < 200


def test_every_scheme_leads_to_a_source() -> None:
    for scheme in SCHEMES:
        assert issubclass(lookup(SCHEMES, scheme, "source"), Source)


def test_image_uris_are_paths(tmp_path: Path) -> None:
    assert fill(tmp_path, "a/b.jpg").image_uri("a/b.jpg") == f"{tmp_path}/a/b.jpg"
    assert open_source("/").image_uri("a") == "/a"


# Listing a folder


def test_the_listing_is_in_key_order(tmp_path: Path) -> None:
    names = ["a/x.jpg", "a.jpg", "a-b.jpg", "a0.jpg", "B.jpg", "a/b/c.jpg", "é.jpg", "z z.jpg"]
    names += ["a/\U0001f600.jpg", "a/\uffee.jpg", "a/new\nline.jpg", "100%.jpg", "a b/c#?.jpg"]
    assert keys(fill(tmp_path, *names)) == sorted(names)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("ab-./0é", min_size=1, max_size=7), max_size=12),
    st.text("ab-./0é", max_size=5),
)
def test_listing_after_a_key_gives_the_rest(names: list[str], after: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        for name in names:
            path = Path(root, *(part for part in name.split("/") if part not in ("", ".", "..")))
            if not path.exists() and not any(p.is_file() for p in path.parents):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x")
        source = open_source(root)
        everything = keys(source)
        assert everything == sorted(everything)
        assert keys(source, after) == [key for key in everything if key > after]
        for key in everything:
            assert keys(source, key) == [other for other in everything if other > key]


def test_listing_after_a_key_does_not_look_into_earlier_folders(tmp_path: Path) -> None:
    source = fill(tmp_path, "a/1.jpg", "b/1.jpg", "b/2.jpg", "c/1.jpg")
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").symlink_to("/root/no/such/place")
    assert keys(source, "b/1.jpg") == ["b/2.jpg", "c/1.jpg"]


def test_pages_are_full_but_the_last(tmp_path: Path) -> None:
    source = fill(tmp_path, *(f"{i % 7}/{i:05}.jpg" for i in range(2 * PAGE_SIZE + 5)))
    assert [len(page) for page in source.pages()] == [PAGE_SIZE, PAGE_SIZE, 5]


def test_an_empty_folder_has_no_pages(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    assert list(open_source(tmp_path).pages()) == []


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    source = fill(tmp_path, ".hidden.jpg", ".git/a.jpg", "a/.DS_Store", "a/.x/y.jpg", "a/b.jpg")
    assert keys(source) == ["a/b.jpg"]


def test_names_beyond_memory_are_sorted_through_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "NAMES_IN_MEMORY", 3)
    names = [f"{c}{d}" for c in "cab\n" for d in ("", "-", "é", "/x")]
    names = [name for name in names if f"{name}/x" not in names]
    assert keys(fill(tmp_path, *names)) == sorted(names)


def test_linked_files_and_folders_are_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    fill(outside, "o.jpg", "deep/p.jpg")
    source = fill(tmp_path / "root", "a.jpg")
    (tmp_path / "root" / "b.jpg").symlink_to(outside / "o.jpg")
    (tmp_path / "root" / "more").symlink_to(outside)
    assert keys(source) == ["a.jpg", "b.jpg", "more/deep/p.jpg", "more/o.jpg"]
    assert source.read("more/deep/p.jpg").data == JPEG


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    fill(outside, "o.jpg")
    source = fill(tmp_path / "root", "a/b.jpg", ".store/s.jpg")
    root = tmp_path / "root"
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to(root / "a")
    (root / "copy").symlink_to(root / "a")
    (root / "out").symlink_to(outside)
    (root / "shown").symlink_to(root / ".store")
    (outside / "back").symlink_to(root)
    (outside / "again").symlink_to(outside)
    assert keys(source) == ["a/b.jpg", "out/o.jpg", "shown/s.jpg"]


def test_links_that_lead_nowhere_are_reported(tmp_path: Path) -> None:
    source = fill(tmp_path, "a.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "none")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert failures(source) == {"gone.jpg": "unreadable", "loop.jpg": "unreadable"}
    assert keys(source) == ["a.jpg", "gone.jpg", "loop.jpg"]


def test_pipes_and_sockets_are_no_files(tmp_path: Path) -> None:
    source = fill(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.jpg"))
        assert keys(source) == ["a.jpg"]
    with pytest.raises(SourceMissingError):
        source.read("pipe.jpg")


def test_names_that_are_not_utf8_are_reported(tmp_path: Path) -> None:
    source = fill(tmp_path, "a.jpg", "z.jpg", "é.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(JPEG)
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xff"))
    folder.mkdir()
    (folder / "x.jpg").write_bytes(JPEG)
    assert failures(source) == {r"caf\xe9.jpg": "bad_name", "f\\xff/": "bad_name"}
    assert keys(source) == sorted(keys(source))
    for key in keys(source):
        key.encode()


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder, and for the test the permissions of an ordinary user even where root runs it."""
    root = Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        os.chown(root, 65534, 65534)
        os.seteuid(65534)
    try:
        yield root
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        for path in [root, *root.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(root)


def test_what_permissions_forbid_is_reported(nobody: Path) -> None:
    source = fill(nobody, "a.jpg", "closed/b.jpg", "closed-too.jpg", "z/c.jpg")
    (nobody / "closed").chmod(0o000)
    (nobody / "closed-too.jpg").chmod(0o000)
    assert keys(source) == ["a.jpg", "closed-too.jpg", "closed/", "z/c.jpg"]
    assert failures(source) == {"closed/": "unreadable"}
    with pytest.raises(SourceDeniedError, match="permission"):
        source.read("closed-too.jpg")
    nobody.chmod(0o000)
    with pytest.raises(SourceDeniedError, match="permission"):
        open_source(nobody)
    with pytest.raises(SourceDeniedError, match="permission"):
        list(source.pages())
    nobody.chmod(0o755)


def test_a_folder_that_vanishes_ends_the_listing_with_an_error(tmp_path: Path) -> None:
    source = fill(tmp_path / "root", "a.jpg")
    shutil.rmtree(tmp_path / "root")
    with pytest.raises(SourceMissingError):
        list(source.pages())


# Reading a folder


def test_the_version_changes_with_the_bytes(tmp_path: Path) -> None:
    source = fill(tmp_path, "a.jpg")
    listed = next(source.pages())[0]
    assert (listed.size_bytes, listed.version) == (100, source.read("a.jpg").version)
    os.utime(tmp_path / "a.jpg", ns=(1, 1))
    assert source.read("a.jpg").version == "100-1"
    (tmp_path / "a.jpg").write_bytes(b"other")
    assert source.read("a.jpg").version.startswith("5-")


def test_reading_gives_the_bytes_or_a_source_error(tmp_path: Path) -> None:
    source = fill(tmp_path / "root", "a b/é%.jpg")
    (tmp_path / "secret").write_text("x")
    assert source.read("a b/é%.jpg").data == JPEG
    assert source.read_start("a b/é%.jpg", 4) == JPEG[:4]
    assert source.read_start("a b/é%.jpg", 1000) == JPEG
    for key in ("none.jpg", "a b", "a b/é%.jpg/x", "../secret", "a b/../../secret"):
        with pytest.raises(SourceMissingError):
            source.read(key)


# Reading ahead


class Numbered(Source):
    """A source whose reads can be told to fail, to wait, and are counted."""

    uri = "numbered://"

    def __init__(self, read_ahead: int, *, failing: int = 0, gate: threading.Event | None = None):
        self.read_ahead = read_ahead
        self.failing = failing
        self.gate = gate
        self.attempts: list[str] = []
        self.held = self.most_held = 0
        self.lock = threading.Lock()

    def pages(self, after: str | None = None) -> Iterator[list[ImageEntry]]:
        raise NotImplementedError

    def read(self, key: str) -> Content:
        with self.lock:
            self.attempts.append(key)
            if self.attempts.count(key) <= self.failing:
                raise SourceUnavailableError(f"{key}: 503")
            self.held += 1
            self.most_held = max(self.most_held, self.held)
        if self.gate:
            self.gate.wait(20)
        return Content(JPEG, f"v-{key}")

    def read_start(self, key: str, size: int) -> bytes:
        return self.read(key).data[:size]


def numbered(count: int, size_bytes: int = 100) -> list[ImageEntry]:
    return [ImageEntry(f"{i:04}.jpg", size_bytes, "listed") for i in range(count)]


both = pytest.mark.parametrize("read_ahead", [0, 8])


@both
def test_images_come_in_order_with_the_version_read(read_ahead: int) -> None:
    entries = numbered(300)
    results = list(read_images(Numbered(read_ahead), iter(entries)))
    assert [entry.key for entry, _ in results] == [entry.key for entry in entries]
    assert all(entry.version == f"v-{entry.key}" for entry, _ in results)
    assert all(data == JPEG for _, data in results)


@both
def test_no_entries_give_no_images(read_ahead: int) -> None:
    assert list(read_images(Numbered(read_ahead), [])) == []


@both
def test_an_unavailable_source_is_asked_again(read_ahead: int) -> None:
    source = Numbered(read_ahead, failing=2)
    assert [data for _, data in read_images(source, numbered(1))] == [JPEG]
    assert len(source.attempts) == 3


@both
def test_a_source_that_stays_unavailable_is_a_reason(
    read_ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistadex.sources.retrying.FIRST_WAIT_S", 0.001)
    source = Numbered(read_ahead, failing=99)
    (_, failure), *_ = read_images(source, numbered(1))
    assert failure == Failure("unreadable", "0000.jpg: 503")
    assert len(source.attempts) == ATTEMPTS


@pytest.mark.parametrize(("budget", "most"), [(1, 1), (250, 2), (800, 8), (10**9, 8)])
def test_reads_ahead_stay_within_the_budget(budget: int, most: int) -> None:
    source = Numbered(8)
    for _ in read_images(source, numbered(100), budget_bytes=budget):
        time.sleep(0.001)
        with source.lock:
            source.held -= 1
            # What was given out counts until the next one is asked for.
            assert source.held + 1 <= max(most, budget // 100) + 1
    assert source.held == 0
    if budget <= 800:
        assert source.most_held <= most


def test_reads_run_side_by_side() -> None:
    gate = threading.Event()
    source = Numbered(8, gate=gate)
    threading.Timer(0.3, gate.set).start()
    assert len(list(read_images(source, numbered(32)))) == 32
    assert source.most_held >= 8


def test_closing_does_not_wait_for_a_read_that_hangs() -> None:
    gate = threading.Event()
    source = Numbered(4, gate=gate)
    images = read_images(source, numbered(100))
    threading.Timer(0.2, gate.set).start()
    next(images)
    gate.clear()
    start = time.monotonic()
    images.close()
    assert time.monotonic() - start < 0.5
    gate.set()
    time.sleep(0.1)
    assert len(source.attempts) < 20
    assert not [t for t in threading.enumerate() if t.name == "read-ahead"]


def test_closing_ends_a_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vistadex.sources.retrying.FIRST_WAIT_S", 60)

    class OneBad(Numbered):
        def read(self, key: str) -> Content:
            if key == "0001.jpg":
                raise SourceUnavailableError("down")
            return super().read(key)

    images = read_images(OneBad(2), numbered(3))
    next(images)
    time.sleep(0.1)
    images.close()
    time.sleep(0.1)
    assert not [t for t in threading.enumerate() if t.name == "read-ahead"]


def test_ctrl_c_ends_a_program_whose_reads_hang() -> None:
    code = (
        "import threading\n"
        "from vistadex.records import ImageEntry\n"
        "from vistadex.sources import Source, read_images\n"
        "class Hanging(Source):\n"
        "    uri = 'x://'; read_ahead = 4\n"
        "    def pages(self, after=None): yield []\n"
        "    def read(self, key): threading.Event().wait(60)\n"
        "    read_start = read\n"
        "print('reading', flush=True)\n"
        "list(read_images(Hanging(), [ImageEntry(f'{i}.jpg', 9, '') for i in range(9)]))\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell that starts the tests in the background has them ignore Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"reading\n"
        time.sleep(0.2)
        start = time.monotonic()
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=20)
    assert time.monotonic() - start < 2
    assert b"KeyboardInterrupt" in errors


@both
def test_an_error_that_is_a_bug_reaches_the_caller(read_ahead: int) -> None:
    class Buggy(Numbered):
        def read(self, key: str) -> Content:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(read_images(Buggy(read_ahead), numbered(3)))


@both
@pytest.mark.parametrize(
    ("name", "size", "data", "reason"),
    [
        ("empty.jpg", 0, b"", "empty"),
        ("emptied.jpg", 9, b"", "empty"),
        ("large.jpg", 10**9, JPEG, "too_large"),
        ("grown.jpg", 9, JPEG * 20, "too_large"),
        ("video.mp4", 10**9, b"\0\0\0\x18ftypisom", "not_an_image"),
        ("notes.txt", 9, b"notes", "not_an_image"),
        ("README", 9, b"notes", "not_an_image"),
        ("text.jpg", 9, b"notes", None),
        ("picture.dat", 100, JPEG, None),
        ("picture", 100, JPEG, None),
        ("huge_picture", 10**9, JPEG, "too_large"),
    ],
)
def test_what_can_not_be_an_image_has_its_reason(
    read_ahead: int, name: str, size: int, data: bytes, reason: str | None
) -> None:
    class One(Numbered):
        def read(self, key: str) -> Content:
            self.attempts.append(key)
            return Content(data, "v")

    source = One(read_ahead)
    ((entry, outcome),) = read_images(source, [ImageEntry(name, size, "")], max_file_bytes=1000)
    if reason is None:
        assert outcome == data
        assert entry.version == "v"
    else:
        assert isinstance(outcome, Failure)
        assert outcome.reason == reason
        assert reason in FAILURE_REASONS
    if size in (0, 10**9):
        assert len(source.attempts) <= 1


def test_a_failure_of_the_listing_is_handed_on() -> None:
    failure = Failure("bad_name", "no")
    source = Numbered(0)
    entry = ImageEntry("a.jpg", 5, "", failure)
    assert list(read_images(source, [entry])) == [(entry, failure)]
    assert source.attempts == []


def test_a_file_that_vanished_since_the_listing_is_unreadable(tmp_path: Path) -> None:
    source = fill(tmp_path, "a.jpg", "b.jpg")
    entries = next(source.pages())
    (tmp_path / "a.jpg").unlink()
    (_, gone), (_, data) = read_images(source, entries)
    assert isinstance(gone, Failure)
    assert (gone.reason, data) == ("unreadable", JPEG)
    assert "vanished" in gone.message


class TenMillion(Source):
    """A listing that is made as it is asked for."""

    uri = "synthetic://"

    def pages(self, after: str | None = None) -> Iterator[list[ImageEntry]]:
        for start in range(0, 10_000_000, PAGE_SIZE):
            yield [
                ImageEntry(f"photos/{i:08}.jpg", 100_000, "v")
                for i in range(start, start + PAGE_SIZE)
            ]

    def read(self, key: str) -> Content:
        return Content(JPEG, "v")

    def read_start(self, key: str, size: int) -> bytes:
        return JPEG[:size]


def test_reading_takes_no_more_of_a_listing_than_it_reads_ahead() -> None:
    taken = 0

    def entries() -> Iterator[ImageEntry]:
        nonlocal taken
        for page in TenMillion().pages():
            for entry in page:
                taken += 1
                yield entry

    source = TenMillion()
    source.read_ahead = 8
    images = read_images(source, entries())
    for _ in range(5):
        next(images)
    images.close()
    assert taken < 40
