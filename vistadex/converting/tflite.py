"""ONNX graphs as TensorFlow Lite files: each operation in the form that LiteRT has for it.

TensorFlow Lite has channels last. Tensors of four axes are kept so as long as operations allow, and
are turned back before those that mix axes (Reshape, Transpose).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistadex.converting.graphs import FixedGraph, attributes
from vistadex.converting.integers import IntegerConvolution, integers
from vistadex.converting.writing import Writer
from vistadex.errors import ModelError

_TO_LAST = (0, 2, 3, 1)
_TO_FIRST = (0, 3, 1, 2)
_SAME, _VALID = 0, 1
"""schema.Padding."""


def convert(graph: FixedGraph, *, int8: bool, place: str) -> bytes:
    """The bytes of a .tflite file that computes the same, its input [1, H, W, 3] float32.

    Args:
        int8: store the weights of layers in int8 with a scale for each output channel.
        place: the file, for errors.
    Raises: ModelError that names the first operation that has no form here.
    """
    work = _Conversion(graph, int8)
    for node in graph.nodes:
        if node.output[0] in work.integers.swallowed | set(work.integers.constants):
            continue
        write = OPERATIONS.get(node.op_type)
        if write is None:
            known = ", ".join(sorted(OPERATIONS))
            raise ModelError(
                f"{place}: operation {node.op_type} can't be written as TensorFlow Lite; known "
                f"are {known}. Export to onnx, or convert it with the tool that it comes from"
            )
        try:
            write(work, node)
        except _NoFormError as error:
            raise ModelError(f"{place}: {node.op_type} {error}") from error
    outputs = [work.last(n) if len(graph.shapes[n]) == 4 else work.plain(n) for n in graph.outputs]
    return work.writer.file([work.numbers[graph.inside]], outputs, "Vistadex")


class _NoFormError(Exception):
    """An operation in a form that TensorFlow Lite lacks."""


class _Conversion:
    """What is written so far, and in which layout each tensor is."""

    def __init__(self, graph: FixedGraph, int8: bool) -> None:
        self.integers = integers(graph)
        constants = {**graph.constants, **self.integers.constants}
        self.graph, self.int8 = replace(graph, constants=constants), int8
        self.writer = Writer()
        self.numbers: dict[str, int] = {}
        """Tensors by their ONNX name: channels last where they have four axes and in `turned`."""
        self.turned: set[str] = set()
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self.made(graph.inside)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, as ONNX has it."""
        known = self.graph.shapes.get(name)
        return self.graph.constants[name].shape if known is None else known

    def made(self, name: str, *, plain: bool = False) -> int:
        """A new tensor that the next operation makes, channels last unless plain."""
        shape = self.shape(name)
        if len(shape) == 4 and not plain:
            self.turned.add(name)
            shape = tuple(shape[i] for i in _TO_LAST)
        steps = self.integers.steps.get(name)
        number = self.writer.tensor(name, shape, np.float32 if steps is None else np.int8)
        if steps is not None:
            self.writer.quantize(number, steps.scale, steps.zero)
        self.numbers[name] = number
        return number

    def last(self, name: str) -> int:
        """A tensor of four axes with its channels last."""
        if name in self.graph.constants:
            return self.writer.constant(name, self.graph.constants[name].transpose(_TO_LAST))
        if name in self.turned:
            return self.numbers[name]
        if name not in self._last:
            self._last[name] = self._transposed(self.numbers[name], _TO_LAST)
        return self._last[name]

    def plain(self, name: str) -> int:
        """A tensor in the order of ONNX."""
        if name in self.graph.constants:
            return self.writer.constant(name, self.graph.constants[name])
        if name not in self.turned:
            return self.numbers[name]
        if name not in self._first:
            self._first[name] = self._transposed(self.numbers[name], _TO_FIRST)
        return self._first[name]

    def natural(self, name: str) -> int:
        """Channels last where there are four axes, else as it is."""
        return self.last(name) if len(self.shape(name)) == 4 else self.plain(name)

    def axis(self, name: str, axis: int) -> int:
        """Where an axis of a tensor is in its natural layout."""
        axis %= len(self.shape(name))
        return _TO_LAST.index(axis) if len(self.shape(name)) == 4 else axis

    def list_of(self, values: Sequence[int]) -> int:
        """A constant list."""
        return self.writer.constant("", np.array(values, np.int32))

    def constant_of(self, name: str) -> NDArray[Any]:
        """A tensor's fixed values; _NoFormError where it is computed."""
        if name not in self.graph.constants:
            raise _NoFormError("with computed sizes can't be written; export it at a fixed size")
        return self.graph.constants[name]

    def weights(self, name: str, values: NDArray[Any], axis: int) -> int:
        """A layer's weights, in int8 where asked for."""
        values = np.ascontiguousarray(values)
        write = self.writer.rounded if self.int8 else None
        return write(name, values, axis) if write else self.writer.constant(name, values)

    def _transposed(self, number: int, order: Sequence[int]) -> int:
        shape = self.writer.shapes[number]
        made = self.writer.tensor("", [shape[i] for i in order])
        self.writer.operation(
            "TRANSPOSE", [number, self.list_of(order)], [made], "TransposeOptions"
        )
        return made


