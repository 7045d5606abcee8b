"""Bytes of listed images, in order and read ahead within a byte budget, or the reason why not."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from queue import SimpleQueue
from typing import TypeAlias

from vistadex.decoding import SIGNATURE_BYTES, looks_like_image
from vistadex.errors import SourceError, SourceMissingError
from vistadex.records import Failure, ImageEntry
from vistadex.sources.contract import Source
from vistadex.sources.retrying import with_retries

Reading: TypeAlias = tuple[ImageEntry, bytes | Failure]
_Job: TypeAlias = tuple[ImageEntry, "Future[Reading]"]

READ_AHEAD_BYTES = 32 * 2**20
MAX_FILE_BYTES = 256 * 2**20
UNKNOWN_SIZE_BYTES = 2**20
"""What a file counts whose size the listing does not say, as in a manifest of addresses."""

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
        budget_bytes: read ahead, and not taken yet, are at most so many bytes by the listing; a
            single larger file is read alone.
        max_file_bytes: a file with more is not read.
    """
    stopped = threading.Event()

    def read(entry: ImageEntry) -> Reading:
        return _read_entry(source, entry, max_file_bytes, stopped)

    if source.read_ahead <= 0:
        yield from map(read, entries)
        return

    def cost(entry: ImageEntry) -> int:
        if entry.size_bytes is None:
            return min(UNKNOWN_SIZE_BYTES, max_file_bytes)
        unread = entry.failure is not None or entry.size_bytes > max_file_bytes
        return 0 if unread else entry.size_bytes

    try:
        yield from _read_ahead(read, entries, cost, budget_bytes, source.read_ahead, stopped)
    finally:
        stopped.set()


def _read_ahead(
    read: Callable[[ImageEntry], Reading],
    entries: Iterable[ImageEntry],
    cost: Callable[[ImageEntry], int],
    budget_bytes: int,
    threads: int,
    stopped: threading.Event,
) -> Iterator[Reading]:
    """What read gives for each entry, in order, with so many threads ahead of the caller."""
    jobs: SimpleQueue[_Job | None] = SimpleQueue()
    pending: deque[tuple[int, Future[Reading]]] = deque()
    upcoming = iter(entries)
    entry = next(upcoming, None)
    used = started = 0
    try:
        while entry is not None or pending:
            while entry is not None and len(pending) < 2 * threads:
                if pending and used + cost(entry) > budget_bytes:
                    break
                job = entry, Future[Reading]()
                used += cost(entry)
                pending.append((cost(entry), job[1]))
                jobs.put(job)
                if started < threads:
                    # Daemons: a read that hangs must not keep the process from ending.
                    threading.Thread(
                        target=_work, args=(read, jobs, stopped), name="read-ahead", daemon=True
                    ).start()
                    started += 1
                entry = next(upcoming, None)
            size, future = pending[0]
            yield future.result()
            # Counted until the caller comes back for more: until then it holds these bytes.
            pending.popleft()
            used -= size
    finally:
        for _ in range(started):
            jobs.put(None)


def _work(
    read: Callable[[ImageEntry], Reading], jobs: SimpleQueue[_Job | None], stopped: threading.Event
) -> None:
    while (job := jobs.get()) is not None and not stopped.is_set():
        entry, future = job
        try:
            future.set_result(read(entry))
        except BaseException as error:
            future.set_exception(error)  # The caller's thread raises it, in the entry's turn.


def _read_entry(
    source: Source, entry: ImageEntry, max_file_bytes: int, stopped: threading.Event
) -> Reading:
    """One entry with its bytes or its failure."""
    if entry.failure is not None:
        return entry, entry.failure
    if entry.size_bytes == 0:
        return entry, Failure("empty", "the file has no bytes")
    try:
        if not _named_as_picture(entry.key):
            start = with_retries(lambda: source.read_start(entry.key, SIGNATURE_BYTES), stopped)
            if not looks_like_image(start):
                message = f"begins with {start[:8]!r} and is not named as a picture"
                return entry, Failure("not_an_image", message)
        if entry.size_bytes is not None and entry.size_bytes > max_file_bytes:
            return entry, _too_large(entry.size_bytes, max_file_bytes)
        content = with_retries(lambda: source.read(entry.key), stopped)
    except SourceMissingError:
        return entry, Failure("unreadable", "it has vanished since it was listed")
    except SourceError as error:
        return entry, Failure("unreadable", str(error))
    entry = replace(entry, version=content.version, size_bytes=len(content.data))
    if not content.data:
        return entry, Failure("empty", "the file has no bytes")
    if len(content.data) > max_file_bytes:
        return entry, _too_large(len(content.data), max_file_bytes)
    return entry, content.data


def _named_as_picture(key: str) -> bool:
    return key.rpartition(".")[2].lower() in PICTURE_EXTENSIONS


def _too_large(size_bytes: int, max_file_bytes: int) -> Failure:
    return Failure(
        "too_large",
        f"{size_bytes / 2**20:.1f} MiB, more than the limit of {max_file_bytes / 2**20:.1f} MiB",
    )
