"""Relations that follow from where boxes lie, each with a written definition and a score.

A predicate is a row of RULES: conditions on measures of a pair of boxes, subject and object. Widths
are only compared with widths and heights with heights, so a picture may be moved, scaled, or
stretched in one direction: boxes in fractions of an unknown aspect ratio give the same relations.

Shape letters: N boxes. Matrices are (N, N), a row for each subject, a column for each object.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vistadex.errors import UsageError
from vistadex.records import DoubleArray, IntArray, Relation

Flags: TypeAlias = NDArray[np.bool_]

VERSION = 2
"""Rises when a measure or the way they are put together changes; the table is hashed itself."""
SAME_OBJECT_IOU = 0.9
"""Boxes that overlap so far are one thing with two names: they have no relation."""
MOST_BOXES = 300
"""Of an image; only the boxes with the best scores are looked at."""
MOST_RELATIONS = 50
"""Of an image, if not said otherwise: so few lose no predicate more than another."""


class Pairs:
    """Measures of every subject (row) with every object (column)."""

    def __init__(self, boxes_xyxy: DoubleArray) -> None:
        """Boxes have a width and a height above 0."""
        x0, y0, x1, y1 = boxes_xyxy.T
        self.top, self.bottom = y0, y1
        self.width, self.height = x1 - x0, y1 - y0
        self.center_x, self.center_y = (x0 + x1) / 2, (y0 + y1) / 2
        self.shared_x = np.minimum.outer(x1, x1) - np.maximum.outer(x0, x0)
        self.shared_y = np.minimum.outer(y1, y1) - np.maximum.outer(y0, y0)
        # As shares of the subject's sides, so that sides of a million pixels keep their digits.
        self.inside = _positive(self.shared_x / self.width[:, None]) * _positive(
            self.shared_y / self.height[:, None]
        )

    def is_same_object(self) -> Flags:
        """Whether two boxes are nearly one: by intersection over union."""
        a, b = self.inside, self.inside.T
        return (a > 0) & (a * b >= SAME_OBJECT_IOU * (a + b - a * b))


def _positive(values: DoubleArray) -> DoubleArray:
    return np.maximum(values, 0)


def inside(pairs: Pairs) -> DoubleArray:
    """The share of the subject's area that lies in the object: 0 to 1."""
    return pairs.inside


def covers(pairs: Pairs) -> DoubleArray:
    """The share of the object's area that the subject covers: 0 to 1."""
    return pairs.inside.T


def shared(pairs: Pairs) -> DoubleArray:
    """The area in both as a share of the smaller box's: 0 to 1."""
    return np.maximum(pairs.inside, pairs.inside.T)


def overlap_x(pairs: Pairs) -> DoubleArray:
    """The columns of pixels in both as a share of the narrower box's width; minus the gap between
    them where there are none."""
    share: DoubleArray = pairs.shared_x / np.minimum.outer(pairs.width, pairs.width)
    return share


def overlap_y(pairs: Pairs) -> DoubleArray:
    """The rows of pixels in both as a share of the lower box's height; minus the gap likewise."""
    share: DoubleArray = pairs.shared_y / np.minimum.outer(pairs.height, pairs.height)
    return share


def right(pairs: Pairs) -> DoubleArray:
    """How far the subject's center is to the right of the object's, in means of their widths: 1
    where it begins just behind it, negative to the left."""
    return _shift(pairs.center_x, pairs.width)


def down(pairs: Pairs) -> DoubleArray:
    """How far the subject's center is below the object's, in means of their heights."""
    return _shift(pairs.center_y, pairs.height)


def _shift(centers: DoubleArray, sizes: DoubleArray) -> DoubleArray:
    shift: DoubleArray = np.subtract.outer(centers, centers) / (np.add.outer(sizes, sizes) / 2)
    return shift


def aside(pairs: Pairs) -> DoubleArray:
    """How much further the two are apart sideways than up and down, in the units of right and
    down; negative: further up and down."""
    return abs(right(pairs)) - abs(down(pairs))


