"""Open Images: CSV files of images, their labels, boxes and relations, with a class hierarchy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vistadex.errors import FormatError
from vistadex.formats.contract import About, Format, Problems
from vistadex.formats.open_images_classes import read_classes
from vistadex.formats.open_images_damage import several_scores, several_values, unknown_image
from vistadex.formats.open_images_layout import MACHINE, OpenImagesFiles, find
from vistadex.formats.open_images_rows import BoxRow, Label, OpenImagesRows, RelationRow, Row
from vistadex.formats.open_images_writing import LOSSES, write_set
from vistadex.records import AnnotatedImage, Annotation, Json, Relation
from vistadex.sources.spool import Spool


class OpenImagesFormat(Format):
    """A folder with the files of Open Images, as they are published."""

    pictures_optional = True
    columnar = True
    losses = LOSSES

    def read(
        self, path: str, problems: Problems, reference: str | None = None
    ) -> Iterator[AnnotatedImage]:
        """See Format: by rising name, first what people say of an image, then what a machine does.

        Rows may come in any order. Without a list of images, those are read that rows name. It is
        its own reference.
        """
        files = _found(path)
        files.note_unknown(problems)
        if not files.images:
            cure = "images are those that rows name; copy the list there to know the others"
            expected = "a file such as train-images-with-rotation.csv"
            problems.add("no-image-list", path, found="no images", expected=expected, cure=cure)
        rows = OpenImagesRows(read_classes(path, files, problems), problems)
        with Spool() as spool:
            places: list[str] = []
            for place, some in _tables(files, rows):
                places.append(place)
                for row in some:
                    value = [row.kind, len(places) - 1, row.line, row.value]
                    spool.add(row.file_name, json.dumps(value, ensure_ascii=False))
            for file_name, values in spool.groups():
                said = [_Said.of(value, places) for value in values]
                yield from _images(file_name, said, problems, listed=bool(files.images))

    def about(self, path: str) -> About:
        """See Format: the ids of classes, and the hierarchy."""
        classes = read_classes(path, _found(path), Problems())
        return About(external_ids=classes.external_ids, parents=classes.parents)

    def write(
        self,
        out: Path,
        images: Iterable[AnnotatedImage],
        classes: tuple[str, ...],
        about: About,
    ) -> None:
        """See Format. A folder; a class without an id gets one that is made of its name."""
        write_set(out, images, classes, about)


class _Said(NamedTuple):
    """A row as it comes back from the spool."""

    kind: str
    place: str
    value: Any

    @classmethod
    def of(cls, text: str, places: list[str]) -> _Said:
        kind, file, line, value = json.loads(text)
        return cls(kind, f"{places[file]} line {line}", value)


def _found(path: str) -> OpenImagesFiles:
    """Raises: FormatError where there is none of the files."""
    files = find(path)
    if not (files.images or files.labels or files.boxes or files.relations):
        what = "none of the files of Open Images is here"
        expected = "expected such as train-annotations-bbox.csv, here or in train/"
        unknown = f" (found {files.unknown[0][0]}: {files.unknown[0][1]})" if files.unknown else ""
        raise FormatError(f"{path}: {what}{unknown}, {expected}; check the path")
    return files


def _tables(files: OpenImagesFiles, rows: OpenImagesRows) -> Iterator[tuple[str, Iterator[Row]]]:
    """Every file with its rows; lists of images first."""
    for path, split in files.images:
        yield path, rows.images(path, split)
    for path, _, origin in files.labels:
        yield path, rows.labels(path, origin)
    for path in files.boxes:
        yield path, rows.boxes(path)
    for path in files.relations:
        yield path, rows.relations(path)


def _images(
    file_name: str, said: list[_Said], problems: Problems, *, listed: bool
) -> Iterator[AnnotatedImage]:
    """What the rows of one image say together, by whose word it is.

    Args:
        listed: whether there are lists, so that an image which is not in them is unknown.
    """
    by_kind: dict[str, list[_Said]] = {"image": [], "label": [], "box": [], "relation": []}
    for one in said:
        by_kind[one.kind].append(one)
    if listed and not by_kind["image"]:
        for one in said:
            unknown_image(file_name).report(problems, one.place)
        return
    attributes = _attributes(by_kind["image"], problems)
    labels = [(one.place, Label(*one.value)) for one in by_kind["label"]]
    classes, scores = _labels([one for one in labels if one[1].origin != MACHINE], problems)
    boxes = tuple(_box(BoxRow(*one.value)) for one in by_kind["box"])
    relations = tuple(_relation(RelationRow(*one.value)) for one in by_kind["relation"])
    yield AnnotatedImage(
        file_name=file_name,
        place=said[0].place,
        relative=True,
        boxes=boxes or None,
        classes=classes,
        class_scores=scores,
        relations=relations or None,
        attributes=attributes,
    )
    classes, scores = _labels([one for one in labels if one[1].origin == MACHINE], problems)
    if classes is not None:
        yield AnnotatedImage(
            file_name=file_name,
            place=said[0].place,
            relative=True,
            classes=classes,
            class_scores=scores,
            origin=MACHINE,
            attributes=attributes,
        )


def _attributes(said: list[_Said], problems: Problems) -> dict[str, Json]:
    """What all lists say of an image; the first stays where they contradict."""
    attributes: dict[str, Json] = {}
    for one in said:
        for key, value in one.value.items():
            if attributes.setdefault(key, value) != value:
                several_values(key, value, attributes[key]).report(problems, one.place)
    return attributes


def _labels(
    labels: list[tuple[str, Label]], problems: Problems
) -> tuple[tuple[str, ...] | None, tuple[float, ...]]:
    """Classes with their scores; the highest one where rows contradict."""
    found: dict[str, dict[float, str]] = {}
    for place, label in labels:
        found.setdefault(label.class_name, {}).setdefault(label.score, place)
    for name, places in found.items():
        if len(places) > 1:
            several_scores(name, list(places)).report(problems, [*places.values()][1])
    scores = {name: max(places) for name, places in found.items()}
    if all(score == 1 for score in scores.values()):
        return tuple(scores) or None, ()
    return tuple(scores), tuple(scores.values())


def _box(row: BoxRow) -> Annotation:
    x0, y0, x1, y1 = row.box_xyxy
    attributes: dict[str, Json] = {"source": row.source} if row.source else {}
    return Annotation(row.class_name, (x0, y0, x1, y1), row.score, row.flags, attributes)


def _relation(row: RelationRow) -> Relation:
    first, second = (
        None if box is None else (box[0], box[1], box[2], box[3])
        for box in (row.subject_xyxy, row.object_xyxy)
    )
    return Relation(row.subject, row.predicate, row.object, first, second)
