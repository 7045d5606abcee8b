"""VOC, Open Images, confusion, kinds of errors, single objects, classifiers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.detection_cases import Case, random_case
from tests.test_metrics import found_of, truth_of
from vistadex import metrics
from vistadex.boxes import box_iou
from vistadex.metrics.open_images import ImageLabels
from vistadex.records import FloatArray


def corners(xywh: FloatArray) -> FloatArray:
    """Float64 corners of boxes."""
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def voc_by_loops(case: Case, class_id: int, year: int) -> float:
    """VOCevaldet.m, line by line: detections by falling score, each with its best object."""
    truth, found = case
    mine = found.take(found.classes == class_id)
    mine = mine.take(np.argsort(-mine.scores, kind="stable"))
    there = truth.take(truth.classes == class_id)
    wanted = int((~there.difficult).sum())
    taken: set[int] = set()
    right, wrong = np.zeros(len(mine)), np.zeros(len(mine))
    for d in range(len(mine)):
        best, at = -np.inf, -1
        for g in np.flatnonzero(there.images == mine.images[d]).tolist():
            a, b = corners(mine.boxes_xywh[d : d + 1]), corners(there.boxes_xywh[g : g + 1])
            overlap = float(box_iou(a, b)[0, 0])
            if overlap > best:
                best, at = overlap, g
        if best >= 0.5 and there.difficult[at]:
            continue
        right[d] = best >= 0.5 and at not in taken
        wrong[d] = not right[d]
        if best >= 0.5:
            taken.add(at)
    recall = np.cumsum(right) / wanted
    precision = np.cumsum(right) / np.maximum(np.cumsum(right) + np.cumsum(wrong), 1e-12)
    if year == 2007:
        tops = [precision[recall >= t / 10 - 1e-9] for t in range(11)]
        return sum(float(top.max()) if len(top) else 0.0 for top in tops) / 11
    recalls, precisions = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(precisions) - 2, -1, -1):
        precisions[i] = max(precisions[i], precisions[i + 1])
    steps = [i for i in range(1, len(recalls)) if recalls[i] != recalls[i - 1]]
    return float(sum((recalls[i] - recalls[i - 1]) * precisions[i] for i in steps))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 32), coarse=st.booleans(), year=st.sampled_from([2007, 2010]))
def test_voc_ap_is_that_of_the_development_kit(seed: int, coarse: bool, year: int) -> None:
    case = random_case(seed, images=6, classes=2, coarse=coarse, difficult=0.2)
    found = metrics.voc_ap(*case, year=year)
    for class_id in range(2):
        there = (case.truth.classes == class_id) & ~case.truth.difficult
        expected = voc_by_loops(case, class_id, year) if there.any() else -1
        assert found.per_class[class_id] == pytest.approx(expected, abs=1e-9)


def test_eleven_points_differ_from_all() -> None:
    truth = truth_of([[0, 0, 10, 10], [20, 0, 30, 10]])
    found = found_of([[0, 0, 10, 10], [50, 50, 60, 60], [20, 0, 30, 10]], [0.9, 0.8, 0.7])
    assert metrics.voc_ap(truth, found, year=2010).mean == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert metrics.voc_ap(truth, found, year=2007).mean == pytest.approx((6 + 5 * 2 / 3) / 11)


def test_a_difficult_object_is_neither_right_nor_wrong() -> None:
    truth = truth_of([[0, 0, 10, 10], [20, 0, 30, 10]], difficult=[True, False])
    found = found_of([[0, 0, 10, 10], [20, 0, 30, 10]], [0.9, 0.8])
    assert metrics.voc_ap(truth, found).mean == 1
    assert metrics.voc_ap(truth, found.take(np.array([1]))).mean == 1


def hits_of_image(case: Case, image: int, class_id: int) -> list[tuple[float, float]]:
    """Scores with 1 for right and 0 for wrong, as TensorFlow's evaluation of one image gives."""
    truth, found = case
    there = truth.take((truth.images == image) & (truth.classes == class_id))
    mine = found.take((found.images == image) & (found.classes == class_id))
    mine = mine.take(np.argsort(-mine.scores, kind="stable"))
    if not len(there):  # nobody has looked for the class
        return []
    single, groups = there.take(~there.crowd), there.take(there.crowd)
    overlap = box_iou(corners(mine.boxes_xywh), corners(single.boxes_xywh))
    inside = overlap_of_detections(corners(mine.boxes_xywh), corners(groups.boxes_xywh))
    taken: set[int] = set()
    group_scores: dict[int, float] = {}
    rows = []
    for d, score in enumerate(mine.scores.tolist()):
        best = int(overlap[d].argmax()) if len(single) else -1
        if best >= 0 and overlap[d, best] >= 0.5 and best not in taken:
            taken.add(best)
            rows.append((score, 1.0))
        elif len(groups) and inside[d].max() >= 0.5:
            group = int(inside[d].argmax())
            group_scores[group] = max(score, group_scores.get(group, 0))
        else:
            rows.append((score, 0.0))
    return rows + [(score, 1.0) for score in group_scores.values()]


