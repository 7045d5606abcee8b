"""How far two models say the same of pictures: 1 for the same, 0 for nothing in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vistadex.boxes import box_iou
from vistadex.errors import ModelError
from vistadex.records import Classification, Detections, Failure, Result


def agreement(ours: Sequence[Result | Failure], theirs: Sequence[Result | Failure]) -> float:
    """The mean of what two models say of the same pictures in common.

    Of each picture it is what they share by what both say: 2 * shared / (sum of all scores). Boxes
    of one class share IoU * the lower score, each with its best partner; classes the lower score.
    So it is 1 only where boxes, classes and scores are the same. Where neither says anything it
    is 1.
    """
    shares = [_share(one, other) for one, other in zip(ours, theirs, strict=True)]
    return float(np.mean(shares)) if shares else 1.0


def _share(one: Result | Failure, other: Result | Failure) -> float:
    if isinstance(one, Detections) and isinstance(other, Detections):
        shared = _boxes(one, other)
    elif isinstance(one, Classification) and isinstance(other, Classification):
        theirs = dict(zip(other.class_ids.tolist(), other.scores.tolist(), strict=True))
        mine = zip(one.class_ids.tolist(), one.scores.tolist(), strict=True)
        shared = sum(min(score, theirs.get(class_id, 0.0)) for class_id, score in mine)
    else:
        raise ModelError(
            "only boxes with boxes and classes with classes can be compared; use a detector or a "
            "classifier"
        )
    both = float(one.scores.sum() + other.scores.sum())
    return 2 * shared / both if both else 1.0


def _boxes(one: Detections, other: Detections) -> float:
    """What two sets of boxes share; boxes are paired by falling overlap, each once."""
    if not len(one.scores) or not len(other.scores):
        return 0.0
    same = one.class_ids[:, None] == other.class_ids[None]
    boxes = (each.boxes_xyxy.astype(np.float32) for each in (one, other))
    overlap = np.where(same, box_iou(*boxes), 0)
    overlap = np.where(overlap >= 0.5, overlap, 0)
    shared = 0.0
    while overlap.max() > 0:
        i, j = np.unravel_index(int(overlap.argmax()), overlap.shape)
        shared += float(overlap[i, j] * min(one.scores[i], other.scores[j]))
        overlap[i], overlap[:, j] = 0, 0
    return shared
