"""What can be wrong with a row of Open Images, in words: the same however it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vistadex.formats.contract import Problems
from vistadex.formats.csv_rows import LEFT_OUT
from vistadex.formats.folders import shown
from vistadex.formats.open_images_layout import IMAGE_ID, file_name_of


@dataclass(eq=False)
class Damage(Exception):
    """Why a row, or a part of it, can't be used."""

    kind: str
    found: str
    expected: str
    cure: str = LEFT_OUT

    def report(self, problems: Problems, place: str) -> None:
        """Notes it as a problem."""
        problems.add(self.kind, place, found=self.found, expected=self.expected, cure=self.cure)


def no_image_id() -> Damage:
    """A row that says of no image what it says."""
    return Damage("bad-row", f"no {IMAGE_ID}", "the id of an image")


def unknown_image(file_name: str) -> Damage:
    """An image that no list names, by its picture's name."""
    cure = "the row is left out; add the image to its list"
    found, expected = f"the image {shown(file_name)}", "an image of the lists of images"
    return Damage("unknown-image", found, expected, cure)


def unknown_image_id(image_id: str) -> Damage:
    """The same by its id."""
    return unknown_image(file_name_of(image_id)) if image_id.strip() else no_image_id()


def unknown_class(column: str, mid: str) -> Damage:
    """An id that no class description has."""
    cure = "the row is left out; correct it or describe the class"
    return Damage("unknown-class", f"{column} {shown(mid)}", "a described class", cure)


def bad_score(score: float) -> Damage:
    """A confidence that is none."""
    return Damage("bad-row", f"Confidence {score:g}", "a number from 0 to 1")


def bad_flag(column: str, text: str) -> Damage:
    """A flag that is neither yes, no nor unknown."""
    return Damage("bad-row", f"{column} {shown(text)}", "1, 0 or -1 for unknown")


def bad_corners(box: Sequence[float]) -> Damage:
    """Corners that are no numbers, or some of which are missing."""
    return Damage("bad-row", _at(box), "four numbers from 0 to 1")


def no_area(box: Sequence[float]) -> Damage:
    """A box of which nothing is in the picture."""
    return Damage("outside", _at(box), "XMin < XMax and YMin < YMax within 0 to 1")


def cut_off(box: Sequence[float]) -> Damage:
    """A box that goes on beyond the picture."""
    return Damage("cut-off", _at(box), "a box within 0 to 1", "it is cut off there; correct it")


def no_predicate() -> Damage:
    """A relationship that does not say which."""
    return Damage("bad-row", "no RelationshipLabel", "the name of a relation")


def several_scores(class_name: str, scores: Sequence[float]) -> Damage:
    """Confidences of one class in one image that differ."""
    found = f"Confidence {' and '.join(f'{one:g}' for one in sorted(scores))} of {class_name!r}"
    cure = "the highest is used; correct the others"
    return Damage("contradiction", found, "the same in all rows", cure)


def several_values(name: str, value: object, before: object) -> Damage:
    """An attribute of an image of which lists say different things."""
    found = f"{name} {shown(str(value))}, and {shown(str(before))} before"
    cure = "the first stays; correct the other"
    return Damage("contradiction", found, "the same in all lists", cure)


def _at(box: Sequence[float]) -> str:
    return f"a box at {', '.join(f'{one:g}' for one in box)}"
