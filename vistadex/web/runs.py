"""Runs: what works on the catalog and how far it is; starting an index of a source, stopping it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, Form, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from typing_extensions import TypedDict

from vistadex import settings
from vistadex.catalog import Catalog, runs
from vistadex.catalog.runs import RecordedRun
from vistadex.errors import CatalogError, NotFoundError, UsageError
from vistadex.models import color_layout
from vistadex.models.cards import ModelFile
from vistadex.models.store import ModelStore
from vistadex.records import Task
from vistadex.web import problems
from vistadex.web.api import MAX_ID, TheCatalog
from vistadex.web.jobs import Jobs

RUNS_ON_A_PAGE = 50
EVENT_EVERY_S = 1.0
ALIVE_EVERY_S = 15.0
"""A comment in a stream without events, so that proxies do not end it."""
LONGEST_STREAM_S = 600.0
"""Browsers open the next one by themselves."""


class Run(TypedDict):
    """A run; what is not known of it is null."""

    id: int
    kind: str
    subject: str
    status: runs.Status
    started_at: str
    updated_at: str
    seconds: float
    listed: int | None
    listing: bool
    done: int | None
    failed: int
    images_per_s: float | None
    eta_s: int | None
    peak_rss_bytes: int | None
    failures: dict[str, int]
    """Failed images of the run by reason."""
    error: str | None
    sentence: str
    """How it went, or how far it is."""
    numbers: dict[str, Any]
    """What the command's --json says, at its end."""


class RunList(TypedDict):
    """Runs, the newest first; give `next` as `before` for older ones."""

    runs: list[Run]
    next: int | None


class IndexForm(BaseModel):
    """An index to start: a source that the catalog knows, with models that are installed."""

    source: Annotated[int, Field(ge=1, le=MAX_ID, description="the source's id in the catalog")]
    detector: Annotated[str, Field(max_length=255)] = ""
    classifier: Annotated[str, Field(max_length=255)] = ""
    embedder: Annotated[str, Field(max_length=255)] = ""
    only: Literal["new", "failed", "all"] = "new"


DOCUMENTED: dict[str, Any] = {
    "response_class": StreamingResponse,
    "responses": {
        200: {"content": {"text/event-stream": {}}, "description": "`data: ` and a run's JSON"},
        **problems.documented(400, 404),
    },
}
"""What OpenAPI says of the stream."""


def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


TheJobs = Annotated[Jobs, Depends(_jobs)]
TheIndexForm = Annotated[IndexForm, Form()]
RunId = Annotated[int, PathParameter(ge=1, le=2**31 - 1, description="the run's id")]
Before = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="a page's `next`")]


def list_runs(
    catalog: TheCatalog,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=200, description="how many")] = RUNS_ON_A_PAGE,
) -> RunList:
    """Runs, newest first."""
    found = runs.list_runs(catalog, limit + 1, before)
    following = found[limit - 1].id if len(found) > limit else None
    return {"runs": [as_json(one) for one in found[:limit]], "next": following}


def run(catalog: TheCatalog, id: RunId) -> Run:
    """One run."""
    return as_json(runs.get_run(catalog, id))


async def events(catalog: TheCatalog, id: RunId) -> Response:
    """A run as server-sent events: one whenever its numbers change, until it has ended."""
    first = await run_in_threadpool(runs.get_run, catalog, id)
    stream = _stream(catalog, first)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _stream(catalog: Catalog, shown: RecordedRun) -> AsyncIterator[str]:
    until, said = time.monotonic() + LONGEST_STREAM_S, time.monotonic()
    yield _event(shown)
    while shown.status == "running" and time.monotonic() < until:
        await asyncio.sleep(EVENT_EVERY_S)
        try:
            now = await run_in_threadpool(runs.get_run, catalog, shown.id)
        except (CatalogError, NotFoundError):
            return  # The browser comes again.
        if now != shown:
            yield _event(now)
            said = time.monotonic()
        elif time.monotonic() - said > ALIVE_EVERY_S:
            yield ":\n\n"
            said = time.monotonic()
        shown = now


def _event(one: RecordedRun) -> str:
    return f"data: {json.dumps(as_json(one), ensure_ascii=False)}\n\n"


def start_index(
    request: Request, catalog: TheCatalog, jobs: TheJobs, form: TheIndexForm
) -> Run | Response:
    """Starts an index of a source that the catalog knows, with models that are installed."""
    uri = runs.source_uris(catalog).get(form.source)
    if uri is None:
        raise NotFoundError(f"source {form.source}: the catalog has none of this id")
    chosen = _chosen(form)
    options = [f"--{task}={name}" for task, name in chosen.items()]
    return begun(request, jobs.start(["index", f"--only={form.only}", *options, "--", uri]))


def _chosen(form: IndexForm) -> dict[Task, str]:
    """The models that a form names.

    Raises: UsageError where there is none; NotFoundError for one that is not installed.
    """
    named: dict[Task, str] = {
        "detector": form.detector,
        "classifier": form.classifier,
        "embedder": form.embedder,
    }
    named = {task: name for task, name in named.items() if name}
    if not named:
        raise UsageError("no model is chosen: choose a detector, a classifier or an embedder")
    known = {task: names_of(task) for task in named}
    for task, name in named.items():
        if name not in known[task]:
            there = ", ".join(known[task]) or "none"
            raise NotFoundError(f"{task} {name!r}: not installed; there are: {there}")
    return named


def stop(request: Request, catalog: TheCatalog, jobs: TheJobs, id: RunId) -> Run | Response:
    """Stops a run that was started from a page, as Ctrl-C does: what is committed stays."""
    one = runs.get_run(catalog, id)
    if one.status != "running":
        raise UsageError(f"run {id}: has ended ({one.status}); nothing to stop")
    jobs.stop(one.process)
    return begun(request, one)


