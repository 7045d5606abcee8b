"""Networks: YOLOX-nano is one of them, files start them, and what is written computes the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from vistadex.errors import ModelError, UsageError
from vistadex.models.coco import COCO_CLASSES
from vistadex.models.trials import Trial
from vistadex.training.folding import folded, measure_moments
from vistadex.training.networks import (
    ARCHITECTURES,
    NANO,
    Architecture,
    DetectorNetwork,
    architecture_from_json,
    build_network,
)
from vistadex.training.starting import architecture_of, conv_paths, load_weights
from vistadex.training.writing import check_outputs, to_onnx

torch.set_num_threads(1)
SMALL = Architecture(width=0.125, head_width=0.125, activation="relu")


@pytest.fixture(scope="module")
def yolox_nano(shared_data: Path) -> Path:
    return shared_data / "weights" / "yolox_nano.onnx"


def pictures(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, 3, height, width)).astype(np.float32)


def trained_a_little(how: Architecture, classes: int = 3) -> DetectorNetwork:
    """A network whose normalization has seen pictures."""
    torch.manual_seed(0)
    network = build_network(how, classes).train()
    with torch.no_grad():
        for _ in range(2):
            network(torch.from_numpy(pictures(4, 64, 96)))
    return network


def test_the_weights_of_yolox_nano_give_what_its_file_gives(yolox_nano: Path) -> None:
    how = architecture_of(yolox_nano)
    assert how == NANO
    network = build_network(how, len(COCO_CLASSES))
    loaded = load_weights(network, yolox_nano, COCO_CLASSES, COCO_CLASSES)
    assert loaded.same_classes == COCO_CLASSES
    images = pictures(1, 416, 416)
    (expected,) = Trial(yolox_nano)(images)
    (found,) = Trial(to_onnx(network))(images)
    assert np.abs(found - expected).max() < 1e-4


def test_measured_moments_leave_the_function_as_it_was(yolox_nano: Path) -> None:
    network = build_network(NANO, 80).eval()
    load_weights(network, yolox_nano, COCO_CLASSES, COCO_CLASSES)
    images = torch.from_numpy(pictures(2, 96, 64))
    with torch.no_grad():
        before = network(images)
        measure_moments(network, [images])
        after = network(images)
        learning = network.train()(images)
    assert torch.allclose(before, after, atol=1e-3)
    # Moments are those of the pictures, so that training begins with the same function.
    assert torch.allclose(before, learning, atol=0.05, rtol=0.05)


def test_classes_of_the_same_name_keep_their_rows(yolox_nano: Path) -> None:
    classes = ("dog", "zeppelin", "person")
    torch.manual_seed(0)
    network = build_network(NANO, len(classes))
    new = network.heads[0].classes.weight[1].clone()
    loaded = load_weights(network, yolox_nano, classes, COCO_CLASSES)
    assert loaded.same_classes == ("dog", "person")
    assert loaded.new_classes == ("zeppelin",)
    whole = build_network(NANO, 80)
    load_weights(whole, yolox_nano, COCO_CLASSES, COCO_CLASSES)
    old = whole.heads[0].classes.weight[[COCO_CLASSES.index("dog"), COCO_CLASSES.index("person")]]
    assert torch.equal(network.heads[0].classes.weight[[0, 2]], old)
    assert torch.equal(network.heads[0].classes.weight[1], new)


def test_a_file_of_another_structure_is_refused_at_its_first_convolution(yolox_nano: Path) -> None:
    network = build_network(ARCHITECTURES["tiny"], 80)
    message = r"convolution 1, .*\[16, 3, 6, 6\]/2, does not fit backbone.stem.conv, expected \[24,"
    with pytest.raises(ModelError, match=message):
        load_weights(network, yolox_nano, COCO_CLASSES, COCO_CLASSES)
    later = replace(NANO, depthwise=False)
    with pytest.raises(ModelError, match=r"convolution 2, .* does not fit backbone.stage2.0.conv"):
        load_weights(build_network(later, 80), yolox_nano, COCO_CLASSES, COCO_CLASSES)


def test_a_file_that_is_no_detector_of_ours_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "short.onnx"
    model = onnx.load_from_string(to_onnx(build_network(SMALL, 2)))
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    del model.metadata_props[:]
    model.graph.node.remove(convs[-1])
    onnx.save(model, file)
    with pytest.raises(ModelError, match=r"ends before heads.2.objects \[1, 32, 1, 1\]"):
        architecture_of(file)
    for node in convs[:-1]:
        model.graph.node.remove(node)
    onnx.save(model, file)
    with pytest.raises(ModelError, match="has no convolutions, expected a detector's file"):
        architecture_of(file)


@pytest.mark.parametrize(
    "how",
    [
        SMALL,
        replace(SMALL, stem="4x4", neck="fpn", head_shared=True, head_convs=1),
        replace(SMALL, depthwise=False, stem="3x3", activation="hardswish"),
        replace(SMALL, activation="silu", depthwise_activation="relu", head_activation="relu"),
    ],
)
def test_every_part_can_be_written_for_any_size(how: Architecture) -> None:
    network = trained_a_little(how)
    data = to_onnx(network)
    for shape in ((1, 96, 64), (2, 64, 160)):
        assert check_outputs(data, network, pictures(*shape)) < 1e-3
    cells = sum((64 // stride) * (160 // stride) for stride in (8, 16, 32))
    assert Trial(data)(pictures(2, 64, 160))[0].shape == (2, cells, 8)


def test_a_written_file_starts_the_same_network(tmp_path: Path) -> None:
    how = replace(SMALL, stem="4x4", head_shared=True)
    network = trained_a_little(how)
    file = tmp_path / "mine.onnx"
    file.write_bytes(to_onnx(network))
    assert architecture_of(file) == how
    again = build_network(how, 3).eval()
    load_weights(again, file, ("a", "b", "c"), ("a", "b", "c"))
    images = torch.from_numpy(pictures(1, 64, 64))
    with torch.no_grad():
        assert torch.allclose(again(images), network.eval()(images), rtol=1e-3, atol=1e-3)


def test_a_file_that_computes_something_else_is_refused() -> None:
    network = trained_a_little(SMALL)
    data = to_onnx(network)
    with torch.no_grad():
        network.heads[0].boxes.weight.add_(0.1)
    with pytest.raises(ModelError, match="computes other values than the network"):
        check_outputs(data, network, pictures(1, 64, 64))


def test_folding_changes_rounding_alone() -> None:
    network = trained_a_little(SMALL).eval()
    images = torch.from_numpy(pictures(1, 64, 64))
    plain = folded(network)
    with torch.no_grad():
        assert torch.allclose(network(images), plain(images), atol=1e-4)
    assert not any(isinstance(one, torch.nn.BatchNorm2d) for one in plain.modules())


def test_nodes_are_named_by_their_modules() -> None:
    network = build_network(SMALL, 3)
    model = onnx.load_from_string(to_onnx(network))
    names = [node.name for node in model.graph.node if node.op_type == "Conv"]
    assert names == conv_paths(network)
    assert {"backbone.stem.conv", "heads.2.objects"} <= set(names)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stem": "5x5"}, "stem: expected 6x6 or 4x4 or 3x3"),
        ({"activation": "tanh"}, "activation: expected silu"),
        ({"head_activation": "tanh"}, "head_activation: expected silu"),
        ({"width": 0.0}, "width and depth: expected above 0"),
        ({"head_convs": -1}, "head_convs: expected 0 to 8"),
    ],
)
def test_an_impossible_architecture_is_refused(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Architecture(**values)


def test_an_architecture_survives_as_text() -> None:
    how = replace(SMALL, neck="fpn", stem_activation="hardswish")
    assert architecture_from_json(how.to_json(), "here") == how
    with pytest.raises(UsageError, match="here: not an architecture"):
        architecture_from_json('{"colour": 1}', "here")
