"""What a model file alone says with certainty, and the question about what it does not say."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from vistadex.errors import ModelError, ModelQuestionError
from vistadex.models.cards import PRESETS, ModelCard
from vistadex.models.graphs import Graph
from vistadex.models.heads import HEADS, Shape, preset_of, task_of
from vistadex.records import Json

_ANSWERS = {
    "head": f"--head {'|'.join(HEADS)}",
    "classes": "--classes names.txt (one name a line) or coco",
    "size": "--size N (the graph takes any)",
    "preprocessing": f"--preset {'|'.join(PRESETS)}",
}


@dataclass(frozen=True, slots=True)
class Draft:
    """What is known of a card so far."""

    known: Mapping[str, Json] = field(default_factory=dict)
    """Fields of ModelCard, without `input`."""
    input: Mapping[str, Json] = field(default_factory=dict)
    """Fields of Preprocessing."""
    hint: str = ""
    """What the graph looks like, where that is not certain."""

    def over(self, other: Draft) -> Draft:
        """This draft, with the other's fields where this one has none."""
        return Draft(
            {**other.known, **self.known}, {**other.input, **self.input}, self.hint or other.hint
        )


def draft_of_card(card: ModelCard) -> Draft:
    """A complete card as a draft."""
    known: dict[str, Any] = card.to_dict()
    return Draft(input=known.pop("input"), known=known)


def draft_of_graph(path: Path, graph: Graph) -> Draft:
    """What the graph and its metadata say with certainty.

    Raises: ModelError if the network takes no single picture.
    """
    width, height = _size(path, graph)
    metadata = graph.metadata
    fixed: dict[str, Json] = {"dynamic": width is None or height is None}
    if width and height:
        fixed["size_wh"] = [width, height]
    elif "imgsz" in metadata:
        size_hw = _numbers(path, metadata, "imgsz")
        fixed["size_wh"] = [size_hw[-1], size_hw[0]]
    known: dict[str, Json] = {"name": path.stem}
    if "license" in metadata:
        known["license"] = metadata["license"]
    if "names" in metadata and "stride" in metadata:
        known["classes"] = _names(path, metadata)
        return Draft(known, fixed, "").over(_exported(path, graph, known["classes"]))
    if graph.last_op == "Softmax" and len(graph.outputs[0]) == 2:
        return Draft({**known, "head": "probabilities"}, fixed)
    return Draft(known, fixed, _hint(graph.outputs[0], (width, height)))


def complete(path: Path, draft: Draft) -> ModelCard:
    """The card that a draft says.

    Raises: ModelQuestionError that names what is missing and the command that answers;
        ModelError if what it says is wrong.
    """
    known, fields = dict(draft.known), dict(draft.input)
    head, task = known.get("head"), known.get("task")
    if head is not None and not (isinstance(head, str) and head in HEADS):
        raise ModelError(f"{path}: head {head!r} is unknown; known are {', '.join(HEADS)}")
    preset = preset_of(head) if head else None
    fields = {**(PRESETS[preset] if preset else {}), **fields}
    missing = [] if head else ["head"]
    if not known.get("classes") and "embedder" not in (task, head and task_of(head)):
        missing.append("classes")
    if "size_wh" not in fields:
        missing.append("size")
    if head and not {"color", "resize", "scale"} <= set(fields):
        missing.append("preprocessing")
    if missing:
        raise ModelQuestionError(_question(path, missing, draft.hint))
    values: dict[str, Json] = {**known, "task": task or task_of(str(head)), "input": fields}
    return ModelCard.from_dict(values, str(path))


def _question(path: Path, missing: list[str], hint: str) -> str:
    answers = " ".join(_ANSWERS[name] for name in missing)
    looks = f" It looks like {hint}." if hint else ""
    return (
        f"{path}: the file does not say its {', '.join(missing)}.{looks} "
        f"Answer with: vistadex models add {path} {answers}"
    )


def _size(path: Path, graph: Graph) -> tuple[int | None, int | None]:
    """Width and height of the one input."""
    shapes = graph.inputs
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ModelError(f"{path}: inputs {list(shapes)}, expected one of [N, 3, height, width]")
    _, channels, height, width = shapes[0]
    if channels not in (3, None):
        raise ModelError(
            f"{path}: input {list(shapes[0])}, expected 3 channels first [N, 3, height, width]"
        )
    return width, height


def _exported(path: Path, graph: Graph, classes: Json) -> Draft:
    """What the metadata of an Ultralytics or YOLOv5 export says; these name classes and stride."""
    task = graph.metadata.get("task", "detect")
    shape, count = graph.outputs[0], len(classes) if isinstance(classes, list) else 0
    stride = max(_numbers(path, graph.metadata, "stride"))
    fields: dict[str, Json] = {**PRESETS["ultralytics"], "stride": stride}
    if task == "classify" and graph.last_op == "Softmax":
        fields |= {"resize": "resize-shorter-center-crop", "stride": 1}
        return Draft({"head": "probabilities"}, fields)
    if task != "detect":
        raise ModelError(f"{path}: an export for {task!r}; expected detect or classify")
    if "task" in graph.metadata and shape[-1:] == (6,) and len(shape) == 3:
        return Draft({"head": "end-to-end"}, fields)
    if "task" in graph.metadata and len(shape) == 3 and shape[1] == 4 + count:
        return Draft({"head": "ultralytics"}, fields)
    if "task" not in graph.metadata and len(shape) == 3 and shape[2] == 5 + count:
        return Draft({"head": "yolov5"}, fields)
    return Draft(hint=f"a detector of {count} classes with output {_text(shape)}")


def _names(path: Path, metadata: Mapping[str, str]) -> list[Json]:
    """The class names of an export, which writes them as a Python dict or list."""
    names = _literal(path, metadata, "names")
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelError(f"{path} metadata names: expected class names by index")
    return list(names)


def _numbers(path: Path, metadata: Mapping[str, str], key: str) -> list[int]:
    value = _literal(path, metadata, key)
    values = value if isinstance(value, list | tuple) else [value]
    if not values or not all(isinstance(x, int | float) and x == int(x) for x in values):
        raise ModelError(f"{path} metadata {key}: {metadata[key]!r}, expected whole numbers")
    return [int(x) for x in values]


def _literal(path: Path, metadata: Mapping[str, str], key: str) -> Any:
    try:
        return ast.literal_eval(metadata[key])
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        try:
            return json.loads(metadata[key])
        except ValueError:
            raise ModelError(f"{path} metadata {key}: can't be read ({error})") from error


def _hint(shape: Shape, size_wh: tuple[int | None, int | None]) -> str:
    """What an output of that shape looks like, for a question."""
    width, height = size_wh
    text = f"output {_text(shape)}"
    if len(shape) == 2:
        return f"a classifier (head logits or probabilities) or an embedder, {text}"
    if len(shape) != 3 or not (width and height):
        return text
    cells = sum(prod((width // s, height // s)) for s in (8, 16, 32))
    if shape[1] == cells and (shape[2] or 0) > 5:
        return f"YOLOX or YOLOv5 with {(shape[2] or 0) - 5} classes, {text}"
    if shape[1] == 3 * cells and (shape[2] or 0) > 5:
        return f"YOLOv5 with {(shape[2] or 0) - 5} classes, {text}"
    if shape[2] == cells and (shape[1] or 0) > 4:
        return f"Ultralytics v8 or v11 with {(shape[1] or 0) - 4} classes, {text}"
    return f"an end-to-end detector, {text}" if shape[2] == 6 else text


def _text(shape: Shape) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
