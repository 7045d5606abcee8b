"""Weights stored in fewer bytes and turned back when the file is opened: no speed is lost.

Each weight is followed by Cast (float16), or by Cast and Mul with a scale for each output channel
(int8). ONNX Runtime folds both into float32 weights at load; it does not fold DequantizeLinear,
which would halve the speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vistadex.errors import ModelError
from vistadex.quantizing.graphs import Model, channel_axes, initializers, layers, weights_of
from vistadex.records import FloatArray

_LARGEST_HALF = float(np.finfo(np.float16).max)
_FEWEST = 16
"""Of fewer values, the nodes that turn them back take more than is saved."""


def as_float16(model: Model) -> Model:
    """A copy whose float weights and biases are float16.

    Raises: ModelError if a weight is too large for it.
    """
    from onnx import TensorProto, numpy_helper

    copy = _copy(model)
    before = []
    for tensor in list(copy.graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < _FEWEST:
            continue
        if np.abs(array).max() > _LARGEST_HALF:
            raise ModelError(
                f"weight {tensor.name}: {np.abs(array).max():.3g}, float16 ends at "
                f"{_LARGEST_HALF:.0f}; choose the method weights-int8"
            )
        before.append(_cast(tensor, array.astype(np.float16), TensorProto.FLOAT))
    _put_first(copy, before)
    return copy


def as_int8(model: Model) -> Model:
    """A copy whose layers' weights are int8 with a float16 scale for each output channel, the
    other float weights float16: also those of the stem and of depthwise layers, which are few and
    lose most."""
    from onnx import TensorProto, helper, numpy_helper

    copy = as_float16(model)
    tensors, axes = initializers(copy), channel_axes(model)
    before = []
    delicate = {one.name for one in layers(model) if one.stem or one.depthwise}
    spared = {n.input[1] for n in model.graph.node if n.name in delicate}
    casts = {n.output[0]: n for n in copy.graph.node if n.op_type == "Cast"}
    for name, array in weights_of(model).items():
        if name not in casts or name in spared:
            continue
        whole, scale = rounded(array, axes[name])
        tensor = tensors[casts[name].input[0]]
        tensor.CopyFrom(numpy_helper.from_array(whole, f"{name}_int8"))
        casts[name].input[0], casts[name].output[0] = f"{name}_int8", f"{name}_whole"
        kept = numpy_helper.from_array(scale.astype(np.float16), f"{name}_scale_half")
        copy.graph.initializer.append(kept)
        before += [
            helper.make_node("Cast", [kept.name], [f"{name}_scale"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_whole", f"{name}_scale"], [name]),
        ]
    casts_first = [node for node in copy.graph.node if node.output[0].endswith("_whole")]
    _put_first(copy, before)
    for node in casts_first:
        copy.graph.node.remove(node)
    _put_first(copy, casts_first)
    return copy


STORED: Mapping[str, Callable[[Model], Model]] = {
    "weights-float16": as_float16,
    "weights-int8": as_int8,
}
"""The ways to store weights, by name."""


def rounded(array: FloatArray, axis: int) -> tuple[Any, FloatArray]:
    """int8 weights from -127 to 127, and what one step of each output channel is worth."""
    others = tuple(i for i in range(array.ndim) if i != axis % array.ndim)
    largest = np.abs(array).max(axis=others, keepdims=True)
    half = np.where(largest > 0, largest / 127, 1).astype(np.float16)
    # The scale itself is rounded: a step too small for float16 becomes its smallest number.
    scale: FloatArray = np.maximum(half, np.float16(6e-8)).astype(np.float32)
    whole = np.clip(np.rint(array / scale), -127, 127).astype(np.int8)
    return whole, scale


def _cast(tensor: Any, values: Any, kind: int) -> Any:
    """Stores values in place of a tensor; the node that makes the tensor from them."""
    from onnx import helper, numpy_helper

    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(values, f"{name}_half"))
    return helper.make_node("Cast", [tensor.name], [name], to=kind)


def _put_first(model: Model, nodes: list[Any]) -> None:
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def _copy(model: Model) -> Model:
    copy = type(model)()
    copy.CopyFrom(model)
    return copy
