"""Static graphs made dynamic, and those that can't be."""

from pathlib import Path

import numpy as np
import pytest

from vistadex import models
from vistadex.errors import ModelError
from vistadex.models.graphs import read_graph
from vistadex.models.store import file_sha256
from vistadex.models.tiny import constant_output, grid_detector
from vistadex.records import DecodedImage


def test_a_fixed_graph_becomes_one_of_any_size_and_batch(tmp_path: Path) -> None:
    path = grid_detector(tmp_path / "m.onnx", classes=2)
    store = models.ModelStore(tmp_path / "store")
    file = store.add(path, head="yolox", classes=["a", "b"], dynamic_size=True)
    assert file.card.derived_from == file_sha256(path) != file.sha256
    assert file.card.input.dynamic
    signature = read_graph(file.path).signature
    assert [port.shape for port in signature.inputs] == [(None, 3, None, None)]
    assert [port.shape for port in signature.outputs] == [(None, None, 7)]
    again = store.add(path, head="yolox", classes=["a", "b"], dynamic_size=True)
    assert again == file


def test_the_dynamic_graph_computes_what_the_fixed_one_does(tmp_path: Path) -> None:
    path = grid_detector(tmp_path / "m.onnx", classes=2)
    store = models.ModelStore(tmp_path / "store")
    fixed = store.add(path, head="yolox", classes=["a", "b"], name="fixed")
    free = store.add(path, head="yolox", classes=["a", "b"], name="free", dynamic_size=True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = DecodedImage(pixels, 64, 64)
    one, other = (
        repr(models.analyzer(file, rectangular=False).load().analyze([image]))
        for file in (fixed, free)
    )
    assert one == other
    assert models.analyzer(free, size=96).load().analyze([DecodedImage(pixels, 640, 200)])


def test_constants_made_for_one_size_are_refused(tmp_path: Path) -> None:
    path = grid_detector(tmp_path / "m.onnx", classes=2, baked_anchors=True)
    store = models.ModelStore(tmp_path / "store")
    with pytest.raises(ModelError, match=r"m\.onnx: can't be made dynamic, it fails at 1 x 64x96"):
        store.add(path, head="yolox", classes=["a", "b"], dynamic_size=True)
    assert store.list() == []


def test_a_dynamic_graph_is_not_made_dynamic_again(tmp_path: Path) -> None:
    path = constant_output(tmp_path / "m.onnx", np.zeros((84, 7), np.float32), dynamic=True)
    store = models.ModelStore(tmp_path / "store")
    with pytest.raises(ModelError, match="takes inputs of any size already"):
        store.add(path, head="yolov5", classes=["a", "b"], size=64, dynamic_size=True)


def test_yolox_nano_becomes_dynamic(shared_data: Path, tmp_path: Path) -> None:
    store = models.ModelStore(tmp_path / "store")
    file = store.add(shared_data / "weights" / "yolox_nano.onnx", dynamic_size=True)
    assert [one.shape for one in read_graph(file.path).signature.outputs] == [(None, None, 85)]
    assert models.analyzer(file).parameters["rectangular"] is True
