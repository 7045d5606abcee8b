"""ONNX Runtime against OpenVINO in float32 and bfloat16: networks alone, a thread for each core.

The dense network has the layers, shapes and work of a YOLOv8n at 640 (8.7 GFLOPs, 3.2 million
weights) and random weights, since Vistadex ships none of Ultralytics; YOLOX-nano has its own. All
runtimes get the same picture; sessions are those that `vistadex index` opens.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import dense_network
import measuring
import numpy as np
import tables

from vistadex.models.cards import ModelCard, ModelFile, Preprocessing
from vistadex.models.runtimes import Choice, Session, open_file

CONTESTANTS = {
    "ONNX Runtime f32": Choice("onnxruntime", "f32"),
    "OpenVINO f32": Choice("openvino", "f32"),
    "OpenVINO bf16": Choice("openvino", "bf16"),
}
RIVAL = "ONNX Runtime f32"
DENSE, NANO = "dense, 640", "YOLOX-nano, 416"
GOALS = ((DENSE, "OpenVINO bf16", 1.6),)


def networks(work: Path, size: int) -> dict[str, tuple[ModelFile, int]]:
    """The files by name, each with the side of its input."""
    dense = work / f"dense-{size}.onnx"
    flops = dense_network.write(dense, size)
    measuring.note(f"dense network: {flops / 1e9:.2f} GFLOPs at {size}")
    return {DENSE: (_file(dense, size), size), NANO: (_file(measuring.WEIGHTS, 416), 416)}


def _file(path: Path, size: int) -> ModelFile:
    how = Preprocessing(size_wh=(size, size), color="RGB", resize="stretch")
    card = ModelCard(name=path.stem, task="embedder", head="embedding", input=how)
    return ModelFile(path, "", card)


def rate(session: Session, size: int, threads: int, seconds: float) -> float:
    """Pictures per second of threads that share a session."""
    image = np.random.default_rng(0).random((1, 3, size, size), np.float32)
    name = session.get_inputs()[0].name
    ready = threading.Barrier(threads)
    spans: list[tuple[int, float]] = []

    def work() -> None:
        for _ in range(2):
            session.run(None, {name: image})
        ready.wait()
        started, count = time.perf_counter(), 0
        while (now := time.perf_counter()) < started + seconds:
            session.run(None, {name: image})
            count += 1
        spans.append((count, now - started))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(count / span for count, span in spans)


def report(name: str, found: dict[str, list[float]]) -> dict[str, Any]:
    """Prints one network's table; returns what goes into the JSON file."""
    rows = [
        [one, median(rates), min(rates), max(rates), measuring.ratio(rates, found[RIVAL])]
        for one, rates in found.items()
    ]
    headers = ["", "pictures/s", "least", "most", "times ONNX Runtime"]
    tables.show(f"{name}: median of {len(found[RIVAL])} rounds", headers, rows)
    return {"rates": found, "ratios": {row[0]: row[-1] for row in rows}}


def goals(results: dict[str, Any]) -> Sequence[tuple[str, float | None, str, float]]:
    """What has to be reached."""
    return [
        (f"{name}: {one} / {RIVAL}", results[name]["ratios"].get(one), ">=", least)
        for name, one, least in GOALS
    ]


def main() -> None:
    """Runs all contestants on both networks."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3, help="of each run")
    parser.add_argument("--threads", type=int, default=2, help="that share a session")
    parser.add_argument("--size", type=int, default=640, help="side of the dense network's input")
    options = parser.parse_args()
    here, results = measuring.machine(), {}
    with measuring.work_folder(options.work) as work:
        for name, (file, size) in networks(work, options.size).items():
            sessions = {one: open_file(file, choice, "cpu") for one, choice in CONTESTANTS.items()}
            runs = {
                one: partial(rate, session, size, options.threads, options.seconds)
                for one, session in sessions.items()
            }
            found = measuring.interleaved(runs, options.rounds, lambda value: f"{value:.1f}/s")
            results[name] = report(name, found)
    reached = goals(results)
    tables.show("Goals", ["", "measured", "goal", "reached"], tables.goal_rows(reached))
    measuring.write_json(options, here, {**results, "goals": reached})


if __name__ == "__main__":
    main()
