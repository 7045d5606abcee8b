"""Detector heads, one class for each output layout, and the detector that runs one.

Heads drop what is below the score first and compute the rest for the few rows that remain.
Shape letters: A rows of the output, C classes, K rows that remain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import cv2
import numpy as np

from vistadex.boxes import clip, cxcywh_to_xyxy
from vistadex.errors import ModelError
from vistadex.models.heads import Candidates, DetectorHead, Shape
from vistadex.models.network import Network, Output, check_finite
from vistadex.records import DecodedImage, Detections, FloatArray, IntArray, Result

_MAX_EXPONENT = np.float32(20)
# OpenCV's stubs ask for sequences; it takes arrays, much faster.
_nms_by_class: Callable[..., Any] = cv2.dnn.NMSBoxesBatched


class YoloxHead:
    """YOLOX as its project exports it: [N, A, 5 + C], center and size relative to a grid."""

    preset: ClassVar[str | None] = "yolox"
    overlapping: ClassVar[bool] = True

    def class_count(self, shape: Shape) -> int | None:
        """C of [N, A, 5 + C]."""
        return _count(shape, 2, 5, "[N, A, 5 + classes]")

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        rows, scores, class_ids, kept = _by_objectness(outputs[0], min_score)
        grid = _yolox_grid(*canvas_wh)
        if len(grid) != len(outputs[0]):
            raise ModelError(f"head yolox: {len(outputs[0])} rows of output, expected {len(grid)}")
        cells = grid[kept]
        strides = cells[:, 2:]
        centers = (rows[:, :2] + cells[:, :2]) * strides
        sizes = np.exp(np.minimum(rows[:, 2:4], _MAX_EXPONENT)) * strides
        return Candidates(cxcywh_to_xyxy(np.hstack([centers, sizes])), scores, class_ids)


class YoloV5Head:
    """YOLOv5 and v7, and YOLOX decoded in the graph: [N, A, 5 + C], cx cy w h in pixels."""

    preset: ClassVar[str | None] = "ultralytics"
    overlapping: ClassVar[bool] = True

    def class_count(self, shape: Shape) -> int | None:
        """C of [N, A, 5 + C]."""
        return _count(shape, 2, 5, "[N, A, 5 + classes]")

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        rows, scores, class_ids, _ = _by_objectness(outputs[0], min_score)
        return Candidates(cxcywh_to_xyxy(rows[:, :4]), scores, class_ids)


class UltralyticsHead:
    """Ultralytics v8, v9, v11 and v5u: [N, 4 + C, A], cx cy w h in pixels, no objectness."""

    preset: ClassVar[str | None] = "ultralytics"
    overlapping: ClassVar[bool] = True

    def class_count(self, shape: Shape) -> int | None:
        """C of [N, 4 + C, A]."""
        return _count(shape, 1, 4, "[N, 4 + classes, A]")

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


class EndToEndHead:
    """YOLOv10, YOLO26 and exports with NMS inside: [N, A, 6], x0 y0 x1 y1 score class."""

    preset: ClassVar[str | None] = "ultralytics"
    overlapping: ClassVar[bool] = False

    def class_count(self, shape: Shape) -> int | None:
        """None: [N, A, 6] does not say."""
        _count(shape, 2, 5, "[N, A, 6]")
        if shape[2] not in (6, None):
            raise ValueError(f"output {list(shape)}, expected [N, A, 6]")
        return None

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        rows = outputs[0][outputs[0][:, 4] >= min_score]
        return Candidates(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64))


class Detector:
    """A network that finds boxes. Implements records.Model; safe to share between threads."""

    def __init__(
        self,
        network: Network,
        head: DetectorHead,
        class_count: int,
        *,
        min_score: float,
        nms_iou: float,
        max_boxes: int,
    ) -> None:
        self.min_long_side, self.min_short_side = network.preprocessor.min_sides
        self.batch_size = network.batch_size
        self._network, self._head, self._class_count = network, head, class_count
        self._min_score, self._nms_iou, self._max_boxes = min_score, nms_iou, max_boxes

    def analyze(self, images: Sequence[DecodedImage]) -> list[Result]:
        """The boxes of each image, in the order of the images.

        Raises: ModelError if the output holds NaN, a box that is not finite or an unknown class.
        """
        found: dict[int, Result] = {}
        for output in self._network.run(images):
            found[output.image] = self._detections(output, images[output.image])
        return [found[i] for i in range(len(images))]

    def _detections(self, output: Output, image: DecodedImage) -> Detections:
        placement = output.placement
        # A head drops NaN as below its score: a broken network would seem to find nothing.
        if any(np.isnan(tensor.min()) for tensor in output.tensors if tensor.size):
            raise ModelError("the output holds NaN; the model or its card is bad")
        candidates = self._head.decode(output.tensors, placement.canvas_wh, self._min_score)
        check_finite("boxes or scores", candidates.boxes_xyxy, candidates.scores)
        kept = self._kept(candidates)
        boxes = placement.to_image(candidates.boxes_xyxy[kept], image.width, image.height)
        boxes = clip(boxes, image.width, image.height)
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        class_ids = candidates.class_ids[kept][inside]
        unknown = class_ids[(class_ids < 0) | (class_ids >= self._class_count)]
        if len(unknown):
            raise ModelError(
                f"class {unknown[0]} in the output, the card names {self._class_count}"
            )
        scores = np.minimum(candidates.scores[kept][inside], np.float32(1))
        return Detections(boxes[inside], scores, class_ids.astype(np.int64))

    def _kept(self, found: Candidates) -> IntArray:
        """Indices of the boxes that remain, by falling score."""
        if not self._head.overlapping or len(found.scores) < 2:
            return np.argsort(-found.scores, kind="stable")[: self._max_boxes]
        xywh = found.boxes_xyxy.astype(np.float64)
        xywh[:, 2:] -= xywh[:, :2]
        class_ids = found.class_ids.astype(np.int32)
        kept = _nms_by_class(xywh, found.scores, class_ids, 0.0, self._nms_iou)
        return np.asarray(kept, np.int64).reshape(-1)[: self._max_boxes]


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


@lru_cache(maxsize=256)
def _yolox_grid(width: int, height: int) -> FloatArray:
    """(A, 3) column, row and stride of every cell, in the order of the output."""
    levels = []
    for stride in (8, 16, 32):
        columns, rows = np.meshgrid(np.arange(width // stride), np.arange(height // stride))
        levels.append(np.stack([columns, rows, np.full_like(rows, stride)], axis=-1).reshape(-1, 3))
    return np.concatenate(levels).astype(np.float32)


def _count(shape: Shape, axis: int, offset: int, expected: str) -> int | None:
    """How many classes one axis of an output leaves beside its first numbers."""
    if len(shape) != 3 or (shape[axis] or offset + 1) <= offset:
        raise ValueError(f"output {list(shape)}, expected {expected}")
    size = shape[axis]
    return None if size is None else size - offset
