"""Facets beside the grid: every value is a door to exactly the images that its number counts.

What no query can say is not offered: beside `a | b` no classes and relations, since a third one
can't be required; beside a size no classes, since it would then be that of other boxes; scores only
where one thing is asked for and nothing is excluded, since a limit then changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from vistadex.grammar import MAX_CLASSES, SIZE_STEPS, Query, RelationPattern, Term, parse
from vistadex.jsonable import Facets
from vistadex.records import SCORE_SCALE
from vistadex.web import queries
from vistadex.web.api import Asked

FIRST = 8
"""Values of a list that are shown at once; the others when they are asked for."""


@dataclass(frozen=True, slots=True)
class Value:
    """One value, how many images have it, and the search for those."""

    label: str
    number: int
    href: str


@dataclass(frozen=True, slots=True)
class Group:
    """Values under a title, most images first."""

    title: str
    first: list[Value]
    others: list[Value]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bin of a histogram; the link leads to all from here on."""

    share: float
    """Of the highest bar."""
    text: str
    href: str | None


@dataclass(frozen=True, slots=True)
class Histogram:
    """Twenty bins from 0 to 1."""

    title: str
    bars: list[Bar]
    least: float
    """Where the search begins now."""


@dataclass(frozen=True, slots=True)
class Beside:
    """All that stands beside the grid."""

    groups: list[Group]
    histograms: list[Histogram]


def beside(found: Facets, asked: Asked) -> Beside:
    """Facets with the searches that refine by them."""
    query = queries.whole(asked)
    one = _Refiner(asked, parse(asked.q))
    groups = [*_named(found, one, query), *_whence(found, one, query)]
    histograms = []
    if _is_single(query) and any(found["scores"]):
        least = query.min_score / SCORE_SCALE
        bars = _bars(found["scores"], least, "score", "image", one.with_score)
        histograms.append(Histogram("Score", bars, least))
    if any(found["box_sizes"]):
        least = query.min_size / SIZE_STEPS
        bars = _bars(found["box_sizes"], least, "size", "box", one.with_size)
        histograms.append(Histogram("Box size", bars, least))
    return Beside([group for group in groups if group.first], histograms)


def _is_single(query: Query) -> bool:
    """Whether the limit of scores alone decides which images are found."""
    return len(query.terms) == 1 and not query.terms[0].min_boxes and not query.without


class _Refiner:
    """Links to the search with one part more."""

    def __init__(self, asked: Asked, query: Query) -> None:
        self.query = query
        self.with_term = queries.term_hrefs(asked, query)
        self._href = queries.search_hrefs(asked)
        self._of_source = queries.search_hrefs(asked, source="")
        self._of_model = queries.search_hrefs(asked, model="")
        self._of_score = queries.search_hrefs(asked, min_score=0.0)

    def with_class(self, name: str) -> str:
        return self.with_term(Term(name))

    def with_predicate(self, name: str) -> str:
        return self.with_term(Term(relation=RelationPattern("", queries.pattern_part(name), "")))

    def with_source(self, uri: str) -> str:
        return self._of_source(queries.query_text(replace(self.query, source=uri)))

    def with_model(self, name: str) -> str:
        return self._of_model(queries.query_text(replace(self.query, model=name)))

    def with_status(self, status: str) -> str:
        return self._href(queries.query_text(replace(self.query, status=status)))

    def with_score(self, least: float) -> str:
        changed = replace(self.query, min_score=round(least * SCORE_SCALE))
        return self._of_score(queries.query_text(changed))

    def with_size(self, least: float) -> str:
        changed = replace(self.query, min_size=round(least * SIZE_STEPS))
        return self._href(queries.query_text(changed))


def _named(found: Facets, one: _Refiner, query: Query) -> Iterable[Group]:
    terms = query.terms
    if len(terms) + len(query.without) < MAX_CLASSES and (len(terms) < 2 or query.mode == "all"):
        has = {term.class_name.casefold() for term in terms}
        classes = [
            Value(pair["class"], pair["images"], one.with_class(pair["class"]))
            for pair in found["classes"]
            if pair["class"].casefold() not in has and queries.can_name(pair["class"])
        ]
        if not query.min_size:
            yield _group("Also in these" if terms else "Classes", classes)
        predicates = [
            Value(pair["predicate"], pair["images"], one.with_predicate(pair["predicate"]))
            for pair in found["predicates"]
            if queries.can_name(pair["predicate"])
        ]
        yield _group("Relations", predicates)


def _whence(found: Facets, one: _Refiner, query: Query) -> Iterable[Group]:
    """Who says so, where the images lie and how they are, as far as there is a choice."""
    if query.model is None:
        origins = [
            Value(
                "people" if origin["by_people"] and origin["model"] == "human" else origin["model"],
                origin["images"],
                one.with_model(origin["model"]),
            )
            for origin in found["origins"]
            if queries.can_name(origin["model"])
        ]
        yield _choice("Found by", origins)
    if query.source is None:
        sources = [
            Value(of["source"], of["images"], one.with_source(of["source"]))
            for of in found["sources"]
            if queries.can_name(of["source"])
        ]
        yield _choice("Source", sources)
    statuses = [
        Value(of["status"], of["images"], one.with_status(of["status"]))
        for of in found["statuses"]
        if query.terms or of["status"] != "failed"  # alone it also finds those without a size
    ]
    yield _choice("Status", statuses)


def _choice(title: str, values: Sequence[Value]) -> Group:
    return _group(title, values if len(values) > 1 else ())


def _group(title: str, values: Sequence[Value]) -> Group:
    return Group(title, list(values[:FIRST]), list(values[FIRST:]))


def _bars(
    counts: Sequence[int], least: float, what: str, unit: str, href: Callable[[float], str]
) -> list[Bar]:
    from_here = list(accumulate(reversed(counts)))[::-1]
    most = max(counts)
    bars = []
    for i, (count, total) in enumerate(zip(counts, from_here, strict=True)):
        edge = i / len(counts)
        plural = "" if total == 1 else "es" if unit == "box" else "s"
        text = f"{what} from {edge:.2f}: {total:,} {unit}{plural}"
        is_door = total > 0 and edge > least
        bars.append(Bar(count / most, text, href(edge) if is_door else None))
    return bars
