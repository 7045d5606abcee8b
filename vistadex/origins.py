"""Whose annotations these are, as an analyzer that has looked at images already."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from vistadex.catalog import reading
from vistadex.errors import UsageError
from vistadex.records import Json, Model, Task


@dataclass(frozen=True, slots=True)
class AnnotationOrigin:
    """Those who annotated, for one task; see records.Analyzer."""

    name: str
    task: Task
    classes: tuple[str, ...]
    card: Mapping[str, Json]
    parameters: Mapping[str, Json] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Identity; told from that of a file by its beginning."""
        return origin_id(self.name, self.task)

    def load(self) -> Model:
        """Raises UsageError: people can't be called."""
        raise UsageError(f"{self.name}: is an origin of annotations, expected a model to run")


def origin_id(name: str, task: Task) -> str:
    """What stands in the catalog in place of a file's SHA-256."""
    digest = hashlib.sha256(f"{task}/{name}".encode()).hexdigest()
    return reading.ANNOTATIONS + digest[: 64 - len(reading.ANNOTATIONS)]


def origin_name(model: str, origin: str) -> str:
    """The name of an origin that a file tells apart, beside the name that the user gives."""
    if not origin:
        return model
    return origin if model == "human" else f"{model} ({origin})"
