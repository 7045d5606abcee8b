"""What is in the images that a query finds, counted image by image: right on any database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.counting import SQL_LIST, predicates_of, ranked_classes, ranked_relations
from vistadex.catalog.scope import BINS, STATUSES, Facets, Position, Scope
from vistadex.records import SCORE_SCALE, DoubleArray, IntArray

_STATUS = tables.image.c.status
STATUS_CODE = sa.case(*((_STATUS == name, STATUSES.index(name)) for name in STATUSES[1:]), else_=0)
"""The place of an image's status in STATUSES."""


def facets(connection: sa.Connection, scope: Scope, found: Iterable[Position]) -> Facets:
    """The facets of the images at these positions."""
    total = 0
    classes: Counter[int] = Counter()
    predicates: Counter[int] = Counter()
    sources: Counter[int] = Counter()
    statuses = np.zeros(len(STATUSES), np.int64)
    scores, sizes = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    analyzers = None if scope.analyzer_ids is None else list(scope.analyzer_ids)
    positions = iter(found)
    while part := list(islice(positions, SQL_LIST)):
        total += len(part)
        ids = [one.image_id for one in part]
        rows = ranked_classes(connection, ids, analyzers)
        pairs = {(row.image_id, row.key) for row in rows if row.score >= scope.min_score}
        classes.update(class_id for _, class_id in pairs)
        related = ranked_relations(connection, ids, analyzers)
        of_type = predicates_of(connection, sorted({row.key for row in related}))
        pairs = {
            (row.image_id, of_type[row.key]) for row in related if row.score >= scope.min_score
        }
        predicates.update(predicate for _, predicate in pairs)
        if scope.wanted:
            scores += np.bincount([score_bin(one) for one in part], minlength=BINS)
        sizes += _box_sizes(connection, scope, ids)
        for source_id, code, number in _sources_and_statuses(connection, ids):
            sources[source_id] += number
            statuses[code] += number
    return Facets(
        total,
        by_number(classes),
        by_number(predicates),
        tuple(scores.tolist()) if scope.wanted else (),
        tuple(sizes.tolist()),
        by_number(sources),
        by_status(statuses),
    )


def by_number(counts: Counter[int]) -> tuple[tuple[int, int], ...]:
    """Ids with their numbers, by falling number, then rising id."""
    return tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def by_status(counts: IntArray) -> tuple[tuple[str, int], ...]:
    """Statuses with their numbers, as far as some image has them.

    Args:
        counts: (len(STATUSES),).
    """
    return tuple(pair for pair in zip(STATUSES, counts.tolist(), strict=True) if pair[1])


def score_bin(position: Position) -> int:
    """The bin of an image's mean best score."""
    return min(BINS - 1, position.score * BINS // (position.matched * SCORE_SCALE))


def size_bins(width: DoubleArray, height: DoubleArray, area: DoubleArray) -> IntArray:
    """The bins of boxes by the square root of their share of the picture.

    Args:
        width, height: (N,) of the boxes.
        area: (N,) of their pictures, above 0.
    """
    share = np.maximum(width, 0) * np.maximum(height, 0) / area
    return np.clip((np.sqrt(share) * BINS).astype(np.int64), 0, BINS - 1)


def _sources_and_statuses(connection: sa.Connection, ids: Sequence[int]) -> Sequence[Any]:
    """Source, place in STATUSES, and how many of these images have both."""
    image, code = tables.image, STATUS_CODE.label("code")
    of = sa.select(image.c.source_id, code).where(image.c.id.in_(ids)).subquery()
    query = sa.select(of.c.source_id, of.c.code, sa.func.count())
    return connection.execute(query.group_by(of.c.source_id, of.c.code)).all()


def _box_sizes(connection: sa.Connection, scope: Scope, ids: Sequence[int]) -> IntArray:
    box, image = tables.box, tables.image
    columns = (box.c.x0, box.c.y0, box.c.x1, box.c.y1, image.c.width, image.c.height)
    query = (
        sa.select(*columns)
        .join_from(box, image)
        .where(box.c.image_id.in_(ids), image.c.width > 0, image.c.height > 0)
    )
    wanted = [id_ for one in scope.wanted if one.kind == "class" for id_ in one.ids]
    if wanted:
        query = query.where(box.c.class_id.in_(wanted))
    if scope.min_score:
        query = query.where(box.c.score >= scope.min_score)
    if scope.analyzer_ids is not None:
        query = query.where(box.c.analyzer_id.in_(scope.analyzer_ids))
    rows: Sequence[Any] = connection.execute(query).all()
    x0, y0, x1, y1, width, height = (
        np.array([tuple(row) for row in rows], np.float64).reshape(-1, 6).T
    )
    return np.bincount(size_bins(x1 - x0, y1 - y0, width * height), minlength=BINS)
