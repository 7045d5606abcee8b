"""Annotated images as the files of Open Images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from vistadex.errors import FormatError
from vistadex.formats.contract import About
from vistadex.formats.csv_files import CsvFiles
from vistadex.formats.files import created
from vistadex.formats.open_images_classes import hierarchy_of, ids_of
from vistadex.formats.open_images_layout import (
    BOX_COLUMNS,
    FLAG_COLUMNS,
    HUMAN,
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    LABEL_SOURCES,
    MACHINE,
    NUMBERS,
    RELATION_COLUMNS,
    attribute_of,
    image_id_of,
)
from vistadex.records import AnnotatedImage, Annotation, Json, Relation
from vistadex.sources.spool import Spool

LOSSES = (
    "scores of relations",
    "the flag difficult",
    "attributes of boxes but source",
    "attributes of images that the published files have no column for",
    "widths and heights",
    "parts of boxes outside their picture",
    "that an image was looked at and has no boxes, no classes or no relations",
    "folders of pictures whose names are ids of Open Images (16 hexadecimal digits)",
    "whose boxes and relations are, where they are a machine's",
)
CLASSES = "class-descriptions.csv"
HIERARCHY = "bbox_labels_hierarchy.json"

_PREFIXES: Mapping[Json, str] = {
    "train": "train-",
    "val": "validation-",
    "validation": "validation-",
    "test": "test-",
}
_PUBLISHED = re.compile(r"(?:.*/)?([0-9a-f]{16})\.jpg", re.DOTALL)
_Box: TypeAlias = tuple[float, float, float, float]


def write_set(
    out: Path, images: Iterable[AnnotatedImage], classes: tuple[str, ...], about: About
) -> None:
    """Writes a folder, in flat memory.

    Raises: FormatError.
    """
    ids = ids_of(classes, about)
    with CsvFiles(out) as files, Spool() as lists:
        files.begin(CLASSES)
        for name, mid in ids.items():
            files.add(CLASSES, [mid, name])
        for image in images:
            _write_image(files, lists, image, ids)
        _write_lists(files, lists)
    if about.parents:
        with created(out / HIERARCHY) as file:
            file.write(hierarchy_of(about.parents, ids))


def _write_image(
    files: CsvFiles, lists: Spool, image: AnnotatedImage, ids: Mapping[str, str]
) -> None:
    match = _PUBLISHED.fullmatch(image.file_name)
    key = match[1] if match else image_id_of(image.file_name)
    split = image.attributes.get("split")
    prefix = _PREFIXES.get(split, "") if isinstance(split, str) else ""
    row = [key, *(_attribute(image, column) for column in IMAGE_COLUMNS[1:])]
    lists.add(f"{prefix}/{key}", json.dumps([image.file_name, row]))
    origin = MACHINE if image.origin == MACHINE else HUMAN
    scores = image.class_scores or (1.0,) * len(image.classes or ())
    for name, score in zip(image.classes or (), scores, strict=True):
        label = [key, LABEL_SOURCES[origin], ids[name], _number(score)]
        files.add(f"{prefix}annotations-{origin}-imagelabels.csv", label, LABEL_COLUMNS)
    for box in image.boxes or ():
        files.add(f"{prefix}annotations-bbox.csv", _box(image, key, box, ids), BOX_COLUMNS)
    for relation in image.relations or ():
        triplet = _relation(image, key, relation, ids)
        files.add(f"{prefix}annotations-vrd.csv", triplet, RELATION_COLUMNS)


def _write_lists(files: CsvFiles, lists: Spool) -> None:
    """The lists of images, each image once.

    Raises: FormatError where two pictures have one id.
    """
    for key, values in lists.groups():
        prefix, _, image_id = key.partition("/")
        said = [json.loads(value) for value in values]
        names = sorted({name for name, _ in said})
        if len(names) > 1:
            what = f"{names[0]} and {names[1]} have the same id {image_id}, expected an id for each"
            raise FormatError(f"{what}; export them apart")
        name = f"{prefix}images-with-rotation.csv" if prefix else "image_ids_and_rotation.csv"
        files.add(name, said[-1][1], IMAGE_COLUMNS)


def _attribute(image: AnnotatedImage, column: str) -> str:
    """What a column says of an image; "" where nothing is known, or it does not fit there."""
    value = image.attributes.get(attribute_of(column))
    if column in NUMBERS and isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    return value if isinstance(value, str) else ""


def _box(image: AnnotatedImage, key: str, box: Annotation, ids: Mapping[str, str]) -> list[str]:
    source = box.attributes.get("source")
    flags = [box.flags.get(name) for name in FLAG_COLUMNS.values()]
    return [
        key,
        source if isinstance(source, str) else "",
        ids[box.class_name],
        _number(box.score),
        *_corners(image, box.box_xyxy),
        *("-1" if flag is None else str(int(flag)) for flag in flags),
    ]


def _relation(
    image: AnnotatedImage, key: str, relation: Relation, ids: Mapping[str, str]
) -> list[str]:
    return [
        key,
        ids[relation.subject],
        ids[relation.object],
        *_corners(image, relation.subject_xyxy),
        *_corners(image, relation.object_xyxy),
        relation.predicate,
    ]


def _corners(image: AnnotatedImage, box: _Box | None) -> list[str]:
    """XMin, XMax, YMin, YMax as parts of the picture's sides; empty where nobody has drawn them.

    Raises: FormatError where the picture's size is unknown, or nothing of the box lies in it.
    """
    if box is None:
        return [""] * 4
    width, height = (1, 1) if image.relative else (image.width, image.height)
    if not width or not height:
        what = "no width and height, expected them"
        raise FormatError(f"{image.place}: {what}; index the picture first")
    parts = [box[0] / width, box[2] / width, box[1] / height, box[3] / height]
    x0, x1, y0, y1 = inside = [min(max(part, 0.0), 1.0) for part in parts]
    if not (x0 < x1 and y0 < y1):
        what = f"the box {box} has no area in the picture, expected one"
        raise FormatError(f"{image.place}: {what}; correct or delete it")
    return [_number(part) for part in inside]


def _number(value: float) -> str:
    """In the fewest digits that lead back to the same number."""
    return repr(int(value) if float(value).is_integer() else float(value))
