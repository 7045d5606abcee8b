"""The pages: what the functions of the API return, rendered as HTML."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import Query, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vistadex.drawing import hue
from vistadex.records import FAILURE_REASONS
from vistadex.web import api, queries, views
from vistadex.web.api import Asked, ImageId, TheCatalog, TheSearch, TheTotals

CLASSES_ON_A_PAGE = 500
TITLES = {400: "This search did not work", 404: "Not found", 502: "The source does not answer"}

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals.update(
    hue=hue,
    class_href=queries.class_href,
    relation_href=views.relation_href,
    search_href=queries.search_href,
)
_templates.filters.update(
    number=views.number, size=views.size, score=views.score, time=views.minute
)


def _page(name: str, status: int = 200, **values: Any) -> HTMLResponse:
    values.setdefault("asked", Asked())
    return HTMLResponse(_templates.get_template(name).render(values), status)


def search(catalog: TheCatalog, totals: TheTotals, asked: TheSearch) -> Response:
    """The search page: an empty query shows the collection, newest first, with its numbers."""
    started = time.perf_counter()
    page = api.search(catalog, asked)
    elapsed_ms = (time.perf_counter() - started) * 1000
    whole = asked == Asked(limit=asked.limit)
    return _page(
        "search.html",
        asked=asked,
        page=page,
        tiles=views.tiles(page, asked),
        chips=queries.chips(asked),
        more=queries.search_href(asked, after=page["next"]) if page["next"] else None,
        elapsed_ms=round(elapsed_ms),
        stats=api.stats(totals) if whole else None,
    )


def image(catalog: TheCatalog, id: ImageId, asked: TheSearch) -> Response:
    """An image with its boxes; q and the rest say which search it comes from, to walk on."""
    shown = api.image(catalog, id)
    following = None
    if asked.after:
        one = asked.model_copy(update={"limit": 1})
        following = next(iter(views.tiles(api.search(catalog, one), asked)), None)
    return _page(
        "image.html",
        asked=asked,
        image=shown,
        view=views.image_view(shown),
        following=following,
        reasons=FAILURE_REASONS,
    )


def classes(
    catalog: TheCatalog,
    prefix: Annotated[str, Query(max_length=255)] = "",
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Response:
    """Every class with its counts, each a link to its images."""
    found = api.classes(catalog, prefix, CLASSES_ON_A_PAGE, offset)
    end = offset + len(found["classes"])
    return _page(
        "classes.html",
        found=found,
        prefix=prefix,
        offset=offset,
        most=max((one["images"] for one in found["classes"]), default=1),
        next=end if end < found["total"] else None,
    )


def errors(
    catalog: TheCatalog,
    totals: TheTotals,
    reason: Annotated[str, Query(max_length=255)] = "",
    after: Annotated[int, Query(ge=0, le=api.MAX_ID)] = 0,
) -> Response:
    """Bad images with their reasons, each reason a link to its images."""
    found = api.errors(catalog, totals, reason, after)
    return _page("errors.html", found=found, reason=reason, reasons=FAILURE_REASONS)


def docs(request: Request) -> Response:
    """The HTTP API on one page, from its own OpenAPI description."""
    return _page("docs.html", routes=views.routes(request.app.openapi()))


def problem(request: Request, status: int, message: str, suggestions: list[str]) -> Response:
    """The page of an error: what is wrong, the query kept, and what may have been meant."""
    text = request.query_params.get("q", "")[: api.MAX_TEXT]
    texts = [queries.corrected(text, name) for name in suggestions if queries.can_name(name)]
    links = [(one, queries.query_href(one)) for one in texts]
    title = TITLES.get(status, "This did not work")
    asked = Asked(q=text)
    return _page("error.html", status, asked=asked, title=title, message=message, links=links)
