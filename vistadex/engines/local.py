"""The engine of one machine: threads that each take a shard and run it to its end.

Decoding and inference release the interpreter's lock, so threads use all cores while they share
one copy of the model, and no pixel crosses a process border.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


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

        def finish(shard: S) -> tuple[S, list[T]]:
            items: list[T] = []
            with closing(work(shard)) as results:
                for item in results:
                    items.append(item)
                    if stop.is_set():
                        break
            return shard, items

        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="shard")
        running: set[Future[tuple[S, list[T]]]] = set()
        try:
            for shard in shards:
                running.add(pool.submit(finish, shard))
                while len(running) > self.threads:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
