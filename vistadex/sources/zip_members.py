"""The members of a zip archive: its table of contents in flat memory, and single members by range.

Source: PKWARE APPNOTE 6.3.10; Info-ZIP's extra field 0x7075.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import replace
from struct import Struct, unpack_from
from typing import Protocol

from vistadex.errors import SourceError, SourceUnavailableError
from vistadex.sources.contract import CHUNK_BYTES
from vistadex.sources.listing import Draft, Member, link_target
from vistadex.sources.retrying import with_retries
from vistadex.sources.stored import Broken, SeekableFile, Stored

STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
SLACK_BYTES = 64
"""How much longer a member's extra fields may be in its own header than in the table."""

_ENTRY = Struct("<4x2BHHH4xLLLHHHHHLL")
_LOCAL_BYTES = 30
_END_BYTES = 22
_LOCATOR_BYTES = 20
_MOST_COMMENT = 0xFFFF
_ENCRYPTED = 0x2041
"""Flag bits: encrypted, strongly encrypted, names masked."""
_UTF8 = 0x800
_DOS, _UNIX, _NTFS, _MACOS = 0, 3, 10, 19
_LINK_MODE, _MODE_MASK = 0o120000, 0o170000
_LONGEST_LINK = 4096
_METHODS = {0: "", 8: "deflate", 12: "bz2", 14: "lzma"}
_OTHER_METHODS = {1: "Shrink", 6: "Implode", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd"}
_UNSUPPORTED = "expected stored, Deflate, BZip2 or LZMA; unpack it, or pack it anew"


class Unpacker(Protocol):
    """A decompressor of the standard library."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class ZipMembers:
    """What is in a zip file."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored

    def list(self, draft: Draft) -> None:
        """Enters all members.

        Raises: SourceError where there is no table of contents; Broken where it is damaged.
        """
        file = self._stored.file()
        start, stop, shift = self._table()
        file.seek(start)
        while file.tell() < stop:
            at = file.tell()
            head = file.read(_ENTRY.size)
            if len(head) < _ENTRY.size or head[:4] != b"PK\x01\x02":
                raise Broken("its table of contents is damaged", at)
            self._enter(draft, head, file, shift)

    def read(self, member: Member) -> bytes:
        """All bytes of a member.

        Raises: SourceError.
        """
        return b"".join(self.chunks(member))

    def read_range(self, member: Member, start: int, stop: int) -> bytes:
        """Some bytes of a member; what is packed is unpacked up to there.

        Raises: SourceError.
        """
        if not member.method:
            data, _ = self._data(member)
            return self._stored.read(data + start, data + min(stop, member.size_bytes))
        found = bytearray()
        for chunk in self.chunks(member, step=max(4096, 2 * stop)):
            found += chunk
            if len(found) >= stop:
                break
        return bytes(found[start:stop])

    def chunks(self, member: Member, step: int = CHUNK_BYTES) -> Iterator[bytes]:
        """A member's bytes in order, its checksum compared at their end.

        Args:
            step: how many packed bytes are read at a time.
        Raises: SourceError, also after some pieces.
        """
        crc = length = 0
        try:
            for chunk in self._unpacked(member, step):
                crc, length = zlib.crc32(chunk, crc), length + len(chunk)
                if length > member.size_bytes:
                    break
                yield chunk
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            raise self._damaged(member, str(error)) from error
        if length != member.size_bytes:
            what = "more" if length > member.size_bytes else f"{length:,} bytes"
            raise self._damaged(member, f"{what}, expected {member.size_bytes:,}")
        if crc != member.checksum:
            raise self._damaged(member, "its CRC differs")

    def _unpacked(self, member: Member, step: int) -> Iterator[bytes]:
        packed = self._packed(member, step)
        if not member.method:
            yield from packed
            return
        unpacker: Unpacker | None = None
        for piece in packed:
            if unpacker is None:
                unpacker, piece = _unpacker(member.method, piece)
            # One byte more than there may be shows that there are too many.
            limit = min(member.size_bytes + 1, CHUNK_BYTES)
            while chunk := unpacker.decompress(piece, limit):
                yield chunk
                piece = getattr(unpacker, "unconsumed_tail", b"")
                if getattr(unpacker, "eof", False):
                    return

    def _packed(self, member: Member, step: int) -> Iterator[bytes]:
        """A member's bytes as they are packed; a small one takes one read."""
        first = min(member.packed_bytes, step)
        data, block = self._data(member, first)
        stop = data + member.packed_bytes
        while block:
            yield block
            data += len(block)
            block = self._stored.read(data, min(stop, data + step))

    def _data(self, member: Member, more: int = 0) -> tuple[int, bytes]:
        """Where a member's bytes begin, and so many of them."""
        ask = member.lead_bytes + more
        block = self._stored.read(member.offset, member.offset + ask)
        if len(block) < _LOCAL_BYTES or block[:4] != b"PK\x03\x04":
            raise self._damaged(member, "its header is not there")
        name_bytes, extra_bytes = unpack_from("<HH", block, 26)
        lead = _LOCAL_BYTES + name_bytes + extra_bytes
        data = member.offset + lead
        have = block[lead : lead + more]
        if len(have) < more:
            have += self._stored.read(data + len(have), data + more)
        return data, have

    def _damaged(self, member: Member, why: str) -> SourceError:
        place = f"{self._stored.place}/{member.key}"
        return SourceError(f"{place}: the member is damaged: {why}; fetch the archive again")

    def _table(self) -> tuple[int, int, int]:
        """Where the table of contents begins and ends, and how much lies before the archive.

        Raises: SourceError where there is none.
        """
        stored = self._stored
        tail, at = with_retries(lambda: _end(stored))
        if at < 0:
            raise SourceError(
                f"{stored.place}: has no table of contents, expected one at its end; it breaks off "
                f"at byte {stored.size:,}: fetch it again, or rescue what is there (zip -FF)"
            )
        end = stored.size - len(tail) + at
        disk, disks, _, _, size, start = unpack_from("<HHHHLL", tail, at + 4)
        locator = tail[max(0, at - _LOCATOR_BYTES) : at]
        if locator.startswith(b"PK\x06\x07"):
            end, size, start = self._table64(locator, end)
        elif disk or disks:
            what = "one of several disks, expected a whole archive"
            raise SourceError(f"{stored.place}: is {what}; join the disks (zip -s 0)")
        shift = end - size - start
        if shift < 0:
            where = f"begins at byte {start:,}, and there are {stored.size:,} bytes"
            raise SourceError(
                f"{stored.place}: its table of contents {where}; bytes are missing before it: "
                "fetch it again, or rescue what is there (zip -FF)"
            )
        return end - size, end, shift

    def _table64(self, locator: bytes, end: int) -> tuple[int, int, int]:
        """End, size and start of the table of contents of a large archive."""
        (at,) = unpack_from("<Q", locator, 8)
        # What lies before the archive moves this record too; then it ends at its locator.
        for place in (at, end - _LOCATOR_BYTES - 56):
            file = self._stored.file()
            file.seek(place)
            record = file.read(56)
            if record[:4] == b"PK\x06\x06" and len(record) == 56:
                size, start = unpack_from("<QQ", record, 40)
                return place, size, start
        what = "its table of contents is damaged, expected that of a zip64 archive"
        raise SourceError(f"{self._stored.place}: {what}; fetch it again")

    def _enter(self, draft: Draft, head: bytes, file: SeekableFile, shift: int) -> None:
        """Reads what belongs to one record of the table, and enters its member."""
        _, system, _, flags, method, crc, packed, size, *rest = _ENTRY.unpack(head)
        name_bytes, extra_bytes, comment_bytes, _, _, mode, offset = rest
        name = file.read(name_bytes)
        extra = _fields(file.read(extra_bytes))
        file.seek(comment_bytes, 1)
        size, packed, offset = _large(extra.get(1, b""), size, packed, offset)
        key, reason, message = _name(name, flags, system, extra.get(0x7075, b""))
        if not key or key.endswith("/"):
            return
        if flags & _ENCRYPTED:
            reason, message = "unreadable", "it is encrypted; unpack it with its password"
        elif method not in _METHODS and not reason:
            how = _OTHER_METHODS.get(method, f"method {method}")
            reason, message = "unsupported", f"packed with {how}, {_UNSUPPORTED}"
        lead = _LOCAL_BYTES + name_bytes + extra_bytes + SLACK_BYTES
        version, packing = f"{crc:08x}-{size}", _METHODS.get(method, str(method))
        member = Member(
            key, version, size, offset + shift, lead, packed, packing, crc, reason, message
        )
        if system == _UNIX and (mode >> 16) & _MODE_MASK == _LINK_MODE and not reason:
            self._enter_link(draft, member)
        else:
            draft.add(member)

    def _enter_link(self, draft: Draft, member: Member) -> None:
        """A symbolic link, whose bytes are the name to which it leads."""
        try:
            read = with_retries(lambda: self.read(member)) if _fits(member) else b"?"
        except SourceUnavailableError:
            raise
        except SourceError as error:
            why = f"a link that can't be read: {error}"
            draft.add(replace(member, reason="unreadable", message=why))
            return
        draft.add_link(member.key, link_target(member.key, read.decode("utf-8", "replace")))


def has_table(stored: Stored) -> bool:
    """Whether a file ends as a zip archive does."""
    return _end(stored)[1] >= 0


def _end(stored: Stored) -> tuple[bytes, int]:
    """The last bytes of an archive, and where in them the last record begins; -1: nowhere."""
    tail, at = b"", -1
    for most in (_END_BYTES, _END_BYTES + _MOST_COMMENT):
        tail = stored.read(max(0, stored.size - most - _LOCATOR_BYTES), stored.size)
        at = tail.rfind(b"PK\x05\x06", 0, max(0, len(tail) - _END_BYTES + 4))
        if at >= 0:
            break
    return tail, at


def _fits(member: Member) -> bool:
    return 0 < member.size_bytes <= _LONGEST_LINK and member.packed_bytes <= _LONGEST_LINK


def _unpacker(method: str, start: bytes) -> tuple[Unpacker, bytes]:
    """A decompressor, and what it is to be given of a member's first bytes."""
    if method == "deflate":
        return zlib.decompressobj(-15), start
    if method == "bz2":
        return bz2.BZ2Decompressor(), start
    # Two bytes of version, two of length, and then the properties as in a .lzma file.
    if len(start) < 9:
        raise EOFError("it breaks off")
    first, dictionary = unpack_from("<BL", start, 4)
    rest, lc = divmod(first, 9)
    pb, lp = divmod(rest, 5)
    options = {"id": lzma.FILTER_LZMA1, "dict_size": dictionary, "lc": lc, "lp": lp, "pb": pb}
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[options]), start[9:]


