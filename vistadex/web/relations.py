"""Relation types and predicates with their counts, and patterns in three boxes."""

from __future__ import annotations

import difflib
import re
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from vistadex import jsonable
from vistadex.catalog import Catalog
from vistadex.errors import QueryError
from vistadex.web import queries
from vistadex.web.api import MAX_LIMIT, TheCatalog


class RelationsAsked(BaseModel):
    """A pattern in three parts: the state that the page's URL carries."""

    subject: Annotated[
        str, Field(max_length=255, description="class 1: % is any text, _ any character")
    ] = ""
    predicate: Annotated[
        str, Field(max_length=255, description="relation, likewise; empty: any")
    ] = ""
    object: Annotated[str, Field(max_length=255, description="class 2, likewise")] = ""
    ignore_case: Annotated[bool, Field(description="whether person finds Person")] = False
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="how many at most")] = 100


TheRelations = Annotated[RelationsAsked, Query()]


class RelationList(TypedDict):
    """Relation types, most images first; `total` counts all that match, `relations` in them."""

    total: int
    triplets: int
    relations: list[jsonable.RelationCount]


class PredicateList(TypedDict):
    """Predicates, most images first."""

    predicates: list[jsonable.PredicateCount]


def relations(catalog: TheCatalog, asked: TheRelations) -> RelationList:
    """Relation types that match a pattern, most images first."""
    found = catalog.relations(pattern(asked), ignore_case=asked.ignore_case)
    return {
        "total": len(found),
        "triplets": sum(one.relations for one in found),
        "relations": [jsonable.relation_count(one) for one in found[: asked.limit]],
    }


def predicates(catalog: TheCatalog) -> PredicateList:
    """Every predicate that some image has."""
    return {"predicates": [jsonable.predicate_count(one) for one in catalog.predicates()]}


def pattern(asked: RelationsAsked) -> str:
    """The three parts as one pattern, a slash inside of a part told from those between them."""
    return "/".join(map(_part, (asked.subject, asked.predicate, asked.object)))


def _part(text: str) -> str:
    return re.sub(r"\\.|\\$|/", lambda one: one[0] if len(one[0]) == 2 else f"\\{one[0]}", text)


def corrected_href(asked: RelationsAsked, suggestion: str) -> str:
    """The search with a suggestion in place of the part that is most like it."""
    parts = asked.model_dump(include={"subject", "predicate", "object"}, exclude_defaults=True)
    likeness = {
        name: difflib.SequenceMatcher(None, text.casefold(), suggestion.casefold()).ratio()
        for name, text in parts.items()
        if text != suggestion
    }
    if likeness:
        parts[max(likeness, key=lambda name: likeness[name])] = literal(suggestion)
    return "/relations?" + urlencode(asked.model_dump(exclude_defaults=True) | parts)


def literal(name: str) -> str:
    """A name as a pattern that finds it alone."""
    return re.sub(r"([\\%_])", r"\\\1", name)


def images_href(catalog: Catalog, asked: RelationsAsked) -> str | None:
    """The search for the images of a whole pattern; None where no query can say the pattern."""
    whole = pattern(asked)
    if not queries.can_name(whole):
        return None
    if asked.ignore_case:
        try:
            exact = catalog.relations(whole)
        except QueryError:
            return None
        if exact != catalog.relations(whole, ignore_case=True):
            return None
    return queries.query_href(f'relation:"{whole}"')
