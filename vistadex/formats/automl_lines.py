"""Lines of an AutoML CSV: what each says, and what is wrong with it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, TypeAlias

Box: TypeAlias = tuple[float, float, float, float]
"""x0, y0, x1, y1 as fractions of the picture's sides."""

SPLITS = {
    "TRAIN": "train",
    "TRAINING": "train",
    "VALIDATION": "val",
    "TEST": "test",
    "UNASSIGNED": None,
    "": None,
}
"""What the first column says, and the attribute `split` of the image."""
BOX_COLUMNS = 11
"""Set, address, label, and x and y of four corners, clockwise from the top left."""
MAX_LINE_BYTES = 1 << 20
SAME_CORNER = 1e-6
"""How far a corner may be from where the other three put it."""

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


class Row(NamedTuple):
    """What one line says."""

    number: int
    """Of the line, from 1 on."""
    address: str
    split: str | None
    box: Box | None
    """Of the only label."""
    labels: list[str] | None
    """Of the whole image, unless there is a box; [] for an image without boxes; None: nothing."""


@dataclass(eq=False)
class Damage(Exception):
    """Why a line can't be used."""

    kind: str
    found: str
    expected: str
    cure: str


def numbered(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1 on; of one that is too long only the start."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        while len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)


def parsed(number: int, line: bytes) -> Row | None:
    """What a line says; None for an empty one.

    Raises: Damage.
    """
    fields = _fields(line)
    if not any(fields):
        return None
    if "://" in fields[0]:
        fields.insert(0, "")  # The set may be left out altogether.
    name = fields[0].strip()
    if name.upper() not in SPLITS:
        expected = "TRAIN, VALIDATION, TEST or UNASSIGNED first"
        raise Damage("unknown-set", f"the set {name!r}", expected, "correct it")
    if len(fields) < 2 or not fields[1]:
        raise Damage("no-address", "no address", "the picture's address second", "add it")
    split, address, rest = SPLITS[name.upper()], fields[1], fields[2:]
    if len(fields) == BOX_COLUMNS and not _all_names(rest):
        return Row(number, address, split, *_box_of(rest))
    return Row(number, address, split, None, _labels(rest))


def _fields(line: bytes) -> list[str]:
    if len(line) == MAX_LINE_BYTES:
        expected = f"lines of less than {MAX_LINE_BYTES:,} bytes"
        raise Damage("bad-line", "a longer line", expected, "check that it is a CSV")
    try:
        text = line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        found = f"bytes that are no text ({error.reason})"
        raise Damage("bad-text", found, "UTF-8", "save it as UTF-8") from error
    if "\0" in text:
        raise Damage("bad-text", "a NUL character", "text", "check that it is a CSV")
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        expected = "quotes in pairs, and around a whole field"
        raise Damage("bad-line", f"no CSV ({error})", expected, "correct the quotes") from error


def _all_names(rest: list[str]) -> bool:
    """Whether nine columns are nine labels instead of a label and corners."""
    return all(rest) and not any(is_number(text) for text in rest[1:])


def _labels(rest: list[str]) -> list[str] | None:
    """The labels of a line that says no box; None where it has none."""
    while rest and not rest[-1]:
        rest.pop()
    box = "a box has 11 columns: set, address, label, and four corners that may be empty"
    if not all(rest):
        raise Damage("bad-line", "an empty label before another", "labels", f"correct it; {box}")
    numbers = [text for text in rest[1:] if is_number(text)]
    if any("." in text for text in numbers):
        found = f"{numbers[0]} in place of a label, and {len(rest) + 2} columns"
        raise Damage("bad-line", found, "labels", f"correct it; {box}")
    return rest or None


def _box_of(rest: list[str]) -> tuple[Box | None, list[str]]:
    """The box of a line of 11 columns with its label; no box and no label for no boxes."""
    label, corners = rest[0], rest[1:]
    if not any(corners):
        if label:
            cure = "add it; a label of the whole image has no columns behind it"
            raise Damage("bad-box", f"no box for {label!r}", "x and y of two corners", cure)
        return None, []
    if not label:
        raise Damage("no-label", "a box without label", "its class third", "add it")
    given = [_corner(corners[i], corners[i + 1]) for i in range(0, 8, 2)]
    two = given[0] is not None and given[1] is None and given[2] is not None and given[3] is None
    points = [point for point in given if point is not None]
    if not two and len(points) != 4:
        expected = "two opposite corners (first and third) or all four"
        raise Damage("bad-box", f"{len(points)} corners", expected, "correct it")
    box = _around(points)
    if len(points) == 4 and not _is_upright(points, box):
        cure = "give the rectangle around it"
        raise Damage("bad-box", "a slanted shape", "a rectangle along the sides", cure)
    if box[0] == box[2] or box[1] == box[3]:
        raise Damage("bad-box", "a box without area", "opposite corners", "correct or delete it")
    return box, [label]


def _corner(x: str, y: str) -> tuple[float, float] | None:
    """None where both are empty."""
    if not x and not y:
        return None
    values = []
    for text in (x, y):
        if not is_number(text) or not 0 <= float(text) <= 1:
            cure = "divide pixels by the picture's width or height"
            raise Damage("bad-box", f"the coordinate {text!r}", "a number from 0 to 1", cure)
        values.append(float(text))
    return values[0], values[1]


def _around(points: list[tuple[float, float]]) -> Box:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def _is_upright(points: list[tuple[float, float]], box: Box) -> bool:
    """Whether four points are the corners of a box, in their order around it."""
    x0, y0, x1, y1 = box
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    turns = [corners[i:] + corners[:i] for i in range(4)]
    return any(
        all(
            abs(x - cx) <= SAME_CORNER and abs(y - cy) <= SAME_CORNER
            for (x, y), (cx, cy) in zip(points, turn, strict=True)
        )
        for turn in (*turns, *(turn[::-1] for turn in turns))
    )


def is_number(text: str) -> bool:
    """Whether a column holds a number; names such as nan and inf are none."""
    return _NUMBER.fullmatch(text) is not None
