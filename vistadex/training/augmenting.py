"""Training samples out of annotated pictures: mosaic, mix-up, flips, scale, crop and color.

A sample is a function of its random generator alone, so that it does not depend on the number of
processes. Boxes are those of the sample's pixels.
Shape letters: N boxes, S side of the sample.
Source: Bochkovskiy et al., "YOLOv4" (mosaic); Zhang et al., "mixup".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np

from vistadex.errors import UsageError
from vistadex.records import FloatArray, IntArray, Pixels

PAD = 114
"""Gray where there is no picture."""
_MIN_SIDE = 2.0
"""Boxes with shorter sides teach nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How samples are varied; probabilities from 0 to 1."""

    mosaic: float = 0.7
    """Of four pictures in one."""
    mixup: float = 0.0
    """Of another sample shining through."""
    flip: float = 0.5
    """Of left and right exchanged."""
    flip_vertical: float = 0.0
    """Of up and down exchanged: for pictures that have no up."""
    scale: tuple[float, float] = (0.5, 1.5)
    """Size of the picture in the sample; 1 fills it."""
    color: tuple[float, float, float] = (0.015, 0.6, 0.4)
    """Most by which hue (share of the circle), saturation and brightness change."""
    min_visible: float = 0.25
    """Boxes of which less is left are dropped."""

    def __post_init__(self) -> None:
        for name in ("mosaic", "mixup", "flip", "flip_vertical", "min_visible"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} {getattr(self, name)}: expected 0 to 1")
        low, high = self.scale
        if not 0.05 <= low <= high <= 20:
            raise UsageError(f"scale {low} to {high}: expected 0.05 to 20, the smaller first")


class Truth(NamedTuple):
    """A picture, or a sample, with its boxes."""

    pixels: Pixels
    """(H, W, 3) RGB."""
    boxes: FloatArray
    """(N, 4) xyxy."""
    labels: IntArray
    """(N,)."""
    weights: FloatArray
    """(N,) in (0, 1]: how sure the box is; 0 for regions in which nothing counts."""


Pick: TypeAlias = Callable[[], Truth]
"""Another picture at random."""


def augmented(
    first: Truth, another: Pick, size: int, how: Augmentation, random: np.random.Generator
) -> Truth:
    """A sample of S x S pixels."""
    sample = _composed(first, another, size, how, random)
    if random.random() < how.mixup:
        sample = _mixed(sample, _composed(another(), another, size, how, random), random)
    pixels = _colored(sample.pixels, how.color, random)
    boxes = sample.boxes.copy()
    if random.random() < how.flip:
        pixels, boxes[:, [0, 2]] = pixels[:, ::-1], size - boxes[:, [2, 0]]
    if random.random() < how.flip_vertical:
        pixels, boxes[:, [1, 3]] = pixels[::-1], size - boxes[:, [3, 1]]
    return Truth(np.ascontiguousarray(pixels), boxes, sample.labels, sample.weights)


def fitted(picture: Truth, size: int) -> Truth:
    """A picture unchanged but for its size, in the upper left of S x S pixels, as in use."""
    height, width = picture.pixels.shape[:2]
    scale = min(size / width, size / height)
    wide, high = max(1, int(width * scale + 1e-9)), max(1, int(height * scale + 1e-9))
    canvas = np.full((size, size, 3), PAD, np.uint8)
    cv2.resize(picture.pixels, (wide, high), dst=canvas[:high, :wide])
    factor = np.array([wide / width, high / height] * 2, np.float32)
    return Truth(canvas, picture.boxes * factor, picture.labels, picture.weights)


def _composed(
    first: Truth, another: Pick, size: int, how: Augmentation, random: np.random.Generator
) -> Truth:
    canvas = np.full((size, size, 3), PAD, np.uint8)
    if random.random() >= how.mosaic:
        return _joined(canvas, [_placed(first, canvas, (0, 0, size, size), how, random)])
    x, y = (int(v) for v in random.uniform(0.3, 0.7, 2) * size)
    windows = [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]
    random.shuffle(windows)
    parts = [
        _placed(first if i == 0 else another(), canvas, window, how, random)
        for i, window in enumerate(windows)
    ]
    return _joined(canvas, parts)


def _placed(
    picture: Truth,
    canvas: Pixels,
    window: tuple[int, int, int, int],
    how: Augmentation,
    random: np.random.Generator,
) -> Truth:
    """Draws a picture, at a random size and place, into a window; what is left of its boxes."""
    left, top, right, bottom = window
    inside = canvas[top:bottom, left:right]
    height, width = picture.pixels.shape[:2]
    size = len(canvas)
    low, high = np.log(how.scale)
    scale = float(np.exp(random.uniform(low, high))) * size / max(height, width)
    # Anywhere: a picture larger than its window is cropped, a smaller one stands within.
    x = random.uniform(*sorted((0.0, right - left - width * scale)))
    y = random.uniform(*sorted((0.0, bottom - top - height * scale)))
    cv2.warpAffine(
        picture.pixels,
        np.array([[scale, 0, x], [0, scale, y]], np.float32),
        (right - left, bottom - top),
        dst=inside,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(PAD, PAD, PAD),
    )
    shift = np.array([x + left, y + top] * 2, np.float32)
    whole = picture.boxes * np.float32(scale) + shift
    lows, highs = np.array([left, top] * 2), np.array([right, bottom] * 2)
    boxes = np.clip(whole, lows, highs).astype(np.float32)
    kept = _worth(boxes, whole, how.min_visible)
    return Truth(canvas, boxes[kept], picture.labels[kept], picture.weights[kept])


def _worth(boxes: FloatArray, whole: FloatArray, min_visible: float) -> IntArray:
    """Indices of the boxes of which enough is left."""
    sides = boxes[:, 2:] - boxes[:, :2]
    full = np.prod(whole[:, 2:] - whole[:, :2], axis=1)
    enough = np.prod(sides, axis=1) >= min_visible * full
    return np.flatnonzero((sides >= _MIN_SIDE).all(axis=1) & enough)


def _joined(canvas: Pixels, parts: list[Truth]) -> Truth:
    return Truth(
        canvas,
        np.concatenate([one.boxes for one in parts]),
        np.concatenate([one.labels for one in parts]),
        np.concatenate([one.weights for one in parts]),
    )


def _mixed(one: Truth, other: Truth, random: np.random.Generator) -> Truth:
    """Both pictures laid over each other, and the boxes of both."""
    share = float(random.beta(8, 8))
    pixels = cv2.addWeighted(one.pixels, share, other.pixels, 1 - share, 0)
    return _joined(np.asarray(pixels, np.uint8), [one, other])


def _colored(
    pixels: Pixels, most: tuple[float, float, float], random: np.random.Generator
) -> Pixels:
    """Hue turned, saturation and brightness multiplied, by tables as in YOLOv5."""
    hue, saturation, value = 1 + random.uniform(-1, 1, 3) * most
    if not any(most):
        return pixels
    steps = np.arange(256)
    turned = ((np.arange(256) + (hue - 1) * 180) % 180).astype(np.uint8)
    richer = np.clip(steps * saturation, 0, 255).astype(np.uint8)
    brighter = np.clip(steps * value, 0, 255).astype(np.uint8)
    parts = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV))
    tables = (turned, richer, brighter)
    varied = [cv2.LUT(part, table) for part, table in zip(parts, tables, strict=True)]
    return np.asarray(cv2.cvtColor(cv2.merge(varied), cv2.COLOR_HSV2RGB), np.uint8)
