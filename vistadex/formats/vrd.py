"""Stanford's Visual Relationship JSON: triplets with the boxes of both, by picture."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from vistadex.errors import FormatError, SourceMissingError
from vistadex.formats.coco_json import Document
from vistadex.formats.contract import About, Format, Problems
from vistadex.formats.csv_files import make_folder
from vistadex.formats.files import created, opened
from vistadex.formats.folders import (
    MAX_TEXT_BYTES,
    SPLITS,
    is_storable,
    names_in,
    place_in,
    root_and_name,
    shown,
)
from vistadex.records import AnnotatedImage, Annotation, Json, Relation
from vistadex.sources import named_as_picture, open_source

OBJECTS, PREDICATES = "objects.json", "predicates.json"
EXPECTED = "a JSON object with a list of triplets for each picture"
_FILE = re.compile(r"(?:.*_)?annotations(?:_(\w+?))?\.json(?:\.gz)?", re.IGNORECASE)
_SUFFIXES = (".json", ".json.gz")
_FURTHEST = 1e9
"""In pixels: what lies beyond is no place in a picture."""
Box = tuple[float, float, float, float]


class VrdFormat(Format):
    """A file `annotations_test.json`, or a folder with such files."""

    pictures_optional = True
    losses = (
        "boxes that are in no relation, and how often a box is there",
        "scores, flags and attributes of boxes",
        "relations without boxes, and scores of relations",
        "classes of whole images",
        "attributes of images but split (train, val, test)",
        "images of which nothing is said about relations",
        "widths and heights",
        "whose relations are, where they are a machine's",
        "ids of classes and their hierarchy",
    )

    def read(
        self, path: str, problems: Problems, reference: str | None = None
    ) -> Iterator[AnnotatedImage]:
        """See Format: as the pictures stand in the files. It is its own reference."""
        folder, names = _find(path, problems)
        categories = _names(place_in(folder, OBJECTS))
        predicates = _names(place_in(folder, PREDICATES))
        for name in names:
            place = place_in(folder, name)
            match = _FILE.fullmatch(name)
            split = SPLITS.get((match[1] or "").lower()) if match else None
            reading = _Reading(place, split, categories, predicates, problems)
            for key, triplets in Document(place, lists={}, expected=EXPECTED).members():
                if (image := reading.image(key, triplets)) is not None:
                    yield image

    def write(
        self,
        out: Path,
        images: Iterable[AnnotatedImage],
        classes: tuple[str, ...],
        about: About,
    ) -> None:
        """See Format. A file for each split, with the names of objects and predicates beside."""
        make_folder(out)
        writing = _Writing(out, classes)
        with writing.stack:
            for image in images:
                writing.add(image)
            writing.finish()


def _find(path: str, problems: Problems) -> tuple[str, list[str]]:
    """The folder, and the names of the files with triplets.

    Raises: FormatError where there is none; SourceError.
    """
    folder, name = root_and_name(path, _SUFFIXES)
    if name:
        return folder, [name]
    names: list[str] = []
    for one, failure in sorted(names_in(open_source(folder))):
        bare = one.lower().removesuffix(".gz")
        if not failure and bare.endswith(".json"):
            names += [] if bare in (OBJECTS, PREDICATES) else [one]
        elif failure or not (one.startswith(".") or named_as_picture(one)):
            place, found = place_in(folder, one), failure or "another file"
            cure = "it is passed over; take it away"
            problems.add("unknown-file", place, found=found, expected=EXPECTED, cure=cure)
    if not names:
        what = "no annotations are here, expected a file such as annotations_train.json"
        raise FormatError(f"{path}: {what}; check the path")
    return folder, names


def _names(path: str) -> list[str] | None:
    """The names that numbers stand for; None where there is no such file.

    Raises: FormatError where it holds something else; SourceError.
    """
    data = _bytes(path)
    if data is None:
        return None
    try:
        names = json.loads(data) if len(data) <= MAX_TEXT_BYTES else None
    except (ValueError, RecursionError) as error:
        what = f"no JSON ({str(error)[:100]}), expected a list of names"
        raise FormatError(f"{path}: {what}; copy it again") from error
    if not isinstance(names, list) or not all(_is_name(name) for name in names):
        raise FormatError(f"{path}: no list of names, expected one; copy it again")
    if len(set(names)) < len(names):
        raise FormatError(f"{path}: a name comes twice, expected each once; correct it")
    return names


def _bytes(path: str) -> bytes | None:
    for place in (path, f"{path}.gz"):
        try:
            with opened(place) as file:
                return file.read(MAX_TEXT_BYTES + 1)
        except SourceMissingError:
            continue
    return None


def _is_name(value: Json) -> bool:
    return isinstance(value, str) and bool(value.strip()) and is_storable(value)


@dataclass(eq=False)
class _Damage(Exception):
    """Why a triplet can't be used."""

    kind: str
    found: str
    expected: str


