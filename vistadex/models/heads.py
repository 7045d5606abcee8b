"""The table of output heads: how a network's numbers become results.

The next head is one class and one line here. Shape letters: A rows of a detector's output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeAlias

from vistadex.models.ports import Signature
from vistadex.records import FloatArray, IntArray, Task
from vistadex.registry import lookup

DETECTORS: Mapping[str, str] = {
    "yolox": "vistadex.models.yolo:YoloxHead",
    "yolov5": "vistadex.models.yolo:YoloV5Head",
    "ultralytics": "vistadex.models.yolo:UltralyticsHead",
    "end-to-end": "vistadex.models.yolo:EndToEndHead",
    "yolov3": "vistadex.models.darknet:YoloV3Head",
    "yolov4": "vistadex.models.darknet:YoloV4Head",
    "yolov3-zoo": "vistadex.models.darknet:YoloV3ZooHead",
    "yolov4-zoo": "vistadex.models.darknet:YoloV4ZooHead",
    "yolov4-pytorch": "vistadex.models.darknet:YoloV4PytorchHead",
    "nanodet": "vistadex.models.nanodet:NanodetHead",
    "nanodet-plus": "vistadex.models.nanodet:NanodetPlusHead",
    "torchvision": "vistadex.models.ssd:TorchvisionHead",
    "ssd": "vistadex.models.ssd:SsdHead",
    "tensorflow": "vistadex.models.tensorflow:TensorflowHead",
    "detr": "vistadex.models.detr:DetrHead",
    "rt-detr": "vistadex.models.detr:RtDetrHead",
    "rt-detr-deploy": "vistadex.models.detr:RtDetrDeployHead",
    "efficientdet": "vistadex.models.efficientdet:EfficientdetHead",
    "efficientdet-raw": "vistadex.models.efficientdet:EfficientdetRawHead",
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

ExtraInput: TypeAlias = Literal["size_wh", "size_hw", "ones"]
"""What an input beside the picture is given: the canvas's size, or 1 for each of its pixels."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes as a detector's head reads them, in pixels of the network's input, in any order."""

    boxes_xyxy: FloatArray
    scores: FloatArray
    class_ids: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How a head reads the outputs of one graph."""

    order: tuple[int, ...]
    """Indices of the outputs that it reads, in the order in which `decode` takes them."""
    class_count: int | None = None
    """Classes of the output; None where its shape does not say."""
    batched: bool = True
    """Whether the outputs have a batch axis; without one pictures run one at a time."""
    likely: bool = True
    """Whether sizes that could be another network's speak for this head too."""


class Head(Protocol):
    """What every head says about itself; the values here are what it says where it is silent."""

    preset: ClassVar[str | None] = None
    """The preprocessing of the project that this layout comes from; None where it varies."""
    certain: ClassVar[bool] = False
    """Whether no other known layout has the signature that fits this head."""
    extra_inputs: ClassVar[Mapping[str, ExtraInput]] = {}
    """What goes into inputs beside the picture, by their names."""

    def fit(self, signature: Signature) -> Fit:
        """How the outputs of a graph with that signature are read.

        Raises: ValueError if they are not this head's, or not certainly.
        """
        ...


class DetectorHead(Head, Protocol):
    """Reads boxes from a detector's outputs."""

    overlapping: ClassVar[bool] = True
    """Whether the network leaves non-maximum suppression to us."""

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score.

        Args:
            outputs: those that `fit` named, in its order, without batch axis.
            canvas_wh: size of the network's input in pixels.
        Raises: ModelError if their shapes do not fit the input.
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


def fitting(signature: Signature) -> dict[str, Fit]:
    """The heads that a graph of that signature could have; the likely ones if there are any."""
    found: dict[str, Fit] = {}
    for name in HEADS:
        try:
            found[name] = lookup(HEADS, name, "model head")().fit(signature)
        except ValueError:
            continue
    return {name: fit for name, fit in found.items() if fit.likely} or found


def certain_head(signature: Signature) -> str | None:
    """The one head that such a graph must have; None where its signature leaves it open."""
    found = [n for n in fitting(signature) if lookup(HEADS, n, "model head").certain]
    return found[0] if len(found) == 1 else None
