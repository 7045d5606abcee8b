"""What every command shares: options, where results and messages go, the progress bar."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vistadex.progress import Lines

if TYPE_CHECKING:
    from vistadex.bars import Bar
    from vistadex.catalog import Catalog

CatalogOption = Annotated[
    str | None, typer.Option("--catalog", help="File name or URL of the catalog.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def say(text: str) -> None:
    """A line for the person, on stderr."""
    typer.echo(text, err=True)


def out(text: str) -> None:
    """A line of results, on stdout."""
    typer.echo(text)


def out_json(value: Any) -> None:
    """One JSON value on a line of its own."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def progress_bar() -> Bar | Lines:
    """A bar on a terminal's stderr, a line every ten seconds elsewhere, without importing Rich."""
    if sys.stderr.isatty():
        from vistadex.bars import Bar, can_redraw

        if can_redraw():
            return Bar()
    return Lines()


def open_catalog(location: str | None) -> Catalog:
    """The catalog that an option or the setting names."""
    from vistadex.catalog import Catalog

    return Catalog(location)
