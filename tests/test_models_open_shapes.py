"""Graphs that leave their shapes open, and say others when they run: a ModelError, nothing else."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistadex.errors import ModelError
from vistadex.models.classifiers import Classifier
from vistadex.models.darknet import YoloV3Head, YoloV4ZooHead
from vistadex.models.detectors import Detector
from vistadex.models.heads import CLASSIFIERS, DETECTORS, HEADS
from vistadex.models.network import Output
from vistadex.models.preprocessing import Placement
from vistadex.records import Classification, DecodedImage, Detections, FloatArray
from vistadex.registry import lookup

SIDES = st.integers(0, 9) | st.sampled_from([12, 18, 21, 84, 85])
SHAPES = st.lists(SIDES, min_size=0, max_size=4).filter(lambda shape: np.prod(shape) < 40_000)


class Saying:
    """A network that says given tensors of one picture."""

    batch_size = 1
    preprocessor = SimpleNamespace(min_sides=(64, 0))

    def __init__(self, tensors: Sequence[FloatArray]) -> None:
        self.tensors = list(tensors)

    def run(self, images: Sequence[DecodedImage]) -> list[Output]:
        return [Output(0, Placement((64, 64), 0, 0, 64, 64), self.tensors)]


def picture() -> DecodedImage:
    return DecodedImage(np.zeros((64, 64, 3), np.uint8), 64, 64)


def detector(head: str, tensors: Sequence[FloatArray]) -> Detector:
    network: Any = Saying(tensors)
    made = lookup(DETECTORS, head, "model head")()
    return Detector(network, made, 3, min_score=0.25, nms_iou=0.65, max_boxes=300)


@pytest.mark.parametrize("head", DETECTORS)
@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(SHAPES, min_size=6, max_size=6),
    value=st.sampled_from([0.0, 0.5, 1.0, -1.0, 1e6]),
)
def test_outputs_of_any_shape_are_boxes_or_a_model_error(
    head: str, shapes: list[list[int]], value: float
) -> None:
    tensors = [np.full(shape, value, np.float32) for shape in shapes]
    for count in (1, 2, 3, 4, 6):
        try:
            found = detector(head, tensors[:count]).analyze([picture()])[0]
        except ModelError:
            continue
        assert isinstance(found, Detections)
        assert found.boxes_xyxy.shape == (len(found.scores), 4)


@pytest.mark.parametrize("head", CLASSIFIERS)
@pytest.mark.parametrize("count", [0, 2, 4])
def test_another_number_of_scores_is_a_model_error(head: str, count: int) -> None:
    def classify(length: int) -> Any:
        network: Any = Saying([np.ones(length, np.float32)])
        made = lookup(HEADS, head, "model head")()
        return Classifier(network, made, 3, max_classes=5).analyze([picture()])[0]

    assert isinstance(classify(3), Classification)
    with pytest.raises(ModelError, match=f"{count} scores in the output, the card names 3"):
        classify(count)


@pytest.mark.parametrize("shape", [(8, 8, 21), (21, 8), (3, 8, 8, 5), (4, 8, 8, 8)])
def test_a_map_with_its_channels_elsewhere_is_named(shape: tuple[int, ...]) -> None:
    maps = [np.zeros(shape, np.float32)] * 3
    with pytest.raises(ModelError, match=r"a map \[.*expected \[3 \* \(5 \+ classes\), g, g\]"):
        YoloV3Head().decode(maps, (64, 64), 0.25)
    with pytest.raises(ModelError, match=r"a map \[.*expected \[g, g, 3, 5 \+ classes\]"):
        YoloV4ZooHead().decode(maps, (64, 64), 0.25)
