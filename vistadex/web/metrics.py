"""Numbers for Prometheus at /metrics: requests, thumbnails, the catalog, memory of each process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vistadex.catalog import Catalog

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable in which prometheus_client looks for the folder that workers count in."""
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})


class Metrics:
    """What is counted while the app runs, by all workers together where they share a folder."""

    def __init__(self, shared: Path | None = None) -> None:
        """`shared` is what SHARED_FOLDER names since the process began; None: it names nothing."""
        self.shared = shared
        self._own = CollectorRegistry()
        self._requests = Counter(
            "vistadex_requests",
            "Requests by route, method and status",
            ["route", "method", "status"],
            registry=self._own,
        )
        self._seconds = Histogram(
            "vistadex_request_seconds",
            "Time from a request's headers to the last byte of its answer",
            ["route"],
            buckets=BUCKETS_S,
            registry=self._own,
        )
        self._thumbnails = Counter(
            "vistadex_thumbnails",
            "Thumbnails that were sent, by whether they were made or in the cache",
            ["origin"],
            registry=self._own,
        )

    def count_request(self, scope: Scope, status: int, seconds: float) -> None:
        """Counts a request by its route's template, so that ids make no rows of their own."""
        route = getattr(scope.get("route"), "path", "")
        if not route:
            route = "/static" if scope["path"].startswith("/static/") else "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_thumbnail(self, origin: str) -> None:
        """Counts a thumbnail; its origin is made or cached."""
        self._thumbnails.labels(origin).inc()

    def text(self, catalog: Catalog) -> bytes:
        """Everything in Prometheus' text format.

        Raises: CatalogError if the catalog can't be read.
        """
        registry = self._own
        if self.shared is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, str(self.shared))  # type: ignore[no-untyped-call]
        now = CollectorRegistry()
        now.register(_Now(catalog, self.shared))
        return bytes(generate_latest(registry)) + bytes(generate_latest(now))


class _Now(Collector):
    """What is looked up when it is asked for."""

    def __init__(self, catalog: Catalog, shared: Path | None) -> None:
        self._catalog = catalog
        self._shared = shared

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing, so that registering asks for no numbers."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The catalog's numbers and each process's memory."""
        known = self._catalog.stats()
        images = GaugeMetricFamily(
            "vistadex_catalog_images", "Images of the catalog by status", labels=["status"]
        )
        good = known.images - known.failed - known.vanished
        for status, number in (
            ("good", good),
            ("failed", known.failed),
            ("vanished", known.vanished),
        ):
            images.add_metric([status], number)
        yield images
        memory = GaugeMetricFamily(
            "vistadex_process_resident_bytes", "Memory of each worker", labels=["process"]
        )
        for process in _processes(self._shared):
            if (resident := _resident_bytes(process)) is not None:
                memory.add_metric([str(process)], resident)
        yield memory


def _processes(shared: Path | None) -> list[int]:
    """The ids of this process and those that have counted something in the folder."""
    names = [] if shared is None else [path.stem for path in shared.glob("*.db")]
    found = {int(name.rpartition("_")[2]) for name in names}
    return sorted(found | {os.getpid()})


def _resident_bytes(process: int) -> int | None:
    """None: it has ended, or this system does not say."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


class Counting:
    """The outermost layer: counts every request, whatever becomes of it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, begun = 500, time.perf_counter()

        async def send_seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_seen)
        finally:
            self.metrics.count_request(scope, status, time.perf_counter() - begun)


def metrics(request: Request) -> Response:
    """The numbers of all workers for Prometheus."""
    state: Any = request.app.state
    return Response(state.metrics.text(state.catalog), media_type=MEDIA_TYPE)
