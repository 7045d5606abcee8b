"""Counts of all classes as a sorted list, of which only what has changed is made anew."""

from __future__ import annotations

import threading

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import following, postings_building, tables
from vistadex.catalog.postings import Array, Identity
from vistadex.catalog.reading import ClassCount
from vistadex.catalog.tables import ANY_ANALYZER

_TABLE = tables.class_count
_ROWS = sa.select(_TABLE.c.class_id, _TABLE.c.images, _TABLE.c.boxes).where(
    _TABLE.c.analyzer_id == ANY_ANALYZER, _TABLE.c.images > 0
)
_PUT_TOGETHER = sa.select(*(sa.func.group_concat(one) for one in _ROWS.subquery().c))


class KnownClasses:
    """Every class that some image has, kept until the catalog changes. Safe to use from several
    threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._state: Identity | None = None
        self._sorted: list[ClassCount] = []
        self._names: dict[int, str] = {}
        self._rank = np.empty(0, np.int64)
        """By class id: its name's place among all names; -1 where no name is known."""
        self._images, self._boxes = np.empty(0, np.int64), np.empty(0, np.int64)
        """By class id, as `_made` says."""
        self._made: Array = np.empty(0, object)

    def classes(self, connection: sa.Connection) -> list[ClassCount]:
        """The classes as this transaction sees them, most images first, then by name."""
        state = postings_building.identity(connection)
        with self._lock:
            if state != self._state:
                if self._state is None or not _follows(connection, state, self._state):
                    self._forget()
                self._sorted = self._read(connection)
                self._state = state
            return list(self._sorted)

    def _read(self, connection: sa.Connection) -> list[ClassCount]:
        ids, images, boxes = _rows(connection)
        if not ids.size:
            return []
        if ids.max() >= self._rank.size or self._rank[ids].min() < 0:
            self._learn_names(connection)
        changed = (self._images[ids] != images) | (self._boxes[ids] != boxes)
        self._images[ids], self._boxes[ids] = images, boxes
        for row in zip(*(one[changed].tolist() for one in (ids, images, boxes)), strict=True):
            self._made[row[0]] = ClassCount(self._names[row[0]], *row[1:])
        order = np.lexsort((self._rank[ids], -images))
        found: list[ClassCount] = self._made[ids[order]].tolist()
        return found

    def _learn_names(self, connection: sa.Connection) -> None:
        klass = tables.klass
        names = {id_: name for id_, name in connection.execute(sa.select(klass.c.id, klass.c.name))}
        new = max(names) + 1 - self._rank.size
        self._images, self._boxes, self._made = (
            np.append(one, np.full(new, fill, one.dtype))
            for one, fill in ((self._images, 0), (self._boxes, 0), (self._made, None))
        )
        self._rank = np.full(self._images.size, -1)
        self._rank[sorted(names, key=names.__getitem__)] = np.arange(len(names))
        self._names = names


def _follows(connection: sa.Connection, state: Identity, before: Identity) -> bool:
    """Whether names are those of the state before: a restored catalog may give ids to others."""
    return state.uuid == before.uuid and following.is_past(connection, before)


def _rows(connection: sa.Connection) -> tuple[Array, Array, Array]:
    """Ids of classes that some image has, their images and their boxes."""
    if connection.dialect.name == "sqlite":  # a Python object for each number takes longer
        texts = connection.execute(_PUT_TOGETHER).one()
        ids, images, boxes = (np.fromstring(text or "", np.int64, sep=",") for text in texts)
        return ids, images, boxes
    rows = [tuple(row) for row in connection.execute(_ROWS)]
    ids, images, boxes = np.array(rows, np.int64).reshape(-1, 3).T
    return ids, images, boxes
