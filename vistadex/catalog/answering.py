"""Who answers a query: plain SQL, or the posting lists where they are at hand and quicker."""

from __future__ import annotations

from array import array
from itertools import dropwhile, islice

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import facets, search
from vistadex.catalog.copies import KnownCopies
from vistadex.catalog.following import Following, View
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

    def page(self, scope: Scope, limit: int, after: Position | None) -> list[Position]:
        """The next images in rank order."""
        if search.walks(scope) and not scope.without and scope.duplicates is None:
            return search.page(self.connection, scope, limit, after)
        only = self._only(scope)
        view = self._view(scope, only)
        if view is not None:
            return view.page(scope, limit, after, only)
        if scope.duplicates is None:
            return search.page(self.connection, scope, limit, after)
        found = self._positions(scope)
        if after is not None:
            place = _place(after)
            found = list(dropwhile(lambda one: _place(one) >= place, found))
        return list(islice(found, limit))

    def count(self, scope: Scope) -> int:
        """How many images there are in all."""
        kept = search.kept_count(self.connection, scope)
        if kept is not None:
            return kept
        only = self._only(scope)
        view = self._view(scope, only)
        if view is not None:
            return view.count(scope, only)
        if scope.duplicates is not None:
            return len(self._positions(scope))
        return search.count(self.connection, scope)

    def every_id(self, scope: Scope) -> array[int]:
        """The ids of all images in rank order."""
        only = self._only(scope)
        view = self._view(scope, only)
        if view is not None:
            return view.every_id(scope, only)
        if scope.duplicates is not None:
            return array("q", (one.image_id for one in self._positions(scope)))
        return search.every_id(self.connection, scope)

    def facets(self, scope: Scope) -> Facets:
        """What is in all of the images."""
        only = self._only(scope)
        view = self._view(scope, only)
        if view is not None:
            return view.facets(scope, only)
        return facets.facets(self.connection, scope, self._positions(scope))

    def _view(self, scope: Scope, only: IntArray | None) -> View | None:
        if self.following is None or not View.can_answer(scope, only):
            return None
        return self.following.current(self.connection)

    def _only(self, scope: Scope) -> IntArray | None:
        """Rising ids of images that have what posting lists don't say; None: it is not asked."""
        parts = []
        if scope.attributes:
            parts.append(search.with_attributes(self.connection, scope.attributes))
        if scope.duplicates is not None:
            parts.append(self.copies.ids(self.connection, scope.duplicates))
        if len(parts) == 2:
            return parts[0][np.isin(parts[0], parts[1], assume_unique=True)]
        return parts[0] if parts else None

    def _positions(self, scope: Scope) -> list[Position]:
        """All that the query finds, by plain SQL, in rank order."""
        found = search.every_position(self.connection, scope)
        if scope.duplicates is None:
            return list(found)
        ids = set(self.copies.ids(self.connection, scope.duplicates).tolist())
        return [one for one in found if one.image_id in ids]


def _place(one: Position) -> tuple[int, int, int]:
    return one.matched, one.score, one.image_id
