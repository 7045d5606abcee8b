"""ONNX Runtime sessions on a CPU or on CUDA, safe to share between threads."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vistadex import settings
from vistadex.errors import ModelError
from vistadex.models.cards import ModelFile
from vistadex.models.runtimes import CUDA, runs_on_cuda

with settings.without_telemetry():
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

# ONNX Runtime's exceptions have no common base but Exception.
ORT_ERRORS: tuple[type[Exception], ...] = tuple(
    getattr(ort_errors, name)
    for name in (
        *("EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf"),
        *("ModelLoaded", "NoModel", "NoSuchFile", "NotImplemented", "RuntimeException"),
    )
)


def open_file(file: ModelFile, device: str, precision: str) -> Any:
    """A session on a device, computing as the graph says.

    With device auto, CUDA that does not start is a warning, and the session runs on the CPU.

    Raises: ModelError if ONNX Runtime refuses the file or lacks the device.
    """
    return open_session(file.path, cuda=on_cuda(device), required=device == "cuda")


def _check_cuda(session: Any, place: Path | str) -> None:
    if not runs_on_cuda(session):
        raise ModelError(f"{place}: device cuda: CUDA does not start on this machine")


def on_cuda(device: str) -> bool:
    """Whether a device setting means CUDA on this machine.

    Raises: ModelError if CUDA is asked for and ONNX Runtime has none.
    """
    available = CUDA in ort.get_available_providers()
    if device == "cuda" and not available:
        raise ModelError(
            "device cuda: this ONNX Runtime has no CUDA; "
            "pip install onnxruntime-gpu in place of onnxruntime, or choose device cpu"
        )
    return available and device != "cpu"


def open_session(path: Path | bytes, *, cuda: bool = False, required: bool = False) -> Any:
    """A session that runs in the calling thread.

    Args:
        required: an error where CUDA can't start, in place of a warning and the CPU.
    Raises: ModelError if ONNX Runtime refuses the file or CUDA.
    """
    place = path if isinstance(path, Path) else "rewritten model"
    providers: list[Any] = ["CPUExecutionProvider"]
    if cuda:
        # Rectangular inputs have many shapes; an exhaustive search for each would take seconds.
        providers.insert(0, (CUDA, {"cudnn_conv_algo_search": "HEURISTIC"}))
    try:
        session = ort.InferenceSession(
            path if isinstance(path, bytes) else str(path), _options(), providers=providers
        )
    except ORT_ERRORS as error:
        raise ModelError(f"{place}: ONNX Runtime can't use the file: {_reason(error)}") from error
    session.disable_fallback()
    if required:
        _check_cuda(session, place)
    if cuda and not runs_on_cuda(session):
        logging.getLogger(__name__).warning("CUDA does not start on this machine; using the CPU")
    return session


def _options() -> ort.SessionOptions:
    """One thread, run to completion; arena and memory pattern stay on.

    Measured with rectangular inputs of all proportions at 416 and two threads: 5.4 ms for an image
    and 125 MB for the process; without the arena, 10.6 ms and 150 MB.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return options


def _reason(error: Exception) -> str:
    """The first line of ONNX Runtime's message."""
    return str(error).partition("\n")[0][:300]


def optimized(model: Any) -> Any:
    """An onnx.ModelProto with constants and batch normalization folded, as ONNX Runtime does it.

    Raises: ModelError if ONNX Runtime refuses the graph.
    """
    import onnx

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        options = _options()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        try:
            data = model.SerializeToString()
            ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except ORT_ERRORS as error:
            raise ModelError(f"ONNX Runtime can't use the graph: {_reason(error)}") from error
        return onnx.load(path)
