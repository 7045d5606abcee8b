"""Posting lists that are as new as the catalog: a snapshot, and what has changed since.

Every transaction that changes results leaves a row in the log of changes. Images named there are
read again into small lists in memory, and the snapshot's own rows of them no longer count.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from array import array
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import (
    postings,
    postings_building,
    ranking,
    ranking_counts,
    ranking_facets,
    tables,
)
from vistadex.catalog.facets import by_status
from vistadex.catalog.postings import Array, Folder, Identity, Postings
from vistadex.catalog.ranking import Search
from vistadex.catalog.ranking_facets import KeptFacets, Numbers
from vistadex.catalog.scope import Facets, Position, Scope
from vistadex.errors import CatalogError

MOST_CHANGED = 50_000
"""Images changed since the snapshot, beyond which it is made anew."""
KEPT_VIEWS = 4
"""For readers whose transaction began a little earlier than that of the newest reader."""
PAUSE = 2
"""Building in the background rests for this many times as long as the last one took."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Tier:
    """Posting lists of all images, or of those that changed later."""

    postings: Postings
    dead: Array
    """Rising positions of images that a later tier has."""
    covers: Array
    """Rising ids of images that it speaks for, also if they are gone; empty for all images."""
    kept: KeptFacets = field(default_factory=KeptFacets)
    """Of the posting lists, whichever of their images still count."""


@dataclass(frozen=True, eq=False)
class View:
    """The catalog's posting lists as they are at one revision; its answers equal plain SQL's."""

    identity: Identity
    tiers: tuple[Tier, ...]

    @staticmethod
    def can_answer(scope: Scope, only: Array | None = None) -> bool:
        """Whether the lists say all that a query needs.

        Args:
            only: ids of the images that have the query's attributes, are such duplicates, and are
                in its collections.
        """
        asked = scope.attributes or scope.duplicates or scope.collection_ids or scope.not_in_ids
        told = only is not None or not asked
        return told and ranking.can_answer(scope)

    def page(
        self, scope: Scope, limit: int, after: Position | None = None, only: Array | None = None
    ) -> list[Position]:
        """The next images in rank order.

        Args:
            only: rising ids; no other images are found.
        """
        searches = self._searches(scope, only)
        order = ranking.newest if scope.newest else ranking.ordered
        found = np.concatenate([order(one, limit, after) for one in searches])
        found = np.sort(found)[::-1][:limit]
        if scope.newest:
            found = found << np.uint64(32) | found >> np.uint64(32)
        return [ranking.position(searches[0], one) for one in found.tolist()]

    def count(self, scope: Scope, only: Array | None = None) -> int:
        """How many images there are in all."""
        return sum(map(ranking_counts.count, self._searches(scope, only)))

    def counts(
        self, scope: Scope, groups: Sequence[Collection[int]], only: Array | None = None
    ) -> list[int]:
        """Likewise when only the analyzers of each group count, group by group."""
        searches = self._searches(scope, only)
        of_tiers = [ranking_counts.counts(one, groups) for one in searches]
        return [sum(numbers) for numbers in zip(*of_tiers, strict=True)]

    def every_id(self, scope: Scope, only: Array | None = None) -> array[int]:
        """The ids of all images in rank order."""
        order = ranking.newest if scope.newest else ranking.ordered
        parts = [order(one, None, None) for one in self._searches(scope, only)]
        found = parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))[::-1]
        ids = found >> np.uint64(32) if scope.newest else found & np.uint64(0xFFFFFFFF)
        return array("q", ids.astype(np.int64).tobytes())

    def facets(self, scope: Scope, only: Array | None = None, most: int | None = None) -> Facets:
        """What is in all of the images.

        Args:
            most: how many classes and predicates are listed; None: all.
        """
        searches = self._searches(scope, only)
        kept = [tier.kept for tier in self.tiers]
        parts = [one.facets(search) for one, search in zip(kept, searches, strict=True)]
        scores = sum(one.scores for one in parts)
        return Facets(
            sum(one.images for one in parts),
            _by_number([one.classes for one in parts], most),
            _by_number([one.predicates for one in parts], most),
            tuple(np.asarray(scores).tolist()) if scope.wanted else (),
            tuple(np.asarray(sum(one.sizes for one in parts)).tolist()),
            _by_number([one.sources for one in parts]),
            by_status(np.sum([one.statuses for one in parts], axis=0)),
        )

    def _searches(self, scope: Scope, only: Array | None) -> list[Search]:
        return [Search(tier.postings, tier.dead, scope, only) for tier in self.tiers]

    def ids(self) -> Array:
        """Rising ids of all images."""
        parts = [np.delete(tier.postings.ids, tier.dead) for tier in self.tiers]
        found = np.sort(np.concatenate(parts)) if len(parts) > 1 else parts[0]
        return found.astype(np.int64)

    def changed(self) -> int:
        """How many images have changed since the snapshot, some perhaps counted twice."""
        return sum(tier.covers.size for tier in self.tiers)


