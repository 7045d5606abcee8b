"""vistadex.boxes: conversions, overlap, suppression."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vistadex import boxes
from vistadex.records import FloatArray

corner = st.integers(0, 500).map(float)
xyxy = st.lists(st.tuples(corner, corner, corner, corner), max_size=8).map(
    lambda rows: np.sort(np.array(rows, np.float32).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
)


@given(xyxy)
def test_conversions_are_inverse(some: FloatArray) -> None:
    assert np.array_equal(boxes.xywh_to_xyxy(boxes.xyxy_to_xywh(some)), some)
    assert np.array_equal(boxes.cxcywh_to_xyxy(boxes.xyxy_to_cxcywh(some)), some)


@given(xyxy, xyxy)
def test_iou_is_symmetric_and_between_0_and_1(a: FloatArray, b: FloatArray) -> None:
    iou = boxes.box_iou(a, b)
    assert iou.shape == (len(a), len(b))
    assert np.array_equal(iou, boxes.box_iou(b, a).T)
    assert ((iou >= 0) & (iou <= 1)).all()


def test_iou_of_known_boxes() -> None:
    a = np.array([[0, 0, 10, 10], [0, 0, 0, 0]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 0, 0]], np.float32)
    assert np.allclose(boxes.box_iou(a, b), [[1, 1 / 3, 0, 0], [0, 0, 0, 0]])


@given(xyxy, st.data())
def test_nms_is_idempotent_and_keeps_the_best(some: FloatArray, data: st.DataObject) -> None:
    scores = data.draw(arrays(np.float32, len(some), elements=st.floats(0, 1, width=32)))
    kept = boxes.nms(some, scores, 0.5)
    again = boxes.nms(some[kept], scores[kept], 0.5)
    assert np.array_equal(again, np.arange(len(kept)))
    if len(some):
        assert scores[kept[0]] == scores.max()
        assert (np.diff(scores[kept]) <= 0).all()


@given(xyxy)
def test_clipped_boxes_lie_inside(some: FloatArray) -> None:
    inside = boxes.clip(some, 100, 50)
    assert (inside >= 0).all()
    assert (inside[:, [0, 2]] <= 100).all()
    assert (inside[:, [1, 3]] <= 50).all()
