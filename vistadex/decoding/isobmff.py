"""The boxes of AVIF and HEIC: size, turning and cropping of the primary picture."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vistadex.decoding.headers import Header
from vistadex.errors import DecodingError

Corners = tuple[int, int, int, int]
"""Which corner of the stored picture stands at the top left, top right, bottom right, bottom left;
numbered in that order."""

ORIENTATIONS: dict[Corners, int] = {
    (0, 1, 2, 3): 1,
    (1, 0, 3, 2): 2,
    (2, 3, 0, 1): 3,
    (3, 2, 1, 0): 4,
    (0, 3, 2, 1): 5,
    (3, 0, 1, 2): 6,
    (2, 1, 0, 3): 7,
    (1, 2, 3, 0): 8,
}
"""EXIF's orientation for each."""


def read_boxes(data: bytes, name: str) -> Header:
    """Size and orientation of the primary picture of an AVIF or HEIC.

    The transformations irot and imir count; EXIF and XMP do not, as HEIF says.
    Raises: DecodingError; struct.error or IndexError where bytes are missing.
    """
    size, orientation, end, reason = (0, 0), 1, 0, "truncated"
    for kind, start, end in boxes(data, 0, len(data)):
        if kind == b"meta" and end <= len(data):
            size, orientation = _primary(data, start + 4, end, name)
            reason = "corrupt"
        elif kind == b"moov" and end <= len(data):
            reason = "unsupported"
    if size == (0, 0):
        raise DecodingError(reason, f"{name}: names no primary picture and its size")
    return Header(*size, orientation, end)


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box between two places."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = start + size if size else end
        if stop < content:
            return
        yield kind, content, stop
        start = stop


def _primary(data: bytes, start: int, end: int, name: str) -> tuple[tuple[int, int], int]:
    """Size and orientation of the primary picture, cropped where its reader crops."""
    size: tuple[int, int] = (0, 0)
    corners: Corners = (0, 1, 2, 3)
    for kind, at in _properties(data, start, end):
        if kind == b"ispe":
            size = struct.unpack_from(">II", data, at + 4)
        elif kind == b"clap" and name == "HEIC":
            size = _cropped(size, struct.unpack_from(">IIII", data, at))
        elif kind in (b"irot", b"imir"):
            corners = _turned(corners, kind, data[at])
    return size, ORIENTATIONS[corners]


def _properties(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int]]:
    """Kind and place of the primary picture's properties, in the order that counts."""
    primary: int | None = None
    properties: list[tuple[bytes, int, int]] = []
    associations: dict[int | None, list[int]] = {}
    parts = list(boxes(data, start, end))
    for kind, at, stop in parts:
        if kind == b"pitm":
            (primary,) = struct.unpack_from(">I" if data[at] else ">H", data, at + 4)
        elif kind == b"iprp":
            parts += boxes(data, at, stop)
        elif kind == b"ipco":
            properties = list(boxes(data, at, stop))
        elif kind == b"ipma":
            associations.update(_associations(data, at))
    for number in associations.get(primary, ()):
        if 0 < number <= len(properties):
            yield properties[number - 1][:2]


def _associations(data: bytes, at: int) -> Iterator[tuple[int | None, list[int]]]:
    """Item and the numbers of its properties, in their order, from 1."""
    version, wide = data[at], data[at + 3] & 1
    (entries,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(entries):
        (item,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        count = data[at]
        layout, mask = (f">{count}H", 0x7FFF) if wide else (f">{count}B", 0x7F)
        numbers = struct.unpack_from(layout, data, at + 1)
        at += 1 + struct.calcsize(layout)
        yield item, [number & mask for number in numbers]


def _cropped(size: tuple[int, int], clap: tuple[int, int, int, int]) -> tuple[int, int]:
    """A size after its clean aperture, rounded half up, as libheif does."""
    width, width_parts, height, height_parts = clap
    if not (width_parts and height_parts):
        return size
    return (
        min(size[0], (2 * width + width_parts) // (2 * width_parts)),
        min(size[1], (2 * height + height_parts) // (2 * height_parts)),
    )


def _turned(corners: Corners, kind: bytes, value: int) -> Corners:
    """The corners after one more irot (quarter turns to the left) or imir (which axis)."""
    a, b, c, d = corners
    if kind == b"irot":
        quarters = ((a, b, c, d), (b, c, d, a), (c, d, a, b), (d, a, b, c))
        return quarters[value & 3]
    if kind == b"imir":
        return (b, a, d, c) if value & 1 else (d, c, b, a)
    return corners
