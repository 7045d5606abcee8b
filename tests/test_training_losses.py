"""Which cells answer for which boxes, and what is made small."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vistadex.boxes import box_iou
from vistadex.training.assignment import assign, paired_iou
from vistadex.training.losses import Targets, detection_losses, generalized_iou
from vistadex.training.networks import STRIDES, boxes_of, grid

torch.set_num_threads(1)
SIZE = (64, 96)
CLASSES = 3
BOXES = torch.tensor([[8.0, 8.0, 40.0, 36.0], [50.0, 20.0, 90.0, 60.0], [4.0, 40.0, 14.0, 52.0]])
LABELS = torch.tensor([0, 2, 1])
SAMPLE = torch.tensor([0, 1, 1])


def rows(seed: int = 0) -> Tensor:
    cells = sum((SIZE[0] // stride) * (SIZE[1] // stride) for stride in STRIDES)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((2, cells, 5 + CLASSES), generator=generator) * 0.5


def perfect() -> Tensor:
    """Rows whose every cell predicts the box of its sample that is nearest, surely."""
    corners, strides = grid(*SIZE, torch.device("cpu"))
    made = torch.full((2, len(corners), 5 + CLASSES), -12.0)
    centers = (BOXES[:, :2] + BOXES[:, 2:]) / 2
    for at in range(2):
        mine = (at == SAMPLE).nonzero()[:, 0]
        points = (corners + 0.5) * strides[:, None]
        nearest = mine[torch.cdist(points, centers[mine]).argmin(1)]
        sides = BOXES[nearest, 2:] - BOXES[nearest, :2]
        made[at, :, :2] = centers[nearest] / strides[:, None] - corners
        made[at, :, 2:4] = torch.log(sides / strides[:, None])
        made[at, torch.arange(len(corners)), 5 + LABELS[nearest]] = 12.0
    return made


def targets(weights: Tensor | None = None) -> Targets:
    return Targets(BOXES, LABELS, torch.ones(3) if weights is None else weights, SAMPLE)


def losses(given: Tensor, said: Targets, *, offsets: bool = True):
    return detection_losses(given, said, SIZE, offsets=offsets, over_all=lambda value: value)


def assigned(given: Tensor):
    predicted = boxes_of(given, *grid(*SIZE, torch.device("cpu")))
    return assign(given, predicted, BOXES, LABELS, SAMPLE, SIZE)


def test_boxes_are_read_as_the_head_reads_them() -> None:
    from vistadex.models.yolo import YoloxHead

    given = rows()
    height, width = SIZE
    probabilities = given[0].clone()
    probabilities[:, 4:] = probabilities[:, 4:].sigmoid()
    found = YoloxHead().decode([probabilities.numpy()], (width, height), 0.0)
    boxes = boxes_of(given, *grid(*SIZE, torch.device("cpu")))
    assert np.allclose(boxes[0].numpy(), found.boxes_xyxy, atol=1e-3)


def test_every_box_gets_cells_around_its_center_and_no_cell_has_two() -> None:
    pairs = assigned(rows())
    assert set(pairs.boxes.tolist()) == {0, 1, 2}
    assert len(set(pairs.rows.tolist())) == len(pairs.rows)
    corners, strides = grid(*SIZE, torch.device("cpu"))
    cells = pairs.rows % len(corners)
    assert torch.equal(pairs.rows // len(corners), SAMPLE[pairs.boxes])
    points = (corners[cells] + 0.5) * strides[cells, None]
    centers = ((BOXES[:, :2] + BOXES[:, 2:]) / 2)[pairs.boxes]
    assert ((points - centers).abs() <= 1.5 * strides[cells, None]).all()


def test_better_predictions_get_more_cells() -> None:
    assert len(assigned(perfect()).rows) > len(assigned(rows()).rows)


def test_two_boxes_at_one_place_share_the_cells() -> None:
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0], [10.0, 10.0, 38.0, 38.0]])
    given = rows()
    predicted = boxes_of(given, *grid(*SIZE, torch.device("cpu")))
    labels, sample = torch.tensor([0, 1]), torch.tensor([0, 0])
    pairs = assign(given, predicted, boxes, labels, sample, SIZE)
    assert len(set(pairs.rows.tolist())) == len(pairs.rows)
    assert len(pairs.rows) >= 1


def test_no_boxes_are_no_positives_and_a_loss_all_the_same() -> None:
    none = Targets(
        torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0), torch.zeros(0).long()
    )
    found = losses(rows(), none)
    assert found.parts[0] == 0
    assert found.parts[1] > 0
    assert torch.isfinite(found.total)


def test_perfect_predictions_leave_only_the_objectness() -> None:
    given = perfect()
    found = losses(given, targets())
    box, objects, classes, offset = found.parts.tolist()
    assert box == pytest.approx(0, abs=1e-5)
    assert offset == pytest.approx(0, abs=1e-4)
    assert classes == pytest.approx(0, abs=1e-3)
    assert objects > 1  # none is sure yet
    worse = losses(given + 0.3 * torch.randn(given.shape), targets())
    assert worse.parts[0] > box
    assert worse.parts[3] > offset


def test_following_the_gradient_makes_the_loss_small() -> None:
    given = rows().requires_grad_(True)
    first = losses(given, targets()).total.item()
    optimizer = torch.optim.Adam([given], lr=0.15)
    for _ in range(100):
        optimizer.zero_grad()
        losses(given, targets()).total.backward()
        optimizer.step()
    last = losses(given, targets())
    assert last.total.item() < 0.05 * first
    pairs = assigned(given.detach())
    predicted = boxes_of(given.detach(), *grid(*SIZE, torch.device("cpu"))).reshape(-1, 4)
    assert paired_iou(predicted[pairs.rows], BOXES[pairs.boxes]).min() > 0.8


def test_a_box_of_half_weight_counts_half() -> None:
    given = rows()
    whole = losses(given, targets())
    half = losses(given, targets(torch.full((3,), 0.5)))
    # The parts are means over weights, so that of boxes stays.
    assert half.positives == pytest.approx(whole.positives.item() / 2)
    assert half.parts[0] == pytest.approx(whole.parts[0].item(), rel=1e-5)


def test_in_ignored_regions_no_cell_is_told_that_there_is_nothing() -> None:
    given = rows()
    weights = torch.tensor([1.0, 1.0, 0.0])
    given.requires_grad_(True)
    losses(given, targets(weights)).total.backward()
    assert given.grad is not None
    corners, strides = grid(*SIZE, torch.device("cpu"))
    points = (corners + 0.5) * strides[:, None]
    inside = ((points >= BOXES[2, :2]) & (points < BOXES[2, 2:])).all(1)
    assert inside.any()
    assert (given.grad[1, inside, 4] == 0).all()
    assert (given.grad[0, inside, 4] != 0).all()


def test_overlaps_are_those_of_the_package() -> None:
    random = np.random.default_rng(0)
    corner = random.uniform(0, 50, (20, 2, 2))
    boxes = np.sort(corner, axis=1).reshape(20, 4).astype(np.float32)
    others = np.sort(random.uniform(0, 50, (20, 2, 2)), axis=1).reshape(20, 4).astype(np.float32)
    found = paired_iou(torch.from_numpy(boxes), torch.from_numpy(others)).numpy()
    assert np.allclose(found, np.diagonal(box_iou(boxes, others)), atol=1e-6)


def test_boxes_that_are_further_apart_are_worse() -> None:
    one = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    values = [generalized_iou(one, one + shift).item() for shift in (0.0, 5.0, 10.0, 20.0, 40.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(1)
    assert -1 <= values[-1] < 0
