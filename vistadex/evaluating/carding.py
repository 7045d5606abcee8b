"""The result of an evaluation in the model's card, where the models page shows it."""

from __future__ import annotations

import os
from dataclasses import replace
from math import isfinite
from pathlib import Path
from tempfile import NamedTemporaryFile

from vistadex import settings
from vistadex.errors import ModelError
from vistadex.evaluating.finding import find_file
from vistadex.evaluating.results import Evaluation
from vistadex.models import ModelFile, ModelStore
from vistadex.models.evaluations import MOST_CLASSES


def write_card_of(done: Evaluation, model: str, models: Path | None) -> Path:
    """As write_card, for a model as evaluate() takes it."""
    store = ModelStore(Path(settings.value("models", None if models is None else str(models), str)))
    return write_card(done, find_file(model, store), store.folder)


def write_card(done: Evaluation, file: ModelFile, store_folder: Path) -> Path:
    """Writes measures and confusion into the card of a model, and leaves the rest of it.

    The card is that of the store, or `<file>.json` beside a file that is not in it.

    Returns: the card's file.
    Raises: ModelError where it can't be written.
    """
    known = {name: value for name, value in done.metrics.items() if isfinite(value) and value >= 0}
    evaluation = {**file.card.evaluation, "data": f"{done.data}, {done.images:,} images"}
    evaluation.pop("confusion", None)
    if len(done.confusion_classes) <= MOST_CLASSES:
        rows = [list(row) for row in done.confusion]
        evaluation["confusion"] = {"classes": list(done.confusion_classes), "counts": rows}
    card = replace(file.card, metrics=known, evaluation=evaluation)
    stored = file.path.parent.resolve() == store_folder.resolve()
    path = file.path.with_suffix(".json") if stored else Path(f"{file.path}.json")
    try:
        with NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as part:
            part.write(card.to_json())
        Path(part.name).chmod(0o644)
        os.replace(part.name, path)
    except OSError as error:
        what = f"{path}: {error.strerror}, expected to write the card"
        raise ModelError(f"{what}; add the model to the store first") from error
    return path
