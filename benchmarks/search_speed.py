"""Milliseconds of searches over a million synthetic images, in this process and as commands."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import measuring
import processes
import sqlalchemy as sa
import synthetic_catalog
import tables

from vistadex.catalog import Catalog
from vistadex.catalog.scope import Position, cursor
from vistadex.catalog.tables import image_class, klass

GOAL_MS = 5.0
DEEP = 50
"""Different positions that the deep pages of a class begin at."""


def cases(catalog: Catalog) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is measured, by name."""
    ranking = [one.class_name for one in catalog.classes()]
    common, second, third = ranking[0], ranking[1], ranking[2]
    middling, rare = ranking[len(ranking) // 2], ranking[-1]
    some = cycle(random.Random(7).sample(ranking, len(ranking)))
    named = {"common": common, "middling": middling, "rare": rare}
    for name, class_name in named.items():
        yield f"one class, {name}", _search(catalog, class_name)
    yield "one class, each of 80 in turn", lambda: catalog.search(next(some))
    for name, class_name in named.items():
        yield f"one class, {name}, a deep page", _deep(catalog, class_name)
    queries = {
        "one class and score > 0.5": f"{common} score>0.5",
        "one class, 3 boxes or more": f"{common}>=3",
        "one class but not another": f"{common} -{second}",
        "all of 2: common, rare": f"{common} & {rare}",
        "all of 2: both middling": f"{middling} & {ranking[len(ranking) // 2 + 1]}",
        "all of 2: both common": f"{common} & {second}",
        "all of 3: common": f"{common} & {second} & {third}",
        "any of 2: rare": f"{rare} | {ranking[-2]}",
        "any of 2: both common": f"{common} | {second}",
        "any of 3: common": f"{common} | {second} | {third}",
        "no query": "",
    }
    for name, query in queries.items():
        yield name, _search(catalog, query)
    for name in ("all of 2: both common", "any of 2: both common", "no query"):
        yield f"count, {name}", _count(catalog, queries[name])
    yield "count, one class", _count(catalog, common)
    ids = random.Random(8)
    number = catalog.count()
    yield "one image", lambda: catalog.image(ids.randint(1, number))
    yield "all classes with counts", catalog.classes
    yield "stats", catalog.stats


def _search(catalog: Catalog, query: str) -> Callable[[], Any]:
    return lambda: catalog.search(query)


def _count(catalog: Catalog, query: str) -> Callable[[], Any]:
    return lambda: catalog.count(query)


def _deep(catalog: Catalog, class_name: str) -> Callable[[], Any]:
    """Pages that begin behind images anywhere in a class's ranking."""
    with catalog.reading() as connection:
        class_id = connection.execute(
            sa.select(klass.c.id).where(klass.c.name == class_name)
        ).scalar_one()
        query = (
            sa.select(image_class.c.image_id, image_class.c.score)
            .where(image_class.c.class_id == class_id)
            .order_by(image_class.c.score)
        )
        rows = connection.execute(query).all()
    chosen = random.Random(9).choices(rows, k=DEEP)
    places = cycle([cursor(Position(row.image_id, 1, row.score)) for row in chosen])
    return lambda: catalog.search(class_name, after=next(places))


def measure(call: Callable[[], Any], calls: int, budget_s: float) -> dict[str, float]:
    """Milliseconds of a call that has been made before; fewer calls where the budget is spent."""
    for _ in range(3):
        started = time.perf_counter()
        call()
        if time.perf_counter() - started > budget_s / 4:
            break
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < calls and (not times or time.perf_counter() - begun < budget_s):
        started = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - started))
    return {
        "calls": len(times),
        "median_ms": statistics.median(times),
        "p95_ms": tables.percentile(times, 0.95),
        "most_ms": max(times),
    }


def commands(work: Path, path: Path, class_name: str, rounds: int) -> dict[str, Any]:
    """Seconds of whole commands, the first one left out."""
    env = measuring.environment(work, VISTADEX_CATALOG=str(path))
    found = {}
    for name, arguments in {
        "vistadex search CLASS": ("search", class_name),
        "vistadex search CLASS --json": ("search", class_name, "--json"),
        "vistadex classes": ("classes",),
        "vistadex stats": ("stats",),
    }.items():
        runs = [processes.run(measuring.vistadex(*arguments), env) for _ in range(rounds + 1)]
        seconds = [run.wall_s for run in runs[1:]]
        found[name] = {
            "median_s": statistics.median(seconds),
            "most_s": max(seconds),
            "peak_mib": max(run.peak_mib for run in runs),
        }
    return found


def main() -> None:
    """Makes the catalog and measures all cases."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--boxes", type=int, default=8_000_000)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--budget-s", type=float, default=30, help="for one slow case, seconds")
    parser.add_argument("--rounds", type=int, default=7, help="of whole commands")
    options = parser.parse_args()
    here = measuring.machine()
    with measuring.work_folder(options.work) as work:
        started = time.monotonic()
        path = synthetic_catalog.build(work, options.images, options.boxes)
        measuring.note(f"catalog ready after {time.monotonic() - started:.0f} s")
        found = {}
        with Catalog(str(path)) as catalog:
            about = _describe(catalog, path)
            for name, call in cases(catalog):
                found[name] = measure(call, options.calls, options.budget_s)
                measuring.note(f"{name}: p95 {found[name]['p95_ms']:.2f} ms")
            class_name = catalog.classes()[0].class_name
        whole = commands(work, path, class_name, options.rounds)
    title = ", ".join(f"{value:,.4g} {key}" for key, value in about.items())
    rows = [[name, *values.values()] for name, values in found.items()]
    tables.show(title, ["50 results", "calls", "median ms", "p95 ms", "most ms"], rows)
    rows = [[name, *values.values()] for name, values in whole.items()]
    tables.show("Whole commands", ["", "median s", "most s", "peak MiB"], rows)
    goals = [
        (f"{name}, p95 ms", values["p95_ms"], "<=", GOAL_MS)
        for name, values in found.items()
        if name.startswith("one class, ") and "boxes" not in name
    ]
    tables.show("Goals", ["", "measured", "goal", "reached"], tables.goal_rows(goals))
    results = {"catalog": about, "cases": found, "commands": whole, "goals": goals}
    measuring.write_json(options, here, results)


def _describe(catalog: Catalog, path: Path) -> dict[str, float]:
    known = catalog.classes()
    images = catalog.count()
    return {
        "images": images,
        "boxes": sum(one.boxes for one in known),
        "classes an image": sum(one.images for one in known) / images,
        "images of the most common class": known[0].images,
        "images of the rarest": known[-1].images,
        "MiB": path.stat().st_size / processes.MIB,
    }


if __name__ == "__main__":
    main()
