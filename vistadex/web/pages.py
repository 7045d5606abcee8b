"""The pages: what the functions of the API return, rendered as HTML."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import ValidationError

from vistadex import jsonable
from vistadex.catalog import Catalog, SimilarPage
from vistadex.drawing import hue
from vistadex.errors import QueryError
from vistadex.finding_similar import read_box
from vistadex.records import FAILURE_REASONS
from vistadex.web import api, queries, refining, saying, uploads, views
from vistadex.web import classes as class_list
from vistadex.web import exif as cameras
from vistadex.web import relations as related
from vistadex.web import similar as similar_images
from vistadex.web.api import (
    Asked,
    FacetsAsked,
    ImageId,
    Shown,
    Sought,
    TheCatalog,
    TheSearch,
    TheShown,
)
from vistadex.web.classes import TheClasses, TheName
from vistadex.web.relations import TheRelations
from vistadex.web.snapshot import snapshot

CLASSES_ON_A_PAGE = 500
TheExif = Annotated[cameras.Exif, Depends(cameras.exif)]
TITLES = {404: "Not found", 502: "The source does not answer"}

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
    collection_href=queries.collection_href,
    relation_href=queries.relation_href,
    literal=related.literal,
    search_href=queries.search_href,
)
_templates.filters.update(
    number=views.number, size=views.size, score=views.score, time=views.minute
)


def rendered(request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A template as a page, with what each of them needs to know of the app."""
    state = request.app.state
    values.setdefault("asked", Asked())
    values.setdefault("read_only", getattr(state, "read_only", False))
    values.setdefault("signs_in", bool(getattr(state, "keys", False)))
    return HTMLResponse(_templates.get_template(name).render(values), status)


def search(request: Request, catalog: TheCatalog, asked: TheShown) -> Response:
    """The search page: an empty query shows the collection, newest first, with its numbers."""
    started = time.perf_counter()
    with snapshot(catalog) as seen:
        page, total = api.found(seen, asked)
        elapsed_ms = (time.perf_counter() - started) * 1000
        everything = asked == Shown(limit=asked.limit, facets=asked.facets)
        stats = jsonable.stats(seen.stats()) if everything else None
        is_counted = _is_counted(seen, asked)
    return rendered(
        request,
        "search.html",
        asked=asked,
        total=total,
        tiles=views.tiles(page.results, asked),
        chips=queries.chips(asked),
        more=queries.search_href(asked, after=page.next) if page.next else None,
        switches=queries.switches(asked),
        beside=_beside(catalog, asked) if asked.facets or is_counted else None,
        whole=queries.meant(asked),
        whole_text=queries.query_text(queries.whole(asked)),
        within=queries.whole(asked).collections,
        elapsed_ms=round(elapsed_ms),
        stats=stats,
    )


def _is_counted(catalog: Catalog, asked: Asked) -> bool:
    """Whether facets need no waiting: the page then has them, else a script asks for them."""
    known = catalog.known_facets(
        asked.q,
        min_score=asked.min_score,
        source=asked.source or None,
        model=asked.model or None,
        limit=FacetsAsked().limit,
    )
    return known is not None


def _beside(catalog: Catalog, asked: Asked) -> refining.Beside:
    wanted = FacetsAsked.model_validate(asked.model_dump(include=set(Sought.model_fields)))
    return refining.beside(api.facets(catalog, wanted), asked)


def facets(request: Request, catalog: TheCatalog, asked: TheSearch) -> Response:
    """The part of the search page with its facets, for a script to put there."""
    return rendered(request, "facets.html", asked=asked, beside=_beside(catalog, asked))


def image(request: Request, catalog: TheCatalog, id: ImageId, asked: TheSearch) -> Response:
    """An image with its boxes; q and the rest say which search it comes from, to walk on."""
    following = None
    with snapshot(catalog) as seen:
        shown = api.image(seen, id)
        if asked.after:
            one = asked.model_copy(update={"limit": 1})
            following = next(iter(views.tiles(api.found(seen, one)[0].results, asked)), None)
        people = saying.people(seen)
        said = saying.by_class(saying.origins(seen, id))
        no_similar = similar_images.why_nothing(seen)
    parts = similar_images.parts(shown)
    return rendered(
        request,
        "image.html",
        asked=asked,
        image=shown,
        view=views.image_view(shown),
        following=following,
        reasons=FAILURE_REASONS,
        people=people,
        said=said,
        sentences=saying.sentences(shown, people),
        at_first=saying.SENTENCES_AT_FIRST,
        no_similar=no_similar,
        parts=[(one, saying.outlines([read_box(one.href.rpartition("=")[2])])) for one in parts],
    )


def exif(request: Request, id: ImageId, found: TheExif) -> Response:
    """What the camera wrote into an image's file."""
    return rendered(request, "exif.html", id=id, exif=found)


def classes(request: Request, catalog: TheCatalog, asked: TheClasses) -> Response:
    """Every class with its counts, each a link to its images."""
    page = asked.model_copy(update={"limit": CLASSES_ON_A_PAGE})
    found = class_list.classes(catalog, page)
    end = asked.offset + len(found["classes"])
    return rendered(
        request,
        "classes.html",
        found=found,
        classes=asked,
        end=end,
        shares=views.shares(
            [one["boxes" if asked.sort == "boxes" else "images"] for one in found["classes"]]
        ),
        before=max(0, asked.offset - CLASSES_ON_A_PAGE) if asked.offset else None,
        next=end if end < found["total"] else None,
    )


