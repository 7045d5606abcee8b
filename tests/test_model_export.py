"""`vistadex models export`: ONNX and TensorFlow Lite files that compute what the model does."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save
from typer.testing import CliRunner

from tests.small_networks import color_classifier, color_folders
from vistadex import cli, models
from vistadex.converting import ExportedModel, export_model
from vistadex.converting.graphs import fixed
from vistadex.converting.tflite import OPERATIONS, convert
from vistadex.decoding import decode
from vistadex.errors import ModelError, NotFoundError, UsageError
from vistadex.models import ModelFile, ModelStore
from vistadex.models.cards import ModelCard, file_sha256
from vistadex.models.graphs import load_onnx
from vistadex.models.litert import LiteRtSession
from vistadex.models.sessions import open_session
from vistadex.quantizing import quantize
from vistadex.records import Classification, Detections


def exported(model: Path, out: Path, store: Path, **more: Any) -> ExportedModel:
    return export_model(str(model), out, models=store, **more)


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Sigmoid", "Tanh"])
@pytest.mark.parametrize("ending", ["onnx", "tflite"])
def test_an_export_computes_the_same_and_can_be_added(
    tmp_path: Path, activation: str, ending: str
) -> None:
    model = color_classifier(tmp_path, activation)
    pictures = color_folders(tmp_path / "pictures", 2)
    out = tmp_path / f"out.{ending}"
    done = exported(model, out, tmp_path / "store", pictures=str(pictures))
    assert done.max_difference < 1e-5
    assert done.agreement == pytest.approx(1, abs=1e-5)
    assert (done.pictures, done.format) == (6, ending)
    assert done.size_bytes == out.stat().st_size
    added = ModelStore(tmp_path / "store").add(out)
    assert added.card.name == f"colors-{ending}"
    assert added.card.derived_from == file_sha256(model)
    loaded = models.analyzer(added).load()
    picture = decode((pictures / "red" / "0.png").read_bytes())
    (found,) = loaded.analyze([picture])
    assert isinstance(found, Classification)
    assert added.card.classes[found.class_ids[0]] == "red"


@pytest.mark.parametrize("ending", ["onnx", "tflite"])
def test_int8_weights_are_smaller_and_say_nearly_the_same(tmp_path: Path, ending: str) -> None:
    model = color_classifier(tmp_path)
    pictures = str(color_folders(tmp_path / "pictures", 2))
    plain = exported(model, tmp_path / f"a.{ending}", tmp_path, pictures=pictures)
    small = exported(model, tmp_path / f"b.{ending}", tmp_path, pictures=pictures, int8=True)
    assert small.size_bytes < 0.6 * plain.size_bytes
    assert 0 < small.max_difference < 0.05
    assert small.agreement > 0.95


def test_a_quantized_model_computes_in_int8_as_tflite_too(tmp_path: Path) -> None:
    model = color_classifier(tmp_path)
    pictures = color_folders(tmp_path / "pictures", 5)
    made = quantize(
        str(model),
        calibrate=str(pictures),
        evaluate=str(pictures),
        format="imagefolder",
        calibration="min-max",
        pictures=10,
        models=tmp_path / "store",
    )
    out = tmp_path / "out.tflite"
    done = exported(
        made.need_stored().path, out, tmp_path / "store", pictures=str(pictures), count=6
    )
    assert done.agreement > 0.97
    assert done.size_bytes < 20_000
    kinds = [one["dtype"] for one in _interpreter(out).get_tensor_details()]
    assert kinds.count(np.int8) >= 5
    assert kinds.count(np.int32) >= 2  # biases of int8 convolutions


def _interpreter(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=str(path))


def graph_of(
    folder: Path, nodes: list[Any], shape: list[int], weights: dict[str, Any] | None = None
) -> Path:
    """A graph from `x` to `y`."""
    path = folder / "graph.onnx"
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def weights(*shape: int) -> Any:
    return np.random.default_rng(1).normal(0, 0.3, shape).astype(np.float32)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


N = helper.make_node
CASES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "conv, stride 2, padded": (
        [N("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])],
        {"w": weights(5, 3, 3, 3)},
    ),
    "conv, dilated, bias, not square": (
        [N("Conv", ["x", "w", "b"], ["y"], dilations=[2, 2], pads=[2, 1, 2, 1])],
        {"w": weights(4, 3, 3, 2), "b": weights(4)},
    ),
    "depthwise, two filters each": (
        [N("Conv", ["x", "w"], ["y"], group=3, pads=[1] * 4)],
        {"w": weights(6, 1, 3, 3)},
    ),
    "max pool, padded, stride 2": (
        [N("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])],
        {},
    ),
    "average pool": ([N("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])], {}),
    "mean, kept": ([N("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=1)], {}),
    "mean, dropped": ([N("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)], {}),
    "add per channel": ([N("Add", ["x", "c"], ["y"])], {"c": weights(3, 1, 1)}),
    "multiply by a number": ([N("Mul", ["x", "c"], ["y"])], {"c": np.float32(0.3)}),
    "difference of itself halved": (
        [N("Mul", ["x", "c"], ["h"]), N("Sub", ["x", "h"], ["y"])],
        {"c": np.float32([0.5])},
    ),
    "divide, exponential": (
        [N("Div", ["x", "c"], ["h"]), N("Exp", ["h"], ["y"])],
        {"c": np.float32([300])},
    ),
    "clip to 6": (
        [N("Clip", ["x", "l", "h"], ["y"])],
        {"l": np.float32(0), "h": np.float32(6)},
    ),
    "clip to others": (
        [N("Clip", ["x", "l", "h"], ["y"])],
        {"l": np.float32(20), "h": np.float32(90)},
    ),
    "leaky": ([N("LeakyRelu", ["x"], ["y"], alpha=0.2)], {}),
    "concat of channels": (
        [N("Sigmoid", ["x"], ["s"]), N("Concat", ["x", "s"], ["y"], axis=1)],
        {},
    ),
    "slice": (
        [N("Slice", ["x", "s", "e", "a", "t"], ["y"])],
        {"s": ints(1, 0), "e": ints(3, 999), "a": ints(1, 3), "t": ints(1, 2)},
    ),
    "split and swap": (
        [
            N("Split", ["x", "n"], ["a", "b"], axis=1),
            N("Concat", ["b", "a"], ["y"], axis=1),
        ],
        {"n": ints(1, 2)},
    ),
    "twice as large": (
        [
            N(
                "Resize",
                ["x", "", "f"],
                ["y"],
                coordinate_transformation_mode="asymmetric",
                mode="nearest",
                nearest_mode="floor",
            )
        ],
        {"f": np.float32([1, 1, 2, 2])},
    ),
    "bilinear": (
        [N("Resize", ["x", "", "f"], ["y"], mode="linear")],
        {"f": np.float32([1, 1, 2, 2])},
    ),
    "channels shuffled": (
        [
            N("Concat", ["x", "x"], ["d"], axis=1),
            N("Reshape", ["d", "five"], ["r"]),
            N("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3, 4]),
            N("Reshape", ["t", "four"], ["y"]),
        ],
        {"five": ints(1, 2, 3, 12, 16), "four": ints(1, 6, 12, 16)},
    ),
    "flattened into a product": (
        [N("Flatten", ["x"], ["f"]), N("Gemm", ["f", "w", "b"], ["y"], transB=1)],
        {"w": weights(4, 576) / 100, "b": weights(4)},
    ),
    "matrix product": (
        [N("Reshape", ["x", "s"], ["r"]), N("MatMul", ["r", "w"], ["y"])],
        {"s": ints(1, 36, 16), "w": weights(16, 5) / 10},
    ),
    "softmax over channels": ([N("Softmax", ["x"], ["y"], axis=1)], {}),
    "softmax over the last": (
        [N("Reshape", ["x", "s"], ["r"]), N("Softmax", ["r"], ["y"], axis=-1)],
        {"s": ints(1, 36, 16)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_operation_computes_what_onnx_says(tmp_path: Path, name: str) -> None:
    nodes, constants = CASES[name]
    path = graph_of(tmp_path, nodes, [1, 3, 12, 16], constants)
    x = np.random.default_rng(0).uniform(-50, 100, (1, 3, 12, 16)).astype(np.float32)
    (expected,) = open_session(path).run(None, {"x": x})
    data = convert(fixed(path, (16, 12)), int8=False, place=str(path))
    how = models.Preprocessing(size_wh=(16, 12), color="RGB", resize="stretch")
    card = ModelCard(name="one", task="embedder", head="embedding", input=how)
    session = LiteRtSession(path, data, card)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.transpose(0, 2, 3, 1).copy()})
    assert found.shape == expected.shape
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([N("Sin", ["x"], ["y"])], "operation Sin can't be written as TensorFlow Lite; known"),
        (
            [N("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], ceil_mode=1, strides=[2, 2])],
            "MaxPool with ceil_mode",
        ),
        ([N("Conv", ["x", "x"], ["y"])], "Conv with computed sizes can't be written"),
        ([N("Softmax", ["x"], ["y"], axis=2)], "Softmax over another than"),
    ],
)
def test_what_has_no_form_is_refused_by_name(
    tmp_path: Path, nodes: list[Any], message: str
) -> None:
    path = graph_of(tmp_path, nodes, [1, 3, 12, 12])
    with pytest.raises(ModelError, match=message):
        convert(fixed(path, (12, 12)), int8=False, place=str(path))


def test_every_operation_is_tested() -> None:
    tested = {node.op_type for nodes, _ in CASES.values() for node in nodes}
    elsewhere = {"Relu", "Tanh", "GlobalAveragePool", "QuantizeLinear", "DequantizeLinear"}
    rare = {"HardSwish", "Upsample", "Squeeze", "Unsqueeze", "Identity", "Dropout"}
    assert set(OPERATIONS) == tested | elsewhere | rare


@pytest.mark.parametrize(
    ("options", "out", "error", "message"),
    [
        ({}, "out.txt", UsageError, "expected a file named .onnx or .tflite"),
        ({"format": "tflite"}, "out.onnx", UsageError, "expected a file named"),
        ({"count": 0}, "out.onnx", UsageError, "count 0"),
        ({"size": 0}, "out.onnx", UsageError, "size 0"),
        ({}, "colors.onnx", UsageError, "is there already"),
        ({}, "no/such/out.onnx", UsageError, "can't be written"),
    ],
)
def test_what_can_not_be_leaves_no_file(
    tmp_path: Path, options: dict[str, Any], out: str, error: type[Exception], message: str
) -> None:
    model = color_classifier(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=message):
        exported(model, tmp_path / out, tmp_path / "store", **options)
    assert sorted(tmp_path.iterdir()) == before


def test_an_unknown_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no model 'nobody'"):
        export_model("nobody", tmp_path / "x.onnx", models=tmp_path)


def test_the_command_prints_the_largest_difference(tmp_path: Path) -> None:
    model = color_classifier(tmp_path)
    pictures = color_folders(tmp_path / "pictures", 1)
    line = ["models", "export", str(model), "--pictures", str(pictures)]
    shown = CliRunner().invoke(cli.app, [*line, str(tmp_path / "a.tflite")])
    assert shown.exit_code == 0
    assert "on 3 pictures of" in shown.stdout
    assert "largest difference of an output" in shown.stdout
    printed = CliRunner().invoke(cli.app, [*line, str(tmp_path / "b.onnx"), "--json"])
    assert json.loads(printed.stdout)["max_difference"] == 0


def test_random_pixels_check_where_no_pictures_are_given(tmp_path: Path) -> None:
    done = exported(color_classifier(tmp_path), tmp_path / "a.tflite", tmp_path, count=2)
    assert (done.source, done.pictures) == ("", 2)


@pytest.mark.parametrize("name", ["yolox_nano", "nanodet_m_416"])
def test_real_detectors_find_the_same_boxes_as_tflite(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    source = shared_data / "weights" / f"{name}.onnx"
    pictures = shared_data / "coco" / "images" / "val"
    out = tmp_path / "out.tflite"
    done = exported(source, out, tmp_path, pictures=str(pictures), count=4)
    assert done.max_difference < 1e-3
    assert done.agreement > 0.9999
    store = ModelStore(tmp_path / "store")
    both = [models.analyzer(store.add(path)).load() for path in (source, out)]
    image = decode(cv2.imencode(".png", _picture(pictures))[1].tobytes())
    one, other = (model.analyze([image])[0] for model in both)
    assert isinstance(one, Detections)
    assert isinstance(other, Detections)
    assert len(one.scores) > 0
    assert np.array_equal(one.class_ids, other.class_ids)
    assert np.allclose(one.boxes_xyxy, other.boxes_xyxy, atol=0.05)


def _picture(folder: Path) -> Any:
    return cv2.imread(str(sorted(folder.iterdir())[3]))


def test_another_size_is_fixed_in_the_file(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "weights" / "yolox_nano.onnx"
    for ending in ("onnx", "tflite"):
        out = tmp_path / f"out.{ending}"
        exported(source, out, tmp_path / "store", size=256, count=1)
        sidecar = json.loads(out.with_name(f"{out.name}.json").read_text(encoding="utf-8"))
        assert sidecar["input"]["size_wh"] == [256, 256]
        assert sidecar["input"]["dynamic"] is False
    dims = load_onnx(tmp_path / "out.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [one.dim_value for one in dims] == [1, 3, 256, 256]
    card = ModelCard.from_dict(sidecar, "sidecar")
    file = ModelFile(tmp_path / "out.tflite", file_sha256(tmp_path / "out.tflite"), card)
    assert models.analyzer(file).size_wh == (256, 256)
