"""Data sets: counted while one chooses, built by a job, kept for a while, sent as a zip archive."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Form, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from pydantic import Field
from typing_extensions import TypedDict

from vistadex.catalog import Catalog, registering, runs
from vistadex.datasets import DatasetPlan, class_list, id_list, plan_dataset
from vistadex.errors import NotFoundError, UsageError
from vistadex.web import problems, queries
from vistadex.web.api import MAX_TEXT, Listed, TheCatalog
from vistadex.web.jobs import Jobs
from vistadex.web.runs import Run, TheJobs, begun
from vistadex.web.zipping import zipped

FORMATS = ("coco", "voc", "yolo", "open-images", "imagefolder", "automl-csv")
MOST_IMAGES = 50_000
"""That a set started from a page may have at most: per class times classes."""
MOST_CLASSES = 100
KEPT_SETS = 10
KEPT_S = 7 * 24 * 3600
KEPT_BYTES = 20 << 30
"""Beyond any of these, the oldest sets go."""
ABOUT = "about.json"
WHOLE = "set"
"""The set, in its folder, once it is complete."""
_NAME = r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}"


class DatasetAsked(Listed):
    """A data set as the form says it; q and the rest say from which images."""

    classes: Annotated[tuple[str, ...], Field(max_length=MOST_CLASSES, description="classes")] = ()
    more: Annotated[
        str, Field(max_length=MAX_TEXT, description='further classes, as Apple,"Boat, sailing"')
    ] = ""
    per_class: Annotated[int, Field(ge=1, le=MOST_IMAGES, description="images of each")] = 100
    split: Annotated[
        str, Field(max_length=40, description="percentages for train, val and test")
    ] = "80/10/10"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="another one: another set")] = 0
    format: Literal["coco", "voc", "yolo", "open-images", "imagefolder", "automl-csv"] = "coco"
    group_by: Annotated[
        str, Field(max_length=255, description="attribute whose images of a value stay together")
    ] = ""
    stratify: Annotated[bool, Field(description="each split gets its share of a class")] = False
    pictures: Literal["copy", "reference"] = "copy"
    whose: Annotated[str, Field(max_length=255, description="whose boxes and classes")] = ""
    to: Annotated[
        str, Field(max_length=MAX_TEXT, description="a target that the operator named; empty: zip")
    ] = ""


class Plan(TypedDict):
    """What a data set would hold, by class and split."""

    exact: bool
    images: int | None
    """null where each class was counted by itself."""
    splits: dict[str, int]
    available: dict[str, int]
    counts: dict[str, dict[str, int]]
    missing: dict[str, int]
    near_duplicates: int


class Removed(TypedDict):
    """The name of a set that is gone."""

    removed: str


DOCUMENTED: dict[str, Any] = {
    "response_class": StreamingResponse,
    "responses": {
        200: {"content": {"application/zip": {}}, "description": "The data set"},
        **problems.documented(400, 404),
    },
}
"""What OpenAPI says of the archive."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A data set in the server's folder."""

    name: str
    made_at: int
    run: int
    subject: str
    size_bytes: int
    """0: it is not complete."""


ThePlanAsked = Annotated[DatasetAsked, Query()]
TheOrder = Annotated[DatasetAsked, Form()]
SetName = Annotated[str, PathParameter(pattern=f"^{_NAME}$", description="the data set's name")]


def plan(catalog: TheCatalog, asked: ThePlanAsked) -> Plan:
    """What a data set would hold: exact for small ones, else by class, as it is quick to count."""
    return as_json(planned(catalog, asked))


