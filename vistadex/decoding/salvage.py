"""The readable part of a picture that breaks off, and which pixels are missing.

Nothing global is switched for it. Pillow's decoders write rows as they read them: a picture that is
read once over black and once over white differs where nothing was written. A WebP, and a JPEG that
comes in several scans, are read twice with different bytes in place of the missing ones: they
differ where those bytes were used.

Shape letters: H and W rows and columns of pixels.
"""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, reduce

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vistadex.decoding.by_pillow import (
    PILLOW_ERRORS,
    TURNED,
    format_class,
    jpeg_pixels,
    pillow_takes,
    row_bands,
    to_rgb,
    true_inks,
)
from vistadex.decoding.headers import MOST_INFLATED, gif_extension_end, read_webp
from vistadex.errors import DecodingError
from vistadex.records import Pixels

MID_GREY = 128
MAX_PIXELS = 50_000_000
"""No readable part is looked for in larger pictures: each is read twice or more."""
LEAST_SHARE = 0.01
"""Of a picture's rows, that its bytes must be able to hold."""
Fill = Callable[[int], bytes]
"""Gives as many bytes as asked to stand for missing ones."""


@dataclass(frozen=True, slots=True)
class Part:
    """What could be read."""

    pixels: Pixels
    """(H, W, 3) RGB, mid-grey where something is missing."""
    missing: NDArray[np.uint8]
    """(H, W), 1 where a pixel is missing."""
    turned: bool = False
    """Whether it is upright already."""
    note: str = ""
    """What is missing beside pixels."""


def in_words(missing: NDArray[np.uint8]) -> str:
    """Which pixels of an upright picture are missing: (H, W), 1 where one is."""
    share = float(missing.mean())
    if not share:
        return "no pixels are missing"
    for axis, what in enumerate(("rows", "columns")):
        lines = np.flatnonzero(missing.any(axis=1 - axis))
        number = missing.shape[axis]
        scattered = lines[-1] - lines[0] >= len(lines)
        if scattered or len(lines) > share * number + 2:
            continue
        if lines[-1] == number - 1:
            return f"{what} from about {lines[0]} of {number} are missing"
        if lines[0] == 0:
            return f"{what} up to about {lines[-1] + 1} of {number} are missing"
    return f"about {max(1, round(100 * share))} % of its pixels are missing"


def readable_part(data: bytes, name: str, size_wh: tuple[int, int], end: int) -> Part | None:
    """What can be read of a picture that breaks off; None where that is nothing.

    Args:
        end: bytes that the whole file has; 0 where its header does not say.
    Raises: DecodingError with reason truncated where reading is not worth its memory.
    """
    read = READERS.get(name)
    if read is None:
        return None
    _require_worth(data, name, size_wh, end)
    with pillow_takes(size_wh):
        part = read(data, name, size_wh)
    return None if part is None or part.missing.all() else part


def _require_worth(data: bytes, name: str, size_wh: tuple[int, int], end: int) -> None:
    broken = f"{name}: breaks off before its end, {size_wh[0]} x {size_wh[1]}"
    if size_wh[0] * size_wh[1] > MAX_PIXELS:
        message = f"{broken}: a part is read of at most {MAX_PIXELS // 1_000_000} million pixels"
        raise DecodingError("truncated", message)
    share = SHARES.get(name)
    if share is not None and share(data, size_wh, end) < LEAST_SHARE:
        message = f"{broken}: its {len(data)} bytes can't fill {LEAST_SHARE:.0%} of its rows"
        raise DecodingError("truncated", message)