def foot(pairs: Pairs) -> DoubleArray:
    """Where the subject's lower edge is on the object: 0 at its upper edge, 1 at its lower one."""
    share: DoubleArray = np.subtract.outer(pairs.bottom, pairs.top) / pairs.height
    return share


def taller(pairs: Pairs) -> DoubleArray:
    """How many times the taller box's height is doubled: 0 for equal heights, 1 for twice."""
    doublings = np.log2(pairs.height)
    difference: DoubleArray = abs(np.subtract.outer(doublings, doublings))
    return difference


@dataclass(frozen=True, slots=True)
class Condition:
    """A limit that a measure keeps: to a degree, since boxes are not exact."""

    measure: str
    """A key of MEASURES."""
    limit: float
    """Where the condition holds by half."""
    reach: float
    """It holds wholly so far above the limit, and not at all so far below; negative: the other way
    around."""

    def degree(self, measured: DoubleArray) -> DoubleArray:
        """How far it holds: 0 to 1."""
        return np.clip((measured - self.limit) / (2 * self.reach) + 0.5, 0, 1)


MEASURES: Mapping[str, Callable[[Pairs], DoubleArray]] = {
    one.__name__: one
    for one in (inside, covers, shared, overlap_x, overlap_y, right, down, aside, foot, taller)
}


@dataclass(frozen=True, slots=True)
class Rule:
    """A predicate: what has to hold of two boxes."""

    meaning: str
    """When it holds by half or more, in words."""
    conditions: tuple[Condition, ...] = ()
    """All must hold: the degree of the whole is that of the weakest."""
    converse: str = ""
    """The predicate whose subject and object are this one's, exchanged; it has the conditions."""
    symmetric: bool = False
    """Holds both ways or not at all, and is given once."""


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "on": Rule(
            "the subject's lower edge lies on the object, from a tenth of the object's height "
            "above it to just above its lower edge, and most of one's width is above the other",
            (
                Condition("foot", -0.1, 0.25),
                Condition("foot", 0.95, -0.2),
                Condition("overlap_x", 0.85, 0.15),
            ),
        ),
        "under": Rule("the object is on the subject", converse="on"),
        "above": Rule(
            "the subject's center is higher by 0.85 of their mean height, and more so than aside, "
            "and some of one is straight above the other",
            (
                Condition("down", -0.85, -0.5),
                Condition("aside", -0.6, -0.5),
                Condition("overlap_x", 0.1, 0.1),
            ),
        ),
        "below": Rule("the object is above the subject", converse="above"),
        "left_of": Rule(
            "the subject's center is further left by 0.95 of their mean width, and further aside "
            "than up or down, and at a like height",
            (
                Condition("right", -0.95, -0.5),
                Condition("aside", 0.2, 0.05),
                Condition("overlap_y", 0.4, 0.4),
            ),
        ),
        "right_of": Rule("the object is left of the subject", converse="left_of"),
        "inside_of": Rule(
            "nine tenths of the subject's area lie in the object, a fifth of which is elsewhere",
            (
                Condition("inside", 0.9, 0.1),
                Condition("covers", 0.8, -0.1),
            ),
        ),
        "contains": Rule("the object is inside of the subject", converse="inside_of"),
        "overlaps": Rule(
            "a tenth of the smaller box's area lies in the other",
            (Condition("shared", 0.1, 0.1),),
            symmetric=True,
        ),
        "next_to": Rule(
            "side by side: the narrower is at most by 0.8 of its width before or behind the other, "
            "the gap at most 1.4 times its width, and neither is 7 times as high as the other",
            (
                Condition("overlap_x", 0.8, -0.5),
                Condition("overlap_x", -1.4, 0.5),
                Condition("overlap_y", 0.0, 0.15),
                Condition("taller", 2.75, -1.0),
            ),
            symmetric=True,
        ),
    }
)
"""The predicates, in the order in which relations of one score are given."""
PREDICATES = tuple(RULES)


