"""Vistadex: index a folder or bucket of photographs and search it by what is in them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistadex.catalog import Catalog
    from vistadex.errors import VistadexError
    from vistadex.indexing import Summary, index

__version__ = "0.1.0"

_HOMES = {
    "Catalog": "vistadex.catalog",
    "Summary": "vistadex.indexing",
    "VistadexError": "vistadex.errors",
    "index": "vistadex.indexing",
}

__all__ = ["Catalog", "Summary", "VistadexError", "__version__", "index"]


def __getattr__(name: str) -> Any:
    """Public names, resolved on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vistadex' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
