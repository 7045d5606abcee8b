"""What a person waits for: the first 20 images, an unchanged collection, `vistadex --help`."""

from __future__ import annotations

import sqlite3
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import measuring
import pictures
import processes
import tables

FIRST = 20
POLL_S = 0.005


def first_images(work: Path, folder: Path, *, square: bool) -> dict[str, float]:
    """Seconds from the start of the command until a reader sees so many analyzed images."""
    catalog = measuring.remove_catalog(work / "first.db")
    command = list(map(str, measuring.index_command(folder, catalog, square=square)))
    env = measuring.environment(work)
    started = time.monotonic()
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while _analyzed(catalog) < FIRST:
            if process.poll() is not None and _analyzed(catalog) < FIRST:
                raise SystemExit(f"{' '.join(command)}: ended before {FIRST} images were there")
            time.sleep(POLL_S)
        return {"seconds": time.monotonic() - started}
    finally:
        process.terminate()
        process.wait()


def _analyzed(catalog: Path) -> int:
    """Rows of analysis that are committed, FIRST at most."""
    if not catalog.exists():
        return 0
    try:
        connection = sqlite3.connect(f"file:{catalog}?mode=ro", uri=True, timeout=0)
        try:
            query = f"SELECT count(*) FROM (SELECT 1 FROM analysis LIMIT {FIRST})"
            return int(connection.execute(query).fetchone()[0])
        finally:
            connection.close()
    except sqlite3.OperationalError:  # Not made yet, or its tables are not.
        return 0


def unchanged(work: Path, many: Path, number: int) -> dict[str, float]:
    """A second run over files that the catalog knows."""
    done = processes.run(_small(work, many), measuring.environment(work))
    if done.json["unchanged"] != number:
        raise SystemExit(f"{done.json['unchanged']} unchanged, expected {number}")
    return {
        "inside_s": done.json["seconds"],
        "inside_per_s": number / done.json["seconds"],
        "command_s": done.wall_s,
        "command_per_s": number / done.wall_s,
        "peak_mib": done.peak_mib,
    }


def _small(work: Path, many: Path) -> list[str | Path]:
    """Indexing at 64 pixels: of the first run only what it leaves in the catalog matters."""
    return measuring.index_command(many, work / f"{many.name}.db", "--size", "64")


def command_time(work: Path, *arguments: str) -> dict[str, float]:
    """Seconds that a command takes."""
    done = processes.run(measuring.vistadex(*arguments), measuring.environment(work))
    return {"seconds": done.wall_s}


def main() -> None:
    """Runs all in interleaved rounds."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--number", type=int, default=2000, help="photographs of about 640x480")
    parser.add_argument("--unchanged", type=int, default=20_000, help="files (hard links)")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    here = measuring.machine()
    with measuring.work_folder(options.work) as work:
        measuring.add_models(work)
        folder = pictures.photographs(work, options.number, long_side=640)
        many = pictures.repeated(folder, work, options.unchanged)
        measuring.note(f"indexing {options.unchanged:,} files at 64 pixels")
        processes.run(_small(work, many), measuring.environment(work))
        pictures.warm(folder)
        contestants = {
            f"first {FIRST} images, rectangular": lambda: first_images(work, folder, square=False),
            f"first {FIRST} images, square": lambda: first_images(work, folder, square=True),
            f"{options.unchanged:,} unchanged": lambda: unchanged(work, many, options.unchanged),
            "vistadex --help": lambda: command_time(work, "--help"),
            "vistadex index --help": lambda: command_time(work, "index", "--help"),
        }
        found = measuring.interleaved(contestants, options.rounds)
    rows = [
        [name, *_spread([one.get("seconds", one.get("command_s", 0)) for one in runs])]
        for name, runs in found.items()
    ]
    tables.show("Seconds of whole commands", ["", "median", "least", "most"], rows)
    unchanged_runs = found[f"{options.unchanged:,} unchanged"]
    rows = [
        [key.replace("_", " "), *_spread([one[key] for one in unchanged_runs])]
        for key in unchanged_runs[0]
    ]
    tables.show(f"{options.unchanged:,} unchanged files", ["", "median", "least", "most"], rows)
    first = _median(found[f"first {FIRST} images, rectangular"], "seconds")
    goals = [
        (f"first {FIRST} images, s", first, "<=", 1.0),
        ("unchanged, files/s inside", _median(unchanged_runs, "inside_per_s"), ">=", 20_000.0),
        ("vistadex --help, s", _median(found["vistadex --help"], "seconds"), "<=", 0.3),
    ]
    tables.show("Goals", ["", "measured", "goal", "reached"], tables.goal_rows(goals))
    measuring.write_json(options, here, {"rounds": found, "goals": goals})


def _spread(values: list[float]) -> list[float]:
    return [statistics.median(values), min(values), max(values)]


def _median(runs: list[dict[str, Any]], key: str) -> float:
    return statistics.median(one[key] for one in runs)


if __name__ == "__main__":
    main()
