"""What training makes small: boxes, objectness and classes of the cells that answer for boxes.

Sums are divided by the number of positive cells of all processes, so that a step over half batches
in two processes is the step over the whole in one.
Shape letters: B samples, A cells, C classes, N boxes, P pairs.
Source: Rezatofighi et al., "Generalized Intersection over Union"; YOLOX for the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vistadex.training.assignment import Pairs, assign
from vistadex.training.networks import BOX_VALUES, boxes_of, grid

BOX_WEIGHT = 5.0
TERMS = ("box", "object", "class", "offset")


class Targets(NamedTuple):
    """The truth about a batch; see loading.Batch."""

    boxes: Tensor
    labels: Tensor
    weights: Tensor
    sample: Tensor


class Losses(NamedTuple):
    """The sum to derive, and its parts for people."""

    total: Tensor
    parts: Tensor
    """(4,) as TERMS, without gradient."""
    positives: Tensor
    """Weight of all positive cells, over all processes."""


def detection_losses(
    rows: Tensor,
    targets: Targets,
    size_hw: tuple[int, int],
    *,
    offsets: bool,
    over_all: Callable[[Tensor], Tensor],
) -> Losses:
    """The losses of a batch.

    Args:
        rows: (B, A, 5 + C) of the network.
        size_hw: of the samples.
        offsets: whether also the raw numbers of boxes are compared, as at the end of training.
        over_all: the mean over all processes of a number that each has.
    """
    rows = rows.float()
    corners, strides = grid(*size_hw, rows.device)
    predicted = boxes_of(rows, corners, strides)
    real = (targets.weights > 0).nonzero()[:, 0]
    boxes, labels, sample = targets.boxes[real], targets.labels[real], targets.sample[real]
    pairs = assign(rows, predicted, boxes, labels, sample, size_hw)
    weights = targets.weights[real][pairs.boxes]
    parts = torch.stack(
        [
            (weights * (1 - generalized_iou(_at(predicted, pairs), boxes[pairs.boxes]))).sum(),
            _object_loss(rows, pairs, weights, targets, corners, strides),
            _class_loss(_at(rows, pairs), pairs, weights, labels[pairs.boxes]),
            _offset_loss(rows, pairs, weights, boxes, corners, strides)
            if offsets
            else rows.new_zeros(()),
        ]
    )
    # Gradients are averaged over processes, so each divides by the mean of the positives.
    positives = over_all(weights.sum()).clamp_min(1.0)
    parts = parts / positives
    total = parts[0] * BOX_WEIGHT + parts[1] + parts[2] + parts[3]
    return Losses(total, parts.detach(), positives)


def _at(values: Tensor, pairs: Pairs) -> Tensor:
    return values.reshape(-1, values.shape[-1])[pairs.rows]


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """(P,) overlap of boxes (P, 4), negative by how far they are apart."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    overlap = (high - low).clamp_min(0).prod(-1)
    union = (a[:, 2:] - a[:, :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1) - overlap
    outer_low = torch.minimum(a[:, :2], b[:, :2])
    outer = (torch.maximum(a[:, 2:], b[:, 2:]) - outer_low).prod(-1).clamp_min(1e-7)
    return overlap / union.clamp_min(1e-7) - (outer - union) / outer


def _object_loss(
    rows: Tensor,
    pairs: Pairs,
    weights: Tensor,
    targets: Targets,
    corners: Tensor,
    strides: Tensor,
) -> Tensor:
    """Of every cell, but those in regions where nothing counts."""
    logits = rows[..., BOX_VALUES - 1].reshape(-1)
    wanted = torch.zeros_like(logits)
    wanted[pairs.rows] = weights
    losses = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    ignored = (targets.weights == 0).nonzero()[:, 0]
    if len(ignored) == 0:
        return losses.sum()
    points = (corners + 0.5) * strides[:, None]
    boxes = targets.boxes[ignored]
    inside = (points >= boxes[:, None, :2]).all(-1) & (points < boxes[:, None, 2:]).all(-1)
    quiet = torch.zeros(rows.shape[:2], dtype=torch.bool, device=rows.device)
    for i, at in enumerate(targets.sample[ignored].tolist()):
        quiet[at] |= inside[i]
    quiet = quiet.reshape(-1)
    quiet[pairs.rows] = False
    return losses.masked_fill(quiet, 0.0).sum()


def _class_loss(rows: Tensor, pairs: Pairs, weights: Tensor, labels: Tensor) -> Tensor:
    """With the overlap as the probability of the right class."""
    logits = rows[:, BOX_VALUES:]
    wanted = functional.one_hot(labels, logits.shape[1]) * pairs.ious[:, None]
    losses = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (losses.sum(1) * weights).sum()


def _offset_loss(
    rows: Tensor, pairs: Pairs, weights: Tensor, boxes: Tensor, corners: Tensor, strides: Tensor
) -> Tensor:
    """Distance of the raw numbers from those of the box."""
    cells = pairs.rows % rows.shape[1]
    stride, mine = strides[cells][:, None], boxes[pairs.boxes]
    centers = (mine[:, :2] + mine[:, 2:]) / 2 / stride - corners[cells]
    sizes = torch.log(((mine[:, 2:] - mine[:, :2]) / stride).clamp_min(1e-6))
    distance = (_at(rows, pairs)[:, :4] - torch.cat([centers, sizes], 1)).abs().sum(1)
    return (distance * weights).sum()
