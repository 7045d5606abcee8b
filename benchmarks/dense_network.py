"""A dense detector's graph with random weights: layers, shapes and work of a YOLOv8n at 640."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

CLASSES = 80
OUTPUT = 64 + CLASSES


class DenseNetwork:
    """A graph that grows layer by layer; values are (name, channels, side in pixels)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.flops = 0
        """Twice the multiplications of the convolutions."""
        self._names = 0
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._random = np.random.default_rng(0)

    def build(self) -> Any:
        """The whole model: stem, five stages, pyramid up and down, and two branches a level."""
        level1 = self._conv(self._conv(("images", 3, self.size), 16, 3, 2), 32, 3, 2)
        level2 = self._conv(self._csp(level1, 32, 1), 64, 3, 2)
        level3 = self._csp(level2, 64, 2)
        level4 = self._csp(self._conv(level3, 128, 3, 2), 128, 2)
        level5 = self._pool(self._csp(self._conv(level4, 256, 3, 2), 256, 1), 256)
        up4 = self._csp(self._concat(self._double(level5), level4), 128, 1, add=False)
        up3 = self._csp(self._concat(self._double(up4), level3), 64, 1, add=False)
        down4 = self._csp(self._concat(self._conv(up3, 64, 3, 2), up4), 128, 1, add=False)
        down5 = self._csp(self._concat(self._conv(down4, 128, 3, 2), level5), 256, 1, add=False)
        shape = numpy_helper.from_array(np.array([1, OUTPUT, -1], np.int64), "rows")
        self._weights.append(shape)
        flat = [
            self._node("Reshape", [self._branches(level)[0], "rows"])
            for level in (up3, down4, down5)
        ]
        self._nodes.append(helper.make_node("Concat", flat, ["output"], axis=2))
        cells = sum((self.size // stride) ** 2 for stride in (8, 16, 32))
        value, kind = helper.make_tensor_value_info, TensorProto.FLOAT
        graph = helper.make_graph(
            self._nodes,
            "dense",
            [value("images", kind, [1, 3, self.size, self.size])],
            [value("output", kind, [1, OUTPUT, cells])],
            self._weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)

    def _branches(self, value: Any) -> Any:
        """Boxes (64 channels) and classes of one level of the pyramid."""
        ends = []
        for inner, outer in ((64, 64), (CLASSES, CLASSES)):
            deep = self._conv(self._conv(value, inner, 3), inner, 3)
            ends.append(self._conv(deep, outer, 1, activate=False))
        return self._concat(*ends)

    def _csp(self, value: Any, channels: int, repeats: int, *, add: bool = True) -> Any:
        """A 1x1 convolution split in two halves, pairs of 3x3 on one, and a 1x1 over all parts."""
        half = channels // 2
        whole = self._conv(value, channels, 1)
        names = [self._name("half"), self._name("half")]
        self._nodes.append(helper.make_node("Split", [whole[0]], names, axis=1))
        parts = [(name, half, whole[2]) for name in names]
        for _ in range(repeats):
            last = parts[-1]
            deep = self._conv(self._conv(last, half, 3), half, 3)
            parts.append((self._node("Add", [last[0], deep[0]]), half, deep[2]) if add else deep)
        return self._conv(self._concat(*parts), channels, 1)

    def _pool(self, value: Any, channels: int) -> Any:
        """Three 5x5 pools in a chain, joined."""
        parts = [self._conv(value, channels // 2, 1)]
        for _ in range(3):
            name = self._node("MaxPool", [parts[-1][0]], kernel_shape=[5, 5], pads=[2] * 4)
            parts.append((name, *parts[-1][1:]))
        return self._conv(self._concat(*parts), channels, 1)

    def _double(self, value: Any) -> Any:
        factor = self._name("scales")
        scales = np.array([1, 1, 2, 2], np.float32)
        self._weights.append(numpy_helper.from_array(scales, factor))
        name = self._node("Resize", [value[0], "", factor], mode="nearest")
        return name, value[1], value[2] * 2

    def _concat(self, *values: Any) -> Any:
        name = self._node("Concat", [value[0] for value in values], axis=1)
        return name, sum(value[1] for value in values), values[0][2]

    def _conv(
        self, value: Any, channels: int, kernel: int, stride: int = 1, *, activate: bool = True
    ) -> Any:
        """A convolution with bias, and SiLU."""
        name, before, side = value
        weight, bias = self._name("weight"), self._name("bias")
        deviation = (2 / (before * kernel**2)) ** 0.5
        values = self._random.normal(0, deviation, (channels, before, kernel, kernel))
        self._weights += [
            numpy_helper.from_array(values.astype(np.float32), weight),
            numpy_helper.from_array(np.zeros(channels, np.float32), bias),
        ]
        options = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        out = self._node("Conv", [name, weight, bias], **options)
        side //= stride
        self.flops += 2 * before * channels * kernel**2 * side**2
        if activate:
            out = self._node("Mul", [out, self._node("Sigmoid", [out])])
        return out, channels, side

    def _node(self, kind: str, inputs: list[str], **options: Any) -> str:
        name = self._name(kind.lower())
        self._nodes.append(helper.make_node(kind, inputs, [name], **options))
        return name

    def _name(self, what: str) -> str:
        self._names += 1
        return f"{what}{self._names}"


def write(path: Path, size: int) -> int:
    """Writes the graph for a square input; how many floating-point operations a picture takes."""
    network = DenseNetwork(size)
    save(network.build(), path)
    return network.flops
