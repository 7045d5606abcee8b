"""A catalog of Open Images' size: import, and milliseconds of what users ask, against rivals.

The folder is one of open_images_like.py; without --folder it is made in the work folder. Tables:
import (seconds, memory, size), queries (warm, in this process), plain (SQL alone, without posting
lists), duckdb (the same data and questions), cold (new processes) and writing (beside commits).
--server starts PostgreSQL or MariaDB and asks the same of a catalog there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import catalog_beside
import catalog_questions
import catalog_server
import measuring
import processes
import sqlalchemy as sa
import tables
from catalog_questions import Case, Subject, VistadexSubject

from vistadex import Catalog
from vistadex.catalog import opening

TABLES = ("import", "queries", "plain", "duckdb", "cold", "writing")
GOALS = {"import_s": 240.0, "peak_mib": 1500.0, "file_mib": 4096.0, "cold_s": 1.0}
GOALS |= {"commit_ms": 150.0, "behind_s": 2.0}
_POSTINGS = """
import sys, vistadex
with vistadex.Catalog(sys.argv[1]) as catalog:
    with catalog.reading() as connection:
        there = catalog.postings.current(connection) is not None
    assert there or catalog.postings.rebuild()
"""
_ASK = """
import sys, vistadex
with vistadex.Catalog(sys.argv[1]) as catalog:
    assert getattr(catalog, sys.argv[2])(sys.argv[3])
