"""Where a picture has which colors and how much detail, as a short vector: no network needed."""

from __future__ import annotations

import cv2
import numpy as np

from vistadex.records import FloatArray, Pixels

CELLS = 4
"""Rows and columns of the grid that is laid over the picture."""
SIDE = 32
"""Rows and columns that the picture is reduced to first."""
VALUES = CELLS * CELLS * 5
_LIGHT, _COLOR, _DETAIL = 1.0, 2.5, 2.5
"""Weights: of lightness, of the two colors, of the detail along rows and along columns."""


def color_layout(pixels: Pixels) -> FloatArray:
    """(80,) of unit length: for each of 4 x 4 cells its mean color in CIE L*a*b*, and its mean
    change of lightness along rows and along columns. Zero for a plain middle grey.

    It tells a beach from a forest and a portrait from a page; what is in the picture it does not
    know.

    Args:
        pixels: (H, W, 3) RGB of the upright picture, at any scale.
    Source: after MPEG-7's color layout and edge histogram, with means instead of a DCT.
    """
    small = cv2.resize(np.ascontiguousarray(pixels), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    light = (lab[:, :, 0] - 50) / 50
    values = np.empty((SIDE, SIDE, 5), np.float32)
    values[:, :, 0] = _LIGHT * light
    values[:, :, 1:3] = _COLOR * lab[:, :, 1:] / 100
    values[:, :, 3] = _DETAIL * np.abs(np.diff(light, axis=1, append=light[:, -1:]))
    values[:, :, 4] = _DETAIL * np.abs(np.diff(light, axis=0, append=light[-1:]))
    cell = SIDE // CELLS
    means = values.reshape(CELLS, cell, CELLS, cell, 5).mean((1, 3), dtype=np.float64).ravel()
    length = float(np.linalg.norm(means))
    found: FloatArray = (means / length if length > 1e-3 else 0 * means).astype(np.float32)
    return found
