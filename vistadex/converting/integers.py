"""The int8 part of an ONNX graph in QDQ form, as TensorFlow Lite computes it.

A convolution between DequantizeLinear and QuantizeLinear becomes one int8 convolution with the same
weights, scales and zero points: uint8 activations are int8 ones, shifted by 128. Whatever else
stands between them computes in float32, with a conversion before and behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistadex.converting.graphs import FixedGraph, attributes

_SHIFT = 128
"""From uint8 to int8."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What whole numbers stand for: (whole - zero) * scale."""

    scale: NDArray[np.float32]
    """One, or one for each output channel."""
    zero: int


@dataclass(frozen=True, slots=True)
class IntegerConvolution:
    """A convolution that computes in int8."""

    inside: str
    """The int8 tensor that it reads."""
    kernel: NDArray[np.int8]
    kernel_scale: NDArray[np.float32]
    bias: NDArray[np.int32]
    outside: str
    """The int8 tensor that it makes."""


@dataclass(frozen=True, slots=True)
class Integers:
    """What of a graph is int8."""

    steps: Mapping[str, Steps]
    """Of activations in int8, by name."""
    convolutions: Mapping[str, IntegerConvolution]
    """By the name of the float tensor that the convolution makes in ONNX."""
    swallowed: frozenset[str]
    """Outputs of conversions that are part of a convolution and not written."""
    constants: Mapping[str, NDArray[np.float32]]
    """Weights in int8 that something else than such a convolution reads, turned back."""


def integers(graph: FixedGraph) -> Integers:
    """What can compute in int8."""
    turned_back = {n.output[0]: n for n in graph.nodes if n.op_type == "DequantizeLinear"}
    rounding = {n.input[0]: n for n in graph.nodes if n.op_type == "QuantizeLinear"}
    steps = {n.output[0]: _steps(graph, n) for n in rounding.values()}
    readers: dict[str, list[Any]] = {}
    for node in graph.nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[str, IntegerConvolution] = {}
    for node in graph.nodes:
        made = node.output[0]
        alone = len(readers.get(made, [])) == 1 and made in rounding and made not in graph.outputs
        if node.op_type == "Conv" and alone and all(name in turned_back for name in node.input):
            one = _convolution(graph, [turned_back[n] for n in node.input], rounding[made], steps)
            if one is not None:
                found[made] = one
    swallowed = {rounding[made].output[0] for made in found}
    for name in turned_back:
        if all(n.op_type == "Conv" and n.output[0] in found for n in readers.get(name, [])):
            swallowed.add(name)
    constants = {
        name: _turned_back(graph, node)
        for name, node in turned_back.items()
        if name not in swallowed and node.input[0] in graph.constants
    }
    return Integers(steps, found, frozenset(swallowed), constants)


def _convolution(
    graph: FixedGraph, inputs: list[Any], rounding: Any, steps: Mapping[str, Steps]
) -> IntegerConvolution | None:
    """The int8 form; None where weights are not fixed int8 around zero."""
    inside, kernel = inputs[0].input[0], graph.constants.get(inputs[1].input[0])
    if inside not in steps or kernel is None or kernel.dtype != np.int8:
        return None
    how = _steps(graph, inputs[1])
    if how.zero or (how.scale.size > 1 and attributes(inputs[1]).get("axis", 1) != 0):
        return None
    bias = np.zeros(len(kernel), np.int32)
    if len(inputs) > 2:
        bias = graph.constants[inputs[2].input[0]].astype(np.int32)
    scale = np.broadcast_to(how.scale, (len(kernel),))
    return IntegerConvolution(inside, kernel, scale, bias, rounding.output[0])


def _steps(graph: FixedGraph, node: Any) -> Steps:
    """Scale and zero point of a conversion, for int8."""
    scale = graph.constants[node.input[1]].astype(np.float32).reshape(-1)
    if len(node.input) < 3:
        return Steps(scale, -_SHIFT)
    zero = graph.constants[node.input[2]]
    shift = _SHIFT if zero.dtype == np.uint8 else 0
    return Steps(scale, int(zero.reshape(-1)[0]) - shift)


def _turned_back(graph: FixedGraph, node: Any) -> NDArray[np.float32]:
    values = graph.constants[node.input[0]]
    zero = graph.constants[node.input[2]] if len(node.input) > 2 else np.zeros(1, values.dtype)
    scale = graph.constants[node.input[1]].astype(np.float32)
    if scale.size > 1:
        shape = [1] * values.ndim
        shape[attributes(node).get("axis", 1)] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return (values.astype(np.float32) - zero.astype(np.float32)) * scale
