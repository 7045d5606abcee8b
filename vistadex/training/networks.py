"""A compact detector without anchors: CSP backbone, pyramid, decoupled head, all by parameters.

With the defaults of `NANO` it has the structure of YOLOX-nano, convolution by convolution.
Shape letters: B pictures, A cells of all maps, C classes.
Source: Ge et al., "YOLOX: Exceeding YOLO Series in 2021"; Wang et al., "CSPNet".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal, TypeAlias, cast, get_args

import torch
from torch import Tensor, nn

from vistadex.errors import UsageError

Activation: TypeAlias = Literal["silu", "relu", "hardswish"]
Stem: TypeAlias = Literal["6x6", "4x4", "3x3"]
Neck: TypeAlias = Literal["pan", "fpn"]

STRIDES = (8, 16, 32)
"""Pixels of the picture in a cell of each map."""
BOX_VALUES = 5
"""Numbers of a cell before those of its classes: x, y, width, height, objectness."""
_BASE = 64
_PRIOR = 0.01
"""Probability of an object that new prediction layers begin with."""
_EPSILON, _MOMENTUM = 1e-3, 0.03
"""Of the normalization, as in YOLOX."""


def _need(holds: bool, name: str, expected: str) -> None:
    if not holds:
        raise UsageError(f"{name}: expected {expected}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What a network is built of."""

    width: float = 0.25
    """Channels of the backbone, as a share of 64 behind the stem and 1,024 at its end."""
    depth: float = 0.33
    """Blocks of a backbone stage, as a share of 3 and 9."""
    depthwise: bool = True
    """Whether 3x3 convolutions are split into a depthwise and a 1x1 one."""
    stem: Stem = "6x6"
    """Size of the first convolution; all halve the picture."""
    neck: Neck = "pan"
    """pan: down the pyramid and up again; fpn: down only."""
    head_width: float = 0.25
    """Channels of the head, as a share of 256."""
    head_convs: int = 2
    """3x3 convolutions of a branch."""
    head_shared: bool = False
    """Whether classes and boxes come from one branch."""
    activation: Activation = "silu"
    """Where nothing else is said."""
    depthwise_activation: Activation | None = None
    """Behind depthwise convolutions; None: as activation."""
    stem_activation: Activation | None = None
    head_activation: Activation | None = None

    def __post_init__(self) -> None:
        for name, values in (("stem", Stem), ("neck", Neck), ("activation", Activation)):
            _need(getattr(self, name) in get_args(values), name, " or ".join(get_args(values)))
        for name in ("depthwise_activation", "stem_activation", "head_activation"):
            known = (None, *get_args(Activation))
            _need(getattr(self, name) in known, name, " or ".join(known[1:]))
        _need(0 < self.width <= 4 and 0 < self.depth <= 4, "width and depth", "above 0, at most 4")
        _need(0 < self.head_width <= 4, "head_width", "above 0, at most 4")
        _need(0 <= self.head_convs <= 8, "head_convs", "0 to 8")

    def to_json(self) -> str:
        """As text; architecture_from_json is the inverse."""
        return json.dumps(asdict(self))


NANO = Architecture()
"""YOLOX-nano."""
ARCHITECTURES: Mapping[str, Architecture] = {
    "nano": replace(NANO, activation="relu"),
    "nano-silu": NANO,
    "tiny": replace(NANO, width=0.375, head_width=0.375, depthwise=False, activation="relu"),
    "tiny-silu": replace(NANO, width=0.375, head_width=0.375, depthwise=False),
    "small": replace(NANO, width=0.5, head_width=0.5, depthwise=False, activation="relu"),
    "small-silu": replace(NANO, width=0.5, head_width=0.5, depthwise=False),
}
"""By name. ReLU is what int8 needs to be fast; YOLOX's own weights were trained with SiLU."""


def architecture_from_json(text: str, place: str) -> Architecture:
    """The architecture that a text says.

    Raises: UsageError that names the place.
    """
    try:
        values = json.loads(text)
        unknown = set(values) - {field.name for field in fields(Architecture)}
        _need(not unknown, ", ".join(sorted(unknown)), "no such field")
        return Architecture(**values)
    except (ValueError, TypeError, UsageError) as error:
        raise UsageError(f"{place}: not an architecture ({error})") from error


class Unit(nn.Module):
    """A convolution without bias, its normalization and its activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        activation: Activation,
        *,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        # Even kernels stand over the middle of a cell too: 6 pixels reach 2 beyond it, 4 reach 1.
        padding = (kernel - stride) // 2 if kernel % 2 == 0 else kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs, eps=_EPSILON, momentum=_MOMENTUM)
        self.activation = _ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """(B, outputs, H / stride, W / stride)."""
        return cast("Tensor", self.activation(self.norm(self.conv(x))))


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 convolution, added to their input where `shortcut`."""

    def __init__(self, channels: int, how: Architecture, *, shortcut: bool) -> None:
        super().__init__()
        self.first = Unit(channels, channels, 1, how.activation)
        self.second = _spatial(channels, channels, how)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """The shape of x."""
        y = self.second(self.first(x))
        return y + x if self.shortcut else cast("Tensor", y)


