"""The engine of one machine: threads that each take a shard and run it to its end.

Decoding and inference release the interpreter's lock, so threads use all cores while they share
one copy of the model, and no pixel crosses a process border.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from queue import SimpleQueue
from typing import Generic, TypeVar

from vistadex.errors import UsageError

S = TypeVar("S")
T = TypeVar("T")
STOP_WITHIN_S = 1.5
"""How long a stopped run waits for what its threads have in hand."""
WORKER = "shard-"
"""How the names of threads that work on shards begin."""


def still_working() -> bool:
    """Whether a run that was stopped has left threads inside native code.

    Such a thread aborts the process when the interpreter ends before it comes back.
    """
    return any(thread.name.startswith(WORKER) for thread in threading.enumerate())


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalEngine:
    """Runs shards on threads of this process."""

    def __init__(self, threads: int = 0) -> None:
        """threads: shards in work at a time; 0: one per core.

        Raises: UsageError below 0.
        """
        if threads < 0:
            raise UsageError(f"threads={threads}: expected 0 (one per core) or more")
        self.threads = threads or cores()

    def run(
        self, work: Callable[[S], Generator[T, None, None]], shards: Iterable[S]
    ) -> Generator[tuple[S, list[T]], None, None]:
        """All items of every shard; an error in `work` ends the run and is raised here.

        Shards are drawn in a thread of their own, so that results are given while listing waits.
        """
        run = _Run(work, self.threads)
        run.start(shards)
        try:
            for _ in range(self.threads):
                while (result := run.done.get()) is not None:
                    if isinstance(result, BaseException):
                        raise result
                    yield result
                    run.room.release()
            if run.drawing_error is not None:
                raise run.drawing_error
        finally:
            run.end()


class _Run(Generic[S, T]):
    """One run's threads: one draws shards, the others work on them."""

    def __init__(self, work: Callable[[S], Generator[T, None, None]], threads: int) -> None:
        self.work = work
        self.stop = threading.Event()
        self.todo: SimpleQueue[tuple[S] | None] = SimpleQueue()
        self.done: SimpleQueue[tuple[S, list[T]] | BaseException | None] = SimpleQueue()
        self.room = threading.Semaphore(threads + 1)
        """Shards that may be drawn before a result is taken."""
        self.drawing_error: BaseException | None = None
        self.threads: list[threading.Thread] = []
        # Daemons: a read that hangs must not keep the process from ending.
        self.workers = [
            threading.Thread(target=self._work, name=f"{WORKER}{i}", daemon=True)
            for i in range(threads)
        ]

    def start(self, shards: Iterable[S]) -> None:
        """Starts every thread."""
        drawer = threading.Thread(target=self._draw, args=(shards,), name="draw", daemon=True)
        self.threads = [drawer, *self.workers]
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        """Stops between two items, and waits a moment for it."""
        self.stop.set()
        self.room.release()
        deadline = time.monotonic() + STOP_WITHIN_S
        for _ in self.workers:
            self.todo.put(None)
        for thread in self.threads:
            thread.join(max(0, deadline - time.monotonic()))

    def _draw(self, shards: Iterable[S]) -> None:
        try:
            self.room.acquire()
            for shard in shards:
                self.todo.put((shard,))
                self.room.acquire()
                if self.stop.is_set():
                    break
        except BaseException as error:
            self.drawing_error = error  # The caller's thread raises it, after what was drawn.
        for _ in self.workers:
            self.todo.put(None)

    def _work(self) -> None:
        while (drawn := self.todo.get()) is not None and not self.stop.is_set():
            try:
                self.done.put((drawn[0], self._finish(drawn[0])))
            except BaseException as error:
                self.done.put(error)  # The caller's thread raises it.
        self.done.put(None)

    def _finish(self, shard: S) -> list[T]:
        """All items of a shard, or those until the run was stopped."""
        items: list[T] = []
        with closing(self.work(shard)) as results:
            for item in results:
                items.append(item)
                if self.stop.is_set():
                    break
        return items
