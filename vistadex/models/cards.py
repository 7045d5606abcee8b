"""Model cards: what has to be known about a model file to use it, as checked JSON.

A card's JSON lies beside a file (`<file>.onnx.json`), in the model store, or in the ONNX metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

from vistadex.errors import ModelError, NotFoundError
from vistadex.models.evaluations import checked
from vistadex.models.heads import BY_TASK, HEADS, task_of
from vistadex.records import TASKS, Json, Task

Color: TypeAlias = Literal["RGB", "BGR"]
Resize: TypeAlias = Literal[
    "letterbox-top-left", "letterbox-center", "stretch", "resize-shorter-center-crop"
]
LETTERBOXES: tuple[Resize, ...] = ("letterbox-top-left", "letterbox-center")
MAX_SIDE = 8192
SUFFIXES = (".onnx", ".tflite")
"""How the names of model files end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a picture becomes the network's input: (pixel * scale - mean) / std, per channel."""

    size_wh: tuple[int, int]
    """Width and height of the input in pixels; the default where the graph is dynamic."""
    color: Color
    """Order of the input's channels, and of mean and std."""
    resize: Resize
    """How a picture is fitted into the input."""
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    crop: float = 1.0
    """resize-shorter-center-crop: the input's share of the resized shorter side (224/256)."""
    pad_value: int = 114
    """What a letterbox is filled with, 0 to 255."""
    stride: int = 1
    """What both sides of a rectangular input must be multiples of."""
    dynamic: bool = False
    """Whether the graph takes inputs of any size."""

    def __post_init__(self) -> None:
        _need(all(1 <= side <= MAX_SIDE for side in self.size_wh), "size_wh", f"1 to {MAX_SIDE}")
        _need(self.color in get_args(Color), "color", " or ".join(get_args(Color)))
        _need(self.resize in get_args(Resize), "resize", ", ".join(get_args(Resize)))
        _need(isfinite(self.scale) and self.scale > 0, "scale", "a number above 0")
        _need(all(map(isfinite, self.mean)), "mean", "finite numbers")
        _need(all(isfinite(x) and x != 0 for x in self.std), "std", "numbers other than 0")
        _need(0 < self.crop <= 1, "crop", "above 0, at most 1")
        _need(0 <= self.pad_value <= 255, "pad_value", "0 to 255")
        _need(1 <= self.stride <= 1024, "stride", "1 to 1024")

    @property
    def letterbox(self) -> bool:
        """Whether the whole picture is kept in its proportions."""
        return self.resize in LETTERBOXES


PRESETS: Mapping[str, Mapping[str, Json]] = {
    "yolox": dict(color="BGR", scale=1.0, resize="letterbox-top-left", stride=32),
    "ultralytics": dict(color="RGB", scale=1 / 255, resize="letterbox-center", stride=32),
    "imagenet": dict(
        color="RGB",
        scale=1 / 255,
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        resize="resize-shorter-center-crop",
        crop=0.875,
    ),
    "yolov3": dict(color="RGB", scale=1 / 255, resize="letterbox-center", pad_value=128, stride=32),
    "nanodet": dict(
        color="BGR",
        mean=[103.53, 116.28, 123.675],
        std=[57.375, 57.12, 58.395],
        scale=1.0,
        resize="letterbox-top-left",
        stride=32,
    ),
    "torchvision": dict(color="RGB", scale=1 / 255, resize="letterbox-top-left", stride=32),
    "ssd": dict(
        color="RGB",
        scale=1 / 255,
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        resize="stretch",
    ),
    "stretch": dict(color="RGB", scale=1 / 255, resize="stretch"),
    "tensorflow": dict(color="RGB", scale=1.0, resize="stretch"),
    "detr": dict(
        color="RGB",
        scale=1 / 255,
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        resize="letterbox-top-left",
        stride=32,
    ),
    "efficientdet": dict(color="RGB", scale=1.0, resize="letterbox-top-left", stride=128),
    "efficientdet-raw": dict(
        color="RGB",
        scale=1 / 255,
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        resize="letterbox-top-left",
        stride=128,
    ),
}
"""Preprocessing by name, size aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What is known about a model beside its bytes."""

    name: str
    task: Task
    head: str
    """One of heads.HEADS: how the outputs are read."""
    classes: tuple[str, ...] = ()
    """Names by class index; empty for an embedder."""
    input: Preprocessing
    license: str = ""
    source: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)
    evaluation: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """How it was judged; see evaluations.py."""
    derived_from: str = ""
    """SHA-256 of the file that this one was made from."""
    derived_with: str = ""
    """What made it so: dynamic-size, optimize or both, or how it was quantized or exported."""

    def __post_init__(self) -> None:
        _need(_is_name(self.name), "name", "1 to 200 characters, no slash, no file's ending")
        _need(self.task in TASKS, "task", ", ".join(TASKS))
        _need(self.head in HEADS, "head", "one of " + ", ".join(HEADS))
        heads = ", ".join(BY_TASK[self.task])
        article = "an" if self.task == "embedder" else "a"
        _need(task_of(self.head) == self.task, "head", f"for {article} {self.task} one of {heads}")
        _need(all(c.strip() for c in self.classes), "classes", "names that are not empty")
        if self.task == "embedder":
            _need(not self.classes, "classes", "none for an embedder")
        else:
            _need(bool(self.classes), "classes", "at least one name")

    def to_dict(self) -> dict[str, Json]:
        """The card as JSON values; from_dict is the inverse."""
        values: dict[str, Json] = json.loads(json.dumps(asdict(self)))
        return values

    def to_json(self) -> str:
        """The card as text; from_json is the inverse."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_dict(cls, values: Json, place: str) -> ModelCard:
        """The card that JSON values say.

        Args:
            place: where they come from, for errors.
        Raises: ModelError that names place and field.
        """
        try:
            known = _object(values, "card", [f.name for f in fields(cls)])
            known["input"] = preprocessing_from_dict(known.get("input"))
            known["classes"] = _texts(known.get("classes", []))
            known["metrics"] = _metrics(known.get("metrics", {}))
            known["evaluation"] = checked(known.get("evaluation", {}))
            for name in (
                "name",
                "task",
                "head",
                "license",
                "source",
                "derived_from",
                "derived_with",
            ):
                _need(isinstance(known.get(name, ""), str), name, "a text")
            return cls(**known)
        except TypeError as error:
            raise ModelError(f"{place}: {_missing(error)}") from error
        except ModelError as error:
            raise ModelError(f"{place}: {error}") from error

    @classmethod
    def from_json(cls, text: str | bytes, place: str) -> ModelCard:
        """The card that a JSON text says.

        Raises: ModelError that names place and field.
        """
        try:
            return cls.from_dict(json.loads(text), place)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{place}: not JSON ({error})") from error


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model's file and its card."""

    path: Path
    sha256: str
    """Of the file's bytes: the model's identity."""
    card: ModelCard


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises: NotFoundError if there is no such file; ModelError if it can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        endings = " or ".join(SUFFIXES)
        raise NotFoundError(f"{path}: no such file; expected a model ({endings})") from error
    except OSError as error:
        raise ModelError(f"{path}: can't be read ({error.strerror})") from error


