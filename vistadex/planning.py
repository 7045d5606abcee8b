"""One run over sources: what is to do, what has vanished, and the commit of what was done.

The plan is the listing minus what the catalog already knows, so resuming, indexing what is new
and indexing with another model are one thing.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from vistadex.catalog import Catalog, Connection, attributes, reading, registering, writing
from vistadex.engines.local import cores
from vistadex.errors import SourceError, SourceMissingError
from vistadex.progress import Progress
from vistadex.records import Analyzer, ImageEntry, Outcome
from vistadex.shards import FIRST_SHARD, LARGEST_SHARD, Limits, Shard, cut
from vistadex.sources import Source

Only = Literal["new", "failed", "all"]
AT_A_TIME = 1000
"""Known images in memory at once."""


@dataclass(slots=True)
class Run:
    """One run over all sources: the plan, the commits, and the numbers."""

    catalog: Catalog
    analyzers: tuple[Analyzer, ...]
    limits: Limits
    only: Only
    prune: bool
    progress: Progress
    registered: list[registering.RegisteredAnalyzer] = field(default_factory=list)
    source_ids: dict[str, int] = field(default_factory=dict)
    listed: int = 0
    listing: bool = True
    unchanged: int = 0
    indexed: int = 0
    vanished: int = 0
    pruned: int = 0
    refused: int = 0
    """Indexed ones that a labeler did not take."""
    failures: Counter[str] = field(default_factory=Counter)
    reporting: threading.Lock = field(default_factory=threading.Lock)

    def register(self, sources: Sequence[Source]) -> None:
        """Enters sources and analyzers into the catalog."""

        def work(connection: Connection) -> None:
            for source in sources:
                self.source_ids[source.uri] = registering.register_source(connection, source.uri)
            self.registered = [
                registering.register_analyzer(connection, analyzer) for analyzer in self.analyzers
            ]

        self.catalog.transaction(work)

    def shards(self, sources: Sequence[Source]) -> Iterator[Shard]:
        """All work, cut into shards while it is being listed.

        Raises: SourceError for those that could not be listed (to their end), after all others.
        """
        first = FIRST_SHARD
        broken: list[SourceError] = []
        for source in sources:
            plan = self._failed(source) if self.only == "failed" else self._plan(source)
            try:
                for entries in cut(plan, first, cores()):
                    yield Shard(source.uri, entries, self.analyzers, self.limits)
            except SourceError as error:
                broken.append(error)
            first = LARGEST_SHARD
        self.listing = False
        self.report()
        if len(broken) == 1:
            raise broken[0]
        if broken:
            raise SourceError("\n".join(map(str, broken)))

    def _plan(self, source: Source) -> Iterator[list[ImageEntry]]:
        """Entries that need work, page by page; what a page passes by has vanished."""
        after: str | None = None
        hidden: list[str] = []
        for page in source.pages():
            _need_rising(source, after, page)
            self.listed += len(page)
            until = page[-1].key
            hidden = [place for place in hidden if place > until or until.startswith(place)]
            if source.partial:
                hidden = [""]
            hidden += [one.key.rstrip("/") + "/" for one in page if _is_unreadable(one)]
            known = self._match(source, {entry.key for entry in page}, after, until, hidden)
            after = until
            matches = [(entry, known.get(entry.key)) for entry in page]
            self._bring_back(matches)
            self._describe(matches)
            open_ones = [pair for pair in matches if not self._is_done(*pair)]
            wanted = [_as_known(entry, match) for entry, match in open_ones]
            self.unchanged += len(page) - len(wanted)
            self.report()
            yield wanted
        if after is None:
            raise SourceMissingError(
                f"{source.uri}: no files found; nothing was changed. Check the address, "
                "and whether a disk is not mounted"
            )
        self._match(source, set(), after, None, hidden)

    def _match(
        self,
        source: Source,
        keys: Set[str],
        after: str | None,
        until: str | None,
        hidden: Sequence[str],
    ) -> dict[str, reading.KnownImage]:
        """What is known of these keys, the keys between after and until that were listed.

        What is known of other keys between them has vanished, and is marked.
        """
        ids = [analyzer.id for analyzer in self.registered]
        matches: dict[str, reading.KnownImage] = {}
        while True:
            with self.catalog.reading() as connection:
                source_id = self.source_ids[source.uri]
                rows = reading.known_images(connection, source_id, ids, after, until, AT_A_TIME)
            matches.update((row.key, row) for row in rows if row.key in keys)
            self._mark_vanished([row for row in rows if row.key not in keys], hidden)
            if len(rows) < AT_A_TIME:
                return matches
            after = rows[-1].key

    def _is_done(self, entry: ImageEntry, known: reading.KnownImage | None) -> bool:
        if known is None or self.only == "all" or entry.failure is not None:
            return False
        if known.version != entry.version:
            return False
        if known.reason == "truncated" and self.limits.allow_truncated:
            return False
        if known.reason is not None:
            return known.reason not in ("unreadable", "unsupported", "internal", "refused")
        return known.analyses == len(self.registered)

    def _failed(self, source: Source) -> Iterator[list[ImageEntry]]:
        """Failed images as the catalog has them, page by page; nothing is listed."""
        after: str | None = None
        while True:
            with self.catalog.reading() as connection:
                source_id = self.source_ids[source.uri]
                rows = reading.failed_images(connection, source_id, after, AT_A_TIME)
            if not rows:
                return
            after = rows[-1].key
            # A folder or a name that is no text can't be read by its key: only a listing helps.
            rows = [row for row in rows if row.reason != "bad_name" and row.key[-1] != "/"]
            self.listed += len(rows)
            # What was empty may have been filled: None stands for "read it and see".
            yield [ImageEntry(row.key, row.size_bytes or None, row.version) for row in rows]

    def _mark_vanished(self, gone: Sequence[reading.KnownImage], hidden: Sequence[str]) -> None:
        """What the listing left out is gone, unless its folder could not be read."""
        gone = [
            one for one in gone if not one.key.startswith(tuple(hidden)) and one.status != "unseen"
        ]
        folders = [one.id for one in gone if one.key.endswith("/")]  # they can be read again
        ids = [one.id for one in gone if not one.key.endswith("/")]
        if not gone:
            return
        self.vanished += len(ids)

        def work(connection: Connection) -> int:
            writing.delete_images(connection, folders)
            # What people have annotated can't be found again by looking at a picture.
            kept = set(ids) if not self.prune else reading.annotated(connection, ids)
            writing.delete_images(connection, [id_ for id_ in ids if id_ not in kept])
            writing.set_status(connection, sorted(kept), "vanished")
            return len(ids) - len(kept)

        self.pruned += self.catalog.transaction(work)

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
                self.catalog.transaction(partial(writing.set_status, image_ids=ids, status=status))

    def _describe(self, matches: Sequence[tuple[ImageEntry, reading.KnownImage | None]]) -> None:
        """Enters what a manifest says anew about images that are known."""
        changed = {
            known.id: {**(known.attributes or {}), **entry.attributes}
            for entry, known in matches
            if known is not None
            and entry.attributes
            and not entry.attributes.items() <= (known.attributes or {}).items()
        }
        if changed:
            self.catalog.transaction(partial(attributes.replace_attributes, attributes=changed))

    def commit(self, shard: Shard, outcomes: Sequence[Outcome]) -> None:
        """Enters a shard's outcomes in one transaction."""
        source_id = self.source_ids[shard.source_uri]
        self.catalog.transaction(
            lambda connection: writing.write_outcomes(
                connection, source_id, self.registered, outcomes
            )
        )
        reasons = Counter(one.failure.reason for one in outcomes if one.failure is not None)
        self.failures.update(reasons)
        self.indexed += len(outcomes) - reasons.total()
        self.refused += sum(any(result is None for result in one.results) for one in outcomes)
        self.report()

    def report(self) -> None:
        """Tells the progress where the run stands; listing and commits run in two threads."""
        with self.reporting:
            failed = self.failures.total()
            self.progress.update(
                listed=self.listed,
                listing=self.listing,
                done=self.unchanged + self.indexed + failed,
                failed=failed,
            )


def _is_unreadable(entry: ImageEntry) -> bool:
    return entry.failure is not None and entry.failure.reason == "unreadable"


def _as_known(entry: ImageEntry, known: reading.KnownImage | None) -> ImageEntry:
    """An entry whose version can't be told keeps the one that is known, and so its results."""
    if known is None or entry.failure is None or entry.version:
        return entry
    return replace(entry, version=known.version, size_bytes=known.size_bytes)


def _need_rising(source: Source, after: str | None, page: Sequence[ImageEntry]) -> None:
    """Raises: SourceError where keys do not rise: what comes late would count as vanished."""
    previous = after
    for entry in page:
        if previous is not None and entry.key <= previous:
            raise SourceError(
                f"{source.uri}: listed {entry.key!r} after {previous!r}, expected rising keys; "
                "the listing can't be compared with the catalog, nothing of this page was changed"
            )
        previous = entry.key
