"""The web application: every route on one screen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute

from vistadex.catalog import Catalog, ClassCount
from vistadex.web import (
    api,
    asking,
    asking_page,
    building,
    classes,
    collecting,
    drawn,
    exif,
    installed,
    keeping,
    metrics,
    pages,
    pictures,
    problems,
    relations,
    runs,
    saying,
    signing_in,
    similar,
    spreadsheet,
    working,
)
from vistadex.web.access import NO_KEYS, Access, Keys
from vistadex.web.aside import aside
from vistadex.web.askable import Askable
from vistadex.web.cache import Cache
from vistadex.web.completing import Completing
from vistadex.web.guard import LOCAL_HOSTS, Guard
from vistadex.web.jobs import Jobs
from vistadex.web.limits import Limits
from vistadex.web.metrics import Counting, Metrics
from vistadex.web.remembering import Remembered, RememberedRoute, written
from vistadex.web.static_files import ReadOnce


def create_app(
    catalog: Catalog,
    cache_folder: Path,
    *,
    hosts: Collection[str] | None = LOCAL_HOSTS,
    keys: Keys = NO_KEYS,
    read_only: bool = False,
    allow_private_addresses: bool = False,
    askable: Askable | None = None,
    counted: Metrics | None = None,
    export_to: Collection[str] = (),
    keep_to: str | None = None,
) -> FastAPI:
    """The application over a catalog.

    Args:
        cache_folder: where thumbnails are kept; may be emptied at any time.
        hosts: names under which it answers; None for any.
        keys: what opens it; without any it is open to all who can reach it.
        read_only: whether every request that would change something is refused.
        allow_private_addresses: whether pictures are also fetched from private networks where
            imported metadata names an address there.
        askable: what visitors may ask about pictures that they send; closed with the app. Not
            given: the models of the store.
        counted: where requests are counted; its own if not given.
        export_to: buckets and folders into which visitors may have data sets written.
        keep_to: bucket or folder for pictures that visitors ask to be kept; None: none is kept.
    Raises: UsageError if the cache folder can't be made or a setting can't be read; SourceError if
        pictures can't be kept there.
    """
    counted = counted or Metrics()
    askable = askable or Askable()
    shown = pictures.Pictures(
        catalog, Cache(cache_folder), counted, public_only=not allow_private_addresses
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        shown.close()
        askable.close()

    app = FastAPI(title="Vistadex", version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.catalog = catalog
    app.state.remembered = Remembered(catalog)
    app.state.pictures = shown
    app.state.class_names = Completing[ClassCount](lambda one: one.class_name)
    app.state.keys = keys
    app.state.read_only = read_only
    app.state.metrics = counted
    app.state.askable = askable
    app.state.jobs = Jobs(catalog, cache_folder)
    app.state.export_to = tuple(export_to)
    app.state.keeping = keeping.Keeping(catalog, keep_to) if keep_to and not read_only else None
    uploads: set[str] = set()
    questions: set[str] = set()

    def page(path: str, function: Callable[..., Any], route: type[APIRoute] = APIRoute) -> None:
        app.router.add_api_route(
            path,
            function,
            response_class=HTMLResponse,
            include_in_schema=False,
            route_class_override=route,
        )

    def json(
        path: str,
        function: Callable[..., Any],
        *statuses: int,
        route: type[APIRoute] = APIRoute,
        take_turns: bool = False,
    ) -> None:
        function = aside(written(function)) if take_turns else written(function)
        app.router.add_api_route(
            path, function, responses=problems.documented(*statuses), route_class_override=route
        )

    def change(path: str, function: Callable[..., Any], answer: type, *statuses: int) -> None:
        """A POST of a form that changes something, which access.py protects."""
        documented = problems.documented(400, 403, *statuses)
        app.add_api_route(
            path, function, methods=["POST"], response_model=answer, responses=documented
        )

    def picture(path: str, function: Callable[..., Any]) -> None:
        app.add_api_route(path, function, **pictures.DOCUMENTED)

    def upload(path: str, function: Callable[..., Any], **options: Any) -> None:
        """A route that takes files: the one kind of request that may be large."""
        uploads.add(path)
        app.add_api_route(path, function, methods=["POST"], **options)

    def question(path: str, function: Callable[..., Any], **options: Any) -> None:
        """One about files, which --read-only allows, as it changes nothing."""
        questions.add(path)
        upload(path, function, **options)

    page("/", pages.search, RememberedRoute)
    page("/facets", aside(pages.facets), RememberedRoute)
    page("/image/{id}", pages.image)
    page("/image/{id}/exif", pages.exif)
    page("/classes", pages.classes, RememberedRoute)
    page("/classes/about", pages.about_class)
    page("/relations", pages.relations, RememberedRoute)
    page("/errors", pages.errors)
    page("/collections", collecting.page)
    page("/similar", pages.similar_start)
    page("/similar/{id}", pages.similar)
    question("/similar", pages.similar_to_upload, include_in_schema=False)
    page("/ask", asking_page.start)
    question("/ask", asking_page.ask, include_in_schema=False)
    upload("/ask/keep", asking_page.keep, include_in_schema=False)
    page("/runs", working.list_runs)
    page("/runs/{id}", working.run)
    page("/models", working.models)
    page("/models/{name}", working.model)
    page("/datasets", working.datasets)
    page("/docs", pages.docs)
    picture("/picture/{id}", pictures.original)
    picture("/thumbnail/{id}", pictures.thumbnail)
    app.add_api_route("/picture/{id}/drawn", drawn.drawn, **drawn.DOCUMENTED)
    json("/api/v1/search", api.search, 400, route=RememberedRoute)
    json("/api/v1/facets", api.facets, 400, route=RememberedRoute, take_turns=True)
    json("/api/v1/complete", api.complete, 400, route=RememberedRoute)
    app.add_api_route(
        "/api/v1/search.csv", spreadsheet.search_csv, responses=spreadsheet.DOCUMENTED
    )
    json("/api/v1/images/{id}", api.image, 400, 404)
    json("/api/v1/images/{id}/origins", saying.origins, 400, 404)
    json("/api/v1/images/{id}/exif", exif.exif, 400, 404, 415, 502)
    json("/api/v1/images/{id}/similar", similar.similar, 400, 404, 415, 502)
    question(
        "/api/v1/similar",
        similar.similar_to_upload,
        responses=problems.documented(400, 404, 408, 413, 415, 503),
        openapi_extra=similar.DOCUMENTED,
    )
    for path, function in asking.ROUTES.items():
        question(path, function, **asking.DOCUMENTED)
    upload("/api/v1/keep", keeping.keep, **keeping.DOCUMENTED)
    json("/api/v1/classes", classes.classes, 400, route=RememberedRoute)
    json("/api/v1/classes/about", classes.about, 400, 404)
    json("/api/v1/relations", relations.relations, 400, route=RememberedRoute)
    json("/api/v1/predicates", relations.predicates, route=RememberedRoute)
    json("/api/v1/errors", api.errors, 400)
    json("/api/v1/collections", collecting.collections)
    app.add_api_route("/api/v1/collections", collecting.collect, **collecting.COLLECT)
    app.add_api_route("/api/v1/collections/{id}/rename", collecting.rename, **collecting.RENAME)
    app.add_api_route(
        "/api/v1/collections/{id}/remove", collecting.remove, **collecting.REMOVE_BY_FORM
    )
    app.add_api_route("/api/v1/collections/{id}", collecting.remove, **collecting.REMOVE)
    json("/api/v1/stats", api.stats)
    json("/api/v1/runs", runs.list_runs, 400)
    change("/api/v1/runs", runs.start_index, runs.Run, 404, 409)
    json("/api/v1/runs/{id}", runs.run, 400, 404)
    app.add_api_route("/api/v1/runs/{id}/events", runs.events, **runs.DOCUMENTED)
    change("/api/v1/runs/{id}/stop", runs.stop, runs.Run, 404)
    json("/api/v1/models", installed.models)
    json("/api/v1/datasets/plan", building.plan, 400)
    change("/api/v1/datasets", building.build, runs.Run, 404, 409)
    change("/api/v1/datasets/{name}/remove", building.remove, building.Removed, 404)
    app.add_api_route("/datasets/{name}.zip", building.download, **building.DOCUMENTED)
    json("/health", api.health)
    signing_in.add_routes(app)
    app.add_api_route("/metrics", metrics.metrics, include_in_schema=False)
    app.mount("/static", ReadOnce(Path(__file__).parent / "static"))

    problems.install(app, pages.problem)
    # The last one is the outermost.
    app.add_middleware(Limits, uploads=uploads)
    app.add_middleware(
        Access, keys=keys, make_page=pages.problem, read_only=read_only, questions=questions
    )
    app.add_middleware(Guard, hosts=hosts)
    app.add_middleware(Counting, metrics=counted)
    return app