def preprocessing_from_dict(values: Json) -> Preprocessing:
    """The preprocessing that a card's `input` says.

    Raises: ModelError that names the field.
    """
    known = _object(values, "input", [f.name for f in fields(Preprocessing)])
    for name, length in (("size_wh", 2), ("mean", 3), ("std", 3)):
        if name in known:
            known[name] = _numbers(known[name], name, length)
    if "size_wh" in known:
        _need(all(type(x) is int for x in known["size_wh"]), "size_wh", "two whole numbers")
    kinds = {"color": str, "resize": str, "pad_value": int, "stride": int, "dynamic": bool}
    for name, kind in kinds.items():
        _need(type(known.get(name, kind())) is kind, name, f"a value of type {kind.__name__}")
    for name in ("scale", "crop"):
        _need(_is_number(known.get(name, 1.0)), name, "a number")
    try:
        return Preprocessing(**known)
    except TypeError as error:
        raise ModelError(f"input: {_missing(error)}") from error


def _need(holds: bool, name: str, expected: str) -> None:
    if not holds:
        raise ModelError(f"{name}: expected {expected}")


def _is_name(name: str) -> bool:
    return (
        0 < len(name) <= 200
        and name.isprintable()
        and not (set("/\\") & set(name) or name.lower().endswith(SUFFIXES) or name != name.strip())
    )


def _is_number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(cast("float", value)) < 1e30


def _missing(error: TypeError) -> str:
    """What a dataclass complains of, in the words of a card: the fields that lack."""
    return f"lacks {str(error).partition('argument')[2].partition(':')[2].strip()}"


def _object(values: object, name: str, known: list[str]) -> dict[str, Any]:
    _need(isinstance(values, Mapping), name, "an object")
    values = dict(cast("Mapping[str, Any]", values))
    for key in values:
        _need(key in known, key, f"no such field; known are {', '.join(known)}")
    return values


def _texts(values: object) -> tuple[str, ...]:
    _need(isinstance(values, list | tuple), "classes", "a list of names")
    values = cast("list[str]", values)
    _need(all(isinstance(x, str) for x in values), "classes", "a list of names")
    return tuple(values)


def _numbers(values: object, name: str, length: int) -> tuple[float, ...]:
    _need(isinstance(values, list | tuple), name, f"a list of {length} numbers")
    values = cast("list[float]", values)
    _need(len(values) == length and all(map(_is_number, values)), name, f"{length} numbers")
    return tuple(values)


def _metrics(values: object) -> dict[str, float]:
    _need(isinstance(values, Mapping), "metrics", "an object of numbers")
    values = cast("Mapping[str, float]", values)
    _need(all(map(_is_number, values.values())), "metrics", "an object of numbers")
    return dict(values)
