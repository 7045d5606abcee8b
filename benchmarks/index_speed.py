"""Indexing against a plain cv2 + onnxruntime loop, Daft's class UDF and the machine's own ceiling.

All run in the same rounds, one after the other, on the same photographs in the page cache. The
rivals keep their boxes in memory; `vistadex index` commits them to a fresh catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import measuring
import pictures
import processes
import tables
from agreement import boxes_alike

LOOP, LOOP_1 = "cv2 + onnxruntime loop", "the same, intra_op=1"
DAFT, DAFT_1 = "Daft class UDF", "the same, one thread a worker"
SQUARE, RECTANGULAR = "vistadex --square", "vistadex --rectangular"
CEILING = {SQUARE: "ceiling, square", RECTANGULAR: "ceiling, rectangular"}
GOALS = (
    # (photographs, ours, rival, times as fast)
    ("640px", SQUARE, LOOP, 1.45),
    ("640px", RECTANGULAR, LOOP, 1.8),
    ("640px", SQUARE, DAFT, 1.35),
    ("640px", RECTANGULAR, DAFT, 1.75),
    ("12mp", SQUARE, LOOP, 4.0),
    ("12mp", RECTANGULAR, LOOP, 4.0),
)
"""Of a rival's two forms (onnxruntime's own threads, one thread) the faster one counts."""
FORMS = {LOOP: (LOOP, LOOP_1), DAFT: (DAFT, DAFT_1)}


@dataclass(frozen=True, slots=True)
class Rate:
    """One run of one contestant."""

    images: int
    wall_per_s: float
    """Images per second of the whole command, start-up included."""
    steady_per_s: float
    """Images per second once it works: from the first read to the last result or commit."""
    own_per_s: float | None
    """What vistadex itself prints: loading of the model included, of Python not."""
    peak_mib: float
    cpu_s: float

    def __str__(self) -> str:
        return f"{self.steady_per_s:.0f}/s steady, {self.wall_per_s:.0f}/s in all"


def rival(script: str, folder: Path, *options: str | Path) -> Rate:
    """One run of a script of rivals/."""
    command = measuring.python(f"rivals/{script}", folder, measuring.WEIGHTS, *options)
    done = processes.run(command)
    images, seconds = done.json["images"], done.json["seconds"]
    return Rate(images, images / done.wall_s, images / seconds, None, done.peak_mib, done.cpu_s)


def vistadex(work: Path, folder: Path, alone: Path, *, square: bool) -> Rate:
    """One run of `vistadex index` into a fresh catalog.

    The same command over the one image in `alone` says what of its seconds is start-up.
    """
    env = measuring.environment(work)
    catalog = measuring.remove_catalog(work / "first.db")
    start = processes.run(measuring.index_command(alone, catalog, square=square), env)
    catalog = measuring.remove_catalog(work / f"{'square' if square else 'rectangular'}.db")
    done = processes.run(measuring.index_command(folder, catalog, square=square), env)
    images = done.json["indexed"]
    seconds = done.json["seconds"] - start.json["seconds"]
    steady = (images - 1) / seconds
    own = done.json["images_per_s"]
    return Rate(images, images / done.wall_s, steady, own, done.peak_mib, done.cpu_s)


def ceiling(work: Path, folder: Path, sample: int, *, square: bool) -> dict[str, Any]:
    """What ceiling.py finds in a process of its own."""
    mode = ["--square"] if square else []
    options = ["--work", work, "--photographs", folder, "--sample", str(sample), "--json", *mode]
    found: dict[str, Any] = processes.run(measuring.python("ceiling.py", *options)).json
    return found


def contest(options: Any, work: Path, folder: Path, *, daft: bool) -> dict[str, list[Any]]:
    """All contestants in interleaved rounds over one folder."""
    alone = work / f"alone-{folder.parent.name}"
    alone.mkdir(exist_ok=True)
    first = sorted(folder.iterdir())[0]
    (alone / first.name).write_bytes(first.read_bytes())
    contestants: dict[str, Callable[[], Any]] = {
        LOOP: partial(rival, "loop.py", folder, "--boxes", work / "loop.json"),
        LOOP_1: partial(rival, "loop.py", folder, "--threads", "1"),
    }
    if daft:
        contestants[DAFT] = partial(rival, "daft_udf.py", folder)
        contestants[DAFT_1] = partial(rival, "daft_udf.py", folder, "--threads", "1")
    contestants[SQUARE] = partial(vistadex, work, folder, alone, square=True)
    contestants[RECTANGULAR] = partial(vistadex, work, folder, alone, square=False)
    for mode, name in CEILING.items():
        contestants[name] = partial(ceiling, work, folder, options.sample, square=mode == SQUARE)
    pictures.warm(folder)
    return measuring.interleaved(contestants, options.rounds, _shown)


def _shown(found: Any) -> str:
    return f"{found['ceiling_per_s']:.0f}/s" if isinstance(found, dict) else str(found)


def _medians(runs: Mapping[str, Sequence[Any]]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for name, found in runs.items():
        if not isinstance(found[0], Rate):
            continue
        columns = ("wall_per_s", "own_per_s", "steady_per_s", "peak_mib", "cpu_s")
        values = [[getattr(one, column) for one in found] for column in columns]
        rows.append([name, *(None if None in column else median(column) for column in values)])
    return rows


def faster(runs: Mapping[str, Sequence[Any]], rival_name: str) -> list[float]:
    """A rival's steady rate in each round, of the form that is faster by the median."""
    forms = [[one.steady_per_s for one in runs[form]] for form in FORMS[rival_name]]
    return max(forms, key=median)


