"""Who answers a query: plain SQL, or the posting lists where they are at hand and quicker."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import reduce
from itertools import dropwhile, islice
from typing import Any

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import collections, facets, ranking, ranking_counts, search
from vistadex.catalog.copies import KnownCopies
from vistadex.catalog.following import Following, View
from vistadex.catalog.images import Analyses
from vistadex.catalog.scope import Facets, Position, Scope
from vistadex.records import IntArray


class Answers:
    """The answers to queries as the catalog is in one transaction."""

    def __init__(
        self,
        connection: sa.Connection,
        following: Following | None = None,
        copies: KnownCopies | None = None,
    ) -> None:
        """
        Args:
            following: the posting lists; None: plain SQL alone.
            copies: which images are copies of a better one; None: found when it is asked.
        """
        self.connection, self.following = connection, following
        self.copies = copies or KnownCopies()
        self.analyses = Analyses(connection)
        """What was read of images on the way, for who needs it next."""

    def page(self, scope: Scope, limit: int, after: Position | None) -> list[Position]:
        """The next images in rank order."""
        if _is_in_order(scope) and not _may_be_rare(scope):
            return search.page(self.connection, scope, limit, after, self.analyses)
        listed = self._listed(scope)
        if listed is not None:
            view, only = listed
            return view.page(scope, limit, after, only)
        if scope.duplicates is None:
            return search.page(self.connection, scope, limit, after, self.analyses)
        found = self._positions(scope)
        if after is not None:
            place = _place(scope, after)
            found = list(dropwhile(lambda one: _place(scope, one) >= place, found))
        return list(islice(found, limit))

    def count(self, scope: Scope) -> int:
        """How many images there are in all."""
        scope = replace(scope, newest=False)
        kept = search.kept_count(self.connection, scope)
        if kept is not None:
            return kept
        listed = self._listed(scope)
        if listed is not None:
            view, only = listed
            return view.count(scope, only)
        if scope.duplicates is not None:
            return len(self._positions(scope))
        return search.count(self.connection, scope)

    def counts(self, scope: Scope, groups: Sequence[Collection[int]]) -> list[int]:
        """How many there are when only the analyzers of each group count, group by group."""
        listed = self._listed(scope)
        if listed is not None:
            view, only = listed
            return view.counts(replace(scope, newest=False), groups, only)
        return [self.count(ranking_counts.of_analyzers(scope, one)) for one in groups]

    def every_id(self, scope: Scope) -> array[int]:
        """The ids of all images in rank order."""
        listed = self._listed(scope)
        if listed is not None:
            view, only = listed
            return view.every_id(scope, only)
        if scope.duplicates is not None:
            return array("q", (one.image_id for one in self._positions(scope)))
        return search.every_id(self.connection, scope)

    def facets(self, scope: Scope, most: int | None = None) -> Facets:
        """What is in all of the images; only so many classes and predicates, None: all."""
        scope = replace(scope, newest=False)
        listed = self._listed(scope)
        if listed is not None:
            view, only = listed
            return view.facets(scope, only, most)
        found = facets.facets(self.connection, scope, self._positions(scope))
        return replace(found, classes=found.classes[:most], predicates=found.predicates[:most])

    def _listed(self, scope: Scope) -> tuple[View, IntArray | None] | None:
        """The posting lists where they can answer, and the only images that may be found."""
        if self.following is None or not ranking.can_answer(scope):
            return None
        view = self.following.current(self.connection)
        return None if view is None else (view, self._only(scope, view))

    def _only(self, scope: Scope, view: View) -> IntArray | None:
        """Rising ids of images that have what posting lists don't say; None: it is not asked."""
        parts = [collections.image_ids(self.connection, one) for one in scope.collection_ids]
        if scope.attributes:
            parts.append(search.with_attributes(self.connection, scope.attributes))
        if scope.duplicates is not None:
            parts.append(self.copies.ids(self.connection, scope.duplicates))
        if not parts and scope.not_in_ids:
            parts.append(view.ids())
        if not parts:
            return None
        found = reduce(lambda some, more: some[_among(some, more)], sorted(parts, key=len))
        for one in scope.not_in_ids:
            found = found[~_among(found, collections.image_ids(self.connection, one))]
        return found

    def _positions(self, scope: Scope) -> list[Position]:
        """All that the query finds, by plain SQL, in rank order."""
        if scope.duplicates is None:
            return list(search.every_position(self.connection, scope))
        # Read before: a connection of MariaDB has one streamed result at a time.
        ids = set(self.copies.ids(self.connection, scope.duplicates).tolist())
        found = search.every_position(self.connection, scope)
        return [one for one in found if one.image_id in ids]


def _is_in_order(scope: Scope) -> bool:
    """Whether a key of the database has a page at once."""
    if scope.duplicates is not None:
        return False
    if scope.collection_ids:  # a class may go on for long before one of its images is in there
        return not (scope.wanted or scope.analyzer_ids is not None or scope.min_score)
    return search.walks(scope) and not scope.without


def _may_be_rare(scope: Scope) -> bool:
    """Whether a walk could pass millions of images before one of this status or source comes."""
    return bool(scope.wanted) and (scope.status is not None or scope.source_ids is not None)


def _among(some: IntArray, of: IntArray) -> Any:
    """(N,) bool: which of some rising ids are in others, which rise too."""
    if not of.size:
        return np.zeros(some.size, bool)
    at = np.minimum(np.searchsorted(of, some), of.size - 1)
    return of[at] == some


def _place(scope: Scope, one: Position) -> tuple[int, ...]:
    """The greater, the further ahead in the order of a query."""
    return (one.image_id,) if scope.newest else (one.matched, one.score, one.image_id)
