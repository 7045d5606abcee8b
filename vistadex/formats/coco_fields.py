"""What COCO's objects say, field by field: ids, categories, boxes, scores."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeAlias

from vistadex.records import Json

Fields: TypeAlias = dict[str, Json]
Box: TypeAlias = tuple[float, float, float, float]

LARGEST_PIXEL = 1e9
"""Farther off there is no picture, and floating point loses the decimals of boxes."""


@dataclass(eq=False)
class Damage(Exception):
    """Why an object can't be used."""

    kind: str
    found: str
    expected: str
    cure: str


class Categories:
    """The classes of a COCO file by their ids."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        """The number of each class by name; of several the first."""
        self.extras: dict[str, Json] = {}
        """What else the file says of a class, by name: its supercategory."""
        self.merged = 0
        """How many ids are of a name that has another before."""
        self._names: dict[str, str | None] = {}

    def add(self, value: Json) -> None:
        """Takes an item of the list.

        Raises: Damage.
        """
        fields = object_fields(value)
        key, name = id_key(fields.get("id")), fields.get("name")
        if key is None or not isinstance(name, str) or not name:
            what = "a category without " + ("an id" if key is None else "a name")
            raise Damage("missing-field", what, "id and name", "add them")
        if self._names.get(key, name) != name:
            what = f"the category id {key} for {name!r}, which has another name before"
            self._names[key] = None  # Which of the two a box means can't be told.
            raise Damage("repeated-id", what, "one name for each", "number them anew")
        self._names[key] = name
        number = whole_number(fields.pop("id"))
        del fields["name"]
        if number is not None and self.ids.setdefault(name, number) != number:
            self.merged += 1
        if fields:
            self.extras.setdefault(name, fields)

    def name(self, category_id: Json) -> str:
        """The class of an annotation.

        Raises: Damage.
        """
        name = self._names.get(id_key(category_id) or "")
        if name is None:
            what = f"category_id {shown(category_id)}"
            cure = "add the category, or correct the id"
            raise Damage("unknown-category", what, "the id of one category", cure)
        return name


def id_key(value: Json) -> str | None:
    """An id as the text by which it is compared: 7 and 7.0 are the same, "7" is another."""
    number = whole_number(value)
    if number is not None:
        return str(number)
    return json.dumps(value) if isinstance(value, str) else None


def whole_number(value: Json) -> int | None:
    """7 and 7.0 are; true is not."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


def object_fields(value: Json) -> Fields:
    """The item of a list as the object it should be.

    Raises: Damage.
    """
    if not isinstance(value, dict):
        raise Damage("bad-object", shown(value), "an object in braces", "correct or delete it")
    return value


def box_corners(value: Json) -> Box:
    """x0, y0, x1, y1 of COCO's x, y, width, height.

    Raises: Damage.
    """
    if value is None:
        cure = "add it, or delete the annotation; it is not derived from a mask"
        raise Damage("missing-field", "no bbox", "bbox [x, y, width, height]", cure)
    numbers = [number_of(one) for one in value] if isinstance(value, list) else []
    if len(numbers) != 4 or None in numbers:
        expected = "4 numbers (x, y, width, height)"
        raise Damage("bad-box", f"bbox {shown(value)}", expected, "correct it")
    x, y, width, height = (number or 0.0 for number in numbers)
    corners = x, y, x + width, y + height
    if x < corners[2] and y < corners[3] and max(map(abs, corners)) <= LARGEST_PIXEL:
        return corners
    expected = "width and height above 0, and numbers of a picture's size"
    raise Damage("bad-box", f"bbox {shown(value)}", expected, "correct or delete it")


def score_of(value: Json) -> float:
    """A score in [0, 1].

    Raises: Damage.
    """
    if value is None:
        cure = "add it; for annotations by people use the format coco"
        raise Damage("missing-field", "no score", "score from 0 to 1", cure)
    score = number_of(value)
    if score is None or not 0 <= score <= 1:
        cure = "scale it; a logit is no score"
        raise Damage("bad-score", f"score {shown(value)}", "a number from 0 to 1", cure)
    return score


def number_of(value: Json) -> float | None:
    """None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def shown(value: Json) -> str:
    """A value as a message shows it: as JSON, not too long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
