"""Cross-layer equalization: channels of two convolutions brought to like ranges, exactly.

Source: Nagel et al., Data-free quantization through weight equalization and bias correction (ICCV
2019). What a channel is divided by in one layer it is multiplied by in the next. Between them may
stand nothing, or what a positive factor passes through unchanged: ReLU and leaky ReLU, not SiLU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vistadex.quantizing.graphs import Model, initializers, uses
from vistadex.records import FloatArray

_PASSES = ("Relu", "LeakyRelu", "PRelu")
_ROUNDS = 20
_DONE = 1e-3


@dataclass(frozen=True, slots=True)
class Pair:
    """Two convolutions, the second of which alone reads the first."""

    first: str
    """The name of the first one's weights."""
    bias: str
    """Of the first one's bias; empty where it has none."""
    second: str
    depthwise: bool
    """Whether the second has one filter for each channel."""


def equalize(model: Model) -> int:
    """Rescales the weights of every pair in place until nothing changes; returns the pairs."""
    from onnx import numpy_helper

    found = pairs(model)
    tensors = initializers(model)
    names = {name for pair in found for name in (pair.first, pair.bias, pair.second) if name}
    arrays = {name: numpy_helper.to_array(tensors[name]).copy() for name in names}
    for _ in range(_ROUNDS):
        if max((_balance(pair, arrays) for pair in found), default=0.0) < _DONE:
            break
    for name, array in arrays.items():
        tensors[name].CopyFrom(numpy_helper.from_array(array, name))
    return len(found)


def pairs(model: Model) -> list[Pair]:
    """The pairs of the graph, in its order."""
    graph, counts = model.graph, uses(model)
    tensors = initializers(model)
    readers = {name: node for node in graph.node for name in node.input}
    found = []
    for node in graph.node:
        if node.op_type != "Conv" or counts[node.output[0]] != 1:
            continue
        after = readers.get(node.output[0])
        while after is not None and after.op_type in _PASSES and counts[after.output[0]] == 1:
            after = readers.get(after.output[0])
        if after is None or after.op_type != "Conv" or after.output[0] == node.output[0]:
            continue
        bias = node.input[2] if len(node.input) > 2 else ""
        weights = [node.input[1], after.input[1]] + [bias] * bool(bias)
        groups = next((one.i for one in after.attribute if one.name == "group"), 1)
        shape = tuple(tensors[after.input[1]].dims) if after.input[1] in tensors else ()
        depthwise = bool(shape) and groups == shape[0] and shape[1] == 1 and groups > 1
        alone = all(name in tensors and counts[name] == 1 for name in weights)
        if alone and (groups == 1 or depthwise):
            found.append(Pair(node.input[1], bias, after.input[1], depthwise))
    return found


def _balance(pair: Pair, arrays: dict[str, FloatArray]) -> float:
    """Rescales one pair; the largest change of a scale, as a logarithm."""
    first, second = arrays[pair.first], arrays[pair.second]
    axis = 0 if pair.depthwise else 1
    before = np.abs(first).reshape(len(first), -1).max(1)
    after = np.abs(np.moveaxis(second, axis, 0)).reshape(second.shape[axis], -1).max(1)
    sound = (before > 0) & (after > 0)
    scale = np.ones_like(before)
    scale[sound] = np.sqrt(before[sound] / after[sound])
    first /= _along(scale, 0, first)
    if pair.bias:
        arrays[pair.bias] /= scale
    second *= _along(scale, axis, second)
    return float(np.abs(np.log(scale)).max())


def _along(scale: FloatArray, axis: int, weights: FloatArray) -> Any:
    shape = [1] * weights.ndim
    shape[axis] = -1
    return scale.reshape(shape)