def _convolution(work: _Conversion, node: Any) -> None:
    how, whole = attributes(node), work.integers.convolutions.get(node.output[0])
    kernel = whole.kernel if whole else work.constant_of(node.input[1])
    if kernel.ndim != 4:
        raise _NoFormError("over other than two axes can't be written")
    out, groups = kernel.shape[0], how.get("group", 1)
    strides, dilations = how.get("strides", [1, 1]), how.get("dilations", [1, 1])
    wide = [(k - 1) * d + 1 for k, d in zip(kernel.shape[2:], dilations, strict=True)]
    name = whole.inside if whole else node.input[0]
    inside, padding = _padded(work, name, how, wide, strides, 0.0)
    settings = {
        "padding": padding,
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
    }
    depthwise = groups == work.shape(name)[1] and groups > 1
    if depthwise:
        kernel = kernel.reshape(out, *kernel.shape[2:])[None].transpose(0, 2, 3, 1)
        settings["depthMultiplier"] = out // groups
    else:
        kernel = kernel.transpose(0, 2, 3, 1)
    kind, options = _KINDS[depthwise]
    # Constants are written before the operation that reads them.
    if whole:
        inputs = [inside, *_whole_weights(work, whole, kernel, 3 if depthwise else 0)]
        made = work.made(whole.outside)
    else:
        weights = work.weights(node.input[1], kernel, 3 if depthwise else 0)
        inputs = [inside, weights, _bias(work, node, out)]
        made = work.made(node.output[0])
    work.writer.operation(kind, inputs, [made], options, **settings)


_KINDS = {
    False: ("CONV_2D", "Conv2DOptions"),
    True: ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"),
}


def _bias(work: _Conversion, node: Any, out: int) -> int:
    bias = np.zeros(out, np.float32)
    if len(node.input) > 2:
        bias = work.constant_of(node.input[2])
    return work.writer.constant(f"{node.output[0]}_bias", bias)


def _whole_weights(
    work: _Conversion, whole: IntegerConvolution, kernel: NDArray[np.int8], axis: int
) -> list[int]:
    """int8 weights and int32 biases, whose steps are those of input times weights."""
    scale = whole.kernel_scale
    steps = work.integers.steps[whole.inside].scale * scale
    return [
        work.writer.whole(f"{whole.outside}_weights", np.ascontiguousarray(kernel), scale, axis),
        work.writer.whole(f"{whole.outside}_bias", whole.bias, steps),
    ]


