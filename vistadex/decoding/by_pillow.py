"""Pictures read by Pillow's format classes, without `Image.open` and Pillow's process-wide limit.

Where Pillow checks sizes itself (WebP, GIF, TIFF), its limit is lifted while a picture between the
two limits is loaded, and nothing else that is global is touched.
"""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFile

from vistadex.decoding.headers import Header
from vistadex.errors import DecodingError, MissingExtraError
from vistadex.records import Pixels
from vistadex.registry import lookup

FORMAT_CLASSES: Mapping[str, str] = {
    "JPEG": "PIL.JpegImagePlugin:JpegImageFile",
    "PNG": "PIL.PngImagePlugin:PngImageFile",
    "WebP": "PIL.WebPImagePlugin:WebPImageFile",
    "BMP": "PIL.BmpImagePlugin:BmpImageFile",
    "TIFF": "PIL.TiffImagePlugin:TiffImageFile",
    "GIF": "PIL.GifImagePlugin:GifImageFile",
    "AVIF": "PIL.AvifImagePlugin:AvifImageFile",
    "HEIC": "pillow_heif:HeifImageFile",
    "PPM": "PIL.PpmImagePlugin:PpmImageFile",
}
"""The class of Pillow's kind that reads each format."""

TURNED = frozenset({"TIFF", "HEIC"})
"""Formats whose pictures come upright already."""
PILLOW_ERRORS = (
    *(OSError, EOFError, SyntaxError, ValueError, Warning, struct.error, zlib.error),
    *(LookupError, TypeError, AttributeError, ArithmeticError),
    *(AssertionError, RuntimeError, MemoryError),
)
"""What Pillow's format classes are known to raise for damaged files."""
BAND_PIXELS = 1 << 20
_UNKNOWN_KINDS = ("unknown pixel mode", "conversion from", "Missing dimensions")
"""How Pillow says that it does not know a variety of a format; the last of big-endian BigTIFF."""
_lifting = threading.Lock()
_PILLOW_LIMIT = Image.MAX_IMAGE_PIXELS
"""Pillow's limit at first: while it is lifted for one picture, another thread can't see it."""


def format_class(name: str) -> Callable[[io.BytesIO], ImageFile.ImageFile]:
    """What opens a picture of a format.

    Raises: DecodingError with reason unsupported where its extra is not installed.
    """
    try:
        found: Callable[[io.BytesIO], ImageFile.ImageFile]
        found = lookup(FORMAT_CLASSES, name, "picture format")
    except MissingExtraError as error:
        raise DecodingError("unsupported", str(error)) from error
    return found


def pillow_pixels(data: bytes, name: str, header: Header) -> Pixels:
    """(H, W, 3) as stored, those of TURNED upright.

    Raises: DecodingError with reason unsupported, truncated, corrupt or too_large.
    """
    open_picture = format_class(name)
    try:
        with pillow_takes((header.width, header.height)):
            picture = open_picture(io.BytesIO(data))
            picture.load()
        return to_rgb(picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DecodingError("too_large", f"{name}: {error}") from error
    except PILLOW_ERRORS as error:
        message = f"{name}: {error or type(error).__name__}"
        raise DecodingError(_reason(data, header, error), message) from error


def _reason(data: bytes, header: Header, error: Exception) -> str:
    if str(error).startswith(_UNKNOWN_KINDS):
        return "unsupported"
    breaks_off = isinstance(error, EOFError) or "truncat" in str(error).lower()
    return "truncated" if breaks_off or header.end > len(data) else "corrupt"


def jpeg_pixels(data: bytes, scale: int) -> Pixels:
    """(H, W, 3) of a JPEG as stored, at 1/scale of its size."""
    try:
        picture = format_class("JPEG")(io.BytesIO(data))
        picture.draft(picture.mode, (picture.width // scale or 1, picture.height // scale or 1))
        return to_rgb(true_inks(picture))
    except PILLOW_ERRORS as error:
        raise DecodingError("corrupt", f"JPEG: {error}") from error


def true_inks(picture: Image.Image) -> Image.Image:
    """A JPEG with the inks of a CMYK as they are meant: only Adobe's marker says "inverted".

    Pillow takes the marker for granted in every CMYK.
    """
    inverted_for_nothing = picture.mode == "CMYK" and "adobe_transform" not in picture.info
    return ImageChops.invert(picture) if inverted_for_nothing else picture


@contextmanager
def pillow_takes(size_wh: tuple[int, int]) -> Iterator[None]:
    """Within it Pillow's process-wide limit does not stand before a picture of this size."""
    limits = (limit for limit in (_PILLOW_LIMIT, Image.MAX_IMAGE_PIXELS) if limit is not None)
    if all(size_wh[0] * size_wh[1] <= limit for limit in limits):
        yield
        return
    with _lifting:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def to_rgb(picture: Image.Image) -> Pixels:
    """(H, W, 3): transparency over white, 16 bits and more scaled to 8."""
    if picture.mode in ("I", "F"):
        return np.repeat(_scaled_grey(np.asarray(picture))[..., None], 3, axis=2)
    pixels = np.empty((picture.height, picture.width, 3), np.uint8)
    for rows in row_bands(picture.size):
        box = (0, rows.start, picture.width, rows.stop)
        pixels[rows] = _band_to_rgb(picture.crop(box) if box[3] - box[1] < len(pixels) else picture)
    return pixels


def row_bands(size_wh: tuple[int, int]) -> Iterator[slice]:
    """Rows of a picture, some at a time: what is made of them takes little memory."""
    width, height = size_wh
    step = max(1, BAND_PIXELS // width)
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))


def _band_to_rgb(picture: Image.Image) -> Pixels:
    if picture.mode.startswith("I;16"):
        return _sixteen_bits(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        paper = Image.new("RGB", picture.size, "white")
        paper.paste(picture, mask=picture.getchannel("A"))
        picture = paper
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _sixteen_bits(picture: Image.Image) -> Pixels:
    values = np.asarray(picture)
    grey = (values >> 8).astype(np.uint8)
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return np.repeat(grey[..., None], 3, axis=2)


def _scaled_grey(values: NDArray[np.generic]) -> Pixels:
    """(H, W) numbers as 8 bits: 0 to the usual maximum that holds them, else least to most."""
    numbers = np.nan_to_num(values.astype(np.float64))
    low, high = float(numbers.min()), float(numbers.max())
    usual = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    if low >= 0 and high <= usual[-1]:
        low, high = 0.0, next(maximum for maximum in usual if high <= maximum)
    return ((numbers - low) * (255 / ((high - low) or 1.0)) + 0.5).astype(np.uint8)
