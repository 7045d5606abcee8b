"""The SQL store of what is known about images: one file, safe against crashes, many readers."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import sqlalchemy as sa

from vistadex import grammar, settings
from vistadex.catalog import (
    class_counts,
    collections,
    following,
    images,
    opening,
    query_facets,
    reading,
    registering,
    resolving,
    similar,
    totals,
    vectors,
)
from vistadex.catalog.answering import Answers
from vistadex.catalog.collections import Collected, ImageCollection
from vistadex.catalog.copies import KnownCopies
from vistadex.catalog.images import FoundBox, FoundClass, FoundRelation, IndexedImage
from vistadex.catalog.query_facets import OriginCount, QueryFacets
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
from vistadex.catalog.similar import Embedder, SimilarPage, SimilarResult
from vistadex.errors import NotFoundError, UsageError
from vistadex.records import SCORE_SCALE, FloatArray, stored_score

__all__ = [
    "BadImage",
    "Catalog",
    "ClassCount",
    "Collected",
    "Connection",
    "Embedder",
    "FoundBox",
    "FoundClass",
    "FoundRelation",
    "ImageCollection",
    "IndexedImage",
    "ModelStats",
    "OriginCount",
    "PredicateCount",
    "QueryFacets",
    "RelationCount",
    "SearchPage",
    "SearchResult",
    "SimilarPage",
    "SimilarResult",
    "SourceStats",
    "Stats",
]

T = TypeVar("T")
Connection: TypeAlias = sa.Connection
"""What a transaction's work is given."""
_parse = lru_cache(maxsize=256)(grammar.parse)
"""Who asks for the next page, for facets and for counts asks the same again."""
MAX_LIMIT = 1000
WORTH_LISTING = 500_000
"""Rows of image_class from which posting lists are made at the end of a run."""