def about_class(request: Request, catalog: TheCatalog, name: TheName) -> Response:
    """A class with a few of its pictures, for itself or to be put beside the list of all."""
    found = class_list.about(catalog, name)
    thumbnails = [
        (one, views.picture_href("thumbnail", one["id"], one["uri"], one["version"]))
        for one in found["examples"]
    ]
    return rendered(request, "class.html", about=found, thumbnails=thumbnails)


def relations(request: Request, catalog: TheCatalog, asked: TheRelations) -> Response:
    """Predicates, and the relation types of a pattern, with their counts."""
    found, problem = None, ""
    suggestions: tuple[str, ...] = ()
    try:
        found = related.relations(catalog, asked)
    except QueryError as error:
        problem, suggestions = str(error), error.suggestions
    return rendered(
        request,
        "relations.html",
        400 if problem else 200,
        wanted=asked,
        found=found,
        problem=problem,
        corrected=[(one, related.corrected_href(asked, one)) for one in suggestions],
        whole=related.images_href(catalog, asked) if found and found["total"] else None,
        predicates=related.predicates(catalog)["predicates"],
    )


def errors(
    request: Request,
    catalog: TheCatalog,
    reason: Annotated[str, Query(max_length=255)] = "",
    after: Annotated[int, Query(ge=0, le=api.MAX_ID)] = 0,
) -> Response:
    """Bad images with their reasons, each reason a link to its images."""
    found = api.errors(catalog, reason, after)
    return rendered(request, "errors.html", found=found, reason=reason, reasons=FAILURE_REASONS)


def similar(
    request: Request, catalog: TheCatalog, id: ImageId, asked: similar_images.TheSimilar
) -> Response:
    """What is like an image, or like a part of it, as a grid; and its parts to look for."""
    shown = api.image(catalog, id)
    nothing = similar_images.why_nothing(catalog)
    started = time.perf_counter()
    page = None if nothing else similar_images.similar_to(request, catalog, id, asked)
    return _similar_page(
        request,
        asked,
        page,
        started,
        nothing=nothing,
        image=shown,
        heading=similar_images.name_of(shown),
        view=views.image_view(shown),
        thumbnail=views.picture_href("thumbnail", id, shown["uri"], shown["version"]),
        corners=read_box(asked.box) if asked.box else None,
        parts=similar_images.parts(shown),
    )


def similar_start(
    request: Request, catalog: TheCatalog, asked: similar_images.TheSimilar
) -> Response:
    """A picture to send, to find what is like it."""
    nothing = similar_images.why_nothing(catalog)
    return _similar_page(request, asked, None, 0.0, nothing=nothing)


def similar_to_upload(
    request: Request, catalog: TheCatalog, sent: similar_images.TheUpload
) -> Response:
    """What is like a picture that was sent, as a grid."""
    started = time.perf_counter()
    page = similar_images.similar_to_file(catalog, sent)
    asked = uploads.read_fields(sent, similar_images.SimilarAsked)
    return _similar_page(request, asked, page, started, heading=sent.files[0].name)


def _similar_page(
    request: Request,
    asked: similar_images.SimilarAsked,
    page: SimilarPage | None,
    started: float,
    **values: Any,
) -> Response:
    usual: dict[str, Any] = {
        "nothing": "",
        "image": None,
        "heading": "",
        "corners": None,
        "parts": [],
    }
    return rendered(
        request,
        "similar.html",
        similar=asked,
        page=page,
        tiles=similar_images.tiles(page) if page else [],
        elapsed_ms=round((time.perf_counter() - started) * 1000),
        **(usual | values),
    )


def docs(request: Request) -> Response:
    """The HTTP API on one page, from its own OpenAPI description."""
    return rendered(request, "docs.html", routes=views.routes(request.app.openapi()))


def problem(request: Request, status: int, message: str, suggestions: list[str]) -> Response:
    """The page of an error: what is wrong, the search kept, and what may have been meant."""
    asked = _still_asked(request)
    texts = [queries.corrected(asked.q, name) for name in suggestions if queries.can_name(name)]
    links = [(one, queries.search_href(asked, q=one)) for one in texts]
    usual = "This search did not work" if status == 400 and asked.q else "This did not work"
    title = TITLES.get(status, usual)
    return rendered(
        request, "error.html", status, asked=asked, title=title, message=message, links=links
    )


def _still_asked(request: Request) -> Asked:
    """The search that an address carries, without what can't be read of it."""
    known = request.query_params
    given = {name: known[name] for name in Sought.model_fields if name in known}
    given["q"] = given.get("q", "")[: api.MAX_TEXT]
    if request.url.path.startswith("/similar"):
        given.pop("model", None)  # There it is the model that compares.
    try:
        return Asked.model_validate(given)
    except ValidationError as error:
        wrong = {one["loc"][0] for one in error.errors()}
        return Asked.model_validate({n: text for n, text in given.items() if n not in wrong})
