"""Batches ahead of the step: worker processes read, decode, vary and stack samples.

What is in a batch depends on the seed, the epoch and its number alone, not on how many processes
there are or where training was resumed. Shape letters: B samples of a batch, S side, N boxes.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vistadex.decoding import use_one_thread
from vistadex.training.augmenting import Augmentation, Truth, augmented
from vistadex.training.pictures import UNREADABLE, Pictures
from vistadex.training.teaching import Teacher

_TRIES = 10
"""Pictures drawn in place of one that can't be read."""
AHEAD = 3
"""Batches that each worker prepares in advance."""


class SampleKey(NamedTuple):
    """Which sample: everything that it depends on."""

    epoch: int
    place: int
    """Position in the epoch's order."""
    image: int
    size: int
    plain: bool
    """Whether without mosaic and mix-up: at the end of training."""


class Batch(NamedTuple):
    """What a step takes."""

    images: Tensor
    """(B, 3, S, S) uint8 BGR."""
    boxes: Tensor
    """(N, 4) xyxy of all samples."""
    labels: Tensor
    """(N,)."""
    weights: Tensor
    """(N,) how sure a box is; 0 for regions in which nothing counts."""
    sample: Tensor
    """(N,) the sample of each box."""
    bad: list[tuple[int, str]]
    """Images that could not be read, and why."""


@dataclass(frozen=True)
class Plan:
    """The order of samples over the whole of training; picklable."""

    images: int
    seed: int
    batch: int
    """Samples of a step, over all processes."""
    size: int
    epochs: int
    plain_epochs: int
    """The last ones, without mosaic."""
    multi_scale: int = 0
    """Steps of 32 pixels by which batches may be smaller or larger."""

    @property
    def steps(self) -> int:
        """Steps of an epoch; what is left over of the pictures waits for another order."""
        return max(1, self.images // self.batch)

    def keys(self, epoch: int, step: int) -> list[SampleKey]:
        """The samples of one step."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.images)
        places = range(step * self.batch, (step + 1) * self.batch)
        size, plain = self.size_of(epoch, step), epoch >= self.epochs - self.plain_epochs
        return [
            SampleKey(epoch, place, int(order[place % self.images]), size, plain)
            for place in places
        ]

    def size_of(self, epoch: int, step: int) -> int:
        """Side of the samples of a step."""
        if not self.multi_scale:
            return self.size
        random = np.random.default_rng([self.seed, epoch, step, 32])
        return self.size + 32 * int(random.integers(-self.multi_scale, self.multi_scale + 1))


class _Steps(Sampler[list[SampleKey]]):
    """The share of one process in every step from a place on."""

    def __init__(self, plan: Plan, start: tuple[int, int], rank: int, world: int) -> None:
        self.plan, self.start, self.rank, self.world = plan, start, rank, world

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch, step = self.start
        share = self.plan.batch // self.world
        while epoch < self.plan.epochs:
            keys = self.plan.keys(epoch, step)
            yield keys[self.rank * share : (self.rank + 1) * share]
            step += 1
            if step >= self.plan.steps:
                epoch, step = epoch + 1, 0


@dataclass
class Samples(Dataset[tuple[Truth, list[tuple[int, str]]]]):
    """Samples by their keys; lives in the workers."""

    pictures: Pictures
    how: Augmentation
    seed: int
    teacher: Teacher | None = None
    _bad: set[int] = field(default_factory=set)

    def __getitem__(self, key: SampleKey) -> tuple[Truth, list[tuple[int, str]]]:
        random = np.random.default_rng([self.seed, key.epoch, key.place])
        bad: list[tuple[int, str]] = []

        def another() -> Truth:
            return self._get(int(random.integers(len(self.pictures))), random, bad)

        first = self._get(key.image, random, bad)
        how = self.how
        if key.plain:
            how = replace(how, mosaic=0, mixup=0)
        sample = augmented(first, another, key.size, how, random)
        if self.teacher is not None:
            sample = self.teacher.taught(sample)
        return sample, bad

    def _get(self, i: int, random: np.random.Generator, bad: list[tuple[int, str]]) -> Truth:
        """A picture, or another where it can't be read."""
        for _ in range(_TRIES):
            try:
                return self.pictures.get(i)
            except UNREADABLE as error:
                if i not in self._bad:
                    self._bad.add(i)
                    bad.append((i, str(error)))
                i = int(random.integers(len(self.pictures)))
        return Truth(
            np.full((32, 32, 3), 114, np.uint8),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.int64),
            np.zeros(0, np.float32),
        )


def stacked(samples: Sequence[tuple[Truth, list[tuple[int, str]]]]) -> Batch:
    """The batch of some samples."""
    truths = [one for one, _ in samples]
    images = np.stack([one.pixels for one in truths])[..., ::-1].transpose(0, 3, 1, 2)
    counts = [len(one.boxes) for one in truths]
    return Batch(
        torch.from_numpy(np.ascontiguousarray(images)),
        torch.from_numpy(np.concatenate([one.boxes for one in truths])),
        torch.from_numpy(np.concatenate([one.labels for one in truths])),
        torch.from_numpy(np.concatenate([one.weights for one in truths])),
        torch.from_numpy(np.repeat(np.arange(len(truths)), counts)),
        [one for _, bad in samples for one in bad],
    )


class Loader:
    """Batches of one process, in order, with the time that was waited for them."""

    def __init__(
        self,
        samples: Samples,
        plan: Plan,
        *,
        start: tuple[int, int] = (0, 0),
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        """Args:
        start: epoch and step to begin with.
        workers: processes; 0 prepares batches in this one.
        """
        self.waited_s = 0.0
        several: dict[str, Any] = {}
        if workers:
            # Spawned: the parent has threads of torch and of ONNX Runtime.
            several = {"multiprocessing_context": "spawn", "prefetch_factor": AHEAD}
        loader: DataLoader[Any] = DataLoader(
            samples,
            batch_sampler=_Steps(plan, start, rank, world),
            collate_fn=stacked,
            num_workers=workers,
            worker_init_fn=begin_worker,
            **several,
        )
        self._batches: Iterator[Batch] = iter(loader)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            began = time.perf_counter()
            batch = next(self._batches, None)
            self.waited_s += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def close(self) -> None:
        """Ends the workers."""
        del self._batches


def begin_worker(_: int) -> None:
    """One thread for each worker; to stop is the parent's to hear and to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
    use_one_thread()
