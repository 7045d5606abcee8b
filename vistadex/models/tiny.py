"""Tiny ONNX graphs with outputs that are known beforehand, for tests and for trying a new head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save
from onnx.checker import check_model

from vistadex.models.cards import ModelCard
from vistadex.models.graphs import embed_card
from vistadex.records import FloatArray

Dim = int | str


def constant_output(
    path: Path,
    output: FloatArray,
    *,
    size: int = 64,
    dynamic: bool = False,
    metadata: Mapping[str, str] | None = None,
    card: ModelCard | None = None,
) -> Path:
    """A network that says `output` (one picture's, without batch axis) of every picture."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Unsqueeze", ["nothing", "axes"], ["wide"]),
        helper.make_node("Add", ["wide", "constant"], ["output"]),
    ]
    weights = {
        "zero": np.zeros(1, np.float32),
        "axes": np.arange(1, 1 + output.ndim),
        "constant": output[None].astype(np.float32),
    }
    shape = ["batch" if dynamic else 1, *output.shape]
    return _save(path, nodes, weights, _input(size, dynamic), shape, metadata, card)


def named_outputs(
    path: Path,
    inputs: Mapping[str, tuple[str, Sequence[Dim]]],
    outputs: Mapping[str, NDArray[Any]],
    *,
    shapes: Mapping[str, Sequence[Dim]] | None = None,
    nodes: Sequence[Any] = (),
) -> Path:
    """A network with these inputs that says these outputs of every picture.

    Args:
        inputs: type, as NumPy calls it, and shape by name.
        outputs: values with all their axes, by name, in the order of the graph.
        shapes: what the graph states of an output's shape, where it is not that of its values.
        nodes: compute outputs from `NAME_value` and the inputs, in place of the values as they are.
    """
    made = {name for node in nodes for name in node.output}
    plain = [
        helper.make_node("Identity", [f"{name}_value"], [name])
        for name in outputs
        if name not in made
    ]
    stated = {name: list(value.shape) for name, value in outputs.items()} | dict(shapes or {})
    graph = helper.make_graph(
        [*nodes, *plain],
        "tiny",
        [
            helper.make_tensor_value_info(name, _element(np.dtype(kind)), shape)
            for name, (kind, shape) in inputs.items()
        ],
        [
            helper.make_tensor_value_info(name, _element(value.dtype), stated[name])
            for name, value in outputs.items()
        ],
        [numpy_helper.from_array(value, f"{name}_value") for name, value in outputs.items()],
    )
    return _save_graph(path, graph, {}, None)


def mean_color(
    path: Path,
    weights: FloatArray,
    *,
    softmax: bool = False,
    size: int = 32,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A network whose output is mean color (3 channels) times weights (3, C), softmax or not."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["mean", "weights"], ["logits" if softmax else "output"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["output"], axis=1))
    values = {"weights": weights.astype(np.float32)}
    shape: list[Dim] = ["batch", weights.shape[1]]
    return _save(path, nodes, values, ["batch", 3, size, size], shape, metadata, None)


def grid_detector(path: Path, classes: int, *, size: int = 64, baked_anchors: bool = False) -> Path:
    """An untrained network with the layout of YOLOX, its size fixed as exports fix it.

    Args:
        baked_anchors: adds a constant for every cell, as exports of other projects do.
    """
    random, count = np.random.default_rng(0), 5 + classes
    cells = sum((size // stride) ** 2 for stride in (8, 16, 32))
    nodes: list[Any] = []
    weights: dict[str, Any] = {"shape": np.array([1, count, -1], np.int64)}
    for stride in (8, 16, 32):
        kernel = random.normal(0, 0.01, (count, 3, stride, stride)).astype(np.float32)
        weights[f"w{stride}"] = kernel
        nodes += [
            helper.make_node(
                "Conv", ["images", f"w{stride}"], [f"c{stride}"], strides=[stride, stride]
            ),
            helper.make_node("Reshape", [f"c{stride}", "shape"], [f"r{stride}"]),
        ]
    nodes.append(helper.make_node("Concat", ["r8", "r16", "r32"], ["all"], axis=2))
    last = "all"
    if baked_anchors:
        weights["anchors"] = np.zeros((1, count, cells), np.float32)
        nodes.append(helper.make_node("Add", ["all", "anchors"], ["moved"]))
        last = "moved"
    nodes.append(helper.make_node("Transpose", [last], ["output"], perm=[0, 2, 1]))
    return _save(path, nodes, weights, _input(size, False), [1, cells, count], None, None)


def _input(size: int, dynamic: bool) -> list[Dim]:
    return ["batch", 3, "height", "width"] if dynamic else [1, 3, size, size]


def _save(
    path: Path,
    nodes: Sequence[Any],
    weights: Mapping[str, Any],
    input_shape: Sequence[Dim],
    output_shape: Sequence[Dim],
    metadata: Mapping[str, str] | None,
    card: ModelCard | None,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return _save_graph(path, graph, metadata or {}, card)


def _element(dtype: np.dtype[Any]) -> int:
    return int(helper.np_dtype_to_tensor_dtype(dtype))


def _save_graph(
    path: Path, graph: Any, metadata: Mapping[str, str], card: ModelCard | None
) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    if card is not None:
        embed_card(model, card)
    check_model(model)
    save(model, path)
    return path
