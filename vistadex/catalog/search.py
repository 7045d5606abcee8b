"""A query to SQL, and its rows to one page of results.

Every form of query becomes one statement that yields (image_id, matched, score) in rank order:
matched classes first, then the sum of each class's best score, then the newest image. The cursor
of a result is that triple, so that the next page starts behind it whatever was added since.
"""

from __future__ import annotations

import difflib
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.reading import Analyzer
from vistadex.catalog.tables import ANY_ANALYZER
from vistadex.errors import QueryError
from vistadex.grammar import Query, Term

ic = tables.image_class


@dataclass(frozen=True, slots=True)
class Position:
    """Where a result stands in the ranking."""

    image_id: int
    matched: int
    score: int


def cursor(position: Position) -> str:
    """A position as text for --after."""
    return f"{position.matched}.{position.score}.{position.image_id}"


def read_cursor(text: str) -> Position:
    """The position that a cursor says.

    Raises: QueryError if it is none.
    """
    if not re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,18}\.[0-9]{1,18}", text):
        raise QueryError(f"after={text!r}: not a cursor; take it from the last result of a page")
    matched, score, image_id = map(int, text.split("."))
    return Position(image_id, matched, score)


@dataclass(frozen=True, slots=True)
class Scope:
    """A query with its names resolved to ids."""

    query: Query
    class_ids: tuple[int, ...]
    without_ids: tuple[int, ...]
    source_ids: tuple[int, ...] | None
    analyzer_ids: tuple[int, ...] | None
    """None: every analyzer."""
    one_analyzer: bool
    """No image can have two rows for one class."""
    rarest_first: tuple[int, ...]
    """Indices of the query's terms: a join is quickest when it begins with the fewest images."""


def resolve(connection: sa.Connection, query: Query, analyzers: Sequence[Analyzer]) -> Scope:
    """The ids that a query's names stand for.

    Args:
        analyzers: all that the catalog has.

    Raises: QueryError for an unknown class, source or model, with the nearest known names.
    """
    ids = _class_ids(connection, [term.class_name for term in query.terms] + list(query.without))
    by_class: dict[int, Term] = {}
    for term, class_id in zip(query.terms, ids, strict=False):  # dog & DOG are one
        by_class[class_id] = max(term, by_class.get(class_id, term), key=lambda one: one.min_boxes)
    source_ids = None if query.source is None else _source_ids(connection, query.source)
    analyzer_ids = None if query.model is None else _analyzer_ids(analyzers, query.model)
    class_ids = tuple(by_class)
    return Scope(
        replace(query, terms=tuple(by_class.values())),
        class_ids,
        tuple(ids[len(query.terms) :]),
        source_ids,
        analyzer_ids,
        len(analyzers if analyzer_ids is None else analyzer_ids) <= 1,
        _rarest_first(connection, class_ids),
    )


def _rarest_first(connection: sa.Connection, class_ids: Sequence[int]) -> tuple[int, ...]:
    if len(class_ids) < 2:
        return tuple(range(len(class_ids)))
    table = tables.class_count
    query = sa.select(table.c.class_id, table.c.images).where(
        table.c.class_id.in_(class_ids), table.c.analyzer_id == ANY_ANALYZER
    )
    images = {row.class_id: row.images for row in connection.execute(query)}
    return tuple(sorted(range(len(class_ids)), key=lambda i: images.get(class_ids[i], 0)))


def _class_ids(connection: sa.Connection, names: Sequence[str]) -> list[int]:
    """Ids of classes by name, in any case of letters."""
    if not names:
        return []
    klass = tables.klass
    query = sa.select(klass.c.name, klass.c.id).where(klass.c.name.in_(names))
    known = {name: id_ for name, id_ in connection.execute(query)}
    if all(name in known for name in names):
        return [known[name] for name in names]
    rows = connection.execute(sa.select(klass.c.name, klass.c.id)).all()
    folded = {name.casefold(): id_ for name, id_ in rows}
    for name in names:
        if name not in known and name.casefold() not in folded:
            raise _unknown_class(name, [row.name for row in rows])
    return [known[name] if name in known else folded[name.casefold()] for name in names]


def _unknown_class(name: str, known: Sequence[str]) -> QueryError:
    folded = {one.casefold(): one for one in known}
    words = name.casefold().split()
    nearest = difflib.get_close_matches(name.casefold(), list(folded), n=3, cutoff=0.5)
    nearest += [word for word in words if word in folded and word not in nearest]
    names = tuple(dict.fromkeys(folded[one] for one in nearest))
    hint = f"did you mean {', '.join(names)}?" if names else "`vistadex classes` lists all"
    if len(words) > 1 and all(word in folded for word in words):
        hint = f"to ask for several classes write {' & '.join(words)}"
    if not known:
        hint = "the catalog has no classes yet; `vistadex index FOLDER` finds some"
    return QueryError(f"unknown class {name!r}: {hint}", names)