"""


class Bench:
    """One run: where things are, and what was found."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work
        self.chosen = options.tables.split(",")
        self.location = options.catalog or str(work / "open-images.db")
        self.env = measuring.environment(work)
        os.environ.update(self.env)
        for name in [one for one in os.environ if one.startswith("VISTADEX_")]:
            if name not in self.env:
                del os.environ[name]
        self.results: dict[str, Any] = {}
        self.goals: list[tuple[str, float | None, str, float]] = []

    def run(self) -> None:
        """Measures the chosen tables and prints each."""
        if not self.options.skip_import:
            self.measure_import()
        self.measure_postings()
        if set(self.chosen) & {"queries", "plain", "duckdb", "writing"}:
            with Catalog(self.location) as catalog:
                self.measure_open(catalog)
        if "cold" in self.chosen:
            self.measure_cold()
        rows = tables.goal_rows(self.goals)
        tables.show("Goals", ["", "measured", "goal", "reached"], rows)

    def folder(self) -> Path:
        """The folder with the CSV files."""
        given: Path | None = self.options.folder
        if given is not None:
            return given
        made = self.work / f"open-images-{self.options.images}"
        mark = made / "DONE"
        if not mark.exists():
            number = str(self.options.images)
            command = measuring.python("open_images_like.py", made, "--images", number)
            processes.run(command, self.env)
            mark.touch()
        return made

    def measure_import(self) -> None:
        """The whole command, from its start to its end."""
        if is_filled(self.location):
            sys.exit(f"{shown(self.location)}: is filled; remove it, or give --skip-import")
        folder = self.folder()
        warm(folder)
        command = measuring.vistadex("import", "open-images", folder)
        done = processes.run([*command, "--catalog", self.location, "--json"], self.env)
        found = {"wall_s": done.wall_s, "cpu_s": done.cpu_s, "peak_mib": done.peak_mib}
        found |= {"summary": done.json, **sizes_mib(self.location, self.work)}
        self.results["import"] = found
        names = ("wall_s", "cpu_s", "peak_mib", "catalog_mib")
        tables.show("Import", ["", *names], [["whole command", *(found[name] for name in names)]])
        self.goals += [
            ("import, s", done.wall_s, "<=", GOALS["import_s"]),
            ("import, peak MiB", done.peak_mib, "<=", GOALS["peak_mib"]),
            ("catalog, MiB", found["catalog_mib"], "<=", GOALS["file_mib"]),
        ]

    def measure_postings(self) -> None:
        """A process that makes the posting lists where they are not there yet."""
        done = processes.run([sys.executable, "-c", _POSTINGS, self.location], self.env)
        found = {"wall_s": done.wall_s, "peak_mib": done.peak_mib}
        found |= sizes_mib(self.location, self.work)
        self.results["postings"] = found
        tables.show("Posting lists", list(found), [list(found.values())])
        if "import" in self.results:
            both = self.results["import"]["wall_s"] + done.wall_s
            self.goals.append(("import and posting lists, s", both, "<=", GOALS["import_s"]))

    def measure_open(self, catalog: Catalog) -> None:
        """Everything that needs an open catalog."""
        asked = catalog_questions.cases(catalog)
        subject = VistadexSubject(catalog)
        if "queries" in self.chosen:
            self.ask("queries", "Vistadex, warm", subject, asked)
            self.results["memory_mib"] = memory_mib()
            measuring.note(f"memory of this process, MiB: {self.results['memory_mib']}")
            measured = self.results["queries"]
            for case in asked:
                if case.goal_ms is not None:
                    p95 = measured[case.name]["p95_ms"]
                    self.goals.append((f"{case.name}, p95 ms", p95, "<=", case.goal_ms))
        for name, title, opened in (
            ("plain", "Plain SQL, without posting lists", self.plain),
            ("duckdb", "DuckDB", self.duckdb),
        ):
            if name in self.chosen:
                rival = opened()
                self.ask(name, title, rival, asked)
                self.results[f"{name}_differs"] = catalog_questions.differing(
                    subject, rival, asked, whole=name == "plain"
                )
                self.compare(name, asked)
        if "writing" in self.chosen:
            self.measure_writing(catalog)

    def ask(self, name: str, title: str, subject: Subject, asked: list[Case]) -> None:
        """Times all cases and shows them."""
        options = self.options
        found = catalog_questions.measure(subject, asked, options.runs, options.budget_s)
        self.results[name] = found
        headers = ["50 results", "calls", "median ms", "p95 ms", "most ms"]
        tables.show(title, headers, [[case, *ms.values()] for case, ms in found.items()])

    def compare(self, name: str, asked: list[Case]) -> None:
        """How many times quicker Vistadex is, and whether the rival says the same."""
        own, rival = self.results.get("queries"), self.results[name]
        rows = [
            [
                case.name,
                rival[case.name]["median_ms"] / own[case.name]["median_ms"] if own else None,
                "NO" if self.results[f"{name}_differs"][case.name] else "yes",
            ]
            for case in asked
        ]
        tables.show(f"{name} over Vistadex", ["median", "times", "same answer"], rows)

    def plain(self) -> Subject:
        """The same catalog without posting lists."""
        return VistadexSubject(Catalog(self.location, postings=False))

    def duckdb(self) -> Subject:
        """The same CSV files in DuckDB."""
        try:
            sys.path.insert(0, str(Path(__file__).parent / "rivals"))
            import duckdb_catalog
        except ImportError:
            sys.exit("duckdb is not installed: pip install -e '.[bench]', or leave out its table")
        path = self.work / "open-images.duckdb"
        if not (self.options.skip_import and path.exists()):
            command = measuring.python("rivals/duckdb_catalog.py", self.folder(), path)
            here = str(Path(__file__).parent)
            done = processes.run(command, {**self.env, "PYTHONPATH": here})
            found = {"wall_s": done.wall_s, "peak_mib": done.peak_mib, "mib": _mib(path)}
            self.results["duckdb_import"] = found
            tables.show("DuckDB's import", list(found), [list(found.values())])
        return duckdb_catalog.DuckDBSubject(path)

    def measure_cold(self) -> None:
        """New processes to their first answer: with files in memory, and read from the disk."""
        with Catalog(self.location) as catalog:
            names = [one.class_name for one in catalog.classes()[:3]]
        arguments = {
            "one class": ("search", catalog_questions.quoted(names[:1])),
            "ALL of 3 common": ("search", catalog_questions.quoted(names)),
            "facets of the most common": ("facets", catalog_questions.quoted(names[:1])),
        }
        found: dict[str, dict[str, float]] = {}
        for name, (method, query) in arguments.items():
            command = [sys.executable, "-c", _ASK, self.location, method, query]
            found[f"python, {name}"] = self.cold(command)
            if is_file(self.location):
                found[f"python, {name}, not in memory"] = self.cold(command, self.forget)
        place = ("--catalog", self.location)
        found["vistadex search CLASS"] = self.cold(measuring.vistadex("search", names[0], *place))
        self.results["cold"] = found
        rows = [[name, *values.values()] for name, values in found.items()]
        tables.show(
            "A new process to its end", ["", "runs", "median s", "most s", "peak MiB"], rows
        )
        first = found["python, one class"]["most_s"]
        self.goals.append(("cold start to the first answer, s", first, "<=", GOALS["cold_s"]))

    def cold(
        self, command: list[str | Path], before: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        """Seconds of a whole process."""
        runs = []
        for _ in range(self.options.rounds):
            before()
            runs.append(processes.run(command, self.env))
        seconds = [run.wall_s for run in runs]
        peak = max(run.peak_mib for run in runs)
        return {
            "runs": len(runs),
            "median_s": statistics.median(seconds),
            "most_s": max(seconds),
            "peak_mib": peak,
        }

    def forget(self) -> None:
        """Lets the system drop the catalog's files from its cache."""
        for path in files(self.location, self.work):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)

    def measure_writing(self, catalog: Catalog) -> None:
        """Readers in this process, a writer in another."""
        batches = self.options.batches
        found = catalog_beside.reading_beside(catalog, self.location, batches, self.env)
        self.results["writing"] = found
        rows = [
            [name, one["calls"], one["median_ms"], one["p95_ms"], one["most_ms"], one["errors"]]
            for name, one in found["readers"].items()
        ]
        headers = ["", "calls", "median ms", "p95 ms", "most ms", "errors"]
        tables.show("Readers beside a writer", headers, rows)
        rows = [[name, *one.values()] for name, one in found["commits"].items()]
        behind = found["behind_s"]
        tables.show("Commits", headers[:5], rows)
        p95 = found["commits"]["commit of 512, append"]["p95_ms"]
        errors = sum(one["errors"] for one in found["readers"].values())
        self.goals += [
            ("commit of 512 new images, p95 ms", p95, "<=", GOALS["commit_ms"]),
            ("readers' errors", errors, "<=", 0),
            ("behind a commit, most s", max(behind, default=None), "<=", GOALS["behind_s"]),
        ]


