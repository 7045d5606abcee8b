"""COCO's average precision and recall: 12 numbers as pycocotools gives them, to the last digit.

Shape letters: N boxes of the truth, D detections, C detections that overlap a box of their class,
P pairs of these, K classes, T overlaps, A ranges of areas, V = T x A, R recalls, M box counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vistadex.metrics.columns import BoolArray, Found, Truth, ranks
from vistadex.metrics.overlaps import Pairs, overlapping
from vistadex.records import DoubleArray, IntArray

OVERLAPS = np.linspace(0.5, 0.95, 10)
"""(T,) intersection over union from which a box is found."""
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS: Mapping[str, tuple[float, float]] = {
    "": (0, 1e10),
    "s": (0, 32**2),
    "m": (32**2, 96**2),
    "l": (96**2, 1e10),
}
"""Pixels of what counts as small, medium and large, both ends included."""
MOST_BOXES = (1, 10, 100)
"""Of an image and class."""
NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
_IGNORED = 2.0**-10
"""Makes any overlap with an ignored box less than one that counts, without rounding."""
_EPSILON = np.spacing(1)
_AT_A_TIME = 100_000
"""Pairs that are matched at once."""


@dataclass(frozen=True, slots=True)
class CocoAp:
    """Precision and recall as COCO's evaluation accumulates them."""

    precision: DoubleArray
    """(T, R, K, A) the best precision at each recall or above, with 100 boxes; -1: no truth."""
    recall: DoubleArray
    """(T, K, A, M) the highest recall; -1: no truth."""

    @property
    def numbers(self) -> dict[str, float]:
        """The 12 numbers by NUMBERS; -1 where there is no truth."""
        at = {name: i for i, name in enumerate(AREAS)}
        values = [
            _mean(self.precision[:, :, :, 0]),
            _mean(self.precision[0, :, :, 0]),
            _mean(self.precision[5, :, :, 0]),
            *(_mean(self.precision[:, :, :, at[area]]) for area in "sml"),
            *(_mean(self.recall[:, :, 0, m]) for m in range(len(MOST_BOXES))),
            *(_mean(self.recall[:, :, at[area], -1]) for area in "sml"),
        ]
        return dict(zip(NUMBERS, values, strict=True))

    def of_class(self, class_id: int) -> dict[str, float]:
        """AP, AP50, AP75 and AR100 of one class; -1 where there is no truth."""
        curves = self.precision[:, :, class_id, 0]
        values = _mean(curves), _mean(curves[0]), _mean(curves[5])
        recall = _mean(self.recall[:, class_id, 0, -1])
        return dict(zip(("AP", "AP50", "AP75", "AR100"), (*values, recall), strict=True))


def coco_ap(truth: Truth, found: Found) -> CocoAp:
    """Precision and recall of all classes, overlaps and areas.

    Equal scores stand in the order of their images, and in one image in that of the detections.

    Source: pycocotools 2.0, COCOeval with iouType "bbox" and its own parameters.
    """
    best = found.best(MOST_BOXES[-1])
    pairs = overlapping(best, truth, at_least=_thresholds()[0])
    ignored = np.stack([_outside(truth.area, *area) for area in AREAS.values()], axis=1)
    ignored |= truth.crowd[:, None]
    least = np.repeat(_thresholds(), len(AREAS))
    candidates, states, _ = match(best, truth, pairs, np.tile(ignored, len(OVERLAPS)), least)
    return _Accumulation(truth, best, ignored, candidates, states).accumulated()


def _thresholds() -> DoubleArray:
    """(T,) as pycocotools compares with them."""
    return np.minimum(OVERLAPS, 1 - 1e-10)


def _outside(areas: DoubleArray, low: float, high: float) -> BoolArray:
    return (areas < low) | (areas > high)


def match(
    found: Found, truth: Truth, pairs: Pairs, ignored: BoolArray, least: DoubleArray
) -> tuple[IntArray, NDArray[np.int8], BoolArray]:
    """Which detections find a box of the truth: each, by falling score, takes the best one left.

    Args:
        found: ordered by image, class and falling score.
        ignored: (N, V) boxes that need not be found, in each of V ways to look.
        least: (V,) overlap from which a box is found.
    Returns: (C,) positions of detections; (C, V) what each finds: 0 nothing, 1 a box, 2 one that is
        ignored; and (N, V) which boxes are found.
    """
    candidates = np.unique(pairs.found)
    states = np.zeros((len(candidates), len(least)), np.int8)
    taken = np.zeros(ignored.shape, np.bool_)
    for row, one in _rounds(found, pairs, candidates):
        box, starts = one.truth, np.flatnonzero(np.diff(row, prepend=-1))
        iou = one.iou[:, None]
        free = (~taken[box] | truth.crowd[box, None]) & (iou >= least)
        worth = np.where(free, np.where(ignored[box], iou * _IGNORED, iou), -1.0)
        most = np.maximum.reduceat(worth, starts, axis=0)
        lengths = np.diff(np.append(starts, len(box)))
        is_best = (worth == np.repeat(most, lengths, axis=0)) & free
        # Of equal overlaps pycocotools takes the box that stands last.
        places = np.where(is_best, np.arange(len(box))[:, None], -1)
        chosen = np.maximum.reduceat(places, starts, axis=0)
        which, way = np.nonzero(chosen >= 0)
        boxes = box[chosen[which, way]]
        taken[boxes, way] = True
        states[row[starts][which], way] = np.where(ignored[boxes, way], 2, 1)
    return candidates, states, taken


