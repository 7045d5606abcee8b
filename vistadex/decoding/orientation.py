"""Which way up a picture is stored, as EXIF, XMP and TIFF say it, and pixels turned upright."""

from __future__ import annotations

import re
import struct
from collections.abc import Container, Sequence
from typing import NamedTuple

import cv2

from vistadex.records import Pixels

ORIENTATION = 0x0112
XMP = 700
_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\b""")
_CODES = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q", 18: "Q"}
"""How struct reads TIFF's types of whole numbers and bytes."""
_MOST_TAGS = 1 << 16
"""A tag has 16 bits, and none stands twice in a directory."""


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """(H, W, ...) as stored, turned and mirrored as EXIF orientation 1 to 8 says."""
    if orientation in (5, 7):
        pixels = cv2.transpose(pixels)
    if orientation in (2, 4, 7):
        pixels = cv2.flip(pixels, {2: 1, 4: 0, 7: -1}[orientation])
    elif orientation == 3:
        pixels = cv2.rotate(pixels, cv2.ROTATE_180)
    elif orientation == 6:
        pixels = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
    elif orientation == 8:
        pixels = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
    return pixels


def exif_orientation(block: bytes) -> int:
    """The orientation 1 to 8 that an EXIF block states; 0 where it states none that can be read."""
    tiff = block.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 0
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for i in range(count):
            tag, kind = struct.unpack_from(order + "HH", tiff, directory + 2 + 12 * i)
            if tag == ORIENTATION:
                layout = order + ("I" if kind == 4 else "H")
                (value,) = struct.unpack_from(layout, tiff, directory + 10 + 12 * i)
                return value if 1 <= value <= 8 else 0
    except struct.error:
        pass
    return 0


def xmp_orientation(packet: bytes) -> int:
    """The orientation 1 to 8 that an XMP packet states as tiff:Orientation; 0 for none."""
    found = _XMP_ORIENTATION.search(packet)
    return int(found[1]) if found else 0


class TiffField(NamedTuple):
    """Where the numbers of a tag lie in a TIFF."""

    code: str
    """How struct reads one."""
    number: int
    at: int


def tiff_fields(data: bytes, wanted: Container[int]) -> dict[int, TiffField]:
    """Some tags of a TIFF's first directory; of a tag that stands in it twice, the first.

    Raises: struct.error where the directory lies behind the end.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    offset, count, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count, data, at)
    first = at + struct.calcsize(count)
    fields: dict[int, TiffField] = {}
    for at in range(first, first + min(entries, _MOST_TAGS) * entry, entry):
        tag, kind, number = struct.unpack_from(order + "HH" + offset, data, at)
        code = _CODES.get(kind)
        if tag not in wanted or tag in fields or code is None:
            continue
        value = at + entry - struct.calcsize(offset)
        if number * struct.calcsize(code) > struct.calcsize(offset):
            (value,) = struct.unpack_from(order + offset, data, value)
        fields[tag] = TiffField(order + code, number, value)
    return fields


def tiff_numbers(data: bytes, field: TiffField | None) -> Sequence[int]:
    """The numbers of a tag, as bytes where they are bytes; () where one lies behind the end."""
    if field is None or field.number * struct.calcsize(field.code) > len(data) - field.at:
        return ()
    if field.code[1] == "B":
        return data[field.at : field.at + field.number]
    numbers: tuple[int, ...]
    numbers = struct.unpack_from(f"{field.code[0]}{field.number}{field.code[1]}", data, field.at)
    return numbers
