"""What annotation files say, fitted to a picture: annotated images to outcomes in its pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import NamedTuple, TypeAlias

import numpy as np

from vistadex.boxes import turn
from vistadex.decoding import PictureSize
from vistadex.formats import Problems
from vistadex.records import (
    NOMINAL_SIDE,
    AnnotatedImage,
    Annotation,
    Classification,
    Detections,
    DoubleArray,
    ImageEntry,
    Json,
    Outcome,
    Relations,
    Result,
    Task,
)

OVERHANG = 1.0
"""A box stays as it is stated where it leaves its picture by no more pixels: rounding does that."""
Box: TypeAlias = tuple[float, float, float, float]
ToPixels: TypeAlias = Callable[[DoubleArray], DoubleArray]


class Origin(NamedTuple):
    """Who says something of images, and of which kind."""

    name: str
    task: Task


class Fitting:
    """Turns what is said of images into outcomes."""

    def __init__(self, index: Mapping[Origin, Mapping[str, int]], problems: Problems) -> None:
        """
        Args:
            index: the classes that each origin names, with their places in its list.
            problems: gets the boxes that don't fit.
        """
        self.index, self.problems = index, problems
        self.turned = 0
        """Images whose boxes were given for the picture as stored and not as shown."""

    def outcome(
        self,
        entry: ImageEntry,
        images: Sequence[AnnotatedImage],
        size: PictureSize,
        *,
        seen: bool,
    ) -> Outcome | None:
        """What the catalog gets; None where the annotation is of another picture."""
        results: dict[Origin, Result] = {}
        attributes: dict[str, Json] = {}
        for image in images:
            fits = self._fit(image, size)
            if fits is None and image.boxes is not None:
                return None
            attributes |= image.attributes
            if fits is not None and image.boxes is not None:
                boxes = [self._inside(image, one, fits, size) for one in image.boxes]
                origin = Origin(image.origin, "detector")
                results[origin] = self._detections(origin, [one for one in boxes if one])
            if image.classes is not None:
                origin = Origin(image.origin, "classifier")
                results[origin] = self._classification(origin, image)
            if image.relations is not None:
                results[Origin(image.origin, "relater")] = self._related(image, fits)
        entry = replace(entry, attributes=attributes)
        ordered = tuple(results.get(one) for one in self.index)
        return Outcome(entry, size.width, size.height, ordered, seen=seen)

    def _fit(self, image: AnnotatedImage, size: PictureSize) -> ToPixels | None:
        """How boxes get into the upright picture; None where they are for another size."""
        stated, upright = stated_size(image), (size.width, size.height)
        if image.relative and upright == (NOMINAL_SIDE, NOMINAL_SIDE):
            return lambda corners: np.rint(corners * NOMINAL_SIDE)
        if image.relative:
            return lambda corners: corners * np.array(upright * 2)
        if stated in (None, upright):
            return lambda corners: corners
        if size.orientation < 5 or stated != (size.stored_width, size.stored_height):
            self._other_size(image, size)
            return None
        self.turned += 1
        return lambda corners: turn(corners, size.orientation, *stated)

    def _other_size(self, image: AnnotatedImage, size: PictureSize) -> None:
        self.problems.add(
            "other-size",
            image.place,
            found=f"boxes for a picture of {image.width} x {image.height} pixels",
            expected=f"{size.width} x {size.height}, the size of {image.file_name}",
            cure="scale the boxes, or restore the picture that was annotated",
        )

    def _inside(
        self, image: AnnotatedImage, box: Annotation, fit: ToPixels, size: PictureSize
    ) -> Annotation | None:
        """A box in pixels, cut off where it leaves the picture; None where nothing is left."""
        x0, y0, x1, y1 = corners = _fitted(fit, box.box_xyxy)
        width, height = (float(size.width or np.inf), float(size.height or np.inf))
        cut = (max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height))
        empty = cut[0] >= cut[2] or cut[1] >= cut[3]
        overhang = OVERHANG * (size.width / 1000 if size.width == NOMINAL_SIDE else 1)
        if not empty and max(-x0, -y0, x1 - width, y1 - height) <= overhang:
            return replace(box, box_xyxy=corners)
        self.problems.add(
            "outside" if empty else "cut-off",
            image.place,
            found=f"{box.class_name} at {', '.join(f'{one:g}' for one in corners)}",
            expected=f"a box within {size.width} x {size.height} pixels",
            cure="it was left out; mend it" if empty else "it was cut off there; mend it",
        )
        return None if empty else replace(box, box_xyxy=cut)

    def _detections(self, origin: Origin, boxes: list[Annotation]) -> Detections:
        index = self.index[origin]
        ordered = sorted(boxes, key=lambda box: -box.score)
        return Detections(
            np.array([box.box_xyxy for box in ordered], np.float64).reshape(-1, 4),
            np.array([box.score for box in ordered], np.float64),
            np.array([index[box.class_name] for box in ordered], np.int64),
            [box.flags for box in ordered],
            [box.attributes for box in ordered],
        )

    def _classification(self, origin: Origin, image: AnnotatedImage) -> Classification:
        index, names = self.index[origin], image.classes or ()
        best: dict[int, float] = {}
        for name, score in zip(names, image.class_scores or repeat(1.0), strict=False):
            best[index[name]] = max(score, best.get(index[name], 0.0))
        return Classification(
            np.array(list(best.values()), np.float64), np.array(list(best), np.int64)
        )

    @staticmethod
    def _related(image: AnnotatedImage, fit: ToPixels | None) -> Relations:
        def fitted(box: Box | None) -> Box | None:
            return None if box is None or fit is None else _fitted(fit, box)

        found = (
            replace(
                one,
                subject_xyxy=fitted(one.subject_xyxy),
                object_xyxy=fitted(one.object_xyxy),
            )
            for one in image.relations or ()
        )
        return Relations(tuple(sorted(found, key=lambda one: -one.score)))


def names_in(image: AnnotatedImage) -> dict[Task, set[str]]:
    """The classes that an image's annotations name, by how."""
    names: dict[Task, set[str]] = {}
    if image.boxes is not None:
        names["detector"] = {box.class_name for box in image.boxes}
    if image.classes is not None:
        names["classifier"] = set(image.classes)
    if image.relations is not None:
        names["relater"] = {one for r in image.relations for one in (r.subject, r.object)}
    return names


def _fitted(fit: ToPixels, box: Box) -> Box:
    x0, y0, x1, y1 = fit(np.array([box], np.float64))[0].tolist()
    return x0, y0, x1, y1


def stated_size(image: AnnotatedImage) -> tuple[int, int] | None:
    """The size that the annotation states, where its boxes depend on it."""
    if image.boxes is None or image.relative or image.width is None or image.height is None:
        return None
    return image.width, image.height
