"""Open Images' average precision: verified classes only, groups, and a hierarchy of classes.

Shape letters: N boxes of the truth, D detections, L labels of images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vistadex.metrics.columns import BoolArray, Found, Truth
from vistadex.metrics.overlaps import Pairs, overlapping
from vistadex.metrics.voc import ClassAp, class_ap, first_of_best
from vistadex.records import IntArray


@dataclass(frozen=True, slots=True)
class ImageLabels:
    """Classes of whole images that people have looked for."""

    images: IntArray
    """(L,) positions of images."""
    classes: IntArray
    """(L,) positions of class names."""
    present: BoolArray
    """(L,) whether it is there, or was looked for and is not."""


def open_images_ap(
    truth: Truth,
    found: Found,
    *,
    labels: ImageLabels | None = None,
    parents: Mapping[int, Sequence[int]] | None = None,
    group_weight: float = 1.0,
    iou: float = 0.5,
) -> ClassAp:
    """Average precision as the Open Images challenge computes it; crowds are its groups.

    What a model says of a class that nobody has looked for in the image is left out. A box of a
    class is one of the classes above it, too. Detections that lie in a group by at least `iou` of
    their area are one hit together, with the surest score; a group without any is one miss.

    Args:
        labels: what was looked for beside the boxes; None: only classes with boxes.
        parents: the classes right above a class, by position; None: no hierarchy.
        group_weight: what a group counts; 0: groups are ignored.
    Source: https://storage.googleapis.com/openimages/web/evaluation.html and TensorFlow's
        object_detection/utils/per_image_evaluation.py.
    """
    labels = labels or ImageLabels(*(np.zeros(0, np.int64),) * 2, np.zeros(0, np.bool_))
    if parents:
        truth, labels = _with_classes_above(truth, labels, parents)
    found = found.take(_looked_for(truth, found, labels))
    groups = truth.take(truth.crowd)
    single = truth.take(~truth.crowd)
    right, ignored = first_of_best(single, found, single.difficult, iou)
    inside = _best_groups(found.take(open_ := np.flatnonzero(~right & ~ignored)), groups, iou)
    kept = ~ignored
    kept[open_[inside.found]] = False
    best = np.zeros(len(groups))
    np.maximum.at(best, inside.truth, found.scores[open_[inside.found]])
    hit = np.flatnonzero(best > 0) if group_weight else np.zeros(0, np.int64)
    count = truth.class_count
    wanted = np.bincount(single.classes[~single.difficult], minlength=count).astype(np.float64)
    wanted += group_weight * np.bincount(groups.classes, minlength=count)
    return class_ap(
        np.append(found.classes[kept], groups.classes[hit]),
        np.append(found.scores[kept], best[hit]),
        np.append(right[kept].astype(np.float64), np.full(len(hit), group_weight)),
        wanted,
        2010,
    )


def _looked_for(truth: Truth, found: Found, labels: ImageLabels) -> BoolArray:
    """(D,) whether the class was looked for in the image."""
    known = np.append(
        truth.images * truth.class_count + truth.classes,
        labels.images * truth.class_count + labels.classes,
    )
    return np.isin(found.images * truth.class_count + found.classes, known)


def _best_groups(found: Found, groups: Truth, share: float) -> Pairs:
    """The group of its class that each detection lies in most, where it does so far."""
    pairs = overlapping(found, groups, at_least=share)
    order = np.lexsort((-pairs.iou, pairs.found))
    return pairs.take(order[np.diff(pairs.found[order], prepend=-1) > 0])


def _with_classes_above(
    truth: Truth, labels: ImageLabels, parents: Mapping[int, Sequence[int]]
) -> tuple[Truth, ImageLabels]:
    """Boxes and present classes also as those above; absent classes also as those below."""
    above = {one: _above(one, parents) for one in range(truth.class_count)}
    boxes, classes = _spread(truth.classes, above)
    wider = replace(truth.take(boxes), classes=classes)
    below: dict[int, list[int]] = {}
    for one, others in above.items():
        for other in others:
            below.setdefault(other, []).append(one)
    there, absent = np.flatnonzero(labels.present), np.flatnonzero(~labels.present)
    rows_there, classes_there = _spread(labels.classes[there], above)
    rows_absent, classes_absent = _spread(labels.classes[absent], below)
    return wider, ImageLabels(
        labels.images[np.append(there[rows_there], absent[rows_absent])],
        np.append(classes_there, classes_absent),
        np.append(np.ones(len(rows_there), np.bool_), np.zeros(len(rows_absent), np.bool_)),
    )


def _above(one: int, parents: Mapping[int, Sequence[int]]) -> list[int]:
    """Every class above a class, once."""
    seen: list[int] = []
    waiting = list(parents.get(one, ()))
    while waiting:
        parent = waiting.pop()
        if parent not in seen and parent != one:
            seen.append(parent)
            waiting.extend(parents.get(parent, ()))
    return seen


def _spread(classes: IntArray, others: Mapping[int, Sequence[int]]) -> tuple[IntArray, IntArray]:
    """Rows, repeated for each further class, with the class of each."""
    pairs = [(i, one) for i, c in enumerate(classes.tolist()) for one in (c, *others.get(c, ()))]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]
