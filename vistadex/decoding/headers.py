"""What a file says of its picture before the pixels: size, orientation, and who reads it right."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from vistadex.decoding.orientation import (
    ORIENTATION,
    XMP,
    TiffField,
    exif_orientation,
    tiff_fields,
    tiff_numbers,
    xmp_orientation,
)
from vistadex.errors import DecodingError

MAX_TEXT_BYTES = 1 << 20
"""Of a compressed text in a PNG, where XMP and EXIF may stand."""
_ALL_TEXT_BYTES = 4 << 20
"""Of all of them in one PNG; what stands behind them counts as not there."""
MOST_INFLATED = 1032
"""Bytes that deflate can make of one."""


class Header(NamedTuple):
    width: int
    """As stored, not as seen."""
    height: int
    orientation: int = 1
    """EXIF's 1 to 8: how the stored picture must be turned."""
    end: int = 0
    """Bytes that the file must have at least; 0 where its header does not say."""
    plain: bool = False
    """Whether it is of a kind that OpenCV reads right."""
    certain: bool = True
    """False where bytes that may state another orientation are missing."""


def read_png(data: bytes) -> Header:
    """A PNG's header and what its chunks say of orientation, eXIf before older forms before XMP."""
    name, width, height, _, color = struct.unpack_from(">4sIIBB", data, 12)
    if name != b"IHDR":
        raise DecodingError("corrupt", f"PNG: its first chunk is {name!r}, expected IHDR")
    plain, stated = color in (0, 2, 3), {b"eXIf": 0, b"exif": 0, b"xmp": 0}
    at, length, kind, inflating = 8, 0, b"", _Inflating()
    while kind != b"IEND" and at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind in _PNG_NOT_PLAIN:
            plain = False
        elif kind in _PNG_TEXTS:
            form, value = _png_text(kind, data[at + 8 : at + 8 + length], inflating)
            stated[form] = stated.get(form) or value
        elif kind == b"eXIf":
            stated[kind] = exif_orientation(data[at + 8 : at + 8 + length])
        at += 12 + length
    whole = kind == b"IEND"
    orientation = stated[b"eXIf"] or stated[b"exif"] or stated[b"xmp"] or 1
    end = 0 if whole or b"IEND" in data[-64:] else max(at, len(data) + 1)
    return Header(width, height, orientation, end, plain, whole)


_PNG_NOT_PLAIN = frozenset({b"tRNS", b"acTL", b"iCCP"})
"""Transparency and animations are Pillow's; libpng complains on stderr of many color profiles."""
_PNG_TEXTS = frozenset({b"iTXt", b"zTXt", b"tEXt"})


class _Inflating:
    """Inflates the texts of one picture, as long as bytes are left for them."""

    left = _ALL_TEXT_BYTES

    def inflated(self, data: bytes) -> bytes:
        if self.left <= 0:
            return b""
        try:
            text = zlib.decompressobj().decompress(data, MAX_TEXT_BYTES)
        except zlib.error:
            self.left -= min(MAX_TEXT_BYTES, MOST_INFLATED * len(data))
            return b""
        self.left -= len(text)
        return text


def _png_text(kind: bytes, body: bytes, inflating: _Inflating) -> tuple[bytes, int]:
    """In which form a text chunk states an orientation, and which; (b"", 0) for other texts."""
    keyword, _, text = body.partition(b"\0")
    if keyword == b"XML:com.adobe.xmp" and kind == b"iTXt":
        packet = text[2:].split(b"\0", 2)[-1]
        return b"xmp", xmp_orientation(inflating.inflated(packet) if text[:1] == b"\1" else packet)
    if keyword in (b"Raw profile type exif", b"Raw profile type APP1") and kind != b"iTXt":
        lines = (inflating.inflated(text[1:]) if kind == b"zTXt" else text).split(b"\n")
        try:
            return b"exif", exif_orientation(bytes.fromhex(b"".join(lines[3:]).decode("ascii")))
        except ValueError:
            pass
    return b"", 0


