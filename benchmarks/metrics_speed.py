"""COCO's average precision at the size of COCO val: pycocotools, faster-coco-eval and ours.

The set is synthetic with COCO val2017's statistics: 5,000 images, about 36,000 boxes of 80 classes
with few of most, 100 detections an image. Each evaluates the same arrays or, where it takes nothing
else, the same dictionaries, and begins with all of them in memory. Processor time hardly depends on
what else the machine does; the 12 numbers must be the same.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import measuring
import numpy as np
import tables

from vistadex import metrics
from vistadex.metrics import Found, Truth

SIDE = 640
CLASSES = 80


class Case(NamedTuple):
    """What is measured, and what a model is said to have found."""

    truth: Truth
    found: Found


def synthetic(images: int, detections: int, seed: int) -> Case:
    """A set with COCO's numbers of boxes, classes and sizes."""
    rng = np.random.default_rng(seed)
    # COCO val2017: 7.3 boxes an image, most images few and some many; 30 % of all are persons.
    counts = np.clip(rng.geometric(1 / 8.3, images) - 1, 0, 60)
    of_image = np.repeat(np.arange(images), counts)
    number = len(of_image)
    share = 1 / np.arange(2, CLASSES + 2) ** 0.9
    share[0] = share[1:].sum() * 0.43
    # Things of one class stand together: half of the boxes have the class of the one before.
    classes = rng.choice(CLASSES, number, p=share / share.sum())
    again = np.flatnonzero((rng.random(number) < 0.5) & (np.arange(number) > 0))
    again = again[of_image[again] == of_image[again - 1]]
    classes[again] = classes[again - 1]
    sides = np.exp(rng.normal(np.log(60), 1.0, (number, 2))).clip(4, SIDE * 0.9)
    boxes = np.concatenate([rng.random((number, 2)) * (SIDE - sides), sides], axis=1)
    truth = Truth(
        boxes_xywh=boxes.round(2),
        classes=classes,
        images=of_image,
        area=boxes[:, 2] * boxes[:, 3] * rng.uniform(0.4, 0.9, number),
        crowd=rng.random(number) < 0.012,
        difficult=np.zeros(number, bool),
        image_count=images,
        class_count=CLASSES,
    )
    return Case(truth, found_in(truth, detections, share / share.sum(), rng))


def found_in(truth: Truth, detections: int, share: Any, rng: np.random.Generator) -> Found:
    """Good and bad boxes of most objects, and boxes of nothing until each image has its number."""
    repeated = np.repeat(np.arange(len(truth)), rng.integers(0, 5, len(truth)))
    near = truth.boxes_xywh[repeated]
    near = near + rng.normal(0, 0.12, near.shape) * np.tile(near[:, 2:], 2)
    classes = truth.classes[repeated].copy()
    other = rng.random(len(classes)) < 0.2
    classes[other] = rng.choice(CLASSES, int(other.sum()), p=share)
    scores = rng.beta(1.2, 2.0, len(classes))
    number = truth.image_count * detections
    noise = np.concatenate([rng.random((number, 2)) * 500, rng.random((number, 2)) * 130 + 4], 1)
    images = np.append(truth.images[repeated], np.repeat(np.arange(truth.image_count), detections))
    everything = Found(
        boxes_xywh=np.concatenate([near, noise]).clip(1, None).round(3),
        scores=np.append(scores, rng.beta(0.5, 8, number)).round(5),
        classes=np.append(classes, rng.choice(CLASSES, number, p=share)),
        images=images,
    )
    order = np.lexsort((rng.random(len(images)), images))
    first = np.searchsorted(images[order], np.arange(truth.image_count))
    rank = np.arange(len(order)) - first[images[order]]
    return everything.take(order[rank < detections])


