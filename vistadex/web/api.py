"""The functions behind /api/v1: each reads the catalog and returns JSON; pages render the same."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

from fastapi import Depends, Path, Query, Request
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from vistadex import jsonable
from vistadex.catalog import Catalog, ClassCount, ImageCollection, PredicateCount, SearchPage
from vistadex.catalog.query_facets import FIRST
from vistadex.errors import CatalogError
from vistadex.records import FAILURE_REASONS
from vistadex.web.completing import Completing

log = logging.getLogger(__name__)

MAX_ID = 2**63 - 1
MAX_LIMIT = 1000
USUAL_LIMIT = 60
MAX_TEXT = 2000


async def _catalog(request: Request) -> Catalog:  # async: needs no thread
    catalog: Catalog = request.app.state.catalog
    return catalog


async def _names(request: Request) -> Completing[ClassCount]:
    names: Completing[ClassCount] = request.app.state.class_names
    return names


TheCatalog = Annotated[Catalog, Depends(_catalog)]
TheNames = Annotated[Completing[ClassCount], Depends(_names)]
ImageId = Annotated[int, Path(ge=1, le=MAX_ID, description="the image's id in the catalog")]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="how many on a page")]


class Sought(BaseModel):
    """Which images are meant: all that these find together."""

    q: Annotated[
        str, Field(max_length=MAX_TEXT, description="e.g. dog & frisbee, or car>=3 -person")
    ] = ""
    min_score: Annotated[
        float, Field(ge=0, le=1, description="classes found with less do not count")
    ] = 0.0
    source: Annotated[
        str, Field(max_length=MAX_TEXT, description="only sources whose address ends so")
    ] = ""
    model: Annotated[
        str,
        Field(max_length=255, description="only what this model found: name or SHA-256 prefix"),
    ] = ""


class FacetsAsked(Sought):
    """Of which images facets are wanted, and how many of them."""

    limit: Annotated[
        int, Field(ge=1, le=MAX_LIMIT, description="how many classes and predicates")
    ] = FIRST


class Listed(Sought):
    """Which images are listed: those of a query, or these."""

    ids: Annotated[
        str,
        Field(
            max_length=8 * MAX_TEXT,
            pattern="^([0-9]{1,18}(,[0-9]{1,18})*)?$",
            description="ids with commas between them, in place of a query",
        ),
    ] = ""


class Asked(Sought):
    """What a search asks for: the state that the search page's URL carries."""

    after: Annotated[
        str,
        Field(
            pattern=r"^([0-9]{1,18}\.[0-9]{1,18}\.[0-9]{1,18})?$",
            description="a result's cursor, or a page's next: goes on behind it",
        ),
    ] = ""
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="how many on a page")] = USUAL_LIMIT


class Shown(Asked):
    """What the search page shows beside the result."""

    facets: bool = False
    """Facets as a part of the page; else a script fetches them."""


TheShown = Annotated[Shown, Query()]
TheList = Annotated[Listed, Query()]
TheFacets = Annotated[FacetsAsked, Query()]
TheSearch = Annotated[Asked, Query()]


class Choice(TypedDict):
    """What letters may become: a class, a predicate or a collection, and how many images it has."""

    name: str
    kind: Literal["class", "predicate", "collection"]
    images: int


class Choices(TypedDict):
    """What letters may become, the likeliest first."""

    choices: list[Choice]


class Health(TypedDict):
    """Answered while the catalog can be read."""

    status: Literal["ok"]


def search(catalog: TheCatalog, asked: TheSearch) -> jsonable.SearchPage:
    """Images of a query, best first; without a query the collection, newest first."""
    return jsonable.search_page(*found(catalog, asked))


def found(catalog: Catalog, asked: Asked) -> tuple[SearchPage, int | None]:
    """What search() says, not as JSON yet: a page, and how many there are where it is the first."""
    source, model = asked.source or None, asked.model or None
    page = catalog.search(
        asked.q,
        min_score=asked.min_score,
        source=source,
        model=model,
        limit=asked.limit,
        after=asked.after or None,
    )
    total = None
    if not asked.after:
        total = len(page.results)
        if page.next:
            total = catalog.count(asked.q, min_score=asked.min_score, source=source, model=model)
    return page, total


def facets(catalog: TheCatalog, asked: TheFacets) -> jsonable.Facets:
    """What is in all images of a query: classes and predicates, most first, and histograms."""
    found = catalog.facets(
        asked.q,
        min_score=asked.min_score,
        source=asked.source or None,
        model=asked.model or None,
        limit=asked.limit,
    )
    shown = jsonable.facets(found)
    if asked == FacetsAsked(limit=asked.limit):  # also of images that failed but have annotations
        shown["classes"] = [
            {"class": one.class_name, "images": one.images}
            for one in catalog.classes()[: asked.limit]
        ]
        shown["predicates"] = [
            {"predicate": one.predicate, "images": one.images}
            for one in catalog.predicates()[: asked.limit]
        ]
    return shown


def complete(
    catalog: TheCatalog,
    names: TheNames,
    prefix: Annotated[str, Query(max_length=255, description="how a word of the name begins")],
    kind: Annotated[
        Literal["", "class", "predicate", "collection"],
        Query(description="only these; empty: classes and predicates"),
    ] = "",
    limit: Limit = 8,
) -> Choices:
    """Names that letters may become, whatever their case; those that begin so before others."""
    choices: list[Choice] = []
    if kind == "collection":
        known = Completing[ImageCollection](lambda one: one.name)
        named = known.beginning(prefix, catalog.collections(), limit)
        return {"choices": [{"name": n.name, "kind": kind, "images": n.images} for n in named]}
    if kind != "predicate":
        classes = names.beginning(prefix, catalog.classes(), limit)
        choices = [
            {"name": one.class_name, "kind": "class", "images": one.images} for one in classes
        ]
    if kind != "class":
        most = max(limit - len(choices), 2)
        few = Completing[PredicateCount](lambda one: one.predicate)
        predicates = few.beginning(prefix, catalog.predicates(), most)
        found: list[Choice] = [
            {"name": one.predicate, "kind": "predicate", "images": one.images} for one in predicates
        ]
        choices = choices[: limit - len(found)] + found
    return {"choices": choices}


def image(catalog: TheCatalog, id: ImageId) -> jsonable.Image:
    """One image with its classes, boxes and collections."""
    found = jsonable.image(catalog.image(id))
    found["collections"] = catalog.collections_of(id)
    return found


def errors(
    catalog: TheCatalog,
    reason: Annotated[
        str, Query(max_length=255, description=f"one of {', '.join(FAILURE_REASONS)}")
    ] = "",
    after: Annotated[int, Query(ge=0, le=MAX_ID, description="the page before's `next`")] = 0,
    limit: Limit = 100,
) -> jsonable.ErrorList:
    """Bad images and why they are, by rising id."""
    found = catalog.errors(reason=reason or None, limit=limit + 1, after=after)
    following = found[limit - 1].id if len(found) > limit else None
    return jsonable.error_list(found[:limit], catalog.stats().failures, following)


def stats(catalog: TheCatalog) -> jsonable.Stats:
    """What is in the catalog: images, sources, models, failures."""
    return jsonable.stats(catalog.stats())


def health(catalog: TheCatalog) -> Health:
    """Whether the catalog can be read; why it can't is in the log, as anyone may ask."""
    try:
        catalog.search(limit=1)
    except CatalogError as error:
        log.error("/health: %s", error)
        raise CatalogError("the catalog can't be read; the server's log says why") from error
    return {"status": "ok"}
