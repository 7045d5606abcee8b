"""The part of a model's card that says how it was judged: confusion of classes, and quantization.

    "evaluation": {
      "data": "COCO val2017, 5,000 images",
      "confusion": {"classes": ["cat", "dog"], "counts": [[90, 10], [4, 96]]},
      "quantization": {"mAP": [0.412, 0.409], "size_bytes": [3657984, 1024512]}
    }

All of it is optional. counts: a row for each class that it is, a column for each that the model
says; quantization: what is measured, before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, cast

from vistadex.errors import ModelError

PARTS = ("data", "confusion", "quantization")
MOST_CLASSES = 2000


def checked(values: object) -> dict[str, Any]:
    """The evaluation of a card.

    Raises: ModelError that names the field.
    """
    known = _object(values, "evaluation")
    for name in known:
        _need(name in PARTS, name, f"one of {', '.join(PARTS)} in evaluation")
    if "data" in known:
        _need(isinstance(known["data"], str), "evaluation.data", "a text")
    if "confusion" in known:
        known["confusion"] = _confusion(known["confusion"])
    if "quantization" in known:
        known["quantization"] = _quantization(known["quantization"])
    return known


def _confusion(values: object) -> dict[str, Any]:
    place = "evaluation.confusion"
    known = _object(values, place)
    _need(set(known) == {"classes", "counts"}, place, "classes and counts")
    classes, rows = known["classes"], known["counts"]
    named = isinstance(classes, list) and all(isinstance(one, str) for one in classes)
    _need(named and 0 < len(classes) <= MOST_CLASSES, f"{place}.classes", "a list of names")
    square = isinstance(rows, list) and len(rows) == len(classes)
    square = square and all(isinstance(row, list) and len(row) == len(classes) for row in rows)
    _need(square, f"{place}.counts", "as many rows and columns as classes")
    whole = all(type(one) is int and 0 <= one < 2**53 for row in rows for one in row)
    _need(whole, f"{place}.counts", "whole numbers from 0")
    return known


def _quantization(values: object) -> dict[str, Any]:
    known = _object(values, "evaluation.quantization")
    for name, pair in known.items():
        holds = isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))
        _need(holds, f"evaluation.quantization.{name}", "two numbers: before and after")
    return known


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _object(values: object, name: str) -> dict[str, Any]:
    _need(isinstance(values, Mapping), name, "an object")
    return dict(cast("Mapping[str, Any]", values))


def _need(holds: bool, name: str, expected: str) -> None:
    if not holds:
        raise ModelError(f"{name}: expected {expected}")
