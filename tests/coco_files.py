"""A small COCO file, and what tests do with such files."""

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from vistadex.formats.coco import CocoFormat
from vistadex.formats.contract import About, Problems
from vistadex.records import AnnotatedImage

SMALL: dict[str, Any] = {
    "info": {"year": 2026},
    "licenses": [{"id": 1, "name": "none"}],
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80, "license": 1},
        {"id": 9, "file_name": "b/c.jpg", "width": 50, "height": 40},
    ],
    "annotations": [
        {
            "id": 3,
            "image_id": 7,
            "category_id": 18,
            "bbox": [10.5, 20, 30.25, 5],
            "area": 99.5,
            "iscrowd": 1,
            "segmentation": [[1, 2, 3, 4, 5, 6]],
        },
        {"id": 4, "image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1], "segmentation": []},
    ],
    "categories": [
        {"id": 1, "name": "person", "supercategory": "human"},
        {"id": 18, "name": "dog"},
    ],
}

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


def saved(folder: Path, value: object, name: str = "a.json") -> str:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def read(path: str) -> tuple[list[AnnotatedImage], Problems]:
    problems = Problems()
    return list(CocoFormat().read(path, problems)), problems


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(SMALL))
    change(copy)
    return copy


def write(
    out: Path,
    images: list[AnnotatedImage],
    about: About | None = None,
) -> Any:
    classes = tuple(sorted({box.class_name for image in images for box in image.boxes or ()}))
    CocoFormat().write(out, iter(images), classes, about or About())
    data = gzip.decompress(out.read_bytes()) if out.suffix == ".gz" else out.read_bytes()
    return json.loads(data)


def by_id(items: list[dict[str, Any]]) -> Mapping[int, dict[str, Any]]:
    assert len({item["id"] for item in items}) == len(items)
    return {item["id"]: item for item in items}
