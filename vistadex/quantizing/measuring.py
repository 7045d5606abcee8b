"""What models cost, side by side: time in turns on the same pictures, and memory each by itself."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vistadex.models import ModelFile, RunOptions
from vistadex.models.analyzers import load_once
from vistadex.records import DecodedImage

_ROUNDS = 5
_MOST_PICTURES = 16


@dataclass(frozen=True, slots=True)
class Time:
    """How long a model takes for one decoded picture, on one thread of this machine."""

    p50_ms: float
    images_per_s: float
    speedup: float
    """Median over pictures of the first model's processor time by this one's, in turns."""


def compare_times(
    files: Mapping[str, ModelFile], images: Sequence[DecodedImage], rounds: int = _ROUNDS
) -> dict[str, Time]:
    """Times of each model over the same pictures, in turns, so that all are disturbed alike.

    Args:
        files: the first is what the others are compared with.
        images: decoded; the first few are used.
    """
    options = RunOptions(device="cpu")
    models = {name: load_once(file, str(file.path), options) for name, file in files.items()}
    some = images[:_MOST_PICTURES]
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for model in models.values():
        model.analyze([some[0]])
    for _ in range(rounds):
        for image in some:
            for name, model in models.items():
                # What other processes do stretches wall time, hardly that of the processor.
                begun, worked = time.perf_counter(), time.thread_time()
                model.analyze([image])
                spent[name].append((time.perf_counter() - begun, time.thread_time() - worked))
    seconds = {name: np.array(one).T for name, one in spent.items()}
    first = next(iter(seconds.values()))[1]
    return {
        name: Time(
            p50_ms=round(1000 * float(np.median(wall)), 3),
            images_per_s=round(len(wall) / float(wall.sum()), 2),
            speedup=round(float(np.median(first / np.maximum(worked, 1e-9))), 3),
        )
        for name, (wall, worked) in seconds.items()
    }


def peak_mib(file: ModelFile, image: DecodedImage) -> float:
    """Peak resident memory in MiB of a fresh process that opens a model and analyzes a picture."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak, file, image).result()


def _peak(file: ModelFile, image: DecodedImage) -> float:
    model = load_once(file, str(file.path), RunOptions(device="cpu"))
    for _ in range(3):
        model.analyze([image])
    return round(_highest_bytes() / 2**20, 1)


def _highest_bytes() -> int:
    """This process's largest resident memory so far; getrusage would count the parent's too."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        peak = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
        if peak is not None:
            return 1024 * int(peak)
    import resource
    import sys

    peak_of = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_of if sys.platform == "darwin" else 1024 * peak_of
