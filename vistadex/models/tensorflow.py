"""The head of TensorFlow's detectors: boxes, classes, scores and their count.

Classes are indices into the card's classes, as the network says them: from 1 in TensorFlow's own
exports (class 0 is the background), from 0 in TFLite files. Shape letter: K boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vistadex.models.heads import Candidates, DetectorHead, Fit
from vistadex.models.ports import Port, Signature, could_be, stem
from vistadex.records import FloatArray

_KINDS = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
_TFLITE = "tflite_detection_postprocess"


class TensorflowHead(DetectorHead):
    """Boxes [N, K, 4] y0 x0 y1 x1 from 0 to 1, classes [N, K], scores [N, K], their count [N]."""

    preset: ClassVar[str | None] = "tensorflow"
    overlapping: ClassVar[bool] = False
    certain: ClassVar[bool] = True

    def fit(self, signature: Signature) -> Fit:
        """Which output is which, by name: detection_boxes … or TFLite_Detection_PostProcess:1 …"""
        outputs = signature.outputs
        kinds = [_kind(port) for port in outputs]
        order = tuple(kinds.index(kind) for kind in _KINDS if kinds.count(kind) == 1)
        shapes = [outputs[i].shape for i in order]
        if len(order) != 4 or not (
            could_be(shapes[0], None, None, 4)
            and could_be(shapes[1], None, None)
            and could_be(shapes[2], None, None)
            and could_be(shapes[3], None)
        ):
            raise ValueError(
                f"outputs {'; '.join(map(str, outputs))}; expected detection_boxes [N, K, 4], "
                "detection_classes [N, K], detection_scores [N, K], num_detections [N]"
            )
        return Fit(order=order)

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        boxes, classes, scores, count = outputs
        kept = np.flatnonzero(scores[: int(count)] >= min_score)
        corners = boxes[kept][:, [1, 0, 3, 2]] * np.array(canvas_wh * 2, np.float32)
        return Candidates(corners, scores[kept], np.rint(classes[kept]).astype(np.int64))


def _kind(port: Port) -> str:
    """The output's name among _KINDS; its own where it has none of them."""
    if stem(port.name) != _TFLITE:
        return stem(port.name)
    number = port.name.rpartition(":")[2] if ":" in port.name else "0"
    return dict(zip("0123", _KINDS, strict=True)).get(number, "")
