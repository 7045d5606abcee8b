"""Detector heads on graphs whose outputs are known, and the detector around them."""

from pathlib import Path

import numpy as np
import pytest

from vistadex import models
from vistadex.boxes import nms
from vistadex.errors import ModelError
from vistadex.models.cards import PRESETS, ModelCard, ModelFile, preprocessing_from_dict
from vistadex.models.detectors import Detector
from vistadex.models.heads import Candidates
from vistadex.models.ports import Port, Signature
from vistadex.models.tiny import constant_output
from vistadex.models.yolo import EndToEndHead
from vistadex.records import DecodedImage, Detections, FloatArray

HEADS = ["yolox", "yolov5", "ultralytics", "end-to-end"]
CELLS = 64 + 16 + 4
"""Of a YOLOX output at 64 pixels: strides 8, 16, 32."""


def output_of(
    head: str, boxes_cxcywh: FloatArray, scores: list[float], ids: list[int]
) -> FloatArray:
    """What a network with that head and 3 classes says to mean these boxes, at 64 pixels."""
    n = len(boxes_cxcywh)
    if head == "end-to-end":
        half = boxes_cxcywh[:, 2:] / 2
        corners = np.hstack([boxes_cxcywh[:, :2] - half, boxes_cxcywh[:, :2] + half])
        return np.hstack([corners, np.array([scores, ids]).T]).astype(np.float32)
    out = np.zeros((CELLS, 8), np.float32)
    out[:, :4] = 1
    out[:n, :4] = boxes_cxcywh
    if head == "yolox":
        cells = np.stack([np.arange(n) % 8, np.arange(n) // 8], axis=1)
        out[:n, :2] = boxes_cxcywh[:, :2] / 8 - cells
        out[:n, 2:4] = np.log(boxes_cxcywh[:, 2:] / 8)
    out[:n, 4] = 0.95
    out[np.arange(n), 5 + np.array(ids)] = np.array(scores) / 0.95
    if head == "ultralytics":
        out[:, 5:] *= 0.95
        return np.delete(out, 4, axis=1).T
    return out


def file_of(
    path: Path, head: str, resize: str = "letterbox-top-left", **changes: object
) -> ModelFile:
    how = {**PRESETS["yolox"], "size_wh": [64, 64], "resize": resize, **changes}
    card = ModelCard(
        name="tiny",
        task="detector",
        head=head,
        classes=("a", "b", "c"),
        input=preprocessing_from_dict(how),
    )
    return ModelFile(path, models.store.file_sha256(path), card)


def picture(width: int, height: int) -> DecodedImage:
    return DecodedImage(np.zeros((height, width, 3), np.uint8), width, height)


def detect(file: ModelFile, image: DecodedImage, **options: object) -> Detections:
    found = models.analyzer(file, **options).load().analyze([image])[0]
    assert isinstance(found, Detections)
    assert found.boxes_xyxy.dtype == found.scores.dtype == np.float32
    assert found.class_ids.dtype == np.int64
    return found


BOXES = np.array(
    [[16, 16, 16, 8], [40, 30, 10, 20], [16.5, 16, 16, 8], [60, 20, 16, 16]], np.float32
)
SCORES = [0.6, 0.9, 0.5, 0.3]
IDS = [0, 2, 1, 0]


@pytest.mark.parametrize("head", HEADS)
def test_every_head_finds_the_boxes_that_the_output_means(head: str, tmp_path: Path) -> None:
    file = file_of(constant_output(tmp_path / "m.onnx", output_of(head, BOXES, SCORES, IDS)), head)
    found = detect(file, picture(128, 64))
    # The picture is twice as large as the input; the last box is cut at its right border.
    expected = [[70, 40, 90, 80], [16, 24, 48, 40], [17, 24, 49, 40], [104, 24, 128, 56]]
    expected_clipped = np.clip(expected, 0, [128, 64, 128, 64])
    np.testing.assert_allclose(found.boxes_xyxy, expected_clipped, atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.9, 0.6, 0.5, 0.3], atol=1e-6)
    assert found.class_ids.tolist() == [2, 0, 1, 0]


@pytest.mark.parametrize("head", HEADS)
def test_no_box_means_empty_arrays_of_the_right_shape(head: str, tmp_path: Path) -> None:
    file = file_of(constant_output(tmp_path / "m.onnx", output_of(head, BOXES, SCORES, IDS)), head)
    found = detect(file, picture(64, 64), min_score=0.95)
    assert found.boxes_xyxy.shape == (0, 4)
    assert found.scores.shape == found.class_ids.shape == (0,)


@pytest.mark.parametrize("head", HEADS)
def test_boxes_outside_the_picture_are_left_out(head: str, tmp_path: Path) -> None:
    below = np.array([[32, 56, 8, 8], [32, 16, 8, 8]], np.float32)
    path = constant_output(tmp_path / "m.onnx", output_of(head, below, [0.9, 0.8], [0, 0]))
    found = detect(file_of(path, head), picture(64, 32))
    assert found.boxes_xyxy.round(3).tolist() == [[28, 12, 36, 20]]


@pytest.mark.parametrize("head", ["yolox", "yolov5", "ultralytics"])
def test_overlapping_boxes_of_one_class_leave_the_better(head: str, tmp_path: Path) -> None:
    path = constant_output(tmp_path / "m.onnx", output_of(head, BOXES, SCORES, [0, 2, 0, 0]))
    found = detect(file_of(path, head), picture(64, 64))
    assert found.scores.tolist() == pytest.approx([0.9, 0.6, 0.3])
    found = detect(file_of(path, head), picture(64, 64), nms_iou=0.99)
    assert found.scores.tolist() == pytest.approx([0.9, 0.6, 0.5, 0.3])


def test_a_centered_letterbox_is_taken_back(tmp_path: Path) -> None:
    box = np.array([[32, 32, 16, 8]], np.float32)
    path = constant_output(tmp_path / "m.onnx", output_of("yolov5", box, [0.9], [0]))
    found = detect(file_of(path, "yolov5", "letterbox-center"), picture(128, 64))
    np.testing.assert_allclose(found.boxes_xyxy, [[48, 24, 80, 40]])


def test_boxes_are_those_of_the_full_picture_when_it_was_decoded_smaller(tmp_path: Path) -> None:
    file = file_of(
        constant_output(tmp_path / "m.onnx", output_of("yolox", BOXES, SCORES, IDS)), "yolox"
    )
    small = DecodedImage(np.zeros((100, 200, 3), np.uint8), 1600, 800)
    large = detect(file, small).boxes_xyxy
    np.testing.assert_allclose(large, detect(file, picture(1600, 800)).boxes_xyxy)
    assert large.max() > 200


def test_at_most_max_boxes_remain(tmp_path: Path) -> None:
    path = constant_output(tmp_path / "m.onnx", output_of("yolox", BOXES, SCORES, IDS))
    options = models.RunOptions(max_boxes=2)
    analyzer = models.ModelAnalyzer(file_of(path, "yolox"), options)
    found = analyzer.load().analyze([picture(64, 64)])[0]
    assert isinstance(found, Detections)
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])


