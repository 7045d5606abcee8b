"""Rows of Open Images' files: what each says, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from vistadex.formats import open_images_damage as wrong
from vistadex.formats.contract import Problems
from vistadex.formats.csv_rows import (
    Type,
    csv_rows,
    fields_expected,
    misread,
    need_columns,
    value_of,
)
from vistadex.formats.open_images_classes import OpenImagesClasses
from vistadex.formats.open_images_damage import Damage
from vistadex.formats.open_images_layout import (
    CONFIDENCE,
    CORNERS,
    FLAG_COLUMNS,
    IMAGE_ID,
    LABEL_SOURCES,
    MACHINE,
    NOTHING,
    REQUIRED,
    SAME,
    SOURCE,
    VALUES,
    Part,
    attribute_columns,
    attribute_of,
    attribute_value,
    file_name_of,
    named,
)
from vistadex.records import Json

Box: TypeAlias = tuple[float, float, float, float]


class Label(NamedTuple):
    """A class of a whole image."""

    class_name: str
    score: float
    origin: str


class BoxRow(NamedTuple):
    """A box in fractions of the picture's sides."""

    class_name: str
    score: float
    box_xyxy: Box
    flags: dict[str, bool]
    source: str


class RelationRow(NamedTuple):
    """A triplet with the boxes of both, where they are drawn."""

    subject: str
    predicate: str
    object: str
    subject_xyxy: Box | None
    object_xyxy: Box | None


Kind: TypeAlias = Literal["image", "label", "box", "relation"]
Fields: TypeAlias = Mapping[str, str]
"""Values of a row by column."""
Value: TypeAlias = dict[str, Json] | Label | BoxRow | RelationRow
Cuts: TypeAlias = list[Damage]
"""Gets the boxes of a row that are cut off at the picture's border."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a row says of an image."""

    file_name: str
    line: int
    kind: Kind
    value: Value


class OpenImagesRows:
    """Reads the files of a set; rows that can't be used become problems."""

    def __init__(self, classes: OpenImagesClasses, problems: Problems) -> None:
        self.classes, self.problems = classes, problems

    def images(self, path: str, split: str) -> Iterator[Row]:
        """The images of a list with what it says of them."""
        columns: list[str] | None = None
        for line, fields in self._table(path, "images"):
            if columns is None:
                columns = attribute_columns(path, list(fields), split=split)
            attributes: dict[str, Json] = {"split": split} if split else {}
            for column in columns:
                if text := fields[column]:
                    attributes[attribute_of(column)] = attribute_value(column, text)
            yield Row(file_name_of(fields[IMAGE_ID]), line, "image", attributes)

    def labels(self, path: str, origin: str | None) -> Iterator[Row]:
        """Classes of whole images.

        Args:
            origin: HUMAN or MACHINE; None where the column Source says it.
        """
        return self._rows(path, "labels", "label", lambda fields, _: self._label(fields, origin))

    def boxes(self, path: str) -> Iterator[Row]:
        """Boxes with their flags."""
        return self._rows(path, "boxes", "box", self._box)

    def relations(self, path: str) -> Iterator[Row]:
        """Visual relationships."""
        return self._rows(path, "relations", "relation", self._relation)

    def _rows(
        self, path: str, part: Part, kind: Kind, parse: Callable[[Fields, Cuts], Value]
    ) -> Iterator[Row]:
        for line, fields in self._table(path, part):
            place, cuts = f"{path} line {line}", list[Damage]()
            try:
                value = parse(fields, cuts)
            except Damage as damage:
                damage.report(self.problems, place)
                continue
            for cut in cuts:
                cut.report(self.problems, place)
            yield Row(file_name_of(fields[IMAGE_ID]), line, kind, value)

    def _table(self, path: str, part: Part) -> Iterator[tuple[int, dict[str, str]]]:
        """Rows as values by column, each with an id.

        Raises: FormatError where the first row does not name the columns that are needed.
        """
        rows = csv_rows(path)
        first = next(rows, None)
        names = named(first.fields) if first is not None else []
        need_columns(path, names, REQUIRED[part])
        kinds = {name: kind for name, kind in VALUES.get(part, {}).items() if name in names}
        unknown = [name for name in names if kinds and name not in kinds]
        for row in rows:
            fields = dict(zip(names, row.fields, strict=False))
            if damage := _damage(row.wrong, row.fields, names, kinds):
                damage.report(self.problems, f"{path} line {row.line}")
                continue
            for name in unknown:
                if fields[name] not in NOTHING:
                    self.problems.lose(f"the column {name}")
            if part == "labels" and fields.get(SOURCE, "") not in ("", *LABEL_SOURCES.values()):
                self.problems.lose("how a label was made (Source)")
            if fields[IMAGE_ID].strip():
                yield row.line, fields
            else:
                wrong.no_image_id().report(self.problems, f"{path} line {row.line}")

    def _label(self, fields: Fields, origin: str | None) -> Label:
        name, score = self._class(fields, "LabelName"), _score(fields)
        if origin is None:
            origin = MACHINE if fields.get(SOURCE) == MACHINE else ""
        return Label(name, score, MACHINE if origin == MACHINE else "")

    def _box(self, fields: Fields, cuts: Cuts) -> BoxRow:
        name, score = self._class(fields, "LabelName"), _score(fields)
        flags = _flags(fields)
        return BoxRow(name, score, _inside(_corners(fields), cuts), flags, fields.get(SOURCE, ""))

    def _relation(self, fields: Fields, cuts: Cuts) -> RelationRow:
        subject = self._class(fields, "LabelName1")
        object_ = self._class(fields, "LabelName2")
        predicate = fields["RelationshipLabel"]
        if not predicate.strip():
            raise wrong.no_predicate()
        first, second = (
            None if all(map(math.isnan, box)) else _inside(box, cuts)
            for box in (_corners(fields, "1"), _corners(fields, "2"))
        )
        return RelationRow(subject, predicate, object_, first, second)

    def _class(self, fields: Fields, column: str) -> str:
        """Raises: Damage for an id that no description names."""
        name = self.classes.name_of(fields[column])
        if name is None or not name.strip():
            raise wrong.unknown_class(column, fields[column])
        return name


