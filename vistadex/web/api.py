"""The functions behind /api/v1: each reads the catalog and returns JSON; pages render the same."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, Path, Query, Request
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from vistadex import jsonable
from vistadex.catalog import Catalog
from vistadex.records import FAILURE_REASONS
from vistadex.web.totals import Totals

MAX_ID = 2**63 - 1
MAX_LIMIT = 1000
USUAL_LIMIT = 60
MAX_TEXT = 2000


def _catalog(request: Request) -> Catalog:
    catalog: Catalog = request.app.state.catalog
    return catalog


def _totals(request: Request) -> Totals:
    totals: Totals = request.app.state.totals
    return totals


TheCatalog = Annotated[Catalog, Depends(_catalog)]
TheTotals = Annotated[Totals, Depends(_totals)]
ImageId = Annotated[int, Path(ge=1, le=MAX_ID, description="the image's id in the catalog")]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="how many on a page")]


class Asked(BaseModel):
    """What a search asks for: the state that the search page's URL carries."""

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
    after: Annotated[
        str,
        Field(
            pattern=r"^([0-9]{1,18}\.[0-9]{1,18}\.[0-9]{1,18})?$",
            description="a result's cursor, or a page's next: goes on behind it",
        ),
    ] = ""
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="how many on a page")] = USUAL_LIMIT


TheSearch = Annotated[Asked, Query()]


class Health(TypedDict):
    """Answered while the catalog can be read."""

    status: Literal["ok"]


def search(catalog: TheCatalog, asked: TheSearch) -> jsonable.SearchPage:
    """Images of a query, best first; without a query the collection, newest first."""
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
    return jsonable.search_page(page, total)


def image(catalog: TheCatalog, id: ImageId) -> jsonable.Image:
    """One image with its classes and boxes."""
    return jsonable.image(catalog.image(id))


def classes(
    catalog: TheCatalog,
    prefix: Annotated[
        str, Query(max_length=255, description="only classes with a word that begins so")
    ] = "",
    limit: Limit = 100,
    offset: Annotated[int, Query(ge=0, le=10**9, description="how many to pass over")] = 0,
) -> jsonable.ClassList:
    """Classes of the collection, most images first; whole names that begin so before others."""
    found = catalog.classes()
    if wanted := prefix.strip().casefold():
        names = [(one, one.class_name.casefold()) for one in found]
        at_start = [one for one, name in names if name.startswith(wanted)]
        inside = [
            one for one, name in names if f" {wanted}" in name and not name.startswith(wanted)
        ]
        found = at_start + inside
    return jsonable.class_list(found[offset : offset + limit], len(found))


def errors(
    catalog: TheCatalog,
    totals: TheTotals,
    reason: Annotated[
        str, Query(max_length=255, description=f"one of {', '.join(FAILURE_REASONS)}")
    ] = "",
    after: Annotated[int, Query(ge=0, le=MAX_ID, description="the page before's `next`")] = 0,
    limit: Limit = 100,
) -> jsonable.ErrorList:
    """Bad images and why they are, by rising id."""
    found = catalog.errors(reason=reason or None, limit=limit + 1, after=after)
    following = found[limit - 1].id if len(found) > limit else None
    return jsonable.error_list(found[:limit], totals.get().failures, following)


def stats(totals: TheTotals) -> jsonable.Stats:
    """What is in the catalog: images, sources, models, failures."""
    return jsonable.stats(totals.get())


def health(catalog: TheCatalog) -> Health:
    """Whether the catalog can be read."""
    catalog.search(limit=1)
    return {"status": "ok"}
