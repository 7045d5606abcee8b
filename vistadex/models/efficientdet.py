"""EfficientDet heads: exports that suppress in the graph, and the raw outputs with anchors.

Shape letters: K boxes, A anchors, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import numpy as np

from vistadex.boxes import cxcywh_to_xyxy
from vistadex.models.grids import cells, need_rows
from vistadex.models.heads import Candidates, DetectorHead, Fit
from vistadex.models.ports import Signature, could_be, named, only
from vistadex.models.yolo import MAX_EXPONENT
from vistadex.records import FloatArray

_STRIDES = (8, 16, 32, 64, 128)
_SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
_RATIOS_WH = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))
_D7_SIDE = 1536


class EfficientdetHead(DetectorHead):
    """EfficientDet with NMS inside: [N, K, 7], picture y0 x0 y1 x1 score class, in pixels.

    Classes are indices into the card's classes; they begin at 1, class 0 is the background.
    """

    preset: ClassVar[str | None] = "efficientdet"
    overlapping: ClassVar[bool] = False

    def fit(self, signature: Signature) -> Fit:
        """[N, K, 7] does not say how many classes there are."""
        index = only(
            signature.outputs, "one of [N, K, 7]", lambda port: could_be(port.shape, None, None, 7)
        )
        if signature.outputs[index].shape[2] is None:
            raise ValueError("an output of open width, expected [N, K, 7]")
        return Fit(order=(index,))

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        rows = outputs[0][outputs[0][:, 5] >= min_score]
        return Candidates(rows[:, [2, 1, 4, 3]], rows[:, 5], np.rint(rows[:, 6]).astype(np.int64))


class EfficientdetRawHead(DetectorHead):
    """EfficientDet before its boxes: regression [N, A, 4] dy dx dh dw, classification [N, A, C].

    Classification is in [0, 1]. Anchors are those the networks were published with: levels 3 to 7,
    3 scales, 3 ratios, 4 times the stride (5 times for D7, at 1536 pixels).
    """

    preset: ClassVar[str | None] = "efficientdet-raw"

    def fit(self, signature: Signature) -> Fit:
        """C of the classification, by name or else by shape; other outputs are passed over."""
        outputs = signature.outputs
        boxes, scores = named(outputs, "regression"), named(outputs, "classification")
        if boxes is None:
            boxes = only(
                outputs, "regression [N, A, 4]", lambda port: could_be(port.shape, None, None, 4)
            )
        if scores is None:
            scores = only(
                outputs,
                "classification [N, A, classes]",
                lambda port: len(port.shape) == 3 and port.shape[2] != 4,
            )
        shape = outputs[scores].shape
        if not could_be(outputs[boxes].shape, None, None, 4) or len(shape) != 3:
            raise ValueError("expected regression [N, A, 4] and classification [N, A, classes]")
        _need_anchors(signature, (outputs[boxes].shape[1], shape[1]))
        return Fit(order=(boxes, scores), class_count=shape[2])

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        regression, scores = outputs
        anchors = _anchors(*canvas_wh)
        need_rows("efficientdet-raw", len(scores), len(anchors))
        best = scores.max(axis=1)
        kept = np.flatnonzero(best >= min_score)
        moves, mine = regression[kept], anchors[kept]
        centers = moves[:, [1, 0]] * mine[:, 2:] + mine[:, :2]
        sizes = np.exp(np.minimum(moves[:, [3, 2]], MAX_EXPONENT)) * mine[:, 2:]
        boxes = cxcywh_to_xyxy(np.hstack([centers, sizes]))
        return Candidates(boxes, best[kept], scores[kept].argmax(axis=1))


def _need_anchors(signature: Signature, found: tuple[int | None, int | None]) -> None:
    width, height = signature.size_wh
    if width and height:
        expected = len(_anchors(width, height))
        if any(rows not in (None, expected) for rows in found):
            raise ValueError(f"{found[0]} rows of output, expected {expected}")


@lru_cache(maxsize=64)
def _anchors(width: int, height: int) -> FloatArray:
    """(A, 4) center and size in pixels: by level, cell, scale and ratio."""
    grid = cells(width, height, _STRIDES)
    factor = 5.0 if max(width, height) == _D7_SIDE else 4.0
    shapes = np.array([(s * w, s * h) for s in _SCALES for w, h in _RATIOS_WH]) * factor
    strides = grid[:, None, 2:]
    sizes = shapes[None] * strides
    centers = np.broadcast_to((grid[:, None, :2] + 0.5) * strides, sizes.shape)
    return np.concatenate([centers, sizes], axis=2).reshape(-1, 4).astype(np.float32)
