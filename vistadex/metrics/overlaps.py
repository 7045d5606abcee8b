"""Which detection overlaps which box of the truth, over many images at once.

Shape letter: P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vistadex.metrics.columns import BoolArray, Found, Truth
from vistadex.records import DoubleArray, IntArray

_AT_A_TIME = 500_000
"""Pairs whose overlap is computed at once."""


class Pairs(NamedTuple):
    """Detections with boxes of the truth in their image: by detection, then as the truth stands."""

    found: IntArray
    """(P,) positions of detections."""
    truth: IntArray
    """(P,) positions in the truth."""
    iou: DoubleArray
    """(P,) intersection over union; over the detection's area where the truth is a crowd."""

    def take(self, which: IntArray | BoolArray) -> Pairs:
        """Some of the pairs, by position or mask."""
        return Pairs(self.found[which], self.truth[which], self.iou[which])


def overlapping(
    found: Found,
    truth: Truth,
    *,
    at_least: float,
    same_class: bool = True,
    crowd_by_detection: bool = True,
) -> Pairs:
    """The pairs of one image, and where asked of one class, that overlap so far.

    Args:
        at_least: smallest intersection over union; 0 for any common pixel.
        crowd_by_detection: whether the overlap with a crowd is the share of the detection in it.
    Source: COCO's maskUtils.iou, to the bit.
    """
    some = list(_parts(found, truth, same_class))
    taken = [
        Pairs(f[keep], t[keep], iou[keep])
        for f, t in some
        for iou in [_iou(found, truth, f, t, crowd_by_detection)]
        for keep in [(iou >= at_least) & (iou > 0)]
    ]
    nothing = np.zeros(0, np.int64)
    return Pairs(
        np.concatenate([nothing, *(one.found for one in taken)]),
        np.concatenate([nothing, *(one.truth for one in taken)]),
        np.concatenate([np.zeros(0), *(one.iou for one in taken)]),
    )


def _parts(found: Found, truth: Truth, same_class: bool) -> Iterator[tuple[IntArray, IntArray]]:
    """Every pair of one image, some at a time."""
    many = max(truth.class_count, int(found.classes.max(initial=-1)) + 1) if same_class else 1
    said = truth.images * many + (truth.classes if same_class else 0)
    asked = found.images * many + (found.classes if same_class else 0)
    order = np.argsort(said, kind="stable")
    low = np.searchsorted(said[order], asked, "left")
    counts = np.searchsorted(said[order], asked, "right") - low
    ends = np.cumsum(counts)
    cuts = np.searchsorted(ends, np.arange(_AT_A_TIME, ends[-1] if len(ends) else 0, _AT_A_TIME))
    for part in np.split(np.arange(len(found)), np.unique(cuts)):
        number = counts[part]
        of_found = np.repeat(part, number)
        within = np.arange(len(of_found)) - np.repeat(np.cumsum(number) - number, number)
        yield of_found, order[np.repeat(low[part], number) + within]


def _iou(
    found: Found, truth: Truth, f: IntArray, t: IntArray, crowd_by_detection: bool
) -> DoubleArray:
    a, b = found.boxes_xywh[f], truth.boxes_xywh[t]
    sides = np.minimum(a[:, 2:] + a[:, :2], b[:, 2:] + b[:, :2]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    own = a[:, 2] * a[:, 3]
    union = own + b[:, 2] * b[:, 3] - shared
    if crowd_by_detection:
        union = np.where(truth.crowd[t], own, union)
    iou: DoubleArray = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    return iou


def best_first(pairs: Pairs) -> Pairs:
    """Those pairs that remain where the best overlap takes its two boxes, then the next best.

    Of equal overlaps the one that stands first is taken.
    """
    order = np.argsort(-pairs.iou, kind="stable")
    left = pairs.take(order)
    taken = [pairs.take(order[:0])]
    while len(left.iou):
        places = np.arange(len(left.iou))
        first_of_found = places == _first(left.found)[left.found]
        first_of_truth = places == _first(left.truth)[left.truth]
        won = left.take(first_of_found & first_of_truth)
        taken.append(won)
        gone = np.isin(left.found, won.found) | np.isin(left.truth, won.truth)
        left = left.take(~gone)
    return Pairs(*(np.concatenate(parts) for parts in zip(*taken, strict=True)))


def _first(values: IntArray) -> IntArray:
    """For each number up to the largest the first position at which it stands."""
    places = np.full(int(values.max()) + 1, len(values))
    places[values[::-1]] = np.arange(len(values))[::-1]
    return places