def planned(catalog: Catalog, asked: DatasetAsked) -> DatasetPlan:
    """The plan of what a form asks for.

    Raises: UsageError, QueryError or FormatError for what can't be meant.
    """
    return plan_dataset(
        catalog,
        classes=_classes(asked),
        per_class=asked.per_class,
        split=asked.split,
        seed=asked.seed,
        format=asked.format,
        query=queries.query_text(queries.whole(asked)),
        ids=id_list(asked.ids) if asked.ids else None,
        group_by=asked.group_by or None,
        stratify=asked.stratify,
        pictures=asked.pictures,
        model=whose(catalog, asked),
        min_score=asked.min_score,
    )


def as_json(found: DatasetPlan) -> Plan:
    """A plan as the API and the page show it."""
    summary = found.summary
    return {
        "exact": found.exact,
        "images": summary.images if found.exact else None,
        "splits": summary.splits,
        "available": found.available,
        "counts": summary.counts,
        "missing": summary.missing,
        "near_duplicates": summary.near_duplicates,
    }


def _classes(asked: DatasetAsked) -> list[str]:
    """The classes that a form names.

    Raises: UsageError where there are none, or too many images are wanted.
    """
    more = [name for name in class_list(asked.more) if name] if asked.more.strip() else []
    names = list(dict.fromkeys([*asked.classes, *more]))
    if not names:
        raise UsageError("no class is chosen; a data set needs one")
    if len(names) > MOST_CLASSES or len(names) * asked.per_class > MOST_IMAGES:
        what = f"{len(names):,} classes with {asked.per_class:,} images each"
        raise UsageError(f"{what}: expected {MOST_IMAGES:,} images at most; use `vistadex dataset`")
    return names


def origins(catalog: Catalog) -> list[str]:
    """Whose boxes and classes there are, people first."""
    with catalog.reading() as connection:
        known = registering.all_analyzers(connection)
    names = {one.name for one in known if one.task in ("detector", "classifier")}
    return sorted(names, key=lambda name: (name != "human", name))


def whose(catalog: Catalog, asked: DatasetAsked) -> str:
    """Whose boxes and classes are meant: as the form says, or the first there are."""
    if asked.whose:
        return asked.whose
    names = origins(catalog)
    return asked.model if asked.model in names else next(iter(names), "human")


def build(request: Request, catalog: TheCatalog, jobs: TheJobs, order: TheOrder) -> Run | Response:
    """Starts to build a data set: kept here to be downloaded, or written to a named target."""
    targets: Sequence[str] = request.app.state.export_to
    if order.to and order.to not in targets:
        raise UsageError(
            f"{order.to}: is no target of this server; expected one that it was "
            "started with (--export-to)"
        )
    classes = _classes(order)
    if not any(planned(catalog, order).available.values()):  # What can't be meant is said at once.
        raise UsageError(f"no image that is asked for has {', '.join(classes)}; nothing to build")
    shelf = Shelf(catalog, jobs)
    name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
    if order.to:
        out = f"{order.to.rstrip('/')}/{name}"
        return begun(request, jobs.start(_command(catalog, order, classes, out)))
    shelf.sweep()
    out = str(shelf.make(name) / WHOLE)
    try:
        run = jobs.start(_command(catalog, order, classes, out), name)
    except UsageError:
        shelf.remove(name)
        raise
    shelf.describe(name, run, classes)
    return begun(request, run)


def _command(catalog: Catalog, order: DatasetAsked, classes: Sequence[str], out: str) -> list[str]:
    """The command line; every value is bound to its option, so that none is read as another."""
    quoted = ",".join('"' + one.replace('"', '""') + '"' for one in classes)
    values = {
        "classes": quoted,
        "per-class": order.per_class,
        "split": order.split,
        "seed": order.seed,
        "format": order.format,
        "query": queries.query_text(queries.whole(order)),
        "group-by": order.group_by,
        "pictures": order.pictures,
        "model": whose(catalog, order),
        "min-score": order.min_score,
        "ids": order.ids,
    }
    options = [f"--{name}={value}" for name, value in values.items() if value != ""]
    return ["dataset", *options, *(["--stratify"] if order.stratify else []), "--", out]


