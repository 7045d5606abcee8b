"""Labeling: what a labeler means for a run over a collection, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from vistadex import labelers
from vistadex.errors import CallsUsedUpError, LabelerError, UsageError
from vistadex.labelers.labeling import Labeler
from vistadex.records import ImageEntry

T = TypeVar("T")


class Work(Protocol):
    """A piece of work on images."""

    @property
    def entries(self) -> Sequence[ImageEntry]: ...


S = TypeVar("S", bound=Work)


class Labeling:
    """The part that a labeler has in a run; without one, nothing."""

    def __init__(
        self,
        name: str | None,
        max_calls: int | None,
        calls_per_second: float | None,
        usd_per_1000: float | None,
        min_score: float,
    ) -> None:
        """See vistadex.index.

        Raises: UsageError where a bound is missing, or there is one without a labeler.
        """
        self.name = name
        self.left = 0
        """Images that were listed and not labeled."""
        self._unsettled: dict[int, tuple[Any, list[Any]]] = {}
        """Shards with what was found so far, until it is in the catalog."""
        self._usd_per_1000 = usd_per_1000
        self._labeler: Labeler | None = None
        if name is None:
            _need_none(max_calls, calls_per_second, usd_per_1000)
            return
        price = labelers.cost(name, 1000, usd_per_1000)
        if max_calls is None:
            raise UsageError(
                f"labeler {name}: sends pictures to a service that charges for each, {price.text}; "
                "expected how many at most: --max-calls N"
            )
        self._labeler = labelers.labeler(
            name, max_calls=max_calls, calls_per_second=calls_per_second, min_score=min_score
        )

    @property
    def analyzers(self) -> tuple[Labeler, ...]:
        """The labeler, if there is one."""
        return (self._labeler,) if self._labeler else ()

    @property
    def calls(self) -> int:
        """Pictures sent."""
        return self._labeler.calls.used if self._labeler else 0

    def usd(self, pictures: int) -> float:
        """What so many pictures cost, as an estimate."""
        return labelers.cost(self.name, pictures, self._usd_per_1000).usd if self.name else 0.0

    def keeping(
        self, work: Callable[[S], Generator[T, None, None]]
    ) -> Callable[[S], Generator[T, None, None]]:
        """The work, which ends where the service does: what it gave before is kept."""
        if self._labeler is None:
            return work
        calls = self._labeler.calls

        def until_the_end(shard: S) -> Generator[T, None, None]:
            found: list[T] = []
            self._unsettled[id(shard)] = shard, found
            results = work(shard)
            try:
                for item in results:
                    found.append(item)
                    yield item
            except GeneratorExit:  # stopped: what has been answered is still taken
                calls.end(self._stopped())
                with suppress(LabelerError):
                    found.extend(results)
                raise
            except CallsUsedUpError:
                return
            except LabelerError as error:
                calls.end(error)

        return until_the_end

    def allowed(self, shards: Iterator[S]) -> Iterator[S]:
        """The shards as long as calls are left; the images of the others are counted."""
        if self._labeler is None:
            yield from shards
            return
        calls = self._labeler.calls
        for shard in shards:
            if calls.failure is not None:
                return
            if calls.used_up:
                self.left += len(shard.entries)
            else:
                yield shard

    def settle(self, shard: Work, found: Sequence[object]) -> None:
        """Notes that what was found in a shard is in the catalog, and what is left of it."""
        self.left += len(shard.entries) - len(found)
        self._unsettled.pop(id(shard), None)

    def unsettled(self) -> list[tuple[Any, list[Any]]]:
        """Shards with what was paid for and is not in the catalog; nothing more is sent."""
        if self._labeler is not None:
            self._labeler.calls.end(self._stopped())
        return [(shard, list(found)) for shard, found in self._unsettled.copy().values()]

    def _stopped(self) -> LabelerError:
        return LabelerError(f"{self.name}: the run was stopped")

    def need_no_failure(self) -> None:
        """Raises: LabelerError where the service could not be used (any more)."""
        if self._labeler is not None and self._labeler.calls.failure is not None:
            raise self._labeler.calls.failure


def _need_none(*options: float | None) -> None:
    if any(one is not None for one in options):
        raise UsageError(
            "max_calls, calls_per_second and price_per_1000 are for a labeler, expected one; "
            f"name it with --labeler: {', '.join(labelers.NAMES)}"
        )
