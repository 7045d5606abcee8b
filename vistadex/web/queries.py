"""Queries as text again: links to classes, chips, a query with its misspelled class put right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import quote_plus, urlencode

from vistadex.errors import QueryError
from vistadex.grammar import SIZE_STEPS, Query, Term, parse, with_options
from vistadex.records import SCORE_SCALE, stored_score
from vistadex.web.api import USUAL_LIMIT, Asked, Sought

T = TypeVar("T")
_WORD = r'(?!-|[A-Za-z_][\w.-]*:)[^\s&|"<>]+'
_PLAIN = re.compile(rf"(?!(?:.* )?(?:score|size)$){_WORD}(?: {_WORD})*")
"""Behind a last word `score` or `size`, a count would be read as a limit."""


@dataclass(frozen=True, slots=True)
class Chip:
    """A part of a search, and the link to the search without it."""

    label: str
    href: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the ways in which a search can be done."""

    label: str
    href: str
    is_on: bool


@dataclass(frozen=True, slots=True)
class Switch:
    """Ways in which a search can be done, of which one is on."""

    title: str
    choices: tuple[Choice, ...]


def switches(asked: Asked) -> list[Switch]:
    """All or any of several classes; the best or the newest first."""
    query = parse(asked.q)

    def choice(label: str, changed: Query) -> Choice:
        return Choice(label, search_href(asked, q=query_text(changed)), changed == query)

    found = []
    if len(query.terms) > 1:
        both = choice("All", replace(query, mode="all")), choice("Any", replace(query, mode="any"))
        found.append(Switch("", both))
    if query.terms:
        best = choice("best", replace(query, newest=False))
        found.append(Switch("Sort", (best, choice("newest", replace(query, newest=True)))))
    return found


def can_name(name: str) -> bool:
    """Whether a query can name a class: the grammar has no way to write a quote."""
    return '"' not in name


def class_text(name: str) -> str:
    """A class as a query names it, in quotes where it would be read as something else."""
    return name if _PLAIN.fullmatch(name) else f'"{name}"'


def query_text(query: Query) -> str:
    """A query as text that parses to the same query."""
    text = _operator(query).join(_term_text(term) for term in query.terms)
    rest = _limits(query)
    return " ".join([text, *rest] if text else rest)


def term_hrefs(asked: Asked, query: Query) -> Callable[[Term], str]:
    """Addresses of searches for a query with one term more, put together once but for the term."""
    operator = _operator(query)
    before = "".join(_term_text(term) + operator for term in query.terms)
    after = "".join(f" {limit}" for limit in _limits(query))
    begin, end = search_href(asked, q="*").split("q=%2A")
    begin, end = f"{begin}q={quote_plus(before)}", quote_plus(after) + end
    return lambda term: f"{begin}{quote_plus(_term_text(term))}{end}"


def _operator(query: Query) -> str:
    return " | " if query.mode == "any" else " & "


def _limits(query: Query) -> list[str]:
    """What a query says beside the terms that it wants."""
    rest = [f"-{_term_text(term)}" for term in query.without]
    if query.min_score:
        rest.append(_score_text(query.min_score))
    if query.source:
        rest.append(f'source:"{query.source}"')
    if query.model:
        rest.append(f'model:"{query.model}"')
    if query.duplicates:
        rest.append(f"duplicate:{query.duplicates}")
    if query.status:
        rest.append(f"status:{query.status}")
    if query.min_size:
        rest.append(_size_text(query.min_size))
    if query.newest:
        rest.append("sort:newest")
    rest += [f'collection:"{name}"' for name in query.collections]
    rest += [f'-collection:"{name}"' for name in query.not_in]
    rest += [f'{name}:"{value}"' for name, value in query.attributes]
    return rest


def _term_text(term: Term) -> str:
    if term.relation is not None:
        return f'relation:"{term.relation}"'
    least = f">={term.min_boxes}" if term.min_boxes else ""
    return class_text(term.class_name) + least


def _score_text(least: int) -> str:
    """score>0.5 is stored as the next higher score, 0.500001."""
    above = least % 1000 == 1
    return f"score{'>' if above else '>='}{(least - above) / SCORE_SCALE:.6g}"


def _size_text(steps: int) -> str:
    return f"size>={steps / SIZE_STEPS:.6g}"


def whole(asked: Sought) -> Query:
    """The query with the options beside it, as one.

    Raises: QueryError where it can't be read.
    """
    least = stored_score(asked.min_score)
    return with_options(parse(asked.q), None, least, asked.source or None, asked.model or None)


