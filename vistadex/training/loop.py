"""The training loop of one process: batches, steps, epochs, checkpoints, and how it ends."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vistadex.errors import ModelError
from vistadex.records import Json
from vistadex.training import checkpoints
from vistadex.training.distributed import Place, mean_over_all, share_normalization
from vistadex.training.fake_quantization import add_fake_quantization
from vistadex.training.folding import folded
from vistadex.training.loading import Batch, Loader, Plan, Samples
from vistadex.training.losses import TERMS, Targets, detection_losses
from vistadex.training.networks import Architecture, DetectorNetwork, channels_last
from vistadex.training.optimizing import Average, Schedule, build_optimizer
from vistadex.training.recipe import EpochReport, Recipe
from vistadex.training.recording import Records
from vistadex.training.validating import ValidationSet, card_of, measure, running

log = logging.getLogger(__name__)

VERSION = 1
"""Of checkpoints."""


@dataclass(frozen=True)
class Job:
    """All that a process needs to take part; picklable."""

    recipe: Recipe
    architecture: Architecture
    classes: tuple[str, ...]
    weights: Mapping[str, Tensor]
    """Of the network at the start."""
    samples: Samples
    plan: Plan
    out: Path
    workers: int
    threads: int
    """Of torch, in each process; 0: as torch chooses."""
    resume: bool
    validation: ValidationSet | None = None
    validate_every: int = 1
    checkpoint_minutes: float = 10.0


@dataclass
class Watch:
    """Who is told of a run; in the leading process alone."""

    images: Callable[[int, int], None] = lambda done, bad: None
    """How many samples are learned, and how many pictures were bad, after each step."""
    epoch: Callable[[EpochReport], None] = lambda report: None
    bad: Callable[[int, str], None] = lambda image, why: None
    """A picture that can't be read."""


@dataclass
class Tally:
    """Sums over the steps of an epoch."""

    losses: list[float] = field(default_factory=lambda: [0.0] * (len(TERMS) + 1))
    steps: int = 0


class StoppedError(Exception):
    """A signal has ended the run; its checkpoint is written."""