def overlap_of_detections(a: FloatArray, b: FloatArray) -> FloatArray:
    """(N, M) the share of each box in a that lies in each of b."""
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    return shared / (a[:, 2:] - a[:, :2]).prod(axis=1)[:, None]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 32))
def test_open_images_ap_is_that_of_tensorflow(seed: int) -> None:
    case = random_case(seed, images=6, classes=2, crowd=0.3)
    found = metrics.open_images_ap(*case)
    for class_id in range(2):
        wanted = int((case.truth.classes == class_id).sum())
        rows = [row for image in range(6) for row in hits_of_image(case, image, class_id)]
        rows.sort(key=lambda row: -row[0])
        right = np.cumsum([hit for _, hit in rows])
        precision = right / np.arange(1, len(rows) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        steps = np.diff(right / max(wanted, 1), prepend=0)
        expected = float((steps * best).sum()) if wanted else -1
        assert found.per_class[class_id] == pytest.approx(expected, abs=1e-9)


def labels(*rows: tuple[int, int, bool]) -> ImageLabels:
    images, classes, present = zip(*rows, strict=True)
    return ImageLabels(np.array(images), np.array(classes), np.array(present))


def test_classes_that_nobody_looked_for_are_left_out() -> None:
    box = [0.0, 0, 10, 10]
    truth = truth_of([box], images=[0], classes=[0], image_count=3, class_count=2)
    found = found_of([box, box, box], [0.5, 0.9, 0.8], images=[0, 1, 2], classes=[0, 0, 0])
    assert metrics.open_images_ap(truth, found).mean == 1
    known = labels((2, 0, False))
    assert metrics.open_images_ap(truth, found, labels=known).mean == pytest.approx(1 / 2)
    known = labels((1, 0, True), (2, 0, False))
    assert metrics.open_images_ap(truth, found, labels=known).mean == pytest.approx(1 / 3)


def test_boxes_in_a_group_are_one_hit_together() -> None:
    truth = truth_of([[0, 0, 100, 100], [200, 0, 210, 10]], crowd=[True, False])
    many = [[float(x), 0, x + 10.0, 10] for x in range(0, 90, 10)]
    found = found_of([*many, [200, 0, 210, 10]], [0.9 - x / 100 for x in range(9)] + [0.5])
    assert metrics.open_images_ap(truth, found).mean == 1
    assert metrics.open_images_ap(truth, found.take(np.array([9]))).mean == pytest.approx(0.5)
    alone = metrics.open_images_ap(truth, found.take(np.array([9])), group_weight=0)
    assert alone.mean == 1
    outside = found_of([[95, 0, 120, 10], [200, 0, 210, 10]], [0.9, 0.5])
    # A miss before the one hit of two that are wanted.
    assert metrics.open_images_ap(truth, outside).mean == pytest.approx(0.25)


def test_a_box_is_one_of_the_classes_above_it_too() -> None:
    box = [0.0, 0, 10, 10]
    truth = truth_of([box], classes=[0], class_count=3)
    found = found_of([box, box], [0.9, 0.8], classes=[0, 2])
    plain = metrics.open_images_ap(truth, found)
    assert plain.per_class.tolist() == [1, -1, -1]
    wider = metrics.open_images_ap(truth, found, parents={0: [1], 1: [2]})
    assert wider.per_class.tolist() == [1, 0, 1]


def test_a_class_that_is_absent_is_absent_with_those_below_it() -> None:
    box = [0.0, 0, 10, 10]
    truth = truth_of([box], images=[0], classes=[0], image_count=2, class_count=2)
    found = found_of([box, box], [0.5, 0.9], images=[0, 1], classes=[0, 0])
    above = {0: [1]}
    assert metrics.open_images_ap(truth, found, parents=above).per_class[0] == 1
    known = labels((1, 1, False))
    wider = metrics.open_images_ap(truth, found, labels=known, parents=above)
    assert wider.per_class[0] == pytest.approx(0.5)


def test_a_hierarchy_in_a_circle_ends() -> None:
    truth = truth_of([[0, 0, 9, 9]], classes=[0], class_count=2)
    found = found_of([[0, 0, 9, 9]], [1], classes=[1])
    assert metrics.open_images_ap(truth, found, parents={0: [1], 1: [0]}).per_class[1] == 1


def test_confusion_has_a_place_for_each_kind_of_mistake() -> None:
    truth = truth_of(
        [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 90, 30]],
        classes=[0, 1, 1, 0],
        class_count=2,
        crowd=[False, False, False, True],
    )
    found = found_of(
        [[0, 0, 10, 10], [20, 0, 30, 10], [70, 5, 80, 15], [100, 0, 110, 10], [0, 0, 10, 9]],
        [0.9, 0.9, 0.9, 0.9, 0.1],
        classes=[0, 0, 1, 1, 1],
    )
    counts = metrics.confusion(truth, found).counts
    assert counts.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert not truth.crowd[:3].any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 32))
