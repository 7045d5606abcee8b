"""Encoded bytes as upright RGB pixels at the smallest scale that serves, or what is wrong.

The format is told from the bytes, never from the name. JPEG goes through OpenCV, the rest through
Pillow's format classes, without `Image.open`, so that our pixel limit counts and not Pillow's
process-wide one. Where Pillow checks again (WebP, TIFF), its limit is lifted while a picture
between the two is loaded, and nothing else that is global is touched. libjpeg writes one line to
stderr for a JPEG with a damaged scan: OpenCV gives no way to turn that off, and redirecting stderr
would hide other people's messages.

Shape letters: H and W rows and columns of pixels.
"""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vistadex.errors import DecodingError
from vistadex.jpeg_header import read_jpeg_header
from vistadex.records import DecodedImage, Pixels
from vistadex.registry import lookup

PICTURE_FORMATS: Mapping[str, str] = {
    "PNG": "PIL.PngImagePlugin:PngImageFile",
    "WebP": "PIL.WebPImagePlugin:WebPImageFile",
    "BMP": "PIL.BmpImagePlugin:BmpImageFile",
    "TIFF": "PIL.TiffImagePlugin:TiffImageFile",
    "GIF": "PIL.GifImagePlugin:GifImageFile",
    "AVIF": "PIL.AvifImagePlugin:AvifImageFile",
    "PPM": "PIL.PpmImagePlugin:PpmImageFile",
}
"""What is read beside JPEG, and the class of Pillow's that reads it."""

SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
SIGNATURE_BYTES = 64
"""How many of a file's first bytes looks_like_image needs to see."""

_BMP_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
_REDUCED = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
# REDUCED_COLOR_n is REDUCED_GRAYSCALE_n | COLOR_BGR, and OpenCV refuses BGR together with RGB.
_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_PILLOW_ERRORS = (
    *(OSError, EOFError, SyntaxError, ValueError, Warning, struct.error, zlib.error),
    *(LookupError, TypeError, AttributeError, ArithmeticError),
    *(AssertionError, RuntimeError, MemoryError),
)
"""What Pillow's format classes are known to raise for damaged files."""
_lifting = threading.Lock()
_PILLOW_LIMIT = Image.MAX_IMAGE_PIXELS
"""Pillow's limit at first: while it is lifted for one picture, another thread can't see it."""


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
    Raises: DecodingError with reason empty, not_an_image, truncated, corrupt or too_large.
    """
    if not data:
        raise DecodingError("empty", "the file has no bytes")
    name = format_of(data)
    if name == "JPEG":
        return _decode_jpeg(data, min_long_side, min_short_side, max_pixels)
    if name is None:
        known = ", ".join(["JPEG", *PICTURE_FORMATS])
        raise DecodingError("not_an_image", f"begins with {data[:8]!r}: no format of {known}")
    if name == "HEIC":
        raise DecodingError("not_an_image", "HEIC is read by an extra that is still to come")
    return _decode_other(data, name, max_pixels)


def looks_like_image(start: bytes) -> bool:
    """Whether a file's first SIGNATURE_BYTES bytes are those of a picture, HEIC included."""
    return format_of(start) is not None


