"""The commands about what is in the images: search, facets, classes, relations, relate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vistadex.console import (
    CatalogOption,
    JsonOption,
    open_catalog,
    out,
    out_json,
    progress_bar,
    say,
)

if TYPE_CHECKING:
    from vistadex.catalog import QueryFacets, SearchResult

QueryArgument = Annotated[
    str,
    typer.Argument(help="dog | 'dog & frisbee' | 'dog | cat' | 'car>=3 -person score>0.5'"),
]
RelationOption = Annotated[
    str | None,
    typer.Option(help="Only images with such a relation: Person/ride%/Horse; a part may be empty."),
]
MinScoreOption = Annotated[float, typer.Option(help="Lower scores do not count.")]
SourceOption = Annotated[str | None, typer.Option(help="Only sources whose address ends so.")]
ModelOption = Annotated[str | None, typer.Option(help="Only what this model found.")]
SubclassesOption = Annotated[
    bool, typer.Option("--subclasses", help="A class stands for those below it, too.")
]
IgnoreCaseOption = Annotated[
    bool, typer.Option("--ignore-case", help="Relations match in any case of letters.")
]
BAR = " ▁▂▃▄▅▆▇█"


def search(
    query: QueryArgument = "",
    relation: RelationOption = None,
    min_score: MinScoreOption = 0.0,
    source: SourceOption = None,
    model: ModelOption = None,
    subclasses: SubclassesOption = False,
    ignore_case: IgnoreCaseOption = False,
    limit: Annotated[int, typer.Option(help="Results on a page.")] = 50,
    after: Annotated[str | None, typer.Option(help="Go on behind this result's cursor.")] = None,
    catalog: CatalogOption = None,
    json_: JsonOption = False,
) -> None:
    """Search for images by what is in them, best first."""
    from vistadex import jsonable

    with open_catalog(catalog) as opened:
        page = opened.search(
            query,
            relation=relation,
            min_score=min_score,
            source=source,
            model=model,
            subclasses=subclasses,
            ignore_case=ignore_case,
            limit=limit,
            after=after,
        )
        total = opened.count(
            query,
            relation=relation,
            min_score=min_score,
            source=source,
            model=model,
            subclasses=subclasses,
            ignore_case=ignore_case,
        )
    for result in page.results:
        if json_:
            out_json(jsonable.search_result(result))
        else:
            out(result_line(result))
    say(f"{len(page.results):,} of {total:,} images")
    if page.next:
        say(f"more: --after {page.next}")


def result_line(result: SearchResult) -> str:
    """One result for a person: score, place, and what is in it."""
    image = result.image
    found = ", ".join(
        f"{one.class_name} {one.score:.2f}" + (f" ×{one.boxes}" if one.boxes > 1 else "")  # noqa: RUF001
        for one in image.classes[:5]
    )
    score = f"{result.score:.3f}" if result.matched else "     "
    gone = f"  ({image.status})" if image.status in ("vanished", "unseen") else ""
    return f"{score}  {image.uri}{gone}" + (f"  [{found}]" if found else "")


def facets(
    query: QueryArgument = "",
    relation: RelationOption = None,
    min_score: MinScoreOption = 0.0,
    source: SourceOption = None,
    model: ModelOption = None,
    subclasses: SubclassesOption = False,
    ignore_case: IgnoreCaseOption = False,
    limit: Annotated[int, typer.Option(help="How many of each kind to list; 0: all.")] = 20,
    catalog: CatalogOption = None,
    json_: JsonOption = False,
) -> None:
    """Say what is in all images that a query finds: classes, predicates, scores, box sizes.

    And of which sources they are, how they are, and how many each model or people would find.
    """
    from vistadex import jsonable

    with open_catalog(catalog) as opened:
        found = opened.facets(
            query,
            relation=relation,
            min_score=min_score,
            source=source,
            model=model,
            subclasses=subclasses,
            ignore_case=ignore_case,
            limit=None if json_ else limit or None,
        )
    if json_:
        out_json(jsonable.facets(found))
    else:
        print_facets(found, limit)


def print_facets(found: QueryFacets, limit: int) -> None:
    """Counts a line each, and the histograms as bars."""
    out(f"{found.images:,} images")
    origins = [(one.name, one.images) for one in found.origins]
    for title, counts in (
        ("classes", found.classes),
        ("predicates", found.predicates),
        ("sources", found.sources),
        ("statuses", found.statuses),
        ("origins", origins),
    ):
        if counts:
            out(f"{title}:")
        for name, number in counts[: limit or None]:
            out(f"{number:>10,}  {name}")
        if limit and len(counts) > limit:
            say(f"and {len(counts) - limit:,} more {title}; --limit 0 lists all")
    for title, bins in (("score", found.scores), ("box size", found.box_sizes)):
        if sum(bins):
            out(f"{title:<10} 0 {bars(bins)} 1")


def bars(numbers: Sequence[int]) -> str:
    """Numbers as characters of rising height; one that is not 0 is never empty."""
    most = max(numbers)
    return "".join(BAR[-(-one * (len(BAR) - 1) // most)] for one in numbers)


def classes(catalog: CatalogOption = None, json_: JsonOption = False) -> None:
    """List the classes that were found, with how many images and boxes have them."""
    from vistadex import jsonable

    with open_catalog(catalog) as opened:
        found = opened.classes()
    for one in found:
        if json_:
            out_json(jsonable.class_count(one))
        else:
            out(f"{one.images:>10,} images {one.boxes:>10,} boxes  {one.class_name}")


def relations(
    pattern: Annotated[
        str, typer.Argument(help="Person/ride%/ : class, predicate, class; a part may be empty.")
    ] = "//",
    ignore_case: IgnoreCaseOption = False,
    predicates: Annotated[
        bool, typer.Option("--predicates", help="List predicates, whatever they relate.")
    ] = False,
    catalog: CatalogOption = None,
    json_: JsonOption = False,
) -> None:
    """List the kinds of relations, with how many images and triplets have them."""
    from vistadex import jsonable

    with open_catalog(catalog) as opened:
        if predicates:
            for one in opened.predicates():
                line = f"{one.images:>10,} images {one.relations:>10,} relations  {one.predicate}"
                out_json(jsonable.predicate_count(one)) if json_ else out(line)
            return
        found = opened.relations(pattern, ignore_case=ignore_case)
    for kind in found:
        if json_:
            out_json(jsonable.relation_count(kind))
        else:
            name = f"{kind.subject}/{kind.predicate}/{kind.object}"
            out(f"{kind.images:>10,} images {kind.relations:>10,} relations  {name}")


def relate(
    query: Annotated[str, typer.Option(help="Only images that this query finds.")] = "",
    model: Annotated[
        str | None, typer.Option(help="Whose boxes; the only detector that has looked.")
    ] = None,
    predicates: Annotated[
        list[str] | None, typer.Option(help="Only these, one each; every one that is defined.")
    ] = None,
    min_score: Annotated[float, typer.Option(help="Relations with less are not kept.")] = 0.5,
    only: Annotated[
        Literal["new", "all"], typer.Option(help="new: where boxes are new; all: again.")
    ] = "new",
    catalog: CatalogOption = None,
    json_: JsonOption = False,
) -> None:
    """Derive relations (on, under, next_to …) from the boxes of indexed images."""
    from vistadex.relating import relate as run

    with progress_bar() as progress:
        summary = run(
            query,
            model=model,
            predicates=predicates,
            min_score=min_score,
            only=only,
            catalog=catalog,
            progress=progress,
        )
    if json_:
        out_json(asdict(summary))
        return
    out(
        f"{summary.images:,} images in {summary.seconds:.1f} s: "
        f"{summary.related:,} related, {summary.relations:,} relations"
    )
    if summary.left_out:
        say(f"{summary.left_out:,} relations left out: an image keeps the best 50")
    if summary.boxes_left_out:
        say(f"{summary.boxes_left_out:,} boxes of crowds, or without an area, were left out")
