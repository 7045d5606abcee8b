"""The model that a name or a path means, whatever its task."""

from __future__ import annotations

from pathlib import Path

from vistadex.errors import ModelError
from vistadex.models import ModelFile, ModelStore, resolve
from vistadex.models.cards import SUFFIXES
from vistadex.records import TASKS


def find_file(reference: str, store: ModelStore) -> ModelFile:
    """The stored model of that name, or the file at that path with the card that is known for it.

    Raises: NotFoundError if there is none; ModelQuestionError if the file does not say how to use
        it; ModelError if it is no model.
    """
    path = Path(reference)
    if path.suffix.lower() not in SUFFIXES and len(path.parts) == 1:
        return store.get(reference)
    for task in TASKS:
        try:
            return resolve(reference, task=task, store=store)
        except ModelError as error:
            if not str(error).endswith(f"expected a {task}"):
                raise
    raise ModelError(f"{reference}: of no task that is known here")
