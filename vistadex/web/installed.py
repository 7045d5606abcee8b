"""Installed models: their cards, how they were judged, and what they have seen of this catalog."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path as PathParameter
from typing_extensions import TypedDict

from vistadex import settings
from vistadex.catalog import Stats
from vistadex.errors import NotFoundError
from vistadex.models.cards import ModelFile
from vistadex.web.api import TheCatalog
from vistadex.web.runs import installed


class InstalledModel(TypedDict):
    """A model of the store."""

    name: str
    sha256: str
    task: str
    size_bytes: int
    images: int
    """Of this catalog that it has seen, with whatever parameters."""
    card: dict[str, Any]
    """As `vistadex models show --json` prints it."""


class InstalledModels(TypedDict):
    """The models of the store, by name."""

    models: list[InstalledModel]
    default_detector: str
    """The setting `detector`; empty where none is set."""


ModelName = Annotated[str, PathParameter(max_length=255, description="the model's name")]


def models(catalog: TheCatalog) -> InstalledModels:
    """Installed models, and on how many images of the catalog each has been run."""
    stats = catalog.stats()
    return {
        "models": [_as_json(one, stats) for one in installed()],
        "default_detector": settings.value("detector", None, str),
    }


def model(catalog: TheCatalog, name: ModelName) -> InstalledModel:
    """One installed model."""
    found = next((one for one in installed() if one.card.name == name), None)
    if found is None:
        raise NotFoundError(f"model {name!r}: not installed; /models lists what is")
    return _as_json(found, catalog.stats())


def _as_json(one: ModelFile, stats: Stats) -> InstalledModel:
    seen = [known.images for known in stats.models if known.sha256 == one.sha256]
    return {
        "name": one.card.name,
        "sha256": one.sha256,
        "task": one.card.task,
        "size_bytes": one.path.stat().st_size,
        "images": max(seen, default=0),
        "card": one.card.to_dict(),
    }