def _padded(
    work: _Conversion,
    name: str,
    how: Mapping[str, Any],
    kernel: Sequence[int],
    strides: Sequence[int],
    filling: float,
) -> tuple[int, int]:
    """The input, padded by an operation where TensorFlow's own padding is another; and which."""
    height, width = work.shape(name)[2:]
    if how.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise _NoFormError(f"with auto_pad {how['auto_pad']} can't be written; export it with pads")
    if how.get("ceil_mode", 0):
        raise _NoFormError("with ceil_mode can't be written; export it without")
    pads = [0] * 4 if how.get("auto_pad") == "VALID" else list(how.get("pads", [0] * 4))
    if not any(pads):
        return work.last(name), _VALID
    same = []
    for size, k, stride in zip((height, width), kernel, strides, strict=True):
        whole = max((-(-size // stride) - 1) * stride + k - size, 0)
        same.append((whole // 2, whole - whole // 2))
    if pads == [same[0][0], same[1][0], same[0][1], same[1][1]]:
        return work.last(name), _SAME
    around = np.array([[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]], np.int32)
    shape = [1, height + pads[0] + pads[2], width + pads[1] + pads[3], work.shape(name)[1]]
    steps = work.integers.steps.get(name)
    made = work.writer.tensor(f"{name}_padded", shape, np.float32 if steps is None else np.int8)
    if steps is not None:
        work.writer.quantize(made, steps.scale, steps.zero)
    inputs = [work.last(name), work.writer.constant("", around)]
    if filling:
        inputs.append(work.writer.constant("", np.array(filling, np.float32)))
    kind, options = ("PADV2", "PadV2Options") if filling else ("PAD", "PadOptions")
    work.writer.operation(kind, inputs, [made], options)
    return made, _VALID


def _pool(work: _Conversion, node: Any) -> None:
    how = attributes(node)
    kernel, strides = how["kernel_shape"], how.get("strides", [1, 1])
    largest = node.op_type == "MaxPool"
    if set(how.get("dilations", [1])) != {1} or (not largest and any(how.get("pads", [0]))):
        raise _NoFormError("with dilation or padded averages can't be written")
    lowest = float(np.finfo(np.float32).min) if largest else 0.0
    inside, padding = _padded(work, node.input[0], how, kernel, strides, lowest)
    work.writer.operation(
        "MAX_POOL_2D" if largest else "AVERAGE_POOL_2D",
        [inside],
        [work.made(node.output[0])],
        "Pool2DOptions",
        padding=padding,
        filterHeight=kernel[0],
        filterWidth=kernel[1],
        strideH=strides[0],
        strideW=strides[1],
    )


def _mean(work: _Conversion, node: Any) -> None:
    name, how = node.input[0], attributes(node)
    rank = len(work.shape(name))
    if node.op_type == "GlobalAveragePool":
        axes, keep = list(range(2, rank)), True
    else:
        given = work.constant_of(node.input[1]).tolist() if len(node.input) > 1 else None
        axes, keep = how.get("axes", given or list(range(rank))), bool(how.get("keepdims", 1))
    if rank == 4 and not keep:
        inside, places = work.plain(name), [axis % rank for axis in axes]
    else:
        inside, places = work.natural(name), [work.axis(name, axis) for axis in axes]
    made = work.made(node.output[0], plain=not keep)
    work.writer.operation(
        "MEAN", [inside, work.list_of(places)], [made], "ReducerOptions", keepDims=keep
    )


def _unary(kind: str, options: str = "", **fields: str) -> Callable[[_Conversion, Any], None]:
    """Writes an operation on each value; fields: of the options, from ONNX attributes."""

    def write(work: _Conversion, node: Any) -> None:
        how = attributes(node)
        values = {key: how.get(name, 0.01) for key, name in fields.items()}
        inside = work.natural(node.input[0])
        work.writer.operation(kind, [inside], [work.made(node.output[0])], options, **values)

    return write


def _binary(kind: str, options: str) -> Callable[[_Conversion, Any], None]:
    def write(work: _Conversion, node: Any) -> None:
        rank = len(work.shape(node.output[0]))
        inputs = [_operand(work, name, rank) for name in node.input]
        work.writer.operation(kind, inputs, [work.made(node.output[0])], options)

    return write


def _operand(work: _Conversion, name: str, rank: int) -> int:
    """A tensor that meets one of that many axes, value by value."""
    constant = work.graph.constants.get(name)
    if constant is None:
        if len(work.shape(name)) not in (0, rank):
            raise _NoFormError("of tensors with different numbers of axes can't be written")
        return work.natural(name)
    if rank != 4 or constant.size == 1:
        values = constant.reshape(-1)[:1] if constant.size == 1 else constant
        return work.writer.constant(name, values)
    shape = (1,) * (4 - constant.ndim) + constant.shape
    return work.writer.constant(name, constant.reshape(shape).transpose(_TO_LAST))


def _clip(work: _Conversion, node: Any) -> None:
    how = attributes(node)
    low, high = (
        float(work.constant_of(node.input[i]))
        if len(node.input) > i and node.input[i]
        else how.get(key)
        for i, key in ((1, "min"), (2, "max"))
    )
    inside = work.natural(node.input[0])
    if (low, high) == (0, 6):
        work.writer.operation("RELU6", [inside], [work.made(node.output[0])])
        return
    made = work.made(node.output[0])
    ends = [("MAXIMUM", low), ("MINIMUM", high)]
    ends = [(kind, end) for kind, end in ends if end is not None]
    for i, (kind, end) in enumerate(ends):
        limit = work.writer.constant("", np.array([end], np.float32))
        target = made if i == len(ends) - 1 else work.writer.tensor("", work.writer.shapes[made])
        work.writer.operation(kind, [inside, limit], [target], "MaximumMinimumOptions")
        inside = target


def _concat(work: _Conversion, node: Any) -> None:
    axis = work.axis(node.output[0], attributes(node)["axis"])
    inputs = [work.natural(name) for name in node.input]
    made = work.made(node.output[0])
    work.writer.operation("CONCATENATION", inputs, [made], "ConcatenationOptions", axis=axis)


def _split(work: _Conversion, node: Any) -> None:
    axis = work.axis(node.input[0], attributes(node).get("axis", 0))
    old = attributes(node).get("axis", 0) % len(work.shape(node.input[0]))
    sizes = work.list_of([work.shape(name)[old] for name in node.output])
    inputs = [work.natural(node.input[0]), sizes, work.writer.constant("", np.array(axis))]
    made = [work.made(name) for name in node.output]
    work.writer.operation("SPLIT_V", inputs, made, "SplitVOptions", numSplits=len(made))


def _slice(work: _Conversion, node: Any) -> None:
    name, rank = node.input[0], len(work.shape(node.input[0]))
    given = [work.constant_of(one).tolist() for one in node.input[1:]]
    starts, ends = given[0], given[1]
    axes = given[2] if len(given) > 2 else list(range(len(starts)))
    steps = given[3] if len(given) > 3 else [1] * len(starts)
    if any(step < 1 for step in steps):
        raise _NoFormError("backwards can't be written")
    begin, end, stride = [0] * rank, [0] * rank, [1] * rank
    for axis, size in enumerate(work.shape(name)):
        end[work.axis(name, axis)] = size
    for axis, start, stop, step in zip(axes, starts, ends, steps, strict=True):
        place, size = work.axis(name, axis), work.shape(name)[axis]
        begin[place], end[place], _ = slice(start, stop).indices(size)
        stride[place] = step
    inputs = [work.natural(name), *(work.list_of(one) for one in (begin, end, stride))]
    made = work.made(node.output[0])
    work.writer.operation("STRIDED_SLICE", inputs, [made], "StridedSliceOptions")


def _resize(work: _Conversion, node: Any) -> None:
    how = attributes(node)
    mode = how.get("mode", "nearest")
    corners = how.get("coordinate_transformation_mode", "half_pixel")
    before, after = work.shape(node.input[0]), work.shape(node.output[0])
    nearest = mode == "nearest"
    whole = all(b % a == 0 for a, b in zip(before[2:], after[2:], strict=True))
    if nearest and not (whole and (corners == "asymmetric" or "half_pixel" in corners)):
        raise _NoFormError("nearest by other than a whole factor can't be written")
    if not nearest and (mode != "linear" or corners == "tf_crop_and_resize"):
        raise _NoFormError(f"{mode} {corners} can't be written")
    inputs = [work.last(node.input[0]), work.list_of(after[2:])]
    made = work.made(node.output[0])
    kind = "ResizeNearestNeighbor" if nearest else "ResizeBilinear"
    settings = {"alignCorners": corners == "align_corners"}
    settings["halfPixelCenters"] = not nearest and "half_pixel" in corners
    name = "RESIZE_NEAREST_NEIGHBOR" if nearest else "RESIZE_BILINEAR"
    work.writer.operation(name, inputs, [made], f"{kind}Options", **settings)


def _reshape(work: _Conversion, node: Any) -> None:
    inside = work.plain(node.input[0])
    shape = work.shape(node.output[0])
    made = work.made(node.output[0], plain=True)
    work.writer.operation("RESHAPE", [inside, work.list_of(shape)], [made], "ReshapeOptions")


def _transpose(work: _Conversion, node: Any) -> None:
    rank = len(work.shape(node.input[0]))
    order = attributes(node).get("perm", list(range(rank))[::-1])
    inside = work.plain(node.input[0])
    made = work.made(node.output[0], plain=True)
    work.writer.operation("TRANSPOSE", [inside, work.list_of(order)], [made], "TransposeOptions")


def _softmax(work: _Conversion, node: Any) -> None:
    name = node.input[0]
    rank = len(work.shape(name))
    axis = attributes(node).get("axis", -1) % rank
    if axis != rank - 1 and not (rank == 4 and axis == 1):
        raise _NoFormError("over another than the last axis or the channels can't be written")
    channels = rank == 4 and axis == 1
    inside = work.last(name) if channels else work.plain(name)
    made = work.made(node.output[0], plain=not channels)
    work.writer.operation("SOFTMAX", [inside], [made], "SoftmaxOptions", beta=1.0)


def _matrix(work: _Conversion, node: Any) -> None:
    how = attributes(node)
    weights = work.constant_of(node.input[1])
    if weights.ndim != 2 or how.get("transA", 0):
        raise _NoFormError("of two computed matrices can't be written")
    weights = weights if how.get("transB", 0) else weights.T
    bias = np.zeros(len(weights), np.float32)
    if len(node.input) > 2:
        bias = np.broadcast_to(work.constant_of(node.input[2]).reshape(-1), bias.shape)
    numbers = [
        work.plain(node.input[0]),
        work.weights(node.input[1], weights * np.float32(how.get("alpha", 1.0)), 0),
        work.writer.constant(f"{node.output[0]}_bias", bias * np.float32(how.get("beta", 1.0))),
    ]
    made = work.made(node.output[0], plain=True)
    work.writer.operation(
        "FULLY_CONNECTED", numbers, [made], "FullyConnectedOptions", keepNumDims=True
    )


def _same(work: _Conversion, node: Any) -> None:
    """Another name for a tensor."""
    work.numbers[node.output[0]] = work.natural(node.input[0])
    if len(work.shape(node.input[0])) == 4:
        work.turned.add(node.output[0])


def _convert(kind: str, options: str) -> Callable[[_Conversion, Any], None]:
    """Writes QuantizeLinear or DequantizeLinear of activations."""

    def write(work: _Conversion, node: Any) -> None:
        inside = work.natural(node.input[0])
        work.writer.operation(kind, [inside], [work.made(node.output[0])], options)

    return write


OPERATIONS: Mapping[str, Callable[[_Conversion, Any], None]] = {
    "Conv": _convolution,
    "QuantizeLinear": _convert("QUANTIZE", "QuantizeOptions"),
    "DequantizeLinear": _convert("DEQUANTIZE", "DequantizeOptions"),
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _mean,
    "ReduceMean": _mean,
    "Sigmoid": _unary("LOGISTIC"),
    "Relu": _unary("RELU"),
    "Tanh": _unary("TANH"),
    "Exp": _unary("EXP", "ExpOptions"),
    "HardSwish": _unary("HARD_SWISH", "HardSwishOptions"),
    "LeakyRelu": _unary("LEAKY_RELU", "LeakyReluOptions", alpha="alpha"),
    "Add": _binary("ADD", "AddOptions"),
    "Sub": _binary("SUB", "SubOptions"),
    "Mul": _binary("MUL", "MulOptions"),
    "Div": _binary("DIV", "DivOptions"),
    "Clip": _clip,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Resize": _resize,
    "Upsample": _resize,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Transpose": _transpose,
    "Softmax": _softmax,
    "Gemm": _matrix,
    "MatMul": _matrix,
    "Identity": _same,
    "Dropout": _same,
}
"""What writes a node, by ONNX's name of its operation."""
