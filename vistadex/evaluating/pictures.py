"""Pictures of an evaluation: the truth beside what the model says, and where it is most wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vistadex.catalog import FoundBox
from vistadex.decoding import decode, encode_jpeg
from vistadex.drawing import PEOPLE, below, beside, draw_boxes, fitted, save
from vistadex.errors import DecodingError, SourceError, UsageError
from vistadex.evaluating.judging import Judged
from vistadex.evaluating.results import Evaluation
from vistadex.metrics import KINDS
from vistadex.metrics.columns import Found, Truth
from vistadex.records import Pixels

_PERSON = next(iter(PEOPLE))
_GRID_SIDE = 480
"""Long side in pixels of a picture in a grid."""
_COLUMNS = 2
"""Pairs of pictures in a row of a grid."""
REPORT_SIDE = 560
"""Long side in pixels of a picture in a report."""
_SAID = {
    "localization": "badly placed",
    "classification": "wrongly called",
    "duplicate": "found twice:",
    "background": "invented",
    "both": "badly placed and wrongly called",
    "missed": "missed",
}
_MOST_WORDS = 8
"""What is said of a picture at most, that of which there is most."""


@dataclass(frozen=True, slots=True)
class Worst:
    """A picture with many errors."""

    image: int
    """Its position in the data."""
    words: str
    """2 missed person, 1 invented dog."""
    number: int


def both(done: Evaluation, i: int) -> Pixels:
    """A picture with the truth, and beside it with what counts of what the model says."""
    return beside(list(_drawn(done, i)))


def _drawn(done: Evaluation, i: int, long_side: int | None = None) -> Iterator[Pixels]:
    judged = _judged(done)
    pixels = decode(done.pictures.read(i)).pixels
    scale = 1.0
    if long_side is not None:
        small = fitted(pixels, long_side)
        scale, pixels = small.shape[1] / pixels.shape[1], small
    truth = judged.truth.take(judged.truth.images == i)
    found = judged.sure.take(judged.sure.images == i)
    names = judged.naming.classes
    yield draw_boxes(pixels, _boxes(truth, names, np.ones(len(truth)), _PERSON, scale))
    yield draw_boxes(pixels, _boxes(found, names, found.scores, done.model, scale))


def _judged(done: Evaluation) -> Judged:
    if done.judged is None:
        what = f"{done.model}: says classes of whole images, expected a detector's boxes to draw"
        raise UsageError(f"{what}; leave --draw out")
    return done.judged


def _boxes(
    boxes: Truth | Found, names: Sequence[str], scores: np.ndarray, model: str, scale: float
) -> list[FoundBox]:
    corners = boxes.boxes_xywh.copy() * scale
    corners[:, 2:] += corners[:, :2]
    rows = zip(boxes.classes.tolist(), scores.tolist(), corners.tolist(), strict=True)
    # A model that is named as people are would be drawn as they are.
    shown = model if model == _PERSON or model not in PEOPLE else f"{model} (model)"
    return [
        FoundBox(names[c], score, (x0, y0, x1, y1), shown) for c, score, (x0, y0, x1, y1) in rows
    ]


def write_grid(done: Evaluation, path: Path, number: int) -> None:
    """A PNG of the first pictures that were judged, truth and predictions side by side."""
    judged = _judged(done)
    pairs = [beside(list(_drawn(done, i, _GRID_SIDE))) for i in judged.seen[:number]]
    if not pairs:
        raise UsageError(f"{path}: no picture to draw, expected 1 or more; change --draw")
    rows = [beside(pairs[i : i + _COLUMNS]) for i in range(0, len(pairs), _COLUMNS)]
    save(below(rows), path)


def worst(done: Evaluation, number: int) -> list[Worst]:
    """The pictures with the most errors that count, most first; of a classifier the surest."""
    if done.judged is None:
        return [
            Worst(one.image, f"{one.truth}, said to be {one.said} ({one.score:.2f})", 1)
            for one in done.mistaken[:number]
        ]
    judged = done.judged
    kinds, names, order = judged.kinds, judged.naming.classes, list(KINDS)
    said: dict[int, Counter[str]] = {}
    wrong = np.flatnonzero(kinds.of_found >= 0)
    for at in wrong.tolist():
        name = names[int(kinds.found.classes[at])]
        words = f"{_SAID[order[int(kinds.of_found[at])]]} {name}"
        said.setdefault(int(kinds.found.images[at]), Counter())[words] += 1
    for at in np.flatnonzero(kinds.missed).tolist():
        words = f"missed {names[int(judged.truth.classes[at])]}"
        said.setdefault(int(judged.truth.images[at]), Counter())[words] += 1
    ranked = sorted(said.items(), key=lambda one: (-one[1].total(), one[0]))[:number]
    return [Worst(i, _words(each), each.total()) for i, each in ranked]


def _words(said: Counter[str]) -> str:
    parts = [f"{number} {words}" for words, number in said.most_common(_MOST_WORDS)]
    more = said.total() - sum(number for _, number in said.most_common(_MOST_WORDS))
    return ", ".join([*parts, *([f"{more} more"] if more else [])])


def write_pair(done: Evaluation, i: int, path: Path) -> bool:
    """Writes a JPEG of a picture at reduced size, with truth and predictions where there are boxes.

    Returns: whether the picture could be read.

    Raises: UsageError where the file can't be written.
    """
    try:
        if done.judged is None:
            drawn = fitted(decode(done.pictures.read(i)).pixels, REPORT_SIDE)
        else:
            drawn = beside(list(_drawn(done, i, REPORT_SIDE)))
    except (SourceError, DecodingError):
        return False
    try:
        path.write_bytes(encode_jpeg(drawn))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give another folder with --out") from error
    return True
