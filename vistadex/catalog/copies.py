"""Which images are copies of a better one, found once for each state of the catalog."""

from __future__ import annotations

import threading
from typing import Literal

import sqlalchemy as sa

from vistadex.catalog import hashes, postings_building
from vistadex.catalog.postings import Identity
from vistadex.records import IntArray

Kind = Literal["exact", "near"]


class KnownCopies:
    """Remembers the ids of copies until the catalog changes. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: dict[Kind, tuple[Identity, IntArray]] = {}
        self._lock = threading.Lock()

    def ids(self, connection: sa.Connection, kind: Kind) -> IntArray:
        """Rising ids of the images that are copies of a better one."""
        state = postings_building.identity(connection)
        with self._lock:
            known = self._known.get(kind)
        if known is None or known[0] != state:
            known = state, hashes.duplicate_ids(connection, kind)
            with self._lock:
                self._known[kind] = known
        return known[1]
