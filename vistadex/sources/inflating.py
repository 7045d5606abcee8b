"""What a gzip file holds, read from anywhere: decompressors are kept at points on the way.

A read goes on from the nearest of them that lies before, so reading in order unpacks once.
"""

from __future__ import annotations

import threading
import zlib
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vistadex.sources.retrying import with_retries
from vistadex.sources.stored import Broken, SeekableFile, Stored

if TYPE_CHECKING:
    from zlib import _Decompress

START = b"\x1f\x8b"
FIRST_SPACING = 1 << 20
MOST_POINTS = 384
"""Each is a decompressor of some 40 KiB; where there are more, every second is dropped."""
MOST_IDLE = 4
INPUT_BYTES = 16 << 10
"""What a decompressor is given at a time; its copies may hold that much more each."""
OUTPUT_BYTES = 256 << 10
SALVAGE_BYTES = 256
FIRST_READ = 64 << 10
LARGEST_READ = 1 << 20
_GZIP = 31
"""Window bits for zlib that stand for a gzip header and trailer, whose CRC is then compared."""


@dataclass(frozen=True, slots=True)
class _Point:
    """A state from which unpacking can go on."""

    position: int
    fed: int
    inflater: _Decompress


class Inflated:
    """The unpacked bytes of a gzip file; safe in threads."""

    def __init__(self, stored: Stored) -> None:
        self.place = stored.place
        self.version = stored.version
        self.size = stored.size
        """Of the file that is packed; what it unpacks to is not known."""
        self._stored = stored
        self._lock = threading.Lock()
        self._idle: list[_Cursor] = []
        self._points: list[_Point] = []
        self._spacing = FIRST_SPACING

    def file(self) -> SeekableFile:
        """All bytes, to be read from anywhere."""
        return SeekableFile(self.read, local=False, retries=False)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from start up to stop; fewer where they end before, or can't be unpacked.

        Raises: SourceError; Broken where not one of them can be unpacked.
        """
        cursor = self._take(start)
        pieces: list[bytes] = []
        while cursor.position < stop:
            at = cursor.position
            try:
                piece = cursor.step(min(OUTPUT_BYTES, (start if at < start else stop) - at))
            except Broken:
                if not pieces:
                    raise
                return b"".join(pieces)
            if not piece:
                break
            if at >= start:
                pieces.append(piece)
            elif cursor.position > start:  # what is salvaged may be more than was asked for
                pieces.append(piece[start - at :])
            self._remember(cursor)
        self._give_back(cursor)
        return b"".join(pieces)[: stop - start]

    def check_end(self) -> None:
        """Unpacks what is left after the last read.

        Raises: SourceError; Broken where it breaks off or a checksum differs.
        """
        with self._lock:
            cursor = max(self._idle, key=lambda one: one.position, default=None)
        position = cursor.position if cursor else 0
        while piece := self.read(position, position + (1 << 20)):
            position += len(piece)

    def _take(self, start: int) -> _Cursor:
        """A cursor at or before a position, that nothing else uses."""
        with self._lock:
            best = max(
                (one for one in self._idle if one.position <= start),
                key=lambda one: one.position,
                default=None,
            )
            number = bisect_right(self._points, start, key=lambda one: one.position)
            point = self._points[number - 1] if number else None
            if point is not None and (best is None or point.position > best.position):
                return _Cursor(self._stored, point)
            if best is not None:
                self._idle.remove(best)
                return best
        return _Cursor(self._stored)

    def _give_back(self, cursor: _Cursor) -> None:
        with self._lock:
            self._idle.append(cursor)
            del self._idle[:-MOST_IDLE]

    def _remember(self, cursor: _Cursor) -> None:
        """Makes a point of where a cursor is, if it is far enough from the last one."""
        with self._lock:
            last = self._points[-1].position if self._points else 0
            if cursor.position < last + self._spacing or (point := cursor.point()) is None:
                return
            self._points.append(point)
            if len(self._points) > MOST_POINTS:
                del self._points[::2]
                self._spacing *= 2


class _Cursor:
    """A decompressor at some position of a gzip file."""

    def __init__(self, stored: Stored, point: _Point | None = None) -> None:
        self.position = point.position if point else 0
        self._stored = stored
        self._fed = point.fed if point else 0
        self._inflater = point.inflater.copy() if point else zlib.decompressobj(_GZIP)
        self._input = b""
        self._block = b""
        self._block_at = 0
        self._full = False
        """Whether the decompressor may still hold bytes that it was not asked for."""
        self._at_start = point is None
        self._ended = False
        self._broken: Broken | None = None

    def point(self) -> _Point | None:
        """Where it is, if another can go on from there."""
        if self._ended or self._at_start or self._broken is not None:
            return None
        return _Point(self.position, self._fed - len(self._input), self._inflater.copy())

    def step(self, most: int) -> bytes:
        """Some of the next bytes; none at the end.

        Raises: SourceError; Broken.
        """
        data = b""
        while not data and not self._ended:
            if self._broken is not None:
                raise self._broken
            if self._full or self._input or self._feed():
                data = self._inflate(most)
        self.position += len(data)
        return data

    def _feed(self) -> bool:
        """Reads on in the file; whether there is anything to unpack."""
        if not self._block_at <= self._fed < self._block_at + len(self._block):
            length = min(max(FIRST_READ, 2 * len(self._block)), LARGEST_READ)
            self._block_at = self._fed
            stop = self._fed + length
            self._block = with_retries(lambda: self._stored.read(self._block_at, stop))
        at = self._fed - self._block_at
        self._input = self._block[at : at + INPUT_BYTES]
        self._fed += len(self._input)
        if self._at_start and self.position:  # what fills up a tape, or is of no interest
            self._input = self._input.lstrip(b"\0")
            self._ended = bool(self._input) and not START.startswith(self._input[:2])
        if self._fed >= self._stored.size and not self._input:
            if not self._at_start:
                raise Broken("the gzip data breaks off", self._fed)
            self._ended = True
        return bool(self._input) and not self._ended

    def _inflate(self, most: int) -> bytes:
        before = self._inflater.copy()
        try:
            data = self._inflater.decompress(self._input, most)
        except zlib.error as error:
            return self._salvage(before, error)
        self._at_start = False
        if self._inflater.eof:
            self._fed -= len(self._inflater.unused_data)
            self._input, self._full, self._at_start = b"", False, True
            self._inflater = zlib.decompressobj(_GZIP)
        else:
            self._input = self._inflater.unconsumed_tail
            self._full = len(data) == most
        return data

    def _salvage(self, inflater: _Decompress, error: zlib.error) -> bytes:
        """What can be unpacked before damaged data: in small pieces, and at last byte by byte."""
        data = bytearray()
        done = 0
        for length in (SALVAGE_BYTES, 1):
            with suppress(zlib.error):
                while done < len(self._input):
                    before = inflater.copy()
                    data += inflater.decompress(self._input[done : done + length])
                    done += length
            inflater = before
        why = str(error).rpartition(": ")[2]
        at = self._fed - len(self._input) + done
        self._broken = Broken(f"the gzip data is damaged: {why}", at, damaged=True)
        return bytes(data)
