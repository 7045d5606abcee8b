"""Columns of annotations, spooled, become the rows of a chunk of images.

Shape letters: N rows; images are numbered within their chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistadex.catalog.packing import BOXES_BITS, MOST_BOXES, SCORE_BITS
from vistadex.formats.columns import BoxColumns, LabelColumns, RelationColumns
from vistadex.records import SCORE_SCALE

Ints = NDArray[np.int64]
LABEL = np.dtype("<u8")
"""Image in the chunk (20 bits), position of the class (24), score (20)."""
BOX = np.dtype(
    [("image", "<u4"), ("klass", "<u4"), ("score", "<u4"), ("corners", "<i4", 4), ("flags", "<u2")]
)
RELATION = np.dtype([("image", "<u4"), ("score", "<u4"), ("triplet", "<u8"), ("corners", "<i4", 8)])
_CLASS_BITS, _PREDICATE_BITS = 24, 16
_IMAGE = np.uint64(SCORE_BITS + _CLASS_BITS)
_SCORE = np.uint64(SCORE_BITS)
_SCORES = np.uint64((1 << SCORE_BITS) - 1)


def label_records(labels: LabelColumns, images: Ints) -> NDArray[Any]:
    """(N,) labels as they are spooled."""
    words = images << int(_IMAGE) | labels.classes << SCORE_BITS | labels.scores
    return words.astype(np.uint64)


def box_records(boxes: BoxColumns, images: Ints) -> NDArray[Any]:
    """(N,) boxes as they are spooled."""
    records = np.empty(len(images), BOX)
    records["image"], records["klass"] = images, boxes.classes
    records["score"], records["corners"] = boxes.scores, boxes.corners
    records["flags"] = boxes.flags
    return records


def relation_records(relations: RelationColumns, images: Ints) -> NDArray[Any]:
    """(N,) relations as they are spooled."""
    records = np.empty(len(images), RELATION)
    records["image"], records["score"] = images, relations.scores
    records["triplet"] = triplets(relations)
    records["corners"] = relations.corners
    return records


def triplets(relations: RelationColumns) -> NDArray[np.uint64]:
    """(N,) subject, predicate and object as one number."""
    pairs = relations.subjects << _PREDICATE_BITS | relations.predicates
    return (pairs << _CLASS_BITS | relations.objects).astype(np.uint64)


def triplet_parts(triplet: int) -> tuple[int, int, int]:
    """Positions of subject, predicate and object."""
    rest, object_ = divmod(triplet, 1 << _CLASS_BITS)
    subject, predicate = divmod(rest, 1 << _PREDICATE_BITS)
    return subject, predicate, object_


@dataclass(frozen=True, slots=True)
class Analyses:
    """What each analyzer says of images, and which it has seen."""

    images: Ints
    analyzers: Ints
    classes: list[bytes | None]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows of image_class or image_relation."""

    keys: Ints
    """Classes or relation types."""
    scores: Ints
    images: Ints
    analyzers: Ints
    numbers: Ints
    """Boxes or relations."""

    @classmethod
    def joined(cls, parts: Sequence[Ranking]) -> Ranking:
        """Several as one."""
        names = ("keys", "scores", "images", "analyzers", "numbers")
        empty = np.empty(0, np.int64)
        return cls(*(np.concatenate([empty, *(getattr(one, n) for one in parts)]) for n in names))


@dataclass(frozen=True, slots=True)
class BoxRows:
    """Rows of box, by image and ordinal."""

    images: Ints
    ordinals: Ints
    classes: Ints
    scores: Ints
    corners: NDArray[np.int32]
    """(N, 4) in millionths."""
    flags: NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class RelationRows:
    """Rows of relation, by image and ordinal."""

    images: Ints
    ordinals: Ints
    types: Ints
    scores: Ints
    corners: NDArray[np.int32]
    """(N, 8) in millionths, or UNKNOWN."""


def ranked_labels(
    words: NDArray[np.uint64], class_ids: Ints, analyzer: int
) -> tuple[Ranking, int, Ints]:
    """The best score of each class in each image, by image and class id.

    Args:
        words: (N,) of label_records().
        class_ids: the catalog's, by position.
    Returns: also how many others went, and (M, 3) image, class id and score of each that is one of
        several scores of a class in an image, rising.
    """
    if not len(words):
        return _ranking(np.empty((4, 0), np.int64), analyzer), 0, np.empty((0, 3), np.int64)
    positions = (words >> _SCORE & np.uint64((1 << _CLASS_BITS) - 1)).astype(np.int64)
    ids = class_ids[positions].astype(np.uint64) << _SCORE
    words = words >> _IMAGE << _IMAGE | ids | words & _SCORES
    words.sort()
    last = np.append((words[1:] ^ words[:-1]) >> _SCORE != 0, True)
    best = words[last]
    images = (best >> _IMAGE).astype(np.int64)
    keys = (best >> _SCORE & np.uint64((1 << _CLASS_BITS) - 1)).astype(np.int64)
    scores = (best & _SCORES).astype(np.int64)
    table = np.stack([keys, scores, images, np.zeros(len(best), np.int64)])
    return _ranking(table, analyzer), len(words) - len(best), _contradicting(words, last)


