"""A catalog of a million invented images, filled past the models, for measuring searches.

Class frequencies follow Zipf's law. Images enter in order and classes by chance, so the pages of
the table that ranks are filled and split as commits of a real index job would leave them.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import sqlalchemy as sa

from vistadex.catalog import Catalog, tables
from vistadex.catalog.packing import PackedClass, pack
from vistadex.models.coco import COCO_CLASSES
from vistadex.records import SCORE_SCALE

CHUNK = 20_000
POOL = 6
"""Classes drawn for an image, some of them twice; its boxes are of these."""
ZIPF = 1.0
SEED = 20240229
ANALYZER = 1


def build(work: Path, images: int, boxes: int) -> Path:
    """The file of a catalog with so many images and boxes, made where it is not there yet."""
    path = work / f"synthetic-{images}-{boxes}.db"
    mark = path.with_suffix(".done")
    if mark.exists():
        return path
    measuring.note(f"making {path}: {images:,} images, {boxes:,} boxes")
    Catalog(str(measuring.remove_catalog(path)), create=True).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA cache_size=-2000000")
        connection.execute("PRAGMA synchronous=OFF")
        _fixed_rows(connection, images)
        rng = np.random.default_rng(SEED)
        per_image = np.bincount(rng.integers(images, size=boxes), minlength=images)
        found_images: Counter[int] = Counter()
        found_boxes: Counter[int] = Counter()
        for start in range(0, images, CHUNK):
            chunk = _Chunk(rng, start, per_image[start : start + CHUNK])
            _insert(connection, tables.image, chunk.images())
            rows = list(chunk.image_classes())
            _insert(connection, tables.analysis, chunk.analyses(rows))
            _insert(connection, tables.box, chunk.boxes())
            _insert(connection, tables.image_class, rows)
            found_images.update(row[0] for row in rows)
            for class_id, *_, number in rows:
                found_boxes[class_id] += number
            connection.commit()
        counts = [
            (class_id, analyzer, found_images[class_id], found_boxes[class_id])
            for class_id in sorted(found_images)
            for analyzer in (tables.ANY_ANALYZER, ANALYZER)
        ]
        _insert(connection, tables.class_count, counts)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    mark.touch()
    return path


def _insert(connection: sqlite3.Connection, table: sa.Table, rows: Iterable[Any]) -> None:
    """Rows in the order of the table's columns; the columns that they lack stay empty."""
    names = [column.name for column in table.columns]
    rows = list(rows)
    if rows:
        values = ", ".join("?" * len(rows[0]))
        some = ", ".join(names[: len(rows[0])])
        connection.executemany(f"INSERT INTO {table.name} ({some}) VALUES ({values})", rows)


def _fixed_rows(connection: sqlite3.Connection, images: int) -> None:
    _insert(connection, tables.source, [(1, "/photographs", images)])
    _insert(connection, tables.klass, [(i, name) for i, name in enumerate(COCO_CLASSES, 1)])
    _insert(connection, tables.model, [(1, "0" * 64, "synthetic", "detector", "{}")])
    _insert(connection, tables.analyzer, [(ANALYZER, 1, "0" * 64, "{}")])


class _Chunk:
    """Some images with their boxes, as rows."""

    def __init__(self, rng: np.random.Generator, start: int, per_image: np.ndarray) -> None:
        """per_image: number of boxes of each."""
        self.ids = np.arange(start + 1, start + 1 + len(per_image))
        weights = 1 / np.arange(1, len(COCO_CLASSES) + 1) ** ZIPF
        drawn = rng.choice(len(weights), (len(per_image), POOL), p=weights / weights.sum()) + 1
        total = int(per_image.sum())
        owner = np.repeat(np.arange(len(per_image)), per_image)
        first = np.repeat(np.cumsum(per_image) - per_image, per_image)
        turn = np.arange(total) - first
        again = rng.integers(POOL, size=total)
        classes = drawn[owner, np.where(turn < POOL, turn, again)]
        scores = np.rint((0.25 + 0.7 * rng.beta(1.2, 2, total)) * SCORE_SCALE).astype(np.int64)
        order = np.lexsort((-scores, owner))
        self.ordinals = turn
        self.owners = self.ids[owner]
        self.classes, self.scores = classes[order], scores[order]
        x0, y0 = rng.uniform(0, 500, total), rng.uniform(0, 350, total)
        size = rng.uniform(10, 130, (2, total))
        corners = np.stack([x0, y0, x0 + size[0], y0 + size[1]]).astype(np.float32)
        self.corners = corners.astype(float)

    def images(self) -> Iterator[Any]:
        """Rows of image."""
        for i in self.ids.tolist():
            key = f"{i // 1000:05d}/{i:08d}.jpg"
            yield (i, 1, key, f"90000-{i}", 90_000, 640, 480, "ok", None, None, 1_700_000_000)

    def analyses(self, rows: Iterable[Any]) -> Iterator[Any]:
        """Rows of analysis, with the rows of image_class packed by image."""
        found: dict[int, list[PackedClass]] = {}
        for class_id, score, image_id, _, boxes in rows:
            found.setdefault(image_id, []).append(PackedClass(class_id, score, boxes))
        for i in self.ids.tolist():
            yield i, ANALYZER, f"90000-{i}", pack(found.get(i, ()))

    def boxes(self) -> Iterator[Any]:
        """Rows of box."""
        ids, ordinals = self.owners.tolist(), self.ordinals.tolist()
        classes, scores = self.classes.tolist(), self.scores.tolist()
        analyzers = [ANALYZER] * len(ids)
        return zip(ids, analyzers, ordinals, classes, scores, *self.corners.tolist(), strict=True)

    def image_classes(self) -> Iterator[Any]:
        """Rows of image_class: the best score and the number of boxes of each class."""
        found: dict[tuple[int, int], list[int]] = {}
        columns = (self.owners.tolist(), self.classes.tolist(), self.scores.tolist())
        # By falling score: the first one of a class is its best.
        for image, class_id, score in zip(*columns, strict=True):
            found.setdefault((image, class_id), [score, 0])[1] += 1
        for (image, class_id), (score, number) in found.items():
            yield class_id, score, image, ANALYZER, number
