"""A Scope to SQL, and its rows to positions in the ranking: the plain way, right on any database.

Most matched first, then the sum of the best scores, then the newest image. Large catalogs have
posting lists for the rest (vistadex.catalog.ranking), with the same results.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.attributes import has_attribute
from vistadex.catalog.counting import ranked_relations
from vistadex.catalog.images import Analyses
from vistadex.catalog.lookup import Statement
from vistadex.catalog.packing import of_class
from vistadex.catalog.scope import BINS, Position, Scope, Wanted
from vistadex.catalog.tables import ANY_ANALYZER
from vistadex.records import IntArray


class _Lists(NamedTuple):
    """Where the images of classes or of relation types stand in order."""

    table: Any
    key: Any
    number: Any
    """Boxes or relations."""


def _lists(wanted: Wanted, name: str | None = None) -> _Lists:
    """The table for what is wanted; with a name, so that it can be there more than once."""
    is_class = wanted.kind == "class"
    table: Any = tables.image_class if is_class else tables.image_relation
    if name is not None:
        table = table.alias(name)
    columns = table.c
    return _Lists(table, columns[0], columns.boxes if is_class else columns.relations)


def page(
    connection: sa.Connection,
    scope: Scope,
    limit: int,
    after: Position | None,
    analyses: Analyses | None = None,
) -> list[Position]:
    """The next images in rank order.

    Args:
        analyses: where what is read of them is kept for those who need it next.
    """
    if walks(scope):
        return _walk(connection, scope, after, limit, analyses or Analyses(connection))
    rows = connection.execute(_ranked(scope, after).limit(limit)).all()
    return [Position(image_id, matched, int(score)) for image_id, matched, score in rows]


def every_id(connection: sa.Connection, scope: Scope) -> array[int]:
    """The ids of all images that the query finds, in rank order, eight bytes each."""
    rows = connection.execute(_ranked(scope, None).execution_options(yield_per=1000))
    return array("q", (row.image_id for row in rows))


def every_position(connection: sa.Connection, scope: Scope) -> Iterator[Position]:
    """All that the query finds, in rank order."""
    rows = connection.execute(_ranked(scope, None).execution_options(yield_per=1000))
    return (Position(image_id, matched, int(score)) for image_id, matched, score in rows)


def count(connection: sa.Connection, scope: Scope) -> int:
    """How many images the query finds in all."""
    ranked = _ranked(scope, None).order_by(None).subquery()
    return int(connection.execute(sa.select(sa.func.count()).select_from(ranked)).scalar_one())


def kept_count(connection: sa.Connection, scope: Scope) -> int | None:
    """How many images there are in all, where the catalog keeps that number."""
    plain = Scope(scope.wanted, scope.mode, one_analyzer=scope.one_analyzer)
    if scope != plain or not scope.is_simple or scope.wanted[0].min_boxes:
        return None
    wanted = scope.wanted[0]
    table = tables.class_count if wanted.kind == "class" else tables.relation_count
    key, analyzer = tuple(table.primary_key)
    kept = sa.select(table.c.images).where(key == wanted.ids[0], analyzer == ANY_ANALYZER)
    return int(connection.execute(kept).scalar() or 0)


def with_attributes(connection: sa.Connection, attributes: Sequence[tuple[str, str]]) -> IntArray:
    """Rising ids of the images that have all of these attributes."""
    image = tables.image
    conditions = [sa.exists(_has_attribute(image.c.id, *pair)) for pair in attributes]
    rows = connection.execute(sa.select(image.c.id).where(*conditions).order_by(image.c.id))
    return np.fromiter((row.id for row in rows), np.int64)


def walks(scope: Scope) -> bool:
    """Whether the primary key has the images in order: no sorting, whatever the page.

    How many boxes have a score is not known where an image is looked up: then the best of several
    analyzers' rows, of which some have too few boxes, can't be told.
    """
    if len(scope.wanted) != 1 or len(scope.wanted[0].ids) != 1 or scope.newest:
        return False
    return scope.one_analyzer or not (scope.wanted[0].min_boxes and scope.min_score)


def _walk(
    connection: sa.Connection,
    scope: Scope,
    after: Position | None,
    limit: int,
    analyses: Analyses,
) -> list[Position]:
    """One class or relation type, down its primary key."""
    start, ties, below = _walked(scope)
    here = None if after is None else (after.score, after.image_id)
    at_a_time = limit if scope.one_analyzer else 2 * limit  # an image may have a row of each
    found: list[Position] = []
    while True:
        rows: list[Any] = []
        if here is None:
            rows += start.rows(connection, most=at_a_time)
        else:
            score, image_id = here
            rows += ties.rows(connection, most=at_a_time, score=score, image_id=image_id)
            if len(rows) < at_a_time:
                rows += below.rows(connection, most=at_a_time - len(rows), score=score)
        if scope.one_analyzer:
            best = [(image_id, score) for image_id, score, _ in rows]
        else:
            best = _best(connection, scope, rows, limit - len(found), analyses)
        found += [Position(image_id, 1, score) for image_id, score in best]
        if len(rows) < at_a_time or len(found) >= limit:
            return found[:limit]
        here = rows[-1][1], rows[-1][0]


@lru_cache(maxsize=256)
def _walked(scope: Scope) -> tuple[Statement, Statement, Statement]:
    """Statements for the best rows, for those behind one of the same score, and for those below it;
    behind one are two ranges of the key, as not every database makes one of a tuple's.
    """
    wanted = scope.wanted[0]
    lists = _lists(wanted)
    table = lists.table
    columns = (table.c.image_id, table.c.score, table.c.analyzer_id)
    statement = sa.select(*columns).where(*_term_limits(scope, wanted, lists))
    statement = _restrict(statement, scope, table.c.image_id)
    statement = statement.order_by(*(column.desc() for column in columns[1::-1] + columns[2:]))
    statement = statement.limit(sa.bindparam("most", type_=sa.Integer))
    score: sa.BindParameter[int] = sa.bindparam("score")
    image_id: sa.BindParameter[int] = sa.bindparam("image_id")
    ties = statement.where(table.c.score == score, table.c.image_id < image_id)
    below = statement.where(table.c.score < score)
    return Statement(statement), Statement(ties), Statement(below)


def _best(
    connection: sa.Connection,
    scope: Scope,
    rows: Sequence[tuple[int, int, int]],
    enough: int,
    analyses: Analyses,
) -> list[tuple[int, int]]:
    """Image and score of a walk's rows, without those of images that another analyzer gives a
    better row; the rest is not looked at when there are enough.
    """
    wanted = scope.wanted[0]
    ranks = _ranks_of_class if wanted.kind == "class" else _ranks_of_relation
    # Of an image's rows the first that is met is the best, unless that is before all of these.
    first: dict[int, tuple[int, int]] = {}
    for image_id, score, analyzer_id in rows:
        first.setdefault(image_id, (score, analyzer_id))
    images, found, at = list(first), list[tuple[int, int]](), 0
    while at < len(images) and len(found) < enough:
        some = images[at : at + max(enough - len(found), FEWEST)]
        at += len(some)
        best: dict[int, tuple[int, int]] = {}
        for image_id, analyzer_id, score, number in ranks(connection, scope, some, analyses):
            if number >= wanted.min_boxes:
                place = (score, analyzer_id)
                best[image_id] = max(place, best.get(image_id, place))
        found += [(one, first[one][0]) for one in some if first[one] == best.get(one)]
    return found


FEWEST = 16
"""Images that are looked up at a time, where a few more are needed."""


def _ranks_of_class(
    connection: sa.Connection, scope: Scope, ids: Sequence[int], analyses: Analyses
) -> Iterator[tuple[int, int, int, int]]:
    """Image, analyzer, score and number of boxes of one class in these images."""
    class_id, analyzers = scope.wanted[0].ids[0], scope.analyzer_ids
    said = analyses.of(ids)
    rows = [
        (image_id, analyzer_id, packed)
        for image_id in ids
        for analyzer_id, packed in said[image_id]
        if packed and (analyzers is None or analyzer_id in analyzers)
    ]
    for i, score, boxes in of_class([packed for _, _, packed in rows], class_id):
        yield *rows[i][:2], score, boxes


def _ranks_of_relation(
    connection: sa.Connection, scope: Scope, ids: Sequence[int], analyses: Analyses
) -> Iterator[tuple[int, int, int, int]]:
    """Likewise of one relation type, with the number of such relations."""
    analyzers = None if scope.analyzer_ids is None else list(scope.analyzer_ids)
    for one in ranked_relations(connection, sorted(ids), analyzers):
        if one.key == scope.wanted[0].ids[0]:
            yield one.image_id, one.analyzer_id, one.score, one.number


def _ranked(scope: Scope, after: Position | None) -> sa.Select[Any]:
    """A statement that gives (image_id, matched, score) in rank order."""
    if not scope.wanted:
        return _everything(scope, after)
    parts = []
    for i, wanted in enumerate(scope.wanted):
        lists = _lists(wanted, f"term{i}")
        table = lists.table
        parts.append(
            sa.select(table.c.image_id, sa.func.max(table.c.score).label("score"))
            .where(*_term_limits(scope, wanted, lists))
            .group_by(table.c.image_id)
        )
    found = sa.union_all(*parts).subquery("found")
    matched, score = sa.func.count(), sa.func.sum(found.c.score)
    columns = (found.c.image_id, matched.label("matched"), score.label("score"))
    statement = sa.select(*columns).group_by(found.c.image_id)
    if scope.mode == "all":
        statement = statement.having(matched == len(parts))
    statement = _restrict(statement, scope, found.c.image_id)
    if scope.newest:
        if after is not None:
            statement = statement.where(found.c.image_id < after.image_id)
        return statement.order_by(sa.desc("image_id"))
    if after is not None:
        statement = statement.having(
            sa.tuple_(matched, score, found.c.image_id)
            < sa.tuple_(after.matched, after.score, after.image_id)
        )
    return statement.order_by(sa.desc("matched"), sa.desc("score"), sa.desc("image_id"))


def _everything(scope: Scope, after: Position | None) -> sa.Select[Any]:
    """Images of the collection that could be decoded or were never read, newest first."""
    image, rows, of = tables.image, tables.image_class, tables.collection_image
    in_order: Any = of.c.image_id if scope.collection_ids else image.c.id
    columns = (
        in_order.label("image_id"),
        sa.literal(0).label("matched"),
        sa.literal(0).label("score"),
    )
    statement = sa.select(*columns)
    if scope.collection_ids:  # whose key has them in order
        statement = statement.where(of.c.collection_id == scope.collection_ids[0])
        statement = statement.where(of.c.image_id == image.c.id)
        scope = replace(scope, collection_ids=scope.collection_ids[1:])
    if scope.status != "failed":
        statement = statement.where((image.c.width > 0) | (image.c.status == "unseen"))
    if scope.min_score or scope.analyzer_ids is not None:
        some = sa.select(rows.c.image_id).where(*_row_limits(scope, rows))
        statement = statement.where(image.c.id.in_(some))
    statement = _restrict(statement, scope, image.c.id)
    if after is not None:
        statement = statement.where(in_order < after.image_id)
    return statement.order_by(in_order.desc())


def _term_limits(scope: Scope, wanted: Wanted, lists: _Lists) -> list[sa.ColumnElement[bool]]:
    """Conditions on a row of what is wanted."""
    limits = [_one_of(lists.key, wanted.ids), *_row_limits(scope, lists.table)]
    if wanted.min_boxes:
        limits.append(lists.number >= wanted.min_boxes)
        if scope.min_score:
            box, table = tables.box, lists.table
            enough = sa.select(sa.func.count()).where(
                box.c.image_id == table.c.image_id,
                box.c.analyzer_id == table.c.analyzer_id,
                box.c.class_id == lists.key,
                box.c.score >= scope.min_score,
            )
            limits.append(enough.scalar_subquery() >= wanted.min_boxes)
    return limits


def _one_of(column: Any, ids: Sequence[int]) -> sa.ColumnElement[bool]:
    """Whether a column has one of these ids; several are written into the text: databases limit
    the number of parameters."""
    if len(ids) == 1:
        equal: sa.ColumnElement[bool] = column == ids[0]
        return equal
    listed = ", ".join(map(str, ids)) or "NULL"
    one_of: sa.ColumnElement[bool] = column.op("IN")(sa.literal_column(f"({listed})"))
    return one_of


def _row_limits(scope: Scope, table: Any) -> list[sa.ColumnElement[bool]]:
    limits: list[sa.ColumnElement[bool]] = []
    if scope.min_score:
        limits.append(table.c.score >= scope.min_score)
    if scope.analyzer_ids is not None:
        limits.append(_one_of(table.c.analyzer_id, scope.analyzer_ids))
    return limits


def _restrict(statement: sa.Select[Any], scope: Scope, image_id: Any) -> sa.Select[Any]:
    """Adds what holds for the image as a whole: its source, and what it must not have."""
    if scope.source_ids is not None:
        owner = tables.image.alias("owner")
        of_source = sa.select(sa.literal(1)).where(
            owner.c.id == image_id, _one_of(owner.c.source_id, scope.source_ids)
        )
        statement = statement.where(sa.exists(of_source))
    if scope.status is not None:
        owner = tables.image.alias("in_status")
        has = sa.select(sa.literal(1)).where(owner.c.id == image_id, owner.c.status == scope.status)
        statement = statement.where(sa.exists(has))
    if scope.min_size:
        statement = statement.where(sa.exists(_large_box(scope, image_id)))
    for name, value in scope.attributes:
        statement = statement.where(sa.exists(_has_attribute(image_id, name, value)))
    for id_ in scope.collection_ids:
        statement = statement.where(sa.exists(_member(id_, image_id)))
    for id_ in scope.not_in_ids:
        statement = statement.where(~sa.exists(_member(id_, image_id)))
    for i, unwanted in enumerate(scope.without):
        lists = _lists(unwanted, f"without{i}")
        has = sa.select(lists.table.c.image_id).where(*_term_limits(scope, unwanted, lists))
        statement = statement.where(image_id.not_in(has))
    return statement


def _large_box(scope: Scope, image_id: Any) -> sa.Select[Any]:
    """A row where the image has a box of what is wanted that is in the bin of sizes or above."""
    box, image = tables.box.alias("large"), tables.image.alias("framed")
    # A product of whole numbers may be too large for one; MariaDB has no cast to a float.
    area = image.c.width * sa.literal_column("1e0", sa.Float) * image.c.height
    share = (box.c.x1 - box.c.x0) * (box.c.y1 - box.c.y0) / area
    least = (scope.min_size / BINS) ** 2
    conditions = [image.c.id == image_id, image.c.width > 0, image.c.height > 0]
    conditions += [box.c.image_id == image_id, box.c.x1 > box.c.x0, box.c.y1 > box.c.y0]
    conditions += [share >= least, *_row_limits(scope, box)]
    if scope.box_classes:
        conditions.append(_one_of(box.c.class_id, scope.box_classes))
    return sa.select(sa.literal(1)).where(*conditions)


def _member(collection_id: int, image_id: Any) -> sa.Select[Any]:
    """A row where the image is in the collection."""
    of = tables.collection_image.alias(f"collected{collection_id}")
    row = of.c.collection_id == collection_id, of.c.image_id == image_id
    return sa.select(sa.literal(1)).where(*row)


def _has_attribute(image_id: Any, name: str, value: str) -> sa.Select[Any]:
    """A row where the image has the attribute, a text, number or truth value."""
    owner = tables.image.alias("described")
    folded = value.casefold()
    values = {value, folded} if folded in ("true", "false") else {value}
    has = has_attribute(owner, name, values)
    return sa.select(sa.literal(1)).where(owner.c.id == image_id, has)