class CrossStage(nn.Module):
    """A stage of which half the channels pass through the blocks and half go by (CSP)."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, how: Architecture, *, shortcut: bool
    ) -> None:
        super().__init__()
        half = outputs // 2
        self.through = Unit(inputs, half, 1, how.activation)
        self.by = Unit(inputs, half, 1, how.activation)
        self.blocks = nn.Sequential(
            *(Bottleneck(half, how, shortcut=shortcut) for _ in range(blocks))
        )
        self.join = Unit(2 * half, outputs, 1, how.activation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, outputs, H, W)."""
        through, by = self.through(x), self.by(x)
        return cast("Tensor", self.join(torch.cat([self.blocks(through), by], 1)))


class Pooling(nn.Module):
    """Maxima over 5, 9 and 13 cells beside the map itself, by three pools of 5 in a chain."""

    def __init__(self, channels: int, how: Architecture) -> None:
        super().__init__()
        self.reduce = Unit(channels, channels // 2, 1, how.activation)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.join = Unit(channels // 2 * 4, channels, 1, how.activation)

    def forward(self, x: Tensor) -> Tensor:
        """The shape of x."""
        x = self.reduce(x)
        five = self.pool(x)
        nine = self.pool(five)
        return cast("Tensor", self.join(torch.cat([x, five, nine, self.pool(nine)], 1)))


class Backbone(nn.Module):
    """Picture to maps of strides 8, 16 and 32."""

    def __init__(self, how: Architecture) -> None:
        super().__init__()
        base, blocks = int(_BASE * how.width), max(round(3 * how.depth), 1)
        kernel = int(how.stem[0])
        self.stem = Unit(3, base, kernel, how.stem_activation or how.activation, stride=2)
        self.stage2 = _stage(base, blocks, how)
        self.stage3 = _stage(base * 2, blocks * 3, how)
        self.stage4 = _stage(base * 4, blocks * 3, how)
        self.stage5 = nn.Sequential(
            _spatial(base * 8, base * 16, how, stride=2),
            Pooling(base * 16, how),
            CrossStage(base * 16, base * 16, blocks, how, shortcut=False),
        )
        self.channels = (base * 4, base * 8, base * 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of `channels`."""
        c3 = self.stage3(self.stage2(self.stem(x)))
        c4 = self.stage4(c3)
        return c3, c4, self.stage5(c4)


class Pyramid(nn.Module):
    """Maps of three strides that know of each other: PAN, or FPN where it ends half way."""

    def __init__(self, channels: Sequence[int], how: Architecture) -> None:
        super().__init__()
        c3, c4, c5 = channels
        blocks = max(round(3 * how.depth), 1)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.reduce5 = Unit(c5, c4, 1, how.activation)
        self.down4 = CrossStage(2 * c4, c4, blocks, how, shortcut=False)
        self.reduce4 = Unit(c4, c3, 1, how.activation)
        self.down3 = CrossStage(2 * c3, c3, blocks, how, shortcut=False)
        self.climbs = how.neck == "pan"
        self.channels = (c3, c4, c5) if self.climbs else (c3, c4, c4)
        if self.climbs:
            self.climb3 = _spatial(c3, c3, how, stride=2)
            self.up4 = CrossStage(2 * c3, c4, blocks, how, shortcut=False)
            self.climb4 = _spatial(c4, c4, how, stride=2)
            self.up5 = CrossStage(2 * c4, c5, blocks, how, shortcut=False)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of `channels` with the same sides."""
        c3, c4, c5 = maps
        r5 = self.reduce5(c5)
        d4 = self.down4(torch.cat([self.up(r5), c4], 1))
        r4 = self.reduce4(d4)
        p3 = self.down3(torch.cat([self.up(r4), c3], 1))
        if not self.climbs:
            return p3, d4, r5
        p4 = self.up4(torch.cat([self.climb3(p3), r4], 1))
        return p3, p4, self.up5(torch.cat([self.climb4(p4), r5], 1))


class LevelHead(nn.Module):
    """The predictions of one map."""

    def __init__(self, inputs: int, classes: int, how: Architecture) -> None:
        super().__init__()
        how = replace(how, activation=how.head_activation or how.activation)
        width = int(256 * how.head_width)
        self.stem = Unit(inputs, width, 1, how.activation)
        self.class_branch = _branch(width, how)
        self.classes = nn.Conv2d(width, classes, 1)
        self.box_branch = nn.Identity() if how.head_shared else _branch(width, how)
        self.boxes = nn.Conv2d(width, 4, 1)
        self.objects = nn.Conv2d(width, 1, 1)
        self.shared = how.head_shared
        for layer in (self.classes, self.objects):
            set_prior(layer)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 4, H, W) boxes, (B, 1, H, W) objectness and (B, C, H, W) classes, as logits."""
        x = self.stem(x)
        by_class = self.class_branch(x)
        classes = self.classes(by_class)
        by_box = by_class if self.shared else self.box_branch(x)
        return self.boxes(by_box), self.objects(by_box), classes


class DetectorNetwork(nn.Module):
    """Backbone, pyramid and a head for each of its maps. Takes BGR pixels from 0 to 255."""

    def __init__(self, how: Architecture, classes: int) -> None:
        super().__init__()
        self.architecture, self.class_count = how, classes
        self.backbone = Backbone(how)
        self.pyramid = Pyramid(self.backbone.channels, how)
        self.heads = nn.ModuleList(
            LevelHead(channels, classes, how) for channels in self.pyramid.channels
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, A, 5 + C): x and y within the cell's reach, log sizes in strides, logits.

        Args:
            images: (B, 3, H, W), both sides multiples of 32.
        """
        return self.rows(images, None)

    def rows(self, images: Tensor, squash: nn.Module | None) -> Tensor:
        """As forward; with `squash` over objectness and classes."""
        levels = []
        maps = self.pyramid(self.backbone(images))
        for head, one in zip(self.heads, maps, strict=True):
            boxes, objects, classes = head(one)
            if squash is not None:
                objects, classes = squash(objects), squash(classes)
            levels.append(torch.flatten(torch.cat([boxes, objects, classes], 1), 2))
        return torch.transpose(torch.cat(levels, 2), 1, 2)


class Deployed(nn.Module):
    """A network as its file computes it: probabilities in place of logits."""

    def __init__(self, network: DetectorNetwork) -> None:
        super().__init__()
        self.network, self.squash = network, nn.Sigmoid()

    def forward(self, images: Tensor) -> Tensor:
        """(B, A, 5 + C), as head `yolox` reads it."""
        return self.network.rows(images, self.squash)


def build_network(how: Architecture, classes: int) -> DetectorNetwork:
    """A network with random weights from torch's generator.

    Normalization begins with a bias of 1, so that most values pass activations: with 0, gradients
    grow from layer to layer. Measured with nano, ReLU, eight pictures: the gradient's length at the
    first step is 72 in place of 36,000, the loss after 150 steps 2.2 in place of 5.9.
    Source: Yang et al., "A Mean Field Theory of Batch Normalization".
    """
    network = DetectorNetwork(how, classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.bias)
        if isinstance(module, nn.Conv2d) and module.bias is None:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.groups > 1:  # fan_out counts all groups
                module.weight.data.mul_(math.sqrt(module.groups))
    return network


def channels_last(network: nn.Module) -> None:
    """Stores the weights of convolutions with channels last, as CPUs and GPUs are faster with."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            _, channels, height, width = parameter.shape
            # Strides said outright: of one channel or 1x1 pixels torch takes any for both orders.
            strides = (channels * height * width, 1, channels * width, channels)
            data = parameter.data.contiguous(memory_format=torch.channels_last)
            parameter.data = data.as_strided(parameter.shape, strides)


def set_prior(layer: nn.Conv2d) -> None:
    """Biases with which a new prediction layer finds hardly anything (Lin et al., RetinaNet)."""
    assert layer.bias is not None
    nn.init.constant_(layer.bias, -math.log((1 - _PRIOR) / _PRIOR))


def grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(A, 2) column and row and (A,) stride of every cell, for an input of that size."""
    corners, strides = [], []
    for stride in STRIDES:
        rows, columns = torch.meshgrid(
            torch.arange(height // stride, device=device),
            torch.arange(width // stride, device=device),
            indexing="ij",
        )
        corners.append(torch.stack([columns, rows], -1).reshape(-1, 2))
        strides.append(torch.full((rows.numel(),), stride, device=device))
    return torch.cat(corners).float(), torch.cat(strides).float()


def boxes_of(rows: Tensor, corners: Tensor, strides: Tensor) -> Tensor:
    """(..., 4) x0 y0 x1 y1 in pixels of the input, of the network's rows."""
    centers = (rows[..., :2] + corners) * strides[:, None]
    halves = torch.exp(rows[..., 2:4].clamp(max=15)) * strides[:, None] / 2
    return torch.cat([centers - halves, centers + halves], -1)


def _stage(channels: int, blocks: int, how: Architecture) -> nn.Sequential:
    return nn.Sequential(
        _spatial(channels, 2 * channels, how, stride=2),
        CrossStage(2 * channels, 2 * channels, blocks, how, shortcut=True),
    )


def _spatial(inputs: int, outputs: int, how: Architecture, *, stride: int = 1) -> nn.Module:
    """A 3x3 convolution, depthwise and 1x1 where the architecture says so."""
    if not how.depthwise:
        return Unit(inputs, outputs, 3, how.activation, stride=stride)
    behind = how.depthwise_activation or how.activation
    return nn.Sequential(
        Unit(inputs, inputs, 3, behind, stride=stride, groups=inputs),
        Unit(inputs, outputs, 1, how.activation),
    )


def _branch(width: int, how: Architecture) -> nn.Sequential:
    return nn.Sequential(*(_spatial(width, width, how) for _ in range(how.head_convs)))


_ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "hardswish": nn.Hardswish,
}