def definitions_hash() -> str:
    """Changes whenever the same boxes might give other relations: 64 hexadecimal digits."""
    rules = {name: asdict(rule) for name, rule in RULES.items()}
    content = json.dumps([VERSION, SAME_OBJECT_IOU, MOST_BOXES, rules])
    return hashlib.sha256(content.encode()).hexdigest()


def known_predicates(names: Sequence[str] | None) -> tuple[str, ...]:
    """These predicates in the order of PREDICATES, each once; None: all.

    Raises: UsageError for an unknown one, and for none.
    """
    unknown = [name for name in names or () if name not in RULES]
    if unknown or (names is not None and not names):
        what = f"unknown predicate {unknown[0]!r}" if unknown else "no predicate"
        raise UsageError(f"{what}; known are: {', '.join(PREDICATES)}")
    return tuple(name for name in PREDICATES if names is None or name in names)


def degrees(
    pairs: Pairs, predicates: Sequence[str], rules: Mapping[str, Rule] = RULES
) -> dict[str, DoubleArray]:
    """How far each predicate holds of every subject and object: 0 to 1, 0.5 at its limits."""
    measured: dict[str, DoubleArray] = {}
    found: dict[str, DoubleArray] = {}
    for name in predicates:
        conditions = rules[rules[name].converse or name].conditions
        each = []
        for one in conditions:
            if one.measure not in measured:
                measured[one.measure] = MEASURES[one.measure](pairs)
            each.append(one.degree(measured[one.measure]))
        whole = np.minimum.reduce(each)
        found[name] = whole.T if rules[name].converse else whole
    return found


@dataclass(frozen=True, slots=True)
class Derived:
    """What follows from the boxes of an image."""

    relations: tuple[Relation, ...]
    """By falling score."""
    left_out: int
    """Relations that hold as well, but for which there was no place."""
    boxes_left_out: int
    """Boxes that were not looked at: more than MOST_BOXES, or without an area in the picture."""


def derive(
    boxes_xyxy: DoubleArray,
    class_names: Sequence[str],
    scores: DoubleArray,
    *,
    size_wh: tuple[int, int],
    predicates: Sequence[str] | None = None,
    min_score: float = 0.5,
    at_most: int = MOST_RELATIONS,
) -> tuple[Relation, ...]:
    """The relations of derive_counted(), without what was left out."""
    return derive_counted(
        boxes_xyxy,
        class_names,
        scores,
        size_wh=size_wh,
        predicates=predicates,
        min_score=min_score,
        at_most=at_most,
    ).relations


