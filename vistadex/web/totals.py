"""A catalog's totals, counted no more often than counting is worth."""

from __future__ import annotations

import threading
import time

from vistadex.catalog import Catalog, Stats

PATIENCE = 20
"""Totals that took t seconds to count are shown for this many times t."""


class Totals:
    """Fresh within a blink for a small catalog; a large one is not counted for every page."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self._known: Stats | None = None
        self._until = 0.0

    def get(self) -> Stats:
        """What is in the catalog, or was a moment ago."""
        with self._lock:
            started = time.monotonic()
            if self._known is None or started > self._until:
                self._known = self._catalog.stats()
                ended = time.monotonic()
                self._until = ended + PATIENCE * (ended - started)
            return self._known
