"""COCO's average precision equals pycocotools; boxes are matched as it matches them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.detection_cases import Case, by_pycocotools, random_case, stored_case
from vistadex import metrics
from vistadex.metrics import Found, Truth, coco, overlaps
from vistadex.metrics.coco import NUMBERS
from vistadex.metrics.columns import ranks
from vistadex.metrics.overlaps import best_first, overlapping

STORED = (
    0.2945,
    0.480711,
    0.316632,
    0.333892,
    0.33648,
    0.269578,
    0.211111,
    0.67963,
    0.696296,
    0.608333,
    0.691429,
    0.755556,
)
"""What pycocotools 2.0.11 gives for stored_case()."""


def truth_of(boxes: list[list[float]], **more: object) -> Truth:
    number = len(boxes)
    zeros = np.zeros(number, int)
    known = {"classes": zeros, "images": zeros, "image_count": 1, "class_count": 1} | more
    return Truth.of(np.array(boxes, float).reshape(-1, 4), **known)


def found_of(boxes: list[list[float]], scores: list[float], **more: object) -> Found:
    zeros = np.zeros(len(boxes), int)
    known = {"classes": zeros, "images": zeros} | more
    return Found.of(np.array(boxes, float).reshape(-1, 4), scores, **known)


def difference(case: Case) -> float:
    """How far ours is from pycocotools, in its numbers, curves and recalls."""
    ours, theirs = metrics.coco_ap(*case), by_pycocotools(case)
    return max(
        np.abs(np.array(list(ours.numbers.values())) - theirs.stats).max(),
        np.abs(ours.precision - theirs.eval["precision"][..., -1]).max(),
        np.abs(ours.recall - theirs.eval["recall"]).max(),
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    images=st.integers(1, 12),
    classes=st.integers(1, 5),
    coarse=st.booleans(),
    crowd=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_coco_ap_is_that_of_pycocotools(
    seed: int, images: int, classes: int, coarse: bool, crowd: float
) -> None:
    case = random_case(seed, images=images, classes=classes, coarse=coarse, crowd=crowd)
    if len(case.found):  # pycocotools takes no empty results
        assert difference(case) < 1e-9


def test_stored_numbers_stay() -> None:
    numbers = metrics.coco_ap(*stored_case()).numbers
    assert numbers == pytest.approx(dict(zip(NUMBERS, STORED, strict=True)), abs=1e-6)


def test_only_the_surest_hundred_boxes_of_an_image_and_class_count() -> None:
    case = random_case(3, images=2, classes=1)
    many = 130
    noise = found_of(
        [[500, 500, 520, 520]] * many, [0.999] * many, images=np.repeat([0, 1], many // 2)
    )
    noise = noise.take(np.tile(np.flatnonzero(noise.images == 0), 2))
    joined = Found(
        boxes_xywh=np.append(noise.boxes_xywh, case.found.boxes_xywh, axis=0),
        scores=np.append(noise.scores, case.found.scores),
        classes=np.append(noise.classes, case.found.classes),
        images=np.append(noise.images, case.found.images),
    )
    assert difference(Case(case.truth, joined)) < 1e-9
    assert not (metrics.coco_ap(case.truth, joined).recall == 0).all()


@pytest.mark.parametrize("side", [31.9, 32.0, 32.1, 96.0, 96.1])
def test_areas_on_a_limit_are_of_both_ranges(side: float) -> None:
    box = [[0, 0, side, side]]
    case = Case(truth_of(box), found_of(box, [0.5]))
    assert difference(case) < 1e-9


def test_the_truth_found_exactly_has_a_precision_of_1() -> None:
    truth = random_case(5).truth
    found = Found(
        boxes_xywh=truth.boxes_xywh,
        scores=np.full(len(truth), 0.5),
        classes=truth.classes,
        images=truth.images,
    )
    numbers = metrics.coco_ap(truth, found).numbers
    assert {name: numbers[name] for name in ("AP", "AP50", "AR100")} == pytest.approx(
        {"AP": 1, "AP50": 1, "AR100": 1}
    )
    assert metrics.voc_ap(truth, found).mean == pytest.approx(1)
    assert metrics.open_images_ap(truth, found).mean == pytest.approx(1)
    assert sum(metrics.error_kinds(truth, found).counts.values()) == 0


def test_nothing_found_is_a_precision_of_0_and_no_truth_none() -> None:
    nothing = found_of([], [])
    there = truth_of([[0, 0, 10, 10]])
    assert metrics.coco_ap(there, nothing).numbers["AP"] == 0
    assert metrics.voc_ap(there, nothing, year=2007).mean == 0
    numbers = metrics.coco_ap(truth_of([]), nothing).numbers
    assert set(numbers.values()) == {-1.0}
    assert metrics.voc_ap(truth_of([]), nothing).mean == -1
    assert metrics.coco_ap(truth_of([]), found_of([[0, 0, 9, 9]], [1])).numbers["AP"] == -1


def test_each_class_has_its_own_precision() -> None:
    case = random_case(11)
    ap, theirs = metrics.coco_ap(*case), by_pycocotools(case).eval["precision"]
    for class_id in range(case.truth.class_count):
        assert ap.of_class(class_id)["AP"] == pytest.approx(theirs[:, :, class_id, 0, -1].mean())


def test_overlap_with_a_crowd_is_the_share_of_the_detection() -> None:
    crowd = truth_of([[0, 0, 100, 100]], crowd=[True])
    inside = found_of([[10, 10, 20, 20]], [1])
    assert overlapping(inside, crowd, at_least=0).iou.tolist() == [1.0]
    alone = overlapping(inside, crowd, at_least=0, crowd_by_detection=False)
    assert alone.iou.tolist() == [0.01]


def test_pairs_are_of_one_image_and_where_asked_of_one_class() -> None:
    box = [0, 0, 10, 10]
    truth = truth_of([box] * 3, images=[0, 0, 1], classes=[0, 1, 0], image_count=2, class_count=2)
    found = found_of([box] * 2, [1, 1], images=[0, 1], classes=[1, 1])
    same = overlapping(found, truth, at_least=0.5)
    assert list(zip(same.found.tolist(), same.truth.tolist(), strict=True)) == [(0, 1)]
    every = overlapping(found, truth, at_least=0.5, same_class=False)
    pairs = list(zip(every.found.tolist(), every.truth.tolist(), strict=True))
    assert pairs == [(0, 0), (0, 1), (1, 2)]


@given(st.integers(0, 1 << 32))
@settings(max_examples=30, deadline=None)
def test_the_best_overlap_takes_its_boxes_first(seed: int) -> None:
    case = random_case(seed, images=3, coarse=bool(seed % 2))
    pairs = overlapping(case.found, case.truth, at_least=0.1, same_class=False)
    expected, gone_found, gone_truth = set(), set(), set()
    for at in np.argsort(-pairs.iou, kind="stable").tolist():
        f, t = int(pairs.found[at]), int(pairs.truth[at])
        if f not in gone_found and t not in gone_truth:
            expected.add((f, t))
            gone_found.add(f)
            gone_truth.add(t)
    taken = best_first(pairs)
    assert set(zip(taken.found.tolist(), taken.truth.tolist(), strict=True)) == expected


def test_ranks_count_from_0_in_each_group() -> None:
    assert ranks(np.array([1, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 1])).tolist() == [0, 1, 0, 0, 1]
    assert ranks(np.zeros(0, int)).tolist() == []


def test_many_images_are_matched_in_parts_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = random_case(21, images=30, coarse=True, crowd=0.1)
    whole = metrics.coco_ap(*case)
    monkeypatch.setattr(coco, "_AT_A_TIME", 7)
    monkeypatch.setattr(overlaps, "_AT_A_TIME", 11)
    parts = metrics.coco_ap(*case)
    assert (parts.precision == whole.precision).all()
    assert (parts.recall == whole.recall).all()
