"""The command that finds images like a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vistadex.console import CatalogOption, JsonOption, open_catalog, out, out_json, say

if TYPE_CHECKING:
    from vistadex.catalog import SimilarPage


def similar(
    image: Annotated[
        str, typer.Argument(help="Id, path or URI of an image of the catalog, or any picture file.")
    ],
    box: Annotated[
        str | None,
        typer.Option(help="Compare only this part: x0,y0,x1,y1 in pixels of the upright picture."),
    ] = None,
    query: Annotated[str, typer.Option(help="Only images that this finds.")] = "",
    limit: Annotated[int, typer.Option(help="Results.")] = 50,
    model: Annotated[
        str | None, typer.Option(help="Embedder whose vectors to compare: name or SHA-256.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Look at every vector, however many there are.")
    ] = False,
    catalog: CatalogOption = None,
    json_: JsonOption = False,
) -> None:
    """Find the images most like a picture, or like a part of it."""
    from vistadex.finding_similar import find_similar, read_box
    from vistadex.jsonable import similar_page

    with open_catalog(catalog) as opened:
        page = find_similar(
            image,
            box=None if box is None else read_box(box),
            query=query,
            limit=limit,
            model=model,
            exact=exact,
            catalog=opened,
        )
    if json_:
        out_json(similar_page(page))
    else:
        print_page(page)


def print_page(page: SimilarPage) -> None:
    """Similarity and place of each, and what was compared."""
    for one in page.results:
        out(f"{one.similarity:.3f}  {one.image.uri}")
    what = "" if page.by_content else ": colors and their layout, not what is in the pictures"
    say(f"{len(page.results):,} of {page.images:,} images, by {page.model}{what}")
