"""Bytes of listed images, in order and read ahead within a byte budget, or the reason why not."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from typing import TypeAlias

from vistadex.decoding import SIGNATURE_BYTES, looks_like_image
from vistadex.errors import SourceError, SourceMissingError, SourceTooLargeError
from vistadex.records import Failure, ImageEntry
from vistadex.sources.contract import Content, Source
from vistadex.sources.retrying import with_retries

Reading: TypeAlias = tuple[ImageEntry, bytes | Failure]
_Grow: TypeAlias = Callable[[int], None]

READ_AHEAD_BYTES = 32 * 2**20
MAX_FILE_BYTES = 256 * 2**20
UNKNOWN_SIZE_BYTES = 4 * 2**20
"""What a file counts at first whose size the listing does not say, as in a manifest."""

PICTURE_EXTENSIONS = frozenset(
    "jpg jpeg jpe jfif mpo png apng webp bmp dib tif tiff gif avif ppm pgm pbm heic heif".split()
)
"""Files named so are read whole at once; of others the first bytes must be those of a picture."""


def read_images(
    source: Source,
    entries: Iterable[ImageEntry],
    *,
    budget_bytes: int = READ_AHEAD_BYTES,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> Iterator[Reading]:
    """Each entry with its bytes, or why there are none, in the order of the entries.

    The entry comes with the version of the bytes that were read. With `source.read_ahead`, threads
    read on while the caller works; closing the generator ends waits and drops what is outstanding.

    Args:
        budget_bytes: read ahead, and not taken yet, are at most so many bytes, whatever the listing
            says of them; beside these the image whose turn it is may be larger.
        max_file_bytes: a file with more is not read.
    """
    stopped = threading.Event()

    if source.read_ahead <= 0:
        for entry in entries:
            yield _Reader(source, max_file_bytes, stopped).read(entry, max_file_bytes)
        return

    def cost(entry: ImageEntry) -> int:
        if entry.size_bytes is None:
            return min(UNKNOWN_SIZE_BYTES, max_file_bytes)
        unread = entry.failure is not None or entry.size_bytes > max_file_bytes
        return 0 if unread else entry.size_bytes

    room = _Room(budget_bytes)
    reader = _Reader(source, max_file_bytes, stopped)
    try:
        yield from _read_ahead(reader, entries, cost, room, source.read_ahead, stopped)
    finally:
        stopped.set()
        room.close()


@dataclass(slots=True)
class _Job:
    """An entry to be read."""

    entry: ImageEntry
    number: int
    cost: int
    """Bytes that it counts in the room."""
    result: Future[Reading]


class _Room:
    """The bytes of all jobs that are begun and not taken yet."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._used = 0
        self._turn = 0
        self._closed = False
        self._changed = threading.Condition()

    def fits(self, more: int) -> bool:
        """Whether there is room for so many bytes."""
        return self._used + more <= self._budget_bytes

    def resize(self, job: _Job, cost: int) -> None:
        """Counts a job anew, when there is room for it or it is its turn to be taken.

        Raises: SourceError where nobody waits for it any more.
        """
        with self._changed:
            more = cost - job.cost
            self._changed.wait_for(
                lambda: more <= 0 or job.number == self._turn or self.fits(more) or self._closed
            )
            if self._closed:
                raise SourceError("reading ahead has ended")
            self._used += more
            job.cost = cost
            self._changed.notify_all()

    def enter(self, job: _Job) -> None:
        """Counts a job for the first time."""
        with self._changed:
            self._used += job.cost

    def leave(self, job: _Job) -> None:
        """Counts a job no more; the next one's turn has come."""
        with self._changed:
            self._used -= job.cost
            self._turn += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Ends all waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _read_ahead(
    reader: _Reader,
    entries: Iterable[ImageEntry],
    cost: Callable[[ImageEntry], int],
    room: _Room,
    threads: int,
    stopped: threading.Event,
) -> Iterator[Reading]:
    """Each entry as it was read, in order, with so many threads ahead of the caller."""
    jobs: SimpleQueue[_Job | None] = SimpleQueue()
    pending: deque[_Job] = deque()
    upcoming = iter(entries)
    entry = next(upcoming, None)
    number = started = 0
    try:
        while entry is not None or pending:
            while entry is not None and len(pending) < 2 * threads:
                if pending and not room.fits(cost(entry)):
                    break
                job = _Job(entry, number, cost(entry), Future())
                number += 1
                room.enter(job)
                pending.append(job)
                jobs.put(job)
                if started < threads:
                    # Daemons: a read that hangs must not keep the process from ending.
                    threading.Thread(
                        target=_work,
                        args=(reader, jobs, room, stopped),
                        name="read-ahead",
                        daemon=True,
                    ).start()
                    started += 1
                entry = next(upcoming, None)
            yield pending[0].result.result()
            # Counted until the caller comes back for more: until then it holds these bytes.
            room.leave(pending.popleft())
    finally:
        for _ in range(started):
            jobs.put(None)


