"""The engine of one machine: threads that each take a shard and run it to its end.

Decoding and inference release the interpreter's lock, so threads use all cores while they share
one copy of the model, and no pixel crosses a process border.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from queue import SimpleQueue
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")
STOP_WITHIN_S = 1.5
"""How long a stopped run waits for what its threads have in hand."""


class _End:
    """Behind the last shard."""


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalEngine:
    """Runs shards on threads of this process."""

    def __init__(self, threads: int = 0) -> None:
        """threads: shards in work at a time; 0: one per core."""
        self.threads = threads or cores()

    def run(
        self, work: Callable[[S], Generator[T, None, None]], shards: Iterable[S]
    ) -> Generator[tuple[S, list[T]], None, None]:
        """All items of every shard; an error in `work` ends the run and is raised here."""
        stop = threading.Event()
        todo: SimpleQueue[S | _End] = SimpleQueue()
        done: SimpleQueue[tuple[S, list[T] | BaseException]] = SimpleQueue()

        def take_shards() -> None:
            while not isinstance(shard := todo.get(), _End) and not stop.is_set():
                done.put((shard, _finish(work, shard, stop)))

        # Daemons: a read that hangs must not keep the process from ending.
        workers = [
            threading.Thread(target=take_shards, name=f"shard-{i}", daemon=True)
            for i in range(self.threads)
        ]
        for worker in workers:
            worker.start()
        running = 0
        try:
            upcoming = _Upcoming(shards)
            for shard in upcoming:
                todo.put(shard)
                running += 1
                while running > self.threads:
                    yield _result(done)
                    running -= 1
            for _ in range(running):
                yield _result(done)
            if upcoming.error is not None:
                raise upcoming.error
        finally:
            stop.set()
            deadline = time.monotonic() + STOP_WITHIN_S
            for _ in workers:
                todo.put(_End())
            for worker in workers:
                worker.join(max(0, deadline - time.monotonic()))


class _Upcoming(Iterator[S]):
    """Shards until they end or listing fails; `error` keeps the failure for later."""

    def __init__(self, shards: Iterable[S]) -> None:
        self.shards = iter(shards)
        self.error: Exception | None = None

    def __next__(self) -> S:
        try:
            return next(self.shards)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise StopIteration from None


def _finish(
    work: Callable[[S], Generator[T, None, None]], shard: S, stop: threading.Event
) -> list[T] | BaseException:
    """All items of a shard, or the error that ended it."""
    items: list[T] = []
    try:
        with closing(work(shard)) as results:
            for item in results:
                items.append(item)
                if stop.is_set():
                    break
    except BaseException as error:
        return error  # The caller's thread raises it.
    return items


def _result(done: SimpleQueue[tuple[S, list[T] | BaseException]]) -> tuple[S, list[T]]:
    shard, items = done.get()
    if isinstance(items, BaseException):
        raise items
    return shard, items
