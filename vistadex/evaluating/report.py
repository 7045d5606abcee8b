"""The report of an evaluation: one HTML page without scripts, pictures beside it, and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vistadex.drawing import hue
from vistadex.errors import UsageError
from vistadex.evaluating.pictures import worst, write_pair
from vistadex.evaluating.results import Curve, Evaluation

WORST = 24
"""Pictures in a report."""
_MATRIX = 30
"""Classes of a confusion matrix that is shown whole; of larger ones the largest mistakes."""
_MISTAKES = 30
_CURVES = 20
"""Curves of classes that are drawn, those with most truth."""
_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_report(done: Evaluation, folder: Path) -> Path:
    """Writes report.html, evaluation.json and pictures/ into a folder, which is made.

    Raises: UsageError where it can't be written.
    """
    page = folder / "report.html"
    try:
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        (folder / "evaluation.json").write_text(done.to_json(), encoding="utf-8")
        text = _templates.get_template("report.html").render(
            done=done,
            images=_pictures(done, folder),
            mistakes=_mistakes(done),
            matrix=len(done.confusion) <= _MATRIX,
            curves=_polylines(done),
        )
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        what = f"{folder}: {error.strerror or error}, expected a folder to write into"
        raise UsageError(f"{what}; give another with --out") from error
    return page


def _pictures(done: Evaluation, folder: Path) -> list[dict[str, Any]]:
    rows = []
    for place, one in enumerate(worst(done, WORST), 1):
        name = f"pictures/{place:03}.jpg"
        if write_pair(done, one.image, folder / name):
            image = done.pictures.images[one.image]
            rows.append({"file": name, "name": image.key, "words": one.words})
    return rows


def _mistakes(done: Evaluation) -> list[dict[str, Any]]:
    """The most frequent mistakes, with their share of what the thing is."""
    counts = np.array(done.confusion, np.int64)
    names, wrong = done.confusion_classes, counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
    pairs = [divmod(int(at), counts.shape[1]) for at in order if wrong.flat[at]]
    return [{"true": names[i], "said": names[j], "number": int(counts[i, j])} for i, j in pairs]


def _polylines(done: Evaluation) -> list[dict[str, Any]]:
    """Curves as points of an SVG of 100 by 100, recall to the right and precision up."""
    truth = {one.name: one.truth for one in done.per_class}
    chosen = sorted(done.curves, key=lambda one: -truth.get(one.name, 1 << 60))[: _CURVES + 1]
    return [
        {
            "name": one.name,
            "hue": hue(one.name),
            "mean": one.name not in truth,
            "points": _points(one),
        }
        for one in reversed(chosen)
    ]


def _points(curve: Curve) -> str:
    pairs: Sequence[tuple[float, float]] = list(
        zip(curve.recall.tolist(), curve.precision.tolist(), strict=True)
    )
    return " ".join(f"{100 * r:.2f},{100 - 100 * p:.2f}" for r, p in pairs)