def _contradicting(words: NDArray[np.uint64], last: NDArray[np.bool_]) -> Ints:
    """Image, class id and score where those of an image and class, rising, are not all the same."""
    at = np.flatnonzero(~last)
    at = at[words[at] != words[at + 1]]
    words = np.unique(words[np.concatenate([at, at + 1])])
    return np.stack(
        [
            (words >> _IMAGE).astype(np.int64),
            (words >> _SCORE & np.uint64((1 << _CLASS_BITS) - 1)).astype(np.int64),
            (words & _SCORES).astype(np.int64),
        ],
        axis=1,
    )


def _ranking(columns: Ints, analyzer: int) -> Ranking:
    keys, scores, images, numbers = columns
    return Ranking(keys, scores, images, np.full(len(keys), analyzer), numbers)


def _sums(images: Ints, keys: Ints, scores: Ints, analyzer: int) -> Ranking:
    """The best score and the number of rows of each key in each image."""
    order = np.lexsort((scores, keys, images))
    images, keys, scores = images[order], keys[order], scores[order]
    new = np.ones(len(keys), bool)
    new[1:] = (images[1:] != images[:-1]) | (keys[1:] != keys[:-1])
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], len(keys))[: len(starts)]
    table = np.stack([keys[starts], scores[ends - 1], images[starts], ends - starts])
    return _ranking(table, analyzer)


def box_rows(records: NDArray[Any], class_ids: Ints, analyzer: int) -> tuple[BoxRows, Ranking]:
    """The boxes of each image by falling score, and its classes."""
    order, images, scores = _by_score(records)
    records = records[order]
    classes = class_ids[records["klass"].astype(np.int64)]
    boxes = BoxRows(
        images, _ordinals(images), classes, scores, records["corners"], records["flags"]
    )
    return boxes, _sums(images, classes, scores, analyzer)


def relation_rows(
    records: NDArray[Any], known: NDArray[np.uint64], type_ids: Ints, analyzer: int
) -> tuple[RelationRows, Ranking]:
    """The relations of each image by falling score, and its relation types.

    Args:
        known: every triplet, rising; type_ids: the catalog's id of each.
    """
    order, images, scores = _by_score(records)
    records = records[order]
    types = type_ids[np.searchsorted(known, records["triplet"])]
    rows = RelationRows(images, _ordinals(images), types, scores, records["corners"])
    return rows, _sums(images, types, scores, analyzer)


def _by_score(records: NDArray[Any]) -> tuple[Ints, Ints, Ints]:
    """The order by image and falling score, as it was within both; images and scores so."""
    images = records["image"].astype(np.int64)
    scores = records["score"].astype(np.int64)
    order = np.argsort(images << SCORE_BITS | SCORE_SCALE - scores, kind="stable")
    return order, images[order], scores[order]


def _ordinals(images: Ints) -> Ints:
    """0, 1, 2 … within each image."""
    at = np.arange(len(images))
    new = np.ones(len(images), bool)
    new[1:] = images[1:] != images[:-1]
    found: Ints = at - np.maximum.accumulate(np.where(new, at, 0))
    return found


def analyses(classes: Sequence[Ranking], relations: tuple[Ints, int] | None = None) -> Analyses:
    """One row for each image and analyzer that says something, by image and analyzer.

    Args:
        classes: of one analyzer each, by image and class.
        relations: images with relations, rising, and the analyzer that says these.
    """
    images, analyzers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    packed: list[bytes | None] = []
    for ranking in classes:
        if not len(ranking.keys):
            continue
        words = ranking.keys << SCORE_BITS + BOXES_BITS | ranking.scores << BOXES_BITS
        words |= np.minimum(ranking.numbers, MOST_BOXES)
        data = words.astype("<u8").tobytes()
        starts = np.flatnonzero(np.append(True, ranking.images[1:] != ranking.images[:-1]))
        cuts = [*(starts * 8).tolist(), len(data)]
        packed += [data[a:b] for a, b in pairwise(cuts)]
        images.append(ranking.images[starts])
        analyzers.append(np.full(len(starts), ranking.analyzers[0]))
    if relations is not None:
        images.append(relations[0])
        analyzers.append(np.full(len(relations[0]), relations[1]))
        packed += [None] * len(relations[0])
    all_images, all_analyzers = np.concatenate(images), np.concatenate(analyzers)
    order = np.lexsort((all_analyzers, all_images))
    return Analyses(all_images[order], all_analyzers[order], [packed[i] for i in order.tolist()])


def present(ranking: Ranking) -> Ranking:
    """Without the classes that people said are not there."""
    kept = (ranking.scores > 0) | (ranking.numbers > 0)
    if kept.all():
        return ranking
    return Ranking(
        ranking.keys[kept],
        ranking.scores[kept],
        ranking.images[kept],
        ranking.analyzers[kept],
        ranking.numbers[kept],
    )