def begun(request: Request, one: RecordedRun) -> Run | Response:
    """The page of a run for a form, its JSON for a program."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(f"/runs/{one.id}", 303)
    return as_json(one)


def can_stop(jobs: Jobs, one: Run, process: tuple[str, int]) -> bool:
    """Whether a page has started the run, and it goes on."""
    return one["status"] == "running" and jobs.has(process)


def installed() -> list[ModelFile]:
    """The models of the store."""
    return ModelStore(Path(settings.value("models", None, str))).list()


def names_of(task: Task) -> list[str]:
    """The installed models of a task, and what needs no file."""
    names = [one.card.name for one in installed() if one.card.task == task]
    return [*names, color_layout.NAME] if task == "embedder" else names


def as_json(one: RecordedRun) -> Run:
    """A run as the API and the pages show it."""
    numbers = dict(one.numbers)
    numbers.pop("process", None)
    shown: Run = {
        "id": one.id,
        "kind": one.kind,
        "subject": one.subject,
        "status": one.status,
        "started_at": _time(one.started_at),
        "updated_at": _time(one.updated_at),
        "seconds": float(numbers.pop("seconds", 0)),
        "listed": numbers.pop("listed", None),
        "listing": bool(numbers.pop("listing", False)),
        "done": numbers.pop("done", None),
        "failed": int(numbers.pop("failed", 0)),
        "images_per_s": numbers.pop("images_per_s", None),
        "eta_s": numbers.pop("eta_s", None),
        "peak_rss_bytes": numbers.pop("peak_rss_bytes", None),
        "failures": dict(numbers.pop("failures", {})),
        "error": one.error,
        "sentence": "",
        "numbers": numbers,
    }
    shown["sentence"] = _sentence(shown)
    return shown


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def duration(seconds: float) -> str:
    """1:02:03 hours, 2:03 minutes or 3.4 seconds."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02} h" if hours else f"{minutes}:{whole % 60:02} min"


def _sentence(one: Run) -> str:
    """A run in a sentence with its numbers."""
    if one["status"] == "running":
        return _so_far(one)
    took = f"in {duration(one['seconds'])}"
    if one["status"] == "lost":
        return f"No sign of life since {one['updated_at'][:16].replace('T', ' ')} UTC{_done(one)}."
    if one["status"] == "failed":
        return f"Failed after {duration(one['seconds'])}{_done(one)}."
    if one["status"] == "stopped":
        return f"Stopped after {duration(one['seconds'])}{_done(one)}."
    said = _SENTENCES.get(one["kind"], _plainly)(one)
    memory = one["peak_rss_bytes"]
    tail = f"; {memory / 1e6:,.0f} MB of memory at most" if memory else ""
    return f"{said} {took}{tail}."


def _so_far(one: Run) -> str:
    if one["done"] is None or one["listed"] is None:
        return "Begins."
    more = " and more" if one["listing"] else ""
    parts = [f"{one['done']:,} of {one['listed']:,}{more} images"]
    if one["images_per_s"] is not None:
        parts.append(f"{one['images_per_s']:,.3g} per second")
    if one["eta_s"] is not None:
        parts.append(f"about {duration(one['eta_s'])} left")
    return ", ".join(parts) + "."


def _done(one: Run) -> str:
    return "" if one["done"] is None else f", with {one['done']:,} images done"


def _indexed(one: Run) -> str:
    numbers = one["numbers"]
    parts = [f"{numbers.get('indexed', 0):,} indexed"]
    if one["images_per_s"]:
        parts[0] += f" ({one['images_per_s']:,.3g} per second)"
    parts += [f"{numbers.get('unchanged', 0):,} unchanged", f"{one['failed']:,} failed"]
    if numbers.get("refused"):
        parts.append(f"{numbers['refused']:,} without the labeler, which refused them")
    if numbers.get("vanished"):
        parts.append(f"{numbers['vanished']:,} gone from the source")
    return f"{numbers.get('images', 0):,} images: {', '.join(parts)},"


def _imported(one: Run) -> str:
    numbers = one["numbers"]
    what = f"{numbers.get('boxes', 0):,} boxes and {numbers.get('relations', 0):,} relations"
    return f"{numbers.get('imported', 0):,} images imported with {what}"


def _related(one: Run) -> str:
    numbers = one["numbers"]
    return f"{numbers.get('relations', 0):,} relations in {numbers.get('images', 0):,} images found"


def _compared(one: Run) -> str:
    numbers = one["numbers"]
    return f"{numbers.get('copies', 0):,} copies in {numbers.get('groups', 0):,} groups found"


def _built(one: Run) -> str:
    numbers = one["numbers"]
    what = f"{numbers.get('images', 0):,} images with {numbers.get('boxes', 0):,} boxes"
    return f"{what} written as a data set"


def _trained(one: Run) -> str:
    numbers = one["numbers"]
    metrics = numbers.get("metrics") or {}
    said = f", AP50 {metrics['AP50']:.3f}" if "AP50" in metrics else ""
    pictures = f"{numbers.get('images', 0):,} images"
    return f"A detector trained for {numbers.get('epochs', 0):,} epochs on {pictures}{said},"


def _plainly(one: Run) -> str:
    return f"{one['done'] or 0:,} images"


_SENTENCES: Mapping[str, Any] = {
    "index": _indexed,
    "import": _imported,
    "relate": _related,
    "duplicates": _compared,
    "dataset": _built,
    "train": _trained,
}