def _source_ids(connection: sa.Connection, text: str) -> tuple[int, ...]:
    rows = connection.execute(sa.select(tables.source.c.id, tables.source.c.uri)).all()
    wanted = text.rstrip("/")
    found = tuple(row.id for row in rows if row.uri == wanted or row.uri.endswith("/" + wanted))
    if not found:
        known = ", ".join(row.uri for row in rows[:20]) or "none yet"
        raise QueryError(f"no source ends in {text!r}; known are: {known}")
    return found


def _analyzer_ids(analyzers: Sequence[Analyzer], text: str) -> tuple[int, ...]:
    found = tuple(
        one.id
        for one in analyzers
        if one.name == text or (len(text) >= 6 and one.sha256.startswith(text))
    )
    if not found:
        known = ", ".join(sorted({one.name for one in analyzers})) or "none yet"
        raise QueryError(f"no model is named {text!r}; known are: {known}")
    return found


def page(
    connection: sa.Connection, scope: Scope, limit: int, after: Position | None
) -> list[Position]:
    """The next images in rank order."""
    rows = connection.execute(_ranked(scope, after).limit(limit)).all()
    return [Position(image_id, matched, score) for image_id, matched, score in rows]


def every_id(connection: sa.Connection, scope: Scope) -> array[int]:
    """The ids of all images that the query finds, in rank order, eight bytes each."""
    rows = connection.execute(_ranked(scope, None).execution_options(yield_per=1000))
    return array("q", (row.image_id for row in rows))


def count(connection: sa.Connection, scope: Scope) -> int:
    """How many images the query finds in all."""
    query = scope.query
    if len(scope.class_ids) == 1 and query == Query(terms=(Term(query.terms[0].class_name),)):
        table = tables.class_count
        kept = sa.select(table.c.images).where(
            table.c.class_id == scope.class_ids[0], table.c.analyzer_id == ANY_ANALYZER
        )
        return int(connection.execute(kept).scalar() or 0)
    ranked = _ranked(scope, None).order_by(None).subquery()
    return int(connection.execute(sa.select(sa.func.count()).select_from(ranked)).scalar_one())


def _ranked(scope: Scope, after: Position | None) -> sa.Select[Any]:
    if not scope.class_ids:
        return _everything(scope, after)
    if len(scope.class_ids) == 1:
        return _one_class(scope, after)
    if scope.query.mode == "all":
        return _all_classes(scope, after)
    return _any_class(scope, after)


def _everything(scope: Scope, after: Position | None) -> sa.Select[Any]:
    """Images of the collection that could be decoded, newest first."""
    image = tables.image
    columns = (
        image.c.id.label("image_id"),
        sa.literal(0).label("matched"),
        sa.literal(0).label("score"),
    )
    statement = sa.select(*columns).where(image.c.width > 0)
    if scope.query.min_score or scope.analyzer_ids is not None:
        some = sa.select(sa.literal(1)).where(ic.c.image_id == image.c.id, *_row_limits(scope, ic))
        statement = statement.where(sa.exists(some))
    statement = _restrict(statement, scope, image.c.id)
    if after is not None:
        statement = statement.where(image.c.id < after.image_id)
    return statement.order_by(image.c.id.desc())


def _one_class(scope: Scope, after: Position | None) -> sa.Select[Any]:
    """A walk down the primary key of image_class: no sorting, whatever the page."""
    columns = (ic.c.image_id, sa.literal(1).label("matched"), ic.c.score)
    statement = sa.select(*columns).where(*_term_limits(scope, ic, 0))
    if not scope.one_analyzer:
        better = ic.alias("better")
        statement = statement.where(
            ~sa.exists(
                sa.select(sa.literal(1)).where(
                    better.c.image_id == ic.c.image_id,
                    *_term_limits(scope, better, 0, best=True),
                    # `+ 0` keeps the database from walking the class by score for each image.
                    sa.tuple_(better.c.score + 0, better.c.analyzer_id)
                    > sa.tuple_(ic.c.score, ic.c.analyzer_id),
                )
            )
        )
    statement = _restrict(statement, scope, ic.c.image_id)
    if after is not None:
        statement = statement.where(
            sa.tuple_(ic.c.score, ic.c.image_id) < sa.tuple_(after.score, after.image_id)
        )
    return statement.order_by(ic.c.score.desc(), ic.c.image_id.desc(), ic.c.analyzer_id.desc())


