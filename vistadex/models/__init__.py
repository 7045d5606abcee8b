"""Models: files and their cards, the store they are kept in, and what runs them on pictures.

from vistadex import models
store = models.store.ModelStore(folder)
file = models.resolve("yolox_nano", task="detector", store=store)
detector = models.analyzer(file, min_score=0.3).load()
"""

from __future__ import annotations

from vistadex.models import store
from vistadex.models.analyzers import ModelAnalyzer, RunOptions, analyzer
from vistadex.models.cards import ModelCard, ModelFile, Preprocessing
from vistadex.models.references import default, resolve
from vistadex.models.store import ModelStore

__all__ = [
    "ModelAnalyzer",
    "ModelCard",
    "ModelFile",
    "ModelStore",
    "Preprocessing",
    "RunOptions",
    "analyzer",
    "default",
    "resolve",
    "store",
]
