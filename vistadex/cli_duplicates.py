"""The command that finds copies of images."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from vistadex.console import CatalogOption, JsonOption, open_catalog, out, out_json, say

if TYPE_CHECKING:
    from vistadex.finding_duplicates import DuplicateGroup, DuplicateImage, Duplicates


def duplicates(
    exact: Annotated[
        bool, typer.Option("--exact/--no-exact", help="Images with the same bytes.")
    ] = True,
    near: Annotated[
        int | None,
        typer.Option(help="Also pictures that look alike: bits that may differ, 0 to 12; try 6."),
    ] = None,
    query: Annotated[str, typer.Option(help="Only among images that this finds.")] = "",
    limit: Annotated[int, typer.Option(help="Groups at most; 0: all.")] = 50,
    catalog: CatalogOption = None,
    json_: JsonOption = False,
) -> None:
    """Find copies of images, the best copy of each first."""
    from vistadex.finding_duplicates import find_duplicates

    shown = 0
    with open_catalog(catalog) as opened:
        found = find_duplicates(exact=exact, near=near, query=query, catalog=opened)
        for group in islice(found, limit or None):
            shown += 1
            if json_:
                out_json(asdict(group))
            else:
                print_group(group, near or 0)
    say_totals(found, shown)


def print_group(group: DuplicateGroup, near: int) -> None:
    """The best copy, and below it the others with what they differ in."""
    best, *others = group.images
    out(f"{image_size(best)}  {best.uri}")
    for one in others:
        out(f"{image_size(one)}    {one.uri}  [{difference(one, near)}]")


def image_size(image: DuplicateImage) -> str:
    """Sides and bytes of an image in a column."""
    sides = f"{image.width} x {image.height}" if image.width else "no picture"
    return f"{sides:>13} {image.size_bytes:>13,} B"


def difference(image: DuplicateImage, near: int) -> str:
    """Why an image is in the group of its best copy."""
    if image.same_bytes:
        return "same bytes"
    if image.distance is None:
        return "same bytes as another copy"
    chained = ", near to another copy" if image.distance > near else ""
    return f"looks alike, {image.distance} of 64 bits differ{chained}"


def say_totals(found: Duplicates, shown: int) -> None:
    """What there is in all, what was not looked at, and what to do about it."""
    say(
        f"{shown:,} of {found.groups:,} groups; in all {found.copies:,} images are copies of a "
        f"better one and take {found.bytes / 1e6:,.1f} MB"
    )
    if found.older:
        say(
            f"{found.older:,} images were not compared, as an older Vistadex indexed them; "
            "`vistadex index SOURCE --only all` does it again"
        )
    if found.unseen:
        say(
            f"{found.unseen:,} images were not compared, as only annotations of them are known; "
            "`vistadex index SOURCE` reads the pictures"
        )