def _by_number(parts: list[Numbers], most: int | None = None) -> tuple[tuple[int, int], ...]:
    ids = np.concatenate([one.ids for one in parts])
    counts = np.concatenate([one.counts for one in parts])
    if len(parts) > 1:
        ids, where = np.unique(ids, return_inverse=True)
        counts = np.bincount(where, counts, ids.size).astype(np.int64)
    if most is not None and most < ids.size:  # All that share the last number: ids decide.
        enough = counts >= np.partition(counts, ids.size - most)[ids.size - most]
        ids, counts = ids[enough], counts[enough]
    order = np.lexsort((ids, -counts))[:most]
    return tuple(zip(ids[order].tolist(), counts[order].tolist(), strict=True))


def place_of(cache: Path, location: str) -> Path:
    """The folder for the posting lists of the catalog with this location."""
    return cache / "postings" / hashlib.sha256(location.encode()).hexdigest()[:32]


class Following:
    """Keeps posting lists as new as the catalog. Safe to use from several threads."""

    def __init__(
        self,
        reading: Callable[[], AbstractContextManager[sa.Connection]],
        folder: Path,
        *,
        background: bool = False,
        most_changed: int = MOST_CHANGED,
    ) -> None:
        """Builds nothing yet.

        Args:
            reading: gives a connection in a transaction that sees one state of the catalog.
            folder: where snapshots are kept; may be deleted at any time.
            background: builds a snapshot in a thread whenever one is needed.
            most_changed: see MOST_CHANGED.
        """
        self.reading, self.folder = reading, folder
        self.background, self.most_changed = background, most_changed
        self.needs_rebuild = False
        self._views: list[View] = []
        """The newest first; those with the newest snapshot before others."""
        self._opened = ""
        self._refused: set[str] = set()
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._not_before = 0.0
        self._warned = False

    def current(self, connection: sa.Connection) -> View | None:
        """The posting lists as this transaction sees the catalog; None: ask the database."""
        now = postings_building.identity(connection)
        with self._lock:
            view = self._found(connection, now)
            self.needs_rebuild = view is None or view.changed() > self.most_changed
        if self.needs_rebuild and self.background:
            self.rebuild_soon()
        return view

    def forget(self) -> None:
        """Drops the facets that are kept of snapshots."""
        with self._lock:
            for tier in (tier for view in self._views for tier in view.tiers):
                tier.kept.forget()

    def _found(self, connection: sa.Connection, now: Identity) -> View | None:
        self._look_for_snapshot(now)
        known: dict[Identity, bool] = {now: True}
        for view in list(self._views):
            one = view.identity
            if one.revision > now.revision:
                continue
            if one not in known:
                known[one] = one.uuid == now.uuid and is_past(connection, one)
            if known[one]:
                return self._followed(connection, view, now)
            self._views.remove(view)
        return None

    def _followed(self, connection: sa.Connection, view: View, now: Identity) -> View | None:
        """A view brought to the state that the transaction sees."""
        if view.identity == now:
            return view
        ids = changed_images(
            connection, view.identity.revision, now.revision, 2 * self.most_changed
        )
        if ids is None:
            return None
        most = max(4 * self.most_changed, view.tiers[0].postings.images // 4)
        if view.changed() + ids.size > most:
            return None
        newer = _with_changed(connection, view, now, ids)
        self._views.insert(self._views.index(view), newer)
        del self._views[KEPT_VIEWS:]
        return newer

    def _look_for_snapshot(self, now: Identity) -> None:
        """Opens the newest snapshot if there is another than before."""
        for path in postings.snapshots(self.folder):
            if path.name == self._opened:
                return
            if path.name in self._refused:
                continue
            try:
                found = postings.opened(path)
                if found.identity.uuid != now.uuid:
                    raise ValueError(f"of another catalog, {found.identity.uuid}")
            except (OSError, ValueError) as error:
                log.info("%s: these posting lists are not used: %s", path, error)
                self._refused.add(path.name)
                continue
            none = np.empty(0, np.int64)
            self._views = [View(found.identity, (Tier(found, none, none),)), *self._views[:1]]
            self._opened = path.name
            return

    def rebuild(self) -> bool:
        """Makes a new snapshot of the catalog as it is; False: another process is at it, or a disk
        error prevents it, which is logged once.
        """
        if not self._building.acquire(blocking=False):
            return False
        started = time.monotonic()
        try:
            with postings.locked(self.folder) as free:
                if free:
                    self._build()
                return free
        except OSError as error:
            self._warn(error)
            return False
        finally:
            self._not_before = time.monotonic() + PAUSE * (time.monotonic() - started)
            self._building.release()

    def _build(self) -> None:
        with postings.making(self.folder) as store:
            with self.reading() as connection:
                header = _filled(store, connection)
            if isinstance(header, OSError):
                raise header
            _add_facets(store, header)
            store.finish(header)
            postings.publish(store, self.folder)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "%s: no posting lists can be kept here (%s); searches are slower without them; "
                "give another folder with the setting `cache`",
                self.folder,
                error,
            )

    def rebuild_soon(self) -> threading.Thread | None:
        """Starts rebuild() in a thread, unless one is at it or has only just ended."""
        if self._building.locked() or time.monotonic() < self._not_before:
            return None
        thread = threading.Thread(target=self._rebuild_quietly, name="postings", daemon=True)
        thread.start()
        return thread

    def _rebuild_quietly(self) -> None:
        try:
            self.rebuild()
        except CatalogError as error:
            self._warn(error)


