"""Which cells of the network's maps answer for which box: SimOTA, for a whole batch at once.

A box's candidates are the 3x3 cells around its center on each map; it takes those that predict it
best, as many as its candidates' overlaps add up to.
Shape letters: B samples, A cells of all maps, C classes, N boxes of the batch, K candidates of a
box, P pairs of a box and a cell that answers for it.
Source: Ge et al., "YOLOX: Exceeding YOLO Series in 2021", section 2.2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vistadex.training.networks import BOX_VALUES, STRIDES

_IOU_COST = 3.0
_MOST_COUNTED = 10
"""Candidates whose overlaps say how many cells a box gets."""


class Pairs(NamedTuple):
    """Cells with the boxes they answer for."""

    rows: Tensor
    """(P,) position among all cells of the batch."""
    boxes: Tensor
    """(P,) position among all boxes of the batch."""
    ious: Tensor
    """(P,) overlap of what the cell predicts with the box."""


@torch.no_grad()
def assign(
    rows: Tensor,
    predicted: Tensor,
    boxes: Tensor,
    labels: Tensor,
    sample: Tensor,
    size_hw: tuple[int, int],
) -> Pairs:
    """The cells that answer for each box.

    Args:
        rows: (B, A, 5 + C) of the network, float32.
        predicted: (B, A, 4) its boxes, xyxy.
        boxes: (N, 4) xyxy; labels and sample (N,) likewise.
        size_hw: of the samples, in pixels.
    """
    cells, inside = _candidates(boxes, size_hw)
    flat = cells + sample[:, None] * rows.shape[1]
    ious = paired_iou(predicted.reshape(-1, 4)[flat], boxes[:, None])
    ious = torch.where(inside, ious, ious.new_zeros(()))
    cost = _class_cost(rows.reshape(-1, rows.shape[-1])[flat], labels)
    cost = cost - _IOU_COST * torch.log(ious + 1e-8)
    cost = torch.where(inside, cost, cost.new_full((), torch.inf))
    counted = ious.topk(min(_MOST_COUNTED, ious.shape[1]), dim=1).values.sum(1)
    wanted = counted.int().clamp_min(1)
    place = cost.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    taken = (place < wanted[:, None]) & inside
    return _without_rivals(flat, cost, taken, ious, rows.shape[0] * rows.shape[1])


def _candidates(boxes: Tensor, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(N, K) cells of a sample around each box's center, and whether they are inside the maps."""
    height, width = size_hw
    around = torch.tensor([-1, 0, 1], device=boxes.device)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    cells, inside, first = [], [], 0
    for stride in STRIDES:
        columns, rows = width // stride, height // stride
        at = torch.floor(centers / stride).long()
        x, y = at[:, 0, None] + around, at[:, 1, None] + around
        fits = ((y >= 0) & (y < rows))[:, :, None] & ((x >= 0) & (x < columns))[:, None]
        y, x = y.clamp(0, rows - 1), x.clamp(0, columns - 1)
        cells.append((first + y[:, :, None] * columns + x[:, None]).flatten(1))
        inside.append(fits.flatten(1))
        first += rows * columns
    return torch.cat(cells, 1), torch.cat(inside, 1)


def _class_cost(rows: Tensor, labels: Tensor) -> Tensor:
    """(N, K) cross entropy of each candidate's scores, of (N, K, 5 + C), with its box's class."""
    objects = rows[..., BOX_VALUES - 1 : BOX_VALUES].sigmoid()
    scores = (rows[..., BOX_VALUES:].sigmoid() * objects).sqrt().clamp(1e-7, 1 - 1e-7)
    wanted = functional.one_hot(labels, scores.shape[-1]).to(scores.dtype)[:, None]
    costs = functional.binary_cross_entropy(scores, wanted.expand_as(scores), reduction="none")
    return costs.sum(-1)


def _without_rivals(flat: Tensor, cost: Tensor, taken: Tensor, ious: Tensor, cells: int) -> Pairs:
    """The pairs of which each cell has one: that of the least cost."""
    box, candidate = taken.nonzero(as_tuple=True)
    rows, costs = flat[box, candidate], cost[box, candidate]
    best = costs.new_full((cells,), torch.inf).scatter_reduce(0, rows, costs, "amin")
    first = torch.full((cells,), len(rows), device=rows.device)
    order = torch.arange(len(rows), device=rows.device)
    wins = costs == best[rows]
    first = first.scatter_reduce(0, rows[wins], order[wins], "amin")  # of equal costs the first
    wins &= order == first[rows]
    return Pairs(rows[wins], box[wins], ious[box, candidate][wins])


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) that stand at the same place of both."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    overlap = (high - low).clamp_min(0).prod(-1)
    area_a = (a[..., 2:] - a[..., :2]).clamp_min(0).prod(-1)
    area_b = (b[..., 2:] - b[..., :2]).clamp_min(0).prod(-1)
    return overlap / (area_a + area_b - overlap).clamp_min(1e-7)