class Shelf:
    """The data sets that are kept in the server's folder, a while."""

    def __init__(self, catalog: Catalog, jobs: Jobs) -> None:
        self.catalog, self.jobs = catalog, jobs
        self.folder = jobs.cache_folder / "datasets" / jobs.folder.name

    def make(self, name: str) -> Path:
        """A new folder for a set.

        Raises: UsageError.
        """
        path = self.folder / name
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}; see --cache") from error
        return path

    def describe(self, name: str, run: runs.RecordedRun, classes: Sequence[str]) -> None:
        """Keeps what a set is, beside it."""
        about = {"run": run.id, "made_at": run.started_at, "subject": ", ".join(classes)}
        with suppress(OSError):
            (self.folder / name / ABOUT).write_text(json.dumps(about))

    def list(self) -> list[Kept]:
        """The sets, newest first."""
        found = []
        for path in sorted(self.folder.glob("*"), reverse=True):
            if re.fullmatch(_NAME, path.name):
                with suppress(FileNotFoundError):  # It was removed just now.
                    found.append(self._kept(path))
        return found

    def of_run(self, run: int) -> Kept | None:
        """The set that a run makes or has made."""
        return next((one for one in self.list() if one.run == run), None)

    def _kept(self, path: Path) -> Kept:
        about: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            about = json.loads((path / ABOUT).read_text())
        size = int(about.get("size_bytes", 0))
        if not size and (path / WHOLE).is_dir():
            size = sum(one.stat().st_size for one in (path / WHOLE).rglob("*") if one.is_file())
            if "run" in about:  # Else it is yet to be described.
                with suppress(OSError):
                    (path / ABOUT).write_text(json.dumps(about | {"size_bytes": size}))
        made_at = int(about.get("made_at", 0)) or int(path.stat().st_mtime)
        return Kept(path.name, made_at, int(about.get("run", 0)), about.get("subject", ""), size)

    def whole(self, name: str) -> Path:
        """The folder of a complete set.

        Raises: NotFoundError.
        """
        path = self.folder / name / WHOLE
        if not path.is_dir():
            raise NotFoundError(f"data set {name}: is not there, or not complete; /datasets lists")
        return path

    def remove(self, name: str) -> None:
        """Removes a set, unless a job is writing it.

        Raises: NotFoundError; UsageError where it is being written.
        """
        if not (self.folder / name).is_dir():
            raise NotFoundError(f"data set {name}: is not there; /datasets lists them")
        if any(job.place == name for job in self.jobs.running()):
            raise UsageError(f"data set {name}: is being written; stop its run first")
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def sweep(self, room: int = 1) -> None:
        """Removes what is old, too many, too large, or was left unfinished.

        Args:
            room: for how many sets more there shall be a place.
        """
        total, now = 0, time.time()
        at_work = {job.place for job in self.jobs.running()}
        for number, one in enumerate(self.list()):
            total += one.size_bytes
            old = now - one.made_at > KEPT_S or number >= KEPT_SETS - room or total > KEPT_BYTES
            left = not one.size_bytes and now - one.made_at > KEPT_S / 100
            if one.name not in at_work and (old or left):
                shutil.rmtree(self.folder / one.name, ignore_errors=True)


def download(catalog: TheCatalog, jobs: TheJobs, name: SetName) -> Response:
    """A data set as a zip archive, made while it is sent."""
    parts = zipped(Shelf(catalog, jobs).whole(name), f"dataset-{name}")
    headers = {"Content-Disposition": f'attachment; filename="dataset-{name}.zip"'}
    return StreamingResponse(parts, media_type="application/zip", headers=headers)


def remove(
    request: Request, catalog: TheCatalog, jobs: TheJobs, name: SetName
) -> Removed | Response:
    """Removes a data set that is kept here."""
    Shelf(catalog, jobs).remove(name)
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("/datasets", 303)
    return {"removed": name}
