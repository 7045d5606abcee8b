"""Distillation: what another detector finds in a sample is learned beside the truth.

The teacher looks at the very pixels of the sample, in the worker that made it. Any detector of the
model store can teach: its boxes count as far as it is sure of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vistadex.boxes import box_iou
from vistadex.errors import UsageError
from vistadex.models import ModelAnalyzer, ModelFile
from vistadex.models.analyzers import RunOptions
from vistadex.records import DecodedImage, Detections
from vistadex.training.augmenting import Truth

MIN_SCORE = 0.3
"""Boxes of which the teacher is less sure are not learned."""
SAME_IOU = 0.5
"""What overlaps a true box, or another, so much is the same object."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """A detector and which of its classes are learned; picklable."""

    analyzer: ModelAnalyzer
    labels: tuple[int, ...]
    """For each of its classes the one of the network, or -1."""

    def taught(self, sample: Truth) -> Truth:
        """The sample with the boxes that the teacher finds and the truth does not have.

        Raises: ModelError.
        """
        side = len(sample.pixels)
        (found,) = self.analyzer.load().analyze([DecodedImage(sample.pixels, side, side)])
        assert isinstance(found, Detections)
        labels = np.array(self.labels, np.int64)[found.class_ids]
        boxes = found.boxes_xyxy.astype(np.float32)
        known = box_iou(boxes, sample.boxes).max(axis=1, initial=0.0)
        new = (labels >= 0) & (known < SAME_IOU)
        return Truth(
            sample.pixels,
            np.concatenate([sample.boxes, boxes[new]]),
            np.concatenate([sample.labels, labels[new]]),
            np.concatenate([sample.weights, found.scores[new].astype(np.float32)]),
        )


def teacher_of(file: ModelFile, classes: Sequence[str]) -> Teacher:
    """The teacher that a detector makes for classes of the same names.

    Raises: UsageError if it knows none of them.
    """
    places = {name: i for i, name in enumerate(classes)}
    labels = tuple(places.get(name, -1) for name in file.card.classes)
    if max(labels, default=-1) < 0:
        some = ", ".join(file.card.classes[:5])
        raise UsageError(
            f"--teacher {file.card.name}: knows none of the classes ({', '.join(classes[:5])}), "
            f"expected a detector of the same names; it knows {some}"
        )
    options = RunOptions(min_score=MIN_SCORE, nms_iou=SAME_IOU, device="cpu")
    return Teacher(ModelAnalyzer(file, options), labels)
