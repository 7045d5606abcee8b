"""Pascal VOC's average precision, with 11 points (2007) and with all points (2010 on).

Shape letters: D detections, N boxes of the truth, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vistadex.metrics.columns import BoolArray, Found, Truth
from vistadex.metrics.overlaps import overlapping
from vistadex.records import DoubleArray, IntArray

Year = Literal[2007, 2010]
_ELEVEN = np.linspace(0, 1, 11)


@dataclass(frozen=True, slots=True)
class ClassAp:
    """Average precision of each class, and their mean."""

    per_class: DoubleArray
    """(K,) in [0, 1]; -1 for a class without truth."""
    curves: tuple[tuple[DoubleArray, DoubleArray], ...]
    """Recall and precision of each class, by falling score."""

    @property
    def mean(self) -> float:
        """mAP over the classes that have truth; -1 where none has."""
        known = self.per_class[self.per_class >= 0]
        return float(known.mean()) if len(known) else -1.0


def voc_ap(truth: Truth, found: Found, *, year: Year = 2010, iou: float = 0.5) -> ClassAp:
    """VOC's average precision: a difficult object counts neither found nor missed.

    A detection stands for the object that it overlaps most; of several for one the surest is right.
    Crowds, which VOC does not have, are taken as difficult.

    Args:
        year: 2007: the mean of 11 points; 2010: the area below the whole curve.
        iou: overlap from which an object is found.
    Source: VOCevaldet.m and VOCap.m of the development kits of 2007 and 2010.
    """
    left_out = truth.difficult | truth.crowd
    right, ignored = first_of_best(truth, found, left_out, iou)
    wanted = np.bincount(truth.classes[~left_out], minlength=truth.class_count)
    kept = ~ignored
    weights = right[kept].astype(np.float64)
    return class_ap(found.classes[kept], found.scores[kept], weights, wanted, year)


def first_of_best(
    truth: Truth, found: Found, left_out: BoolArray, iou: float
) -> tuple[BoolArray, BoolArray]:
    """(D,) which detections are right, and which count for nothing.

    Each stands for the box of its class that it overlaps most, of equal ones the first.
    """
    pairs = overlapping(found, truth, at_least=iou, crowd_by_detection=False)
    order = np.lexsort((-pairs.iou, pairs.found))
    first = np.diff(pairs.found[order], prepend=-1) > 0
    mine = pairs.take(order[first])
    right, ignored = np.zeros(len(found), np.bool_), np.zeros(len(found), np.bool_)
    ignored[mine.found[left_out[mine.truth]]] = True
    mine = mine.take(~left_out[mine.truth])
    surest = np.lexsort((-found.scores[mine.found], mine.truth))
    right[mine.found[surest[np.diff(mine.truth[surest], prepend=-1) > 0]]] = True
    return right, ignored


def class_ap(
    classes: IntArray,
    scores: DoubleArray,
    right: DoubleArray,
    wanted: IntArray | DoubleArray,
    year: Year,
) -> ClassAp:
    """Average precision from what is right.

    Args:
        right: (D,) how much each detection is right: 1, or 0, or the weight of a group.
        wanted: (K,) boxes that are to be found.
    """
    order = np.lexsort((-scores, classes))
    ends = np.searchsorted(classes[order], np.arange(len(wanted) + 1))
    per_class, curves = np.full(len(wanted), -1.0), []
    for class_id, number in enumerate(wanted):
        hits = right[order[ends[class_id] : ends[class_id + 1]]]
        hit, missed = np.cumsum(hits), np.cumsum(hits == 0)
        recall = hit / number if number else np.zeros(len(hits))
        precision = hit / np.maximum(hit + missed, 1e-12)
        curves.append((recall, precision))
        if number:
            per_class[class_id] = _POINTS[year](recall, precision)
    return ClassAp(per_class, tuple(curves))


def _eleven(recall: DoubleArray, precision: DoubleArray) -> float:
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # VOCap's steps of 0.1 are rounded; a recall of 3/10 has reached the third.
    at = np.searchsorted(recall, _ELEVEN - 1e-9, "left")
    return float(np.append(best, 0.0)[at].mean())


def _whole(recall: DoubleArray, precision: DoubleArray) -> float:
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * best).sum())


_POINTS = {2007: _eleven, 2010: _whole}
