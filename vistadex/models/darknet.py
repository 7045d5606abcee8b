"""YOLOv3 and YOLOv4 heads: the raw maps of three scales, and the exports of two projects.

The raw maps mean the anchors that the networks were published with, for COCO; a network trained
with others has to be exported with its boxes computed in the graph.
Shape letters: A candidates, C classes, K boxes, g rows or columns of a map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from vistadex.boxes import cxcywh_to_xyxy
from vistadex.errors import ModelError
from vistadex.models.grids import sigmoid
from vistadex.models.heads import Candidates, DetectorHead, ExtraInput, Fit
from vistadex.models.ports import INTEGERS, Port, Signature, could_be, only, shape_text
from vistadex.models.yolo import MAX_EXPONENT
from vistadex.records import FloatArray

_STRIDES = (8, 16, 32)
_V3_ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
_V4_ANCHORS = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)


class YoloV3Head(DetectorHead):
    """YOLOv3 without its last layers: three of [N, 3 * (5 + C), g, g] or [N, 3, g, g, 5 + C]."""

    preset: ClassVar[str | None] = "yolov3"
    anchors: ClassVar[tuple[tuple[tuple[int, int], ...], ...]] = _V3_ANCHORS
    """Width and height in pixels, three for each scale."""
    spread: ClassVar[tuple[float, ...]] = (1.0, 1.0, 1.0)
    """How far a center may leave its cell, for each scale; darknet's scale_x_y."""

    def fit(self, signature: Signature) -> Fit:
        """C of the three maps; which is which, their sizes say."""
        outputs = signature.outputs
        counts = {_map_classes(port) for port in outputs}
        if len(outputs) != 3 or len(counts) != 1 or -1 in counts:
            texts = "; ".join(shape_text(port.shape) for port in outputs)
            raise ValueError(
                f"outputs {texts}, expected three of [N, 3 * (5 + classes), g, g] "
                "or [N, 3, g, g, 5 + classes]"
            )
        return Fit(order=(0, 1, 2), class_count=counts.pop())

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        return self._read([_by_anchor(output) for output in outputs], canvas_wh, min_score)

    def _read(
        self, maps: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of (3, g, g, 5 + C) maps in any order."""
        width, height = canvas_wh
        found = []
        ordered = sorted(maps, key=lambda one: -one.shape[1])
        for one, stride, anchors, spread in zip(
            ordered, _STRIDES, self.anchors, self.spread, strict=True
        ):
            expected = (-(-height // stride), -(-width // stride))
            if one.shape[1:3] != expected:
                raise ModelError(
                    f"a map of {one.shape[1]}x{one.shape[2]} cells at stride {stride}, expected "
                    f"{expected[0]}x{expected[1]}; the model or its head is another"
                )
            found.append(self._scale(one, stride, anchors, spread, min_score))
        boxes, scores, class_ids = (np.concatenate(each) for each in zip(*found, strict=True))
        return Candidates(boxes, scores, class_ids)

    def _scale(
        self,
        one: FloatArray,
        stride: int,
        anchors: Sequence[tuple[int, int]],
        spread: float,
        min_score: float,
    ) -> tuple[FloatArray, ...]:
        """Boxes, scores and classes of one (3, g, g, 5 + C) map."""
        objectness = self._probability(one[..., 4])
        anchor, row, column = np.nonzero(objectness >= min_score)
        cell = one[anchor, row, column]
        classes = self._probability(cell[:, 5:])
        class_ids = classes.argmax(axis=1)
        scores = objectness[anchor, row, column] * classes[np.arange(len(cell)), class_ids]
        inside = sigmoid(cell[:, :2]) * np.float32(spread) - np.float32((spread - 1) / 2)
        centers = (inside + np.stack([column, row], axis=1)) * stride
        sizes = np.exp(np.minimum(cell[:, 2:4], MAX_EXPONENT)) * np.array(anchors)[anchor]
        boxes = cxcywh_to_xyxy(np.hstack([centers, sizes]).astype(np.float32))
        enough = scores >= min_score
        return boxes[enough], scores[enough], class_ids[enough]

    def _probability(self, values: FloatArray) -> FloatArray:
        """Objectness or class scores of a map in [0, 1]."""
        return sigmoid(values)


class YoloV4Head(YoloV3Head):
    """YOLOv4 without its last layers: the layouts of yolov3 with YOLOv4's anchors and scales."""

    anchors = _V4_ANCHORS
    spread = (1.2, 1.1, 1.05)


class YoloV4ZooHead(YoloV4Head):
    """YOLOv4 of the ONNX model zoo: three of [N, g, g, 3, 5 + C], scores already in [0, 1]."""

    def fit(self, signature: Signature) -> Fit:
        """C of the three maps."""
        outputs = signature.outputs
        shape = (None, None, None, 3, None)
        sizes = {port.shape[4] for port in outputs if could_be(port.shape, *shape)}
        size = sizes.pop() if len(outputs) == 3 and len(sizes) == 1 else 0
        if size in range(6) or not all(could_be(port.shape, *shape) for port in outputs):
            texts = "; ".join(shape_text(port.shape) for port in outputs)
            raise ValueError(f"outputs {texts}, expected three of [N, g, g, 3, 5 + classes]")
        return Fit(order=(0, 1, 2), class_count=None if size is None else size - 5)

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        for one in outputs:
            if one.ndim != 4 or one.shape[2] != 3 or one.shape[3] < 6:
                raise ModelError(f"a map {list(one.shape)}, expected [g, g, 3, 5 + classes]")
        return self._read([one.transpose(2, 0, 1, 3) for one in outputs], canvas_wh, min_score)

    def _probability(self, values: FloatArray) -> FloatArray:
        return values


class YoloV3ZooHead(DetectorHead):
    """YOLOv3 and tiny YOLOv3 of the ONNX model zoo, which suppress in the graph.

    Outputs: boxes [1, A, 4] y0 x0 y1 x1, scores [1, C, A], indices [K, 3] of batch, class, box. The
    input `image_shape` says in which pixels boxes are; it is given the canvas's size.
    """

    preset: ClassVar[str | None] = "yolov3"
    overlapping: ClassVar[bool] = False
    certain: ClassVar[bool] = True
    extra_inputs: ClassVar[Mapping[str, ExtraInput]] = {"image_shape": "size_hw"}

    def fit(self, signature: Signature) -> Fit:
        """C of the scores."""
        outputs = signature.outputs
        if "image_shape" not in [port.name for port in signature.inputs]:
            raise ValueError("no input image_shape, which this head's networks have")
        chosen = only(
            outputs,
            "indices [K, 3] of batch, class and box",
            lambda port: (
                port.type in INTEGERS and len(port.shape) in (2, 3) and port.shape[-1] in (3, None)
            ),
        )
        boxes = only(
            outputs,
            "boxes [1, A, 4]",
            lambda port: port.type not in INTEGERS and len(port.shape) == 3 and port.shape[2] == 4,
        )
        scores = only(
            outputs,
            "scores [1, classes, A]",
            lambda port: port.type not in INTEGERS and len(port.shape) == 3 and port.shape[2] != 4,
        )
        count = outputs[scores].shape[1]
        return Fit(order=(boxes, scores, chosen), class_count=count, batched=False)

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        boxes, scores, indices = outputs
        chosen = indices.reshape(-1, 3).astype(np.int64)
        # Where the number of rows is fixed, -1 fills those that are left.
        chosen = chosen[(chosen >= 0).all(axis=1)]
        _, class_ids, rows = chosen.T
        values = scores[0][class_ids, rows]
        enough = values >= min_score
        yxyx = boxes[0][rows[enough]]
        return Candidates(yxyx[:, [1, 0, 3, 2]], values[enough], class_ids[enough])


class YoloV4PytorchHead(DetectorHead):
    """YOLOv4 of pytorch-YOLOv4: [N, A, 1, 4] x0 y0 x1 y1 from 0 to 1, and scores [N, A, C]."""

    preset: ClassVar[str | None] = "stretch"
    certain: ClassVar[bool] = True

    def fit(self, signature: Signature) -> Fit:
        """C of the scores."""
        outputs = signature.outputs
        boxes = only(
            outputs, "boxes [N, A, 1, 4]", lambda port: could_be(port.shape, None, None, 1, 4)
        )
        scores = only(outputs, "scores [N, A, classes]", lambda port: len(port.shape) == 3)
        return Fit(order=(boxes, scores), class_count=outputs[scores].shape[2])

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        boxes, scores = outputs
        best = scores.max(axis=1)
        kept = np.flatnonzero(best >= min_score)
        corners = boxes[kept, 0] * np.array(canvas_wh * 2, np.float32)
        return Candidates(corners, best[kept], scores[kept].argmax(axis=1))


def _by_anchor(output: FloatArray) -> FloatArray:
    """One raw map as (3, g, g, 5 + C).

    Raises: ModelError if it is none.
    """
    shape = output.shape
    if output.ndim == 3 and shape[0] % 3 == 0 and shape[0] > 15:
        return output.reshape(3, shape[0] // 3, *shape[1:]).transpose(0, 2, 3, 1)
    if output.ndim == 4 and shape[0] == 3 and shape[3] > 5:
        return output
    raise ModelError(
        f"a map {list(shape)}, expected [3 * (5 + classes), g, g] or [3, g, g, 5 + classes]"
    )


def _map_classes(port: Port) -> int | None:
    """C of one raw map; -1 where it is none."""
    shape = port.shape
    if could_be(shape, None, 3, None, None, None):
        size = shape[4]
        return None if size is None else max(-1, size - 5)
    if len(shape) == 4:
        size = shape[1]
        return None if size is None else size // 3 - 5 if size % 3 == 0 and size > 15 else -1
    return -1