def _fields(extra: bytes) -> dict[int, bytes]:
    """Extra fields by their number; what breaks off is left out."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        number, length = unpack_from("<HH", extra, at)
        found.setdefault(number, extra[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def _large(field: bytes, *values: int) -> tuple[int, ...]:
    """Sizes and offset, those that do not fit 32 bits taken from the field of zip64."""
    found: list[int] = []
    for value in values:
        if value == 0xFFFFFFFF and len(field) >= 8:
            value, field = unpack_from("<Q", field)[0], field[8:]
        found.append(value)
    return tuple(found)


def _name(raw: bytes, flags: int, system: int, unicode_path: bytes) -> tuple[str, str, str]:
    """A member's key, and reason and message where its name is no text."""
    reason = message = ""
    raw = raw.partition(b"\0")[0]
    if len(unicode_path) > 5 and unpack_from("<L", unicode_path, 1)[0] == zlib.crc32(raw):
        raw, flags = unicode_path[5:], _UTF8
    try:
        # Unix and macOS write UTF-8 without saying so; by chance cp437 is almost never UTF-8.
        name = raw.decode("utf-8" if flags & _UTF8 or system in (_UNIX, _MACOS) else "cp437")
    except UnicodeDecodeError:
        name = raw.decode("cp437")
        if flags & _UTF8:
            name = raw.decode("utf-8", "backslashreplace")
            reason, message = "bad_name", "the name is not UTF-8; rename it and pack anew"
    if system in (_DOS, _NTFS):
        name = name.replace("\\", "/")
    while name.startswith("./"):
        name = name[2:]
    return name, reason, message
