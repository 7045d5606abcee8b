"""Boxes of many images as long arrays: what people say, and what a model says.

Shape letters: N boxes of the truth, D detections, both of all images.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vistadex.records import DoubleArray, IntArray

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Boxes:
    """What both have."""

    boxes_xywh: DoubleArray
    """(·, 4) left, top, width, height in pixels, as COCO's own evaluation computes with them."""
    classes: IntArray
    """(·,) positions of class names."""
    images: IntArray
    """(·,) positions of images."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def box_areas(self) -> DoubleArray:
        """(·,) width times height."""
        areas: DoubleArray = self.boxes_xywh[:, 2] * self.boxes_xywh[:, 3]
        return areas

    def take(self, which: IntArray | BoolArray) -> Self:
        """Some of the boxes, by position or mask."""
        taken: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                taken[field.name] = value[which]
        return replace(self, **taken)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth(_Boxes):
    """What people say of images."""

    area: DoubleArray
    """(N,) pixels of the object, which need not fill its box."""
    crowd: BoolArray
    """(N,) several things in one box: COCO's iscrowd, Open Images' IsGroupOf."""
    difficult: BoolArray
    """(N,) VOC's flag."""
    image_count: int
    class_count: int

    @classmethod
    def of(
        cls,
        boxes_xyxy: ArrayLike,
        classes: ArrayLike,
        images: ArrayLike,
        *,
        image_count: int,
        class_count: int,
        area: ArrayLike | None = None,
        crowd: ArrayLike | None = None,
        difficult: ArrayLike | None = None,
    ) -> Truth:
        """The truth of boxes by their corners; an area that is not given is the box's."""
        boxes = _xywh(boxes_xyxy)
        none = np.zeros(len(boxes), np.bool_)
        return cls(
            boxes_xywh=boxes,
            classes=np.asarray(classes, np.int64),
            images=np.asarray(images, np.int64),
            area=boxes[:, 2] * boxes[:, 3] if area is None else np.asarray(area, np.float64),
            crowd=none if crowd is None else np.asarray(crowd, np.bool_),
            difficult=none if difficult is None else np.asarray(difficult, np.bool_),
            image_count=image_count,
            class_count=class_count,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(_Boxes):
    """What a model finds in images."""

    scores: DoubleArray
    """(D,) higher is surer."""

    @classmethod
    def of(
        cls, boxes_xyxy: ArrayLike, scores: ArrayLike, classes: ArrayLike, images: ArrayLike
    ) -> Found:
        """Detections by their corners."""
        return cls(
            boxes_xywh=_xywh(boxes_xyxy),
            scores=np.asarray(scores, np.float64),
            classes=np.asarray(classes, np.int64),
            images=np.asarray(images, np.int64),
        )

    def best(self, number: int) -> Found:
        """Of each image and class the surest ones, ordered by image, class and falling score."""
        order = np.lexsort((-self.scores, self.classes, self.images))
        return self.take(order[ranks(self.images[order], self.classes[order]) < number])


def ranks(*sorted_keys: IntArray) -> IntArray:
    """(·,) how many stand before each in its group, where groups stand together."""
    count = len(sorted_keys[0])
    new = np.ones(count, np.bool_)
    for key in sorted_keys:
        new[1:] &= key[1:] == key[:-1]
    new[1:] = ~new[1:]
    starts = np.flatnonzero(new)
    ranked: IntArray = np.arange(count) - np.repeat(starts, np.diff(np.append(starts, count)))
    return ranked


def _xywh(boxes_xyxy: ArrayLike) -> DoubleArray:
    boxes: DoubleArray = np.array(boxes_xyxy, np.float64).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes
