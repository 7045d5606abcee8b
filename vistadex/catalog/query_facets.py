"""Facets with names instead of ids, kept for those who ask again while the catalog is the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import NamedTuple

import sqlalchemy as sa

from vistadex.catalog import images, postings_building, tables
from vistadex.catalog.answering import Answers
from vistadex.catalog.postings import Identity
from vistadex.catalog.reading import ANNOTATIONS
from vistadex.catalog.registering import KnownAnalyzer
from vistadex.catalog.scope import Scope

FIRST = 50
"""Classes and predicates that are named where somebody wants to see the most common ones."""
MOST_KEPT = 256
"""Facets that are kept."""
MOST_NAMES = 200_000
"""Classes and predicates in all facets that are kept: some 20 MB; one is kept however large."""


class OriginCount(NamedTuple):
    """Who says it: the imported annotations of one origin, or one model."""

    name: str
    by_people: bool
    """Whether it came with annotations, not from a model."""
    images: int
    """How many the query finds when only what this origin says counts, as with `model`."""


@dataclass(frozen=True, slots=True)
class QueryFacets:
    """What is in all images that a query finds."""

    images: int
    classes: tuple[tuple[str, int], ...]
    """Class and how many of the images have it, most first."""
    predicates: tuple[tuple[str, int], ...]
    """Predicate and how many of the images have a relation with it, most first."""
    scores: tuple[int, ...]
    """Images by the mean of the best scores of what they match, in 20 bins of 0.05; () where the
    query wants nothing."""
    box_sizes: tuple[int, ...]
    """Boxes of the wanted classes, or of all, by the square root of their share of the picture's
    area, in 20 bins of 0.05."""
    sources: tuple[tuple[str, int], ...] = ()
    """Address of a source and how many of the images it has, most first."""
    statuses: tuple[tuple[str, int], ...] = ()
    """ok, failed, vanished or unseen, and how many of the images are so."""
    origins: tuple[OriginCount, ...] = ()
    """Most images first."""


class Question(NamedTuple):
    """All that facets depend on."""

    state: Identity
    scope: Scope
    analyzers: tuple[KnownAnalyzer, ...]
    sources: tuple[tuple[int, str], ...]
    most: int | None = None
    """Classes and predicates that are named; None: all."""

    @property
    def can_be_kept(self) -> bool:
        """Whether the log of changes names all that the answer depends on."""
        one = self.scope
        told = Scope(one.wanted, one.mode, one.without, one.min_score, one.source_ids)
        others = ("analyzer_ids", "status", "min_size", "one_analyzer")
        return one == replace(told, **{name: getattr(one, name) for name in others})


def question(
    connection: sa.Connection,
    scope: Scope,
    analyzers: Sequence[KnownAnalyzer],
    most: int | None = None,
) -> Question:
    """What is asked, as the catalog is in this transaction.

    Args:
        analyzers: all that the catalog has.
        most: classes and predicates that are named; None: all.
    """
    source = tables.source
    rows = connection.execute(sa.select(source.c.id, source.c.uri).order_by(source.c.id))
    sources = tuple((id_, uri) for id_, uri in rows)
    state = postings_building.identity(connection)
    return Question(state, replace(scope, newest=False), tuple(analyzers), sources, most)


def answer(connection: sa.Connection, answers: Answers, asked: Question) -> QueryFacets:
    """The facets, counted now."""
    found = answers.facets(asked.scope, asked.most)
    classes = images.names_of(connection, [id_ for id_, _ in found.classes])
    ids = [id_ for id_, _ in found.predicates]
    predicates = images.names_of(connection, ids, images.PREDICATES)
    addresses = dict(asked.sources)
    return QueryFacets(
        found.images,
        tuple((classes[id_], number) for id_, number in found.classes),
        tuple((predicates[id_], number) for id_, number in found.predicates),
        found.scores,
        found.box_sizes,
        tuple((addresses[id_], number) for id_, number in found.sources),
        found.statuses,
        _origins(connection, answers, asked),
    )


def _origins(
    connection: sa.Connection, answers: Answers, asked: Question
) -> tuple[OriginCount, ...]:
    by_name: dict[str, list[KnownAnalyzer]] = {}
    allowed = asked.scope.analyzer_ids
    for one in asked.analyzers:
        if allowed is None or one.id in allowed:
            by_name.setdefault(one.name, []).append(one)
    groups = [tuple(one.id for one in of_name) for of_name in by_name.values()]
    numbers = [_kept_number(connection, asked.scope, group) for group in groups]
    unknown = [group for group, number in zip(groups, numbers, strict=True) if number is None]
    counted = iter(answers.counts(asked.scope, unknown) if unknown else ())
    found = [
        OriginCount(
            name,
            any(one.sha256.startswith(ANNOTATIONS) for one in of_name),
            next(counted) if number is None else number,
        )
        for (name, of_name), number in zip(by_name.items(), numbers, strict=True)
    ]
    there = [one for one in found if one.images]
    return tuple(sorted(there, key=lambda one: (-one.images, one.name)))


def _kept_number(
    connection: sa.Connection, scope: Scope, analyzer_ids: tuple[int, ...]
) -> int | None:
    """How many images the query finds with these analyzers alone, where the catalog keeps that."""
    whole = Scope(scope.wanted, scope.mode, analyzer_ids=scope.analyzer_ids)
    is_kept = scope.is_simple and not scope.wanted[0].min_boxes and len(analyzer_ids) == 1
    if is_kept and replace(scope, one_analyzer=False) == whole:
        wanted = scope.wanted[0]
        table = tables.class_count if wanted.kind == "class" else tables.relation_count
        key, analyzer = tuple(table.primary_key)
        query = sa.select(table.c.images).where(key == wanted.ids[0], analyzer == analyzer_ids[0])
        return int(connection.execute(query).scalar() or 0)
    return None


class KnownFacets:
    """The facets that were asked for last, with names. Safe to use from several threads."""

    def __init__(self) -> None:
        self._found: OrderedDict[Question, Future[QueryFacets]] = OrderedDict()
        self._names = 0
        """In all that are counted."""
        self._lock = threading.Lock()

    def get(self, asked: Question) -> QueryFacets | None:
        """These facets if they have been counted."""
        with self._lock:
            found = self._found.get(asked)
            if found is None or not found.done():
                return None
            self._found.move_to_end(asked)
        return found.result()

    def once(self, asked: Question, count: Callable[[], QueryFacets]) -> Future[QueryFacets]:
        """These facets; who asks while somebody counts them may wait for that one, and should have
        given its connection back by then: there are few.

        Args:
            count: called where nobody has; what it raises, those who wait get too.
        """
        mine: Future[QueryFacets] = Future()
        if not asked.can_be_kept:
            mine.set_result(count())
            return mine
        with self._lock:
            known = self._found.setdefault(asked, mine)
            self._found.move_to_end(asked)
        if known is not mine:
            return known
        try:
            mine.set_result(count())
        except BaseException as error:
            with self._lock:
                self._found.pop(asked, None)
            mine.set_exception(error)
            raise
        with self._lock:
            self._names += _names(mine.result())
            self._forget_some()
        return mine

    def _forget_some(self) -> None:
        """Drops what was asked longest ago until the rest is small enough."""
        if self._names <= MOST_NAMES and len(self._found) <= MOST_KEPT:
            return
        done = [asked for asked, one in self._found.items() if one.done()]
        for asked in done[:-1]:
            self._names -= _names(self._found.pop(asked).result())
            if self._names <= MOST_NAMES and len(self._found) <= MOST_KEPT:
                return


def _names(found: QueryFacets) -> int:
    return len(found.classes) + len(found.predicates)
