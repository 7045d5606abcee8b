"""Large pictures in overlapping windows: a detector goes over each, and the boxes become one list.

A window sees objects larger than the whole picture shows them to the network; the whole picture,
scaled down, goes through it once too, for objects larger than a window. Shape letter: N boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from vistadex.errors import ModelError
from vistadex.records import (
    DecodedImage,
    Detections,
    FloatArray,
    IntArray,
    Model,
    Result,
)

FULL_SIZE = 1 << 30
"""More than any picture's long side: none is scaled down while it is decoded."""
MERGE_IOU = 0.5
"""Boxes of two windows are less alike than those of one: the scale differs."""
PIECE = 0.6
"""Share of a piece that lies in another box of its class, from which on it is part of it."""
MAX_WINDOWS = 10_000
"""In one picture; more would keep a thread for minutes, and their boxes in memory."""
_MARGIN = 0.01
"""Share of a window's side within which a box touches the edge."""
_BANDS = 64
"""Of rows, at most, in which boxes are compared."""
_PAIRS = 1 << 18
"""Boxes that are compared at a time."""


class Window(NamedTuple):
    """A part of a picture, in its pixels at full size; half-open."""

    x0: int
    y0: int
    x1: int
    y1: int


class _Found(NamedTuple):
    """Boxes of windows of one picture, in its pixels."""

    boxes_xyxy: FloatArray
    scores: FloatArray
    class_ids: IntArray
    windows: IntArray
    """(N,) which window each box is from."""
    cut: NDArray[np.bool_]
    """(N,) whether an edge inside the picture may cut the object off."""

    def at(self, kept: IntArray | slice) -> _Found:
        """These boxes, in this order."""
        boxes, scores, class_ids, windows, cut = self
        return _Found(boxes[kept], scores[kept], class_ids[kept], windows[kept], cut[kept])


def _joined(parts: Sequence[_Found]) -> _Found:
    boxes, scores, class_ids, windows, cut = zip(*parts, strict=True)
    return _Found(
        np.concatenate(boxes),
        np.concatenate(scores),
        np.concatenate(class_ids),
        np.concatenate(windows),
        np.concatenate(cut),
    )


class TiledDetector:
    """A detector over windows and the whole picture. Implements records.Model.

    Pictures no larger than a window are left to the detector, those of more than MAX_WINDOWS are
    refused with ModelError. Of the boxes of a class:

    1. a box that ends within 1 % of a window's side from an edge inside the picture is a piece;
    2. boxes of different windows with an IoU above the threshold are one object: whole ones go
       before pieces, then the better score;
    3. a piece goes where 60 % of it lie in a whole box, or where 60 % of the smaller of two pieces
       lie in the other; a piece that no other window completes remains.
    """

    def __init__(
        self, detector: Model, *, tile: int, overlap: float, nms_iou: float, max_boxes: int
    ) -> None:
        """tile: side of a window in pixels; overlap: share of it, below 1."""
        self.min_long_side, self.min_short_side = FULL_SIZE, 0
        self.batch_size = detector.batch_size
        self._detector, self._tile, self._overlap = detector, tile, overlap
        self._iou, self._max_boxes = min(nms_iou, MERGE_IOU), max_boxes

    def analyze(self, images: Sequence[DecodedImage]) -> list[Result]:
        """The boxes of each image, in the order of the images."""
        return [self._detections(image) for image in images]

    def _detections(self, image: DecodedImage) -> Detections:
        if max(image.width, image.height) <= self._tile:
            return cast("Detections", self._detector.analyze([image])[0])
        windows = self._windows(image)
        # Last: of boxes with one score the earlier remains, and a window's fits more closely.
        windows.append(Window(0, 0, image.width, image.height))
        parts = []
        numbers = iter(range(len(windows)))
        while batch := list(islice(numbers, self.batch_size)):
            pictures = [view(image, windows[i]) for i in batch]
            for i, result in zip(batch, self._detector.analyze(pictures), strict=True):
                parts.append(_in_picture(cast("Detections", result), i, windows[i], image))
        kept = _merged(_joined(parts), self._iou)
        best = kept.at(np.argsort(-kept.scores, kind="stable")[: self._max_boxes])
        return Detections(best.boxes_xyxy, best.scores, best.class_ids)

    def _windows(self, image: DecodedImage) -> list[Window]:
        """Raises: ModelError if there are more than MAX_WINDOWS."""
        sides = (image.width, image.height)
        across, down = (len(_starts(side, self._tile, self._overlap)) for side in sides)
        if across * down > MAX_WINDOWS:
            raise ModelError(
                f"{image.width} x {image.height} pixels: {across * down:,} windows of {self._tile} "
                f"with an overlap of {self._overlap:g}, expected {MAX_WINDOWS:,} at most; choose a "
                "larger --tile or a smaller --overlap"
            )
        return list(windows_of(*sides, self._tile, self._overlap))


def windows_of(width: int, height: int, tile: int, overlap: float) -> Iterator[Window]:
    """Windows that cover a picture, row by row; the last of a row or column ends at its edge."""
    for y in _starts(height, tile, overlap):
        for x in _starts(width, tile, overlap):
            yield Window(x, y, min(x + tile, width), min(y + tile, height))


