"""A TensorFlow Lite file being built: tensors, constants and operations, in the order they run.

Source: the schema of TensorFlow Lite (schema.fbs), whose Python form comes with ai-edge-litert.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

_KINDS = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int8): schema.TensorType.INT8,
}
_FEWEST = 256
"""Constants with fewer values stay float32."""


class Writer:
    """One graph. Tensors are known by their numbers."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[int, int] = {}
        self._buffers = [schema.BufferT()]
        self.shapes: list[tuple[int, ...]] = []
        """Of the tensors, by number."""

    def tensor(self, name: str, shape: Sequence[int], kind: Any = np.float32) -> int:
        """A tensor that an operation makes or that enters the graph."""
        return self._add(name, tuple(int(one) for one in shape), np.dtype(kind), 0)

    def constant(self, name: str, values: NDArray[Any]) -> int:
        """A tensor with fixed values: float32 or int32."""
        values = values.astype(np.int32 if values.dtype.kind in "iu" else np.float32)
        return self._add(name, values.shape, values.dtype, self._buffer(values))

    def rounded(self, name: str, values: NDArray[np.float32], axis: int) -> int:
        """float32 weights stored as int8 with a scale for each index of an axis, turned back by a
        first operation."""
        if values.size < _FEWEST:
            return self.constant(name, values)
        others = tuple(i for i in range(values.ndim) if i != axis)
        largest = np.abs(values).max(axis=others, keepdims=True)
        scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        whole = np.clip(np.rint(values / scale), -127, 127).astype(np.int8)
        number = self.whole(f"{name}_int8", whole, scale.reshape(-1), axis)
        made = self.tensor(name, values.shape)
        self.operation("DEQUANTIZE", [number], [made])
        return made

    def whole(
        self, name: str, values: NDArray[Any], scale: NDArray[np.float32], axis: int = 0
    ) -> int:
        """A constant of int8 or int32 numbers that stand for so many times a scale, which each
        index of an axis has its own of."""
        number = self._add(name, values.shape, values.dtype, self._buffer(values))
        self.quantize(number, scale, 0, axis)
        return number

    def quantize(self, number: int, scale: NDArray[np.float32], zero: int, axis: int = 0) -> None:
        """States what the whole numbers of a tensor stand for: (whole - zero) * scale."""
        how = schema.QuantizationParametersT()
        how.scale, how.zeroPoint = scale.tolist(), [zero] * scale.size
        how.quantizedDimension = axis
        self._tensors[number].quantization = how

    def operation(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: str = "",
        **values: Any,
    ) -> None:
        """An operation by the schema's name, with the fields of its options."""
        one = schema.OperatorT()
        one.opcodeIndex = self._codes.setdefault(
            getattr(schema.BuiltinOperator, kind), len(self._codes)
        )
        one.inputs, one.outputs = list(inputs), list(outputs)
        if options:
            one.builtinOptions = getattr(schema, f"{options}T")()
            one.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            for name, value in values.items():
                setattr(one.builtinOptions, name, value)
        self._operators.append(one)

    def file(self, inputs: Sequence[int], outputs: Sequence[int], description: str) -> bytes:
        """The bytes of the file."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs, graph.name = list(inputs), list(outputs), "main"
        model = schema.ModelT()
        model.version, model.description = 3, description
        model.subgraphs, model.buffers = [graph], self._buffers
        model.operatorCodes = [_code(number) for number in self._codes]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _buffer(self, values: NDArray[Any]) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._buffers.append(buffer)
        return len(self._buffers) - 1

    def _add(self, name: str, shape: tuple[int, ...], kind: np.dtype[Any], buffer: int) -> int:
        one = schema.TensorT()
        one.name, one.shape, one.type, one.buffer = name, list(shape), _KINDS[kind], buffer
        self._tensors.append(one)
        self.shapes.append(shape)
        return len(self._tensors) - 1


def _code(number: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = number, 1
    code.deprecatedBuiltinCode = min(number, 127)
    return code
