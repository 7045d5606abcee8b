"""Training in several processes: on one machine started from here, or by torchrun.

Every process takes its share of each batch; normalization, gradients and counts are those of the
whole batch, so that the number of processes changes nothing but the time.
Source: Li et al., "PyTorch Distributed" (VLDB 2020).
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn

from vistadex.errors import UsageError

_TIMEOUT = timedelta(hours=2)
"""The others wait so long while the first one measures."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the processes this is, and where it computes."""

    device: str = "cpu"
    rank: int = 0
    world: int = 1
    init: str = ""
    """torch's init_method; empty where there is one process."""

    @property
    def leads(self) -> bool:
        """Whether this process measures, prints and writes."""
        return self.rank == 0


def places(devices: str, torchrun: Mapping[str, int] | None, meeting: str) -> list[Place]:
    """Where the processes compute that have to be started; the first is this one.

    Args:
        devices: auto, cpu, cpu:N, cuda or cuda:N with N processes.
        torchrun: rank, world and local_rank, where torchrun has started this process.
        meeting: address of a file at which processes started here find each other.
    Raises: UsageError for other devices, or those that are not there.
    """
    kind, count = _read(devices)
    if torchrun is not None:
        local = torchrun["local_rank"]
        device = f"cuda:{local}" if kind == "cuda" else "cpu"
        return [Place(device, torchrun["rank"], torchrun["world"], "env://")]
    if kind == "cuda" and count > torch.cuda.device_count():
        raise UsageError(
            f"devices {devices}: {torch.cuda.device_count()} GPUs are there, expected {count}; "
            "choose fewer, or cpu"
        )
    return [
        Place(f"cuda:{i}" if kind == "cuda" else "cpu", i, count, meeting if count > 1 else "")
        for i in range(count)
    ]


def _read(devices: str) -> tuple[str, int]:
    kind, _, number = devices.partition(":")
    if devices == "auto":
        count = torch.cuda.device_count()
        return ("cuda", count) if count else ("cpu", 1)
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()) or number == "0":
        raise UsageError(f"devices {devices!r}: expected auto, cpu, cpu:2, cuda or cuda:4")
    return kind, int(number or 1)


@contextmanager
def joined(place: Place) -> Iterator[None]:
    """A group of all processes: gloo between CPUs, NCCL between GPUs."""
    if place.device != "cpu":
        torch.cuda.set_device(place.device)
    if place.init:
        backend = "gloo" if place.device == "cpu" else "nccl"
        whoami: dict[str, Any] = {}
        if place.init != "env://":
            whoami = {"rank": place.rank, "world_size": place.world}
        distributed.init_process_group(backend, init_method=place.init, timeout=_TIMEOUT, **whoami)
    try:
        yield
    finally:
        if place.init:
            distributed.destroy_process_group()


@contextmanager
def together(
    all_places: list[Place],
    work: Callable[[Place, Any], None],
    argument: Any,
    agreed: type[Exception],
) -> Iterator[None]:
    """Processes for all places but the first, while the caller does the first one's part.

    Args:
        agreed: what ends all processes at the same step; at another error the others are stopped,
            as they would wait for this one.
    """
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=work, args=(place, argument), name=f"training {place.rank}")
        for place in all_places[1:]
    ]
    for process in processes:
        process.start()
    try:
        with joined(all_places[0]):
            try:
                yield
            except agreed:
                raise
            except BaseException:
                for process in processes:
                    process.kill()  # at SIGTERM it would want to end its step first
                raise
    finally:
        for process in processes:
            process.join()


@contextmanager
def meeting_point() -> Iterator[str]:
    """The address of a file at which processes of this machine find each other."""
    with tempfile.TemporaryDirectory(prefix="vistadex-train-") as folder:
        yield (Path(folder) / "meeting").as_uri()


def mean_over_all(value: Tensor) -> Tensor:
    """The mean over all processes of a tensor without gradient."""
    if not distributed.is_initialized():
        return value.detach()
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


class _Sum(torch.autograd.Function):
    """The sum over all processes, through which gradients pass."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalization over the batches of all processes, on CPUs too."""

    def forward(self, input: Tensor) -> Tensor:
        """As nn.BatchNorm2d; torch's own SyncBatchNorm is for GPUs alone."""
        if not (self.training and distributed.is_initialized()):
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        x = input.float()
        # Moments about the running mean: the difference of large squares would lose digits.
        about = self.running_mean.clone()
        moved = x - about[:, None, None]
        count = x.new_full((1,), x.numel() / x.shape[1])
        sums = torch.cat([moved.sum((0, 2, 3)), (moved * moved).sum((0, 2, 3)), count])
        total = cast("Tensor", cast("Any", _Sum).apply(sums))
        number, features = total[-1], self.num_features
        mean, square = total[:features] / number, total[features:-1] / number
        variance = (square - mean * mean).clamp_min(0)
        self._remember(mean.detach() + about, variance.detach(), number.detach())
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - (mean + about) * scale
        return (x * scale[:, None, None] + shift[:, None, None]).to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, number: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            unbiased = variance * number / (number - 1).clamp_min(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
            self.num_batches_tracked.add_(1)


def share_normalization(network: nn.Module) -> None:
    """Makes every normalization one over all processes; names and values stay."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
