"""The detector: a network and the head that reads its boxes, with suppression and clipping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from vistadex.boxes import clip
from vistadex.errors import ModelError
from vistadex.models.heads import Candidates, DetectorHead
from vistadex.models.network import Network, Output, check_finite
from vistadex.records import DecodedImage, Detections, IntArray, Result

# OpenCV's stubs ask for sequences; it takes arrays, much faster.
_nms_by_class: Callable[..., Any] = cv2.dnn.NMSBoxesBatched


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
        candidates = self._candidates(output)
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

    def _candidates(self, output: Output) -> Candidates:
        """What the head reads.

        Raises: ModelError where shapes that the graph left open are not the head's.
        """
        try:
            found = self._head.decode(output.tensors, output.placement.canvas_wh, self._min_score)
            count = len(found.scores)
            fits = found.boxes_xyxy.shape == (count, 4) and found.class_ids.shape == (count,)
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            raise self._misfit(output) from error
        if not fits or found.scores.ndim != 1:
            raise self._misfit(output)
        return found

    def _misfit(self, output: Output) -> ModelError:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in output.tensors)
        return ModelError(
            f"the outputs {shapes} are not those of {type(self._head).__name__}; the model or its "
            "head is another"
        )

    def _kept(self, found: Candidates) -> IntArray:
        """Indices of the boxes that remain, by falling score."""
        if not self._head.overlapping or len(found.scores) < 2:
            return np.argsort(-found.scores, kind="stable")[: self._max_boxes]
        xywh = found.boxes_xyxy.astype(np.float64)
        xywh[:, 2:] -= xywh[:, :2]
        class_ids = found.class_ids.astype(np.int32)
        kept = _nms_by_class(xywh, found.scores, class_ids, 0.0, self._nms_iou)
        return np.asarray(kept, np.int64).reshape(-1)[: self._max_boxes]