def _rounds(found: Found, pairs: Pairs, candidates: IntArray) -> Iterator[tuple[IntArray, Pairs]]:
    """The surest detection of each image and class with its pairs, then the next surest, ….

    Detections of one round can't want the same box. Each pair comes with its row in candidates.
    One part of the images comes after the other, so that a round stays small.
    """
    turn = ranks(found.images[candidates], found.classes[candidates])
    rows = np.searchsorted(candidates, pairs.found)
    group = np.cumsum(turn == 0)[rows]
    block = np.searchsorted(group, group) // _AT_A_TIME
    order = np.lexsort((turn[rows], block))
    changes = (np.diff(turn[rows][order]) != 0) | (np.diff(block[order]) != 0)
    for part in np.split(order, np.flatnonzero(changes) + 1) if len(order) else ():
        yield rows[part], pairs.take(part)


class _Accumulation:
    """Precision and recall from what the detections have found."""

    def __init__(
        self,
        truth: Truth,
        found: Found,
        ignored: BoolArray,
        candidates: IntArray,
        states: NDArray[np.int8],
    ) -> None:
        count = truth.class_count
        # The class, then falling score; images keep their order where scores are equal.
        order = np.lexsort((-found.scores, found.classes))
        place = np.empty(len(found), np.int64)
        place[order] = np.arange(len(found))
        by_place = np.argsort(place[candidates])
        self.places = place[candidates][by_place]
        self.states = states[by_place]
        self.classes = found.classes[candidates][by_place]
        self.rank = ranks(found.images, found.classes)[candidates][by_place]
        areas = found.box_areas[order]
        self.inside = [~_outside(areas, *area) for area in AREAS.values()]
        self.starts = np.searchsorted(found.classes[order], np.arange(count))
        self.wanted = np.stack(
            [np.bincount(truth.classes[~one], minlength=count) for one in ignored.T], axis=1
        )
        """(K, A) boxes of the truth."""
        self.count = count

    def accumulated(self) -> CocoAp:
        """All of it."""
        shape = len(OVERLAPS), len(RECALLS), self.count, len(AREAS)
        precision = np.full(shape, -1.0)
        recall = np.full((len(OVERLAPS), self.count, len(AREAS), len(MOST_BOXES)), -1.0)
        for way in range(self.states.shape[1]):
            overlap, area = divmod(way, len(AREAS))
            wanted = self.wanted[:, area]
            for m, most in enumerate(MOST_BOXES):
                right = (self.states[:, way] == 1) & (self.rank < most)
                hits = np.bincount(self.classes[right], minlength=self.count)
                recall[overlap, :, area, m] = np.where(wanted, hits / np.maximum(wanted, 1), -1)
            self._fill(precision[overlap, :, :, area], way, area)
        return CocoAp(precision, recall)

    def _fill(self, precision: DoubleArray, way: int, area: int) -> None:
        """(R, K) precision of one overlap and range of areas."""
        state = self.states[:, way]
        counted = self.inside[area].copy()
        counted[self.places[state == 1]] = True
        counted[self.places[state == 2]] = False
        number = np.append(0, np.cumsum(counted))
        right = state == 1
        classes, places = self.classes[right], self.places[right]
        before = number[np.minimum(self.starts, len(counted))]
        among = number[places + 1] - before[classes]
        hits = ranks(classes) + 1
        exact = hits / (among + _EPSILON)
        ends = np.searchsorted(classes, np.arange(self.count + 1))
        for class_id in np.flatnonzero(self.wanted[:, area]):
            one = slice(ends[class_id], ends[class_id + 1])
            reached = hits[one] / self.wanted[class_id, area]
            best = np.maximum.accumulate(exact[one][::-1])[::-1]
            at = np.searchsorted(reached, RECALLS, "left")
            precision[:, class_id] = np.append(best, 0.0)[at]


def _mean(values: DoubleArray) -> float:
    """The mean of what is known; -1 for nothing."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0
