"""The commands about collections: images that people put together under a name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from vistadex.console import CatalogOption, JsonOption, open_catalog, out, out_json
from vistadex.errors import UsageError


def collections(catalog: CatalogOption = None, json_: JsonOption = False) -> None:
    """List the collections, with how many images are in each."""
    from vistadex import jsonable

    with open_catalog(catalog) as opened:
        found = opened.collections()
    for one in found:
        if json_:
            out_json(jsonable.collection(one))
        else:
            made = datetime.fromtimestamp(one.made_at, UTC).date()
            out(f"{one.images:>10,} images  {made}  {one.name}")


def collect(
    name: Annotated[str, typer.Argument(help="The collection; made where there is none.")],
    query: Annotated[
        str | None, typer.Argument(help="All images that this finds; '' for every one.")
    ] = None,
    ids: Annotated[str | None, typer.Option(help="These images: 12,15,40.")] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take the images out instead of putting them in.")
    ] = False,
    rename: Annotated[str | None, typer.Option(help="Give the collection this name.")] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove the collection; its images stay.")
    ] = False,
    catalog: CatalogOption = None,
    json_: JsonOption = False,
) -> None:
    """Put images into a collection: those that a query finds, or some by their ids.

    `vistadex search 'collection:NAME'` finds them again, and so does every QUERY of this program.
    """
    from vistadex import jsonable

    given = [query is not None, ids is not None, rename is not None, delete]
    if sum(given) != 1 or (remove and (delete or rename is not None)):
        raise UsageError("collect: expected one of QUERY, --ids, --rename and --delete")
    with open_catalog(catalog) as opened:
        if rename is not None:
            line, found = "renamed", opened.rename_collection(name, rename)
        elif delete:
            line, found = "deleted", opened.delete_collection(name)
        else:
            work = opened.uncollect if remove else opened.collect
            done = work(name, _ids(ids), query=query)
            line = f"{done.changed:,} images {'removed' if remove else 'added'}"
            found = done.collection
    if json_:
        out_json(jsonable.collection(found))
    else:
        out(f"{found.name}: {line}, {found.images:,} in all")


def _ids(text: str | None) -> list[int]:
    parts = [] if text is None else text.replace(",", " ").split()
    if not all(one.isascii() and one.isdigit() and len(one) <= 18 for one in parts):
        raise UsageError(f"--ids {text!r}: expected whole numbers with commas, as in 12,15,40")
    return [int(one) for one in parts]
