"""The SQL store of what is known about images: one file, safe against crashes, many readers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import sqlalchemy as sa

from vistadex import grammar, settings
from vistadex.catalog import opening, reading, search
from vistadex.catalog.reading import (
    BadImage,
    ClassCount,
    FoundBox,
    FoundClass,
    IndexedImage,
    ModelStats,
    SourceStats,
    Stats,
)
from vistadex.errors import NotFoundError, UsageError
from vistadex.records import SCORE_SCALE, stored_score

__all__ = [
    "BadImage",
    "Catalog",
    "ClassCount",
    "FoundBox",
    "FoundClass",
    "IndexedImage",
    "ModelStats",
    "SearchPage",
    "SearchResult",
    "SourceStats",
    "Stats",
]

MAX_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One image of a search."""

    image: IndexedImage
    score: float
    """Sum of the best scores of the classes asked for; 0 where none was."""
    matched: int
    """How many of the classes asked for it has."""
    cursor: str
    """Given as `after`, the search goes on behind this result."""


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One page of a search, best first."""

    query: str
    results: tuple[SearchResult, ...]
    next: str | None
    """Give it as `after` for the next page; None at the end."""


class Catalog:
    """A catalog: what models found in which images. Safe to use from several threads."""

    def __init__(self, location: str | Path | None = None, *, create: bool = False) -> None:
        """Opens a catalog, upgrading its schema where an older Vistadex wrote it.

        Args:
            location: file name or SQLAlchemy URL; None: the setting `catalog`.
            create: make it where there is none.
        Raises: CatalogError where there is none, or it can't be used; the message says the cure.
        """
        given = None if location is None else str(location)
        place = settings.value("catalog", given, str)
        self.engine = opening.engine_for(place, create=create)
        self.location = self.engine.url.render_as_string(hide_password=True)
        self.place = self.engine.url.database or self.location
        opening.prepare(self.engine, self.place, create=create)

    def close(self) -> None:
        """Lets the database go; later calls open it again."""
        self.engine.dispose()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection that sees the catalog as it is now, undisturbed by writers."""
        with (
            opening.translated(self.place),
            self.engine.connect() as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction: all that is done inside enters the catalog, or nothing does."""
        with (
            opening.translated(self.place),
            self.engine.connect().execution_options(write=True) as connection,
            connection.begin(),
        ):
            yield connection

    def search(
        self,
        query: str = "",
        *,
        min_score: float = 0.0,
        source: str | None = None,
        model: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> SearchPage:
        """The images that a query asks for, best first.

        Args:
            query: e.g. `dog & frisbee`, `dog | cat`, `car>=3 -person`; see vistadex.grammar.
            min_score: classes found with a lower score do not count.
            source: only images of sources whose address ends so.
            model: only what this model found, by name or SHA-256 prefix.
            limit: results on a page, 1 to 1000.
            after: the `next` of the page before.
        Raises: QueryError where the query can't be read or names an unknown class.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise UsageError(f"limit={limit}: expected 1 to {MAX_LIMIT}")
        position = None if after is None else search.read_cursor(after)
        parsed = self._parsed(query, min_score, source, model)
        with self.reading() as connection:
            analyzers = reading.all_analyzers(connection)
            scope = search.resolve(connection, parsed, analyzers)
            positions = search.page(connection, scope, limit + 1, position)
            more, positions = len(positions) > limit, positions[:limit]
            found = reading.images(connection, [one.image_id for one in positions], analyzers)
        results = tuple(
            SearchResult(image, one.score / SCORE_SCALE, one.matched, search.cursor(one))
            for one, image in zip(positions, found, strict=True)
        )
        return SearchPage(query, results, results[-1].cursor if more else None)

    def count(
        self,
        query: str = "",
        *,
        min_score: float = 0.0,
        source: str | None = None,
        model: str | None = None,
    ) -> int:
        """How many images a query finds in all; arguments as in search()."""
        parsed = self._parsed(query, min_score, source, model)
        with self.reading() as connection:
            analyzers = reading.all_analyzers(connection)
            return search.count(connection, search.resolve(connection, parsed, analyzers))

    @staticmethod
    def _parsed(
        query: str, min_score: float, source: str | None, model: str | None
    ) -> grammar.Query:
        if not 0 <= min_score <= 1:
            raise UsageError(f"min_score={min_score}: expected 0 to 1")
        parsed = grammar.parse(query)
        return replace(
            parsed,
            min_score=max(parsed.min_score, stored_score(min_score)),
            source=source or parsed.source,
            model=model or parsed.model,
        )

    def walk(self, query: str = "") -> Iterator[IndexedImage]:
        """Every image that a query finds when it is called, best first, a page in memory at a time.

        Raises: QueryError like search.
        """
        parsed = grammar.parse(query)
        with self.reading() as connection:
            scope = search.resolve(connection, parsed, reading.all_analyzers(connection))
            ids = search.every_id(connection, scope)
        for start in range(0, len(ids), MAX_LIMIT):
            yield from self.images(ids[start : start + MAX_LIMIT])

    def image(self, reference: int | str) -> IndexedImage:
        """One image by its id, or by its path or URI.

        Raises: NotFoundError if the catalog does not have it.
        """
        with self.reading() as connection:
            id_ = reading.find_image(connection, str(reference))
            found = [] if id_ is None else reading.images(connection, [id_])
        if not found:
            raise NotFoundError(
                f"{reference}: no such image in {self.place}; "
                "give an id or a whole path as `vistadex search` prints it"
            )
        return found[0]

    def images(self, ids: Sequence[int]) -> list[IndexedImage]:
        """Images by id, in that order; unknown ids are left out."""
        with self.reading() as connection:
            return reading.images(connection, ids)

    def classes(self) -> list[ClassCount]:
        """Every class that some image has, most images first."""
        with self.reading() as connection:
            return reading.classes(connection)

    def errors(
        self, *, reason: str | None = None, limit: int = 50, after: int = 0
    ) -> list[BadImage]:
        """Bad images and why they are, by rising id above `after`.

        Raises: UsageError for an unknown reason.
        """
        with self.reading() as connection:
            return reading.bad_images(connection, reason, limit, after)

    def stats(self) -> Stats:
        """What is in the catalog: images, sources, models, failures."""
        with self.reading() as connection:
            return reading.stats(connection)
