"""OpenVINO sessions: dense networks on a CPU, in float32 or bfloat16 as it is told.

Measured on two cores of a Xeon with AMX: one stream for all threads makes them take turns; with a
stream for each core they do not. Pinned threads were no faster, and stay pinned to decode.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from vistadex.errors import ModelError
from vistadex.models.cards import ModelFile
from vistadex.models.runtimes import Value, need_cpu

_TELEMETRY = "openvino_telemetry"


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Within it OpenVINO is imported as if its telemetry were not installed.

    Otherwise the import alone sends a report to its makers and writes into the home folder.
    """
    if _TELEMETRY in sys.modules:
        yield
        return
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]


with _without_telemetry():
    import openvino
    from openvino import _pyopenvino

# Most errors are RuntimeError; those of its own have no common base but Exception.
OPENVINO_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    *(
        kind
        for kind in vars(_pyopenvino).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
)
_TYPES = {"float32": "float", "float64": "double"}
"""What ONNX Runtime calls otherwise than NumPy."""


def open_file(file: ModelFile, device: str, precision: str) -> OpenVinoSession:
    """A session on the CPU that computes in f32 or bf16.

    Raises: ModelError if OpenVINO refuses the file, or this CPU has no bf16.
    """
    need_cpu("openvino", device)
    core = _core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ModelError(
            f"{file.path.name}: precision bf16: this CPU has none; choose --precision f32"
        )
    streams = _cores()
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams,
        "ENABLE_CPU_PINNING": False,
    }
    try:
        compiled = core.compile_model(core.read_model(file.path), "CPU", options)
    except OPENVINO_ERRORS as error:
        raise ModelError(f"{file.path}: OpenVINO can't use the file: {_reason(error)}") from error
    return OpenVinoSession(compiled, file.path)


class OpenVinoSession:
    """A compiled network with a request for each thread. Implements runtimes.Session."""

    def __init__(self, compiled: Any, path: Path) -> None:
        self._compiled, self._path = compiled, path
        self._inputs = [_value(port) for port in compiled.inputs]
        self._outputs = [_value(port) for port in compiled.outputs]
        self._local = threading.local()
        self._lock = threading.Lock()

    def get_inputs(self) -> list[Value]:
        """The inputs as the graph states them."""
        return self._inputs

    def get_outputs(self) -> list[Value]:
        """The outputs as the graph states them."""
        return self._outputs

    def get_providers(self) -> list[str]:
        """The CPU."""
        return ["CPUExecutionProvider"]

    def run(self, names: None, feed: Mapping[str, Any]) -> list[Any]:
        """Every output, in their order, for the inputs by name.

        Raises: ModelError if the network fails.
        """
        try:
            # Of a request: an array of the caller is read in place, results are copied.
            found = self._request().infer(dict(feed), share_inputs=True)
            return [found[i] for i in range(len(self._outputs))]
        except OPENVINO_ERRORS as error:
            raise ModelError(f"{self._path}: OpenVINO failed: {_reason(error)}") from error

    def _request(self) -> Any:
        """This thread's request."""
        if not hasattr(self._local, "request"):
            with self._lock:
                self._local.request = self._compiled.create_infer_request()
        return self._local.request


@lru_cache(maxsize=1)
def _core() -> Any:
    return openvino.Core()


def _cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _value(port: Any) -> Value:
    name, kind = port.get_any_name(), port.get_element_type().to_dtype().name
    shape = [d.get_length() if d.is_static else "?" for d in port.get_partial_shape()]
    return Value(name, shape, f"tensor({_TYPES.get(kind, kind)})")


def _reason(error: Exception) -> str:
    """The last line that says something: OpenVINO's messages begin with its own source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or ["no reason given"])[-1][:300]
