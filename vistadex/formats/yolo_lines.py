"""The lines of YOLO's label files: a class and a box, a polygon or keypoints, as fractions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vistadex.formats.contract import Problems
from vistadex.formats.folders import number, shown
from vistadex.records import Annotation

TOLERANCE = 1e-4
"""A number may be so far outside of 0 to 1, from rounding; it counts as 0 or 1."""


@dataclass(frozen=True, slots=True)
class _Damage:
    """Why a line can't be used."""

    found: str
    expected: str
    kind: str = "bad-line"


@dataclass(frozen=True, slots=True)
class LineReader:
    """Reads label files of one data set."""

    names: Mapping[int, str]
    keypoint_values: int | None
    problems: Problems

    def boxes(self, place: str, data: bytes) -> tuple[Annotation, ...] | None:
        """Every box of a label file; None where it has lines and none could be used."""
        boxes: list[Annotation] = []
        damaged = False
        for at, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
            if not line.strip():
                continue
            box = self._box(line.decode("ascii", "backslashreplace"))
            if isinstance(box, Annotation):
                boxes.append(box)
                continue
            damaged = True
            where, cure = f"{place} line {at}", "the line is left out; correct it"
            self.problems.add(box.kind, where, found=box.found, expected=box.expected, cure=cure)
        return tuple(boxes) if boxes or not damaged else None

    def _box(self, line: str) -> Annotation | _Damage:
        fields = line.split()
        expected = self._expected(len(fields))
        if expected is not None:
            return _Damage(f"{len(fields)} fields in {shown(line)}", expected)
        values = [value for field in fields if (value := number(field)) is not None]
        if len(values) < len(fields):
            wrong = next(field for field in fields if number(field) is None)
            return _Damage(f"{shown(wrong)} in {shown(line)}", "numbers")
        class_id, *rest = values
        if class_id not in self.names:
            known = f"the number of one of the {len(self.names)} names"
            return _Damage(f"the class {fields[0][:60]}", known, "unknown-class")
        if self.keypoint_values is not None:
            rest = rest[:4]
        outside = [one for one in rest if not -TOLERANCE <= one <= 1 + TOLERANCE]
        if outside:
            found = f"{outside[0]:g} in {shown(line)}"
            return _Damage(found, "fractions of the picture's sides, 0 to 1", "bad-box")
        return self._annotation(line, self.names[int(class_id)], rest)

    def _expected(self, fields: int) -> str | None:
        """How many fields a line should have had; None where it has as many."""
        if self.keypoint_values is not None:
            wanted = 5 + self.keypoint_values
            good = fields == wanted
            return None if good else f"{wanted} (class cx cy w h and the keypoints of kpt_shape)"
        good = fields in (5, 6) or (fields >= 7 and fields % 2 == 1)
        return None if good else "5 (class cx cy w h), 6 (with a score) or a polygon (class x y …)"

    def _annotation(self, line: str, name: str, values: list[float]) -> Annotation | _Damage:
        values = [min(1.0, max(0.0, one)) for one in values]
        score, loss = 1.0, "keypoints" if self.keypoint_values is not None else ""
        if len(values) <= 5:
            cx, cy, width, height, *scores = values
            score = scores[0] if scores else score
            x0, y0, x1, y1 = cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
        else:
            loss = "polygons: kept as their boxes"
            x0, x1 = min(values[::2]), max(values[::2])
            y0, y1 = min(values[1::2]), max(values[1::2])
        if x0 >= x1 or y0 >= y1:
            return _Damage(shown(line), "a width and height above 0", "bad-box")
        if loss:
            self.problems.lose(loss)
        return Annotation(name, (x0, y0, x1, y1), score)