def goals(size: str, runs: Mapping[str, Sequence[Any]]) -> list[tuple[str, Any, str, float]]:
    """The goals for one size of photographs, with what was measured."""
    rows: list[tuple[str, Any, str, float]] = []
    for of_size, ours, theirs, goal in GOALS:
        if of_size == size:
            rates = [one.steady_per_s for one in runs[ours]]
            there = FORMS[theirs][0] in runs
            found = measuring.ratio(rates, faster(runs, theirs)) if there else None
            rows.append((f"{ours} / {theirs}", found, ">=", goal))
    if size == "640px":
        for ours in (SQUARE, RECTANGULAR):
            rates = [one.steady_per_s for one in runs[ours]]
            for what, goal in (("ceiling_per_s", 0.92), ("model_alone_per_s", 0.7)):
                under = [one[what] for one in runs[CEILING[ours]]]
                name = f"{ours} / {what.removesuffix('_per_s').replace('_', ' ')}"
                rows.append((name, measuring.ratio(rates, under), ">=", goal))
            rows.append((f"{ours}, MiB", max(one.peak_mib for one in runs[ours]), "<=", 190.7))
    return rows


def main() -> None:
    """Runs the contest at both sizes."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--number", type=int, default=2000, help="photographs of about 640x480")
    parser.add_argument("--large", type=int, default=200, help="photographs of 12 megapixels")
    parser.add_argument("--grain", type=float, default=0, help="noise in the large ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=600, help="photographs for the ceiling")
    parser.add_argument("--no-daft", action="store_true", help="leave Daft out")
    options = parser.parse_args()
    here, results = measuring.machine(), {}
    daft = not options.no_daft and find_spec("daft") is not None
    with measuring.work_folder(options.work) as work:
        measuring.add_models(work)
        folders = {}
        if options.number:
            folders["640px"] = pictures.photographs(work, options.number, long_side=640)
        if options.large:
            large = pictures.photographs(work, options.large, megapixels=12, grain=options.grain)
            folders["12mp"] = large
        for size, folder in folders.items():
            runs = contest(options, work, folder, daft=daft)
            same = boxes_alike(work / "square.db", work / "loop.json") if size == "640px" else None
            results[size] = report(size, folder, runs, same)
    if not daft:
        print("\nDaft: left out, or not installed (pip install -e '.[bench]')")
    measuring.write_json(options, here, results)


def report(size: str, folder: Path, runs: Any, same: dict[str, float] | None) -> dict[str, Any]:
    """Prints the tables of one size; returns what goes into the JSON file."""
    about = pictures.describe(folder)
    headers = ["images/s", "whole command", "its own", "steady", "peak MiB", "CPU s"]
    title = f"{about['files']} photographs, {size}, {about['mean_kb']:.0f} kB each: medians"
    tables.show(title, headers, _medians(runs))
    ceilings = [
        [name, *(median(one[key] for one in runs[name]) for key in runs[name][0])]
        for name in CEILING.values()
    ]
    tables.show(
        "Ceiling (stages in ms an image)", ["", *runs[next(iter(CEILING.values()))][0]], ceilings
    )
    reached = goals(size, runs)
    tables.show("Goals", ["", "measured", "goal", "reached"], tables.goal_rows(reached))
    if same:
        print(
            f"\nBoxes of vistadex --square and the loop: {same['boxes']:,}; {same['same']:.2%} the "
            f"same (class, IoU > 0.95); {same['images_alike']:.2%} of images wholly alike"
        )
    rounds = {
        name: [one if isinstance(one, dict) else _as_dict(one) for one in found]
        for name, found in runs.items()
    }
    return {"photographs": about, "rounds": rounds, "goals": reached, "agreement": same}


def _as_dict(rate: Rate) -> dict[str, Any]:
    return {name: getattr(rate, name) for name in Rate.__slots__}


if __name__ == "__main__":
    main()
