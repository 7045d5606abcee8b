"""LiteRT sessions: .tflite files, whatever their numbers, as if they were ONNX files.

An input of 8 bits gets the picture's bytes as they are where the card leaves pixels at 0 to 255,
and round(x / scale + zero point) where the card normalizes them. Outputs of 8 bits become the
numbers they stand for. Where the input has its channels last, outputs of four axes have them
first here.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from vistadex.errors import ModelError
from vistadex.models.cards import PRESETS, ModelCard, ModelFile, Preprocessing
from vistadex.models.graphs import Graph
from vistadex.models.ports import Port, Signature
from vistadex.models.recognition import Draft, draft_of_graph
from vistadex.models.runtimes import Value, need_cpu

BYTES = PRESETS["tensorflow"]
"""Preprocessing of an input of 8 bits where nobody says another: that of TensorFlow's tools."""
_PASSIVE = {"RESHAPE", "SQUEEZE", "DEQUANTIZE", "QUANTIZE", "CAST"}
_NAMES = {"SOFTMAX": "Softmax", "LOGISTIC": "Sigmoid"}
_BYTE_TYPES = {np.dtype(np.uint8): 0, np.dtype(np.int8): -128}
"""What stands for a black pixel."""
_ROUNDING = 0.02
"""Share of an 8-bit input's range by which a card's numbers may pass it."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    """An input or output as the file states it."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    """0 where the numbers stand for themselves."""
    zero_point: int

    def real(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """What stored numbers stand for."""
        numbers = values.astype(np.float32)
        return (numbers - self.zero_point) * np.float32(self.scale) if self.scale else numbers

    def stored(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """The stored numbers that stand nearest to these."""
        limits = np.iinfo(self.dtype)
        numbers = np.rint(values / np.float32(self.scale) + self.zero_point)
        stored: NDArray[Any] = np.clip(numbers, limits.min, limits.max).astype(self.dtype)
        return stored


def open_file(file: ModelFile, device: str, precision: str) -> LiteRtSession:
    """A session on the CPU, in the precision the file was made with.

    Raises: ModelError if the file was changed, LiteRT refuses it, or its input can't hold what the
        card gives.
    """
    need_cpu("litert", device)
    try:
        data = file.path.read_bytes()
    except OSError as error:
        raise ModelError(f"{file.path}: can't be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise ModelError(f"{file.path}: the file was changed since; add it again")
    return LiteRtSession(file.path, data, file.card)


class LiteRtSession:
    """An interpreter for each thread: they can't be shared. Implements runtimes.Session."""

    def __init__(self, path: Path, data: bytes, card: ModelCard) -> None:
        """path: how errors call the file; data: its bytes, which all interpreters share."""
        self._path, self._data, self._local = path, data, threading.local()
        interpreter = self._interpreter()
        self._input = _only_input(path, interpreter)
        self._outputs = [_tensor(one) for one in interpreter.get_output_details()]
        self._turned = [_turned(one, self._input) for one in self._outputs]
        self._as_bytes = self._input.dtype in _BYTE_TYPES and _leaves_pixels(card.input)
        if self._input.dtype in _BYTE_TYPES and not self._as_bytes:
            _check_range(card, self._input)

    def get_inputs(self) -> list[Value]:
        """The one input, in the layout of the file."""
        kind = "tensor(uint8)" if self._as_bytes else "tensor(float)"
        return [Value(self._input.name, list(self._input.shape), kind)]

    def get_outputs(self) -> list[Value]:
        """The outputs in the order of the file."""
        return [
            Value(one.name, list(shape), "tensor(float)")
            for one, shape in zip(self._outputs, self._turned, strict=True)
        ]

    def get_providers(self) -> list[str]:
        """The CPU."""
        return ["CPUExecutionProvider"]

    def run(self, names: None, feed: Mapping[str, Any]) -> list[Any]:
        """Every output, in their order, for the inputs by name.

        Raises: ModelError if the network fails.
        """
        interpreter = self._interpreter()
        try:
            interpreter.set_tensor(self._input.index, self._stored(feed[self._input.name]))
            interpreter.invoke()
            found = [interpreter.get_tensor(one.index) for one in self._outputs]
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{self._path}: LiteRT failed: {_reason(error)}") from error
        real = [one.real(array) for one, array in zip(self._outputs, found, strict=True)]
        return [
            array if array.ndim != 4 or shape == one.shape else array.transpose(0, 3, 1, 2)
            for one, array, shape in zip(self._outputs, real, self._turned, strict=True)
        ]

    def _stored(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Prepared pixels as the input holds them."""
        if self._input.dtype == np.float32:
            return pixels
        if not self._as_bytes:
            return self._input.stored(pixels)
        darkest = _BYTE_TYPES[self._input.dtype]
        return (pixels.astype(np.int16) + darkest).astype(self._input.dtype)

    def _interpreter(self) -> Any:
        """This thread's interpreter."""
        if not hasattr(self._local, "interpreter"):
            self._local.interpreter = _open(self._path, self._data)
        return self._local.interpreter


def draft_of_tflite(path: Path) -> Draft:
    """What a .tflite file says with certainty, and how pictures enter an input of 8 bits.

    Raises: ModelError if it is no model of pictures.
    """
    graph = read_tflite(path)
    draft = draft_of_graph(path, graph)
    bytes_in = graph.signature.inputs[0].type == "uint8"
    return draft.over(Draft(input=BYTES)) if bytes_in else draft


def read_tflite(path: Path) -> Graph:
    """The outside of the network in a .tflite file, with ONNX's names for operations.

    An input of 8 bits counts as uint8, outputs as the float32 that they are turned into.

    Raises: ModelError if LiteRT refuses the file, or it takes other than one picture.
    """
    data = path.read_bytes()
    interpreter = _open(path, data)
    inside = _only_input(path, interpreter)
    outputs = [_tensor(one) for one in interpreter.get_output_details()]
    kind = "uint8" if inside.dtype in _BYTE_TYPES else "float32"
    ports = tuple(Port(one.name, "float32", _turned(one, inside)) for one in outputs)
    return Graph(
        signature=Signature((Port(inside.name, kind, inside.shape),), ports),
        metadata={},
        last_op=_last_op(data),
    )


def _open(path: Path, data: bytes) -> Any:
    """An interpreter of a file's bytes that runs in the calling thread."""
    try:
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: LiteRT can't use the file: {_reason(error)}") from error
    return interpreter


def _only_input(path: Path, interpreter: Any) -> _Tensor:
    inputs = [_tensor(one) for one in interpreter.get_input_details()]
    shapes = [list(one.shape) for one in inputs]
    if len(inputs) != 1 or len(shapes[0]) != 4 or 3 not in (shapes[0][1], shapes[0][3]):
        raise ModelError(f"{path}: inputs {shapes}, expected one of [1, height, width, 3]")
    if inputs[0].dtype != np.float32 and not (inputs[0].dtype in _BYTE_TYPES and inputs[0].scale):
        raise ModelError(
            f"{path}: input of {inputs[0].dtype}, expected float32, or uint8 or int8 with a scale"
        )
    return inputs[0]


def _tensor(details: Mapping[str, Any]) -> _Tensor:
    scale, zero_point = details["quantization"]
    return _Tensor(
        index=details["index"],
        name=details["name"],
        shape=tuple(int(size) for size in details["shape"]),
        dtype=np.dtype(details["dtype"]),
        scale=float(scale),
        zero_point=int(zero_point),
    )


def _turned(output: _Tensor, inside: _Tensor) -> tuple[int, ...]:
    """An output's shape with its channels first, where the input has them last."""
    shape = output.shape
    channels_last = len(shape) == 4 and inside.shape[3] == 3
    return (shape[0], shape[3], shape[1], shape[2]) if channels_last else shape


def _leaves_pixels(how: Preprocessing) -> bool:
    return how.scale == 1 and not any(how.mean) and all(std == 1 for std in how.std)


def _check_range(card: ModelCard, tensor: _Tensor) -> None:
    """Raises: ModelError if pixels from 0 to 255, normalized, leave what an 8-bit input holds."""
    how, limits = card.input, np.iinfo(tensor.dtype)
    low, high = tensor.real(np.array([limits.min, limits.max]))
    ends = [
        (pixel * how.scale - mean) / std
        for pixel in (0, 255)
        for mean, std in zip(how.mean, how.std, strict=True)
    ]
    room = _ROUNDING * (high - low)
    if min(ends) < low - room or max(ends) > high + room:
        raise ModelError(
            f"{card.name}: its {tensor.dtype} input holds {low:.3g} to {high:.3g}, the card's "
            f"preprocessing gives {min(ends):.3g} to {max(ends):.3g}; choose another --preset, or "
            "leave it out to hand over the bytes as they are"
        )


def _last_op(data: bytes) -> str:
    """The operation behind the first output, passing those that only reshape or rescale.

    Args:
        data: a file that the interpreter has accepted.
    """
    model = schema.Model.GetRootAs(data, 0)
    graph = model.Subgraphs(0)
    makers: dict[int, Any] = {}
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        makers |= dict.fromkeys(operator.OutputsAsNumpy().tolist(), operator)
    index, name = graph.Outputs(0), ""
    for _ in range(len(makers)):
        if index not in makers:
            break
        name = _op_name(model.OperatorCodes(makers[index].OpcodeIndex()))
        if name not in _PASSIVE:
            break
        index = makers[index].Inputs(0)
    return _NAMES.get(name, name)


def _op_name(code: Any) -> str:
    custom = code.CustomCode()
    if custom:
        return str(custom.decode(errors="replace"))
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    names = {value: key for key, value in vars(schema.BuiltinOperator).items()}
    return str(names.get(number, number))


def _reason(error: Exception) -> str:
    """The first line of LiteRT's message."""
    return str(error).strip().partition("\n")[0][:300] or "no reason given"
