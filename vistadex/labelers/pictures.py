"""Pictures as they are sent to a service: JPEGs of bounded size, without EXIF data."""

from __future__ import annotations

import cv2
import numpy as np

from vistadex.decoding import encode_jpeg
from vistadex.records import Pixels

LONGEST_SIDE = 10_000
"""Pixels that every service takes."""
QUALITIES = (90, 80, 65, 50)


def to_jpeg(pixels: Pixels, *, size: int, min_side: int, max_bytes: int) -> bytes:
    """A picture as a JPEG of no more than max_bytes.

    EXIF data, and with it the place where a photograph was taken, is not in it.

    Args:
        pixels: (H, W, 3) RGB.
        size: a longer long side is reduced to so many pixels, unless the short one would be too
            short.
        min_side: a shorter short side is enlarged to so many pixels, with the picture; where it is
            too long for that, by stretching it, so that boxes as fractions stay right.
    """
    while True:
        scaled = _sized(pixels, size, min_side)
        for quality in QUALITIES:
            jpeg = encode_jpeg(scaled, quality)
            if len(jpeg) <= max_bytes:
                return jpeg
        size //= 2  # noise at a large size: rather small than not at all


def _sized(pixels: Pixels, size: int, min_side: int) -> Pixels:
    height, width = pixels.shape[:2]
    scale = max(min(1.0, size / max(height, width)), min_side / min(height, width))
    scale = min(scale, LONGEST_SIDE / max(height, width))
    sides = max(min_side, round(width * scale)), max(min_side, round(height * scale))
    if sides == (width, height):
        return pixels
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, sides, interpolation=how), np.uint8)