class Training:
    """The state of a run in one process."""

    def __init__(self, job: Job, place: Place, watch: Watch) -> None:
        self.job, self.place, self.watch = job, place, watch
        recipe, device = job.recipe, torch.device(place.device)
        if job.threads:
            torch.set_num_threads(job.threads)
        torch.manual_seed(recipe.seed)
        network = DetectorNetwork(job.architecture, len(job.classes))
        network.load_state_dict(dict(job.weights))
        if recipe.fake_quantize:
            network = folded(network).train()
            add_fake_quantization(network, keep_float=recipe.keep_float)
        if place.world > 1:
            share_normalization(network)
        self.network = network.to(device)
        channels_last(self.network)
        self.average = Average(self.network)
        self.optimizer = build_optimizer(self.network, recipe.weight_decay)
        steps = job.plan.steps * recipe.epochs
        warm_up = min(round(recipe.warm_up_epochs * job.plan.steps), steps // 5)
        self.schedule = Schedule(recipe.peak, steps, warm_up)
        self.kind = autocast_type(recipe.precision, place.device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.kind == torch.float16)
        self.step, self.best, self.best_epoch = 0, -1.0, 0
        self.rows: list[dict[str, float]] = []
        self.tally = Tally()
        self.seconds = self.waited_s = self.stepping_s = 0.0
        if job.resume:
            self._restore()
        self.model: nn.Module = self.network
        if place.world > 1:
            self.model = DistributedDataParallel(self.network)

    def run(self) -> None:
        """All steps that remain.

        Raises: StoppedError after SIGTERM or SIGINT, when the checkpoint is written; ModelError
            where the loss is no number any more.
        """
        job, place = self.job, self.place
        start = divmod(self.step, job.plan.steps)
        loader = Loader(
            job.samples,
            job.plan,
            start=start,
            rank=place.rank,
            world=place.world,
            workers=job.workers,
        )
        records = Records(job.out, self.rows) if place.leads else None
        saved = began = time.monotonic()
        before = self.seconds
        try:
            with hearing_signals() as asked_to_stop:
                for batch in loader:
                    waited, stepping = loader.waited_s, time.perf_counter()
                    stop = self._step(batch, asked_to_stop())
                    self.stepping_s += time.perf_counter() - stepping
                    self.waited_s, loader.waited_s = self.waited_s + waited, 0.0
                    self.seconds = before + time.monotonic() - began
                    if self.step % job.plan.steps == 0:
                        self._end_epoch(records)
                    due = time.monotonic() - saved > job.checkpoint_minutes * 60
                    if place.leads and (stop or due):
                        self._save(checkpoints.LAST)
                        saved = time.monotonic()
                    if stop:
                        raise StoppedError
            if place.leads:
                self._save(checkpoints.LAST)
        finally:
            loader.close()
            if records is not None:
                records.close()

    def _step(self, batch: Batch, stop: bool) -> bool:
        """One step; whether any process was asked to stop."""
        job, device = self.job, self.place.device
        rate = self.schedule.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        stops = torch.tensor(float(stop), device=device)

        def over_all(positives: Tensor) -> Tensor:
            nonlocal stops
            both = mean_over_all(torch.stack([positives, stops]))
            stops = both[1]
            return both[0]

        images = batch.images.to(device, non_blocking=True).float()
        images = images.contiguous(memory_format=torch.channels_last)
        targets = Targets(*(part.to(device) for part in batch[1:5]))
        kind = torch.device(device).type
        with torch.autocast(kind, self.kind, enabled=self.kind != torch.float32):
            rows = self.model(images)
        epoch = self.step // job.plan.steps
        losses = detection_losses(
            rows,
            targets,
            (images.shape[2], images.shape[3]),
            offsets=epoch >= job.recipe.epochs - job.recipe.plain,
            over_all=over_all,
        )
        self.optimizer.zero_grad()
        self.scaler.scale(losses.total).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), job.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.network, self.step)
        self.step += 1
        self._count(torch.cat([losses.total.detach()[None], losses.parts]), batch)
        return bool(stops > 0)

    def _count(self, losses: Tensor, batch: Batch) -> None:
        values = mean_over_all(losses).tolist()
        if not values[0] == values[0]:  # NaN
            raise ModelError(
                f"training: the loss is no number any more at step {self.step}; lower --lr, or use "
                "--precision f32"
            )
        self.tally.losses = [a + b for a, b in zip(self.tally.losses, values, strict=True)]
        self.tally.steps += 1
        if self.place.leads:
            for image, why in batch.bad:
                self.watch.bad(image, why)
            self.watch.images(self.step * self.job.plan.batch, len(batch.bad))

    def _end_epoch(self, records: Records | None) -> None:
        """Measures, reports and keeps the best."""
        tally, self.tally = self.tally, Tally()
        waited, stepping = self.waited_s, self.stepping_s
        self.waited_s = self.stepping_s = 0.0
        if records is None:
            return
        job = self.job
        epoch = self.step // job.plan.steps
        metrics: Mapping[str, float] = {}
        if job.validation is not None and self._measures(epoch):
            card = card_of("in training", job.classes, job.recipe.size)
            detector = running(self.average.network, card, self.place.device)
            metrics = measure(detector, job.validation)
        report = EpochReport(
            epoch=epoch,
            epochs=job.recipe.epochs,
            step=self.step,
            lr=self.schedule.rate(self.step - 1),
            losses={
                name: total / tally.steps
                for name, total in zip(("total", *TERMS), tally.losses, strict=True)
            },
            images_per_s=tally.steps * job.plan.batch / max(waited + stepping, 1e-9),
            waited=waited / max(waited + stepping, 1e-9),
            seconds=self.seconds,
            metrics=metrics,
        )
        records.add(report.row())
        self.rows = records.rows
        if metrics.get("AP", -1.0) > self.best:
            self.best, self.best_epoch = metrics["AP"], epoch
            self._save(checkpoints.BEST)
        self.watch.epoch(report)

    def _measures(self, epoch: int) -> bool:
        return epoch % self.job.validate_every == 0 or epoch == self.job.recipe.epochs

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, and the course so far."""
        recipe: Mapping[str, Json] = self.job.recipe.to_dict()
        return {
            "version": VERSION,
            "recipe": recipe,
            "classes": list(self.job.classes),
            "architecture": self.job.architecture.to_json(),
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "tally": [self.tally.steps, *self.tally.losses],
            "seconds": self.seconds,
            "rows": self.rows,
        }

    def _save(self, name: str) -> None:
        checkpoints.save(self.state(), self.job.out / name)

    def _restore(self) -> None:
        path = self.job.out / checkpoints.LAST
        state = checkpoints.load(path)
        self.job.recipe.check_same(state["recipe"], path)
        self.network.load_state_dict(state["network"])
        self.average.network.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.best, self.best_epoch = state["step"], state["best"], state["best_epoch"]
        steps, *losses = state["tally"]
        self.tally = Tally(losses, steps)
        self.seconds, self.rows = state["seconds"], state["rows"]


def autocast_type(precision: str, device: str) -> torch.dtype:
    """What convolutions compute in: on CPUs float32 unless something else is asked for."""
    if precision == "auto":
        on_gpu = device != "cpu"
        return torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float32
    return {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[precision]


@contextmanager
def hearing_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or SIGINT has come; a second one acts at once."""
    heard = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield heard.is_set
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    def hear(number: int, frame: FrameType | None) -> None:
        log.info("signal %s: the run ends with this step and a checkpoint", number)
        heard.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in numbers:
        signal.signal(number, hear)
    try:
        yield heard.is_set
    finally:
        for number in numbers:
            signal.signal(number, before[number])
