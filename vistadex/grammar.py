"""The query language of CLI, API and page: text to a Query, parsed here alone.

    query   = [ term { [ "&" | "|" ] term } ]
    term    = class [ ">=" number ]      images with the class, at least so many boxes
            | "relation:" pattern        images where one thing does something to another
            | "-" class                  images without the class; -relation: likewise
            | "score" ( ">" | ">=" ) x   only classes found with such a score, 0 to 1
            | "source:" text             only images of sources whose address ends so
            | "model:" text              only what this model found, by name or SHA-256 prefix
            | "duplicate:" kind          only copies of a better image: exact or near
            | "status:" status           only images that are ok, failed, vanished or unseen
            | "size" ">=" x              only images with a box so large: the square root of its
                                         share of the picture, in steps of 0.05
            | "collection:" name         only images in this collection; -collection: others
            | "sort:" order              score, which is usual, or newest
            | name ":" text              only images with this attribute: split:train
    class   = word { word } | '"' text '"'
    pattern = subject "/" predicate "/" object, each a name, a pattern with % (any text) and _ (any
              character) as in SQL, or empty for anything: relation:"Person/ride%/Horse"

Between classes stands & (all of them) or | (any of them, most matched first), not both. A backslash
takes its meaning from %, _ and / in a pattern.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from vistadex.errors import QueryError
from vistadex.records import stored_score

MAX_CLASSES = 30
"""Databases join a limited number of tables."""

SIZE_STEPS = 20
"""Sizes of boxes are told apart in so many steps from 0 to 1."""
WORDS = {
    "duplicate": ("exact", "near"),
    "status": ("ok", "failed", "vanished", "unseen"),
    "sort": ("newest", "score"),
}
"""What may stand behind the name of a field."""
FIELDS = ("source", "model", "collection", *WORDS)

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<operator>[&|])
      | (?P<score>score\s*(?P<strict>>=?)\s*(?P<limit>[^\s&|]*))
      | (?P<size>size\s*>=\s*(?P<share>[^\s&|]*))
      | (?P<filter>(?P<field>[A-Za-z_][\w.-]*):(?:"(?P<quoted_value>[^"]*)"|(?P<value>[^\s&|]*)))
      | (?P<count>>=?\s*(?P<number>[^\s&|]*))
      | (?P<minus>-)
      | "(?P<quoted>[^"]*)"
      | (?P<word>[^\s&|"><]+)
    )""",
    re.VERBOSE,
)


class RelationPattern(NamedTuple):
    """Subject, predicate and object, each as in SQL's LIKE; empty: anything."""

    subject: str = ""
    predicate: str = ""
    object: str = ""

    def __str__(self) -> str:
        return "/".join(self)


@dataclass(frozen=True, slots=True)
class Term:
    """A class or a relation that an image must or may have."""

    class_name: str = ""
    min_boxes: int = 0
    relation: RelationPattern | None = None
    """Given instead of a class."""

    @property
    def label(self) -> str:
        """What to call it: the class, or the pattern."""
        return self.class_name if self.relation is None else str(self.relation)


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for; without terms, every image."""

    terms: tuple[Term, ...] = ()
    mode: Literal["all", "any"] = "all"
    without: tuple[Term, ...] = ()
    min_score: int = 0
    """Classes found with a lower score do not count; in units of 1 / SCORE_SCALE."""
    source: str | None = None
    model: str | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    """Names and values that the image's attributes must have."""
    duplicates: Literal["exact", "near"] | None = None
    """Only images that are copies of a better one."""
    status: str | None = None
    min_size: int = 0
    """Only images where one of the classes, or any where none is named, has a box of at least such
    a size; in steps of 1 / SIZE_STEPS."""
    newest: bool = False
    """In the order of their ids, newest first, instead of the best first."""
    collections: tuple[str, ...] = ()
    """Only images that are in all of these."""
    not_in: tuple[str, ...] = ()
    """Only images that are in none of these collections."""


def relation_pattern(text: str) -> RelationPattern:
    """The pattern that a text says: `Person/ride%/Horse`, `//Horse`.

    Raises: QueryError if it has not three parts.
    """
    parts = _split(text)
    if len(parts) != 3:
        problem = f"relation {text!r}: {len(parts)} parts, expected class/predicate/class"
        raise QueryError(f"{problem}, as in Person/ride%/Horse; a part may be empty")
    return RelationPattern(*(part.strip() for part in parts))


