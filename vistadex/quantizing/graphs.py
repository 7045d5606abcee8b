"""An ONNX graph made ready for quantization, and its layers: convolutions and matrix products."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from vistadex.errors import ModelError
from vistadex.models.graphs import CARD_KEY, load_onnx
from vistadex.models.rewriting import chain_pools, fuse_focus
from vistadex.models.sessions import optimized
from vistadex.records import FloatArray

Model: TypeAlias = Any
"""An onnx.ModelProto."""
LAYERS = ("Conv", "Gemm", "MatMul")
_OPSET = 17
"""What quantization with a scale for each channel needs at least is 13."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or matrix product whose weights lie in the graph."""

    name: str
    kind: str
    """One of LAYERS."""
    inside: str
    """The tensor that it reads."""
    outside: str
    """The tensor that it makes."""
    shape: tuple[int, ...]
    """Of the weights."""
    depthwise: bool
    stem: bool
    """Whether it reads the picture's own three channels."""
    predicts: bool
    """Whether no other layer comes after it."""


def ready(path: Path) -> Model:
    """The graph with the lossless rewrites, batch normalization folded, in a recent opset, and a
    name for every node.

    Raises: ModelError if the file is no ONNX model or has no layers.
    """
    from onnx import version_converter

    model = load_onnx(path)
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise ModelError(f"{path}: quantized already; give the float model that it was made from")
    for entry in [one for one in model.metadata_props if one.key == CARD_KEY]:
        model.metadata_props.remove(entry)
    if any(node.op_type in ("BatchNormalization", "Constant") for node in model.graph.node):
        model = optimized(model)
    _drop_weight_inputs(model.graph)
    fuse_focus(model.graph)
    chain_pools(model.graph)
    del model.graph.value_info[:]
    version = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    if version < _OPSET:
        try:
            model = version_converter.convert_version(model, _OPSET)
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise ModelError(
                f"{path}: opset {version} can't be raised to {_OPSET} ({reason}); export it anew"
            ) from error
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    if not layers(model):
        raise ModelError(f"{path}: no convolution or matrix product with weights to quantize")
    return model


def layers(model: Model) -> list[Layer]:
    """The layers in the order of the graph."""
    graph = model.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    nodes = [n for n in graph.node if n.op_type in LAYERS and n.input[1] in shapes]
    followed = _followed(graph, {node.output[0] for node in nodes})
    return [
        Layer(
            name=node.name,
            kind=node.op_type,
            inside=node.input[0],
            outside=node.output[0],
            shape=shapes[node.input[1]],
            depthwise=node.op_type == "Conv" and _groups(node) > 1,
            stem=node.op_type == "Conv" and shapes[node.input[1]][1] * _groups(node) <= 4,
            predicts=node.output[0] not in followed,
        )
        for node in nodes
    ]


def weights_of(model: Model) -> dict[str, FloatArray]:
    """The float32 weights of layers by name, biases not among them."""
    from onnx import numpy_helper

    wanted = {n.input[1] for n in model.graph.node if n.op_type in LAYERS}
    tensors = (tensor for tensor in model.graph.initializer if tensor.name in wanted)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
    return {name: array for name, array in arrays.items() if array.dtype == np.float32}


def channel_axes(model: Model) -> dict[str, int]:
    """Which axis of a layer's weights counts its output channels, by the weights' name."""
    found = {}
    for node in model.graph.node:
        if node.op_type in LAYERS:
            turned = any(a.name == "transB" and a.i for a in node.attribute)
            found[node.input[1]] = 0 if node.op_type == "Conv" or turned else -1
    return found


def initializers(model: Model) -> dict[str, Any]:
    """The graph's weights as they are stored, by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def uses(model: Model) -> Counter[str]:
    """How often a tensor is read, by nodes or as an output of the graph."""
    counts = Counter(name for node in model.graph.node for name in node.input)
    counts.update(output.name for output in model.graph.output)
    return counts


def _followed(graph: Any, made: set[str]) -> set[str]:
    """Of the tensors that layers make, those from which another layer's input comes."""
    behind: dict[str, set[str]] = {}
    for node in graph.node:
        sources = set[str]().union(*(behind.get(name, set()) for name in node.input))
        sources |= made & set(node.input)
        behind.update(dict.fromkeys(node.output, sources))
    return set[str]().union(*(behind.get(name, set()) for name in made))


def _groups(node: Any) -> int:
    return int(next((one.i for one in node.attribute if one.name == "group"), 1))


def _drop_weight_inputs(graph: Any) -> None:
    """Weights that old exports name as inputs too could be given anew: nothing is folded then."""
    names = {tensor.name for tensor in graph.initializer}
    kept = [one for one in graph.input if one.name not in names]
    del graph.input[:]
    graph.input.extend(kept)
