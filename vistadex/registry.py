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
        raise missing_extra(f"{what} {name!r}", error) from error


EXTRAS: Mapping[str, str] = {
    "pillow_heif": "heif",
    "ai_edge_litert": "litert",
    "openvino": "openvino",
    "google": "google-vision",
    "boto3": "rekognition",
    "torch": "train",
    "tensorboardX": "train",
    "psycopg": "postgres",
    "pymysql": "mysql",
}
"""The extra of this package that installs a library, by its first import name."""


def missing_extra(what: str, error: ModuleNotFoundError) -> MissingExtraError:
    """The error that says what needs a library, and how to install it."""
    package = (error.name or "").partition(".")[0]
    install = f"'vistadex[{EXTRAS[package]}]'" if package in EXTRAS else package
    return MissingExtraError(f"{what} needs the package {package!r}: pip install {install}")
