"""The members of a tar archive, packed or not: one pass over its headers, and reads by offset."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Protocol, cast

from vistadex.errors import SourceError
from vistadex.sources.contract import CHUNK_BYTES
from vistadex.sources.listing import Draft, Member, link_target
from vistadex.sources.stored import Broken, SeekableFile

BLOCK = tarfile.BLOCKSIZE
SPARSE = "sparse"
_DAMAGE = (tarfile.TarError, ValueError, OverflowError, RecursionError)
"""What tarfile raises for headers that are none."""
LARGEST_HEADER = 8 << 20
"""Longer names and attributes are none."""


class Ranges(Protocol):
    """The bytes of a tar archive: those of a file, or what is packed in one."""

    place: str
    version: str
    size: int
    """Of the archive as it is stored."""

    def read(self, start: int, stop: int) -> bytes:
        """Some bytes; fewer where they end before. Raises: SourceError, Broken."""
        ...

    def file(self) -> SeekableFile:
        """All of them."""
        ...

    def check_end(self) -> None:
        """Reads what follows the last member. Raises: SourceError; Broken where it is damaged."""
        ...


class TarMembers:
    """What is in a tar archive."""

    def __init__(self, ranges: Ranges) -> None:
        self._ranges = ranges

    def list(self, draft: Draft) -> None:
        """Enters all members.

        Raises: SourceError where it is no tar archive; Broken where it breaks off or is damaged,
            with all that lies before entered.
        """
        headers = _Headers(self._ranges)
        while (header := headers.next()) is not None:
            try:
                headers.check_data(header)
            except Broken:
                self._enter(draft, header, "the archive breaks off in it")
                raise
            self._enter(draft, header, "")
        self._ranges.check_end()

    def read(self, member: Member) -> bytes:
        """All bytes of a member.

        Raises: SourceError.
        """
        if member.method == SPARSE:
            return self._filled(member)
        block = self._ranges.read(
            member.offset, member.offset + member.lead_bytes + member.size_bytes
        )
        if zlib.crc32(block[: member.lead_bytes]) != member.checksum:
            raise self._damaged(member, "its header is not there")
        return self._complete(member, block[member.lead_bytes :], member.size_bytes)

    def read_range(self, member: Member, start: int, stop: int) -> bytes:
        """Some bytes of a member.

        Raises: SourceError.
        """
        if member.method == SPARSE:
            return self._filled(member)[start:stop]
        stop = min(stop, member.size_bytes)
        data = member.offset + member.lead_bytes
        block = self._ranges.read(data + start, data + stop)
        return self._complete(member, block, max(0, stop - start))

    def chunks(self, member: Member) -> Iterator[bytes]:
        """A member's bytes in order.

        Raises: SourceError, also after some pieces.
        """
        if member.size_bytes <= CHUNK_BYTES or member.method == SPARSE:
            yield self.read(member)
            return
        for start in range(0, member.size_bytes, CHUNK_BYTES):
            yield self.read_range(member, start, start + CHUNK_BYTES)

    def _enter(self, draft: Draft, header: _Header, cut_off: str) -> None:
        key, reason, message = _key(header.name)
        if not key:
            return
        if header.issym():
            draft.add_link(key, link_target(key, _key(header.linkname)[0]))
        elif header.islnk():
            draft.add_link(key, _key(header.linkname)[0])
        elif header.isreg():
            if cut_off:
                reason, message = "unreadable", cut_off
            method, lead, offset = "", BLOCK, header.offset_data - BLOCK
            if header.issparse():
                method, lead, offset = SPARSE, 0, header.offset
            # Tools that pack without times leave nothing else to know a change by.
            when = f"{header.mtime:.9f}".rstrip("0").rstrip(".")
            when = f"0-{self._ranges.version}" if when == "0" else when
            version, size = f"{header.size}-{when}", header.size
            draft.add(
                Member(
                    key, version, size, offset, lead, size, method, header.checksum, reason, message
                )
            )

    def _filled(self, member: Member) -> bytes:
        """All bytes of a file of which the archive left out the empty parts."""
        file = self._ranges.file()
        file.seek(member.offset)
        try:
            with _opened(file) as tar:
                info = tar.next()
                if info is None or not info.isreg() or info.size != member.size_bytes:
                    raise self._damaged(member, "its header is not there")
                opened = tar.extractfile(info)
                assert opened is not None
                return self._complete(member, opened.read(), member.size_bytes)
        except _DAMAGE as error:
            raise self._damaged(member, str(error)) from error

    def _complete(self, member: Member, block: bytes, expected: int) -> bytes:
        if len(block) != expected:
            raise self._damaged(member, f"{len(block):,} bytes, expected {expected:,}")
        return block

    def _damaged(self, member: Member, why: str) -> SourceError:
        place = f"{self._ranges.place}/{member.key}"
        return SourceError(f"{place}: the member is damaged: {why}; fetch the archive again")


class _Header(tarfile.TarInfo):
    """A header with its own checksum."""

    checksum: int

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        made = super().frombuf(buf, encoding, errors)
        made.checksum = zlib.crc32(buf)
        return made


class _Headers:
    """The headers of a tar archive, one by one."""

    def __init__(self, ranges: Ranges) -> None:
        self._ranges = ranges
        self._file = ranges.file()
        self._file.largest_read = LARGEST_HEADER
        self._tar: tarfile.TarFile | None = None
        self._next = 0
        """Where the next header begins."""

    def next(self) -> _Header | None:
        """The next header, or None at the end.

        Raises: SourceError where there was never one; Broken where there should be one.
        """
        try:
            if self._tar is None:
                self._tar = _opened(self._file)
            header = self._tar.next()
        except _DAMAGE as error:
            if self._tar is None:
                what = f"is no tar archive ({error}), expected one"
                raise SourceError(f"{self._ranges.place}: {what}; check the file") from error
            raise Broken(f"a header is damaged: {error}", self._next, damaged=True) from error
        self._tar.members.clear()  # type: ignore[attr-defined]
        following: int = self._tar.offset
        if header is None:
            self._check_end(following)
        elif following <= self._next or header.size < 0:
            raise Broken("a header is damaged: it leads back", self._next, damaged=True)
        self._next = following
        return cast("_Header | None", header)

    def check_data(self, header: _Header) -> None:
        """Raises: Broken unless all bytes that belong to a header are there."""
        if header.isreg() and header.size:
            last = self._next if header.issparse() else header.offset_data + header.size
            self._file.seek(last - 1)
            if not self._file.read(1):
                raise Broken("its last file is cut off", self._ranges.size)

    def _check_end(self, at: int) -> None:
        """Raises: Broken unless there is the block of zeros that ends an archive."""
        self._file.seek(at)
        block = self._file.read(BLOCK)
        if len(block) < BLOCK:
            raise Broken("its end is missing", self._ranges.size)
        if any(block):
            raise Broken("a header is damaged", at, damaged=True)


def _opened(file: SeekableFile) -> tarfile.TarFile:
    return tarfile.TarFile(
        "archive",
        "r",
        cast(IO[bytes], file),
        tarinfo=_Header,
        encoding="utf-8",
        errors="surrogateescape",
    )


def _key(name: str) -> tuple[str, str, str]:
    """A member's key, and reason and message where its name is no text."""
    while name.startswith("./"):
        name = name[2:]
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return shown, "bad_name", "the name is not UTF-8; rename it and pack anew"
    return name, "", ""
