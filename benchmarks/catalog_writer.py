"""Commits images to a catalog as an index job does, and says when; catalog_speed.py starts it.

Each line on stdout is JSON: kind, when the transaction began and ended (monotonic clock, the same
for all processes), and how many images there are in all so far.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import sqlalchemy as sa

from vistadex import Catalog
from vistadex.catalog import registering, tables, writing
from vistadex.errors import UsageError
from vistadex.records import Detections, ImageEntry, Json, Model, Outcome, Task

SOURCE = "/invented/photographs"
MARK = "Written by the benchmark"
"""A class that every image gets."""
BOXES = 8


@dataclass(frozen=True)
class InventedDetector:
    """A detector that has looked already; see records.Analyzer."""

    classes: tuple[str, ...]
    name: str = "invented"
    sha256: str = "1" * 64
    task: Task = "detector"
    card: Mapping[str, Json] = field(default_factory=dict)
    parameters: Mapping[str, Json] = field(default_factory=dict)

    def load(self) -> Model:
        """Raises UsageError: what was invented can't look."""
        raise UsageError(f"{self.name}: was invented, expected a model to run")


def outcomes(start: int, number: int, classes: int, version: int) -> list[Outcome]:
    """Images with boxes: the last class once, the first once, others by Zipf's law."""
    rng = np.random.default_rng([start, version])
    weights = 1 / np.arange(1, classes)
    found = []
    for i in range(start, start + number):
        corners = rng.uniform(0, 300, (BOXES, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(10, 300, (BOXES, 2))], axis=1)
        ids = rng.choice(classes - 1, BOXES, p=weights / weights.sum())
        ids[:2] = 0, classes - 1
        scores = np.sort(rng.uniform(0.25, 1, BOXES))[::-1]
        result = Detections(boxes.astype(np.float32), scores.astype(np.float32), ids)
        entry = ImageEntry(f"{i // 1000:05d}/{i:08d}.jpg", 90_000, f"90000-{version}")
        found.append(Outcome(entry, 640, 480, (result,)))
    return found


def main() -> None:
    """Writes, or removes what was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("catalog")
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--batch", type=int, default=512, help="images in a transaction")
    parser.add_argument("--again", type=int, default=20, help="batches then written anew")
    parser.add_argument("--pause-s", type=float, default=0.0, help="between transactions")
    parser.add_argument("--remove", action="store_true", help="remove what was written before")
    options = parser.parse_args()
    with Catalog(options.catalog) as catalog:
        if options.remove:
            remove(catalog, options.batch)
        else:
            write(catalog, options)


def write(catalog: Catalog, options: argparse.Namespace) -> None:
    """New images, then new versions of the first ones."""
    names = [one.class_name for one in catalog.classes() if one.class_name != MARK][:80]
    detector = InventedDetector((*names, MARK))
    with catalog.writing() as connection:
        source_id = registering.register_source(connection, SOURCE)
        registered = registering.register_analyzer(connection, detector)
    plan = [("append", i, 1) for i in range(options.batches)]
    plan += [("replace", i, 2) for i in range(min(options.again, options.batches))]
    images = 0
    for kind, batch, version in plan:
        made = outcomes(batch * options.batch, options.batch, len(detector.classes), version)
        begun = time.monotonic()
        catalog.transaction(
            partial(
                writing.write_outcomes,
                source_id=source_id,
                analyzers=[registered],
                outcomes=made,
            )
        )
        done = time.monotonic()
        images += len(made) if kind == "append" else 0
        line = {"kind": kind, "begun": begun, "done": done, "images": images}
        print(json.dumps(line), flush=True)
        time.sleep(options.pause_s)


def remove(catalog: Catalog, batch: int) -> None:
    """Takes the images out again, as a listing without them would."""
    image, source = tables.image, tables.source
    with catalog.reading() as connection:
        query = sa.select(image.c.id).join(source).where(source.c.uri == SOURCE)
        ids: Sequence[int] = connection.execute(query).scalars().all()
    for start in range(0, len(ids), batch):
        part = ids[start : start + batch]
        catalog.transaction(partial(writing.delete_images, image_ids=part))


if __name__ == "__main__":
    main()
