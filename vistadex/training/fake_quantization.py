"""Training that knows of int8: values are rounded in the forward pass, gradients pass unrounded.

Weights are rounded per output channel to int8 around zero, activations per tensor to uint8 with a
zero point: the scheme of ONNX Runtime's QDQ on CPUs (U8S8). Use it on a folded network, so that the
weights that are rounded are those of the file.
Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference"; Bengio et al. for the straight-through estimator.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vistadex.errors import UsageError
from vistadex.training.networks import DetectorNetwork

OBSERVING = 0.99
"""Decay of the averages of smallest and largest values."""


class FakeQuantizedConv2d(nn.Conv2d):
    """A convolution whose input and weights are rounded as int8 rounds them."""

    low: Tensor
    high: Tensor
    seen: Tensor

    def observe(self, x: Tensor) -> None:
        """Moves the range of the input towards that of a batch; zero is always within."""
        low, high = x.amin().clamp_max(0).float(), x.amax().clamp_min(0).float()
        decay = OBSERVING if bool(self.seen > 0) else 0.0
        self.low.lerp_(low, 1 - decay)
        self.high.lerp_(high, 1 - decay)
        self.seen.add_(1)

    def forward(self, input: Tensor) -> Tensor:
        """As nn.Conv2d, rounded; in training the range follows the input."""
        if self.training:
            with torch.no_grad():
                self.observe(input.detach())
        x = rounded_activation(input, self.low, self.high)
        weight = rounded_weight(self.weight)
        return functional.conv2d(
            x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


class _Straight(torch.autograd.Function):
    """Rounding and clamping whose gradient is 1 within the range and 0 outside."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, lowest: int, highest: int
    ) -> Tensor:
        steps = torch.round(x / scale) + zero
        ctx.save_for_backward((steps >= lowest) & (steps <= highest))
        return (steps.clamp(lowest, highest) - zero) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (within,) = ctx.saved_tensors
        return gradients[0] * within, None, None, None, None


def _straight(x: Tensor, scale: Tensor, zero: Tensor, lowest: int, highest: int) -> Tensor:
    apply = cast("Any", _Straight).apply
    return cast("Tensor", apply(x, scale, zero, lowest, highest))


def rounded_weight(weight: Tensor) -> Tensor:
    """Per output channel to -127 … 127 steps of its largest value / 127."""
    with torch.no_grad():
        largest = weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
        scale = largest.clamp_min(1e-12) / 127
    zero = torch.zeros((), device=weight.device)
    return _straight(weight, scale, zero, -127, 127)


def rounded_activation(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """To 0 … 255 steps between low and high, with a whole zero point."""
    with torch.no_grad():
        scale = ((high - low) / 255).clamp_min(1e-12).to(x.dtype)
        zero = torch.round(-low.to(x.dtype) / scale).clamp(0, 255)
    return _straight(x, scale, zero, 0, 255)


def add_fake_quantization(network: DetectorNetwork, *, keep_float: Collection[str] = ()) -> int:
    """Rounds every convolution's input and weights from now on; returns how many.

    Args:
        network: folded; changed in place, its parameters stay the same tensors.
        keep_float: paths of modules that stay in float with all below them: `backbone.stem`, or
            `heads.0.classes`; also a last part alone, as `classes`.
    Raises: UsageError if a path is none of the network's.
    """
    convs = [name for name, one in network.named_modules() if type(one) is nn.Conv2d]
    for path in keep_float:
        if not any(is_below(name, path) for name in convs):
            raise UsageError(
                f"keep float {path!r}: no convolution of the network is called so or below it; "
                f"there are {', '.join(convs[:4])}, …"
            )
    changed = 0
    for name, module in network.named_modules():
        if type(module) is nn.Conv2d and not any(is_below(name, path) for path in keep_float):
            _make_fake(module)
            changed += 1
    return changed


def is_below(name: str, path: str) -> bool:
    """Whether a module is the one of a path, is below it, or has it as a part of its own path."""
    return f".{path}." in f".{name}."


def _make_fake(module: nn.Conv2d) -> None:
    cast("Any", module).__class__ = FakeQuantizedConv2d
    device = module.weight.device
    for name in ("low", "high", "seen"):
        module.register_buffer(name, torch.zeros((), device=device))


def without_fake_quantization(network: DetectorNetwork) -> DetectorNetwork:
    """A copy that computes in float, with the weights as they were trained."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, FakeQuantizedConv2d):
            for name in ("low", "high", "seen"):
                delattr(module, name)
            cast("Any", module).__class__ = nn.Conv2d
    return network


def input_ranges(network: DetectorNetwork) -> Mapping[str, tuple[float, float]]:
    """The range of the input of each rounded convolution, by its node's name in the file."""
    return {
        name: (float(one.low), float(one.high))
        for name, one in network.named_modules()
        if isinstance(one, FakeQuantizedConv2d)
    }
