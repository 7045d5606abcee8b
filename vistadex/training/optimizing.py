"""The optimizer, its learning rate over the steps, and the averaged weights that are kept.

Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" and "SGDR".
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn

from vistadex.training.networks import DetectorNetwork

_DECAY_BETAS = (0.9, 0.99)
EMA_DECAY = 0.999
EMA_STEPS = 300
"""Steps in which the average becomes slow: at first it follows the weights."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate by step: a warm-up, half a cosine, and a constant end."""

    peak: float
    steps: int
    """Of the whole training."""
    warm_up: int
    end: float = 0.02
    """Share of the peak at the end."""

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warm_up:
            return self.peak * (step + 1) / (self.warm_up + 1)
        progress = (step - self.warm_up) / max(1, self.steps - 1 - self.warm_up)
        cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
        return self.peak * (self.end + (1 - self.end) * cosine)


def build_optimizer(network: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW; biases and normalization do not decay."""
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in network.parameters():
        (decaying if parameter.ndim > 1 else others).append(parameter)
    groups = [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=_DECAY_BETAS)


class Average:
    """An exponential moving average of a network's weights: what is measured and kept."""

    def __init__(self, network: DetectorNetwork, decay: float = EMA_DECAY) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Moves towards the network's weights, less with every step."""
        decay = self.decay * (1 - math.exp(-(step + 1) / EMA_STEPS))
        mine, theirs = self.network.state_dict(), network.state_dict()
        floats = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[n] for n in floats], [theirs[n] for n in floats], 1 - decay)
        for name in mine.keys() - set(floats):
            mine[name].copy_(theirs[name])