class SearchResult(NamedTuple):
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
        given = None if location is None else os.fspath(location)
        place = settings.value("catalog", given, str)
        self.engine = opening.engine_for(place, create=create)
        self.location = self.engine.url.set(query={}).render_as_string(hide_password=True)
        self.place = opening.place_of(self.engine.url)
        opening.prepare(self.engine, self.place, create=create)
        cache = Path(settings.value("cache", None, str))
        folder = following.place_of(cache, self.location)
        self.postings = following.Following(self.reading, folder) if postings else None
        self.vectors = vectors.KnownVectors(self.reading, cache / "vectors" / folder.name)
        self._copies = KnownCopies()
        self._classes = class_counts.KnownClasses()
        self._totals = totals.KnownTotals()
        self._facets = query_facets.KnownFacets()

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
            ids = [one.image_id for one in positions]
            found = images.images(connection, ids, analyzers, answers.analyses)
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
        limit: int | None = None,
    ) -> QueryFacets:
        """What is in all images that a query finds; arguments as in search().

        Args:
            limit: how many classes and predicates are named, most images first; None: all.
        Kept until the catalog changes: who asks again has them at once, and of several who ask at
        the same time one counts for all.
        Raises: QueryError like search; UsageError for a limit below 1.
        """
        parsed = self._parsed(query, relation, min_score, source, model)
        with self.reading() as connection:
            asked = self._question(connection, parsed, ignore_case, subclasses, limit)
            found = self._facets.once(
                asked, lambda: query_facets.answer(connection, self._answers(connection), asked)
            )
        return found.result()

    def known_facets(
        self,
        query: str = "",
        *,
        relation: str | None = None,
        min_score: float = 0.0,
        source: str | None = None,
        model: str | None = None,
        subclasses: bool = False,
        ignore_case: bool = False,
        limit: int | None = None,
    ) -> QueryFacets | None:
        """What facets() says where it need not count; None where it would have to."""
        parsed = self._parsed(query, relation, min_score, source, model)
        with self.reading() as connection:
            asked = self._question(connection, parsed, ignore_case, subclasses, limit)
        return self._facets.get(asked)

    @staticmethod
    def _question(
        connection: sa.Connection,
        parsed: grammar.Query,
        fold_case: bool,
        subclasses: bool,
        limit: int | None,
    ) -> query_facets.Question:
        if limit is not None and limit < 1:
            raise UsageError(f"limit={limit}: expected 1 or more, or None for all")
        analyzers = registering.all_analyzers(connection)
        scope = resolving.resolve(
            connection, parsed, analyzers, fold_case=fold_case, subclasses=subclasses
        )
        return query_facets.question(connection, scope, analyzers, limit)

    def warm(self) -> None:
        """Counts ahead what everyone asks first: classes, totals, and the facets of all images.

        Facets are left out of a large catalog that has no posting lists yet: they would take long.
        """
        classes = self.classes()
        self.stats()
        with self.reading() as connection:
            many = reading.rows_of_classes(connection) >= WORTH_LISTING
            listed = self.postings is not None and self.postings.current(connection) is not None
        if classes and (listed or not many):
            self.facets(limit=query_facets.FIRST)

    def forget(self) -> None:
        """Drops all answers that are kept until the catalog changes: what is asked next is counted
        anew, as a benchmark wants it.
        """
        self._classes = class_counts.KnownClasses()
        self._totals = totals.KnownTotals()
        self._facets = query_facets.KnownFacets()
        if self.postings is not None:
            self.postings.forget()

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
        parsed = _parse(query)
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

    def similar(
        self,
        image: int | FloatArray,
        *,
        query: str = "",
        limit: int = 50,
        model: str | None = None,
        exact: bool = False,
        without: int | None = None,
    ) -> SimilarPage:
        """The images most like another, or like a vector, most similar first.

        Args:
            image: an image's id, or the vector of any picture by the same embedder.
            query: only images that it finds, as in search().
            limit: results, 1 to 1000.
            model: whose vectors to compare, by name or SHA-256 prefix; None: the newest embedder
                that sees content and has seen the image, else its colors and layout.
            exact: look at every vector, also where there are so many that lists are made.
            without: an image that is not to be found; one given by its id never is.
        Raises: NotFoundError where nothing has an embedding, saying what to run; QueryError.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise UsageError(f"limit={limit}: expected 1 to {MAX_LIMIT}")
        parsed = grammar.parse(query)
        with self.reading() as connection:
            among = similar.embedders(connection, self.place, model)
            asked = similar.query_vector(connection, among, image, self.place)
            allowed = None
            if query.strip():
                scope = self._scope(connection, parsed, False, False)
                ids = self._answers(connection).every_id(scope)
                allowed = np.sort(np.frombuffer(ids, np.int64))
            return similar.similar(
                connection,
                self.vectors,
                asked,
                limit,
                query=query,
                without=image if isinstance(image, int) else without,
                allowed=allowed,
                exact=exact,
            )

    def embedders(self, model: str | None = None) -> list[Embedder]:
        """Whose vectors images have, those that see content first, then the newest first.

        Raises: NotFoundError where there is none, or none of that name, saying what to run.
        """
        with self.reading() as connection:
            return similar.embedders(connection, self.place, model)

    def refresh(self) -> bool:
        """Makes the posting lists anew where searches would gain by it: they are missing or far
        behind, and the catalog is large. Whether they were made. Brings what similar() compares
        to the newest state, too.
        """
        with self.reading() as connection:
            seen = registering.all_analyzers(connection)
        self.vectors.refresh([one.id for one in seen if one.task == "embedder"])
        if self.postings is None:
            return False
        with self.reading() as connection:
            if reading.rows_of_classes(connection) < WORTH_LISTING:
                return False
            self.postings.current(connection)
        return self.postings.needs_rebuild and self.postings.rebuild()

    def keep_fresh(self) -> None:
        """Makes posting lists in the background from now on, whenever they are needed, and lists
        of vectors.
        """
        self.vectors.background = True
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

    def collections(self) -> list[ImageCollection]:
        """Every collection, by name."""
        with self.reading() as connection:
            return collections.listed(connection)

    def collections_of(self, image_id: int) -> list[str]:
        """The collections that an image is in, by name."""
        with self.reading() as connection:
            return collections.names_of_image(connection, image_id)

    def collect(self, name: str, ids: Sequence[int] = (), *, query: str | None = None) -> Collected:
        """Puts images into a collection, which is made where there is none of that name.

        Those that are in it stay in it.

        Args:
            ids: images by id.
            query: all that it finds, as in search(); eight bytes of memory for each.
        Raises: UsageError for a name that can't be one; NotFoundError that names some of the ids
            where no image has them; QueryError.
        """
        return self._collect(collections.add, name, ids, query)

    def uncollect(
        self, name: str, ids: Sequence[int] = (), *, query: str | None = None
    ) -> Collected:
        """Takes images out of a collection; arguments and errors as with collect()."""
        return self._collect(collections.remove, name, ids, query)

    def _collect(
        self,
        work: Callable[[sa.Connection, str, Sequence[int]], Collected],
        name: str,
        ids: Sequence[int],
        query: str | None,
    ) -> Collected:
        if query is None:
            with self.reading() as connection:
                collections.need_images(connection, ids)
        elif len(ids):
            raise UsageError("collect: ids and a query are given, expected one of them")
        else:
            ids = self.ids(query)
        return self.transaction(lambda connection: work(connection, name, ids))

    def rename_collection(self, name: str | int, new: str) -> ImageCollection:
        """Gives a collection, by name or id, another name.

        Raises: NotFoundError; UsageError where the new name can't be one, or another one has it.
        """
        return self.transaction(lambda connection: collections.rename(connection, name, new))

    def delete_collection(self, name: str | int) -> ImageCollection:
        """Removes a collection, by name or id, and returns what it was; its images stay.

        Raises: NotFoundError.
        """
        return self.transaction(lambda connection: collections.delete(connection, name))

    def classes(self) -> list[ClassCount]:
        """Every class that some image has, most images first; kept until the catalog changes."""
        with self.reading() as connection:
            return self._classes.classes(connection)

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
            return self._totals.stats(connection)