def _damage(
    why: str, values: list[str], names: list[str], kinds: Mapping[str, Type]
) -> Damage | None:
    """Why a row can't be used, whatever it says."""
    if not why and len(values) != len(names):
        why = f"{len(values)} fields"
    if why:
        return Damage("bad-row", why, fields_expected(names))
    found = misread(kinds, dict(zip(names, values, strict=True)))
    return None if found is None else Damage("bad-row", *found)


def _corners(fields: Fields, suffix: str = "") -> Box:
    """As they are stated; NaN for one that is not."""
    x0, y0, x1, y1 = (
        float(value_of("number", fields.get(f"{corner}{suffix}", ""))) for corner in CORNERS
    )
    return x0, y0, x1, y1


def _inside(stated: Box, cuts: Cuts) -> Box:
    """The box, cut off at the picture's border.

    Raises: Damage for one that has no area there.
    """
    if not all(map(math.isfinite, stated)):
        raise wrong.bad_corners(stated)
    x0, y0, x1, y1 = cut = [min(max(one, 0.0), 1.0) for one in stated]
    if x0 >= x1 or y0 >= y1:
        raise wrong.no_area(stated)
    if any(abs(one - other) > SAME for one, other in zip(stated, cut, strict=True)):
        cuts.append(wrong.cut_off(stated))
    return x0, y0, x1, y1


def _score(fields: Fields) -> float:
    """The confidence; 1 where the file has no column for it."""
    score = float(value_of("number", fields.get(CONFIDENCE, "1")))
    if not 0 <= score <= 1:
        raise wrong.bad_score(score)
    return score


def _flags(fields: Fields) -> dict[str, bool]:
    flags: dict[str, bool] = {}
    for column, name in FLAG_COLUMNS.items():
        value = value_of("flag", fields.get(column, "-1"))
        if value not in (-1, 0, 1):
            raise wrong.bad_flag(column, fields[column].strip())
        if value != -1:
            flags[name] = value == 1
    return flags
