"""Runs as rows of the catalog: what has worked on it, how far it is, and how it ended.

A run writes its own row beside its work, from a thread of its own and without the lock of writers:
where the row can't be written, the run goes on all the same.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import sqlalchemy as sa

from vistadex.catalog import opening, tables
from vistadex.errors import CatalogError, NotFoundError
from vistadex.progress import Progress, peak_rss_bytes
from vistadex.records import Json

if TYPE_CHECKING:
    from vistadex.catalog import Catalog

log = logging.getLogger(__name__)

Status: TypeAlias = Literal["running", "done", "failed", "stopped", "lost"]
"""lost: it was running, and gives no sign of life any more."""
EVERY_S = 1.0
"""Between two writes of a row, at least."""
SILENT_S = 60
"""A run that has not written its row for so long is lost."""
GONE_S = 5
"""One whose process is gone, as this machine can tell, after so long."""
LAST_WRITE_S = 5.0
"""What the end of a run waits at most until its row says so."""
RECENT_S = 15.0
"""The rate is that of so long."""
KEPT = 1000
"""Rows; older ones go."""
MOST_ERROR = 4000
"""Characters of an error."""


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A row of the table `run`."""

    id: int
    kind: str
    """index, import, relate, duplicates or dataset."""
    subject: str
    """What it works on, in a line."""
    status: Status
    started_at: int
    updated_at: int
    """Both in Unix seconds."""
    numbers: Mapping[str, Any]
    """While it runs: listed, listing, done, failed, failures by reason, images_per_s, eta_s,
    peak_rss_bytes, seconds; at its end also what the command's --json says."""
    error: str | None

    @property
    def process(self) -> tuple[str, int]:
        """Host and number of the process that does it."""
        host, pid = self.numbers.get("process", ("", 0))
        return str(host), int(pid)


class Recorder:
    """Progress that is also a row of the catalog while the run is inside `with`.

    The row ends as done, as stopped by KeyboardInterrupt, or as failed with the error. A process
    that is killed leaves it running, and it counts as lost.
    """

    def __init__(self, catalog: Catalog, kind: str, subject: str, progress: Progress) -> None:
        """Args:
        subject: what it works on, in a line.
        progress: is told the same.
        """
        self.catalog, self.kind, self.subject, self.progress = catalog, kind, subject, progress
        self.details: Callable[[], Mapping[str, Json]] = dict
        """Called for further numbers, from another thread."""
        self.summary: Mapping[str, Json] = {}
        """The numbers at the end."""
        self._id: int | None = None
        self._status: Status = "running"
        self._error: str | None = None
        self._begun = time.monotonic()
        self._started_at = int(time.time())
        self._told: dict[str, Json] = {}
        self._recent: deque[tuple[float, int]] = deque()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="run's row", daemon=True)

    def update(self, *, listed: int, listing: bool, done: int, failed: int) -> None:
        """See Progress; the row follows within EVERY_S."""
        self._told = {"listed": listed, "listing": listing, "done": done, "failed": failed}
        self.progress.update(listed=listed, listing=listing, done=done, failed=failed)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._status = "done"
        if error is not None:
            interrupted = not isinstance(error, Exception)
            self._status = "stopped" if interrupted else "failed"
            self._error = None if interrupted else _said(error)
        self._ended.set()
        self._thread.join(LAST_WRITE_S)

    def _keep(self) -> None:
        """Writes the row until the run has ended, and then once more."""
        last = False
        while True:
            try:
                self._write()
            except (CatalogError, sa.exc.SQLAlchemyError) as error:
                log.info("the run's row was not written: %s", error)
            if last:
                return
            last = self._ended.wait(EVERY_S)

    def _write(self) -> None:
        values = {
            "status": self._status,
            "updated_at": int(time.time()),
            "numbers": self._numbers(),
            "error": self._error,
        }
        run = tables.run
        # "schema": it writes, and waits for no writer of a server.
        with (
            opening.translated(self.catalog.place),
            self.catalog.engine.connect().execution_options(schema=True) as connection,
            connection.begin(),
        ):
            if self._id is not None:
                connection.execute(sa.update(run).where(run.c.id == self._id).values(values))
                return
            first = {"kind": self.kind, "subject": self.subject, "started_at": self._started_at}
            made = connection.execute(sa.insert(run).values(first | values)).inserted_primary_key
            assert made is not None
            connection.execute(sa.delete(run).where(run.c.id <= made[0] - KEPT))
        self._id = int(made[0])

    def _numbers(self) -> dict[str, Json]:
        now = time.monotonic()
        seconds = now - self._begun
        told = dict(self._told)
        numbers: dict[str, Json] = {
            "process": [socket.gethostname(), os.getpid()],
            "seconds": round(seconds, 1),
            "peak_rss_bytes": peak_rss_bytes(),
            **told,
            **self.details(),
        }
        if self._status == "running" and told:
            rate = self._rate(now, int(str(told["done"])))
            numbers["images_per_s"] = round(rate, 2)
            left = int(str(told["listed"])) - int(str(told["done"]))
            if rate > 0 and not told["listing"]:
                numbers["eta_s"] = round(left / rate)
        return numbers | dict(self.summary)

    def _rate(self, now: float, done: int) -> float:
        """Images per second of late."""
        self._recent.append((now, done))
        while len(self._recent) > 2 and now - self._recent[0][0] > RECENT_S:
            self._recent.popleft()
        since, before = self._recent[0]
        if since == now:
            since, before = self._begun, 0
        return (done - before) / max(now - since, 1e-6)


def _said(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:MOST_ERROR]


def list_runs(catalog: Catalog, limit: int = 50, before: int | None = None) -> list[RecordedRun]:
    """The latest runs, newest first.

    Args:
        before: only those with a lower id.
    """
    run = tables.run
    query = sa.select(run).order_by(run.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(run.c.id < before)
    with catalog.reading() as connection:
        return [_recorded(row) for row in connection.execute(query)]


def get_run(catalog: Catalog, id: int) -> RecordedRun:
    """One run.

    Raises: NotFoundError.
    """
    with catalog.reading() as connection:
        row = connection.execute(sa.select(tables.run).where(tables.run.c.id == id)).first()
    if row is None:
        raise NotFoundError(f"run {id}: there is none; /runs lists them")
    return _recorded(row)


def run_of(catalog: Catalog, pid: int, since: int) -> RecordedRun | None:
    """The run that a process of this machine does; None where it has written no row.

    Args:
        since: Unix seconds at which the process began, or before.
    """
    run = tables.run
    query = sa.select(run).where(run.c.started_at >= since).order_by(run.c.id.desc())
    with catalog.reading() as connection:
        found = map(_recorded, connection.execute(query).all())
    return next((one for one in found if one.process == (socket.gethostname(), pid)), None)


def _recorded(row: sa.Row[Any]) -> RecordedRun:
    found = RecordedRun(**row._mapping)
    if found.status != "running" or not _is_lost(found, time.time()):
        return found
    return RecordedRun(**{**row._mapping, "status": "lost"})


def _is_lost(run: RecordedRun, now: float) -> bool:
    silent_s = now - run.updated_at
    host, pid = run.process
    if silent_s <= GONE_S or (silent_s <= SILENT_S and host != socket.gethostname()):
        return False
    return silent_s > SILENT_S or not _is_there(pid)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def source_uris(catalog: Catalog) -> dict[int, str]:
    """The sources that the catalog knows, by id."""
    with catalog.reading() as connection:
        rows = connection.execute(sa.select(tables.source.c.id, tables.source.c.uri))
        return {int(row.id): str(row.uri) for row in rows}
