"""How good a network is on pictures that it does not learn from: COCO's numbers, as in use.

Pictures go through the same preprocessing, head and suppression as with `vistadex index`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vistadex.annotated import AnnotatedSet
from vistadex.decoding import decode
from vistadex.metrics import Found, Truth, coco_ap
from vistadex.models.analyzers import RunOptions
from vistadex.models.cards import ModelCard, Preprocessing
from vistadex.models.detectors import Detector
from vistadex.models.network import Network, batch_size, wire
from vistadex.models.preprocessing import Preprocessor
from vistadex.models.runtimes import Value
from vistadex.models.yolo import YoloxHead
from vistadex.records import DecodedImage, Detections
from vistadex.records import Model as RunningModel
from vistadex.training.folding import folded
from vistadex.training.networks import BOX_VALUES, Deployed, DetectorNetwork, channels_last
from vistadex.training.pictures import UNREADABLE

OPTIONS = RunOptions(min_score=0.01, nms_iou=0.65, max_boxes=300)
"""How boxes are chosen before they are measured."""
_AT_A_TIME = 32


def card_of(name: str, classes: Sequence[str], size: int, **more: Any) -> ModelCard:
    """The card of a trained network."""
    how = Preprocessing(
        size_wh=(size, size), color="BGR", resize="letterbox-top-left", stride=32, dynamic=True
    )
    return ModelCard(
        name=name, task="detector", head="yolox", classes=tuple(classes), input=how, **more
    )


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Annotated pictures whose labels are those of the network."""

    data: AnnotatedSet
    labels: tuple[int, ...]
    """For each of the data's classes the network's, or -1."""
    class_count: int

    def truth(self) -> Truth:
        """All boxes of the classes that the network has."""
        images = self.data.images
        counts = [len(one.boxes) for one in images]
        labels = np.concatenate([np.zeros(0, np.int64), *(one.labels for one in images)])
        labels = np.array([*self.labels, -1], np.int64)[labels]
        whole = Truth.of(
            np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes for one in images)]),
            labels,
            np.repeat(np.arange(len(images)), counts),
            image_count=len(images),
            class_count=self.class_count,
            area=np.concatenate([np.zeros(0), *(one.area for one in images)]),
            crowd=np.concatenate([np.zeros(0, np.bool_), *(one.crowd for one in images)]),
            difficult=np.concatenate([np.zeros(0, np.bool_), *(one.difficult for one in images)]),
        )
        return whole.take(whole.classes >= 0)


def validation_set(data: AnnotatedSet, classes: Sequence[str]) -> ValidationSet:
    """A set to measure a network of those classes on."""
    places = {name: i for i, name in enumerate(classes)}
    labels = tuple(places.get(name, -1) for name in data.classes)
    return ValidationSet(data, labels, len(classes))


def measure(model: RunningModel, chosen: ValidationSet) -> dict[str, float]:
    """COCO's 12 numbers of a detector; a picture that can't be read counts as without boxes."""
    boxes, scores, labels, images = [], [], [], []
    for numbers, pictures in _pictures(chosen.data, model.min_long_side):
        results = model.analyze(pictures)
        for number, one in zip(numbers, results, strict=True):
            assert isinstance(one, Detections)
            boxes.append(one.boxes_xyxy)
            scores.append(one.scores)
            labels.append(one.class_ids)
            images.append(np.full(len(one.scores), number, np.int64))
    none = np.zeros(0)
    found = Found.of(
        np.concatenate([np.zeros((0, 4)), *boxes]),
        np.concatenate([none, *scores]),
        np.concatenate([none, *labels]),
        np.concatenate([none, *images]),
    )
    return coco_ap(chosen.truth(), found).numbers


def running(network: DetectorNetwork, card: ModelCard, device: str) -> Detector:
    """A network in torch as a detector like any other."""
    session = _Session(network, device)
    head = YoloxHead()
    wiring = wire(session, card, head, card.name)
    count = batch_size(wiring, None, cuda=device != "cpu", place=card.name)
    preprocessor = Preprocessor(card.input, card.input.size_wh, rectangular=True)
    return Detector(
        Network(session, preprocessor, wiring, count, card.name),
        head,
        len(card.classes),
        min_score=OPTIONS.min_score,
        nms_iou=OPTIONS.nms_iou,
        max_boxes=OPTIONS.max_boxes,
    )


class _Session:
    """What a Network needs of a runtime, by torch. Implements runtimes.Session."""

    def __init__(self, network: DetectorNetwork, device: str) -> None:
        self._network = Deployed(folded(network)).to(device)
        channels_last(self._network)
        self._device = device
        self._columns = BOX_VALUES + network.class_count

    def get_inputs(self) -> Sequence[Value]:
        return [Value("images", ["batch", 3, "height", "width"], "tensor(float)")]

    def get_outputs(self) -> Sequence[Value]:
        return [Value("output", ["batch", "rows", self._columns], "tensor(float)")]

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    @torch.no_grad()
    def run(self, names: None, feed: Mapping[str, Any]) -> list[Any]:
        images = torch.from_numpy(feed["images"]).to(self._device)
        rows = self._network(images.to(memory_format=torch.channels_last))
        return [rows.float().cpu().numpy()]


def _pictures(
    data: AnnotatedSet, min_long_side: int
) -> Iterator[tuple[list[int], list[DecodedImage]]]:
    """Some pictures at a time with their numbers."""
    numbers: list[int] = []
    pictures: list[DecodedImage] = []
    for i in range(len(data.images)):
        try:
            pictures.append(decode(data.read(i), min_long_side=min_long_side))
            numbers.append(i)
        except UNREADABLE:
            continue
        if len(pictures) == _AT_A_TIME:
            yield numbers, pictures
            numbers, pictures = [], []
    if pictures:
        yield numbers, pictures


def with_metrics(card: ModelCard, numbers: Mapping[str, float], on: str) -> ModelCard:
    """A card that says how good the model is, and where that was measured."""
    known = {name: round(value, 6) for name, value in numbers.items() if value >= 0}
    return replace(card, metrics=known, evaluation={"data": on} if known else {})