def read_webp(data: bytes) -> Header:
    """A WebP's first chunk, and its EXIF and XMP where it says that it has them."""
    end, kind = 8 + int.from_bytes(data[4:8], "little"), data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header(width & 0x3FFF, height & 0x3FFF, 1, end, plain=True)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        transparent = bits >> 28 & 1
        return Header((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 1, end, plain=not transparent)
    if kind != b"VP8X":
        reason = "corrupt" if len(kind) == 4 else "truncated"
        raise DecodingError(reason, f"WebP: begins with {kind!r}, expected VP8, VP8L or VP8X")
    flags, sides = struct.unpack_from("<Bxxx6s", data, 20)
    width, height = (int.from_bytes(side, "little") + 1 for side in (sides[:3], sides[3:]))
    stated, certain = _webp_orientation(data, end) if flags & 0x0C else (1, True)
    return Header(width, height, stated, end, not flags & 0x12, certain)


def _webp_orientation(data: bytes, end: int) -> tuple[int, bool]:
    exif = xmp = 0
    flags, at = data[20], 30
    while at + 8 <= min(end, len(data)):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF" and flags & 0x08:
            exif = exif or exif_orientation(data[at + 8 : at + 8 + length])
        elif kind == b"XMP " and flags & 0x04:
            xmp = xmp or xmp_orientation(data[at + 8 : at + 8 + length])
        at += 8 + length + (length & 1)
    return exif or xmp or 1, min(at, end) <= len(data)


def read_gif(data: bytes) -> Header:
    """A GIF's canvas, as large as its first frame needs."""
    width, height = struct.unpack_from("<HH", data, 6)
    at = 13 + (6 << (data[10] & 7) if data[10] & 0x80 else 0)
    while data[at] != 0x2C:
        if data[at] == 0x3B:
            raise DecodingError("corrupt", "GIF: ends before its first frame")
        at = gif_extension_end(data, at) if data[at] == 0x21 else at + 1
    left, top, columns, rows = struct.unpack_from("<HHHH", data, at + 1)
    return Header(max(width, left + columns), max(height, top + rows))


def gif_extension_end(data: bytes, at: int) -> int:
    """The place behind the extension block that begins at a place."""
    at += 2
    while data[at]:
        at += data[at] + 1
    return at + 1


def read_bmp(data: bytes) -> Header:
    """A BMP's header, of every version."""
    offset, size = struct.unpack_from("<II", data, 10)
    if size == 12:
        width, height, bits = struct.unpack_from("<HHxxH", data, 18)
        compression = 0
    else:
        width, height, bits, compression = struct.unpack_from("<iixxHI", data, 18)
    height = abs(height)
    stored = (width * bits + 31) // 32 * 4 * height
    end = offset + stored if compression == 0 else 0
    return Header(width, height, 1, end, plain=bits == 24 and compression == 0 and width > 0)


_PPM_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PPM = re.compile(rb"P([1-6])" + _PPM_GAP + rb"(\d+)" + _PPM_GAP + rb"(\d+)(?:\s|#)")
_PPM_MAXIMUM = re.compile(_PPM_GAP + rb"(\d+)\s")
_PPM_UNFINISHED = re.compile(rb"P[1-6](?:[\s\d]|#[^\r\n]*(?:[\r\n]|$))*")


def read_ppm(data: bytes) -> Header:
    """The header of a PBM, PGM or PPM, plain or raw."""
    start = data[:65536]
    found = _PPM.match(start)
    if found is None:
        reason = "truncated" if _PPM_UNFINISHED.fullmatch(start) else "corrupt"
        raise DecodingError(reason, f"PPM: width and height can't be read from {data[:24]!r}")
    kind, width, height = int(found[1]), int(found[2][:12]), int(found[3][:12])
    maximum = _PPM_MAXIMUM.match(start, found.end(3)) if kind in (5, 6) else None
    if maximum is None or int(maximum[1][:9]) != 255:
        return Header(width, height)
    end = maximum.end() + width * height * (3 if kind == 6 else 1)
    return Header(width, height, 1, end, plain=True)


_TIFF_SIDES = (256, 257)
_TIFF_SAMPLES = 277
_TIFF_TILE_SIDES = (322, 323)
_TIFF_STRIPS, _TIFF_TILES = (273, 279), (324, 325)
_TIFF_READ = (ORIENTATION, XMP, *_TIFF_STRIPS, *_TIFF_TILES)
_TIFF_TAGS = frozenset({*_TIFF_SIDES, _TIFF_SAMPLES, *_TIFF_TILE_SIDES, *_TIFF_READ})


def read_tiff(data: bytes) -> Header:
    """The first directory of a TIFF, classic or BigTIFF."""
    fields = tiff_fields(data, _TIFF_TAGS)
    width, height = (_first_number(data, fields.get(tag), 0) for tag in _TIFF_SIDES)
    _require_possible_extents(data, fields, width, height)
    tags = {tag: tiff_numbers(data, fields[tag]) for tag in _TIFF_READ if tag in fields}
    ends = [
        offset + length
        for offsets, lengths in (_TIFF_STRIPS, _TIFF_TILES)
        for offset, length in zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False)
    ]
    stated = (*tags.get(ORIENTATION, ())[:1], 0)[0]
    if not 1 <= stated <= 8:
        packet = tags.get(XMP)
        of_bytes = isinstance(packet, bytes) and ORIENTATION not in tags
        stated = xmp_orientation(bytes(packet or b"")) if of_bytes else 0
    certain = () not in (tags.get(ORIENTATION), tags.get(XMP))
    end = len(data) + 1 if () in tags.values() else max(ends, default=0)
    return Header(width, height, stated or 1, end, certain=certain)


def _first_number(data: bytes, field: TiffField | None, default: int) -> int:
    numbers = () if field is None else tiff_numbers(data, field._replace(number=1))
    return numbers[0] if numbers else default


def _require_possible_extents(
    data: bytes, fields: Mapping[int, TiffField], width: int, height: int
) -> None:
    three = (_first_number(data, fields.get(tag), 1) for tag in (_TIFF_SAMPLES, *_TIFF_TILE_SIDES))
    samples, *tile = (max(1, number) for number in three)
    strips, tiles = height, -(-width // tile[0]) * -(-height // tile[1])
    for tags, what, most in ((_TIFF_STRIPS, "strips", strips), (_TIFF_TILES, "tiles", tiles)):
        stated = max(fields[tag].number if tag in fields else 0 for tag in tags)
        if stated > max(1, most * samples):
            message = f"TIFF: states {stated} {what}, expected at most {most * samples}"
            raise DecodingError("corrupt", f"{message} for {width} x {height} pixels")
