"""What a model file alone says with certainty, and the question about what it does not say."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vistadex.errors import ModelError, ModelQuestionError
from vistadex.models.cards import PRESETS, ModelCard
from vistadex.models.graphs import Graph
from vistadex.models.heads import HEADS, certain_head, fitting, preset_of, task_of
from vistadex.models.ports import Signature
from vistadex.records import Json

_ANSWERS = {
    "size": "--size N (the graph takes any)",
    "preprocessing": f"--preset {'|'.join(PRESETS)}",
}
ADD = "vistadex models add"
"""How the command begins that a question asks for."""
LOOK = " (with --try IMAGE: only look what it finds)"
"""How that command ends."""
_GRAPH = ("size_wh", "dynamic")
"""Fields of Preprocessing that the graph has, whatever its head."""
_COCO_BY_COUNT = {80: "coco", 90: "coco-90", 91: "coco-91"}
_COCO_BY_HEAD = {"torchvision": "coco-91", "efficientdet": "coco-91"}
"""Where the graph does not say how many classes it has."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What is known of a card so far."""

    known: Mapping[str, Json] = field(default_factory=dict)
    """Fields of ModelCard, without `input`."""
    input: Mapping[str, Json] = field(default_factory=dict)
    """Fields of Preprocessing."""
    hint: str = ""
    """What enters and leaves the graph, for a question."""
    heads: Mapping[str, int | None] = field(default_factory=dict)
    """The heads that could fit, and how many classes the graph would have with them."""

    def over(self, other: Draft) -> Draft:
        """This draft, with the other's fields where this one has none."""
        return Draft(
            {**other.known, **self.known},
            {**other.input, **self.input},
            self.hint or other.hint,
            self.heads or other.heads,
        )

    def with_head(self, head: str | None) -> Draft:
        """This draft without what goes with its own head, where another one is said."""
        old = self.known.get("head")
        if head not in HEADS or not isinstance(old, str) or old not in (HEADS.keys() - {head}):
            return self
        known = {key: value for key, value in self.known.items() if key != "task"}
        if task_of(str(head)) == "embedder":
            known.pop("classes", None)
        fields = self.input
        if preset_of(str(head)) != preset_of(old):
            fields = {key: value for key, value in fields.items() if key in _GRAPH}
        return replace(self, known=known, input=fields)


def draft_of_card(card: ModelCard) -> Draft:
    """A complete card as a draft."""
    known: dict[str, Any] = card.to_dict()
    return Draft(input=known.pop("input"), known=known)


def draft_of_graph(path: Path, graph: Graph) -> Draft:
    """What the graph and its metadata say with certainty.

    Raises: ModelError if the network takes no single picture.
    """
    try:
        width, height = graph.signature.size_wh
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error
    metadata, outputs = graph.metadata, graph.signature.outputs
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
        exported = _exported(path, graph, known["classes"])
        return Draft(known, fixed).over(exported).over(_asking(graph.signature))
    asking = _asking(graph.signature)
    if graph.last_op == "Softmax" and len(outputs[0].shape) == 2:
        return Draft({**known, "head": "probabilities"}, fixed).over(asking)
    head = certain_head(graph.signature)
    return Draft({**known, "head": head} if head else known, fixed).over(asking)


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
        raise ModelQuestionError(_question(path, missing, draft))
    values: dict[str, Json] = {**known, "task": task or task_of(str(head)), "input": fields}
    return ModelCard.from_dict(values, str(path))


def _question(path: Path, missing: list[str], draft: Draft) -> str:
    """What is missing, what the graph looks like, and the command that answers."""
    answers = {
        **_ANSWERS,
        "head": f"--head {'|'.join(draft.heads or HEADS)}",
        "classes": f"--classes names.txt (one name a line){_lists(path, draft)}",
    }
    command = f"{ADD} {path} {' '.join(answers[name] for name in missing)}"
    asked = f"{path}: the file does not say its {', '.join(missing)}."
    answer = f"Answer with: {command}{LOOK}"
    head = draft.known.get("head")
    if head:
        count = draft.heads.get(str(head))
        return f"{asked} {f'It has {count} classes. ' if count else ''}{answer}"
    heads = [f"{name} ({n} classes)" if n else name for name, n in draft.heads.items()]
    fits = f"heads that could fit: {', '.join(heads) or 'none of those known'}"
    return "\n".join([asked, *filter(None, [draft.hint]), fits, answer])


def question_of_a_pull(question: str, file: Path) -> str:
    """A question about a file that was pulled: the pull is what the answers go to."""
    again = "the same vistadex models pull, with"
    return question.replace(f"{ADD} {file}", again).replace(LOOK, "; the file is kept for it")


def _lists(path: Path, draft: Draft) -> str:
    """The lists of COCO's names that fit the heads and their classes, as part of a sentence."""
    said = draft.known.get("head")
    heads = [str(said)] if said else list(draft.heads)
    named = (_coco_list(path, one, draft.heads.get(one)) for one in heads)
    lists = dict.fromkeys(filter(None, named))
    return f" or {' or '.join(lists)}" if lists else ""


def _coco_list(path: Path, head: str, count: int | None) -> str | None:
    if head == "tensorflow":
        return "coco-90" if path.suffix.lower() == ".tflite" else "coco-91"
    if task_of(head) != "detector":
        return None
    return _COCO_BY_HEAD.get(head) if count is None else _COCO_BY_COUNT.get(count)


def _asking(signature: Signature) -> Draft:
    """What a question says of the graph: its inputs, its outputs and the heads that could fit."""
    lines = [f"input: {port}" for port in signature.inputs]
    lines += [f"output: {port}" for port in signature.outputs]
    single = len(signature.outputs) == 1
    heads = {
        name: fit.class_count
        for name, fit in fitting(signature).items()
        if single or task_of(name) == "detector"
    }
    return Draft(hint="\n".join(lines), heads=heads)


def _exported(path: Path, graph: Graph, classes: Json) -> Draft:
    """What the metadata of an Ultralytics or YOLOv5 export says; these name classes and stride."""
    task = graph.metadata.get("task", "detect")
    shape = graph.signature.outputs[0].shape
    count = len(classes) if isinstance(classes, list) else 0
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
    return Draft()


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
