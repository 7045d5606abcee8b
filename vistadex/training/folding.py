"""Normalization folded into convolutions and put back in front of training.

Source: Jacob et al., "Quantization and Training of Neural Networks", section 3.2.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vistadex.training.networks import DetectorNetwork, Unit


def folded(network: DetectorNetwork) -> DetectorNetwork:
    """A copy in evaluation mode whose convolutions have biases in place of normalization."""
    network = copy.deepcopy(network).eval()
    for unit in units(network):
        if isinstance(unit.norm, nn.BatchNorm2d):
            unit.conv = _folded(unit.conv, unit.norm)
            unit.norm = nn.Identity()
    return network


def units(network: nn.Module) -> list[Unit]:
    """Every unit, in the order of the modules."""
    return [module for module in network.modules() if isinstance(module, Unit)]


def set_folded(unit: Unit, weight: Tensor, bias: Tensor) -> None:
    """Gives a unit a folded convolution's weights: in evaluation it computes the same.

    The normalization does nothing yet: see measure_moments.
    """
    norm = unit.norm
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        unit.conv.weight.copy_(weight)
        norm.running_mean.zero_()
        norm.running_var.fill_(1.0)
        norm.weight.fill_((1.0 + norm.eps) ** 0.5)
        norm.bias.copy_(bias)


@torch.no_grad()
def measure_moments(network: DetectorNetwork, batches: Iterable[Tensor]) -> None:
    """Sets every normalization's mean and variance to those of pictures, and leaves the function.

    A network out of a folded file has none; trained without, its weights bear small steps only.

    Args:
        batches: (B, 3, H, W) inputs.
    """
    sums: dict[nn.BatchNorm2d, tuple[Tensor, Tensor, int]] = {}

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        x = inputs[0].double()
        one, two, count = sums.get(norm, (torch.zeros(()), torch.zeros(()), 0))
        dims = (0, 2, 3)
        sums[norm] = one + x.sum(dims), two + (x * x).sum(dims), count + x[:, 0].numel()

    norms = [unit.norm for unit in units(network) if isinstance(unit.norm, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    training = network.training
    network.eval()
    for batch in batches:
        network(batch)
    for hook in hooks:
        hook.remove()
    network.train(training)
    for norm, (one, two, count) in sums.items():
        mean = one / count
        _set_moments(norm, mean, (two / count - mean * mean).clamp_min(0))


def _set_moments(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Other moments; weight and bias change so that the output does not."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    norm.bias.copy_(norm.bias.double() + scale * (mean - norm.running_mean.double()))
    norm.weight.copy_(scale * torch.sqrt(variance + norm.eps))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


@torch.no_grad()
def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    new = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        (conv.kernel_size[0], conv.kernel_size[1]),
        (conv.stride[0], conv.stride[1]),
        (int(conv.padding[0]), int(conv.padding[1])),
        groups=conv.groups,
        device=conv.weight.device,
    )
    new.weight.copy_(conv.weight.double() * scale[:, None, None, None])
    assert new.bias is not None
    new.bias.copy_(norm.bias.double() - norm.running_mean.double() * scale)
    return new