def test_confusion_counts_every_box_once(seed: int) -> None:
    case = random_case(seed, crowd=0.1)
    counts = metrics.confusion(*case, min_score=0.3).counts
    asked = case.truth.classes[~case.truth.crowd]
    assert counts[:-1].sum(1).tolist() == np.bincount(asked, minlength=3).tolist()
    assert counts[:, :-1].sum() <= (case.found.scores >= 0.3).sum()
    assert counts[-1, -1] == 0


def test_each_kind_of_error_is_told() -> None:
    truth = truth_of(
        [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10], [80, 0, 90, 10]],
        classes=[0, 0, 0, 0, 0],
        class_count=2,
    )
    found = found_of(
        [
            [0, 0, 10, 10],  # right
            [0, 0, 10, 9],  # duplicate
            [20, 0, 30, 10],  # classification
            [45, 0, 55, 10],  # localization
            [65, 0, 75, 10],  # both
            [500, 500, 510, 510],  # background
        ],
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
        classes=[0, 0, 1, 0, 1, 0],
    )
    kinds = metrics.error_kinds(truth, found)
    assert kinds.counts == {
        "localization": 1,
        "classification": 1,
        "duplicate": 1,
        "background": 1,
        "both": 1,
        "missed": 2,
    }
    assert np.flatnonzero(kinds.missed).tolist() == [3, 4]
    assert kinds.gains["classification"] > 0
    assert kinds.gains["localization"] > 0
    assert kinds.gains["missed"] > 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 32))
def test_mending_errors_never_loses(seed: int) -> None:
    kinds = metrics.error_kinds(*random_case(seed, crowd=0.1, difficult=0.1))
    assert min(kinds.gains.values()) >= -1e-9


def test_gains_stay_below_what_is_missing_where_only_one_kind_is_wrong() -> None:
    truth = truth_of([[0, 0, 10, 10], [20, 0, 30, 10]])
    found = found_of([[0, 0, 10, 10], [500, 0, 510, 10], [20, 0, 30, 10]], [0.9, 0.8, 0.7])
    gains = metrics.error_kinds(truth, found).gains
    assert gains["background"] == pytest.approx(1 - metrics.voc_ap(truth, found).mean)
    assert gains["localization"] == 0


def test_single_objects_are_measured_by_class_and_corners() -> None:
    truth = truth_of(
        [[0, 0, 100, 100], [0, 0, 50, 50], [0, 0, 10, 10]],
        images=[0, 1, 2],
        classes=[0, 1, 1],
        image_count=3,
        class_count=2,
    )
    found = found_of(
        [[0, 0, 80, 100], [0, 0, 50, 50], [7, 7, 9, 9]],
        [0.9, 0.8, 0.1],
        images=[0, 1, 1],
        classes=[0, 0, 1],
    )
    sizes = np.array([[200, 100], [100, 100], [50, 50]])
    one = metrics.single_object_measures(truth, found, sizes_wh=sizes, size_wh=(100, 100))
    assert one is not None
    assert one.accuracy == pytest.approx(1 / 3)
    # 20 pixels of 200 are 10 of 100: one of eight coordinates.
    assert one.box_mse == pytest.approx(100 / 8)
    assert one.mean_iou == pytest.approx((0.8 + 1) / 3)
    assert (one.without_box, one.size_wh) == (1, (100, 100))


def test_sets_with_several_objects_have_no_such_measures() -> None:
    truth = truth_of([[0, 0, 1, 1]] * 2)
    sizes = np.array([[9, 9]])
    nothing = found_of([], [])
    assert metrics.single_object_measures(truth, nothing, sizes_wh=sizes, size_wh=(9, 9)) is None


def test_a_classifier_is_measured_by_its_best_classes() -> None:
    found = metrics.classifier_measures(
        images=np.array([0, 1, 2, 2, 3]),
        labels=np.array([0, 0, 1, 2, 2]),
        best=np.array([[0, 1], [1, 0], [2, -1], [-1, -1]]),
        scores=np.array([[0.9, 0.1], [0.6, 0.4], [0.5, 0], [0, 0]]),
        class_count=3,
    )
    assert (found.accuracy, found.top5) == (0.5, 0.75)
    assert found.counts.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]]
    assert found.recall.tolist() == [0.5, -1, 0.5]
    assert found.precision.tolist() == [1, 0, 1]
    assert found.balanced_accuracy == 0.5
    assert found.macro_f1 == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert found.calibration_error == pytest.approx((0.1 + 0.6 + 0.5) / 4)


def test_scores_that_are_shares_are_calibrated() -> None:
    right = np.arange(10) < 8
    found = metrics.classifier_measures(
        images=np.arange(10),
        labels=np.where(right, 0, 1),
        best=np.zeros((10, 1), int),
        scores=np.full((10, 1), 0.8),
        class_count=2,
    )
    assert found.calibration_error == pytest.approx(0)
    assert found.accuracy == 0.8
