"""Drawn scenes with a red square each, as a small data set to train on."""

import json
from pathlib import Path

import numpy as np

from vistadex.annotated import AnnotatedSet, open_annotated
from vistadex.testing import scene_jpeg


def red_squares(folder: Path, scenes: int, broken: int = 0) -> AnnotatedSet:
    """Scenes with a red square each, as COCO; some of the files are damaged behind their header."""
    random = np.random.default_rng(3)
    images, annotations = [], []
    for i in range(scenes + broken):
        side = int(random.integers(24, 48))
        x, y = (int(v) for v in random.integers(0, 160 - side, 2) * (1.0, 0.7))
        data = scene_jpeg([("red square", x, y, side)])
        (folder / f"{i:02}.jpg").write_bytes(data if i < scenes else data[: len(data) // 2])
        images.append({"id": i, "file_name": f"{i:02}.jpg", "width": 160, "height": 120})
        box = {"id": i + 1, "image_id": i, "category_id": 1, "bbox": [x, y, side, side]}
        annotations.append({**box, "area": side * side, "iscrowd": 0})
    whole = {"images": images, "annotations": annotations}
    whole["categories"] = [{"id": 1, "name": "red square"}]
    (folder / "coco.json").write_text(json.dumps(whole))
    return open_annotated(str(folder / "coco.json"), images=str(folder))
