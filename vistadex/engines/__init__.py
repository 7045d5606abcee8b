"""Engines run a function over shards: on this machine's threads, and later on clusters.

An engine knows nothing of images. `run(work, shards)` yields (shard, items) in any order, each
shard exactly once, where items is all that the generator `work(shard)` yielded. It draws shards
only as they are needed, and closing the iterator stops the work between two items. Where drawing
fails, what was drawn is finished and given before the error is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Protocol, TypeVar

S = TypeVar("S")
T = TypeVar("T")

ENGINES = {"local": "vistadex.engines.local:LocalEngine"}


class Engine(Protocol):
    """Something that runs work over shards."""

    def run(
        self, work: Callable[[S], Generator[T, None, None]], shards: Iterable[S]
    ) -> Generator[tuple[S, list[T]], None, None]:
        """All items of every shard; an error in `work` ends the run and is raised here."""
        ...