def view(image: DecodedImage, window: Window) -> DecodedImage:
    """A window's pixels, not copied, as a picture of the window's size."""
    height, width = image.pixels.shape[:2]
    x0, x1 = (round(x * width / image.width) for x in (window.x0, window.x1))
    y0, y1 = (round(y * height / image.height) for y in (window.y0, window.y1))
    pixels = image.pixels[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    return DecodedImage(pixels, window.x1 - window.x0, window.y1 - window.y0)


def _merged(found: _Found, iou: float) -> _Found:
    """One box for each object, by the rules of TiledDetector."""
    # What comes first takes others away: whole ones, then by falling score.
    ranked = found.at(np.lexsort((-found.scores, found.cut)))
    firsts, seconds = _same_objects(ranked, iou)
    owners, starts = np.unique(firsts, return_index=True)
    remains = np.ones(len(ranked.scores), bool)
    for owner, others in zip(owners.tolist(), np.split(seconds, starts[1:]), strict=False):
        if remains[owner]:
            remains[others] = False
    return ranked.at(np.flatnonzero(remains))


def _same_objects(ranked: _Found, iou: float) -> tuple[IntArray, IntArray]:
    """Pairs of boxes that show one object: indices of what goes before, rising, and of the rest."""
    found = [np.zeros((2, 0), np.int64)]
    for pairs in _neighbors(ranked):
        kept = pairs[:, ranked.windows[pairs[0]] != ranked.windows[pairs[1]]]
        found.append(kept[:, _same_object(ranked.at(kept[0]), ranked.at(kept[1]), iou)])
    firsts, seconds = np.concatenate(found, axis=1)
    order = np.argsort(firsts, kind="stable")
    return firsts[order], seconds[order]


def _neighbors(found: _Found) -> Iterator[IntArray]:
    """Pairs (2, P) of boxes of a class that meet in rows and columns, the lower index first.

    Each pair once, some at a time. The picture is cut into bands of rows, and a band's boxes are
    sorted by their left sides, so few are compared that do not meet.
    """
    if not len(found.scores):
        return
    boxes = found.boxes_xyxy.astype(np.float64) - found.boxes_xyxy[:, [0, 1, 0, 1]].min(axis=0)
    height = max(np.median(boxes[:, 3] - boxes[:, 1]), boxes[:, 3].max() / _BANDS, 1.0)
    top, bottom = (boxes[:, [1, 3]].T // height).astype(np.int64)
    box = np.repeat(np.arange(len(boxes)), bottom - top + 1)
    band = top[box] + _steps(bottom - top + 1)
    # Class and band, then the left side, as one number.
    offset = (found.class_ids[box] * (band.max() + 1) + band) * (boxes[:, 2].max() + 1)
    left = offset + boxes[box, 0]
    order = np.argsort(left)
    box, band, left, right = box[order], band[order], left[order], (offset + boxes[box, 2])[order]
    behind = np.maximum(np.searchsorted(left, right) - np.arange(1, len(box) + 1), 0)
    done = np.cumsum(behind)
    row = 0
    while row < len(box):
        end = max(row + 1, int(np.searchsorted(done, done[row] - behind[row] + _PAIRS, "right")))
        a = np.repeat(np.arange(row, end), behind[row:end])
        b = a + 1 + _steps(behind[row:end])
        # Boxes that share several bands are a pair in the first of these.
        once = band[a] == np.maximum(top[box[a]], top[box[b]])
        yield np.sort(np.stack([box[a[once]], box[b[once]]]), axis=0)
        row = end


def _steps(counts: IntArray) -> IntArray:
    """0, 1, … below each count, one after the other."""
    steps: IntArray = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return steps


def _same_object(firsts: _Found, seconds: _Found, iou: float) -> NDArray[np.bool_]:
    """(P,) of pairs of a class and of different windows: whether the second shows the first's."""
    low = np.maximum(firsts.boxes_xyxy[:, :2], seconds.boxes_xyxy[:, :2])
    high = np.minimum(firsts.boxes_xyxy[:, 2:], seconds.boxes_xyxy[:, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=1)
    area, areas = _areas(firsts.boxes_xyxy), _areas(seconds.boxes_xyxy)
    smaller = np.where(firsts.cut, np.minimum(area, areas), areas)
    alike = both > iou * (area + areas - both)
    same: NDArray[np.bool_] = alike | (seconds.cut & (both > PIECE * smaller))
    return same


def _in_picture(found: Detections, number: int, window: Window, image: DecodedImage) -> _Found:
    """A window's boxes in the picture's pixels."""
    boxes = found.boxes_xyxy.astype(np.float32)
    margin = _MARGIN * np.array([window.x1 - window.x0, window.y1 - window.y0] * 2, np.float32)
    low = (boxes <= margin)[:, :2] & (np.array(window[:2]) > 0)
    ends = np.array(window[2:]) - np.array(window[:2])
    inner = np.array(window[2:]) < np.array([image.width, image.height])
    high = (boxes[:, 2:] >= ends - margin[:2]) & inner
    return _Found(
        boxes + np.array(window[:2] * 2, np.float32),
        found.scores.astype(np.float32),
        found.class_ids,
        np.full(len(boxes), number),
        (low | high).any(axis=1),
    )


def _areas(boxes_xyxy: FloatArray) -> FloatArray:
    areas: FloatArray = np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1)
    return areas


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where windows begin along one side."""
    if length <= tile:
        return [0]
    step = max(1, round(tile * (1 - overlap)))
    return [*range(0, length - tile, step), length - tile]
