"""Visitors of `vistadex serve`, all at the same time: milliseconds of pages, JSON and thumbnails.

Each visitor thinks for two seconds between two actions and goes where people go: a class, the next
page, several classes, relations, an image, what is similar to it, the lists, letters typed into the
box. A page of results also fetches what a browser fetches with it: its facets, and thumbnails.
Those are of photographs of COCO, indexed for it: from the same server, or beside a given --catalog,
whose pictures need not be there, from a second one; so are similar images, where the catalog has no
embeddings. The visitors are one process on the same cores.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import measuring
import pictures
import processes
import tables
from web_visitors import PATIENCE_S, Answer, Crowd

GOALS_MS = {"page": 150.0, "JSON": 60.0, "thumbnail": 15.0}
"""For p95."""
SAMPLES = 4
"""How often processor time and memory of the servers are looked at, over the whole time."""
_LISTS = """
import sys, vistadex
with vistadex.Catalog(sys.argv[1]) as catalog:
    catalog.refresh()
"""


class Server:
    """A `vistadex serve` that runs."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def numbers(self) -> dict[str, float]:
        """Processor seconds and memory of the process and its workers, so far."""
        pids = list(processes.tree(self.process.pid))
        return {
            "cpu_s": sum(map(processes.cpu_seconds, pids)),
            "rss_mib": sum(map(processes.resident_mib, pids)),
        }


@contextmanager
def serving(catalog: str, options: argparse.Namespace, work: Path, env: Mapping[str, str]) -> Any:
    """A server on a free port of this machine, ended afterwards."""
    thumbnails = work / "thumbnails"
    place = ["serve", "--catalog", catalog, "--port", "0", "--cache", thumbnails, "--json"]
    command = [*measuring.vistadex(*place), "--workers", str(options.workers)]
    with (work / "server.log").open("a") as log:
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=log, text=True, env=dict(env)
        )
    with process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            if not said:
                sys.exit(f"vistadex serve ended; {work / 'server.log'} says why")
            yield Server(process, json.loads(said)["url"])
        finally:
            end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Ends a server with its workers, also one that does not listen."""
    whole = list(processes.tree(process.pid))
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        for pid in whole:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def photographs(options: argparse.Namespace, work: Path, env: Mapping[str, str]) -> str:
    """A catalog of real photographs with objects and colors found in them, made once."""
    path = work / f"photographs-{options.pictures}-embedded.db"
    if not path.exists():
        measuring.add_models(work)
        folder = pictures.photographs(work, options.pictures, long_side=640)
        processes.run(measuring.index_command(folder, path, "--embedder", "color-layout"), env)
    return str(path)


def watched(crowd: Crowd, servers: Sequence[Server], seconds: float) -> dict[str, Any]:
    """Answers to all visitors, and the servers' numbers meanwhile."""
    samples: list[dict[str, float]] = []

    def look() -> None:
        found = [server.numbers() for server in servers]
        samples.append({key: sum(one[key] for one in found) for key in found[0]})

    own = time.process_time()
    answers = crowd.visit(seconds, look, seconds / SAMPLES)
    look()
    return {
        "answers": answers,
        "cpu_cores": (samples[-1]["cpu_s"] - samples[0]["cpu_s"]) / seconds,
        "visitors_cpu_cores": (time.process_time() - own) / seconds,
        "rss_mib": [one["rss_mib"] for one in samples],
    }


def summary(answers: Sequence[Answer], seconds: float) -> dict[str, Any]:
    """Latencies of some answers, in milliseconds; a failed one counts as an error alone."""
    times = [one.ms for one in answers if not one.error] or [float("nan")]
    return {
        "answers": len(answers),
        "per_s": len(answers) / seconds,
        "median_ms": statistics.median(times),
        "p95_ms": tables.percentile(times, 0.95),
        "p99_ms": tables.percentile(times, 0.99),
        "most_ms": max(times),
        "mean_kb": statistics.fmean(one.size_bytes for one in answers) / 1e3,
        "errors": sum(bool(one.error) for one in answers),
    }


