"""Static quantization: chosen layers in int8, with ranges of activations measured beforehand.

QDQ form: uint8 activations with a scale and zero point for each tensor, int8 weights with a scale
for each output channel (U8S8: on x86 with VNNI the fastest form; S8 activations run 2.7 times as
slow).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from vistadex.models.rewriting import sort_nodes
from vistadex.quantizing.graphs import Model, initializers, layers
from vistadex.quantizing.ranges import Range

_CARRIERS = (
    *("Relu", "Clip", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Concat", "Resize", "Add", "Flatten", "Reshape"),
)
"""What computes in int8 too, where everything that it reads and makes is in int8."""


def tensors_to_observe(model: Model) -> list[str]:
    """The activations whose ranges quantization may need, in the order of the graph."""
    known = {layer.name for layer in layers(model)}
    weights = initializers(model)
    found: dict[str, None] = {}
    for node in model.graph.node:
        if node.name in known or node.op_type in _CARRIERS:
            first = list(node.input) if node.op_type in ("Concat", "Add") else [node.input[0]]
            found |= dict.fromkeys(n for n in [*first, *node.output] if n and n not in weights)
    return list(found)


def quantized(model: Model, names: Collection[str], ranges: Mapping[str, Range]) -> Model:
    """A copy with these layers in int8, and with what only carries values between them."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    nodes = [*names, *_carriers(model, names)]
    limits = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    quantizer = QDQQuantizer(
        copy.deepcopy(model),
        True,  # a scale for each channel
        False,  # all 8 bits
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=limits,
        nodes_to_quantize=nodes,
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({*_CARRIERS, *(layer.kind for layer in layers(model))}),
        extra_options={"WeightSymmetric": True},
    )
    with quiet_quantizer():
        made = quantizer.quantize_model()
    del made.graph.value_info[:]
    sort_nodes(made.graph)
    return made


@contextmanager
def quiet_quantizer() -> Iterator[None]:
    """Keeps ONNX Runtime's quantizer from logging, at the root, every tensor that it leaves."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _carriers(model: Model, names: Collection[str]) -> list[str]:
    """Nodes between quantized layers: all that they read and whoever reads them is in int8."""
    graph, weights = model.graph, initializers(model)
    chosen = {node.name for node in graph.node if node.op_type in _CARRIERS}
    outputs = {output.name for output in graph.output}
    while True:
        made = {n.output[0]: n for n in graph.node if n.name in chosen or n.name in names}
        read: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                read.setdefault(name, []).append(node)
        kept = {
            node.name
            for node in graph.node
            if node.name in chosen
            and all(name in made for name in _data(node, weights))
            and node.output[0] not in outputs
            and all(r.name in chosen or r.name in names for r in read.get(node.output[0], []))
        }
        if kept == chosen:
            return sorted(kept)
        chosen = kept


def _data(node: Any, weights: Mapping[str, Any]) -> list[str]:
    """The inputs of a carrier that hold values, not sizes or limits."""
    several = node.op_type in ("Concat", "Add")
    names = list(node.input) if several else [node.input[0]]
    return [name for name in names if several or name not in weights]
