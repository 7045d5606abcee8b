"""Heads that read boxes, labels and scores: torchvision's detectors and the model zoo's SSD.

Labels are indices into the card's classes: where label 0 is the background, so is class 0.
Shape letter: K boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vistadex.models.heads import Candidates, DetectorHead, Fit
from vistadex.models.ports import INTEGERS, Port, Signature, could_be, named, only
from vistadex.records import FloatArray


class TorchvisionHead(DetectorHead):
    """torchvision's detectors: boxes [K, 4] x0 y0 x1 y1 in pixels, labels [K], scores [K]."""

    preset: ClassVar[str | None] = "torchvision"
    overlapping: ClassVar[bool] = False

    def fit(self, signature: Signature) -> Fit:
        """Which output is which, by name or else by type; other outputs are passed over."""
        return Fit(order=triple(signature.outputs, ()), batched=False)

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        return read_triple(outputs, np.ones(4, np.float32), min_score)


class SsdHead(DetectorHead):
    """SSD of the ONNX model zoo: boxes [N, K, 4] from 0 to 1, labels [N, K], scores [N, K]."""

    preset: ClassVar[str | None] = "ssd"
    overlapping: ClassVar[bool] = False

    def fit(self, signature: Signature) -> Fit:
        """Which output is which, by name or else by type; other outputs are passed over."""
        if len(signature.inputs) != 1:
            raise ValueError(f"{len(signature.inputs)} inputs, expected one")
        return Fit(order=triple(signature.outputs, (None,)))

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        return read_triple(outputs, np.array(canvas_wh * 2, np.float32), min_score)


def triple(outputs: Sequence[Port], batch: tuple[None, ...]) -> tuple[int, int, int]:
    """Indices of boxes, labels and scores.

    Args:
        batch: the axes before K.
    Raises: ValueError where neither names nor types tell them apart.
    """

    def find(what: str, names: tuple[str, ...], whole: bool | None, *last: int) -> int:
        shape = (*batch, None, *last)
        by_name = named(outputs, *names)
        if by_name is not None and could_be(outputs[by_name].shape, *shape):
            return by_name
        return only(
            outputs,
            what,
            lambda port: could_be(port.shape, *shape) and whole in (None, port.type in INTEGERS),
        )

    dims = "".join("N, " for _ in batch)
    return (
        find(f"boxes [{dims}K, 4]", ("boxes", "bboxes"), None, 4),
        find(f"labels [{dims}K] of whole numbers", ("labels", "classes"), True),
        find(f"scores [{dims}K]", ("scores",), False),
    )


def read_triple(outputs: Sequence[FloatArray], scale: FloatArray, min_score: float) -> Candidates:
    """The boxes, times scale, with at least that score."""
    boxes, labels, scores = outputs
    kept = np.flatnonzero(scores >= min_score)
    return Candidates(boxes[kept] * scale, scores[kept], labels[kept].astype(np.int64))
