"""Vistadex: index a folder or bucket of photographs and search it by what is in them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistadex.catalog import Catalog, SimilarPage
    from vistadex.comparing import Comparison, compare
    from vistadex.converting import ExportedModel, export_model
    from vistadex.copying import CopySummary, copy
    from vistadex.datasets import DatasetSummary, build_dataset
    from vistadex.errors import VistadexError
    from vistadex.evaluating import Evaluation, evaluate
    from vistadex.exporting import ExportSummary, export_annotations
    from vistadex.finding_duplicates import Duplicates, find_duplicates
    from vistadex.finding_similar import find_similar
    from vistadex.importing import ImportSummary, import_annotations
    from vistadex.indexing import Summary, index
    from vistadex.quantizing import Quantization, quantize
    from vistadex.relating import RelateSummary, relate
    from vistadex.training import TrainSummary, train_detector

__version__ = "0.1.0"

_HOMES = {
    "Catalog": "vistadex.catalog",
    "Comparison": "vistadex.comparing",
    "CopySummary": "vistadex.copying",
    "DatasetSummary": "vistadex.datasets",
    "Duplicates": "vistadex.finding_duplicates",
    "Evaluation": "vistadex.evaluating",
    "ExportSummary": "vistadex.exporting",
    "ExportedModel": "vistadex.converting",
    "ImportSummary": "vistadex.importing",
    "Quantization": "vistadex.quantizing",
    "RelateSummary": "vistadex.relating",
    "SimilarPage": "vistadex.catalog",
    "Summary": "vistadex.indexing",
    "TrainSummary": "vistadex.training",
    "VistadexError": "vistadex.errors",
    "build_dataset": "vistadex.datasets",
    "compare": "vistadex.comparing",
    "copy": "vistadex.copying",
    "evaluate": "vistadex.evaluating",
    "export_annotations": "vistadex.exporting",
    "export_model": "vistadex.converting",
    "find_duplicates": "vistadex.finding_duplicates",
    "find_similar": "vistadex.finding_similar",
    "import_annotations": "vistadex.importing",
    "index": "vistadex.indexing",
    "quantize": "vistadex.quantizing",
    "relate": "vistadex.relating",
    "train_detector": "vistadex.training",
}

__all__ = [
    "Catalog",
    "Comparison",
    "CopySummary",
    "DatasetSummary",
    "Duplicates",
    "Evaluation",
    "ExportSummary",
    "ExportedModel",
    "ImportSummary",
    "Quantization",
    "RelateSummary",
    "SimilarPage",
    "Summary",
    "TrainSummary",
    "VistadexError",
    "__version__",
    "build_dataset",
    "compare",
    "copy",
    "evaluate",
    "export_annotations",
    "export_model",
    "find_duplicates",
    "find_similar",
    "import_annotations",
    "index",
    "quantize",
    "relate",
    "train_detector",
]


def __getattr__(name: str) -> Any:
    """Public names, resolved on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vistadex' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