def format_of(start: bytes) -> str | None:
    """The format that the first bytes announce: JPEG, HEIC, a name of PICTURE_FORMATS, or None."""
    for signature, name in SIGNATURES:
        if start.startswith(signature):
            return name
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    if start[4:8] == b"ftyp":
        end = min(int.from_bytes(start[:4], "big"), SIGNATURE_BYTES)
        brands = {start[i : i + 4] for i in range(8, end, 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return "HEIC" if brands & _HEIC_BRANDS else None
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if start[:1] == b"P" and start[1:2] in b"123456" and start[2:3].isspace():
        return "PPM"
    return None


def encode_jpeg(pixels: Pixels, quality: int = 85) -> bytes:
    """(H, W, 3) RGB as a JPEG file."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(encoded.data)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise DecodingError(
            "too_large",
            f"{width} x {height} is {width * height / 1e6:.1f} million pixels, "
            f"more than the limit of {max_pixels / 1e6:.1f} million",
        )


def _decode_jpeg(data: bytes, min_long: int, min_short: int, max_pixels: int) -> DecodedImage:
    header = read_jpeg_header(data)
    width, height = header.width, header.height
    if not (width and height):
        raise DecodingError("corrupt", f"JPEG: its header says {width} x {height} pixels")
    _check_size(width, height, max_pixels)
    # After the scan has begun, FF D9 is the end marker: image data never holds that pair.
    if data.rfind(b"\xff\xd9", header.scan) < 0:
        raise DecodingError("truncated", "JPEG: breaks off before its end marker")
    scale = _jpeg_scale(width, height, min_long, min_short)
    # OpenCV takes every CMYK for Adobe's inverted one.
    read = _jpeg_by_pillow if header.components == 4 else _jpeg_by_opencv
    pixels = read(data, scale)
    if pixels is None or pixels.shape[:2] != (-(-height // scale), -(-width // scale)):
        raise DecodingError("corrupt", "JPEG: libjpeg can't decode it")
    if header.orientation >= 5:
        width, height = height, width
    return DecodedImage(_upright(pixels, header.orientation), width, height)


def _jpeg_by_opencv(data: bytes, scale: int) -> Pixels | None:
    try:
        pixels: Pixels | None = cv2.imdecode(np.frombuffer(data, np.uint8), _RGB | _REDUCED[scale])
    except cv2.error as error:
        raise DecodingError("corrupt", f"JPEG: OpenCV: {error.err}") from error
    return pixels


def _jpeg_by_pillow(data: bytes, scale: int) -> Pixels | None:
    from PIL.JpegImagePlugin import JpegImageFile

    try:
        picture = JpegImageFile(io.BytesIO(data))
        picture.draft(picture.mode, (picture.width // scale or 1, picture.height // scale or 1))
        return np.array(picture.convert("RGB"))
    except _PILLOW_ERRORS as error:
        raise DecodingError("corrupt", f"JPEG: {error}") from error


def _jpeg_scale(width: int, height: int, min_long: int, min_short: int) -> int:
    """The largest of 8, 4, 2, 1 by which the sides can be divided and still be as long as asked."""
    if min_long <= 0 and min_short <= 0:
        return 1
    long, short = max(width, height), min(width, height)
    for scale in (8, 4, 2):
        if -(-long // scale) >= min_long and -(-short // scale) >= min_short:
            return scale
    return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels as stored, turned and mirrored as EXIF orientation 1 to 8 says."""
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


def _decode_other(data: bytes, name: str, max_pixels: int) -> DecodedImage:
    # Pillow takes memory for a whole WebP when it opens it; of the others it reads the header.
    size_wh = _webp_size(data) if name == "WebP" else (0, 0)
    _check_size(*size_wh, max_pixels)
    read_header = lookup(PICTURE_FORMATS, name, "picture format")
    try:
        with _pillow_takes(size_wh):
            picture: Image.Image = read_header(io.BytesIO(data))
        _check_size(*picture.size, max_pixels)
        with _pillow_takes(picture.size):
            picture.load()
        _transpose(picture)
        pixels = _to_rgb(picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DecodingError("too_large", f"{name}: {error}") from error
    except _PILLOW_ERRORS as error:
        reason = "truncated" if _breaks_off(data, name, error) else "corrupt"
        raise DecodingError(reason, f"{name}: {error or type(error).__name__}") from error
    return DecodedImage(pixels, picture.width, picture.height)


@contextmanager
def _pillow_takes(size_wh: tuple[int, int]) -> Iterator[None]:
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


def _transpose(picture: Image.Image) -> None:
    """Turns the picture upright in place; with an unreadable EXIF block it stays as stored."""
    try:
        ImageOps.exif_transpose(picture, in_place=True)
    except _PILLOW_ERRORS:
        return


def _breaks_off(data: bytes, name: str, error: Exception) -> bool:
    if name == "WebP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if name == "PNG" and data[12:16] == b"IHDR" and b"IEND" not in data[-64:]:
        return True
    return isinstance(error, EOFError) or "truncat" in str(error).lower()


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from a WebP's first chunk; (0, 0) where it is of no known kind."""
    head = data[:30].ljust(30, b"\0")
    if head[12:16] == b"VP8X":
        sides = int.from_bytes(head[24:27], "little"), int.from_bytes(head[27:30], "little")
        return sides[0] + 1, sides[1] + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF


def _to_rgb(picture: Image.Image) -> Pixels:
    """(H, W, 3): transparency over white, 16 bits and more scaled to 8."""
    if picture.mode.startswith("I;16"):
        return np.repeat((np.asarray(picture) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if picture.mode in ("I", "F"):
        return np.repeat(_scaled_grey(np.asarray(picture))[..., None], 3, axis=2)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        paper = Image.new("RGB", picture.size, "white")
        paper.paste(picture, mask=picture.getchannel("A"))
        picture = paper
    return np.array(picture.convert("RGB"))


def _scaled_grey(values: NDArray[np.generic]) -> Pixels:
    """(H, W) numbers as 8 bits: 0 to the usual maximum that holds them, else least to most."""
    numbers = np.nan_to_num(values.astype(np.float64))
    low, high = float(numbers.min()), float(numbers.max())
    usual = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    if low >= 0 and high <= usual[-1]:
        low, high = 0.0, next(maximum for maximum in usual if high <= maximum)
    return ((numbers - low) * (255 / ((high - low) or 1.0)) + 0.5).astype(np.uint8)


def use_one_thread() -> None:
    """Keeps OpenCV from starting threads of its own: for processes that use all cores already."""
    cv2.setNumThreads(1)
