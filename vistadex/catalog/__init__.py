"""The SQL store of what is known about images: one file, safe against crashes, many readers."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeAlias, TypeVar

import sqlalchemy as sa

from vistadex import grammar, settings
from vistadex.catalog import following, images, opening, reading, registering, resolving
from vistadex.catalog.answering import Answers
from vistadex.catalog.copies import KnownCopies
from vistadex.catalog.images import FoundBox, FoundClass, FoundRelation, IndexedImage
from vistadex.catalog.reading import (
    BadImage,
    ClassCount,
    ModelStats,
    PredicateCount,
    RelationCount,
    SourceStats,
    Stats,
)
from vistadex.catalog.scope import Scope, cursor, read_cursor
from vistadex.errors import NotFoundError, UsageError
from vistadex.records import SCORE_SCALE, stored_score

__all__ = [
    "BadImage",
    "Catalog",
    "ClassCount",
    "Connection",
    "FoundBox",
    "FoundClass",
    "FoundRelation",
    "IndexedImage",
    "ModelStats",
    "PredicateCount",
    "QueryFacets",
    "RelationCount",
    "SearchPage",
    "SearchResult",
    "SourceStats",
    "Stats",
]

T = TypeVar("T")
Connection: TypeAlias = sa.Connection
"""What a transaction's work is given."""
MAX_LIMIT = 1000
WORTH_LISTING = 500_000
"""Rows of image_class from which posting lists are made at the end of a run."""


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


