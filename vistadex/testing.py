"""Fakes that ship: a detector without weights, sources in memory, drawn scenes with known boxes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from vistadex.decoding import encode_jpeg
from vistadex.errors import SourceMissingError
from vistadex.records import (
    DecodedImage,
    Detections,
    DoubleArray,
    ImageEntry,
    Json,
    Pixels,
    Result,
    Task,
)
from vistadex.sources.contract import PAGE_SIZE, Content, Target

SQUARE_COLORS: Mapping[str, tuple[int, int, int]] = {
    "red square": (220, 20, 20),
    "blue square": (20, 20, 220),
}


@dataclass(frozen=True)
class RedSquareDetector:
    """An Analyzer and its Model in one: finds saturated red and blue areas, scored by fill."""

    min_score: float = 0.25
    batch_size: int = 1
    fail_on_width: int = 0
    """An image so wide makes it raise, as a broken model would."""
    min_long_side: int = 0
    min_short_side: int = 0

    @property
    def name(self) -> str:
        """Its name in the catalog."""
        return "red-squares"

    @cached_property
    def sha256(self) -> str:
        """A hash like a file's."""
        return hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def task(self) -> Task:
        """A detector."""
        return "detector"

    @property
    def classes(self) -> tuple[str, ...]:
        """Red and blue squares."""
        return tuple(SQUARE_COLORS)

    @property
    def card(self) -> Mapping[str, Json]:
        """What is known about it."""
        return {"name": self.name, "task": self.task, "classes": list(self.classes)}

    @property
    def parameters(self) -> Mapping[str, Json]:
        """What changes its results."""
        return {"min_score": self.min_score}

    def load(self) -> RedSquareDetector:
        """Itself: there is nothing to load."""
        return self

    def analyze(self, images: Sequence[DecodedImage]) -> list[Result]:
        """Boxes of each image, by falling score."""
        return [self._detect(image) for image in images]

    def _detect(self, image: DecodedImage) -> Detections:
        if self.fail_on_width and image.width == self.fail_on_width:
            raise RuntimeError("the model broke, as it was asked to")
        scale = image.width / image.pixels.shape[1]
        found: list[tuple[float, int, tuple[float, float, float, float]]] = []
        for class_id, color in enumerate(SQUARE_COLORS.values()):
            near = np.abs(image.pixels.astype(np.int16) - color).max(axis=2) < 60
            number, _, areas, _ = cv2.connectedComponentsWithStats(near.astype(np.uint8))
            for x, y, width, height, area in areas[1:number].tolist():
                score = area / (width * height)
                if area >= 16 and score >= self.min_score:
                    corners = (x * scale, y * scale, (x + width) * scale, (y + height) * scale)
                    found.append((score, class_id, corners))
        found.sort(reverse=True)
        return Detections(
            np.array([box for _, _, box in found], np.float32).reshape(-1, 4),
            np.array([score for score, _, _ in found], np.float32),
            np.array([class_id for _, class_id, _ in found], np.int64),
        )


def draw_scene(
    squares: Iterable[tuple[str, int, int, int]], size_wh: tuple[int, int] = (160, 120)
) -> Pixels:
    """An RGB picture with squares (class, x, y, side) on grey; classes as in SQUARE_COLORS."""
    width, height = size_wh
    pixels = np.full((height, width, 3), 128, np.uint8)
    for class_name, x, y, side in squares:
        pixels[y : y + side, x : x + side] = SQUARE_COLORS[class_name]
    return pixels


def scene_jpeg(
    squares: Iterable[tuple[str, int, int, int]], size_wh: tuple[int, int] = (160, 120)
) -> bytes:
    """draw_scene() as a JPEG file."""
    return encode_jpeg(draw_scene(squares, size_wh), quality=95)


@dataclass(frozen=True)
class DrawnScene:
    """Boxes drawn in text, and every relation that they should have."""

    name: str
    drawing: str
    """A letter for each box, which reaches over all places that have it; a dot for none."""
    related: frozenset[str]
    """As "a on b"; a symmetric one as its letters stand in the alphabet."""

    @property
    def letters(self) -> tuple[str, ...]:
        """One for each box, sorted."""
        return tuple(sorted(set(self.drawing) - set(". \n")))

    @property
    def size_wh(self) -> tuple[int, int]:
        """Columns and rows of the drawing."""
        return len(self._rows[0]), len(self._rows)

    @property
    def boxes_xyxy(self) -> DoubleArray:
        """(N, 4) in columns and rows, half-open, in the order of letters."""
        return np.array([self._box(letter) for letter in self.letters], np.float64)

    @property
    def _rows(self) -> list[str]:
        return self.drawing.split()

    def _box(self, letter: str) -> tuple[int, int, int, int]:
        rows = [i for i, row in enumerate(self._rows) if letter in row]
        lefts = [row.index(letter) for row in self._rows if letter in row]
        rights = [row.rindex(letter) + 1 for row in self._rows if letter in row]
        return min(lefts), rows[0], max(rights), rows[-1] + 1


