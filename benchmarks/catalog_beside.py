"""Readers of a catalog while another process commits to it: waiting, errors, and how far behind."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import catalog_writer
import measuring
import processes
import tables
from catalog_questions import LIMIT, VistadexSubject, image_questions, quoted

from vistadex import Catalog
from vistadex.catalog import tables as tables_of
from vistadex.errors import VistadexError

POLL_S = 0.02


class _Reader(threading.Thread):
    """Asks one kind of question until it is told to end."""

    def __init__(self, call: Callable[[], Any], pause_s: float) -> None:
        super().__init__(daemon=True)
        self._call, self._pause_s = call, pause_s
        self._ended = threading.Event()
        self.times: list[float] = []
        self.errors: list[str] = []

    def run(self) -> None:
        """Asks."""
        while not self._ended.wait(self._pause_s):
            started = time.perf_counter()
            try:
                self._call()
            except VistadexError as error:
                self.errors.append(str(error))
            self.times.append(1e3 * (time.perf_counter() - started))

    def finish(self) -> dict[str, Any]:
        """Ends the questions; what they took."""
        self._ended.set()
        self.join()
        return {**summary(self.times), "errors": len(self.errors), "first_errors": self.errors[:3]}


def summary(times_ms: Sequence[float]) -> dict[str, Any]:
    """Median, p95 and most of times."""
    if not times_ms:
        return {"calls": 0, "median_ms": None, "p95_ms": None, "most_ms": None}
    return {
        "calls": len(times_ms),
        "median_ms": statistics.median(times_ms),
        "p95_ms": tables.percentile(times_ms, 0.95),
        "most_ms": max(times_ms),
    }


def reading_beside(
    catalog: Catalog, location: str, batches: int, env: Mapping[str, str]
) -> dict[str, Any]:
    """Each kind of question alone and beside a writer; commits; seconds until they are found.

    A writer commits without a pause, and a reader asks again 5 ms after each answer.
    """
    names = [one.class_name for one in catalog.classes()[:30]]
    turn, chance = cycle(names), random.Random(5)
    subject = VistadexSubject(catalog)
    some = cycle([subject.ready(one) for one in image_questions(catalog, tables_of.image.c.id)])
    questions: dict[str, Callable[[], Any]] = {
        "one class": lambda: catalog.search(quoted([next(turn)]), limit=LIMIT),
        "one image": lambda: next(some)(),
        "ALL of 3 common": lambda: catalog.search(quoted(chance.sample(names[:5], 3))),
        "counts of all classes": catalog.classes,
    }
    found: dict[str, Any] = {"readers": {}, "commits": {}}
    commits: dict[str, list[float]] = {"append": [], "replace": []}
    try:
        for name, call in questions.items():
            measuring.note(f"beside a writer: {name}")
            alone = _Reader(call, 0.005)
            alone.start()
            time.sleep(batches / 50)
            found["readers"][f"{name}, alone"] = alone.finish()
            reader = _Reader(call, 0.005)
            with _writer(location, batches // 5, batches // 10, env) as writer:
                for line in writer.stdout or ():
                    if not reader.is_alive():  # from the first commit to the last one
                        reader.start()
                    done = json.loads(line)
                    commits[done["kind"]].append(1e3 * (done["done"] - done["begun"]))
                found["readers"][f"{name}, beside a writer"] = reader.finish()
            _need(writer)
            _remove(location, env)
        found["commits"] = {f"commit of 512, {kind}": summary(ms) for kind, ms in commits.items()}
        found["behind_s"] = _behind(catalog, location, batches // 5, names[0], env)
    finally:
        _remove(location, env)
    return found


def _behind(
    catalog: Catalog, location: str, batches: int, common: str, env: Mapping[str, str]
) -> list[float]:
    """For each commit, seconds from its end until a count of ALL finds its images."""
    query = quoted([common, catalog_writer.MARK])
    ended: list[tuple[int, float]] = []
    seen: list[tuple[int, float]] = []
    with _writer(location, batches, 0, env, "--pause-s", "0.3") as writer:
        listener = threading.Thread(target=_listen, args=(writer, ended), daemon=True)
        listener.start()
        while listener.is_alive():
            seen.append((_count(catalog, query), time.monotonic()))
            time.sleep(POLL_S)
        until = time.monotonic() + 10
        while ended and seen[-1][0] < ended[-1][0] and time.monotonic() < until:
            seen.append((_count(catalog, query), time.monotonic()))
            time.sleep(POLL_S)
    _need(writer)
    return [
        max(0.0, min((at for n, at in seen if n >= images), default=float("inf")) - done)
        for images, done in ended
    ]


def _listen(writer: subprocess.Popen[str], ended: list[tuple[int, float]]) -> None:
    for line in writer.stdout or ():
        done = json.loads(line)
        ended.append((done["images"], done["done"]))


def _count(catalog: Catalog, query: str) -> int:
    """0 before the writer has named its class."""
    try:
        return catalog.count(query)
    except VistadexError:
        return 0


def _writer(
    location: str, batches: int, again: int, env: Mapping[str, str], *more: str
) -> subprocess.Popen[str]:
    numbers = ["--batches", str(max(1, batches)), "--again", str(again)]
    command = measuring.python("catalog_writer.py", location, *numbers, *more)
    return subprocess.Popen(
        list(map(str, command)),
        env=dict(env),
        stdout=subprocess.PIPE,
        text=True,
    )


def _need(writer: subprocess.Popen[str]) -> None:
    if writer.returncode:
        raise SystemExit(f"catalog_writer.py: exit code {writer.returncode}")


def _remove(location: str, env: Mapping[str, str]) -> None:
    processes.run(measuring.python("catalog_writer.py", location, "--remove"), env)
