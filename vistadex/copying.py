"""Copying a collection, or unpacking an archive, into a folder or bucket: parallel, resumable."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from vistadex.engines.local import cores
from vistadex.errors import (
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
    UsageError,
)
from vistadex.progress import Progress, Silent
from vistadex.records import ImageEntry
from vistadex.sources import Source, Target, local_key, open_source, open_target, place_of
from vistadex.sources.contract import CHUNK_BYTES
from vistadex.sources.retrying import with_retries

_MD5 = re.compile("[0-9a-f]{32}")


@dataclass(slots=True, kw_only=True)
class CopySummary:
    """How a run of copy() went."""

    files: int = 0
    """Listed in the source."""
    copied: int = 0
    unchanged: int = 0
    """Were there already."""
    failed: int = 0
    bytes: int = 0
    """Copied in this run."""
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    """The first failed files, at most 100: address and why."""


def copy(
    source: str | Path,
    target: str | Path,
    *,
    verify: bool = False,
    threads: int | None = None,
    report: Path | None = None,
    progress: Progress | None = None,
) -> CopySummary:
    """Copies every file of a folder, bucket, archive or manifest into a folder or bucket.

    Each file is written whole or not at all, and compared with what was read by size and MD5. A
    file that is there already is left alone where its size is the same, and its checksum where
    both listings state one; so the same call goes on where a run was stopped. Memory is bounded
    by the number of threads, whatever the size of the files.

    Args:
        verify: compare the bytes of files that are there already, and copy again what differs.
        threads: files in work at a time; None: 8, or twice the cores.
        report: file that gets every failure, one JSON object a line.
        progress: is told how far the run is.
    Raises: UsageError or SourceError where source or target can't be used as a whole; a file that
        can't be copied is counted in the summary.
    """
    started = time.monotonic()
    opened = open_source(source)
    _need_apart(opened.uri, place_of(target))
    place = open_target(target)
    run = _Run(opened, place, verify, report, progress or Silent())
    threads = threads or max(8, 2 * cores())
    if threads < 1:
        raise UsageError(f"threads={threads}: expected 1 or more")
    run.go(threads)
    run.summary.seconds = time.monotonic() - started
    return run.summary


def _need_apart(source: str, target: str) -> None:
    """Raises: UsageError where one of the two lies in the other: files would be overwritten."""
    ends = [uri.rstrip("/") + "/" for uri in (source, target)]
    if ends[0].startswith(ends[1]) or ends[1].startswith(ends[0]):
        raise UsageError(
            f"{target}: it or the source {source} lies in the other; choose places that are apart"
        )


class _Run:
    """One copy: files in work in threads, their ends taken in order."""

    def __init__(
        self, source: Source, target: Target, verify: bool, report: Path | None, progress: Progress
    ) -> None:
        self.source, self.target, self.verify = source, target, verify
        self.report, self.progress = report, progress
        self.summary = CopySummary()
        self.present = _Present(target)
        self.listing = True
        self.stopped = threading.Event()

    def go(self, threads: int) -> None:
        """Copies everything."""
        self.write_report("", "w")
        pool = ThreadPoolExecutor(threads, thread_name_prefix="copy")
        waiting: deque[tuple[ImageEntry, Future[int | None]]] = deque()
        try:
            for page in self.source.pages():
                for entry in page:
                    self.summary.files += 1
                    there = self.present.find(local_key(self.source.uri, entry.key))
                    waiting.append((entry, pool.submit(self.one, entry, there)))
                    if len(waiting) >= 4 * threads:
                        self.take(*waiting.popleft())
            self.listing = False
            while waiting:
                self.take(*waiting.popleft())
        finally:
            self.stopped.set()
            pool.shutdown(cancel_futures=True)
        if not self.summary.files:
            raise SourceMissingError(f"{self.source.uri}: no files found; check the address")

    def take(self, entry: ImageEntry, done: Future[int | None]) -> None:
        """Counts a file that has ended."""
        summary = self.summary
        try:
            size = done.result()
        except SourceError as error:
            summary.failed += 1
            self.note(self.source.image_uri(entry.key), str(error))
        else:
            summary.copied += size is not None
            summary.unchanged += size is None
            summary.bytes += size or 0
        ended = summary.copied + summary.unchanged + summary.failed
        self.progress.update(
            listed=summary.files, listing=self.listing, done=ended, failed=summary.failed
        )

    def note(self, place: str, message: str) -> None:
        if len(self.summary.failures) < 100:
            self.summary.failures[place] = message
        self.write_report(json.dumps({"uri": place, "message": message}) + "\n", "a")

    def write_report(self, text: str, mode: str) -> None:
        """Begins the report, or adds to it.

        Raises: UsageError where it can't be written.
        """
        if self.report is None:
            return
        try:
            with self.report.open(mode, encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            what = f"{self.report}: can't be written: {error.strerror}"
            raise UsageError(f"{what}; choose another --report") from error

    def one(self, entry: ImageEntry, there: ImageEntry | None) -> int | None:
        """Copies one file; its size, or None where it was there already."""
        if entry.failure is not None:
            raise SourceError(f"{self.source.image_uri(entry.key)}: {entry.failure.message}")
        if there is not None and self.is_same(entry, there):
            return None
        return with_retries(lambda: self.transfer(entry), self.stopped)

    def is_same(self, entry: ImageEntry, there: ImageEntry) -> bool:
        size = entry.size_bytes
        if size is None:
            size = with_retries(lambda: self.source.stat(entry.key), self.stopped).size_bytes
        if size != there.size_bytes:
            return False
        if _MD5.fullmatch(entry.version) and _MD5.fullmatch(there.version):
            return entry.version == there.version
        if not self.verify:
            return True
        return self.md5(self.source, entry.key) == self.md5(self.target, there.key)

    def transfer(self, entry: ImageEntry) -> int:
        """Copies one file and compares what arrived.

        Raises: SourceUnavailableError where that is something else.
        """
        digest, key = hashlib.md5(usedforsecurity=False), local_key(self.source.uri, entry.key)
        read = _Counted(self.running(self.source.chunks(entry.key)), digest.update)
        expected = entry.size_bytes if entry.size_bytes is not None else _UNKNOWN_SIZE
        try:
            self.target.write(key, read, expected)
        except SourceError as error:
            raise read.error or error from error
        arrived = self.target.stat(key)
        same = arrived.size_bytes == read.size
        if same and arrived.version != digest.hexdigest():
            # A folder states no checksum, and a bucket may state another than MD5: read it back.
            same = self.md5(self.target, key) == digest.hexdigest()
        if not same:
            place = self.target.image_uri(key)
            raise SourceUnavailableError(f"{place}: arrived damaged; copy it again")
        return read.size

    def md5(self, source: Source, key: str) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        for chunk in self.running(source.chunks(key)):
            digest.update(chunk)
        return digest.hexdigest()

    def running(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks, until the run is stopped."""
        for chunk in chunks:
            if self.stopped.is_set():
                raise SourceError(f"{self.source.uri}: the copy was stopped")
            yield chunk


_UNKNOWN_SIZE = CHUNK_BYTES + 1
"""What a target is told of a file whose size the listing does not say: take it as a large one."""


class _Counted:
    """Chunks on their way; keeps their number of bytes, and the error that ended them."""

    def __init__(self, chunks: Iterator[bytes], see: Callable[[bytes], None]) -> None:
        self.size = 0
        self.error: SourceError | None = None
        self._chunks, self._see = chunks, see

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._chunks:
                self.size += len(chunk)
                self._see(chunk)
                yield chunk
        except SourceError as error:
            self.error = error  # a store's client may wrap it into an error of its own
            raise


class _Present:
    """What the target holds already: its listing, walked beside that of the source."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.entries = (entry for page in target.pages() for entry in page)
        self.next: ImageEntry | None = next(self.entries, None)
        self.asked = ""

    def find(self, key: str) -> ImageEntry | None:
        """The target's file of that name."""
        if key < self.asked:  # names that were derived from addresses need not rise
            try:
                return self.target.stat(key)
            except SourceMissingError:
                return None
        self.asked = key
        while self.next is not None and self.next.key < key:
            self.next = next(self.entries, None)
        found = self.next
        return found if found is not None and found.key == key else None
