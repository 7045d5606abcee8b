"""Every head on small graphs with the signature of its project, whose boxes are known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from vistadex import models
from vistadex.errors import ModelError, ModelQuestionError
from vistadex.models.coco import COCO_LISTS
from vistadex.models.heads import DETECTORS
from vistadex.models.tiny import named_outputs
from vistadex.records import DecodedImage, Detections

SIZE = 64
FLOAT_NCHW = {"images": ("float32", [1, 3, SIZE, SIZE])}
NAMES = ["background", "ant", "bee", "cow"]
Array = np.ndarray[Any, np.dtype[Any]]


def floats(*values: object) -> Array:
    return np.array(values, np.float32)


def logit(score: float) -> float:
    return float(np.log(score / (1 - score)))


def add(path: Path, tmp_path: Path, **said: Any) -> models.ModelFile:
    said = {"classes": NAMES, **said}
    return models.ModelStore(tmp_path / "store").add(path, **said)


def detect(file: models.ModelFile, width: int = SIZE, height: int = SIZE) -> Detections:
    image = DecodedImage(np.zeros((height, width, 3), np.uint8), width, height)
    found = models.analyzer(file).load().analyze([image])[0]
    nothing = models.analyzer(file, min_score=1.0).load().analyze([image])[0]
    assert isinstance(found, Detections)
    assert isinstance(nothing, Detections)
    assert nothing.boxes_xyxy.shape == (0, 4)
    assert nothing.scores.shape == nothing.class_ids.shape == (0,)
    return found


def check(found: Detections, boxes: object, scores: Sequence[float], ids: Sequence[int]) -> None:
    np.testing.assert_allclose(found.boxes_xyxy, np.reshape(boxes, (-1, 4)), atol=1e-3)
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)
    assert found.class_ids.tolist() == list(ids)


def raw_map(grid: int, classes: int) -> Array:
    """A (3, grid, grid, 5 + C) map of logits that says nothing is there."""
    one = np.zeros((3, grid, grid, 5 + classes), np.float32)
    one[..., 4:] = -20
    return one


def three_maps() -> list[Array]:
    """Maps of strides 8, 16, 32, each with one object of half its anchor's size."""
    maps = [raw_map(SIZE // stride, 4) for stride in (8, 16, 32)]
    for one, (anchor, row, column, class_id) in zip(
        maps, [(1, 3, 2, 0), (0, 0, 1, 1), (2, 1, 0, 2)], strict=True
    ):
        one[anchor, row, column, 2:4] = np.log(0.5)
        one[anchor, row, column, 4] = logit(0.9)
        one[anchor, row, column, 5 + class_id] = logit(0.8)
    return maps


V3_BOXES = [[20 - 4, 28 - 7.5, 24, 35.5], [24 - 7.5, 0, 31.5, 8 + 15.25], [0, 0, 64, 64]]
V4_BOXES = [[20 - 4.75, 19, 24.75, 37], [24 - 9, 0, 33, 8 + 18.75], [0, 0, 64, 64]]
LAYOUTS: Mapping[str, Any] = {
    "[N, 3 * (5 + C), g, g]": lambda m: m.transpose(0, 3, 1, 2).reshape(1, -1, *m.shape[1:3]),
    "[N, 3, g, g, 5 + C]": lambda m: m[None],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("head", "boxes"), [("yolov3", V3_BOXES), ("yolov4", V4_BOXES)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_raw_maps_are_read_in_any_order(
    order: Sequence[int], head: str, boxes: object, layout: str, tmp_path: Path
) -> None:
    maps = [LAYOUTS[layout](one) for one in three_maps()]
    outputs = {f"out{i}": maps[i] for i in order}
    file = add(named_outputs(tmp_path / "m.onnx", FLOAT_NCHW, outputs), tmp_path, head=head)
    assert file.card.input.resize == "letterbox-center"
    check(detect(file), boxes, [0.72] * 3, [0, 1, 2])


def test_the_centers_of_yolov4_reach_beyond_their_cells(tmp_path: Path) -> None:
    maps = three_maps()
    maps[0][1, 3, 2, :2] = [20, -20]
    outputs = {f"out{i}": one[None] for i, one in enumerate(maps)}
    path = named_outputs(tmp_path / "m.onnx", FLOAT_NCHW, outputs)
    x, y = (2 + 1.1) * 8, (3 - 0.1) * 8
    box = detect(add(path, tmp_path, head="yolov4")).boxes_xyxy[0]
    np.testing.assert_allclose(box, [x - 4.75, y - 9, x + 4.75, y + 9], atol=1e-3)
    x, y = 3 * 8, 3 * 8
    box = detect(add(path, tmp_path, head="yolov3")).boxes_xyxy[0]
    np.testing.assert_allclose(box, [x - 4, y - 7.5, x + 4, y + 7.5], atol=1e-3)


def test_yolov4_of_the_model_zoo_takes_its_channels_last(tmp_path: Path) -> None:
    maps = three_maps()
    for one in maps:
        one[..., 4:] = 1 / (1 + np.exp(-one[..., 4:]))
    names = ("Identity:0", "Identity_1:0", "Identity_2:0")
    outputs = {name: one.transpose(1, 2, 0, 3)[None] for name, one in zip(names, maps, strict=True)}
    shapes = {name: ["n", "g", "g", 3, 9] for name in names}
    inputs = {"input_1:0": ("float32", [1, SIZE, SIZE, 3])}
    path = named_outputs(tmp_path / "m.onnx", inputs, outputs, shapes=shapes)
    check(detect(add(path, tmp_path, head="yolov4-zoo")), V4_BOXES, [0.72] * 3, [0, 1, 2])


@pytest.mark.parametrize("tiny", [False, True])
def test_yolov3_of_the_model_zoo_is_told_the_size_of_its_input(tiny: bool, tmp_path: Path) -> None:
    """Its boxes are fractions times image_shape here: rows and columns change if it is wrong."""
    indices = np.array([[0, 2, 1], [0, 0, 3], [-1, -1, -1]], np.int64)
    scores = np.zeros((1, 4, 5), np.float32)
    scores[0, 2, 1], scores[0, 0, 3], scores[0, -1, -1] = 0.9, 0.7, 0.8
    boxes = np.zeros((1, 5, 4), np.float32)
    boxes[0, 1], boxes[0, 3:] = [0.125, 0.25, 0.5, 0.75], [0, 0, 1, 1]
    outputs = {
        "yolonms_layer_1/ExpandDims_1:0": boxes,
        "yolonms_layer_1/ExpandDims_3:0": scores,
        "yolonms_layer_1/concat_2:0": indices[None] if tiny else indices,
    }
    names = list(outputs)
    shape = np.array([1, 2], np.float32)
    nodes = [
        helper.make_node("Concat", ["image_shape", "image_shape"], ["yxyx"], axis=1),
        helper.make_node("Mul", [f"{names[0]}_value", "yxyx"], [names[0]]),
    ]
    inputs = {
        "input_1": ("float32", ["N", 3, SIZE // 2, SIZE]),
        "image_shape": (shape.dtype.name, ["N", 2]),
    }
    shapes = {
        names[0]: [1, "A", 4],
        names[1]: [1, 4, "A"],
        names[2]: [1, "K", 3] if tiny else ["K", 3],
    }
    path = named_outputs(tmp_path / "m.onnx", inputs, outputs, shapes=shapes, nodes=nodes)
    file = add(path, tmp_path)
    assert file.card.head == "yolov3-zoo"
    check(detect(file, 64, 32), [[16, 4, 48, 16], [0, 0, 64, 32]], [0.9, 0.7], [2, 0])


def test_yolov4_of_pytorch_is_recognized(tmp_path: Path) -> None:
    outputs = {
        "boxes": floats([[[0.25, 0.5, 0.75, 1]], [[0, 0, 0.5, 0.25]], [[0, 0, 0.5, 0.25]]])[0][
            None
        ],
        "confs": floats([[0, 0.1, 0.9, 0], [0.6, 0, 0, 0], [0.5, 0, 0, 0]]),
    }
    file = add(named_outputs(tmp_path / "m.onnx", FLOAT_NCHW, outputs), tmp_path)
    assert file.card.head == "yolov4-pytorch"
    check(detect(file), [[16, 32, 48, 64], [0, 0, 32, 16]], [0.9, 0.6], [2, 0])


def distances(*strides: float) -> Array:
    """Logits of 8 bins for each of four distances: certain of whole numbers of strides."""
    bins = np.full((4, 8), -50, np.float32)
    for side, value in enumerate(strides):
        low = int(value)
        bins[side, low] = 50
        if value != low:
            bins[side, low + 1] = 50
    return bins.reshape(-1)


def test_nanodet_maps_are_told_apart_by_name(tmp_path: Path) -> None:
    outputs: dict[str, Array] = {}
    for stride in (32, 8, 16):
        cells = (SIZE // stride) ** 2
        outputs[f"dis_pred_stride_{stride}"] = np.zeros((1, cells, 32), np.float32)
        outputs[f"cls_pred_stride_{stride}"] = np.zeros((1, cells, 4), np.float32)
    outputs["cls_pred_stride_8"][0, 8 * 3 + 2, 1] = 0.9
    outputs["dis_pred_stride_8"][0, 8 * 3 + 2] = distances(1, 2, 3, 0.5)
    outputs["cls_pred_stride_32"][0, 2, 3] = 0.5
    outputs["dis_pred_stride_32"][0, 2] = distances(0.5, 0.5, 0.5, 0)
    file = add(named_outputs(tmp_path / "m.onnx", FLOAT_NCHW, outputs), tmp_path)
    assert (file.card.head, file.card.input.color) == ("nanodet", "BGR")
    check(detect(file), [[12, 12, 44, 32], [0, 32, 32, 48]], [0.9, 0.5], [1, 3])


def test_nanodet_plus_has_points_at_the_corners_of_cells(tmp_path: Path) -> None:
    output = np.zeros((1, 64 + 16 + 4 + 1, 4 + 32), np.float32)
    output[0, 8 * 3 + 2, 1] = 0.9
    output[0, 8 * 3 + 2, 4:] = distances(1, 2, 3, 0.5)
    output[0, -1, 3] = 0.5
    output[0, -1, 4:] = distances(0, 0, 0.5, 0.5)
    path = named_outputs(tmp_path / "m.onnx", FLOAT_NCHW, {"output": output})
    file = add(path, tmp_path, head="nanodet-plus")
    check(detect(file), [[8, 8, 40, 28], [0, 0, 32, 32]], [0.9, 0.5], [1, 3])


TRIPLE = {
    "boxes": floats([[8, 16, 24, 64], [0, 0, 32, 32], [1, 1, 2, 2]])[0],
    "labels": np.array([3, 1, 1], np.int64),
    "scores": floats(0.5, 0.9, 0.1),
}


@pytest.mark.parametrize("order", [("boxes", "labels", "scores"), ("scores", "boxes", "labels")])
@pytest.mark.parametrize("names", [True, False])
def test_torchvision_is_read_by_name_or_type(
    names: bool, order: Sequence[str], tmp_path: Path
) -> None:
    outputs = {(key if names else f"25{i}"): TRIPLE[key] for i, key in enumerate(order)}
    shapes = {key: ["K", *value.shape[1:]] for key, value in outputs.items()}
    inputs = {"images": ("float32", [3, SIZE, SIZE])}
    path = named_outputs(tmp_path / "m.onnx", inputs, outputs, shapes=shapes)
    file = add(path, tmp_path, head="torchvision")
    check(detect(file), [[0, 0, 32, 32], [8, 16, 24, 64]], [0.9, 0.5], [1, 3])


def test_a_network_without_batch_axis_takes_one_picture_at_a_time(tmp_path: Path) -> None:
    inputs = {"images": ("float32", ["N", 3, SIZE, SIZE])}
    file = add(named_outputs(tmp_path / "m.onnx", inputs, TRIPLE), tmp_path, head="torchvision")
    assert models.analyzer(file).load().batch_size == 1
    with pytest.raises(ModelError, match="fixed at batches of 1, wanted are 4"):
        models.analyzer(file, batch_size=4).load()


def test_no_boxes_at_all_are_no_boxes(tmp_path: Path) -> None:
    outputs = {key: value[:0] for key, value in TRIPLE.items()}
    shapes = {key: ["K", *value.shape[1:]] for key, value in outputs.items()}
    path = named_outputs(tmp_path / "m.onnx", FLOAT_NCHW, outputs, shapes=shapes)
    assert len(detect(add(path, tmp_path, head="torchvision")).scores) == 0


def test_ssd_of_the_model_zoo_has_boxes_from_0_to_1(tmp_path: Path) -> None:
    outputs = {
        "bboxes": (TRIPLE["boxes"] / SIZE)[None],
        "labels": TRIPLE["labels"][None],
        "scores": TRIPLE["scores"][None],
    }
    inputs = {"image": ("float32", [1, 3, SIZE, SIZE])}
    shapes = {"bboxes": [1, "K", 4], "labels": [1, "K"], "scores": [1, "K"]}
    path = named_outputs(tmp_path / "m.onnx", inputs, outputs, shapes=shapes)
    file = add(path, tmp_path, head="ssd")
    assert file.card.input.resize == "stretch"
    check(detect(file, 128, 64), [[0, 0, 64, 32], [16, 16, 48, 64]], [0.9, 0.5], [1, 3])


@pytest.mark.parametrize(
    "names",
    [
        ("detection_boxes:0", "detection_classes:0", "detection_scores:0", "num_detections:0"),
        ("a/detection_boxes", "b/detection_classes", "detection_scores", "num_detections"),
        tuple(f"TFLite_Detection_PostProcess{end}" for end in ("", ":1", ":2", ":3")),
    ],
)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0)])
@pytest.mark.parametrize("count", ["int32", "float32"])
def test_tensorflow_is_read_by_name_up_to_its_count(
    count: str, order: Sequence[int], names: Sequence[str], tmp_path: Path
) -> None:
    values = [
        floats([[0, 0, 0.5, 0.25], [0.25, 0.5, 1, 1], [0, 0, 1, 1]]),
        floats([1, 3, 2]),
        floats([0.6, 0.9, 0.8]),
        np.array([2], count),
    ]
    outputs = {names[i]: values[i] for i in order}
    inputs = {"image_tensor:0": ("uint8", ["N", SIZE, SIZE, 3])}
    file = add(named_outputs(tmp_path / "m.onnx", inputs, outputs), tmp_path)
    assert (file.card.head, file.card.input.scale) == ("tensorflow", 1)
    check(detect(file), [[32, 16, 64, 64], [0, 0, 16, 32]], [0.9, 0.6], [3, 1])


def test_other_outputs_of_tensorflow_are_passed_over(tmp_path: Path) -> None:
    outputs = {
        "raw_detection_boxes": np.zeros((1, 9, 4), np.float32),
        "detection_scores": floats([0.9]),
        "detection_classes": floats([2]),
        "detection_boxes": floats([[0, 0, 0.5, 1]]),
        "num_detections": floats(1),
        "detection_multiclass_scores": np.zeros((1, 1, 4), np.float32),
    }
    file = add(named_outputs(tmp_path / "m.onnx", FLOAT_NCHW, outputs), tmp_path)
    check(detect(file), [[0, 0, 64, 32]], [0.9], [2])


def test_pixels_enter_a_uint8_input_as_they_are(tmp_path: Path) -> None:
    """The score is the share of red in the first pixel: 200 of 255."""
    outputs = {
        "detection_boxes": floats([[0, 0, 1, 1]]),
        "detection_classes": floats([1]),
        "detection_scores": floats([1 / 255]),
        "num_detections": floats(1),
        "starts": np.array([0, 5, 7, 0], np.int64),
        "ends": np.array([1, 6, 8, 1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=1),
        helper.make_node("Slice", ["float", "starts_value", "ends_value"], ["red"]),
        helper.make_node("ReduceMax", ["red"], ["first"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["first", "detection_scores_value"], ["detection_scores"]),
    ]
    inputs = {"image": ("uint8", [1, SIZE, SIZE, 3])}
    file = add(named_outputs(tmp_path / "m.onnx", inputs, outputs, nodes=nodes), tmp_path)
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[5, 7, 0] = 200
    found = models.analyzer(file).load().analyze([DecodedImage(pixels, SIZE, SIZE)])[0]
    assert isinstance(found, Detections)
    assert found.scores.tolist() == pytest.approx([200 / 255])


def test_a_uint8_input_takes_no_normalized_pixels(tmp_path: Path) -> None:
    inputs = {"images": ("uint8", [1, SIZE, SIZE, 3])}
    path = named_outputs(tmp_path / "m.onnx", inputs, TRIPLE)
    with pytest.raises(ModelError, match=r"from 0 to 255, the card says scale 0\.0039"):
        add(path, tmp_path, head="torchvision")


@pytest.mark.parametrize("names", [("logits", "pred_boxes"), ("pred_logits", "pred_boxes"), None])
def test_detr_leaves_out_no_object(names: Sequence[str] | None, tmp_path: Path) -> None:
    probabilities = floats(
        [0.05, 0.05, 0.8, 0.05, 0.05], [0.01, 0.01, 0.01, 0.01, 0.96], [0.6, 0.1, 0.1, 0.1, 0.1]
    )
    boxes = floats([0.5, 0.25, 0.5, 0.25], [0.5, 0.5, 1, 1], [0.25, 0.5, 0.25, 0.5])
    logits, corners = names or ("1", "2")
    outputs = {corners: boxes[None], logits: np.log(probabilities)[None] + np.float32(3)}
    path = named_outputs(tmp_path / "m.onnx", FLOAT_NCHW, outputs)
    with pytest.raises(ModelQuestionError, match=r"could fit: .*detr \(4 classes\), rt-detr \(5 "):
        add(path, tmp_path)
    file = add(path, tmp_path, head="detr")
    check(detect(file), [[16, 8, 48, 24], [8, 16, 24, 48]], [0.8, 0.6], [2, 0])


def test_the_pixel_mask_of_detr_is_all_ones(tmp_path: Path) -> None:
    """The mask's mean scales the boxes here, so zeros would empty them."""
    outputs = {"logits": floats([[0, 9, 0, 0, 0]]), "pred_boxes": floats([[0.5, 0.5, 1, 1]])}
    nodes = [
        helper.make_node("Cast", ["pixel_mask"], ["mask"], to=1),
        helper.make_node("ReduceMean", ["mask"], ["mean"], axes=[1, 2], keepdims=1),
        helper.make_node("Mul", ["pred_boxes_value", "mean"], ["pred_boxes"]),
    ]
    inputs = {
        "pixel_values": ("float32", ["N", 3, "H", "W"]),
        "pixel_mask": ("int64", ["N", "H", "W"]),
    }
    path = named_outputs(tmp_path / "m.onnx", inputs, outputs, nodes=nodes)
    file = add(path, tmp_path, head="detr", size=SIZE)
    assert detect(file, 64, 32).boxes_xyxy.tolist() == [[0, 0, 64, 32]]


def test_rt_detr_gives_every_class_above_the_score(tmp_path: Path) -> None:
    scores = floats([0.9, 0.1, 0.6, 0.1], [0.2, 0.2, 0.2, 0.1])
    outputs = {
        "logits": np.log(scores / (1 - scores))[None],
        "pred_boxes": floats([[0.5, 0.25, 0.5, 0.25], [0.5, 0.5, 1, 1]]),
    }
    path = named_outputs(tmp_path / "m.onnx", FLOAT_NCHW, outputs)
    file = add(path, tmp_path, head="rt-detr")
    assert file.card.input.resize == "stretch"
    check(detect(file), [[16, 8, 48, 24]] * 2, [0.9, 0.6], [0, 2])


@pytest.mark.parametrize("order", [("labels", "boxes", "scores"), ("scores", "labels", "boxes")])
def test_rt_detr_is_told_the_size_its_boxes_are_in(order: Sequence[str], tmp_path: Path) -> None:
    """Boxes are fractions times orig_target_sizes, width before height, as in that project."""
    values = {
        "labels": np.array([[3, 1]], np.int64),
        "boxes": floats([[0.25, 0, 0.5, 1], [0, 0, 1, 1]]),
        "scores": floats([0.7, 0.1]),
    }
    nodes = [
        helper.make_node("Cast", ["orig_target_sizes"], ["wh"], to=1),
        helper.make_node("Concat", ["wh", "wh"], ["whwh"], axis=1),
        helper.make_node("Mul", ["boxes_value", "whwh"], ["boxes"]),
    ]
    inputs = {
        "images": ("float32", ["N", 3, SIZE // 2, SIZE]),
        "orig_target_sizes": ("int64", ["N", 2]),
    }
    outputs = {key: values[key] for key in order}
    file = add(named_outputs(tmp_path / "m.onnx", inputs, outputs, nodes=nodes), tmp_path)
    assert file.card.head == "rt-detr-deploy"
    check(detect(file, 128, 128), [[32, 0, 64, 128]], [0.7], [3])


def test_efficientdet_rows_are_picture_y_x_y_x_score_class(tmp_path: Path) -> None:
    output = floats([[0, 8, 16, 24, 48, 0.9, 2], [0, 0, 0, 9, 9, 0.1, 1]])
    inputs = {"image_arrays:0": ("uint8", ["N", SIZE, SIZE, 3])}
    path = named_outputs(tmp_path / "m.onnx", inputs, {"detections:0": output})
    file = add(path, tmp_path, head="efficientdet")
    check(detect(file), [[16, 8, 48, 24]], [0.9], [2])


def test_efficientdet_anchors_are_by_level_cell_scale_and_ratio(tmp_path: Path) -> None:
    side, cells = 128, (256, 64, 16, 4, 1)
    count = 9 * sum(cells)
    regression = np.zeros((1, count, 4), np.float32)
    scores = np.zeros((1, count, 4), np.float32)
    # Stride 8, column 5, row 3, first scale, wide; and the one cell of stride 128, middle scale.
    first, last = 9 * (3 * 16 + 5) + 1, count - 9 + 3
    scores[0, first, 1], scores[0, last, 2] = 0.9, 0.5
    regression[0, first] = [0.5, 0.25, np.log(2), np.log(0.5)]
    regression[0, last, 2:] = np.log(0.1)
    outputs = {
        "classification": scores,
        "anchors": np.zeros((1, count, 4), np.float32),
        "regression": regression,
    }
    inputs = {"images": ("float32", [1, 3, side, side])}
    path = named_outputs(tmp_path / "m.onnx", inputs, outputs)
    file = add(path, tmp_path, head="efficientdet-raw")
    wide, high = 32 * 1.4, 32 * 0.7
    x, y = 44 + 0.25 * wide, 28 + 0.5 * high
    half = 512 * 2 ** (1 / 3) * 0.1 / 2
    boxes = [
        [x - wide / 4, y - high, x + wide / 4, y + high],
        [64 - half, 64 - half, 64 + half, 64 + half],
    ]
    check(detect(file, side, side), boxes, [0.9, 0.5], [1, 2])


WRONG: Mapping[str, dict[str, Array]] = {
    "yolov3": {f"o{i}": np.zeros((1, 28, g, g), np.float32) for i, g in enumerate((8, 4, 2))},
    "yolov4": {f"o{i}": np.zeros((1, 27, g, g), np.float32) for i, g in enumerate((8, 4))},
    "yolov4-zoo": {"o": np.zeros((1, 8, 8, 3, 9), np.float32)},
    "yolov3-zoo": dict(TRIPLE),
    "yolov4-pytorch": {
        "boxes": np.zeros((1, 9, 4), np.float32),
        "c": np.zeros((1, 9, 4), np.float32),
    },
    "nanodet": {f"o{i}": np.zeros((1, g * g, 32), np.float32) for i, g in enumerate((8, 4, 2))},
    "nanodet-plus": {"o": np.zeros((1, 84, 36), np.float32)},
    "torchvision": {k: v for k, v in TRIPLE.items() if k != "labels"},
    "ssd": dict(TRIPLE),
    "tensorflow": {f"Call:{i}": np.zeros((1, 9), np.float32) for i in range(4)},
    "detr": {f"o{i}": np.zeros((1, 9, 4), np.float32) for i in range(2)},
    "rt-detr": {
        "logits": np.zeros((1, 9, 4), np.float32),
        "pred_boxes": np.zeros((1, 8, 4), np.float32),
    },
    "rt-detr-deploy": {k: v[None] for k, v in TRIPLE.items()},
    "efficientdet": {"o": np.zeros((1, 9, 6), np.float32)},
    "efficientdet-raw": {
        "regression": np.zeros((1, 99, 4), np.float32),
        "classification": np.zeros((1, 99, 4), np.float32),
    },
    "yolox": {f"o{i}": np.zeros((1, 84, 9), np.float32) for i in range(2)},
    "yolov5": {"o": np.zeros((84, 9), np.float32)},
    "ultralytics": {"o": np.zeros((1, 4, 84), np.float32)},
    "end-to-end": {"o": np.zeros((1, 9, 7), np.float32)},
}


@pytest.mark.parametrize("head", DETECTORS)
def test_another_signature_is_refused_with_what_was_expected(head: str, tmp_path: Path) -> None:
    path = named_outputs(tmp_path / "m.onnx", FLOAT_NCHW, WRONG[head])
    with pytest.raises(ModelError, match=r"m\.onnx: .*(expected|have).*; choose another --head"):
        add(path, tmp_path, head=head)
    assert models.ModelStore(tmp_path / "store").list() == []


def test_an_input_that_the_head_does_not_know_is_refused(tmp_path: Path) -> None:
    inputs = {**FLOAT_NCHW, "threshold": ("float32", [1])}
    path = named_outputs(tmp_path / "m.onnx", inputs, TRIPLE)
    with pytest.raises(ModelError, match=r"threshold float32 \[1\] is not known to head torchv"):
        add(path, tmp_path, head="torchvision")


def test_two_pictures_at_once_are_refused(tmp_path: Path) -> None:
    inputs = {**FLOAT_NCHW, "other": ("float32", [1, 3, SIZE, SIZE])}
    path = named_outputs(tmp_path / "m.onnx", inputs, TRIPLE)
    with pytest.raises(ModelError, match="expected one for pictures"):
        add(path, tmp_path, head="torchvision")


def test_a_graph_with_other_inputs_is_not_rewritten(tmp_path: Path) -> None:
    outputs = {key: value[None] for key, value in TRIPLE.items()}
    inputs = {**FLOAT_NCHW, "orig_target_sizes": ("int64", [1, 2])}
    path = named_outputs(tmp_path / "m.onnx", inputs, outputs)
    with pytest.raises(ModelError, match=r"are for graphs with one input \[N, 3, height, width\]"):
        add(path, tmp_path, dynamic_size=True)


def test_maps_of_another_input_are_an_error(tmp_path: Path) -> None:
    outputs = {f"o{i}": raw_map(g, 4)[None] for i, g in enumerate((16, 8, 4))}
    path = named_outputs(tmp_path / "m.onnx", FLOAT_NCHW, outputs)
    with pytest.raises(ModelError, match="a map of 16x16 cells at stride 8, expected 8x8"):
        add(path, tmp_path, head="yolov3")


def test_the_lists_of_coco_are_by_the_ids_that_networks_say() -> None:
    assert COCO_LISTS["coco-91"][:2] == ("background", "person")
    assert (COCO_LISTS["coco-91"][90], COCO_LISTS["coco-91"][12]) == ("toothbrush", "N/A")
    assert COCO_LISTS["coco-90"] == COCO_LISTS["coco-91"][1:]
    assert [name for name in COCO_LISTS["coco-90"] if name != "N/A"] == list(COCO_LISTS["coco"])
