"""What is recognized from a file with certainty, and what is asked."""

from pathlib import Path

import numpy as np
import pytest

from vistadex import models
from vistadex.errors import ModelError, ModelQuestionError, NotFoundError
from vistadex.models.cards import PRESETS, ModelCard, preprocessing_from_dict
from vistadex.models.tiny import constant_output, mean_color, named_outputs

ULTRALYTICS = {"task": "detect", "stride": "32", "imgsz": "[64, 64]", "license": "AGPL-3.0"}
NAMES = {"names": "{0: 'ant', 1: \"bee's\"}"}
CARD = ModelCard(
    name="inner",
    task="detector",
    head="yolov5",
    classes=("a", "b"),
    input=preprocessing_from_dict({**PRESETS["ultralytics"], "size_wh": [64, 64]}),
)


def resolve(path: Path, tmp_path: Path, task: models.cards.Task = "detector") -> ModelCard:
    return models.resolve(str(path), task=task, store=models.ModelStore(tmp_path / "store")).card


@pytest.mark.parametrize(("shape", "head"), [((6, 84), "ultralytics"), ((300, 6), "end-to-end")])
def test_an_ultralytics_export_says_everything(
    shape: tuple[int, ...], head: str, tmp_path: Path
) -> None:
    path = constant_output(
        tmp_path / "m.onnx", np.zeros(shape, np.float32), metadata={**ULTRALYTICS, **NAMES}
    )
    card = resolve(path, tmp_path)
    assert (card.name, card.head, card.task) == ("m", head, "detector")
    assert card.classes == ("ant", "bee's")
    assert (card.input.color, card.input.resize, card.input.stride) == (
        "RGB",
        "letterbox-center",
        32,
    )
    assert card.license == "AGPL-3.0"
    assert not card.input.dynamic


def test_a_dynamic_ultralytics_export_has_the_size_of_its_metadata(tmp_path: Path) -> None:
    path = constant_output(
        tmp_path / "m.onnx",
        np.zeros((6, 84), np.float32),
        dynamic=True,
        metadata={**ULTRALYTICS, **NAMES, "imgsz": "[64, 96]"},
    )
    card = resolve(path, tmp_path)
    assert card.input.dynamic
    assert card.input.size_wh == (96, 64)


def test_a_yolov5_export_says_everything(tmp_path: Path) -> None:
    path = constant_output(
        tmp_path / "m.onnx", np.zeros((252, 7), np.float32), metadata={"stride": "32", **NAMES}
    )
    assert resolve(path, tmp_path).head == "yolov5"


def test_an_ultralytics_classifier_says_everything(tmp_path: Path) -> None:
    metadata = {**ULTRALYTICS, **NAMES, "task": "classify", "stride": "1"}
    path = mean_color(tmp_path / "m.onnx", np.ones((3, 2)), softmax=True, metadata=metadata)
    card = resolve(path, tmp_path, "classifier")
    assert (card.head, card.input.resize) == ("probabilities", "resize-shorter-center-crop")


def test_an_export_for_another_task_is_refused(tmp_path: Path) -> None:
    metadata = {**ULTRALYTICS, **NAMES, "task": "pose"}
    path = constant_output(tmp_path / "m.onnx", np.zeros((56, 84), np.float32), metadata=metadata)
    with pytest.raises(ModelError, match="an export for 'pose'"):
        resolve(path, tmp_path)


@pytest.mark.parametrize("names", ["{0: 'a', 2: 'b'}", "__import__('os')", "[", "7"])
def test_names_that_can_not_be_read_are_an_error(names: str, tmp_path: Path) -> None:
    metadata = {**ULTRALYTICS, "names": names}
    path = constant_output(tmp_path / "m.onnx", np.zeros((6, 84), np.float32), metadata=metadata)
    with pytest.raises(ModelError, match=r"m\.onnx metadata names: "):
        resolve(path, tmp_path)


@pytest.mark.parametrize(
    ("shape", "looks"),
    [
        ((84, 8), "heads that could fit: yolox (3 classes), yolov5 (3 classes)\n"),
        ((252, 8), "heads that could fit: yolov5 (3 classes)\n"),
        ((7, 84), "heads that could fit: ultralytics (3 classes)\n"),
        ((300, 6), "heads that could fit: end-to-end\n"),
        ((85, 42), "heads that could fit: yolov5 (37 classes), nanodet-plus (10 classes)\n"),
        ((100, 7), "heads that could fit: efficientdet\n"),
        ((5, 5, 5), "heads that could fit: none of those known\n"),
    ],
)
def test_a_layout_that_is_not_certain_is_asked_for(
    shape: tuple[int, ...], looks: str, tmp_path: Path
) -> None:
    path = constant_output(tmp_path / "m.onnx", np.zeros(shape, np.float32))
    with pytest.raises(ModelQuestionError) as asked:
        resolve(path, tmp_path)
    text = str(asked.value)
    assert looks in text
    assert "input: images float32 [1, 3, 64, 64]\noutput: output float32 [1, " in text
    assert f"vistadex models add {path} --head " in text
    assert "--classes names.txt" in text


@pytest.mark.parametrize(
    ("shape", "head", "lists"),
    [
        ((84, 85), None, " or coco"),
        ((84, 95), "yolov5", " or coco-90"),
        ((84, 96), "yolov5", " or coco-91"),
        ((84, 8), None, ""),
        ((100, 7), None, " or coco-91"),
        ((300, 6), None, ""),
    ],
)
def test_the_lists_of_names_that_fit_the_classes_are_named(
    shape: tuple[int, ...], head: str | None, lists: str, tmp_path: Path
) -> None:
    path = constant_output(tmp_path / "m.onnx", np.zeros(shape, np.float32))
    with pytest.raises(ModelQuestionError) as asked:
        models.ModelStore(tmp_path / "store").add(path, head=head)
    assert f"--classes names.txt (one name a line){lists} (with --try" in str(asked.value)


