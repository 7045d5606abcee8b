"""Whether two detectors found the same boxes in the same pictures."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vistadex.models.coco import COCO_CLASSES


def boxes_alike(catalog: Path, loop: Path) -> dict[str, float]:
    """How far the boxes in a catalog and those that loop.py wrote are the same.

    A box agrees where the other side has one of its class with IoU > 0.95, each used once.
    """
    ours: dict[str, list[list[float]]] = {}
    with sqlite3.connect(catalog) as connection:
        names = "SELECT key FROM image WHERE status = 'ok'"
        ours = {key: [] for (key,) in connection.execute(names)}
        rows = connection.execute(
            "SELECT image.key, x0, y0, x1, y1, score / 1e6, class.name FROM box "
            "JOIN image ON image.id = box.image_id JOIN class ON class.id = box.class_id"
        )
        for key, *box in rows:
            ours[key].append(box)
    theirs = {
        key: [[*box[:5], COCO_CLASSES[int(box[5])]] for box in boxes]
        for key, boxes in json.loads(loop.read_text()).items()
    }
    same = total = whole = 0
    for key in theirs.keys() | ours.keys():
        a, b = ours.get(key, []), theirs.get(key, [])
        matched = _matches(a, b)
        same += matched
        total += max(len(a), len(b))
        whole += matched == len(a) == len(b)
    images = len(theirs.keys() | ours.keys())
    return {"boxes": total, "same": same / max(1, total), "images_alike": whole / images}


def _matches(a: Sequence[Any], b: Sequence[Any]) -> int:
    left, found = list(b), 0
    for box in a:
        best = max(left, key=lambda other: _iou(box, other), default=None)
        if best is not None and _iou(box, best) > 0.95:
            left.remove(best)
            found += 1
    return found


def _iou(a: Sequence[Any], b: Sequence[Any]) -> float:
    """0 for boxes of different classes."""
    if a[5] != b[5]:
        return 0.0
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(0.0, width) * max(0.0, height)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return inside / (both - inside) if inside else 0.0
