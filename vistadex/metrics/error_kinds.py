"""What is wrong with a detector's boxes, by kind, and what mending each kind would gain.

Shape letters: N boxes of the truth, D detections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vistadex.metrics.coco import MOST_BOXES, match
from vistadex.metrics.columns import BoolArray, Found, Truth
from vistadex.metrics.overlaps import Pairs, overlapping
from vistadex.metrics.voc import class_ap
from vistadex.records import DoubleArray, IntArray

KINDS: Mapping[str, str] = {
    "localization": "the right class, but the box is too far off",
    "classification": "the right box with another class",
    "duplicate": "the object has been found already, with a higher score",
    "background": "nothing is there",
    "both": "the box is too far off, and the class is another",
    "missed": "an object that no box comes near",
}
RIGHT, IGNORED = -1, -2
_OF_FOUND = tuple(KINDS)[:-1]


@dataclass(frozen=True, slots=True)
class ErrorKinds:
    """The kind of every error."""

    found: Found
    """(D,) the detections that are judged: 100 of an image and class at most."""
    of_found: NDArray[np.int8]
    """(D,) positions in KINDS, RIGHT, or IGNORED."""
    missed: BoolArray
    """(N,) boxes of the truth that no detection comes near."""
    gains: Mapping[str, float]
    """How much AP50, the area below the curve, would rise if the errors of a kind were mended."""

    @property
    def counts(self) -> dict[str, int]:
        """Errors by kind."""
        numbers = {name: int((self.of_found == i).sum()) for i, name in enumerate(_OF_FOUND)}
        return {**numbers, "missed": int(self.missed.sum())}


def error_kinds(
    truth: Truth, found: Found, *, iou: float = 0.5, background_iou: float = 0.1
) -> ErrorKinds:
    """The kind of each error of a detector, and the gain of mending all of a kind.

    An object that several errors of a kind mean is found by the surest of them, the rest go.

    Args:
        iou: overlap from which an object is found.
        background_iou: with less, nothing is there.
    Source: Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, 2020.
    """
    best = found.best(MOST_BOXES[-1])
    left_out = truth.crowd | truth.difficult
    pairs = overlapping(best, truth, at_least=iou)
    which, states, taken = match(best, truth, pairs, left_out[:, None], np.array([iou]))
    kinds = np.full(len(best), _OF_FOUND.index("both"), np.int8)
    kinds[which[states[:, 0] == 1]] = RIGHT
    kinds[which[states[:, 0] == 2]] = IGNORED
    near = overlapping(best, truth, at_least=background_iou, same_class=False)
    near = near.take(~left_out[near.truth])
    same = best.classes[near.found] == truth.classes[near.truth]
    mine = _Nearest.of(near.take(same), len(best))
    others = _Nearest.of(near.take(~same), len(best))
    open_ = kinds >= 0
    for name, holds in (
        ("background", (mine.iou == 0) & (others.iou == 0)),
        ("duplicate", mine.iou >= iou),
        ("classification", others.iou >= iou),
        ("localization", (mine.iou > 0) & (mine.iou < iou)),
    ):
        kinds[open_ & holds] = _OF_FOUND.index(name)
    hit = taken[:, 0] & ~left_out
    meant = np.where(kinds == _OF_FOUND.index("localization"), mine.truth, -1)
    meant = np.where(kinds == _OF_FOUND.index("classification"), others.truth, meant)
    missed = ~left_out & ~hit
    missed[meant[meant >= 0]] = False
    return ErrorKinds(best, kinds, missed, _gains(truth, best, kinds, meant, hit, missed))


class _Nearest(NamedTuple):
    """For each detection the box of the truth that it overlaps most."""

    iou: DoubleArray
    truth: IntArray
    """-1 where there is none."""

    @classmethod
    def of(cls, pairs: Pairs, count: int) -> _Nearest:
        iou, truth = np.zeros(count), np.full(count, -1)
        order = np.argsort(pairs.iou, kind="stable")
        iou[pairs.found[order]] = pairs.iou[order]  # The last one stays.
        truth[pairs.found[order]] = pairs.truth[order]
        return cls(iou, truth)


def _gains(
    truth: Truth,
    found: Found,
    kinds: NDArray[np.int8],
    meant: IntArray,
    hit: BoolArray,
    missed: BoolArray,
) -> dict[str, float]:
    """How much AP50 rises where the errors of one kind are mended, and those of others stay."""
    left_out = truth.crowd | truth.difficult
    wanted = np.bincount(truth.classes[~left_out], minlength=truth.class_count)
    kept = kinds != IGNORED
    right = (kinds == RIGHT).astype(np.float64)

    def ap50(keep: BoolArray, classes: IntArray, right: DoubleArray, wanted: IntArray) -> float:
        return class_ap(classes[keep], found.scores[keep], right[keep], wanted, 2010).mean

    before = ap50(kept, found.classes, right, wanted)
    gains = {}
    for at, name in enumerate(_OF_FOUND):
        mended = (kinds == at) & (meant >= 0)
        mended &= _surest_of_open(found, np.where(mended, meant, -1), hit)
        classes = np.where(mended, truth.classes[meant] if len(truth) else 0, found.classes)
        keep = kept & ((kinds != at) | mended)
        gains[name] = ap50(keep, classes, np.where(mended, 1.0, right), wanted) - before
    fewer = wanted - np.bincount(truth.classes[missed], minlength=truth.class_count)
    gains["missed"] = ap50(kept, found.classes, right, fewer) - before
    return gains


def _surest_of_open(found: Found, meant: IntArray, hit: BoolArray) -> BoolArray:
    """(D,) of the detections that mean a box which is not found, the surest for each box."""
    mask = np.zeros(len(found), np.bool_)
    some = np.flatnonzero(meant >= 0)
    some = some[~hit[meant[some]]]
    order = np.lexsort((-found.scores[some], meant[some]))
    mask[some[order[np.diff(meant[some][order], prepend=-1) > 0]]] = True
    return mask