def _split(text: str) -> list[str]:
    """The parts between slashes; a slash behind a backslash belongs to its part."""
    parts = [""]
    for token in _tokens(text):
        if token == "/":
            parts.append("")
        else:
            parts[-1] += token
    return parts


def _tokens(pattern: str) -> list[str]:
    """Characters, each with the backslash that takes its meaning."""
    return re.findall(r"\\.|.", pattern, re.DOTALL)


def like(pattern: str, *, fold_case: bool = False) -> re.Pattern[str]:
    """What matches as SQL's LIKE: % any text, _ any character; empty: anything."""
    parts = (
        {"%": ".*", "_": "."}.get(one) or re.escape(_meant(one)) for one in _tokens(pattern or "%")
    )
    return re.compile("".join(parts), re.DOTALL | (re.IGNORECASE if fold_case else 0))


def exact(pattern: str) -> str | None:
    """The one name that a part of a pattern stands for; None where it has wildcards or is empty."""
    tokens = _tokens(pattern)
    if not tokens or not {"%", "_"}.isdisjoint(tokens):
        return None
    return "".join(map(_meant, tokens))


def _meant(token: str) -> str:
    """The character that a token without a wildcard's meaning stands for."""
    return token.removeprefix("\\") or token


def parse(text: str) -> Query:
    """The query that a text says.

    Raises: QueryError that points at the first part that can't be read.
    """
    parser = _Parser(text)
    parser.run()
    return parser.query()


