"""From what a user writes to a model file: a stored name, a hash, a path, or nothing at all."""

from __future__ import annotations

from pathlib import Path

from vistadex.errors import ModelError
from vistadex.models.cards import SUFFIXES, ModelFile, file_sha256
from vistadex.models.recognition import complete
from vistadex.models.store import ModelStore, describe
from vistadex.records import Task


def resolve(reference: str, *, task: Task, store: ModelStore) -> ModelFile:
    """The model that a name, a hash prefix or a path of a model file means.

    A file is used where it lies, with the card that is known for it.

    Raises: NotFoundError if there is no such file or name; ModelQuestionError if the file does
        not say how to use it; ModelError if it is no model or one of another task.
    """
    path = Path(reference)
    if path.suffix.lower() in SUFFIXES or len(path.parts) > 1:
        sha256 = file_sha256(path)
        card = complete(path, describe(path, sha256, store))
        file = ModelFile(path.absolute(), sha256, card)
    else:
        file = store.get(reference)
    if file.card.task != task:
        raise ModelError(f"{reference}: is a {file.card.task}, expected a {task}")
    return file


def default(task: Task, store: ModelStore) -> ModelFile:
    """The only stored model of that task.

    Raises: ModelError if there is none or more than one.
    """
    files = [file for file in store.list() if file.card.task == task]
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(file.card.name for file in files)
        raise ModelError(f"{store.folder}: {len(files)} {task}s, say which one: {names}")
    raise ModelError(f"{store.folder}: no {task}; add one with vistadex models add FILE.onnx")