def _scene(name: str, drawing: str, *related: str) -> DrawnScene:
    return DrawnScene(name, drawing, frozenset(related))


DRAWN_SCENES: tuple[DrawnScene, ...] = (
    _scene(
        "a cup on a table",
        """
        ............
        ....aa......
        ....aa......
        .bbbbbbbbb..
        .b.......b..
        """,
        "a on b",
        "b under a",
        "a above b",
        "b below a",
    ),
    _scene(
        "a rider and a horse",
        """
        ............
        ....aaa.....
        ....aaa.....
        ..bbaaabbb..
        ..bbaaabbb..
        ..bbbbbbbb..
        """,
        "a on b",
        "b under a",
        "a overlaps b",
    ),
    _scene(
        "a lamp high above a table",
        """
        ....aa......
        ............
        ............
        ............
        ............
        ..bbbbbbb...
        ..bbbbbbb...
        """,
        "a above b",
        "b below a",
    ),
    _scene(
        "two chairs side by side",
        """
        ............
        ..aaa.bbb...
        ..aaa.bbb...
        ..aaa.bbb...
        ............
        """,
        "a left_of b",
        "b right_of a",
        "a next_to b",
    ),
    _scene(
        "two chairs far apart",
        """
        aa.......bb.
        aa.......bb.
        aa.......bb.
        """,
        "a left_of b",
        "b right_of a",
    ),
    _scene(
        "a picture in a frame",
        """
        bbbbbbbbbb..
        bbbaaaabbb..
        bbbaaaabbb..
        bbbbbbbbbb..
        bbbbbbbbbb..
        """,
        "a inside_of b",
        "b contains a",
        "a overlaps b",
        "a on b",
        "b under a",
    ),
    _scene(
        "one before the other",
        """
        ............
        .aaaaaa.....
        .aaaaaa.....
        .aaaabbbbb..
        .aaaabbbbb..
        .aaaabbbbb..
        """,
        "a overlaps b",
        "a next_to b",
    ),
    _scene(
        "far off at an angle",
        """
        aa..........
        aa..........
        ............
        ............
        ............
        ............
        ..........bb
        ..........bb
        """,
    ),
    _scene(
        "a child before a wall, feet on the ground",
        """
        bbbbbbbbbb
        bbbbbbbbbb
        bbbaabbbbb
        bbbaabbbbb
        bbbaabbbbb
        """,
        "a inside_of b",
        "b contains a",
        "a overlaps b",
    ),
    _scene(
        "three in a row",
        """
        .............
        .aaa.bbb.ccc.
        .aaa.bbb.ccc.
        """,
        "a left_of b",
        "b right_of a",
        "a next_to b",
        "b left_of c",
        "c right_of b",
        "b next_to c",
        "a left_of c",
        "c right_of a",
    ),
)
"""Scenes with all relations of their boxes, as vistadex.relations defines them."""

_MEMORY: dict[str, dict[str, bytes]] = {}


class MemorySource(Target):
    """Files in this process's memory, as memory://name; make one with MemorySource.create()."""

    def __init__(self, uri: str) -> None:
        if uri not in _MEMORY:
            raise SourceMissingError(f"{uri}: no such source in memory")
        self.uri = uri

    @classmethod
    def create(cls, name: str, files: Mapping[str, bytes]) -> MemorySource:
        """A source with these files, in place of one of that name."""
        _MEMORY[f"memory://{name}"] = dict(files)
        return cls(f"memory://{name}")

    @property
    def files(self) -> dict[str, bytes]:
        """The files by key; may be changed."""
        return _MEMORY[self.uri]

    def pages(self, after: str | None = None) -> Iterator[list[ImageEntry]]:
        """The files by key, in pages."""
        keys = sorted(key for key in self.files if after is None or key > after)
        for start in range(0, len(keys), PAGE_SIZE):
            yield [
                ImageEntry(key, len(self.files[key]), _version(self.files[key]))
                for key in keys[start : start + PAGE_SIZE]
            ]

    def read(self, key: str) -> Content:
        """A file's bytes."""
        if key not in self.files:
            raise SourceMissingError(f"{self.uri}/{key}: no such file")
        return Content(self.files[key], _version(self.files[key]))

    def write(self, key: str, chunks: Iterable[bytes], size_bytes: int) -> None:
        """Puts a file there."""
        self.files[key] = b"".join(chunks)


def _version(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
