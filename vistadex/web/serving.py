"""The server: one bound socket, one or several processes that answer on it."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from vistadex.catalog import Catalog
from vistadex.errors import UsageError, VistadexError
from vistadex.sources import open_target
from vistadex.web.access import NO_KEYS, Keys
from vistadex.web.app import create_app
from vistadex.web.askable import Askable
from vistadex.web.cache import Cache
from vistadex.web.guard import LOCAL_HOSTS
from vistadex.web.metrics import SHARED_FOLDER, Metrics

log = logging.getLogger(__name__)

EVERYWHERE = frozenset({"0.0.0.0", "::"})
"""Bound to one of these, the server is meant to be reached by any name."""
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:]+:[0-9A-Fa-f.:]+")
MAX_WORKERS = 64
KEEP_ALIVE_S = 75
"""How long a connection waits for its next request: longer than people look at a page, and than
proxies keep theirs (nginx: 60)."""
SWITCH_S = 0.001
"""How long a thread may go on while another one waits for its turn: an answer of a millisecond
stands behind those of a second in each of its steps. Python's own 5 ms made p95 twice as long."""
LAST_ANSWERS_S = 3
"""How long requests in work may take when the server is told to end."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How `vistadex serve` answers."""

    host: str
    """Address to bind; 0.0.0.0 or :: for every network, under any name if none is in host_names."""
    port: int
    """0 for a free one."""
    cache: Path
    """Folder for thumbnails."""
    keys: Keys = NO_KEYS
    """What opens it; required on any address but loopback."""
    read_only: bool = False
    """Whether changes are refused."""
    workers: int = 1
    """Processes that answer."""
    host_names: tuple[str, ...] = ()
    """Further names under which it answers."""
    proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies that are believed what they say of their clients."""
    export_to: tuple[str, ...] = ()
    """Buckets and folders into which visitors may have data sets written."""
    keep_to: str | None = None
    """Bucket or folder for pictures that visitors ask to be kept; None: none is kept."""
    allow_private_addresses: bool = False
    """Whether addresses of pictures in imported metadata may lead to private networks."""
    labelers: tuple[str, ...] = ()
    """Services in the cloud that visitors may ask about pictures they send."""
    max_calls: int | None = None
    """Pictures that each labeler gets at most; needed with one."""

    @property
    def hosts(self) -> frozenset[str] | None:
        """Names under which it answers; None: any."""
        if self.host in EVERYWHERE and not self.host_names:
            return None
        own = {self.host.lower()} - EVERYWHERE
        return LOCAL_HOSTS | own | {name.lower() for name in self.host_names}


def _announce_nothing(url: str) -> None:
    return


def serve(
    catalog: Catalog, serving: Serving, announce: Callable[[str], None] = _announce_nothing
) -> None:
    """Answers requests until it is interrupted or told to end.

    Args:
        announce: called with the URL once the port is bound.
    Raises: UsageError if host and port can't be bound, an address but loopback has no keys, or the
        cache folder can't be made.
    """
    _check(serving)
    with bind(serving.host, serving.port) as bound:
        _check_keys(serving, bound)
        host = f"[{serving.host}]" if ":" in serving.host else serving.host
        url = f"http://{host}:{bound.getsockname()[1]}/"
        if serving.workers == 1:
            catalog.keep_fresh()
            app = _app(catalog, serving)
            _warm_soon(catalog)
            announce(url)
            uvicorn.Server(_config(serving, lambda: app)).run(sockets=[bound])
            return
        Cache(serving.cache)  # what is wrong with it is better said once than by each worker
        if serving.keep_to and not serving.read_only:
            open_target(serving.keep_to)
        with _counting_together() as folder:
            announce(url)
            address = catalog.engine.url.render_as_string(hide_password=False)
            make_app = partial(_worker_s_app, address, serving, folder)
            workers = Multiprocess(_config(serving, make_app), sockets=[bound])
            workers.run()
        if any(one.exitcode == STARTUP_FAILURE for one in workers.processes):
            raise UsageError("a worker can't start; what it said above names the cure")


def _app(catalog: Catalog, serving: Serving, counted: Metrics | None = None) -> FastAPI:
    sys.setswitchinterval(SWITCH_S)
    return create_app(
        catalog,
        serving.cache,
        hosts=serving.hosts,
        keys=serving.keys,
        read_only=serving.read_only,
        allow_private_addresses=serving.allow_private_addresses,
        askable=Askable(serving.labelers, serving.max_calls),
        export_to=serving.export_to,
        keep_to=serving.keep_to,
        counted=counted,
    )


def _worker_s_app(address: str, serving: Serving, folder: Path) -> FastAPI:
    """The app of one of several processes, over a catalog of its own.

    Ends the process where that can't be; the server then ends, instead of trying forever.
    """
    try:
        catalog = Catalog(address)
        catalog.keep_fresh()
        app = _app(catalog, serving, Metrics(folder))
    except VistadexError as error:
        log.error("%s", error)
        sys.exit(STARTUP_FAILURE)
    _warm_soon(catalog)
    return app


def _warm_soon(catalog: Catalog) -> None:
    """Counts what the first visitor would wait for, in a thread that nobody waits for."""

    def warm() -> None:
        try:
            catalog.warm()
        except VistadexError as error:
            log.warning("nothing was counted ahead: %s", error)

    threading.Thread(target=warm, name="warm", daemon=True).start()


def _config(serving: Serving, make_app: Callable[[], FastAPI]) -> uvicorn.Config:
    return uvicorn.Config(
        make_app,
        factory=True,
        workers=serving.workers,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(serving.proxies),
        forwarded_allow_ips=list(serving.proxies),
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_ANSWERS_S,
        timeout_worker_healthcheck=30,
    )


@contextmanager
def _counting_together() -> Iterator[Path]:
    """A folder for the numbers of all workers, in the environment of processes that begin now."""
    with TemporaryDirectory(prefix="vistadex-metrics-") as folder:
        os.putenv(SHARED_FOLDER, folder)
        try:
            yield Path(folder)
        finally:
            os.unsetenv(SHARED_FOLDER)


def _check(serving: Serving) -> None:
    if not 1 <= serving.workers <= MAX_WORKERS:
        raise UsageError(f"--workers {serving.workers}: expected 1 to {MAX_WORKERS}")
    if serving.labelers and serving.workers > 1:
        raise UsageError(
            f"--workers {serving.workers}: the calls of a --labeler are counted in one process, "
            "expected --workers 1 with it"
        )
    for name in serving.host_names:
        if not _HOST_NAME.fullmatch(name):
            raise UsageError(f"--host-name {name!r}: expected a name without http:// and port")
    for proxy in serving.proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError as error:
            raise UsageError(f"--proxy {proxy}: {error}; expected an address or network") from error


def _check_keys(serving: Serving, bound: socket.socket) -> None:
    """Raises: UsageError if others than this machine's users could come in without a key."""
    address = ipaddress.ip_address(bound.getsockname()[0].partition("%")[0])
    if not (serving.keys or address.is_loopback):
        raise UsageError(
            f"{serving.host}: every machine that reaches this address would see every picture; "
            "give a file with a --token or a password (--password-file), or --host 127.0.0.1"
        )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises: UsageError naming place and cure.
    """
    place = f"{host}:{port}"
    if not 0 <= port <= 65535:
        raise UsageError(f"{place}: a port is from 0 to 65535; give another --port")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
        # Inherited by every connection: asyncio sets it only where the socket names its protocol,
        # and else the body of an answer waits 40 ms for the browser to acknowledge its head.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except socket.gaierror as error:
        raise UsageError(f"{place}: unknown host; give an address of this machine") from error
    except OSError as error:
        cures = {
            errno.EADDRINUSE: "in use; give another --port",
            errno.EACCES: "not permitted; give a --port above 1023",
            errno.EADDRNOTAVAIL: "no address of this machine; give another --host",
        }
        raise UsageError(f"{place}: {cures.get(error.errno or 0, error.strerror)}") from error
