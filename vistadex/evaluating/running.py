"""A model over a set of annotated pictures: in threads, in bounded memory, and one by one."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vistadex import settings
from vistadex.annotated import AnnotatedSet
from vistadex.decoding import decode, use_one_thread
from vistadex.engines.local import LocalEngine
from vistadex.errors import DecodingError, ModelError, SourceError
from vistadex.evaluating.results import Speed
from vistadex.progress import Progress
from vistadex.records import Failure, ImageEntry, Model, Outcome, Result
from vistadex.shards import Limits, look_at

_SHARD = 8
"""Images that a thread takes at a time."""
_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Run:
    """What a model says of each picture of a set."""

    outcomes: Sequence[Result | Failure]
    threads: int
    seconds: float

    @property
    def good(self) -> list[int]:
        """Pictures of which it says something."""
        return [i for i, one in enumerate(self.outcomes) if not isinstance(one, Failure)]


def run(model: Model, data: AnnotatedSet, *, threads: int | None, progress: Progress) -> Run:
    """Looks at every picture with the pipeline that indexes; never raises for one of them.

    Args:
        threads: pictures in work at a time; None: the setting, 0: one per core.
    Raises: ModelError where the model fails on every picture.
    """
    use_one_thread()
    engine = LocalEngine(settings.value("threads", threads, int))
    limits = Limits(
        max_pixels=settings.value("max_pixels", None, int),
        max_file_bytes=settings.value("max_file_bytes", None, int),
        read_ahead_bytes=settings.value("read_ahead_bytes", None, int),
    )
    started = time.perf_counter()
    outcomes: list[Result | Failure] = [Failure("internal", "not looked at")] * len(data)

    def work(shard: range) -> Generator[Result | Failure, None, None]:
        for i in shard:
            yield _look(model, data, i, limits)

    shards = [range(i, min(i + _SHARD, len(data))) for i in range(0, len(data), _SHARD)]
    done = failed = 0
    for shard, results in engine.run(work, shards):
        for i, result in zip(shard, results, strict=True):
            outcomes[i] = result
            failed += isinstance(result, Failure)
        done += len(results)
        progress.update(listed=len(data), listing=False, done=done, failed=failed)
    if failed == len(data):
        first = next(one.message for one in outcomes if isinstance(one, Failure))
        raise ModelError(f"{data.name}: no picture could be judged, expected some; first: {first}")
    return Run(outcomes, engine.threads, time.perf_counter() - started)


def _look(model: Model, data: AnnotatedSet, i: int, limits: Limits) -> Result | Failure:
    try:
        content = data.read(i)
    except SourceError as error:
        return Failure("unreadable", str(error))
    outcome: Outcome = look_at(ImageEntry(data.images[i].key, None, ""), content, [model], limits)
    return outcome.failure or outcome.results[0] or Failure("internal", "the model says nothing")


def time_alone(model: Model, data: AnnotatedSet, ran: Run, number: int) -> Speed | None:
    """Times single pictures, decoded before, in this thread with nothing beside.

    The pictures are spread over the set, as their shapes may differ; the first are to warm up.
    """
    good = ran.good
    if not number or not good:
        return None
    picked = [good[i] for i in np.linspace(0, len(good) - 1, min(number, len(good))).astype(int)]
    seconds = []
    for i in [*picked[:_WARM_UP], *picked]:
        with suppress(SourceError, DecodingError):
            picture = decode(
                data.read(i),
                min_long_side=model.min_long_side,
                min_short_side=model.min_short_side,
            )
            started = time.perf_counter()
            model.analyze([picture])
            seconds.append(time.perf_counter() - started)
    timed = 1000 * np.array(seconds[min(_WARM_UP, len(picked)) :])
    return Speed(
        p50_ms=float(np.percentile(timed, 50)),
        p95_ms=float(np.percentile(timed, 95)),
        timed=len(timed),
        images_per_s=len(ran.outcomes) / ran.seconds,
        threads=ran.threads,
    )


def forget_peak() -> None:
    """Lets the system count this process's peak memory anew, where it can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