def search_href(asked: Asked, **changes: str | float | int) -> str:
    """The URL of a search page: what was asked with changes, from its start if not said else."""
    values = asked.model_dump() | {"after": "", "limit": USUAL_LIMIT} | changes
    usual = type(asked)()
    given = {
        name: int(value) if value is True else value
        for name, value in values.items()
        if value != getattr(usual, name)
    }
    return "/?" + urlencode(given) if given else "/"


def search_hrefs(asked: Asked, **changes: str | float | int) -> Callable[[str], str]:
    """What search_href() says of many queries, none of them empty, and the same changes."""
    before, after = search_href(asked, q="*", **changes).split("q=%2A")
    return lambda text: f"{before}q={quote_plus(text)}{after}"


def meant(asked: Sought) -> str:
    """The parameters that say which images a search finds, for addresses other than its own."""
    given = {name: getattr(asked, name) for name in Sought.model_fields}
    return urlencode({name: value for name, value in given.items() if value})


def query_href(text: str) -> str:
    """The search page of a query."""
    return "/?" + urlencode({"q": text})


def relation_href(subject: str, predicate: str, object: str) -> str | None:
    """The search for a relation, an empty part being any; None where no query can name it."""
    text = "/".join(map(pattern_part, (subject, predicate, object)))
    return query_href(f'relation:"{text}"') if can_name(text) else None


def pattern_part(name: str) -> str:
    """A name as a part of a relation's pattern that stands for it alone."""
    return re.sub(r"([\\%_/])", r"\\\1", name)


def collection_href(name: str) -> str:
    """The search for the images of a collection."""
    return query_href(f'collection:"{name}"')


def class_href(name: str) -> str | None:
    """The search for one class; None where no query can name it."""
    return query_href(class_text(name)) if can_name(name) else None


def chips(asked: Asked) -> list[Chip]:
    """The parts of a search that can be read."""
    query = parse(asked.q)
    found = [
        (_term_text(one), replace(query, terms=_without(query.terms, one))) for one in query.terms
    ]
    found += [
        (f"not {one.label}", replace(query, without=_without(query.without, one)))
        for one in query.without
    ]
    found += _limit_chips(query)
    found += _collection_chips(query)
    for pair in query.attributes:
        rest = replace(query, attributes=_without(query.attributes, pair))
        found.append((f"{pair[0]} {pair[1]}", rest))
    shown = [Chip(label, search_href(asked, q=query_text(rest))) for label, rest in found]
    if asked.min_score:
        shown.append(Chip(f"score ≥ {asked.min_score:g}", search_href(asked, min_score=0.0)))
    if asked.source:
        shown.append(Chip(f"source {asked.source}", search_href(asked, source="")))
    if asked.model:
        shown.append(Chip(f"model {asked.model}", search_href(asked, model="")))
    return shown


def _limit_chips(query: Query) -> list[tuple[str, Query]]:
    """What limits a query, with the query without it; its order is no limit."""
    score, size = (
        text.replace(">=", " ≥ ").replace(">", " > ")
        for text in (_score_text(query.min_score), _size_text(query.min_size))
    )
    parts: list[tuple[object, str, Query]] = [
        (query.min_score, score, replace(query, min_score=0)),
        (query.min_size, size, replace(query, min_size=0)),
        (query.source, f"source {query.source}", replace(query, source=None)),
        (query.model, f"model {query.model}", replace(query, model=None)),
        (query.status, f"{query.status}", replace(query, status=None)),
        (query.duplicates, f"{query.duplicates} duplicates", replace(query, duplicates=None)),
    ]
    return [(label, rest) for given, label, rest in parts if given]


def _collection_chips(query: Query) -> list[tuple[str, Query]]:
    inside = [
        (f"in {name}", replace(query, collections=_without(query.collections, name)))
        for name in query.collections
    ]
    outside = [
        (f"not in {name}", replace(query, not_in=_without(query.not_in, name)))
        for name in query.not_in
    ]
    return inside + outside


def _without(values: tuple[T, ...], one: T) -> tuple[T, ...]:
    return tuple(value for value in values if value != one)


def corrected(text: str, suggestion: str) -> str:
    """The query with a suggestion in place of the class most like it; alone, if that can't be."""
    try:
        query = parse(text)
    except QueryError:
        return class_text(suggestion)
    names = [term.class_name for term in (*query.terms, *query.without) if term.class_name]
    likeness = {
        name: difflib.SequenceMatcher(None, name.casefold(), suggestion.casefold()).ratio()
        for name in names
        if name.casefold() != suggestion.casefold()
    }
    if not likeness:
        return class_text(suggestion)
    wrong = max(likeness, key=lambda name: likeness[name])
    terms, without = (
        tuple(
            dict.fromkeys(
                replace(term, class_name=suggestion) if term.class_name == wrong else term
                for term in some
            )
        )
        for some in (query.terms, query.without)
    )
    return query_text(replace(query, terms=terms, without=without))