def with_options(
    query: Query, relation: str | None, min_score: int, source: str | None, model: str | None
) -> Query:
    """A query with the options that stand beside it.

    Raises: QueryError where a relation is wanted beside any of several classes.
    """
    terms = query.terms
    if relation is not None:
        if query.mode == "any" and len(terms) > 1:
            raise QueryError(
                f"relation {relation!r}: would be one more of any; write it into the query, as in "
                f'dog | relation:"{relation}"'
            )
        terms = (*terms, Term(relation=relation_pattern(relation)))
    return replace(
        query,
        terms=terms,
        mode=query.mode if relation is None else "all",
        min_score=max(query.min_score, min_score),
        source=source or query.source,
        model=model or query.model,
    )


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.words: list[str] = []
        self.negated = False
        self.quoted = False
        self.operators: set[str] = set()
        self.dangling = ""
        self.filters = Query()
        self.terms: list[Term] = []
        self.without: list[Term] = []

    def fail(self, problem: str) -> QueryError:
        shown = self.text if len(self.text) <= 200 else self.text[:200] + "…"
        return QueryError(f"query {shown!r}: {problem}")

    def run(self) -> None:
        position = 0
        text = self.text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self.fail(
                    f"{text[position:].strip()!r} can't be read; is a quote not closed?"
                )
            self.take(match)
            position = match.end()
        self.end_class()
        if self.dangling:
            raise self.fail(f"a class is missing after {self.dangling!r}")

    def take(self, match: re.Match[str]) -> None:
        if match["operator"]:
            self.take_operator(match["operator"])
        elif match["score"] or match["size"]:
            self.end_class()
            self.take_limit(match)
        elif match["filter"]:
            self.take_field(match["field"], match["quoted_value"] or match["value"] or "")
        elif match["count"]:
            self.take_count(match["count"], match["number"])
        elif match["minus"]:
            self.end_class()
            self.negated = True
            self.dangling = "-"
        elif match["quoted"] is not None:
            if self.words:
                self.end_class()
            self.words = [match["quoted"]]
            self.quoted = True
        else:
            if self.quoted:
                self.end_class()
            self.words.append(match["word"])

    def take_operator(self, operator: str) -> None:
        if not self.words and not self.terms and not self.without:
            raise self.fail(f"a class is missing before {operator!r}")
        self.end_class()
        if self.dangling:
            raise self.fail(f"a class is missing between {self.dangling!r} and {operator!r}")
        self.operators.add(operator)
        self.dangling = operator

    def take_limit(self, match: re.Match[str]) -> None:
        self.dangling = ""
        if match["size"]:
            self.take_size(match["share"])
        else:
            self.take_score(match["strict"], match["limit"])

    def take_score(self, comparison: str, limit: str) -> None:
        try:
            number = float(limit)
        except ValueError as error:
            raise self.fail(f"score needs a number from 0 to 1, not {limit!r}") from error
        if not 0 <= number <= 1:
            raise self.fail(f"score is from 0 to 1, not {limit}")
        lowest = stored_score(number) + (1 if comparison == ">" else 0)
        self.filters = replace(self.filters, min_score=lowest)

    def take_size(self, share: str) -> None:
        try:
            steps = float(share) * SIZE_STEPS
        except ValueError as error:
            raise self.fail(f"size needs a number from 0 to 1, not {share!r}") from error
        if not (0 <= steps < SIZE_STEPS and abs(steps - round(steps)) < 1e-6):
            raise self.fail(f"size is from 0 to 0.95 in steps of 0.05, not {share}")
        self.filters = replace(self.filters, min_size=round(steps))

    def take_field(self, field: str, value: str) -> None:
        kind = field.casefold()
        if kind == "relation":
            self.take_relation(value)
        elif kind == "collection":
            self.take_collection(value.strip())
        else:
            self.end_class()
            self.take_filter(field, value)

    def take_relation(self, text: str) -> None:
        if self.words:
            self.end_class()
        try:
            term = Term(relation=relation_pattern(text))
        except QueryError as error:
            raise self.fail(str(error)) from error
        (self.without if self.negated else self.terms).append(term)
        self.negated, self.dangling = False, ""

    def take_collection(self, name: str) -> None:
        if self.words:
            self.end_class()
        if not name:
            raise self.fail("collection: needs a name")
        some = self.filters.not_in if self.negated else self.filters.collections
        names = tuple(dict.fromkeys((*some, name)))
        if len(names) > MAX_CLASSES:
            raise self.fail(f"more than {MAX_CLASSES} collections; ask for fewer at a time")
        if self.negated:
            self.filters = replace(self.filters, not_in=names)
        else:
            self.filters = replace(self.filters, collections=names)
        self.negated, self.dangling = False, ""

    def take_filter(self, field: str, value: str) -> None:
        self.dangling = ""
        if not value:
            raise self.fail(f"{field}: needs a name")
        if field.casefold() in FIELDS:
            field = field.casefold()
        if field == "source":
            self.filters = replace(self.filters, source=value)
        elif field == "model":
            self.filters = replace(self.filters, model=value)
        elif field in WORDS:
            self.take_word(field, value)
        else:
            attributes = (*self.filters.attributes, (field, value))
            self.filters = replace(self.filters, attributes=attributes)

    def take_word(self, field: str, value: str) -> None:
        known = WORDS[field]
        if value not in known:
            raise self.fail(f"{field}: is {' or '.join(known)}, not {value!r}")
        if field == "duplicate":
            kind: Literal["exact", "near"] = "exact" if value == "exact" else "near"
            self.filters = replace(self.filters, duplicates=kind)
        elif field == "status":
            self.filters = replace(self.filters, status=value)
        else:
            self.filters = replace(self.filters, newest=value == "newest")

    def take_count(self, token: str, number: str) -> None:
        if not self.words or self.negated:
            raise self.fail(f"{token!r} must follow a class, as in car>=3")
        if not re.fullmatch("0*[1-9][0-9]{0,5}", number, re.ASCII):
            raise self.fail(f"a count is a whole number from 1 to 999999, not {number[:20]!r}")
        count = int(number) + (0 if token.startswith(">=") else 1)
        self.end_class(min_boxes=count)

    def end_class(self, min_boxes: int = 0) -> None:
        name = " ".join(self.words).strip()
        if self.quoted and not name:
            raise self.fail("a class name is empty")
        if name and self.negated:
            self.without.append(Term(name))
        elif name:
            self.terms.append(Term(name, min_boxes))
        elif self.negated:
            raise self.fail("a class is missing after '-'")
        if name:
            self.dangling = ""
        self.words, self.quoted, self.negated = [], False, False

    def query(self) -> Query:
        if len(self.operators) > 1:
            raise self.fail("& and | can't be mixed; ask for all of the classes or for any of them")
        mode: Literal["all", "any"] = "any" if "|" in self.operators else "all"
        terms = tuple(dict.fromkeys(self.terms))
        if len(terms) + len(self.without) > MAX_CLASSES:
            raise self.fail(f"more than {MAX_CLASSES} classes; ask for fewer at a time")
        return replace(
            self.filters, terms=terms, mode=mode, without=tuple(dict.fromkeys(self.without))
        )
