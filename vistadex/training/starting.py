"""Where training starts: the weights of an ONNX file of the same structure.

The file's convolutions, in the order in which they are computed, are those of the network, one by
one; normalization is folded into them. Focus and its convolution count as one of 6x6.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn

from vistadex.errors import ModelError
from vistadex.models.graphs import load_onnx
from vistadex.models.rewriting import fuse_focus
from vistadex.training.folding import set_folded
from vistadex.training.networks import (
    ARCHITECTURES,
    NANO,
    Activation,
    Architecture,
    Deployed,
    DetectorNetwork,
    Unit,
    architecture_from_json,
)
from vistadex.training.writing import ARCHITECTURE_KEY

_DEPTHS = (0.33, 0.67, 1.0, 1.33)


class Convolution(NamedTuple):
    """A convolution of a file."""

    name: str
    weight: Tensor
    bias: Tensor
    stride: int
    groups: int

    def __str__(self) -> str:
        return f"{self.name or 'without a name'} {_text(self.weight.shape, self.stride)}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came out of a file, and what did not."""

    same_classes: tuple[str, ...]
    """Classes whose prediction rows were taken over."""
    new_classes: tuple[str, ...]
    """Those that the file does not have: their rows are new."""


def read_convolutions(file: Path) -> tuple[list[Convolution], Activation, Architecture | None]:
    """A file's convolutions in order, its activation, and the architecture where it says one.

    Raises: ModelError if the file is not ONNX, or a convolution has no weights of its own.
    """
    model = load_onnx(file)
    fuse_focus(model.graph)
    weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    found = [
        _convolution(file, node, weights) for node in model.graph.node if node.op_type == "Conv"
    ]
    if not found:
        raise ModelError(f"{file}: has no convolutions, expected a detector's file")
    texts = [one.value for one in model.metadata_props if one.key == ARCHITECTURE_KEY]
    said = architecture_from_json(texts[0], f"{file} metadata") if texts else None
    return found, _activation(model.graph), said


def _convolution(file: Path, node: Any, weights: dict[str, Any]) -> Convolution:
    if node.input[1] not in weights:
        what = f"convolution {node.name or node.output[0]} has no plain weights"
        raise ModelError(f"{file}: {what}, expected a float file; give the one it was made from")
    weight = torch.from_numpy(weights[node.input[1]].astype("float32"))
    bias = torch.zeros(len(weight))
    if len(node.input) > 2:
        bias = torch.from_numpy(weights[node.input[2]].astype("float32"))
    how = {one.name: one for one in node.attribute}
    stride = how["strides"].ints[0] if "strides" in how else 1
    groups = how["group"].i if "group" in how else 1
    return Convolution(node.name or node.output[0], weight, bias, stride, groups)


def _activation(graph: Any) -> Activation:
    kinds = [node.op_type for node in graph.node]
    counts = {"relu": kinds.count("Relu"), "hardswish": kinds.count("HardSwish")}
    best = max(counts, key=lambda name: counts[name])
    silu = kinds.count("Sigmoid") + kinds.count("QuickGelu")
    return "silu" if silu > counts[best] else ("relu" if best == "relu" else "hardswish")


def architecture_of(file: Path) -> Architecture:
    """The architecture that a file's convolutions fit.

    Raises: ModelError that names the first convolution that does not fit.
    """
    found, activation, said = read_convolutions(file)
    if said is not None:
        return said
    width = found[0].weight.shape[0] / 64
    failures: list[tuple[int, ModelError]] = []
    for how in _candidates(width, activation):
        try:
            match(file, found, how)
            return how
        except _MisfitError as error:
            failures.append((error.at, error))
    raise max(failures, key=lambda one: one[0])[1]


def _candidates(width: float, activation: Activation) -> Iterator[Architecture]:
    for depthwise in (True, False):
        for depth in _DEPTHS:
            how = replace(NANO, width=width, head_width=width, activation=activation)
            yield replace(how, depthwise=depthwise, depth=depth)


class _MisfitError(ModelError):
    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


def match(
    file: Path, found: Sequence[Convolution], how: Architecture
) -> list[tuple[str, Convolution]]:
    """Each convolution of the network by its module's path, with the file's that it is.

    Classes aside: the number of rows of those layers is free.

    Raises: ModelError that names the first convolution that does not fit.
    """
    with torch.device("meta"):
        network = DetectorNetwork(how, 1)
    paths = conv_paths(network)
    modules = dict(network.named_modules())
    matched = []
    for i, path in enumerate(paths):
        conv = modules[path]
        assert isinstance(conv, nn.Conv2d)
        wanted = (*conv.weight.shape, conv.stride[0])
        free = path.endswith(".classes")
        if i >= len(found):
            what = f"ends before {path} {_text(wanted[:4], wanted[4])}"
            raise _MisfitError(f"{file}: {what}, {_CURE}", i)
        one = found[i]
        have = (*one.weight.shape, one.stride)
        if have[free:] != wanted[free:]:
            what = f"convolution {i + 1}, {one}, does not fit {path}"
            raise _MisfitError(
                f"{file}: {what}, expected {_text(wanted[:4], wanted[4])}; {_CURE}", i
            )
        matched.append((path, one))
    if len(found) > len(paths):
        what = f"{len(found)} convolutions, the network has {len(paths)}"
        raise _MisfitError(
            f"{file}: {what}; first unused: {found[len(paths)]}; {_CURE}", len(paths)
        )
    return matched


_CURE = f"choose another --network ({', '.join(ARCHITECTURES)}) or file"


def _text(shape: Iterable[int], stride: int) -> str:
    """[16, 1, 3, 3]/2: outputs, inputs of a group, kernel; stride."""
    return f"{list(shape)}/{stride}"


def conv_paths(network: DetectorNetwork) -> list[str]:
    """The paths of all convolutions in the order in which they are computed."""
    traced = fx.symbolic_trace(Deployed(network))
    modules = dict(traced.named_modules())
    return [
        str(node.target).removeprefix("network.")
        for node in traced.graph.nodes
        if node.op == "call_module" and isinstance(modules[str(node.target)], nn.Conv2d)
    ]


def load_weights(
    network: DetectorNetwork, file: Path, classes: Sequence[str], file_classes: Sequence[str]
) -> Loaded:
    """Gives a network the weights of a file; rows of classes that it does not have stay new.

    Args:
        classes: of the network.
        file_classes: as the file's card names them.
    Raises: ModelError that names the first convolution that does not fit.
    """
    found, _, _ = read_convolutions(file)
    matched = match(file, found, network.architecture)
    rows = {name: i for i, name in enumerate(file_classes)}
    kept = [(i, rows[name]) for i, name in enumerate(classes) if name in rows]
    modules = dict(network.named_modules())
    for path, one in matched:
        owner = modules[path.rpartition(".")[0]]
        if isinstance(owner, Unit):
            set_folded(owner, one.weight, one.bias)
            continue
        layer = modules[path]
        assert isinstance(layer, nn.Conv2d)
        _load_predictions(layer, one, kept if path.endswith(".classes") else None)
    new = tuple(name for name in classes if name not in rows)
    return Loaded(tuple(classes[i] for i, _ in kept), new)


@torch.no_grad()
def _load_predictions(
    layer: nn.Conv2d, one: Convolution, rows: Sequence[tuple[int, int]] | None
) -> None:
    assert layer.bias is not None
    if rows is None:
        layer.weight.copy_(one.weight)
        layer.bias.copy_(one.bias)
        return
    for mine, theirs in rows:
        if theirs < len(one.weight):
            layer.weight[mine] = one.weight[theirs]
            layer.bias[mine] = one.bias[theirs]