def test_a_class_that_the_card_does_not_name_is_an_error(tmp_path: Path) -> None:
    path = constant_output(
        tmp_path / "m.onnx", output_of("end-to-end", BOXES, SCORES, [0, 7, 1, 0])
    )
    with pytest.raises(ModelError, match="class 7 in the output, the card names 3"):
        detect(file_of(path, "end-to-end"), picture(64, 64))


def test_a_negative_class_is_an_error(tmp_path: Path) -> None:
    path = constant_output(
        tmp_path / "m.onnx", output_of("end-to-end", BOXES, SCORES, [0, -1, 1, 0])
    )
    with pytest.raises(ModelError, match="class -1 in the output, the card names 3"):
        detect(file_of(path, "end-to-end"), picture(64, 64))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("where", ["box", "score"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_an_error(
    number: float, where: str, head: str, tmp_path: Path
) -> None:
    out = output_of(head, BOXES, SCORES, IDS)
    rows = out.T if head == "ultralytics" else out
    rows[1, 0 if where == "box" else 4] = number
    file = file_of(constant_output(tmp_path / "m.onnx", out), head)
    with pytest.raises(ModelError, match="NaN" if np.isnan(number) else "not finite"):
        detect(file, picture(64, 64))


def test_padding_of_an_end_to_end_output_is_passed_over(tmp_path: Path) -> None:
    out = output_of("end-to-end", BOXES, SCORES, IDS)
    out[3] = [0, 0, 0, 0, -np.inf, -1]
    path = constant_output(tmp_path / "m.onnx", out)
    assert len(detect(file_of(path, "end-to-end"), picture(64, 64)).scores) == 3


def test_a_huge_box_is_cut(tmp_path: Path) -> None:
    out = output_of("yolox", BOXES, SCORES, IDS)
    out[:, 4] = 0
    out[3, :4], out[3, 4:] = 1e6, 0.9
    path = constant_output(tmp_path / "m.onnx", out)
    assert detect(file_of(path, "yolox"), picture(64, 64)).boxes_xyxy.tolist() == [[0, 0, 64, 64]]


@pytest.mark.parametrize("head", ["yolox", "yolov5", "ultralytics"])
def test_a_card_with_another_number_of_classes_is_refused(head: str, tmp_path: Path) -> None:
    out = np.zeros((CELLS, 25) if head != "ultralytics" else (24, CELLS), np.float32)
    path = constant_output(tmp_path / "m.onnx", out)
    with pytest.raises(ModelError, match=r"has 2[01] classes, the card names 3"):
        detect(file_of(path, head), picture(64, 64))


def test_rows_that_do_not_fit_the_input_are_an_error(tmp_path: Path) -> None:
    path = constant_output(tmp_path / "m.onnx", np.zeros((99, 8), np.float32))
    with pytest.raises(ModelError, match="99 rows of output, expected 84"):
        detect(file_of(path, "yolox"), picture(64, 64))


def test_suppression_equals_the_plain_one_class_by_class() -> None:
    random = np.random.default_rng(1)
    corners = random.uniform(0, 50, (200, 2))
    boxes = np.hstack([corners, corners + random.uniform(5, 30, (200, 2))]).astype(np.float32)
    scores = random.permutation(np.linspace(0.05, 1, 200)).astype(np.float32)
    class_ids = random.integers(0, 3, 200)

    class Fake:
        overlapping = True

    detector = Detector.__new__(Detector)
    detector._head, detector._nms_iou, detector._max_boxes = Fake(), 0.5, 300
    kept = detector._kept(Candidates(boxes, scores, class_ids))
    each = [np.flatnonzero(class_ids == c) for c in range(3)]
    plain = np.concatenate([i[nms(boxes[i], scores[i], 0.5)] for i in each])
    assert kept.tolist() == plain[np.argsort(-scores[plain])].tolist()


def test_an_end_to_end_output_has_six_columns() -> None:
    def with_output(*shape: int) -> Signature:
        picture = Port("images", "float32", (1, 3, 64, 64))
        return Signature((picture,), (Port("output", "float32", shape),))

    assert EndToEndHead().fit(with_output(1, 300, 6)).class_count is None
    with pytest.raises(ValueError, match="expected"):
        EndToEndHead().fit(with_output(1, 300, 7))


def test_batches_of_three_find_what_batches_of_one_find(tmp_path: Path) -> None:
    out = output_of("yolov5", BOXES, SCORES, IDS)
    path = constant_output(tmp_path / "m.onnx", out, dynamic=True)
    file = file_of(path, "yolov5", dynamic=True)
    shapes = [(64, 64), (128, 64), (64, 64), (30, 90), (128, 63), (64, 64), (64, 64)]
    images = [picture(*shape) for shape in shapes]
    three = models.analyzer(file, batch_size=3).load()
    assert three.batch_size == 3
    assert repr(three.analyze(images)) == repr(models.analyzer(file).load().analyze(images))
    assert three.analyze([]) == []