def is_file(location: str) -> bool:
    """Whether a catalog is a file of this machine."""
    return "://" not in location or location.startswith("sqlite")


def _file(location: str) -> Path:
    return Path(sa.make_url(location).database or "" if "://" in location else location)


def shown(location: str) -> str:
    """The location without a password."""
    if "://" not in location:
        return location
    return sa.make_url(location).render_as_string(hide_password=True)


def is_filled(location: str) -> bool:
    """Whether something stands there already."""
    if is_file(location):
        return _file(location).exists()
    engine = opening.engine_for(location)
    try:
        with engine.connect():
            return bool(sa.inspect(engine).get_table_names())
    finally:
        engine.dispose()


def files(location: str, work: Path) -> list[Path]:
    """The files of a catalog and what is derived from it."""
    found = [one for one in (work / "cache").rglob("*") if one.is_file()]
    if is_file(location):
        path = _file(location)
        beside = path.parent.glob(f"{path.name}*")
        for one in beside:
            found += [one] if one.is_file() else [p for p in one.rglob("*") if p.is_file()]
    return found


def sizes_mib(location: str, work: Path) -> dict[str, float]:
    """Of the catalog, and of what is derived from it."""
    everything = {path: _mib(path) for path in files(location, work)}
    if is_file(location):
        path = _file(location)
        own = [path, path.with_name(f"{path.name}-wal")]
        catalog = sum(mib for one, mib in everything.items() if one in own)
        return {"catalog_mib": catalog, "derived_mib": sum(everything.values()) - catalog}
    return {"catalog_mib": _server_mib(location), "derived_mib": sum(everything.values())}


def _server_mib(location: str) -> float:
    text = {
        "postgresql": "SELECT pg_database_size(current_database())",
        "mysql": "SELECT SUM(data_length + index_length) FROM information_schema.tables "
        "WHERE table_schema = DATABASE()",
    }
    engine = opening.engine_for(location)
    kind = engine.dialect.name
    try:
        with engine.connect() as connection:
            return float(connection.execute(sa.text(text[kind])).scalar_one()) / processes.MIB
    finally:
        engine.dispose()


def _mib(path: Path) -> float:
    return path.stat().st_size / processes.MIB


def warm(folder: Path) -> None:
    """Reads all files once, so that the disk is not what is measured."""
    for path in sorted(folder.glob("*")):
        with path.open("rb") as file:
            while file.read(16 << 20):
                pass


def memory_mib() -> Mapping[str, float]:
    """Of this process: the most so far, and what is not a part of files now."""
    text = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    names = {"most": "VmHWM", "now": "VmRSS", "own now": "RssAnon"}
    return {name: int(fields[key].split()[0]) / 1024 for name, key in names.items()}


def main() -> None:
    """Measures the tables asked for."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--json", type=Path, dest="out", help="the same as --out")
    parser.add_argument("--folder", type=Path, help="with the CSV files of open_images_like.py")
    parser.add_argument("--images", type=int, default=9_000_000, help="where there is no --folder")
    parser.add_argument("--catalog", help="file or URL; else in the work folder")
    parser.add_argument(
        "--server", choices=sorted(catalog_server.SETTINGS), help="start one and fill it"
    )
    parser.add_argument("--skip-import", action="store_true", help="the catalog is filled already")
    parser.add_argument("--tables", help="which to print; else all, DuckDB's only for a file")
    parser.add_argument("--runs", type=int, default=60, help="of each question")
    parser.add_argument("--budget-s", type=float, default=60, help="for one slow question, seconds")
    parser.add_argument("--rounds", type=int, default=10, help="of whole processes")
    parser.add_argument("--batches", type=int, default=100, help="commits of 512 images")
    options = parser.parse_args()
    if options.server and (options.catalog or options.skip_import):
        parser.error("--server: its catalog is a new one, without --catalog and --skip-import")
    if options.tables is None:
        at_server = options.server or not is_file(options.catalog or "")
        options.tables = ",".join(one for one in TABLES if one != "duckdb" or not at_server)
    unknown = set(options.tables.split(",")) - set(TABLES)
    if unknown:
        parser.error(f"--tables {', '.join(sorted(unknown))}: expected some of {', '.join(TABLES)}")
    here = measuring.machine()
    with measuring.work_folder(options.work) as work, ExitStack() as stack:
        if options.server:
            options.catalog = stack.enter_context(catalog_server.started(options.server))
        bench = Bench(options, work)
        bench.run()
    if options.catalog:
        options.catalog = shown(options.catalog)
    measuring.write_json(options, here, bench.results)


if __name__ == "__main__":
    main()
