"""Tables of lazy names: a name leads to "module:object", imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from vistadex.errors import MissingExtraError, UsageError


def lookup(table: Mapping[str, str], name: str, what: str) -> Any:
    """The object that the table gives for a name.

    Args:
        table: name -> "package.module:object".
        name: what the user wrote.
        what: how an error calls it, e.g. "detector head".
    Raises: UsageError for an unknown name; MissingExtraError where its library is not installed.
    """
    if name not in table:
        raise UsageError(f"{what} {name!r} is unknown; known are: {', '.join(sorted(table))}")
    module_name, _, attribute = table[name].partition(":")
    try:
        return getattr(import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("vistadex"):
            raise
        raise MissingExtraError(
            f"{what} {name!r} needs the package {error.name!r}: pip install {error.name}"
        ) from error
