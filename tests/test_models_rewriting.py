"""Graphs rewritten into faster ones that compute the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from vistadex import cli, models
from vistadex.decoding import decode
from vistadex.errors import ModelError, UsageError
from vistadex.models.graphs import load_onnx
from vistadex.models.preprocessing import Preprocessor
from vistadex.models.rewriting import chain_pools, fuse_focus, make_faster
from vistadex.models.store import file_sha256
from vistadex.models.trials import Trial
from vistadex.records import Detections


def focus_and_pools(order: list[tuple[int, int]], pool_sizes: list[int]) -> Any:
    """A graph that begins as YOLOX does and pools as SPP does, with random weights."""
    rng = np.random.default_rng(0)
    constants = {"two": [2], "end": [2**62], "rows": [2], "columns": [3], "0": [0], "1": [1]}
    tensors = [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in constants.items()]
    weights = rng.normal(size=(5, 12, 3, 3)).astype(np.float32)
    tensors.append(numpy_helper.from_array(weights, "weights"))
    nodes = []
    for i, (y, x) in enumerate(order):
        nodes.append(helper.make_node("Slice", ["images", str(y), "end", "rows", "two"], [f"y{i}"]))
        nodes.append(
            helper.make_node("Slice", [f"y{i}", str(x), "end", "columns", "two"], [f"{i}s"])
        )
    nodes.append(helper.make_node("Concat", [f"{i}s" for i in range(4)], ["stack"], axis=1))
    how = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [1, 1]}
    nodes.append(helper.make_node("Conv", ["stack", "weights"], ["conv"], **how))
    for i, size in enumerate(pool_sizes):
        how = {"kernel_shape": [size] * 2, "pads": [size // 2] * 4, "strides": [1, 1]}
        nodes.append(helper.make_node("MaxPool", ["conv"], [f"pool{i}"], **how))
    pools = [f"pool{i}" for i in range(len(pool_sizes))]
    nodes.append(helper.make_node("Concat", ["conv", *pools], ["output"], axis=1))
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 48])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(model: Any) -> np.ndarray[Any, Any]:
    images = np.random.default_rng(1).normal(size=(1, 3, 32, 48)).astype(np.float32)
    return Trial(model.SerializeToString())(images)[0]


@pytest.mark.parametrize(
    "order", [[(0, 0), (1, 0), (0, 1), (1, 1)], [(0, 0), (0, 1), (1, 0), (1, 1)]]
)
@pytest.mark.parametrize("pool_sizes", [[5, 9, 13], [13, 5, 9], [3, 7], [5]])
def test_focus_and_pools_compute_the_same(
    order: list[tuple[int, int]], pool_sizes: list[int]
) -> None:
    model = focus_and_pools(order, pool_sizes)
    before = run(model)
    assert fuse_focus(model.graph) == 1
    assert chain_pools(model.graph) == len(pool_sizes) - 1
    kinds = [node.op_type for node in model.graph.node]
    assert "Slice" not in kinds
    assert np.allclose(run(model), before, rtol=1e-5, atol=1e-5)
    sizes = {n.attribute[0].ints[0] for n in model.graph.node if n.op_type == "MaxPool"}
    assert sizes == {5: {5}, 3: {3, 5}}[min(pool_sizes)]


@pytest.mark.parametrize("order", [[(0, 0)] * 4, [(0, 0), (1, 0), (0, 1), (0, 1)]])
def test_what_only_looks_like_focus_is_left_alone(order: list[tuple[int, int]]) -> None:
    model = focus_and_pools(order, [])
    assert fuse_focus(model.graph) == 0


def test_pools_of_equal_or_even_steps_are_left_alone() -> None:
    assert chain_pools(focus_and_pools([(0, 0)] * 4, [5, 5]).graph) == 0


def test_yolox_nano_gets_faster_and_finds_the_same(shared_data: Path, tmp_path: Path) -> None:
    weights = shared_data / "weights" / "yolox_nano.onnx"
    store = models.ModelStore(tmp_path / "store")
    given = store.add(weights, name="given")
    fast = store.add(weights, name="fast", dynamic_size=True, optimize=True)
    assert fast.card.derived_from == file_sha256(weights)
    kinds = [node.op_type for node in load_onnx(fast.path).graph.node]
    assert "Slice" not in kinds
    both = [models.analyzer(file, rectangular=False).load() for file in (given, fast)]
    pictures = sorted((shared_data / "coco" / "images" / "val").iterdir())[:10]
    for picture in pictures:
        image = decode(picture.read_bytes(), min_long_side=416)
        one, other = (model.analyze([image])[0] for model in both)
        assert isinstance(one, Detections)
        assert isinstance(other, Detections)
        assert np.array_equal(one.class_ids, other.class_ids)
        assert np.allclose(one.scores, other.scores, atol=1e-4)
        assert np.allclose(one.boxes_xyxy, other.boxes_xyxy, atol=0.01)


def test_both_graphs_are_compared_on_the_pictures_given(shared_data: Path, tmp_path: Path) -> None:
    weights = shared_data / "weights" / "yolox_nano.onnx"
    folder = shared_data / "coco" / "images" / "val"
    images = [decode(path.read_bytes()) for path in sorted(folder.iterdir())[:4]]
    store = models.ModelStore(tmp_path / "store")
    file = store.add(weights, optimize=True, check_with=images)
    difference = file.card.metrics["optimize_difference"]
    sessions = [Trial(path) for path in (weights, file.path)]
    largest = 0.0
    for image in images:
        fitting = Preprocessor(file.card.input, (416, 416), rectangular=False)
        picture = np.empty((1, 3, 416, 416), np.float32)
        place = fitting.place(image.width, image.height)
        fitting.write(fitting.reduced(image), place, picture[0])
        (one,), (other,) = (run_it(picture) for run_it in sessions)
        assert np.abs(one[..., 4:] - other[..., 4:]).max() < 1e-4  # scores
        largest = max(largest, float(np.abs(one - other).max()))
    assert difference == pytest.approx(largest)
    assert difference < 5e-4  # positions of boxes, in cells


def test_the_command_says_the_largest_difference(shared_data: Path, tmp_path: Path) -> None:
    line = ["models", "add", str(shared_data / "weights" / "yolox_nano.onnx")]
    pictures = str(shared_data / "bccd" / "BCCD" / "JPEGImages")
    line += ["--pictures", pictures, "--models", str(tmp_path)]
    refused = CliRunner().invoke(cli.app, line)
    assert isinstance(refused.exception, UsageError)
    done = CliRunner().invoke(cli.app, [*line, "--optimize"])
    assert done.exit_code == 0
    assert "on 16 pictures no number of the output changed by more than" in done.stdout


def test_a_rewrite_that_changes_outputs_is_refused(tmp_path: Path) -> None:
    """The sine of large sums: their rounding, which depends on their order, decides it."""
    model = focus_and_pools([(0, 0), (1, 0), (0, 1), (1, 1)], [5])
    tensor = next(one for one in model.graph.initializer if one.name == "weights")
    values = numpy_helper.to_array(tensor) * np.float32(1e4)
    tensor.CopyFrom(numpy_helper.from_array(values, "weights"))
    model.graph.node.append(helper.make_node("Sin", ["output"], ["sine"]))
    model.graph.output[0].name = "sine"
    how = models.Preprocessing(size_wh=(48, 32), color="RGB", resize="stretch")
    card = models.ModelCard(name="one", task="embedder", head="embedding", input=how)
    with pytest.raises(ModelError, match="its output would change by"):
        make_faster(model.SerializeToString(), card, tmp_path / "one.onnx")


def test_a_graph_without_anything_to_gain_says_so(shared_data: Path, tmp_path: Path) -> None:
    store = models.ModelStore(tmp_path / "store")
    file = store.add(shared_data / "weights" / "yolox_nano.onnx", name="one", optimize=True)
    with pytest.raises(ModelError, match="nothing to optimize here; leave out --optimize"):
        store.add(file.path, name="two", optimize=True)
