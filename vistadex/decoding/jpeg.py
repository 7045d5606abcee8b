"""JPEG: what its markers say before the image data, and its pixels at a reduced scale."""

from __future__ import annotations

import struct
from typing import NamedTuple

import cv2
import numpy as np

from vistadex.decoding.orientation import exif_orientation, upright, xmp_orientation
from vistadex.errors import DecodingError
from vistadex.records import DecodedImage, Pixels

OPENCV_PIXELS = 1 << 30
"""OpenCV refuses larger pictures."""
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MARKERS_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
# REDUCED_COLOR_n is REDUCED_GRAYSCALE_n | COLOR_BGR, and OpenCV refuses BGR together with RGB.
_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


class JpegHeader(NamedTuple):
    width: int
    height: int
    components: int
    orientation: int
    scan: int
    """Where the first scan begins."""


def read_jpeg_header(data: bytes) -> JpegHeader:
    """Size, components and orientation from the markers before the first scan; EXIF before XMP."""
    width = height = components = exif = xmp = 0
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
            return JpegHeader(width, height, components, exif or xmp or 1, position)
        else:
            end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
            if marker in _FRAME_MARKERS and position + 10 <= len(data):
                height, width, components = struct.unpack_from(">HHB", data, position + 5)
            elif marker == 0xE1:
                exif, xmp = _stated(data, position + 4, end, exif, xmp)
            position = end


def _stated(data: bytes, start: int, end: int, exif: int, xmp: int) -> tuple[int, int]:
    """The orientations of EXIF and XMP after one more APP1 segment; the first of each counts."""
    if not exif and data.startswith(b"Exif\0\0", start):
        exif = exif_orientation(data[start:end])
    elif not xmp and data.startswith(_XMP, start):
        xmp = xmp_orientation(data[start:end])
    return exif, xmp


def decode_jpeg(
    data: bytes, header: JpegHeader, min_long_side: int, min_short_side: int
) -> DecodedImage:
    """The upright picture at 1, 1/2, 1/4 or 1/8 of its size, the least that serves."""
    width, height = header.width, header.height
    # After the scan has begun, FF D9 is the end marker: image data never holds that pair.
    if data.rfind(b"\xff\xd9", header.scan) < 0:
        raise DecodingError("truncated", "JPEG: breaks off before its end marker")
    scale = _scale(width, height, min_long_side, min_short_side)
    # OpenCV inverts every CMYK, whether Adobe's marker says so or not.
    by_pillow = header.components == 4 or width * height > OPENCV_PIXELS
    pixels = _by_pillow(data, scale) if by_pillow else _by_opencv(data, scale)
    if pixels is None or pixels.shape[:2] != (-(-height // scale), -(-width // scale)):
        raise DecodingError("corrupt", "JPEG: libjpeg can't decode it")
    if header.orientation >= 5:
        width, height = height, width
    return DecodedImage(upright(pixels, header.orientation), width, height)


def _by_opencv(data: bytes, scale: int) -> Pixels | None:
    try:
        pixels: Pixels | None = cv2.imdecode(np.frombuffer(data, np.uint8), _RGB | _REDUCED[scale])
    except cv2.error as error:
        raise DecodingError("corrupt", f"JPEG: OpenCV: {error.err}") from error
    return pixels


def _by_pillow(data: bytes, scale: int) -> Pixels:
    from vistadex.decoding.by_pillow import jpeg_pixels

    return jpeg_pixels(data, scale)


def _scale(width: int, height: int, min_long: int, min_short: int) -> int:
    """The largest of 8, 4, 2, 1 by which the sides can be divided and still be as long as asked."""
    if min_long <= 0 and min_short <= 0:
        return 1
    long, short = max(width, height), min(width, height)
    for scale in (8, 4, 2):
        if -(-long // scale) >= min_long and -(-short // scale) >= min_short:
            return scale
    return 1
