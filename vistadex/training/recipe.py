"""What a training run is asked to do, and what it says of itself. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

from vistadex.errors import UsageError
from vistadex.records import Json

Precision: TypeAlias = Literal["auto", "f32", "bf16", "f16"]
STRIDE = 32
"""Sides of samples are multiples of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that decides what comes out of a run; a checkpoint goes with one recipe alone."""

    data: str
    format: str = "auto"
    images: str | None = None
    split: str | None = None
    query: str | None = None
    validate: str | None = None
    """Data of its own to measure on."""
    validate_split: str | None = None
    network: str | None = None
    init: str | None = None
    teacher: str | None = None
    epochs: int = 300
    size: int = 416
    batch: int = 16
    lr: float | None = None
    """Peak of the learning rate; None: 2e-3, or 2e-4 from weights of a file."""
    weight_decay: float = 0.01
    clip: float = 10.0
    """Most length of the gradient."""
    warm_up_epochs: float = 3.0
    plain_epochs: int | None = None
    """Last epochs without mosaic; None: a tenth."""
    multi_scale: int = 0
    mosaic: float = 0.7
    mixup: float = 0.0
    flip: float = 0.5
    flip_vertical: float = 0.0
    scale: tuple[float, float] = (0.5, 1.5)
    color: float = 1.0
    seed: int = 0
    precision: Precision = "auto"
    fake_quantize: bool = False
    keep_float: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _need(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        side = self.size
        _need(side >= 64 and side % STRIDE == 0, "size", side, f"a multiple of {STRIDE} from 64")
        smallest = side - STRIDE * self.multi_scale
        _need(self.multi_scale >= 0 and smallest >= 64, "multi_scale", self.multi_scale, "less")
        _need(self.batch >= 1, "batch", self.batch, "1 or more")
        _need(self.lr is None or 0 < self.lr < 1, "lr", self.lr, "above 0, below 1")
        _need(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _need(self.clip > 0, "clip", self.clip, "above 0")
        _need(self.warm_up_epochs >= 0, "warm_up_epochs", self.warm_up_epochs, "0 or more")
        _need((self.plain_epochs or 0) >= 0, "plain_epochs", self.plain_epochs, "0 or more")
        _need(0 <= self.color <= 2, "color", self.color, "0 to 2")
        known = get_args(Precision)
        _need(self.precision in known, "precision", self.precision, ", ".join(known))

    @property
    def peak(self) -> float:
        """The highest learning rate."""
        if self.lr is not None:
            return self.lr
        if self.fake_quantize:
            return 2e-5
        return 2e-3 if self.init is None else 2e-4

    @property
    def plain(self) -> int:
        """Last epochs without mosaic."""
        return self.epochs // 10 if self.plain_epochs is None else self.plain_epochs

    def to_dict(self) -> dict[str, Json]:
        """As JSON values."""
        values: dict[str, Json] = json.loads(json.dumps(asdict(self)))
        return values

    def check_same(self, other: Mapping[str, Any], place: Path) -> None:
        """Raises: UsageError that names the first option in which a checkpoint's recipe differs."""
        for name, value in self.to_dict().items():
            if other.get(name) != value:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{place}: was made with {option} {other.get(name)}, not {value}; resume with "
                    "the options it began with, or train into another folder"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """How one epoch went."""

    epoch: int
    """From 1."""
    epochs: int
    step: int
    """Steps since the beginning."""
    lr: float
    losses: Mapping[str, float]
    """Mean over the epoch: total, box, object, class, offset."""
    images_per_s: float
    waited: float
    """Share of the time in which the step waited for its batch."""
    seconds: float
    """Since the run, or what it resumes, began; measuring included."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """On the validation set, of the averaged weights: COCO's numbers; empty where not measured."""

    def row(self) -> dict[str, float]:
        """As a line of metrics.csv."""
        values = {f"loss_{name}": value for name, value in self.losses.items()}
        own = asdict(self)
        first = {name: own[name] for name in ("epoch", "step", "lr")}
        rest = {name: own[name] for name in ("images_per_s", "waited", "seconds")}
        return cast("dict[str, float]", {**first, **values, **self.metrics, **rest})


@dataclass(slots=True, kw_only=True)
class TrainSummary:
    """How a run went."""

    out: str
    model: str
    """The ONNX file."""
    name: str | None
    """Under which it is in the model store."""
    sha256: str
    classes: tuple[str, ...]
    images: int
    boxes: int
    validation_images: int
    validation: str
    """What was measured on."""
    epochs: int
    steps: int
    best_epoch: int
    metrics: Mapping[str, float]
    """Of the file, on the validation set, by ONNX Runtime."""
    onnx_difference: float
    """Most by which the file differs from the network on real pictures."""
    size_bytes: int
    images_per_s: float
    waited: float
    """Share of the time in which steps waited for their batches."""
    seconds: float
    bad: Mapping[str, int]
    """Boxes and pictures that could not be used, by kind."""
    problems: str | None
    """The file that lists them."""
    new_classes: tuple[str, ...]
    """With weights of a file: classes that it did not have."""
    leads: bool = True
    """False in those processes of torchrun that write nothing."""


def _need(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"{name} {value}: expected {expected}")