@dataclass(frozen=True, slots=True)
class _Reading:
    """One file, and what its numbers stand for."""

    path: str
    split: str | None
    categories: Sequence[str] | None
    predicates: Sequence[str] | None
    problems: Problems

    def image(self, file_name: str, triplets: Json) -> AnnotatedImage | None:
        """What is said of a picture; None where nothing of it can be used."""
        place = f"{self.path} {shown(file_name)}"
        if not file_name.strip() or not is_storable(file_name):
            self._report(place, _Damage("bad-name", "a name that is no text", "a file name"))
            return None
        if not isinstance(triplets, list):
            self._report(place, _Damage("bad-image", shown(str(triplets)), "a list of triplets"))
            return None
        relations: list[Relation] = []
        boxes: dict[tuple[str, Box], None] = {}
        for position, triplet in enumerate(triplets):
            try:
                one, two, predicate = self._triplet(triplet)
            except _Damage as damage:
                self._report(f"{place} relation {position}", damage)
                continue
            boxes |= {one: None, two: None}
            relations.append(Relation(one[0], predicate, two[0], one[1], two[1]))
        if triplets and not relations:
            return None
        return AnnotatedImage(
            file_name=file_name,
            place=place,
            boxes=tuple(Annotation(name, box) for name, box in boxes) or None,
            relations=tuple(relations),
            attributes={"split": self.split} if self.split is not None else {},
        )

    def _triplet(self, triplet: Json) -> tuple[tuple[str, Box], tuple[str, Box], str]:
        if not isinstance(triplet, Mapping):
            expected = "an object with subject, predicate and object"
            raise _Damage("bad-relation", shown(str(triplet)), expected)
        predicate = _name(triplet.get("predicate"), self.predicates, PREDICATES)
        return self._part(triplet, "subject"), self._part(triplet, "object"), predicate

    def _part(self, triplet: Mapping[str, Json], key: str) -> tuple[str, Box]:
        part = triplet.get(key)
        if not isinstance(part, Mapping):
            found = f"{key} {shown(str(part))}"
            raise _Damage("bad-relation", found, "an object with category and bbox")
        return _name(part.get("category"), self.categories, OBJECTS), _box(part.get("bbox"))

    def _report(self, place: str, damage: _Damage) -> None:
        cure = "it is left out; correct it"
        self.problems.add(
            damage.kind, place, found=damage.found, expected=damage.expected, cure=cure
        )


