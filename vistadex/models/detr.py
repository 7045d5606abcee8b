"""Heads of the DETR family: a set of boxes, without suppression.

Shape letters: Q queries, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from vistadex.boxes import cxcywh_to_xyxy
from vistadex.models.grids import sigmoid
from vistadex.models.heads import Candidates, DetectorHead, ExtraInput, Fit
from vistadex.models.ports import INTEGERS, Port, Signature, could_be, named, only
from vistadex.models.ssd import read_triple, triple
from vistadex.records import FloatArray, IntArray


class DetrHead(DetectorHead):
    """DETR: logits [N, Q, C + 1] with "no object" last, boxes [N, Q, 4] cx cy w h from 0 to 1."""

    preset: ClassVar[str | None] = "detr"
    overlapping: ClassVar[bool] = False
    extra_inputs: ClassVar[Mapping[str, ExtraInput]] = {"pixel_mask": "ones"}

    def fit(self, signature: Signature) -> Fit:
        """C of the logits, by name or else by shape."""
        order, size = _logits_and_boxes(signature.outputs)
        return Fit(order=order, class_count=None if size is None else size - 1)

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        logits, boxes = outputs
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = powers[:, :-1] / powers.sum(axis=1, keepdims=True)
        best = scores.max(axis=1)
        kept = np.flatnonzero(best >= min_score)
        corners = _corners(boxes, kept, canvas_wh)
        return Candidates(corners, best[kept], scores[kept].argmax(axis=1))


class RtDetrHead(DetectorHead):
    """RT-DETR, D-FINE, Deformable DETR: logits [N, Q, C] for a sigmoid, boxes [N, Q, 4] likewise.

    A query whose box has several classes above the score gives them all, as in these projects.
    """

    preset: ClassVar[str | None] = "stretch"
    overlapping: ClassVar[bool] = False
    extra_inputs: ClassVar[Mapping[str, ExtraInput]] = {"pixel_mask": "ones"}

    def fit(self, signature: Signature) -> Fit:
        """C of the logits, by name or else by shape."""
        order, size = _logits_and_boxes(signature.outputs)
        return Fit(order=order, class_count=size)

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        logits, boxes = outputs
        scores = sigmoid(logits)
        rows, class_ids = np.nonzero(scores >= min_score)
        return Candidates(_corners(boxes, rows, canvas_wh), scores[rows, class_ids], class_ids)


class RtDetrDeployHead(DetectorHead):
    """RT-DETR and D-FINE exported for use: labels [N, Q], boxes [N, Q, 4] in pixels, scores [N, Q].

    The input `orig_target_sizes` says in which pixels boxes are; it is given the canvas's size.
    """

    preset: ClassVar[str | None] = "stretch"
    overlapping: ClassVar[bool] = False
    certain: ClassVar[bool] = True
    extra_inputs: ClassVar[Mapping[str, ExtraInput]] = {"orig_target_sizes": "size_wh"}

    def fit(self, signature: Signature) -> Fit:
        """Which output is which, by name or else by type."""
        if "orig_target_sizes" not in [port.name for port in signature.inputs]:
            raise ValueError("no input orig_target_sizes, which this head's networks have")
        return Fit(order=triple(signature.outputs, (None,)))

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        return read_triple(outputs, np.ones(4, np.float32), min_score)


def _logits_and_boxes(outputs: Sequence[Port]) -> tuple[tuple[int, int], int | None]:
    """Indices of logits and boxes, and the last axis of the logits."""
    logits, boxes = named(outputs, "logits", "pred_logits"), named(outputs, "pred_boxes")
    floats = [port for port in outputs if port.type not in INTEGERS and len(port.shape) == 3]
    if boxes is None:
        boxes = only(outputs, "boxes [N, Q, 4]", lambda p: p in floats and p.shape[2] == 4)
    if logits is None:
        logits = only(outputs, "logits [N, Q, classes]", lambda p: p in floats and p.shape[2] != 4)
    shapes = outputs[logits].shape, outputs[boxes].shape
    if not (could_be(shapes[0], None, None, None) and could_be(shapes[1], None, shapes[0][1], 4)):
        raise ValueError(
            f"outputs {'; '.join(map(str, outputs))}: expected [N, Q, classes] logits "
            "and [N, Q, 4] boxes"
        )
    return (logits, boxes), shapes[0][2]


def _corners(boxes: FloatArray, rows: IntArray, canvas_wh: tuple[int, int]) -> FloatArray:
    """Corners in pixels of some rows of cx cy w h from 0 to 1."""
    return cxcywh_to_xyxy(boxes[rows]) * np.array(canvas_wh * 2, np.float32)