class Catalog:
    """A catalog: what models found in which images. Safe to use from several threads."""

    def __init__(
        self, location: str | Path | None = None, *, create: bool = False, postings: bool = True
    ) -> None:
        """Opens a catalog, upgrading its schema where an older Vistadex wrote it.

        Args:
            location: file name or SQLAlchemy URL; None: the setting `catalog`.
            create: make it where there is none.
            postings: answer from the posting lists where they are at hand; else by plain SQL alone,
                with the same results.
        Raises: CatalogError where there is none, or it can't be used; the message says the cure.
        """
        given = None if location is None else str(location)
        place = settings.value("catalog", given, str)
        self.engine = opening.engine_for(place, create=create)
        self.location = self.engine.url.set(query={}).render_as_string(hide_password=True)
        self.place = opening.place_of(self.engine.url)
        opening.prepare(self.engine, self.place, create=create)
        cache = Path(settings.value("cache", None, str))
        folder = following.place_of(cache, self.location)
        self.postings = following.Following(self.reading, folder) if postings else None
        self._copies = KnownCopies()
        self._classes: tuple[int, list[ClassCount]] | None = None

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

    def transaction(self, work: Callable[[sa.Connection], T]) -> T:
        """What work returns, done in one writing transaction; again, where its connection is lost.

        Raises: CatalogError where the database stays away.
        """

        def attempt() -> T:
            with self.engine.connect().execution_options(write=True) as connection:
                with connection.begin():
                    return work(connection)

        with opening.translated(self.place):
            return opening.retried(attempt)

    def search(
        self,
        query: str = "",
        *,
        relation: str | None = None,
        min_score: float = 0.0,
        source: str | None = None,
        model: str | None = None,
        subclasses: bool = False,
        ignore_case: bool = False,
        limit: int = 50,
        after: str | None = None,
    ) -> SearchPage:
        """The images that a query asks for, best first.

        Args:
            query: e.g. `dog & frisbee`, `dog | cat`, `car>=3 -person`; see vistadex.grammar.
            relation: e.g. `Person/ride%/Horse`, wanted beside what the query says.
            min_score: classes and relations found with a lower score do not count.
            source: only images of sources whose address ends so.
            model: only what this model found, by name or SHA-256 prefix.
            subclasses: a class stands for those below it in the hierarchy, too.
            ignore_case: patterns of relations match in any case of letters; classes always do.
            limit: results on a page, 1 to 1000.
            after: the `next` of the page before.
        Raises: QueryError where the query can't be read or names an unknown class.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise UsageError(f"limit={limit}: expected 1 to {MAX_LIMIT}")
        position = None if after is None else read_cursor(after)
        parsed = self._parsed(query, relation, min_score, source, model)
        with self.reading() as connection:
            analyzers = registering.all_analyzers(connection)
            scope = resolving.resolve(
                connection, parsed, analyzers, fold_case=ignore_case, subclasses=subclasses
            )
            answers = self._answers(connection)
            positions = answers.page(scope, limit + 1, position)
            more, positions = len(positions) > limit, positions[:limit]
            found = images.images(connection, [one.image_id for one in positions], analyzers)
        by_id = {image.id: image for image in found}
        results = tuple(
            SearchResult(by_id[one.image_id], one.score / SCORE_SCALE, one.matched, cursor(one))
            for one in positions
            if one.image_id in by_id
        )
        return SearchPage(query, results, results[-1].cursor if more and results else None)

    def count(
        self,
        query: str = "",
        *,
        relation: str | None = None,
        min_score: float = 0.0,
        source: str | None = None,
        model: str | None = None,
        subclasses: bool = False,
        ignore_case: bool = False,
    ) -> int:
        """How many images a query finds in all; arguments as in search()."""
        parsed = self._parsed(query, relation, min_score, source, model)
        with self.reading() as connection:
            scope = self._scope(connection, parsed, ignore_case, subclasses)
            return self._answers(connection).count(scope)

    def facets(
        self,
        query: str = "",
        *,
        relation: str | None = None,
        min_score: float = 0.0,
        source: str | None = None,
        model: str | None = None,
        subclasses: bool = False,
        ignore_case: bool = False,
    ) -> QueryFacets:
        """What is in all images that a query finds; arguments as in search()."""
        parsed = self._parsed(query, relation, min_score, source, model)
        with self.reading() as connection:
            scope = self._scope(connection, parsed, ignore_case, subclasses)
            found = self._answers(connection).facets(scope)
            names = images.names_of(connection, [id_ for id_, _ in found.classes])
            predicates = images.names_of(
                connection, [id_ for id_, _ in found.predicates], images.PREDICATES
            )
        return QueryFacets(
            found.images,
            tuple((names[id_], number) for id_, number in found.classes),
            tuple((predicates[id_], number) for id_, number in found.predicates),
            found.scores,
            found.box_sizes,
        )

    @staticmethod
    def _parsed(
        query: str,
        relation: str | None,
        min_score: float,
        source: str | None,
        model: str | None,
    ) -> grammar.Query:
        if not 0 <= min_score <= 1:
            raise UsageError(f"min_score={min_score}: expected 0 to 1")
        parsed = grammar.parse(query)
        return grammar.with_options(parsed, relation, stored_score(min_score), source, model)

    @staticmethod
    def _scope(
        connection: sa.Connection, parsed: grammar.Query, fold_case: bool, subclasses: bool
    ) -> Scope:
        analyzers = registering.all_analyzers(connection)
        return resolving.resolve(
            connection, parsed, analyzers, fold_case=fold_case, subclasses=subclasses
        )

    def _answers(self, connection: sa.Connection) -> Answers:
        return Answers(connection, self.postings, self._copies)

    def refresh(self) -> bool:
        """Makes the posting lists anew where searches would gain by it: they are missing or far
        behind, and the catalog is large. Whether they were made.
        """
        if self.postings is None:
            return False
        with self.reading() as connection:
            if reading.rows_of_classes(connection) < WORTH_LISTING:
                return False
            self.postings.current(connection)
        return self.postings.needs_rebuild and self.postings.rebuild()

    def keep_fresh(self) -> None:
        """Makes posting lists in the background from now on, whenever they are needed."""
        if self.postings is not None:
            self.postings.background = True

    def ids(self, query: str = "") -> array[int]:
        """The ids of all images that a query finds, best first, eight bytes each.

        Raises: QueryError like search.
        """
        with self.reading() as connection:
            scope = self._scope(connection, grammar.parse(query), False, False)
            return self._answers(connection).every_id(scope)

    def walk(self, query: str = "") -> Iterator[IndexedImage]:
        """Every image that a query finds when it is called, best first, a page in memory at a time.

        Raises: QueryError like search.
        """
        ids = self.ids(query)
        for start in range(0, len(ids), MAX_LIMIT):
            yield from self.images(ids[start : start + MAX_LIMIT])

    def image(self, reference: int | str) -> IndexedImage:
        """One image by its id, or by its path or URI.

        Raises: NotFoundError if the catalog does not have it.
        """
        with self.reading() as connection:
            id_ = reading.find_image(connection, str(reference))
            found = [] if id_ is None else images.images(connection, [id_])
        if not found:
            raise NotFoundError(
                f"{reference}: no such image in {self.place}; "
                "give an id or a whole path as `vistadex search` prints it"
            )
        return found[0]

    def images(self, ids: Sequence[int]) -> list[IndexedImage]:
        """Images by id, in that order; unknown ids are left out."""
        with self.reading() as connection:
            return images.images(connection, ids)

    def classes(self) -> list[ClassCount]:
        """Every class that some image has, most images first; kept until the catalog changes."""
        with self.reading() as connection:
            revision = reading.revision(connection)
            known = self._classes
            if known is None or known[0] != revision:
                known = self._classes = revision, reading.classes(connection)
        return list(known[1])

    def relations(self, pattern: str = "//", *, ignore_case: bool = False) -> list[RelationCount]:
        """The relation types that match a pattern such as `Person/ride%/`, most images first.

        Raises: QueryError where it has not three parts, or names an unknown class or predicate.
        """
        wanted = grammar.relation_pattern(pattern)
        with self.reading() as connection:
            ids = resolving.relation_types(connection, wanted, fold_case=ignore_case)
            return reading.relations(connection, ids)

    def predicates(self) -> list[PredicateCount]:
        """Every predicate that some image has, most images first."""
        with self.reading() as connection:
            return reading.predicates(connection)

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