def _all_classes(scope: Scope, after: Position | None) -> sa.Select[Any]:
    """Images that have every class, by the sum of the best scores."""
    parts = [ic.alias(f"term{i}") for i in scope.rarest_first]
    joined: Any = parts[0]
    for i, part in zip(scope.rarest_first[1:], parts[1:], strict=True):
        limits = _term_limits(scope, part, i)
        joined = joined.join(part, sa.and_(part.c.image_id == parts[0].c.image_id, *limits))
    total: Any = sum(
        (sa.func.max(part.c.score) for part in parts[1:]), sa.func.max(parts[0].c.score)
    )
    matched = sa.literal(len(parts)).label("matched")
    statement = (
        sa.select(parts[0].c.image_id, matched, total.label("score"))
        .select_from(joined)
        .where(*_term_limits(scope, parts[0], scope.rarest_first[0]))
        .group_by(parts[0].c.image_id)
    )
    statement = _restrict(statement, scope, parts[0].c.image_id)
    if after is not None:
        here = sa.tuple_(total, parts[0].c.image_id)
        statement = statement.having(here < sa.tuple_(after.score, after.image_id))
    return statement.order_by(sa.desc("score"), sa.desc("image_id"))


def _any_class(scope: Scope, after: Position | None) -> sa.Select[Any]:
    """Images that have some of the classes: most matched first, then by the sum of scores."""
    parts = []
    for i in range(len(scope.class_ids)):
        part = ic.alias(f"term{i}")
        best = sa.func.max(part.c.score).label("score")
        parts.append(
            sa.select(part.c.image_id, best)
            .where(*_term_limits(scope, part, i))
            .group_by(part.c.image_id)
        )
    found = sa.union_all(*parts).subquery("found")
    matched, score = sa.func.count(), sa.func.sum(found.c.score)
    statement = sa.select(
        found.c.image_id, matched.label("matched"), score.label("score")
    ).group_by(found.c.image_id)
    statement = _restrict(statement, scope, found.c.image_id)
    if after is not None:
        statement = statement.having(
            sa.tuple_(matched, score, found.c.image_id)
            < sa.tuple_(after.matched, after.score, after.image_id)
        )
    return statement.order_by(sa.desc("matched"), sa.desc("score"), sa.desc("image_id"))


def _term_limits(
    scope: Scope, table: Any, index: int, *, best: bool = False
) -> list[sa.ColumnElement[bool]]:
    """Conditions on a row of image_class for one term of the query.

    Args:
        best: the row is compared with one that has the score, which says that it has it too.
    """
    term: Term = scope.query.terms[index]
    limits = [table.c.class_id == scope.class_ids[index]]
    limits += _of_analyzers(scope, table) if best else _row_limits(scope, table)
    if term.min_boxes:
        limits.append(table.c.boxes >= term.min_boxes)
        if scope.query.min_score:
            box = tables.box
            enough = sa.select(sa.func.count()).where(
                box.c.image_id == table.c.image_id,
                box.c.analyzer_id == table.c.analyzer_id,
                box.c.class_id == scope.class_ids[index],
                box.c.score >= scope.query.min_score,
            )
            limits.append(enough.scalar_subquery() >= term.min_boxes)
    return limits


def _row_limits(scope: Scope, table: Any) -> list[sa.ColumnElement[bool]]:
    limits: list[sa.ColumnElement[bool]] = []
    if scope.query.min_score:
        limits.append(table.c.score >= scope.query.min_score)
    return limits + _of_analyzers(scope, table)


def _of_analyzers(scope: Scope, table: Any) -> list[sa.ColumnElement[bool]]:
    if scope.analyzer_ids is None:
        return []
    return [table.c.analyzer_id.in_(scope.analyzer_ids)]


def _restrict(statement: sa.Select[Any], scope: Scope, image_id: Any) -> sa.Select[Any]:
    """Adds what holds for the image as a whole: its source, and classes it must not have."""
    if scope.source_ids is not None:
        owner = tables.image.alias("owner")
        of_source = sa.select(sa.literal(1)).where(
            owner.c.id == image_id, owner.c.source_id.in_(scope.source_ids)
        )
        statement = statement.where(sa.exists(of_source))
    for name, value in scope.query.attributes:
        statement = statement.where(sa.exists(_has_attribute(image_id, name, value)))
    for class_id in scope.without_ids:
        other = ic.alias(f"without{class_id}")
        has = sa.select(sa.literal(1)).where(
            other.c.image_id == image_id, other.c.class_id == class_id, *_row_limits(scope, other)
        )
        statement = statement.where(~sa.exists(has))
    return statement


def _has_attribute(image_id: Any, name: str, value: str) -> sa.Select[Any]:
    """A row where the image has the attribute, a text, number or truth value."""
    owner = tables.image.alias("described")
    stored = sa.cast(owner.c.attributes[name].as_string(), sa.Text)
    values = {"true": ("true", "1"), "false": ("false", "0")}.get(value.casefold(), (value,))
    return sa.select(sa.literal(1)).where(owner.c.id == image_id, stored.in_(values))
