"""An ONNX graph at one input size: constants folded, and the shape of every tensor known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistadex.errors import ModelError
from vistadex.models.graphs import load_onnx
from vistadex.models.rewriting import chain_pools, fuse_focus
from vistadex.models.sessions import ORT_ERRORS, open_session, optimized


@dataclass(frozen=True, slots=True)
class FixedGraph:
    """A graph whose tensors all have one shape."""

    nodes: list[Any]
    inside: str
    """The picture's tensor, [1, 3, H, W]."""
    outputs: list[str]
    constants: Mapping[str, NDArray[Any]]
    shapes: Mapping[str, tuple[int, ...]]


def fixed(path: Path, size_wh: tuple[int, int]) -> FixedGraph:
    """The graph of an .onnx file for pictures of that size, rewritten without loss.

    Raises: ModelError if the file takes something else than one picture, channels first, or does
        not run at that size.
    """
    from onnx import helper, numpy_helper

    model = load_onnx(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in weights]
    dims = inputs[0].type.tensor_type.shape.dim
    if len(inputs) != 1 or len(dims) != 4 or (dims[3].dim_value == 3 and dims[1].dim_value != 3):
        raise ModelError(f"{path}: can't be exported, expected one input [N, 3, height, width]")
    declare_size(model, size_wh)
    fuse_focus(model.graph)
    chain_pools(model.graph)
    model = optimized(model)
    foreign = sorted({n.op_type for n in model.graph.node if n.domain not in ("", "ai.onnx")})
    if foreign:
        raise ModelError(f"{path}: operations of ONNX Runtime alone ({', '.join(foreign)})")
    outputs = [one.name for one in model.graph.output]
    names = [name for node in model.graph.node for name in node.output if name]
    shown = type(model)()
    shown.CopyFrom(model)
    for name in names:
        if name not in outputs:
            shown.graph.output.add(name=name)
    picture = np.zeros((1, 3, size_wh[1], size_wh[0]), np.float32)
    try:
        session = open_session(shown.SerializeToString())
        values = session.run(names, {inputs[0].name: picture})
    except ORT_ERRORS as error:
        reason = str(error).partition("\n")[0][:200]
        raise ModelError(f"{path}: fails at {size_wh[0]}x{size_wh[1]} pixels: {reason}") from error
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(
                helper.get_attribute_value(node.attribute[0])
            )
    shapes = {name: value.shape for name, value in zip(names, values, strict=True)}
    return FixedGraph(
        nodes=[node for node in model.graph.node if node.op_type != "Constant"],
        inside=inputs[0].name,
        outputs=outputs,
        constants=constants,
        shapes={**shapes, inputs[0].name: picture.shape},
    )


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes by name, texts as str."""
    from onnx import helper

    found = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}


def declare_size(model: Any, size_wh: tuple[int, int]) -> str:
    """Fixes the input of an onnx.ModelProto at one picture of that size; returns its name."""
    graph = model.graph
    known = {tensor.name for tensor in graph.initializer}
    kept = [one for one in graph.input if one.name not in known]
    del graph.input[:]
    graph.input.extend(kept)
    shape = (1, 3, size_wh[1], size_wh[0])
    for dim, size in zip(graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.Clear()
        dim.dim_value = size
    for output in graph.output:
        for dim in output.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.Clear()
    del graph.value_info[:]
    return str(graph.input[0].name)
