"""Importing and exporting COCO annotations of many images: rates, and memory at two sizes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import measuring
import pictures
import processes
import tables

BOXES_PER_IMAGE = 7
CLASSES = 80


def picture_folder(work: Path, number: int) -> Path:
    """A folder with links to one picture of 640 x 480 under so many names."""
    folder = work / f"annotated-{number}"
    if not folder.exists():
        import cv2
        import numpy as np

        folder.mkdir()
        first = folder / f"{0:08}.jpg"
        cv2.imwrite(str(first), np.full((480, 640, 3), 128, np.uint8))
        for i in range(1, number):
            (folder / f"{i:08}.jpg").hardlink_to(first)
    return folder


def instances(work: Path, number: int) -> Path:
    """A COCO file for that folder, its boxes in random order, each with a polygon of 20 points."""
    path = work / f"instances-{number}.json"
    if path.exists():
        return path
    random_ = random.Random(0)
    images = [
        {"id": i + 1, "file_name": f"{i:08}.jpg", "width": 640, "height": 480}
        for i in range(number)
    ]
    boxes = []
    for i in range(number * BOXES_PER_IMAGE):
        x, y = round(random_.uniform(0, 500), 2), round(random_.uniform(0, 400), 2)
        boxes.append(
            {
                "segmentation": [[round(random_.uniform(0, 480), 2) for _ in range(40)]],
                "area": 1600.5,
                "iscrowd": 0,
                "image_id": i % number + 1,
                "bbox": [x, y, 40.25, 60.5],
                "category_id": random_.randrange(CLASSES) + 1,
                "id": i + 1,
            }
        )
    random_.shuffle(boxes)
    names = [{"id": i + 1, "name": f"class {i}"} for i in range(CLASSES)]
    values = {"images": images, "annotations": boxes, "categories": names}
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def one_size(work: Path, number: int) -> list[dict[str, Any]]:
    """Import into a new catalog, import again, export; each a command of its own."""
    folder, file = picture_folder(work, number), instances(work, number)
    pictures.warm(folder)
    catalog = measuring.remove_catalog(work / "annotations.db")
    out = work / "exported.json"
    out.unlink(missing_ok=True)
    options = ["--catalog", catalog, "--json"]
    read = measuring.vistadex("import", "coco", file, "--images", folder, *options)
    write = measuring.vistadex("export", "coco", out, *options)
    env = measuring.environment(work)
    found = []
    for name, command in (("import", read), ("import again", read), ("export", write)):
        done = processes.run(command, env)
        if done.json["boxes"] != number * BOXES_PER_IMAGE:
            raise SystemExit(f"{name}: {done.json['boxes']} boxes")
        found.append(
            {
                "what": f"{name}, {number:,} images",
                "seconds": done.wall_s,
                "images_per_s": number / done.wall_s,
                "boxes_per_s": number * BOXES_PER_IMAGE / done.wall_s,
                "peak_mib": done.peak_mib,
            }
        )
    return found


def main() -> None:
    """Runs both sizes."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--number", type=int, default=5_000, help="images of the smaller set")
    parser.add_argument("--large", type=int, default=50_000, help="images of the larger set")
    options = parser.parse_args()
    here = measuring.machine()
    with measuring.work_folder(options.work) as work:
        found = [row for n in (options.number, options.large) for row in one_size(work, n)]
    rows = [list(row.values()) for row in found]
    tables.show("COCO, 7 boxes an image", [key.replace("_", " ") for key in found[0]], rows)
    growth = found[3]["peak_mib"] / found[0]["peak_mib"]
    goals = [("memory of the larger import / of the smaller", growth, "<=", 1.25)]
    tables.show("Goals", ["", "measured", "goal", "reached"], tables.goal_rows(goals))
    measuring.write_json(options, here, {"runs": found, "goals": goals})


if __name__ == "__main__":
    main()
