"""A picture's size and orientation, read from the first bytes of its file."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vistadex.decoding import headers
from vistadex.decoding.headers import Header
from vistadex.decoding.isobmff import read_boxes
from vistadex.decoding.jpeg import read_jpeg_header
from vistadex.decoding.signatures import format_of
from vistadex.errors import DecodingError

READERS: Mapping[str, Callable[[bytes], Header]] = {
    "PNG": headers.read_png,
    "WebP": headers.read_webp,
    "BMP": headers.read_bmp,
    "TIFF": headers.read_tiff,
    "GIF": headers.read_gif,
    "AVIF": lambda data: read_boxes(data, "AVIF"),
    "HEIC": lambda data: read_boxes(data, "HEIC"),
    "PPM": headers.read_ppm,
}
"""What reads the header of each format beside JPEG."""


@dataclass(frozen=True, slots=True)
class PictureSize:
    """A picture's size, upright and as stored."""

    width: int
    """Columns of the upright picture."""
    height: int
    orientation: int
    """EXIF's 1 to 8: how the stored picture must be turned."""
    stored_width: int
    stored_height: int


def read_size(data: bytes) -> PictureSize:
    """The size that decode() would give, from a file's first bytes; 64 KiB are mostly enough.

    HEIC needs no extra for this. Nothing is said of whether the rest can be decoded.
    Raises: DecodingError: truncated where the file must be given from a later byte on too, such as
        a PNG, which may state its orientation behind the pixels; empty, not_an_image or corrupt.
    """
    name = require_format(data)
    header: Header
    if name == "JPEG":
        width, height, _, orientation, _ = read_jpeg_header(data)
        header = Header(width, height, orientation)
    else:
        header = read_header(data, name)
    if not header.certain:
        raise DecodingError("truncated", f"{name}: its orientation may stand behind these bytes")
    require_sides(name, header.width, header.height)
    turned = header.orientation >= 5
    width, height = header.width, header.height
    return PictureSize(
        *((height, width) if turned else (width, height)), header.orientation, width, height
    )


def require_format(data: bytes) -> str:
    """JPEG or a name of READERS.

    Raises: DecodingError with reason empty or not_an_image.
    """
    if not data:
        raise DecodingError("empty", "the file has no bytes")
    name = format_of(data)
    if name is None:
        known = ", ".join(["JPEG", *READERS])
        raise DecodingError("not_an_image", f"begins with {data[:8]!r}: no format of {known}")
    return name


def read_header(data: bytes, name: str) -> Header:
    """The header of a format of READERS.

    Raises: DecodingError with reason truncated or corrupt.
    """
    try:
        return READERS[name](data)
    except (struct.error, IndexError) as error:
        raise DecodingError("truncated", f"{name}: breaks off inside its header") from error


def require_sides(name: str, width: int, height: int) -> None:
    """Raises: DecodingError with reason corrupt for a picture without pixels."""
    if width <= 0 or height <= 0:
        raise DecodingError("corrupt", f"{name}: its header says {width} x {height} pixels")