def test_the_classes_of_a_classifier_are_no_list_of_coco(tmp_path: Path) -> None:
    path = mean_color(tmp_path / "c.onnx", np.ones((3, 80)), softmax=True)
    with pytest.raises(ModelQuestionError, match="It has 80 classes") as asked:
        models.ModelStore(tmp_path / "store").add(path)
    assert "coco" not in str(asked.value)


def test_tensorflow_s_detectors_count_from_0_in_tflite_and_from_1_in_onnx(
    tmp_path: Path, shared_data: Path
) -> None:
    store = models.ModelStore(tmp_path / "store")
    with pytest.raises(ModelQuestionError, match=r"line\) or coco-90 \(with"):
        store.add(shared_data / "weights" / "ssd_mobilenet_v1_coco_quant_detect.tflite")
    outputs = {
        "detection_boxes": np.zeros((1, 2, 4), np.float32),
        "detection_classes": np.zeros((1, 2), np.float32),
        "detection_scores": np.zeros((1, 2), np.float32),
        "num_detections": np.zeros(1, np.float32),
    }
    inputs = {"images": ("float32", [1, 3, 64, 64])}
    with pytest.raises(ModelQuestionError, match=r"line\) or coco-91 \(with"):
        store.add(named_outputs(tmp_path / "t.onnx", inputs, outputs))


def test_the_size_of_a_dynamic_graph_is_asked_for(tmp_path: Path) -> None:
    path = constant_output(tmp_path / "m.onnx", np.zeros((84, 8), np.float32), dynamic=True)
    store = models.ModelStore(tmp_path / "store")
    with pytest.raises(ModelQuestionError, match=r"its size.*--size N"):
        store.add(path, head="yolov5", classes=["a", "b", "c"])
    file = store.add(path, head="yolov5", classes=["a", "b", "c"], size=64)
    assert file.card.input.size_wh == (64, 64)
    assert file.card.input.dynamic


def test_a_card_in_the_metadata_is_certain(tmp_path: Path) -> None:
    path = constant_output(tmp_path / "m.onnx", np.zeros((84, 7), np.float32), card=CARD)
    assert resolve(path, tmp_path) == CARD


def test_a_sidecar_card_is_certain_and_goes_first(tmp_path: Path) -> None:
    path = constant_output(tmp_path / "m.onnx", np.zeros((84, 7), np.float32), card=CARD)
    sidecar = tmp_path / "m.onnx.json"
    sidecar.write_text(CARD.to_json().replace("inner", "outer"))
    assert resolve(path, tmp_path).name == "outer"
    sidecar.write_text("{}")
    with pytest.raises(ModelError, match=r"m\.onnx\.json: input"):
        resolve(path, tmp_path)


def test_a_damaged_card_in_the_metadata_is_an_error(tmp_path: Path) -> None:
    metadata = {"vistadex_card": '{"name": 3}'}
    path = constant_output(tmp_path / "m.onnx", np.zeros((84, 7), np.float32), metadata=metadata)
    with pytest.raises(ModelError, match="metadata vistadex_card: input"):
        resolve(path, tmp_path)


def test_a_file_of_another_task_is_refused(tmp_path: Path) -> None:
    path = constant_output(tmp_path / "m.onnx", np.zeros((84, 7), np.float32), card=CARD)
    with pytest.raises(ModelError, match=r"m\.onnx: is a detector, expected a classifier"):
        resolve(path, tmp_path, "classifier")


@pytest.mark.parametrize("content", [b"", b"hello, I am a text file\n" * 50, b"\x00" * 1000])
def test_a_file_that_is_not_onnx_says_so(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx: not an ONNX model"):
        resolve(path, tmp_path)


def test_a_file_cut_short_is_refused_when_added(tmp_path: Path) -> None:
    whole = constant_output(tmp_path / "whole.onnx", np.zeros((84, 7), np.float32), card=CARD)
    path = tmp_path / "cut.onnx"
    store = models.ModelStore(tmp_path / "store")
    data = whole.read_bytes()
    for length in range(0, len(data) - 1, len(data) // 40):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError, match=r"cut\.onnx"):
            store.add(path, head="yolov5", classes=["a", "b"])
    assert store.list() == []


def test_no_such_file_or_name_says_what_there_is(tmp_path: Path) -> None:
    store = models.ModelStore(tmp_path / "store")
    with pytest.raises(NotFoundError, match=r"nowhere\.onnx: no such file"):
        models.resolve("nowhere.onnx", task="detector", store=store)
    with pytest.raises(ModelError, match="can't be read"):
        models.resolve(f"{tmp_path}/", task="detector", store=store)
    with pytest.raises(NotFoundError, match="no model 'yolo'; there are: none; add one"):
        models.resolve("yolo", task="detector", store=store)


def test_a_stored_file_is_known_wherever_it_lies(tmp_path: Path) -> None:
    path = constant_output(tmp_path / "m.onnx", np.zeros((84, 8), np.float32))
    store = models.ModelStore(tmp_path / "store")
    store.add(path, head="yolox", classes=["a", "b", "c"], name="mine")
    assert models.resolve(str(path), task="detector", store=store).card.name == "mine"
