"""The pages of runs, models and data sets: what the functions of the API return, as HTML."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from vistadex.catalog import runs as recorded
from vistadex.errors import VistadexError
from vistadex.records import FAILURE_REASONS
from vistadex.web import api, building, installed, pages, queries, runs
from vistadex.web.api import FacetsAsked, TheCatalog
from vistadex.web.building import Shelf, ThePlanAsked
from vistadex.web.installed import ModelName
from vistadex.web.runs import Before, RunId, TheJobs

CLASSES_TO_CHOOSE = 24
CONFUSED_CLASSES = 30
"""More would be no picture: the table then lists what is confused most."""
MOST_CONFUSED = 20


def list_runs(request: Request, catalog: TheCatalog, before: Before = None) -> Response:
    """Runs, newest first, what went wrong in the catalog, and a form to start an index."""
    found = runs.list_runs(catalog, before)
    return pages.rendered(
        request,
        "runs.html",
        found=found,
        failures=catalog.stats().failures,
        reasons=FAILURE_REASONS,
        live=any(one["status"] == "running" for one in found["runs"]),
        sources=recorded.source_uris(catalog),
        names={task: runs.names_of(task) for task in ("detector", "classifier", "embedder")},
        duration=runs.duration,
    )


def run(request: Request, catalog: TheCatalog, jobs: TheJobs, id: RunId) -> Response:
    """One run: how far it is, or how it went."""
    row = recorded.get_run(catalog, id)
    one = runs.as_json(row)
    kept = Shelf(catalog, jobs).of_run(id) if one["kind"] == "dataset" else None
    return pages.rendered(
        request,
        "run.html",
        run=one,
        stoppable=runs.can_stop(jobs, one, row.process),
        kept=kept,
        reasons=FAILURE_REASONS,
        duration=runs.duration,
    )


def models(request: Request, catalog: TheCatalog) -> Response:
    """The installed models."""
    return pages.rendered(request, "models.html", found=installed.models(catalog))


def model(request: Request, catalog: TheCatalog, name: ModelName) -> Response:
    """A model's card, and how it was judged."""
    one = installed.model(catalog, name)
    nothing: dict[str, Any] = {"data": "", "confusion": None, "quantization": {}}
    evaluation = {**nothing, **one["card"]["evaluation"]}
    confusion = evaluation["confusion"]
    return pages.rendered(
        request,
        "model.html",
        model=one,
        card=one["card"],
        evaluation=evaluation,
        confused=_most_confused(confusion) if confusion else [],
        as_table=bool(confusion) and len(confusion["classes"]) <= CONFUSED_CLASSES,
    )


def _most_confused(confusion: dict[str, list[list[int]]]) -> list[tuple[str, str, int, float]]:
    """What it is, what the model says, how often, and for which share of the former."""
    names, rows = confusion["classes"], confusion["counts"]
    found = [
        (str(names[i]), str(names[j]), number, number / max(1, sum(row)))
        for i, row in enumerate(rows)
        for j, number in enumerate(row)
        if i != j and number
    ]
    return sorted(found, key=lambda one: (-one[3], one[0], one[1]))[:MOST_CONFUSED]


def datasets(
    request: Request,
    catalog: TheCatalog,
    jobs: TheJobs,
    asked: ThePlanAsked,
) -> Response:
    """The form of a data set with its counts, and the sets that are kept."""
    sought = FacetsAsked(
        q=asked.q, min_score=asked.min_score, source=asked.source, model=asked.model
    )
    facets = api.facets(catalog, sought)
    terms = [term.class_name for term in queries.whole(asked).terms if term.relation is None]
    chosen = list(asked.classes) or ([] if asked.more else terms)
    offered = [one["class"] for one in facets["classes"] if one["class"] not in chosen]
    counts = {one["class"]: one["images"] for one in facets["classes"]}
    planned, problem = None, ""
    if chosen or asked.more:
        try:
            wanted = asked.model_copy(update={"classes": tuple(chosen)})
            planned = building.as_json(building.planned(catalog, wanted))
        except VistadexError as error:
            problem = str(error)
    shelf = Shelf(catalog, jobs)
    shelf.sweep(room=0)
    return pages.rendered(
        request,
        "datasets.html",
        form=asked,
        text=queries.query_text(queries.whole(asked)),
        offered=[*chosen, *offered[: max(0, CLASSES_TO_CHOOSE - len(chosen))]],
        chosen=set(chosen),
        counts=counts,
        plan=planned,
        problem=problem,
        formats=building.FORMATS,
        origins=building.origins(catalog),
        whose=building.whose(catalog, asked),
        targets=request.app.state.export_to,
        kept=shelf.list(),
    )
