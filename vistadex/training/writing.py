"""A network as an ONNX file: folded, with any batch and size, checked against torch.

The network is traced, so that another backbone or neck needs no code here. The name of a Conv node
is the path of its module, and of its weights that path with `.weight` and `.bias`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from onnx import TensorProto, checker, helper, numpy_helper
from torch import fx, nn

from vistadex.errors import ModelError
from vistadex.models.trials import Trial
from vistadex.records import FloatArray
from vistadex.training.folding import folded
from vistadex.training.networks import BOX_VALUES, Deployed, DetectorNetwork

OPSET = 17
ARCHITECTURE_KEY = "vistadex_architecture"
"""The key of the ONNX metadata that holds the architecture as JSON."""
TOLERANCE = 1e-3
"""Between torch and ONNX Runtime, of outputs in strides, log sizes and probabilities; of those
above 1, the share."""
_INPUT, _OUTPUT = "images", "output"


def to_onnx(network: DetectorNetwork) -> bytes:
    """The file of a network: input `images` (N, 3, H, W), output (N, A, 5 + C) as YOLOX has it."""
    plain = folded(network).cpu()
    traced = fx.symbolic_trace(Deployed(plain))
    graph = _Graph(traced)
    for node in traced.graph.nodes:
        graph.add(node)
    picture = helper.make_tensor_value_info(
        _INPUT, TensorProto.FLOAT, ["batch", 3, "height", "width"]
    )
    rows = helper.make_tensor_value_info(
        _OUTPUT, TensorProto.FLOAT, ["batch", "rows", BOX_VALUES + network.class_count]
    )
    made = helper.make_graph(graph.nodes, "vistadex", [picture], [rows], graph.weights)
    model = helper.make_model(
        made, producer_name="vistadex", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8
    )
    model.metadata_props.add(key=ARCHITECTURE_KEY, value=network.architecture.to_json())
    checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def check_outputs(data: bytes, network: DetectorNetwork, images: FloatArray) -> float:
    """The largest difference between what ONNX Runtime and torch compute; above 1 as a share.

    Args:
        images: (N, 3, H, W) inputs, of real pictures.
    Raises: ModelError if it is more than rounding.
    """
    deployed = Deployed(folded(network).cpu())
    with torch.no_grad():
        expected = deployed(torch.from_numpy(images)).numpy()
    (found,) = Trial(data)(images)
    difference = float((np.abs(found - expected) / np.maximum(np.abs(expected), 1)).max())
    if not difference < TOLERANCE:
        raise ModelError(
            f"the file written computes other values than the network (up to {difference:.2g}, "
            f"expected {TOLERANCE:g} at most); please report it"
        )
    return difference


Attributes: TypeAlias = Mapping[str, Any]


class _Graph:
    """ONNX nodes as they come from a trace."""

    def __init__(self, traced: fx.GraphModule) -> None:
        self.traced = traced
        self.modules = dict(traced.named_modules())
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.names: dict[fx.Node, str] = {}

    def add(self, node: fx.Node) -> None:
        """The ONNX nodes of one step."""
        if node.op == "placeholder":
            self.names[node] = _INPUT
        elif node.op == "output":
            (last,) = node.args
            assert isinstance(last, fx.Node)
            for made in self.nodes:
                for i, name in enumerate(made.output):
                    made.output[i] = _OUTPUT if name == self.names[last] else name
        elif node.op == "call_module":
            self._module(node, self.modules[str(node.target)])
        else:
            assert node.op == "call_function"
            assert callable(node.target)
            self.names[node] = _FUNCTIONS[node.target](self, node)

    def emit(self, kind: str, inputs: Sequence[str], name: str, **how: Any) -> str:
        """A node; the name of its output."""
        self.nodes.append(helper.make_node(kind, list(inputs), [f"{name}:0"], name=name, **how))
        return f"{name}:0"

    def constant(self, name: str, values: Any) -> str:
        """A weight or another constant; its name."""
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def of(self, arguments: Any) -> list[str]:
        """The outputs of steps."""
        return [self.names[one] for one in arguments]

    def _module(self, node: fx.Node, module: nn.Module) -> None:
        (x,) = self.of(node.args)
        if isinstance(module, nn.Identity):
            self.names[node] = x
            return
        # A module may be called more than once; the path alone is the name of the first call.
        name = str(node.target).removeprefix("network.")
        if any(made.name == name for made in self.nodes):
            name = f"{name}.{node.name}"
        self.names[node] = _MODULES[type(module)](self, module, x, name)


def _conv(graph: _Graph, module: Any, x: str, name: str) -> str:
    weight = graph.constant(f"{name}.weight", module.weight.detach().numpy())
    bias = graph.constant(f"{name}.bias", module.bias.detach().numpy())
    return graph.emit(
        "Conv",
        [x, weight, bias],
        name,
        kernel_shape=list(module.kernel_size),
        strides=list(module.stride),
        pads=[*module.padding, *module.padding],
        group=module.groups,
    )


def _silu(graph: _Graph, _: Any, x: str, name: str) -> str:
    return graph.emit("Mul", [x, graph.emit("Sigmoid", [x], f"{name}.sigmoid")], name)


def _pool(graph: _Graph, module: Any, x: str, name: str) -> str:
    size, padding = module.kernel_size, module.padding
    pads, strides = [padding] * 4, [module.stride] * 2
    return graph.emit("MaxPool", [x], name, kernel_shape=[size, size], strides=strides, pads=pads)


def _upsample(graph: _Graph, module: Any, x: str, name: str) -> str:
    factor = float(module.scale_factor)
    scales = graph.constant(f"{name}.scales", np.array([1, 1, factor, factor], np.float32))
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.emit("Resize", [x, "", scales], name, mode="nearest", **how)


def _plain(kind: str) -> Callable[[_Graph, Any, str, str], str]:
    return lambda graph, _, x, name: graph.emit(kind, [x], name)


_MODULES: Mapping[type[nn.Module], Callable[[_Graph, Any, str, str], str]] = {
    nn.Conv2d: _conv,
    nn.SiLU: _silu,
    nn.ReLU: _plain("Relu"),
    nn.Hardswish: _plain("HardSwish"),
    nn.Sigmoid: _plain("Sigmoid"),
    nn.MaxPool2d: _pool,
    nn.Upsample: _upsample,
}


def _cat(graph: _Graph, node: fx.Node) -> str:
    parts, axis = node.args
    return graph.emit("Concat", graph.of(parts), node.name, axis=axis)


def _add(graph: _Graph, node: fx.Node) -> str:
    return graph.emit("Add", graph.of(node.args), node.name)


def _flatten(graph: _Graph, node: fx.Node) -> str:
    """(B, K, H, W) to (B, K, H * W); 0 keeps an axis."""
    shape = graph.constant(f"{node.name}.shape", np.array([0, 0, -1], np.int64))
    return graph.emit("Reshape", [*graph.of(node.args[:1]), shape], node.name)


def _transpose(graph: _Graph, node: fx.Node) -> str:
    return graph.emit("Transpose", graph.of(node.args[:1]), node.name, perm=[0, 2, 1])


_FUNCTIONS: Mapping[Any, Callable[[_Graph, fx.Node], str]] = {
    torch.cat: _cat,
    operator.add: _add,
    torch.flatten: _flatten,
    torch.transpose: _transpose,
}
