"""The confusion matrix of a detector: which class is taken for which, and for background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vistadex.metrics.columns import BoolArray, Found, Truth
from vistadex.metrics.overlaps import best_first, overlapping
from vistadex.records import IntArray

IGNORED_SHARE = 0.5
"""What lies so far inside of a crowd or a difficult object is neither right nor wrong."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of boxes by their class and the class that the model gives them. K classes."""

    counts: IntArray
    """(K + 1, K + 1) a row for what it is, a column for what the model says; the last of each is
    background: boxes that are missed, and boxes where nothing is."""


def confusion(
    truth: Truth, found: Found, *, min_score: float = 0.25, iou: float = 0.5
) -> Confusion:
    """The confusion matrix at a score from which detections count.

    Boxes that overlap are one object: first those of one class, the best overlap first, then the
    rest whatever their class. Crowds and difficult objects are not asked for, and what lies in them
    is not counted.

    Args:
        iou: overlap from which two boxes are one object.
    """
    sure = found.take(found.scores >= min_score)
    left_out = truth.crowd | truth.difficult
    asked = truth.take(~left_out)
    pairs = overlapping(sure, asked, at_least=iou, same_class=False)
    same = sure.classes[pairs.found] == asked.classes[pairs.truth]
    agreed = best_first(pairs.take(same))
    free = ~np.isin(pairs.found, agreed.found) & ~np.isin(pairs.truth, agreed.truth)
    renamed = best_first(pairs.take(free & ~same))
    matched_found = np.append(agreed.found, renamed.found)
    matched_truth = np.append(agreed.truth, renamed.truth)
    background = truth.class_count
    counts = np.zeros((background + 1, background + 1), np.int64)
    np.add.at(counts, (asked.classes[matched_truth], sure.classes[matched_found]), 1)
    missed = _others(len(asked), matched_truth)
    counts[:-1, -1] = np.bincount(asked.classes[missed], minlength=background)
    invented = _others(len(sure), matched_found)
    invented &= ~_inside(sure, truth.take(left_out))
    counts[-1, :-1] = np.bincount(sure.classes[invented], minlength=background)
    return Confusion(counts)


def _others(count: int, places: IntArray) -> BoolArray:
    mask = np.ones(count, np.bool_)
    mask[places] = False
    return mask


def _inside(found: Found, areas: Truth) -> BoolArray:
    """Which detections lie in an area by at least IGNORED_SHARE of their own."""
    crowd = areas.take(np.arange(len(areas)))
    crowd.crowd[:] = True
    pairs = overlapping(found, crowd, at_least=IGNORED_SHARE, same_class=False)
    mask = np.zeros(len(found), np.bool_)
    mask[pairs.found] = True
    return mask
