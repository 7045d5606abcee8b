"""Measures of pictures that show one object each: its class and its box, as tutorials report them.

Shape letter: I images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vistadex.metrics.columns import Found, Truth
from vistadex.metrics.overlaps import overlapping
from vistadex.records import IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleObjectMeasures:
    """How the surest box of each picture does."""

    accuracy: float
    """Share of the images whose surest box has the right class; none found is wrong."""
    box_mse: float
    """Mean of squared differences of the four corners' coordinates in pixels of the input, over
    images with a box."""
    mean_iou: float
    """Of the surest box with the true one, over all images; 0 where none is found."""
    without_box: int
    """Images in which nothing is found."""
    size_wh: tuple[int, int]
    """The input to which pictures are stretched, for box_mse."""


def single_object_measures(
    truth: Truth, found: Found, *, sizes_wh: IntArray, size_wh: tuple[int, int]
) -> SingleObjectMeasures | None:
    """The measures of a set in which each image has one box; None for other sets.

    Args:
        sizes_wh: (I, 2) width and height of each image.
        size_wh: the input in whose pixels boxes are compared.
    """
    if not len(truth) or (np.bincount(truth.images, minlength=truth.image_count) != 1).any():
        return None
    order = np.lexsort((-found.scores, found.images))
    surest = found.take(order[np.diff(found.images[order], prepend=-1) > 0])
    mine = truth.take(np.argsort(truth.images)[surest.images])
    scale = np.array(size_wh) / sizes_wh[surest.images]
    off = _corners(surest) - _corners(mine)
    pairs = overlapping(surest, truth, at_least=0, same_class=False, crowd_by_detection=False)
    count = truth.image_count
    return SingleObjectMeasures(
        accuracy=float((surest.classes == mine.classes).sum() / count),
        box_mse=float(np.square(off * np.tile(scale, 2)).mean()) if len(surest) else float("nan"),
        mean_iou=float(pairs.iou.sum() / count),
        without_box=count - len(surest),
        size_wh=size_wh,
    )


def _corners(boxes: Found | Truth) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    xywh = boxes.boxes_xywh
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
