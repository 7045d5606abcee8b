"""The cells of a detector's feature maps. Shape letter: A cells of all maps."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vistadex.errors import ModelError
from vistadex.records import FloatArray


@lru_cache(maxsize=256)
def cells(width: int, height: int, strides: tuple[int, ...]) -> FloatArray:
    """(A, 3) column, row and stride of every cell, map by map, row by row."""
    levels = []
    for stride in strides:
        columns, rows = np.meshgrid(np.arange(-(-width // stride)), np.arange(-(-height // stride)))
        levels.append(np.stack([columns, rows, np.full_like(rows, stride)], axis=-1).reshape(-1, 3))
    return np.concatenate(levels).astype(np.float32)


def need_rows(head: str, found: int, expected: int) -> None:
    """Raises: ModelError if an output has another number of rows than the input has cells."""
    if found != expected:
        raise ModelError(f"head {head}: {found} rows of output, expected {expected}")


def sigmoid(logits: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x)), without overflow."""
    powers = np.exp(-np.abs(logits))
    values: FloatArray = np.where(logits >= 0, np.float32(1), powers) / (1 + powers)
    return values
