"""The model store: adding, finding and removing files with their cards."""

import json
from pathlib import Path

import numpy as np
import pytest

from vistadex import models
from vistadex.errors import ModelError, NotFoundError
from vistadex.models.store import file_sha256
from vistadex.models.tiny import constant_output, mean_color

NAMES = ["a", "b", "c"]


@pytest.fixture
def store(tmp_path: Path) -> models.ModelStore:
    return models.ModelStore(tmp_path / "deep" / "store")


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    return constant_output(tmp_path / "walker.onnx", np.zeros((84, 8), np.float32))


def test_an_added_file_lies_under_its_hash_with_its_card(
    store: models.ModelStore, detector: Path
) -> None:
    file = store.add(detector, head="yolox", classes=NAMES, license="MIT", source="me")
    assert file.sha256 == file_sha256(detector)
    assert file.path == store.folder / f"{file.sha256}.onnx"
    assert file.path.read_bytes() == detector.read_bytes()
    assert sorted(p.suffix for p in store.folder.iterdir()) == [".json", ".onnx"]
    assert (file.card.name, file.card.license, file.card.source) == ("walker", "MIT", "me")
    assert file.card.input.color == "BGR"
    assert store.list() == [file]
    assert store.get("walker") == store.get(file.sha256[:8]) == store.find(file.sha256) == file


def test_adding_a_file_again_updates_its_card(store: models.ModelStore, detector: Path) -> None:
    store.add(detector, head="yolox", classes=NAMES, name="first", license="MIT")
    again = store.add(detector, source="here", scale=0.5, metrics={"map": 0.3})
    assert (again.card.name, again.card.license, again.card.source) == ("first", "MIT", "here")
    assert again.card.input.scale == 0.5
    assert again.card.metrics == {"map": 0.3}
    assert store.list() == [again]
    assert store.add(detector, name="second").card.name == "second"
    assert [file.card.name for file in store.list()] == ["second"]


def test_another_head_brings_its_own_preprocessing(
    store: models.ModelStore, detector: Path
) -> None:
    first = store.add(detector, head="yolox", classes=NAMES, pad_value=7).card.input
    assert (first.color, first.pad_value) == ("BGR", 7)
    other = store.add(detector, head="yolov5")
    alone = models.ModelStore(store.folder / "alone").add(detector, head="yolov5", classes=NAMES)
    assert other.card == alone.card
    assert (other.card.input.color, other.card.input.size_wh) == ("RGB", (64, 64))
    said = store.add(detector, head="yolox", scale=0.5).card.input
    assert (said.color, said.scale) == ("BGR", 0.5)


def test_the_same_head_keeps_what_was_said_of_preprocessing(
    store: models.ModelStore, detector: Path, tmp_path: Path
) -> None:
    store.add(detector, head="yolox", classes=NAMES, pad_value=7)
    assert store.add(detector, head="yolox").card.input.pad_value == 7
    colors = mean_color(tmp_path / "c.onnx", np.eye(3))
    store.add(colors, head="logits", classes=NAMES, preset="imagenet", crop=1.0)
    again = store.add(colors, head="probabilities").card
    assert (again.input.crop, again.head) == (1.0, "probabilities")
    vector = store.add(colors, head="embedding").card
    assert (vector.task, vector.classes, vector.input.crop) == ("embedder", (), 1.0)


def test_a_name_belongs_to_one_file(
    store: models.ModelStore, detector: Path, tmp_path: Path
) -> None:
    store.add(detector, head="yolox", classes=NAMES)
    other = constant_output(tmp_path / "other.onnx", np.ones((84, 8), np.float32))
    with pytest.raises(ModelError, match=r"'walker' is taken by the file .* --name"):
        store.add(other, head="yolox", classes=NAMES, name="walker")
    assert len(store.list()) == 1
    store.add(other, head="yolox", classes=NAMES)
    assert [file.card.name for file in store.list()] == ["other", "walker"]


def test_a_removed_model_is_gone_with_its_file(store: models.ModelStore, detector: Path) -> None:
    file = store.add(detector, head="yolox", classes=NAMES)
    assert store.remove("walker") == file
    assert list(store.folder.iterdir()) == []
    with pytest.raises(NotFoundError):
        store.remove("walker")


def test_an_unknown_name_lists_the_known_ones(store: models.ModelStore, detector: Path) -> None:
    store.add(detector, head="yolox", classes=NAMES)
    with pytest.raises(NotFoundError, match="no model 'wolker'; there are: walker"):
        store.get("wolker")


