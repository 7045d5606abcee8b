"""One run over sources: what is to do, what has vanished, and the commit of what was done.

The plan is the listing minus what the catalog already knows, so resuming, indexing what is new
and indexing with another model are one thing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from vistadex.catalog import Catalog, reading, writing
from vistadex.engines.local import cores
from vistadex.errors import SourceMissingError
from vistadex.progress import Progress
from vistadex.records import Analyzer, ImageEntry, Outcome
from vistadex.shards import FIRST_SHARD, LARGEST_SHARD, Limits, Shard, cut
from vistadex.sources import Source

Only = Literal["new", "failed", "all"]


@dataclass(slots=True)
class Run:
    """One run over all sources: the plan, the commits, and the numbers."""

    catalog: Catalog
    analyzers: tuple[Analyzer, ...]
    limits: Limits
    only: Only
    prune: bool
    progress: Progress
    registered: list[writing.RegisteredAnalyzer] = field(default_factory=list)
    source_ids: dict[str, int] = field(default_factory=dict)
    listed: int = 0
    listing: bool = True
    unchanged: int = 0
    indexed: int = 0
    vanished: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def register(self, sources: Sequence[Source]) -> None:
        """Enters sources and analyzers into the catalog."""
        with self.catalog.writing() as connection:
            for source in sources:
                self.source_ids[source.uri] = writing.register_source(connection, source.uri)
            self.registered = [
                writing.register_analyzer(connection, analyzer) for analyzer in self.analyzers
            ]

    def shards(self, sources: Sequence[Source]) -> Iterator[Shard]:
        """All work, cut into shards while it is being listed."""
        growth = FIRST_SHARD
        for source in sources:
            plan = self._failed(source) if self.only == "failed" else self._plan(source)
            for entries in cut(plan, growth, cores()):
                yield Shard(source.uri, entries, self.analyzers, self.limits)
            growth = LARGEST_SHARD
        self.listing = False
        self.report()

    def _plan(self, source: Source) -> Iterator[ImageEntry]:
        """Entries of a listing that need work; marks what has vanished as the listing passes it."""
        after: str | None = None
        hidden: list[str] = []
        before = self.listed
        for page in source.pages():
            self.listed += len(page)
            hidden += [entry.key for entry in page if _is_unreadable_folder(entry)]
            known = self._known(source, after, page[-1].key)
            after = page[-1].key
            matches = [(entry, known.pop(entry.key, None)) for entry in page]
            self._mark_vanished(list(known.values()), hidden)
            self._bring_back(matches)
            wanted = [entry for entry, match in matches if not self._is_done(entry, match)]
            self.unchanged += len(page) - len(wanted)
            self.report()
            yield from wanted
        if self.listed == before:
            raise SourceMissingError(
                f"{source.uri}: no files found; nothing was changed. Check the address, "
                "and whether a disk is not mounted"
            )
        while known := self._known(source, after, None, at_most=1000):
            after = max(known)
            self._mark_vanished(list(known.values()), hidden)

    def _known(
        self, source: Source, after: str | None, until: str | None, at_most: int | None = None
    ) -> dict[str, reading.KnownImage]:
        ids = [analyzer.id for analyzer in self.registered]
        source_id = self.source_ids[source.uri]
        with self.catalog.reading() as connection:
            rows = reading.known_images(connection, source_id, ids, after, until, at_most)
            return {row.key: row for row in rows}

    def _is_done(self, entry: ImageEntry, known: reading.KnownImage | None) -> bool:
        if known is None or self.only == "all" or known.version != entry.version:
            return False
        if known.reason is not None:
            return known.reason not in ("unreadable", "internal")
        return known.analyses == len(self.registered)

    def _failed(self, source: Source) -> Iterator[ImageEntry]:
        """Failed images as the catalog has them; nothing is listed."""
        after: str | None = None
        while True:
            with self.catalog.reading() as connection:
                rows = reading.failed_images(connection, self.source_ids[source.uri], after, 1000)
            if not rows:
                return
            after = rows[-1].key
            self.listed += len(rows)
            for row in rows:
                yield ImageEntry(row.key, row.size_bytes, row.version)

    def _mark_vanished(self, gone: Sequence[reading.KnownImage], hidden: Sequence[str]) -> None:
        """What the listing left out is gone, unless its folder could not be read."""
        ids = [one.id for one in gone if not one.key.startswith(tuple(hidden))]
        if not ids:
            return
        self.vanished += len(ids)
        with self.catalog.writing() as connection:
            if self.prune:
                writing.delete_images(connection, ids)
            else:
                writing.set_status(connection, ids, "vanished")

    def _bring_back(self, matches: Sequence[tuple[ImageEntry, reading.KnownImage | None]]) -> None:
        """Images that were marked as vanished and are there again, with the same bytes."""
        for status in ("ok", "failed"):
            ids = [
                known.id
                for entry, known in matches
                if known is not None
                and known.status == "vanished"
                and known.version == entry.version
                and (known.reason is None) == (status == "ok")
            ]
            if ids:
                with self.catalog.writing() as connection:
                    writing.set_status(connection, ids, status)

    def commit(self, shard: Shard, outcomes: Sequence[Outcome]) -> None:
        """Enters a shard's outcomes in one transaction."""
        with self.catalog.writing() as connection:
            source_id = self.source_ids[shard.source_uri]
            writing.write_outcomes(connection, source_id, self.registered, outcomes)
        reasons = Counter(one.failure.reason for one in outcomes if one.failure is not None)
        self.failures.update(reasons)
        self.indexed += len(outcomes) - reasons.total()
        self.report()

    def report(self) -> None:
        """Tells the progress where the run stands."""
        failed = self.failures.total()
        self.progress.update(
            listed=self.listed,
            listing=self.listing,
            done=self.unchanged + self.indexed + failed,
            failed=failed,
        )


def _is_unreadable_folder(entry: ImageEntry) -> bool:
    return entry.failure is not None and entry.key.endswith("/")
