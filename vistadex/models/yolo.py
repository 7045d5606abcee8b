"""YOLO heads with one output: YOLOX, YOLOv5, Ultralytics, and exports with suppression inside.

Heads drop what is below the score first and compute the rest for the few rows that remain.
Shape letters: A rows of the output, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vistadex.boxes import cxcywh_to_xyxy
from vistadex.models.grids import cells, need_rows
from vistadex.models.heads import Candidates, DetectorHead, Fit
from vistadex.models.ports import Signature, only
from vistadex.records import FloatArray, IntArray

MAX_EXPONENT = np.float32(20)
"""Sizes are exponentials; larger ones are far beyond any picture."""
_STRIDES = (8, 16, 32)


class YoloxHead(DetectorHead):
    """YOLOX as its project exports it: [N, A, 5 + C], center and size relative to a grid."""

    preset: ClassVar[str | None] = "yolox"

    def fit(self, signature: Signature) -> Fit:
        """C of [N, A, 5 + C]; A are the cells of the input."""
        index, rows, count = _layout(signature, 1, 2, 5, "[N, A, 5 + classes]")
        width, height = signature.size_wh
        if rows and width and height:
            expected = len(cells(width, height, _STRIDES))
            if rows != expected:
                raise ValueError(f"{rows} rows of output, expected {expected}")
        return Fit(order=(index,), class_count=count)

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        rows, scores, class_ids, kept = _by_objectness(outputs[0], min_score)
        grid = cells(*canvas_wh, _STRIDES)
        need_rows("yolox", len(outputs[0]), len(grid))
        mine = grid[kept]
        strides = mine[:, 2:]
        centers = (rows[:, :2] + mine[:, :2]) * strides
        sizes = np.exp(np.minimum(rows[:, 2:4], MAX_EXPONENT)) * strides
        return Candidates(cxcywh_to_xyxy(np.hstack([centers, sizes])), scores, class_ids)


class YoloV5Head(DetectorHead):
    """YOLOv5 and v7, and YOLOX decoded in the graph: [N, A, 5 + C], cx cy w h in pixels."""

    preset: ClassVar[str | None] = "ultralytics"

    def fit(self, signature: Signature) -> Fit:
        """C of [N, A, 5 + C]."""
        index, rows, count = _layout(signature, 1, 2, 5, "[N, A, 5 + classes]")
        return Fit(order=(index,), class_count=count, likely=_likely(signature, rows, (1, 3)))

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        rows, scores, class_ids, _ = _by_objectness(outputs[0], min_score)
        return Candidates(cxcywh_to_xyxy(rows[:, :4]), scores, class_ids)


class UltralyticsHead(DetectorHead):
    """Ultralytics v8, v9, v11 and v5u: [N, 4 + C, A], cx cy w h in pixels, no objectness."""

    preset: ClassVar[str | None] = "ultralytics"

    def fit(self, signature: Signature) -> Fit:
        """C of [N, 4 + C, A]."""
        index, rows, count = _layout(signature, 2, 1, 4, "[N, 4 + classes, A]")
        return Fit(order=(index,), class_count=count, likely=_likely(signature, rows, (1,)))

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        output = outputs[0]
        scores = output[4:].max(axis=0)
        kept = np.flatnonzero(scores >= min_score)
        columns = output[:, kept]
        class_ids = columns[4:].argmax(axis=0)
        return Candidates(cxcywh_to_xyxy(columns[:4].T), scores[kept], class_ids)


class EndToEndHead(DetectorHead):
    """YOLOv10, YOLO26 and exports with NMS inside: [N, A, 6], x0 y0 x1 y1 score class."""

    preset: ClassVar[str | None] = "ultralytics"
    overlapping: ClassVar[bool] = False

    def fit(self, signature: Signature) -> Fit:
        """[N, A, 6] does not say how many classes there are."""
        expected = "one of [N, A, 6]"
        index = only(
            signature.outputs,
            expected,
            lambda port: len(port.shape) == 3 and port.shape[2] in (6, None),
        )
        return Fit(order=(index,))

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        rows = outputs[0][outputs[0][:, 4] >= min_score]
        return Candidates(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64))


def _by_objectness(
    output: FloatArray, min_score: float
) -> tuple[FloatArray, FloatArray, IntArray, IntArray]:
    """Rows of (A, 5 + C) with at least that score; their scores, classes and indices.

    The score, objectness times class, is at most the objectness: that alone drops most rows.
    """
    kept = np.flatnonzero(output[:, 4] >= min_score)
    rows = output[kept]
    class_ids = rows[:, 5:].argmax(axis=1)
    scores = rows[:, 4] * rows[np.arange(len(rows)), 5 + class_ids]
    enough = scores >= min_score
    return rows[enough], scores[enough], class_ids[enough], kept[enough]


def _layout(
    signature: Signature, row_axis: int, axis: int, offset: int, expected: str
) -> tuple[int, int | None, int | None]:
    """Index of the only output of three axes, its rows, and the classes that one axis leaves."""
    index = only(
        signature.outputs,
        f"one of {expected}",
        lambda port: len(port.shape) == 3 and (port.shape[axis] or offset + 1) > offset,
    )
    shape = signature.outputs[index].shape
    size = shape[axis]
    return index, shape[row_axis], None if size is None else size - offset


def _likely(signature: Signature, rows: int | None, anchors: tuple[int, ...]) -> bool:
    """Whether an output has a row for each anchor of each cell, as most exports have."""
    width, height = signature.size_wh
    if not (rows and width and height):
        return True
    maps = (_STRIDES, (*_STRIDES, 64), (4, *_STRIDES))
    return any(rows == n * len(cells(width, height, m)) for n in anchors for m in maps)
