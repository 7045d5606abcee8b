"""What a file's bytes and a picture's looks come to in a few bytes, to find copies by."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np

from vistadex.records import Pixels

CONTENT_BYTES = 16
SIDE = 32
"""Rows and columns that a picture is reduced to before its frequencies are taken."""
_KEPT_SIDE = 128
"""Larger pictures are halved first, for which OpenCV has a fast way; no side gets smaller."""
_NOISE = 2.0
"""Frequencies weaker than this come from rounding and compression: a wave of an eighth of a grey
level has 2."""
_STRUCTURE = 32
"""How many of the 64 frequencies must be stronger than noise for their signs to mean something."""
_LOWEST = np.array(
    sorted(
        ((row, column) for row in range(SIDE) for column in range(SIDE) if row + column),
        key=lambda place: (sum(place), place),
    )[:64]
)
"""The 64 lowest frequencies but the mean, diagonal by diagonal, as row and column of the DCT."""


def content_hash(data: bytes) -> bytes:
    """BLAKE2b of a file's bytes, 16 bytes long."""
    return hashlib.blake2b(data, digest_size=CONTENT_BYTES).digest()


def perceptual_hash(pixels: Pixels) -> int | None:
    """The signs of a picture's 64 lowest frequencies as a signed number, lowest frequency first.

    Pictures that look alike differ in few bits: the same picture at another size, quality or
    brightness. A mirrored, turned or clearly cropped one is another picture.

    Args:
        pixels: (H, W, 3) RGB of the upright picture, at any scale.
    Returns: None where a picture has too little structure, as a blank page or a plain sky has: its
        signs would come from noise.
    Source: pHash (Zauner 2010), but with signs instead of a comparison with the median, and
        frequencies chosen by diagonals instead of a square: half the false pairs on photographs.
    """
    frequencies = cv2.dct(_reduced(pixels).astype(np.float32))[_LOWEST[:, 0], _LOWEST[:, 1]]
    if int(np.count_nonzero(np.abs(frequencies) > _NOISE)) < _STRUCTURE:
        return None
    return int.from_bytes(np.packbits(frequencies > 0).tobytes(), "big", signed=True)


def _reduced(pixels: Pixels) -> Pixels:
    """(SIDE, SIDE) grey, each the mean of its part of the picture."""
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    while min(grey.shape) >= 2 * _KEPT_SIDE:
        rows, columns = (side // 2 for side in grey.shape)
        even = grey[: rows * 2, : columns * 2]
        grey = cv2.resize(even, (columns, rows), interpolation=cv2.INTER_AREA)
    reduced: Pixels = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return reduced