def derive_counted(
    boxes_xyxy: DoubleArray,
    class_names: Sequence[str],
    scores: DoubleArray,
    *,
    size_wh: tuple[int, int],
    predicates: Sequence[str] | None = None,
    min_score: float = 0.5,
    at_most: int = MOST_RELATIONS,
) -> Derived:
    """Relations between boxes of one image, by falling score, and how many there was no place for.

    A relation's score is the least of: the degree of each of its conditions, and the scores of both
    boxes. So 0.5 says that the definition is met and that neither box is less sure than that.
    Of equal scores the order is that of PREDICATES, then of the subjects, then of the objects.

    A symmetric predicate is given once, its classes in alphabetical order; of one class, the box
    that was given first is the subject. A box has no relation with itself nor with one that is the
    same object (SAME_OBJECT_IOU); one without an area in the picture has none at all.

    Args:
        boxes_xyxy: (N, 4) pixels, half-open; in fractions of an unknown picture as millionths.
        class_names: one for each box.
        scores: (N,) in [0, 1].
        size_wh: of the picture, to whose edges boxes are cut; 0 where it is not known.
        predicates: of PREDICATES; None: all.
        min_score: relations with a lower score are not given; above 0.
        at_most: of the relations only so many: first the best of each kind (subject's class,
            predicate, object's class), so that as many kinds as can be are found, then others.
    Raises: UsageError for an unknown predicate, a number out of range, or lengths that differ.
    """
    chosen = known_predicates(predicates)
    if not (0 < min_score <= 1 and at_most >= 1):
        raise UsageError(
            f"min_score={min_score}, at_most={at_most}: expected above 0 to 1, 1 or more"
        )
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    sure = np.asarray(scores, np.float64)
    if not len(boxes) == len(class_names) == len(sure):
        raise UsageError(
            f"{len(boxes)} boxes, {len(class_names)} class names and {len(sure)} scores: "
            "expected as many of each"
        )
    cut = _cut(boxes, size_wh)
    looked_at = _looked_at(cut, sure, min_score)
    ignored = int(np.count_nonzero(sure >= min_score)) - len(looked_at)
    if len(looked_at) < 2:
        return Derived((), 0, ignored)
    names = [class_names[i] for i in looked_at.tolist()]
    held = _scored(Pairs(cut[looked_at]), names, sure[looked_at], chosen)
    which, subject, object_ = np.nonzero(held >= min_score)
    best = held[which, subject, object_]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    of_class = np.array([numbers[name] for name in names])
    kinds = (which * len(numbers) + of_class[subject]) * len(numbers) + of_class[object_]
    order = _kept(best, kinds, at_most)
    corners = [(x0, y0, x1, y1) for x0, y0, x1, y1 in boxes[looked_at].tolist()]
    relations = tuple(
        Relation(names[s], chosen[p], names[o], corners[s], corners[o], score)
        for p, s, o, score in zip(
            which[order].tolist(),
            subject[order].tolist(),
            object_[order].tolist(),
            best[order].tolist(),
            strict=True,
        )
    )
    return Derived(relations, len(best) - len(relations), ignored)


def _kept(scores: DoubleArray, kinds: IntArray, at_most: int) -> IntArray:
    """Which relations are given, by falling score: the best of each kind go before others.

    Args:
        scores: (R,).
        kinds: (R,) a number for each, the same for those of one kind.
    """
    order = np.argsort(-scores, kind="stable")
    if len(order) <= at_most:
        return order
    _, first = np.unique(kinds[order], return_index=True)
    is_other = np.ones(len(order), np.bool_)
    is_other[first] = False
    places = np.argsort(is_other, kind="stable")[:at_most]
    return order[np.sort(places)]


def _cut(boxes: DoubleArray, size_wh: tuple[int, int]) -> DoubleArray:
    """The boxes as far as they lie in the picture; whole where its size is not known."""
    if not all(size_wh):
        return boxes
    finite = np.isfinite(boxes).all(axis=1, keepdims=True)
    return np.where(finite, np.clip(boxes, 0, [*size_wh, *size_wh]), np.nan)


def _looked_at(cut: DoubleArray, scores: DoubleArray, min_score: float) -> IntArray:
    """Rising indices of the boxes that can have relations, at most MOST_BOXES."""
    sized = (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1]) & np.isfinite(cut).all(axis=1)
    usable = np.flatnonzero(sized & (scores >= min_score))
    best = np.argsort(-scores[usable], kind="stable")[:MOST_BOXES]
    return np.sort(usable[best])


def _scored(
    pairs: Pairs, names: Sequence[str], scores: DoubleArray, predicates: Sequence[str]
) -> DoubleArray:
    """(P, N, N) scores of relations, P in the order of predicates; 0 where none is given."""
    held = np.stack(list(degrees(pairs, predicates).values()))
    held = np.minimum(held, np.minimum.outer(scores, scores))
    held[:, pairs.is_same_object()] = 0
    symmetric = [RULES[name].symmetric for name in predicates]
    if any(symmetric):
        ranks = {name: i for i, name in enumerate(sorted(set(names)))}
        place = np.array([ranks[name] * len(names) + i for i, name in enumerate(names)])
        held[np.ix_(symmetric, [True] * len(names), [True] * len(names))] *= np.less.outer(
            place, place
        )
    return held
