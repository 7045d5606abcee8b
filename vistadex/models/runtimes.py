"""The table of runtimes: what computes a network, chosen by file, and what a session can do."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from vistadex.errors import ModelError, NotFoundError
from vistadex.models.cards import ModelFile, Preprocessing, file_sha256
from vistadex.registry import lookup

RUNTIMES: Mapping[str, str] = {
    "onnxruntime": "vistadex.models.sessions:open_file",
    "openvino": "vistadex.models.openvino:open_file",
    "litert": "vistadex.models.litert:open_file",
}
"""What opens a ModelFile on a device in a precision: (file, device, precision) -> Session."""

PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("f32",),
    "openvino": ("f32", "bf16"),
    "litert": (),
}
"""What a runtime can be told to compute in, its default first; none: as the file was made."""

BY_SUFFIX: Mapping[str, tuple[str, ...]] = {
    ".onnx": ("onnxruntime", "openvino"),
    ".tflite": ("litert",),
}
"""The runtimes that read a file, the default first."""


class Value(NamedTuple):
    """An input or output of a session."""

    name: str
    shape: list[int | str]
    """A text where the graph leaves the size open."""
    type: str
    """As ONNX Runtime calls it: tensor(float), tensor(uint8)."""


class Session(Protocol):
    """What a Network needs of a runtime: this part of onnxruntime.InferenceSession.

    Safe to share between threads.
    """

    def get_inputs(self) -> Sequence[Value]: ...

    def get_outputs(self) -> Sequence[Value]: ...

    def get_providers(self) -> list[str]:
        """The devices, as ONNX Runtime calls them."""
        ...

    def run(self, names: None, feed: Mapping[str, Any]) -> list[Any]:
        """Every output, in their order, for the inputs by name.

        Raises: ModelError, or one of sessions.ORT_ERRORS.
        """
        ...


class Choice(NamedTuple):
    """What a file runs with."""

    runtime: str
    precision: str
    """Empty where the runtime computes as the file was made."""

    def parameters(self) -> dict[str, str]:
        """What belongs to an analysis; nothing for the runtime that needs no mention."""
        if self == REFERENCE:
            return {}
        return {name: value for name, value in self._asdict().items() if value}


REFERENCE = Choice("onnxruntime", "f32")
"""What needs no mention where results are kept."""
CUDA = "CUDAExecutionProvider"

_sessions: dict[tuple[str, Choice, str, Preprocessing], Session] = {}
_lock = threading.Lock()


def choose(path: Path, runtime: str, precision: str, name: str = "") -> Choice:
    """The runtime and precision that are meant for a file, where auto means the default.

    Args:
        name: how errors call the model; the file's if empty.
    Raises: ModelError if that runtime does not read the file or compute so.
    """
    suffix = path.suffix.lower()
    readers = BY_SUFFIX.get(suffix, BY_SUFFIX[".onnx"])
    chosen = readers[0] if runtime == "auto" else runtime
    if chosen not in readers:
        raise ModelError(
            f"{name or path.name}: runtime {chosen} does not read {suffix}, "
            f"expected {' or '.join(readers)}; leave --runtime out; "
            "where another model of the run needs it, index them in two runs"
        )
    precisions = PRECISIONS[chosen]
    if precision not in ("auto", *precisions):
        known = " or ".join(("auto", *precisions))
        raise ModelError(
            f"{name or path.name}: runtime {chosen} can't be told to compute in {precision}, "
            f"expected {known}; bf16 needs an .onnx file and --runtime openvino"
        )
    return Choice(chosen, "".join(precisions[:1]) if precision == "auto" else precision)


def open_file(file: ModelFile, choice: Choice, device: str) -> Session:
    """A session of its own.

    Raises: MissingExtraError if the runtime is not installed; ModelError if it refuses the file or
        the device.
    """
    opened: Session = lookup(RUNTIMES, choice.runtime, "runtime")(file, device, choice.precision)
    return opened


def shared_session(file: ModelFile, choice: Choice, device: str) -> Session:
    """The process's session for a file on a device.

    Raises: MissingExtraError if the runtime is not installed; ModelError if the file was changed,
        or the runtime refuses it or the device.
    """
    key = (file.sha256, choice, device, file.card.input)
    with _lock:
        if key not in _sessions:
            _check_bytes(file.path, file.sha256)
            _sessions[key] = open_file(file, choice, device)
        return _sessions[key]


def runs_on_cuda(session: Session) -> bool:
    """Whether a session got CUDA, which a runtime may have and this machine not."""
    return CUDA in session.get_providers()


def need_cpu(runtime: str, device: str) -> None:
    """Raises: ModelError if the device is not the CPU."""
    if device == "cuda":
        raise ModelError(
            f"device cuda: runtime {runtime} runs on the CPU here; "
            "choose device cpu, or an .onnx file and --runtime onnxruntime"
        )


def _check_bytes(path: Path, sha256: str) -> None:
    try:
        found = file_sha256(path)
    except NotFoundError as error:
        raise ModelError(str(error)) from error
    if found != sha256:
        raise ModelError(f"{path}: the file was changed since; add it again")
