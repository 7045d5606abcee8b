"""Encoded bytes as upright RGB pixels at the smallest scale that serves, or what is wrong.

The format is told from the bytes, never from the name, and so is who reads it: OpenCV where it is
right and fastest (JPEG, plain PNG, WebP, BMP and PPM), Pillow's format classes for the rest.
libjpeg and libpng write one line to stderr for a picture with damaged data: OpenCV gives no way to
turn that off, and redirecting stderr would hide other people's messages.

Shape letters: H and W rows and columns of pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

from vistadex.decoding.hashing import content_hash, perceptual_hash
from vistadex.decoding.headers import Header
from vistadex.decoding.jpeg import OPENCV_PIXELS, decode_jpeg, read_jpeg_header
from vistadex.decoding.orientation import upright
from vistadex.decoding.signatures import SIGNATURE_BYTES, format_of, looks_like_image
from vistadex.decoding.sizes import (
    PictureSize,
    read_header,
    read_size,
    require_format,
    require_sides,
)
from vistadex.errors import DecodingError
from vistadex.records import DecodedImage, Pixels

__all__ = [
    "SIGNATURE_BYTES",
    "PictureSize",
    "content_hash",
    "decode",
    "encode_jpeg",
    "format_of",
    "looks_like_image",
    "perceptual_hash",
    "read_size",
    "use_one_thread",
]
_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def decode(
    data: bytes,
    *,
    min_long_side: int = 0,
    min_short_side: int = 0,
    max_pixels: int = 200_000_000,
    allow_truncated: bool = False,
) -> DecodedImage:
    """The picture, upright; a JPEG at 1/2, 1/4 or 1/8 where its sides stay as long as asked.

    Args:
        min_long_side: pixels that the long side must keep; 0 for no need.
        min_short_side: likewise. With both 0 the picture comes at full size.
        max_pixels: a picture with more is refused before memory is taken for it.
        allow_truncated: take the readable part of a picture that breaks off, the rest mid-grey,
            and say in `damage` what is missing.
    Raises: DecodingError with reason empty, not_an_image, unsupported, truncated, corrupt or
        too_large.
    """
    name = require_format(data)
    try:
        if name == "JPEG":
            header = read_jpeg_header(data)
            _require_size(name, header.width, header.height, max_pixels)
            return decode_jpeg(data, header, min_long_side, min_short_side)
        return _decode_other(data, name, max_pixels)
    except DecodingError as error:
        if error.reason != "truncated" or not allow_truncated:
            raise
        return _readable_part(data, name, error, max_pixels)


def encode_jpeg(pixels: Pixels, quality: int = 85) -> bytes:
    """(H, W, 3) RGB as a JPEG file."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(encoded.data)


def use_one_thread() -> None:
    """Keeps OpenCV from starting threads of its own: for processes that use all cores already."""
    cv2.setNumThreads(1)


def _require_size(name: str, width: int, height: int, max_pixels: int) -> None:
    require_sides(name, width, height)
    if width * height > max_pixels:
        raise DecodingError(
            "too_large",
            f"{width} x {height} is {width * height / 1e6:.1f} million pixels, "
            f"more than the limit of {max_pixels / 1e6:.1f} million",
        )


def _decode_other(data: bytes, name: str, max_pixels: int) -> DecodedImage:
    header = read_header(data, name)
    _require_size(name, header.width, header.height, max_pixels)
    pixels = _by_opencv(data, header)
    if pixels is None:
        from vistadex.decoding.by_pillow import TURNED, pillow_pixels  # PIL: 30 ms

        pixels = pillow_pixels(data, name, header)
        if name in TURNED:
            return DecodedImage(pixels, pixels.shape[1], pixels.shape[0])
    pixels = upright(pixels, header.orientation)
    return DecodedImage(pixels, pixels.shape[1], pixels.shape[0])


def _by_opencv(data: bytes, header: Header) -> Pixels | None:
    """Pixels as stored; None where Pillow must read them, or say what is wrong with them."""
    shape = (header.height, header.width, 3)
    if not header.plain or header.end > len(data) or shape[0] * shape[1] > OPENCV_PIXELS:
        return None
    try:
        pixels: Pixels | None = cv2.imdecode(np.frombuffer(data, np.uint8), _RGB)
    except cv2.error:
        return None
    return pixels if pixels is not None and pixels.shape == shape else None


def _readable_part(data: bytes, name: str, error: DecodingError, max_pixels: int) -> DecodedImage:
    from vistadex.decoding.salvage import in_words, readable_part

    header = read_jpeg_header(data) if name == "JPEG" else read_header(data, name)
    _require_size(name, header.width, header.height, max_pixels)
    end = header.end if isinstance(header, Header) else 0
    part = readable_part(data, name, (header.width, header.height), end)
    if part is None:
        raise error
    turn = 1 if part.turned else header.orientation
    pixels, missing = upright(part.pixels, turn), upright(part.missing, turn)
    damage = f"{name}: breaks off before its end; {part.note or in_words(missing)}"
    return DecodedImage(pixels, pixels.shape[1], pixels.shape[0], damage)
