"""Random cases of truth and detections, and what the field's own tool says of them."""

from __future__ import annotations

import contextlib
import io
from typing import Any, NamedTuple

import numpy as np

from vistadex.metrics import Found, Truth


class Case(NamedTuple):
    """What is true, and what is found."""

    truth: Truth
    found: Found


def random_case(
    seed: int,
    *,
    images: int = 12,
    classes: int = 3,
    coarse: bool = False,
    crowd: float = 0.0,
    difficult: float = 0.0,
) -> Case:
    """Boxes of all sizes, and detections near them and elsewhere.

    Args:
        coarse: all numbers are few, so that overlaps and scores are often equal.
    """
    rng = np.random.default_rng(seed)
    counts = rng.poisson(5, images)
    of_image = np.repeat(np.arange(images), counts)
    number = len(of_image)
    sides = np.exp(rng.uniform(np.log(6), np.log(250), (number, 2)))
    boxes = _rounded(np.concatenate([rng.uniform(0, 300, (number, 2)), sides], 1), coarse)
    truth = Truth(
        boxes_xywh=boxes,
        classes=rng.integers(0, classes, number),
        images=of_image,
        area=boxes[:, 2] * boxes[:, 3] * rng.uniform(0.4, 1, number),
        crowd=rng.random(number) < crowd,
        difficult=rng.random(number) < difficult,
        image_count=images,
        class_count=classes,
    )
    near = np.repeat(np.arange(number), rng.integers(0, 4, number))
    spread = np.tile(boxes[near, 2:], 2) * rng.normal(0, 0.1, (len(near), 4))
    elsewhere = rng.integers(0, 4 * images)
    noise = np.concatenate(
        [rng.uniform(0, 300, (elsewhere, 2)), rng.uniform(6, 200, (elsewhere, 2))], axis=1
    )
    found = np.append(boxes[near] + spread, noise, axis=0)
    other = rng.random(len(near)) < 0.15
    said = np.where(other, rng.integers(0, classes, len(near)), truth.classes[near])
    order = rng.permutation(len(found))
    return Case(
        truth,
        Found(
            boxes_xywh=_rounded(found, coarse),
            scores=rng.random(len(found)).round(1 if coarse else 5),
            classes=np.append(said, rng.integers(0, classes, elsewhere)),
            images=np.append(of_image[near], rng.integers(0, images, elsewhere)),
        ).take(order),
    )


def stored_case() -> Case:
    """A case that is the same with every version of NumPy: 60 boxes and 240 detections."""
    i, j = np.arange(60), np.arange(240)
    boxes = np.stack([i * 37 % 300, i * 53 % 280, 8 + i * i % 190, 9 + i * 29 % 170], axis=1)
    boxes = boxes.astype(np.float64)
    shift = np.stack([j % 7 - 3, j % 5 - 2, j % 9 - 4, j % 11 - 5], axis=1) * boxes[j % 60] / 60
    truth = Truth(
        boxes_xywh=boxes,
        classes=i % 3,
        images=i % 8,
        area=boxes[:, 2] * boxes[:, 3] * 0.7,
        crowd=i % 11 == 0,
        difficult=i % 13 == 0,
        image_count=8,
        class_count=3,
    )
    found = Found(
        boxes_xywh=boxes[j % 60] + shift.round(3),
        scores=(j * 71 % 97) / 97,
        classes=np.where(j % 10 == 0, (j + 1) % 3, j % 60 % 3),
        images=np.where(j % 17 == 0, (j + 1) % 8, j % 60 % 8),
    )
    return Case(truth, found)


def _rounded(boxes: Any, coarse: bool) -> Any:
    boxes = np.round(boxes / 16) * 16 if coarse else boxes.round(2)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 16 if coarse else 1)
    return boxes


def by_pycocotools(case: Case) -> Any:
    """The evaluation after accumulate() and summarize()."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = case
    rows = zip(
        truth.images.tolist(),
        truth.classes.tolist(),
        truth.boxes_xywh.tolist(),
        truth.area.tolist(),
        truth.crowd.tolist(),
        strict=True,
    )
    instances = {
        "info": {},
        "images": [{"id": i + 1, "width": 640, "height": 640} for i in range(truth.image_count)],
        "categories": [{"id": c + 1, "name": str(c)} for c in range(truth.class_count)],
        "annotations": [
            {"id": n, "image_id": i + 1, "category_id": c + 1, "bbox": b, "area": a, "iscrowd": k}
            for n, (i, c, b, a, k) in enumerate(rows, 1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = instances
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(results(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def results(found: Found) -> list[dict[str, Any]]:
    """Detections as COCO's results; ids are positions from 1 on."""
    rows = zip(
        found.images.tolist(),
        found.classes.tolist(),
        found.boxes_xywh.tolist(),
        found.scores.tolist(),
        strict=True,
    )
    return [{"image_id": i + 1, "category_id": c + 1, "bbox": b, "score": s} for i, c, b, s in rows]
