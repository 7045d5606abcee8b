"""The web application: every route on one screen, and the server that runs it."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from vistadex.catalog import Catalog
from vistadex.errors import UsageError
from vistadex.web import api, pages, pictures, problems
from vistadex.web.cache import Cache
from vistadex.web.guard import LOCAL_HOSTS, Guard
from vistadex.web.totals import Totals

EVERYWHERE = frozenset({"0.0.0.0", "::"})
"""Bound to one of these, the server is meant to be reached by any name."""


def create_app(
    catalog: Catalog, cache_folder: Path, *, hosts: Collection[str] | None = LOCAL_HOSTS
) -> FastAPI:
    """The application over a catalog.

    Args:
        cache_folder: where thumbnails are kept; may be emptied at any time.
        hosts: names under which it answers; None for any.
    Raises: UsageError if the cache folder can't be made or a setting can't be read.
    """
    shown = pictures.Pictures(catalog, Cache(cache_folder))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        shown.close()

    app = FastAPI(title="Vistadex", version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.catalog = catalog
    app.state.pictures = shown
    app.state.totals = Totals(catalog)

    def page(path: str, function: Callable[..., Any]) -> None:
        app.add_api_route(path, function, response_class=HTMLResponse, include_in_schema=False)

    def json(path: str, function: Callable[..., Any], *statuses: int) -> None:
        app.add_api_route(path, function, responses=problems.documented(*statuses))

    def picture(path: str, function: Callable[..., Any]) -> None:
        app.add_api_route(path, function, **pictures.DOCUMENTED)

    page("/", pages.search)
    page("/image/{id}", pages.image)
    page("/classes", pages.classes)
    page("/errors", pages.errors)
    page("/docs", pages.docs)
    picture("/picture/{id}", pictures.original)
    picture("/thumbnail/{id}", pictures.thumbnail)
    json("/api/v1/search", api.search, 400)
    json("/api/v1/images/{id}", api.image, 400, 404)
    json("/api/v1/classes", api.classes, 400)
    json("/api/v1/errors", api.errors, 400)
    json("/api/v1/stats", api.stats)
    json("/health", api.health)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))

    problems.install(app, pages.problem)
    app.add_middleware(Guard, hosts=hosts)
    return app


def _announce_nothing(url: str) -> None:
    return


def serve(
    catalog: Catalog,
    host: str,
    port: int,
    cache_folder: Path,
    announce: Callable[[str], None] = _announce_nothing,
) -> None:
    """Answers requests until it is interrupted.

    Args:
        host: address to bind; 0.0.0.0 or :: for every network, under any name.
        port: 0 for a free one.
        announce: called with the URL once the port is bound.
    Raises: UsageError if host and port can't be bound or the cache folder can't be made.
    """
    hosts = None if host in EVERYWHERE else LOCAL_HOSTS | {host.lower()}
    app = create_app(catalog, cache_folder, hosts=hosts)
    bound = bind(host, port)
    shown = f"[{host}]" if ":" in host else host
    announce(f"http://{shown}:{bound.getsockname()[1]}/")
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[bound])


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises: UsageError naming place and cure.
    """
    place = f"{host}:{port}"
    if not 0 <= port <= 65535:
        raise UsageError(f"{place}: a port is from 0 to 65535; give another --port")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        raise UsageError(f"{place}: unknown host; give an address of this machine") from error
    except OSError as error:
        cures = {
            errno.EADDRINUSE: "in use; give another --port",
            errno.EACCES: "not permitted; give a --port above 1023",
            errno.EADDRNOTAVAIL: "no address of this machine; give another --host",
        }
        raise UsageError(f"{place}: {cures.get(error.errno or 0, error.strerror)}") from error
