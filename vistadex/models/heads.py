"""The table of output heads: how a network's numbers become results.

The next head is one class and one line here. Shape letters: A rows of a detector's output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

from vistadex.records import FloatArray, IntArray, Task
from vistadex.registry import lookup

Shape: TypeAlias = tuple[int | None, ...]
"""A tensor's shape as the graph states it, batch first; None where it is not fixed."""

DETECTORS: Mapping[str, str] = {
    "yolox": "vistadex.models.detectors:YoloxHead",
    "yolov5": "vistadex.models.detectors:YoloV5Head",
    "ultralytics": "vistadex.models.detectors:UltralyticsHead",
    "end-to-end": "vistadex.models.detectors:EndToEndHead",
}
CLASSIFIERS: Mapping[str, str] = {
    "logits": "vistadex.models.classifiers:LogitsHead",
    "probabilities": "vistadex.models.classifiers:ProbabilitiesHead",
}
EMBEDDERS: Mapping[str, str] = {
    "embedding": "vistadex.models.embedders:EmbeddingHead",
}
BY_TASK: Mapping[Task, Mapping[str, str]] = {
    "detector": DETECTORS,
    "classifier": CLASSIFIERS,
    "embedder": EMBEDDERS,
}
HEADS: Mapping[str, str] = {**DETECTORS, **CLASSIFIERS, **EMBEDDERS}


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes as a detector's head reads them, in pixels of the network's input, in any order."""

    boxes_xyxy: FloatArray
    scores: FloatArray
    class_ids: IntArray


class Head(Protocol):
    """What every head says about itself."""

    preset: ClassVar[str | None]
    """The preprocessing of the project that this layout comes from; None where it varies."""

    def class_count(self, shape: Shape) -> int | None:
        """How many classes an output of that shape has; None where the shape does not say.

        Raises: ValueError if no output of this head has that shape.
        """
        ...


class DetectorHead(Head, Protocol):
    """Reads boxes from a detector's outputs."""

    overlapping: ClassVar[bool]
    """Whether the network leaves non-maximum suppression to us."""

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score.

        Args:
            outputs: the network's outputs without their batch axis.
            canvas_wh: size of the network's input in pixels.
        """
        ...


class VectorHead(Head, Protocol):
    """Turns the one output of a classifier or embedder into the vector that counts."""

    def decode(self, output: FloatArray) -> FloatArray:
        """Class scores in [0, 1], or an embedding of unit length."""
        ...


def task_of(head: str) -> Task | None:
    """The task a head is for; None for an unknown head."""
    return next((task for task, table in BY_TASK.items() if head in table), None)


def preset_of(head: str) -> str | None:
    """The preprocessing that goes with a head; None where it has to be stated."""
    preset: str | None = lookup(HEADS, head, "model head").preset
    return preset