def _work(
    reader: _Reader, jobs: SimpleQueue[_Job | None], room: _Room, stopped: threading.Event
) -> None:
    while (job := jobs.get()) is not None and not stopped.is_set():
        try:
            job.result.set_result(_read_job(reader, job, room))
        except BaseException as error:
            job.result.set_exception(error)  # The caller's thread raises it, in the entry's turn.
        del job  # and with it the bytes, while waiting for the next


def _read_job(reader: _Reader, job: _Job, room: _Room) -> Reading:
    entry, outcome = reader.read(job.entry, job.cost, partial(room.resize, job))
    room.resize(job, 0 if isinstance(outcome, Failure) else min(len(outcome), job.cost))
    return entry, outcome


class _Reader:
    """Reads single entries of a source."""

    def __init__(self, source: Source, max_file_bytes: int, stopped: threading.Event) -> None:
        self._source = source
        self._max_file_bytes = max_file_bytes
        self._stopped = stopped

    def read(self, entry: ImageEntry, max_bytes: int, grow: _Grow | None = None) -> Reading:
        """One entry with its bytes or its failure.

        Args:
            max_bytes: no more come into memory before grow is called with how many there will be.
        """
        if entry.failure is not None:
            return entry, entry.failure
        if entry.size_bytes == 0:
            return entry, Failure("empty", "the file has no bytes")
        try:
            if failure := self._refused(entry):
                return entry, failure
            content = self._content(entry.key, max_bytes, grow)
        except SourceTooLargeError as error:
            return entry, _too_large(error.size_bytes, self._max_file_bytes)
        except SourceMissingError as error:
            gone = "it has vanished since it was listed"
            return entry, Failure("unreadable", str(error) if self._source.names_only else gone)
        except SourceError as error:
            return entry, Failure("unreadable", str(error))
        version = content.version or entry.version  # empty: as listed
        entry = replace(entry, version=version, size_bytes=len(content.data))
        if not content.data:
            return entry, Failure("empty", "the file has no bytes")
        if len(content.data) > self._max_file_bytes:
            return entry, _too_large(len(content.data), self._max_file_bytes)
        return entry, content.data

    def _refused(self, entry: ImageEntry) -> Failure | None:
        """Why an entry is not read whole.

        Raises: SourceError.
        """
        key = entry.key
        if not named_as_picture(key):
            start = with_retries(
                lambda: self._source.read_start(key, SIGNATURE_BYTES), self._stopped
            )
            if not looks_like_image(start):
                message = f"begins with {start[:8]!r} and is not named as a picture"
                return Failure("not_an_image", message)
        if entry.size_bytes is not None and entry.size_bytes > self._max_file_bytes:
            return _too_large(entry.size_bytes, self._max_file_bytes)
        return None

    def _content(self, key: str, max_bytes: int, grow: _Grow | None) -> Content:
        """All bytes of a file, asked for again where there are more than was thought.

        Raises: SourceError.
        """
        while True:
            try:
                read = partial(self._source.read_within, key, max_bytes)
                return with_retries(read, self._stopped)
            except SourceTooLargeError as error:
                stated = error.size_bytes or 0
                if grow is None or max(stated, max_bytes + 1) > self._max_file_bytes:
                    raise
                max_bytes = stated if stated > max_bytes else self._max_file_bytes
                grow(max_bytes)


def named_as_picture(key: str) -> bool:
    """Whether a name ends like a picture's."""
    return key.rpartition(".")[2].lower() in PICTURE_EXTENSIONS


def _too_large(size_bytes: int | None, max_file_bytes: int) -> Failure:
    """The failure of a file with so many bytes; None: how many is not known."""
    size = "" if size_bytes is None else f"{size_bytes / 2**20:.1f} MiB, "
    return Failure("too_large", f"{size}more than the limit of {max_file_bytes / 2**20:.1f} MiB")