def as_dictionaries(case: Case) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO's instances and results."""
    truth, found = case
    said = zip(
        truth.images.tolist(),
        truth.classes.tolist(),
        truth.boxes_xywh.tolist(),
        truth.area.tolist(),
        truth.crowd.tolist(),
        strict=True,
    )
    annotations = [
        {"id": n, "image_id": i + 1, "category_id": c + 1, "bbox": b, "area": a, "iscrowd": int(k)}
        for n, (i, c, b, a, k) in enumerate(said, 1)
    ]
    instances: dict[str, Any] = {
        "info": {},
        "images": [{"id": i + 1, "width": SIDE, "height": SIDE} for i in range(truth.image_count)],
        "categories": [{"id": c + 1, "name": f"class {c}"} for c in range(truth.class_count)],
        "annotations": annotations,
    }
    results = [
        {"image_id": i + 1, "category_id": c + 1, "bbox": b, "score": s}
        for i, c, b, s in zip(
            found.images.tolist(),
            found.classes.tolist(),
            found.boxes_xywh.tolist(),
            found.scores.tolist(),
            strict=True,
        )
    ]
    return instances, results


def by_pycocotools(case: Case) -> Callable[[], list[float]]:
    """evaluate, accumulate and summarize, after its own indexes are made."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _prepared(case, COCO, COCOeval)


def by_faster_coco_eval(case: Case) -> Callable[[], list[float]]:
    """Likewise, by the C++ rewrite."""
    from faster_coco_eval import COCO, COCOeval_faster

    return _prepared(case, COCO, COCOeval_faster)


def _prepared(case: Case, coco: Any, evaluation: Any) -> Callable[[], list[float]]:
    instances, results = as_dictionaries(case)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco()
        truth.dataset = instances
        truth.createIndex()
        found = truth.loadRes(results)

    def run() -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            one = evaluation(truth, found, "bbox")
            one.evaluate()
            one.accumulate()
            one.summarize()
        return [float(value) for value in one.stats[:12]]

    return run


def by_vistadex(case: Case) -> Callable[[], list[float]]:
    """Ours, from arrays."""
    return lambda: list(metrics.coco_ap(case.truth, case.found).numbers.values())


ENGINES = {
    "pycocotools": by_pycocotools,
    "faster-coco-eval": by_faster_coco_eval,
    "vistadex": by_vistadex,
}
PACKAGES = {"pycocotools": "pycocotools", "faster-coco-eval": "faster_coco_eval"}
GOAL = 5
"""How many times pycocotools' speed ours should have."""


class Once(NamedTuple):
    """One run."""

    cpu_s: float
    wall_s: float
    numbers: list[float]


def timed(run: Callable[[], list[float]]) -> Once:
    """Runs once."""
    wall, cpu = time.perf_counter(), time.process_time()
    numbers = run()
    return Once(time.process_time() - cpu, time.perf_counter() - wall, numbers)


def main() -> None:
    """Prints processor and wall time of each, and how far its numbers are from the first's."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="of an image")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    here = measuring.machine()
    case = synthetic(options.images, options.detections, seed=0)
    size = f"{len(case.truth):,} boxes and {len(case.found):,} detections"
    measuring.note(f"{options.images:,} images, {size}")
    contestants = {}
    for name, make in ENGINES.items():
        if find_spec(PACKAGES.get(name, "vistadex")) is None:
            measuring.note(f"{name} is left out, as it is not installed: pip install {name}")
            continue
        contestants[name] = partial(timed, make(case))
    ran = measuring.interleaved(
        contestants, options.rounds, lambda one: f"{one.cpu_s:.2f} s of processor time"
    )
    first = next(iter(ran))
    rows, results = [], {}
    for name, each in ran.items():
        ratio = measuring.ratio([one.cpu_s for one in ran[first]], [one.cpu_s for one in each])
        off = np.abs(np.subtract(each[0].numbers, ran[first][0].numbers)).max()
        cpu, wall = (min(one[i] for one in each) for i in (0, 1))
        rows.append([name, cpu, wall, ratio, f"{each[0].numbers[0]:.6f}", f"{off:.0e}"])
        results[name] = [one._asdict() for one in each]
    headers = ["", "CPU s", "wall s", f"times {first}", "AP", "largest difference"]
    tables.show(f"COCO AP of {options.images:,} images, {size}", headers, rows)
    if first == "pycocotools":
        goals = [("times the speed of pycocotools", rows[-1][3], ">=", GOAL)]
        tables.show("Goals", ["", "measured", "goal", "reached"], tables.goal_rows(goals))
    measuring.write_json(options, here, results)


if __name__ == "__main__":
    main()