def _filled(store: Folder, connection: sa.Connection) -> dict[str, Any] | OSError:
    """The header of what is now in the store, or why it can't be written: no fault of the catalog,
    which would be blamed for what is raised while it is read.
    """
    try:
        return postings_building.build(connection, store)
    except OSError as error:
        return error


def _add_facets(store: Folder, header: dict[str, Any]) -> None:
    """Puts the facets of the queries that take longest into a store that has all else."""
    names = store.names()
    found = postings.assembled({name: store.column(name) for name in names}, header)
    of, numbers = ranking_facets.to_store(found)
    store.append("facets.of", of)
    store.append("facets.numbers", numbers)
    for name in names:
        store.release(name)


def is_past(connection: sa.Connection, one: Identity) -> bool:
    """Whether the catalog has been in this state; a copy that went on from an older one has not."""
    if not one.revision:
        return True
    change = tables.change
    query = sa.select(change.c.token).where(change.c.revision == one.revision)
    return connection.execute(query).scalar() == one.token


def changed_images(connection: sa.Connection, after: int, until: int, at_most: int) -> Array | None:
    """Rising ids of the images that changed after a revision; None: any, or too many."""
    change = tables.change
    query = sa.select(change.c.revision, change.c.images).order_by(change.c.revision)
    query = query.where(change.c.revision > after, change.c.revision <= until)
    ids, last = np.empty(0, np.int64), after
    with connection.execute(query.execution_options(yield_per=100)) as rows:
        for part in rows.partitions():
            images = [one for _, one in part if one is not None]
            if len(images) < len(part) or part[-1].revision != last + len(part):
                return None
            last += len(part)
            ids = _both(ids, np.frombuffer(b"".join(images), "<i8"))
            if ids.size > at_most:
                return None
    return ids if last == until else None


def _with_changed(connection: sa.Connection, view: View, now: Identity, ids: Array) -> View:
    """A view of a later state, in which these images have changed.

    Small tiers are put together with those before them that are not much larger, so that an image
    is read again a few times at most, however many transactions follow.
    """
    base, *small = view.tiers
    while small and small[-1].covers.size <= 2 * ids.size:
        ids = _both(ids, small.pop().covers)
    found = postings_building.in_memory(connection, ids.tolist())
    tiers = [replace(tier, dead=_with_dead(tier, ids)) for tier in (base, *small)]
    return View(now, (*tiers, Tier(found, np.empty(0, np.int64), ids)))


def _with_dead(tier: Tier, ids: Array) -> Array:
    """Positions that no longer count when these images have changed."""
    known = tier.postings.ids
    at = np.searchsorted(known, ids)
    at, ids = at[at < known.size], ids[at < known.size]
    return _both(tier.dead, at[known[at] == ids])


def _both(a: Array, b: Array) -> Array:
    return postings.distinct(np.concatenate((a, b)))