def _png_share(data: bytes, size_wh: tuple[int, int], end: int) -> float:
    depth, color = data[24:26]
    channels = {2: 3, 4: 2, 6: 4}.get(color, 1)
    row = 1 + -(-size_wh[0] * channels * depth // 8)
    return len(data) * MOST_INFLATED / (row * size_wh[1])


def _raw_share(data: bytes, size_wh: tuple[int, int], end: int) -> float:
    return len(data) / end if end else 1.0


SHARES: Mapping[str, Callable[[bytes, tuple[int, int], int], float]] = {
    "PNG": _png_share,
    "BMP": _raw_share,
    "PPM": _raw_share,
}
"""What share of a picture's rows its bytes can hold at most, for formats of which it is certain."""


def _over_two_grounds(data: bytes, name: str, size_wh: tuple[int, int]) -> Part | None:
    """A picture whose decoder writes what it reads, row by row or pixel by pixel."""
    written = _written(data, name, size_wh)
    if written is None:
        return None
    picture, turned, missing = written
    return _part(to_rgb(picture), missing, turned)


def _written(
    data: bytes, name: str, size_wh: tuple[int, int]
) -> tuple[Image.Image, bool, NDArray[np.bool_]] | None:
    """A picture over black, whether it has been turned upright, and where nothing was written.

    None where that is everywhere.
    """
    read = [_over(data, name, size_wh, bright) for bright in (False, True)]
    (over_black, turned), (over_white, _) = read
    if over_black is None or over_white is None:
        return None
    missing = _differing(over_black, over_white)
    return None if missing.all() else (over_black, turned, missing)


def _differing(one: Image.Image, other: Image.Image) -> NDArray[np.bool_]:
    """(H, W): where two pictures of one size and mode differ."""
    differ = np.empty((one.height, one.width), np.bool_)
    for rows in row_bands(one.size):
        box = (0, rows.start, one.width, rows.stop)
        band = np.asarray(one.crop(box)) != np.asarray(other.crop(box))
        differ[rows] = band if band.ndim == 2 else reduce(np.bitwise_or, np.moveaxis(band, 2, 0))
    return differ


def _over(
    data: bytes, name: str, size_wh: tuple[int, int], bright: bool | None
) -> tuple[Image.Image | None, bool]:
    """A picture read into memory that is black or white, and whether it has been turned upright.

    Args:
        bright: None for the memory that Pillow takes itself.
    """
    try:
        picture = format_class(name)(io.BytesIO(data))
        if bright is not None:
            picture.im = _ground(picture.mode, size_wh, bright).im
        with suppress(*PILLOW_ERRORS):
            picture.load()
        turned = name in TURNED and not picture.tile
        picture.tile = []
        picture.load()
        if name in TURNED:  # a part of one has the sides of the upright picture, a copy its own
            return picture.copy(), turned
        return true_inks(picture) if name == "JPEG" else picture, turned
    except PILLOW_ERRORS:
        return None, False


def _ground(mode: str, size_wh: tuple[int, int], bright: bool) -> Image.Image:
    most = 65535 if mode.startswith("I;16") else 255
    level = most if bright else 0
    bands = len(Image.new(mode, (1, 1)).getbands())
    return Image.new(mode, size_wh, level if bands == 1 else (level,) * bands)


def _part(pixels: Pixels, missing: NDArray[np.bool_], turned: bool = False) -> Part:
    np.copyto(pixels, MID_GREY, where=missing[..., None])
    return Part(pixels, missing.view(np.uint8), turned)


def _gif(data: bytes, name: str, size_wh: tuple[int, int]) -> Part | None:
    """A GIF: Pillow would fill the memory itself for a transparent one, so that hides first."""
    written = _written(_opaque(data), name, size_wh)
    if written is None:
        return None
    missing = written[2]
    del written  # a picture's memory
    picture, _ = _over(data, name, size_wh, None)
    return None if picture is None else _part(to_rgb(picture), missing)


def _opaque(data: bytes) -> bytes:
    """A GIF whose first frame has no transparent color."""
    opaque = bytearray(data)
    at = 13 + (6 << (data[10] & 7) if data[10] & 0x80 else 0)
    while data[at] != 0x2C:
        if data[at : at + 2] == b"\x21\xf9":
            opaque[at + 3] &= 0xFE
        at = gif_extension_end(data, at) if data[at] == 0x21 else at + 1
    return bytes(opaque)


def _jpeg(data: bytes, name: str, size_wh: tuple[int, int]) -> Part | None:
    part = _over_two_grounds(data, name, size_wh)
    if part is not None:
        return part
    # A picture in several scans is not written before its last one ends.
    scans = _jpeg_scans(data)
    if len(scans) == 1:
        read = list(_with_fillers(partial(_ended_jpeg, data)))
        return _part(read[0], _below_difference(*read)) if len(read) == 2 else None
    for end in (len(data), *scans[-1:]):
        with suppress(DecodingError):
            pixels = _ended_jpeg(data[:end], lambda length: b"")
            note = f"only {len(scans) - 1} of its scans are whole: detail and color are missing"
            return Part(pixels, np.zeros(pixels.shape[:2], np.uint8), note=note)
    return None


def _ended_jpeg(start: bytes, fill: Fill) -> Pixels:
    start = start.rstrip(b"\xff")
    return jpeg_pixels(start + fill(1024).replace(b"\xff", b"\0") + b"\xff\xd9", 1)


def _jpeg_scans(data: bytes) -> list[int]:
    """Where the scans of a JPEG begin."""
    scans, at = [], 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 4:
        marker = data[at + 1]
        if marker == 0xDA:
            scans.append(at)
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            at += 1 + (marker != 0xFF)
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return scans


def _webp(data: bytes, name: str, size_wh: tuple[int, int]) -> Part | None:
    def read_with(fill: Fill) -> Pixels:
        still = _webp_still(data, size_wh, fill)
        if read_webp(still).plain:
            return _plain_webp(still)
        picture = format_class(name)(io.BytesIO(still))
        picture.load()
        return to_rgb(picture)

    read = list(_with_fillers(read_with))
    return _part(read[0], _below_difference(*read)) if len(read) == 2 else None


def _plain_webp(still: bytes) -> Pixels:
    """As OpenCV reads it: Pillow takes four times the memory for it."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pixels: Pixels | None = cv2.imdecode(np.frombuffer(still, np.uint8), flags)
    if pixels is None:
        raise DecodingError("corrupt", "WebP: OpenCV can't decode it")
    return pixels


def _webp_still(data: bytes, size_wh: tuple[int, int], fill: Fill) -> bytes:
    """The first picture of a WebP as a file of its own, at the length that is stated for it.

    Raises: ValueError where there is none, or it does not fill the canvas.
    """
    at, alpha = 12, b""
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        stop = at + 8 + length + (length & 1)
        if kind in (b"VP8 ", b"VP8L"):
            if stop - at > 4 * size_wh[0] * size_wh[1] + 65536:
                raise ValueError("its first picture has an impossible length")
            image = data[at:stop] + fill(max(0, stop - len(data)))
            return _riff(_extended(size_wh) + alpha + image if alpha else image)
        if kind == b"ANMF":
            sides = data[at + 14 : at + 17], data[at + 17 : at + 20]
            if tuple(int.from_bytes(side, "little") + 1 for side in sides) != size_wh:
                raise ValueError("its first frame does not fill the canvas")
            stop = at + 24
        elif kind == b"ALPH":
            alpha = data[at:stop]
        at = stop
    raise ValueError("no picture data")


def _extended(size_wh: tuple[int, int]) -> bytes:
    sides = b"".join((side - 1).to_bytes(3, "little") for side in size_wh)
    return b"VP8X" + struct.pack("<II", 10, 0x10) + sides


def _riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def _with_fillers(read: Callable[[Fill], Pixels]) -> Iterator[Pixels]:
    """Two pictures read with different bytes for the missing ones, if so many can be read."""
    found = 0
    for seed in range(6):
        with suppress(DecodingError, *PILLOW_ERRORS, cv2.error):
            yield read(partial(_filler, seed))
            found += 1
        if found == 2:
            return


def _filler(seed: int, length: int) -> bytes:
    if not seed:
        return bytes(length)
    block = random.Random(seed).randbytes(65536)
    return block * (length // len(block)) + block[: length % len(block)]


def _below_difference(one: Pixels, other: Pixels) -> NDArray[np.bool_]:
    """(H, W): true from the first row in which two pictures differ."""
    missing = np.zeros(one.shape[:2], np.bool_)
    for rows in row_bands((one.shape[1], one.shape[0])):
        differ = (one[rows] != other[rows]).any(axis=(1, 2))
        if differ.any():
            missing[rows.start + int(differ.argmax()) :] = True
            break
    return missing


READERS: Mapping[str, Callable[[bytes, str, tuple[int, int]], Part | None]] = {
    "JPEG": _jpeg,
    "WebP": _webp,
    "GIF": _gif,
    "PNG": _over_two_grounds,
    "BMP": _over_two_grounds,
    "TIFF": _over_two_grounds,
    "PPM": _over_two_grounds,
}
"""What reads the part of each format; AVIF and HEIC are read whole or not at all."""