def test_a_store_without_a_folder_is_empty(store: models.ModelStore) -> None:
    assert store.list() == []
    assert not store.folder.exists()


def test_a_folder_that_can_not_be_written_is_one_clear_error(
    detector: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    store = models.ModelStore(tmp_path / "file" / "store")
    with pytest.raises(ModelError, match=r"store: can't be used \(Not a directory\)"):
        store.add(detector, head="yolox", classes=NAMES)


def test_a_refused_file_leaves_nothing_behind(store: models.ModelStore, detector: Path) -> None:
    with pytest.raises(ModelError, match=r"walker\.onnx: the graph has 3 classes"):
        store.add(detector, head="yolox", classes="coco")
    with pytest.raises(ModelError, match=r"walker\.onnx: input of 64x64 .* says 32x32"):
        store.add(detector, head="yolox", classes=NAMES, size=32)
    with pytest.raises(ModelError, match=r"walker\.onnx: output .* choose another --head"):
        store.add(detector, head="logits", classes=NAMES, preset="imagenet")
    with pytest.raises(ModelError, match=r"head 'yolo99' is unknown; known are yolox"):
        store.add(detector, head="yolo99", classes=NAMES)
    with pytest.raises(ModelError, match="head: expected for a classifier one of logits"):
        store.add(detector, head="yolox", task="classifier", classes=NAMES)
    with pytest.raises(ModelError, match="preset 'x' is unknown"):
        store.add(detector, head="yolox", preset="x", classes=NAMES)
    assert not store.folder.exists() or list(store.folder.iterdir()) == []


def test_a_graph_whose_channels_are_neither_first_nor_last_is_refused(
    store: models.ModelStore, tmp_path: Path
) -> None:
    import onnx

    path = constant_output(tmp_path / "m.onnx", np.zeros((84, 8), np.float32))
    model = onnx.load(path)
    for dim, size in zip(
        model.graph.input[0].type.tensor_type.shape.dim, (1, 64, 3, 64), strict=True
    ):
        dim.dim_value = size
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"expected one for pictures, \[N, 3, height, width\]"):
        store.add(path, head="yolox", classes=NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n\nc\n", r"names\.txt line 2: empty, expected a class name"),
        ("\n\n", r"names\.txt: empty, expected one class name a line"),
        ("a\nb\n", "has 3 classes, the card names 2"),
    ],
)
def test_a_classes_file_with_holes_is_refused(
    text: str, message: str, store: models.ModelStore, detector: Path, tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_text(text)
    with pytest.raises(ModelError, match=message):
        store.add(detector, head="yolox", classes=str(names))


def test_a_classes_file_may_end_in_empty_lines(
    store: models.ModelStore, detector: Path, tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_bytes("\ufeffhot dog\r\nPförtner\r\nc\r\n\r\n".encode())
    file = store.add(detector, head="yolox", classes=names)
    assert file.card.classes == ("hot dog", "Pförtner", "c")
    with pytest.raises(NotFoundError, match=r"no\.txt: no such file"):
        store.add(detector, head="yolox", classes="no.txt")


def test_the_only_model_of_a_task_is_the_default(
    store: models.ModelStore, detector: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no detector; add one with vistadex models add"):
        models.default("detector", store)
    first = store.add(detector, head="yolox", classes=NAMES)
    store.add(mean_color(tmp_path / "e.onnx", np.eye(3)), head="embedding", preset="imagenet")
    assert models.default("detector", store) == first
    store.add(detector.rename(tmp_path / "x.onnx"), head="yolox")
    other = constant_output(tmp_path / "other.onnx", np.ones((84, 8), np.float32))
    store.add(other, head="yolox", classes=NAMES)
    with pytest.raises(ModelError, match="2 detectors, say which one: other, walker"):
        models.default("detector", store)


def test_damage_in_the_store_is_named(store: models.ModelStore, detector: Path) -> None:
    file = store.add(detector, head="yolox", classes=NAMES)
    card = file.path.with_suffix(".json")
    values = json.loads(card.read_text())
    card.write_text(json.dumps({**values, "task": "oracle"}))
    with pytest.raises(ModelError, match=rf"{file.sha256}\.json: task: expected detector"):
        store.list()
    card.write_text(json.dumps(values))
    file.path.unlink()
    with pytest.raises(ModelError, match="is gone; delete this card"):
        store.list()