def _name(value: Json, names: Sequence[str] | None, file: str) -> str:
    """A name as it stands, or what a number stands for."""
    if isinstance(value, str) and _is_name(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if names is not None and 0 <= value < len(names):
            return names[value]
        there = f"a number below {len(names)}" if names is not None else "that file beside it"
        raise _Damage("unknown-class", f"the number {str(value)[:60]} of {file}", there)
    raise _Damage("bad-relation", shown(str(value)), f"a name, or a number of {file}")


def _box(value: Json) -> Box:
    """ymin, ymax, xmin, xmax in pixels from 1 on, the last one inside -> corners from 0 on."""
    what = "ymin, ymax, xmin, xmax in pixels, each not after the next"
    if not isinstance(value, list) or len(value) != 4:
        raise _Damage("bad-box", f"bbox {shown(str(value))}", what)
    numbers: list[float] = []
    for one in value:
        # A whole number may be too large to be compared with as a float.
        if isinstance(one, bool) or not isinstance(one, int | float):
            raise _Damage("bad-box", f"bbox {shown(str(value))}", what)
        if not -_FURTHEST <= one <= _FURTHEST:
            raise _Damage("bad-box", f"bbox {shown(str(value))}", what)
        numbers.append(float(one))
    y0, y1, x0, x1 = numbers[0] - 1, numbers[1], numbers[2] - 1, numbers[3]
    if x0 >= x1 or y0 >= y1:
        raise _Damage("bad-box", f"bbox {shown(str(value))}", what)
    return x0, y0, x1, y1


class _Writing:
    """The files of a folder as they are written, triplet by triplet."""

    def __init__(self, out: Path, classes: Sequence[str]) -> None:
        self.stack = ExitStack()
        self._out = out
        self._categories = {name: number for number, name in enumerate(classes)}
        self._predicates: dict[str, int] = {}
        self._files: dict[str, TextIO] = {}

    def add(self, image: AnnotatedImage) -> None:
        """Writes what is said of an image.

        Raises: FormatError.
        """
        relations = image.relations
        if relations is None:
            return
        drawn = [
            (one, one.subject_xyxy, one.object_xyxy)
            for one in relations
            if one.subject_xyxy is not None and one.object_xyxy is not None
        ]
        if relations and not drawn:
            return  # An empty list would say that there are none.
        split = SPLITS.get(str(image.attributes.get("split")), "")
        name = f"annotations_{split}.json" if split else "annotations.json"
        is_first = name not in self._files
        if is_first:
            self._files[name] = self.stack.enter_context(created(self._out / name))
        triplets = [self._triplet(image, *one) for one in drawn]
        start = "{" if is_first else ","
        self._files[name].write(f"{start}\n{json.dumps(image.file_name)}: {json.dumps(triplets)}")

    def finish(self) -> None:
        """Closes the files, and writes what the numbers stand for."""
        if not self._files:
            self._files["annotations.json"] = self.stack.enter_context(
                created(self._out / "annotations.json")
            )
            self._files["annotations.json"].write("{")
        for file in self._files.values():
            file.write("\n}\n")
        for name, values in ((OBJECTS, self._categories), (PREDICATES, self._predicates)):
            file = self.stack.enter_context(created(self._out / name))
            json.dump(list(values), file)

    def _triplet(
        self, image: AnnotatedImage, relation: Relation, one: Box, two: Box
    ) -> dict[str, Json]:
        number = self._predicates.setdefault(relation.predicate, len(self._predicates))
        return {
            "predicate": number,
            "subject": self._part(image, relation.subject, one),
            "object": self._part(image, relation.object, two),
        }

    def _part(self, image: AnnotatedImage, name: str, box: Box) -> dict[str, Json]:
        return {"category": self._categories[name], "bbox": _bbox(image, box)}


def _bbox(image: AnnotatedImage, box: Box) -> list[Json]:
    """Corners as the file has them, in whole pixels where they are.

    Raises: FormatError where they are fractions of a picture whose size is unknown.
    """
    x0, y0, x1, y1 = box
    if image.relative:
        if not image.width or not image.height:
            what = "no width and height, expected them"
            raise FormatError(f"{image.place}: {what}; index the picture first")
        x0, x1, y0, y1 = x0 * image.width, x1 * image.width, y0 * image.height, y1 * image.height
    return [int(one) if float(one).is_integer() else float(one) for one in (y0 + 1, y1, x0 + 1, x1)]
