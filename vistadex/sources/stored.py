"""The bytes of an archive at its source: one version of them, and a file to seek and read in."""

from __future__ import annotations

import io
from collections.abc import Callable

from vistadex.errors import SourceError
from vistadex.sources.contract import Source
from vistadex.sources.retrying import with_retries

LARGEST_BLOCK = 1 << 20
LOCAL_BLOCK = 4 << 10
REMOTE_BLOCK = 64 << 10
LOCAL_GAP = 16 << 10
REMOTE_GAP = 1 << 20
"""Fewer bytes than this are read through and not jumped over: a request costs more than they."""


class Broken(Exception):
    """An archive can't be read further than this; the message says why."""

    def __init__(self, why: str, at: int, *, damaged: bool = False) -> None:
        super().__init__(why)
        self.at = at
        """The byte of the archive where it ends or is damaged."""
        self.damaged = damaged
        """Whether what lies before may be damaged too, without being noticed."""


class Stored:
    """One version of the file that an archive is; safe in threads."""

    def __init__(self, source: Source, key: str, place: str, *, local: bool) -> None:
        """Asks the source which version is there.

        Raises: SourceError where there is none, or its size can't be told.
        """
        entry = source.stat(key)
        if entry.size_bytes is None:
            what = "the server does not say how long it is, expected a length"
            raise SourceError(f"{place}: {what}; fetch the archive and give its path")
        self.place = place
        self.size = entry.size_bytes
        self.version = entry.version or str(entry.size_bytes)
        self.known = bool(entry.version)
        """Whether the version is more than its size, and another run may rely on it."""
        self.local = local
        self._source = source
        self._key = key

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from start up to stop; fewer where the file ends before.

        Raises: SourceError.
        """
        stop = min(stop, self.size)
        return self._source.read_range(self._key, start, stop) if start < stop else b""

    def file(self) -> SeekableFile:
        """All of it, to be read from anywhere."""
        return SeekableFile(self.read, local=self.local)

    def check_end(self) -> None:
        """Nothing: a file has no checksum at its end."""


class SeekableFile(io.RawIOBase):
    """A file over a function that reads ranges, with a block of it in memory, and retries.

    Blocks grow while they are read one after the other.
    """

    def __init__(
        self, read: Callable[[int, int], bytes], *, local: bool, retries: bool = True
    ) -> None:
        self.largest_read: int | None = None
        """A read of more bytes can only come from damaged bytes."""
        self._ranges = read
        self._retries = retries
        self._first = LOCAL_BLOCK if local else REMOTE_BLOCK
        self._gap = LOCAL_GAP if local else REMOTE_GAP
        self._length = self._first
        self._position = 0
        self._start = 0
        self._block = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end is not known")
        self._position = offset + (self._position if whence == io.SEEK_CUR else 0)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """So many bytes; fewer only at the file's end."""
        if size < 0:
            raise io.UnsupportedOperation("the end is not known")
        if self.largest_read is not None and size > self.largest_read:
            raise Broken(f"a header of {size:,} bytes", self._position)
        pieces = []
        while size > 0 and (piece := self._piece(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _piece(self, size: int) -> bytes:
        """Some bytes of the block in memory, or of the next; none at the end."""
        at = self._position - self._start
        if not 0 <= at < len(self._block):
            self._load()
            at = 0
        piece = self._block[at : at + size]
        self._position += len(piece)
        return piece

    def _load(self) -> None:
        start, end = self._position, self._start + len(self._block)
        near = 0 <= start - end <= self._gap and self._block
        self._length = min(2 * self._length, LARGEST_BLOCK) if near else self._first
        stop = start + self._length
        self._block = (
            with_retries(lambda: self._ranges(start, stop))
            if self._retries
            else self._ranges(start, stop)
        )
        self._start = start
