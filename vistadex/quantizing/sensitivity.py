"""Which layers may be int8: each one's harm is measured alone, then sets of them together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vistadex.quantizing.graphs import Layer, Model, channel_axes, initializers, layers
from vistadex.quantizing.ranges import Range
from vistadex.quantizing.static import quantized
from vistadex.quantizing.weights import rounded

Agreement = Callable[[Model], float]
"""How far a changed graph says the same as the float one: 1 for the same."""
_SHARES = (0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5)
"""Of the layers, the most harmful that are left in float, in the sets that are tried."""
_ENOUGH = 0.03
"""By how much a set with more int8 layers may agree less than the best."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The layers to be int8."""

    names: list[str]
    left: list[Layer]
    """Those that stay float, the most harmful first."""
    agreement: float
    """Of the whole set, on the pictures that it was chosen with."""


def harms(model: Model, ranges: Mapping[str, Range], agree: Agreement) -> dict[str, float]:
    """How much less the results agree when a layer alone is int8, by its name."""
    return {
        layer.name: 1 - agree(with_one_rounded(model, layer, ranges)) for layer in layers(model)
    }


def choose_layers(
    model: Model, ranges: Mapping[str, Range], harm: Mapping[str, float], agree: Agreement
) -> Choice:
    """The largest set of int8 layers that agrees about as well as the best of the sets tried.

    The stem stays float always: with three channels it is slower in int8.
    """
    known = sorted(layers(model), key=lambda layer: (not layer.stem, -harm[layer.name]))
    stems = sum(layer.stem for layer in known)
    tried: list[Choice] = []
    for left in _left(known, stems):
        names = [layer.name for layer in layers(model) if layer not in left]
        if names and all(len(left) != len(one.left) for one in tried):
            tried.append(Choice(names, left, agree(quantized(model, names, ranges))))
    best = max(one.agreement for one in tried)
    good = [one for one in tried if one.agreement >= best - _ENOUGH]
    return min(good, key=lambda one: len(one.left))


def _left(known: Sequence[Layer], stems: int) -> list[list[Layer]]:
    """The sets of layers left in float that are tried: the most harmful so many, and all that are
    depthwise or predict."""
    sets = [list(known[: stems + round(share * len(known))]) for share in _SHARES]
    rule = [layer for layer in known if layer.stem or layer.predicts or layer.depthwise]
    return [*sets, rule]


def with_one_rounded(model: Model, layer: Layer, ranges: Mapping[str, Range]) -> Model:
    """A copy that computes one layer as if it were int8: weights, input and output rounded."""
    from onnx import helper, numpy_helper

    made = copy.deepcopy(model)
    node = next(one for one in made.graph.node if one.name == layer.name)
    tensor = initializers(made)[node.input[1]]
    whole, scale = rounded(numpy_helper.to_array(tensor), channel_axes(made)[node.input[1]])
    name = f"{tensor.name}_rounded"
    made.graph.initializer.append(numpy_helper.from_array(whole.astype(np.float32) * scale, name))
    node.input[1] = name
    place = list(made.graph.node).index(node)
    pairs = []
    for end, source, target in (
        ("in", layer.inside, f"{layer.name}_in"),
        ("out", f"{layer.name}_out", layer.outside),
    ):
        step, zero = _steps(*ranges[layer.inside if end == "in" else _kept(model, layer)])
        given = [f"{layer.name}_{end}_step", f"{layer.name}_{end}_zero"]
        for value, key in zip((np.float32(step), np.uint8(zero)), given, strict=True):
            made.graph.initializer.append(numpy_helper.from_array(np.array(value), key))
        middle = f"{target}_whole"
        pairs.append(
            [
                helper.make_node("QuantizeLinear", [source, *given], [middle]),
                helper.make_node("DequantizeLinear", [middle, *given], [target]),
            ]
        )
    node.input[0], node.output[0] = f"{layer.name}_in", f"{layer.name}_out"
    for offset, one in enumerate(pairs[0]):
        made.graph.node.insert(place + offset, one)
    for offset, one in enumerate(pairs[1]):
        made.graph.node.insert(place + 3 + offset, one)
    return made


def _kept(model: Model, layer: Layer) -> str:
    """The tensor whose range a layer's output is rounded to: that behind a ReLU, if one follows
    alone, since int8 cuts there."""
    readers = [node for node in model.graph.node if layer.outside in node.input]
    alone = len(readers) == 1 and readers[0].op_type == "Relu"
    return str(readers[0].output[0]) if alone else layer.outside


def _steps(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of uint8 for a range."""
    step = (high - low) / 255 or 1.0
    return step, int(np.clip(round(-low / step), 0, 255))