def summaries(answers: Sequence[Answer], seconds: float, field: str) -> dict[str, Any]:
    """A summary for each value of a field, those with most answers first."""
    groups: dict[str, list[Answer]] = {}
    for one in answers:
        groups.setdefault(getattr(one, field), []).append(one)
    ranked = sorted(groups, key=lambda name: -len(groups[name]))
    return {name: summary(groups[name], seconds) for name in ranked}


def report(found: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Prints the tables; what they say as JSON."""
    answers: list[Answer] = found.pop("answers")
    kinds = summaries(answers, options.seconds, "kind")
    names = summaries(answers, options.seconds, "name")
    for title, rows in (("By kind", kinds), ("By what was asked", names)):
        headers = ["", *next(iter(rows.values()))]
        tables.show(title, headers, [[name, *one.values()] for name, one in rows.items()])
    errors = sorted({f"{one.name}: {one.error}" for one in answers if one.error})
    for error in errors[:20]:
        measuring.note(error)
    memory = found["rss_mib"]
    rows = [
        ["processor cores, servers", found["cpu_cores"]],
        ["processor cores, visitors", found["visitors_cpu_cores"]],
        ["MiB at the beginning, servers", memory[0]],
        ["MiB in the middle", memory[len(memory) // 2]],
        ["MiB at the end", memory[-1]],
    ]
    tables.show("Processes", ["", "measured"], rows)
    goals: list[tuple[str, float | None, str, float]] = [
        (f"{kind}, p95 ms", kinds.get(kind, {}).get("p95_ms"), "<=", goal)
        for kind, goal in GOALS_MS.items()
    ]
    kind_of = {one.name: one.kind for one in answers}
    goals += [
        (f"{name}, p95 ms", one["p95_ms"], "<=", GOALS_MS[kind_of[name]])
        for name, one in names.items()
        if name not in kinds
    ]
    goals.append(("errors", sum(one["errors"] for one in kinds.values()), "<=", 0))
    tables.show("Goals", ["", "measured", "goal", "reached"], tables.goal_rows(goals))
    return {"kinds": kinds, "asked": names, "errors": errors, "goals": goals, **found}


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Starts the servers, lets the visitors in, and reports."""
    env = measuring.environment(work)
    if options.cache:
        env["VISTADEX_CACHE"] = str(options.cache.resolve())
    shown = photographs(options, work, env)
    catalog = options.catalog or shown
    processes.run([sys.executable, "-c", _LISTS, catalog], env)
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(catalog, options, work, env))]
        if catalog != shown:
            one = argparse.Namespace(**{**vars(options), "workers": 1})
            servers.append(stack.enter_context(serving(shown, one, work, env)))
        crowd = Crowd(
            servers[0].url,
            servers[-1].url,
            visitors=options.visitors,
            think_s=options.think_s,
            thumbnails=options.thumbnails,
            distinct=options.distinct,
        )
        measuring.note(f"{options.visitors} visitors at {servers[0].url}: warming up")
        crowd.visit(options.warm_s)
        measuring.note(f"measuring for {options.seconds:g} s")
        return report(watched(crowd, servers, options.seconds), options)


def main() -> None:
    """Reads the options and measures."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--json", type=Path, dest="out", default=argparse.SUPPRESS, help="as --out")
    parser.add_argument("--catalog", help="file or URL of a catalog; else one of photographs")
    parser.add_argument("--cache", type=Path, help="folder with its posting lists, if not in work")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--visitors", type=int, default=100)
    parser.add_argument("--think-s", type=float, default=2.0, help="between two actions")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long is measured")
    parser.add_argument("--warm-s", type=float, default=10.0, help="how long before that")
    parser.add_argument("--thumbnails", type=int, default=4, help="fetched with a page of results")
    parser.add_argument("--pictures", type=int, default=300, help="photographs with thumbnails")
    parser.add_argument(
        "--distinct",
        action="store_true",
        help="no address twice: the server remembers no page and no JSON",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or its servers would go on
    here = measuring.machine()
    with measuring.work_folder(options.work) as work:
        found = measure(options, work)
    measuring.write_json(options, here, found)


if __name__ == "__main__":
    main()
