"""What a JPEG says of itself before its image data: size, components and EXIF orientation."""

from __future__ import annotations

import struct
from typing import NamedTuple

from vistadex.errors import DecodingError

_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MARKERS_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})


class JpegHeader(NamedTuple):
    width: int
    height: int
    components: int
    orientation: int
    scan: int
    """Where the first scan begins."""


def read_jpeg_header(data: bytes) -> JpegHeader:
    """Size, components and orientation from the markers before the first scan."""
    width = height = components = orientation = 0
    position = 2
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data):
            raise DecodingError("truncated", "JPEG: breaks off inside its header")
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _MARKERS_WITHOUT_LENGTH:
            position += 2
        elif marker == 0xD9:
            raise DecodingError("corrupt", "JPEG: ends before its first scan")
        elif marker == 0xDA:
            return JpegHeader(width, height, components, orientation or 1, position)
        else:
            end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
            if marker in _FRAME_MARKERS and position + 10 <= len(data):
                height, width, components = struct.unpack_from(">HHB", data, position + 5)
            elif marker == 0xE1 and data.startswith(b"Exif\0\0", position + 4):
                orientation = orientation or _exif_orientation(data[position + 10 : end])
            position = end


def _exif_orientation(tiff: bytes) -> int:
    """The orientation 1 to 8 that an EXIF block states; 0 where it states none that can be read."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 0
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for i in range(count):
            tag, kind = struct.unpack_from(order + "HH", tiff, directory + 2 + 12 * i)
            if tag == 0x0112:
                layout = order + ("I" if kind == 4 else "H")
                (value,) = struct.unpack_from(layout, tiff, directory + 10 + 12 * i)
                return value if 1 <= value <= 8 else 0
    except struct.error:
        pass
    return 0
