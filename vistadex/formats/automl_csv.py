"""CSV of Google's AutoML Vision: a line for each box, or for each image with its classes."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from vistadex.errors import FormatError
from vistadex.formats.automl_lines import (
    BOX_COLUMNS,
    Box,
    Damage,
    Row,
    is_number,
    numbered,
    parsed,
)
from vistadex.formats.contract import About, Format, Problems, classes_there
from vistadex.formats.files import created, opened
from vistadex.records import AnnotatedImage, Annotation, Json
from vistadex.sources.spool import Spool

SETS = {"train": "TRAIN", "validation": "VALIDATION", "val": "VALIDATION", "test": "TEST"}
"""The attribute `split`, and what is written in the first column; anything else is UNASSIGNED."""
_DECIMALS = 12
_LINE_BREAK = re.compile(r"[\r\n]")


class AutomlCsvFormat(Format):
    """Annotations as AutoML Vision and Vertex AI import them."""

    losses = (
        "scores",
        "flags and attributes of boxes",
        "attributes of images but split (train, val, test)",
        "widths and heights",
        "parts of boxes outside their picture",
        "that an image was looked at and has none of the classes",
        "relations",
    )

    def read(
        self, path: str, problems: Problems, reference: str | None = None
    ) -> Iterator[AnnotatedImage]:
        """See Format: by rising address; boxes are fractions of the picture's sides.

        The lines of an image may be anywhere in the file. It is its own reference.
        """
        with opened(path) as file, Spool() as spool:
            damaged, first = 0, ""
            for number, line in numbered(file):
                try:
                    row = parsed(number, line)
                except Damage as damage:
                    first = first or f"line {number}: {damage.found}"
                    damaged += 1
                    _report(damage, problems, path, number)
                    continue
                if row is not None:
                    spool.add(row.address, json.dumps(row))
            if damaged and not spool.rows:
                what = f"none of its {damaged:,} lines can be read ({first})"
                expected = "lines like TRAIN,gs://bucket/a.jpg,label,0.1,0.1,,,0.3,0.3,,"
                raise FormatError(f"{path}: {what}, expected {expected}; check the --format")
            for _, values in spool.groups():
                yield _image(path, [Row(*json.loads(value)) for value in values], problems)

    def write(
        self,
        out: Path,
        images: Iterable[AnnotatedImage],
        classes: tuple[str, ...],
        about: About,
    ) -> None:
        """See Format. Addresses are written as the images have them; gzipped if it ends in .gz."""
        with created(out) as file:
            writer = csv.writer(file, lineterminator="\n")
            for image in images:
                for row in _rows(image):
                    broken = next((text for text in row if _LINE_BREAK.search(text)), None)
                    if broken is not None:
                        what = f"the name {broken!r} has a line break, expected one line"
                        raise FormatError(f"{image.place}: {what}; rename it")
                    writer.writerow(row)


def _report(damage: Damage, problems: Problems, path: str, number: int) -> None:
    place = f"{path} line {number}"
    problems.add(damage.kind, place, found=damage.found, expected=damage.expected, cure=damage.cure)


def _image(path: str, rows: list[Row], problems: Problems) -> AnnotatedImage:
    """The rows of one image together; what contradicts is reported."""
    first = rows[0]
    attributes: dict[str, Json] = {} if first.split is None else {"split": first.split}
    other = next((row for row in rows if row.split != first.split), None)
    if other is not None:
        attributes = {}
        found = f"another set than in line {first.number} for the same picture"
        cure = "correct it; the picture goes on without a set"
        damage = Damage("several-sets", found, "one set for each picture", cure)
        _report(damage, problems, path, other.number)
    boxes = [Annotation(row.labels[0], _box(row.box)) for row in rows if row.box and row.labels]
    none = [row for row in rows if row.labels == []]
    if boxes and none:
        found = "no boxes, and boxes in other lines for the same picture"
        damage = Damage("contradiction", found, "one or the other", "delete the wrong lines")
        _report(damage, problems, path, none[0].number)
    names = [name for row in rows if row.box is None for name in row.labels or ()]
    return AnnotatedImage(
        file_name=first.address,
        place=f"{path} line {first.number}",
        relative=True,
        boxes=tuple(boxes) if boxes or none else None,
        classes=tuple(dict.fromkeys(names)) or None,
        attributes=attributes,
    )


def _box(corners: Box) -> Box:
    x0, y0, x1, y1 = corners  # A list, as it comes from JSON.
    return x0, y0, x1, y1


def _rows(image: AnnotatedImage) -> Iterator[list[str]]:
    """The lines of one image."""
    start = [SETS.get(str(image.attributes.get("split")), "UNASSIGNED"), image.file_name]
    if image.boxes is not None and not image.boxes:
        yield start + [""] * (BOX_COLUMNS - len(start))
    for box in image.boxes or ():
        x0, y0, x1, y1 = _fractions(image, box.box_xyxy)
        yield [*start, box.class_name, x0, y0, "", "", x1, y1, "", ""]
    names = classes_there(image)
    if len(names) + len(start) == BOX_COLUMNS or any(map(is_number, names)):
        yield from ([*start, name] for name in names)  # One line would look like a box.
    elif names or image.boxes is None:
        yield [*start, *names]


def _fractions(image: AnnotatedImage, box: Box) -> list[str]:
    """The corners as parts of the picture's sides, inside it, as text."""
    width, height = (1, 1) if image.relative else (image.width, image.height)
    if not width or not height:
        what = "no width and height, expected them"
        raise FormatError(f"{image.place}: {what}; index the picture first")
    parts = [box[0] / width, box[1] / height, box[2] / width, box[3] / height]
    x0, y0, x1, y1 = inside = [round(min(max(part, 0.0), 1.0), _DECIMALS) for part in parts]
    if x0 >= x1 or y0 >= y1:
        what = f"the box {box} has no area in the picture, expected one"
        raise FormatError(f"{image.place}: {what}; correct or delete it")
    return [f"{part:.{_DECIMALS}f}".rstrip("0").rstrip(".") for part in inside]
