"""The command that makes data sets to train with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vistadex.console import CatalogOption, JsonOption, out, out_json, progress_bar, say

if TYPE_CHECKING:
    from vistadex.datasets import DatasetSummary


def dataset(
    out_: Annotated[str, typer.Argument(metavar="OUT", help="Folder or bucket to write.")],
    classes: Annotated[str, typer.Option(help="Classes, as Apple,Boat; quote one with a comma.")],
    per_class: Annotated[int, typer.Option(help="Images of each class.")] = 100,
    split: Annotated[str, typer.Option(help="Percentages for train, val and test.")] = "80/10/10",
    seed: Annotated[int, typer.Option(help="Another one gives another set.")] = 0,
    format: Annotated[
        str, typer.Option(help="coco, voc, yolo, open-images, imagefolder or automl-csv.")
    ] = "coco",
    query: Annotated[str, typer.Option(help="Only images that this query finds.")] = "",
    ids: Annotated[
        str | None, typer.Option(help="Only the images with these ids, as 3,14,15.")
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(help="Attribute whose images of one value stay together, or near-duplicate."),
    ] = None,
    stratify: Annotated[
        bool, typer.Option("--stratify", help="Each split gets its share of every class.")
    ] = False,
    pictures: Annotated[str, typer.Option(help="copy, link or reference.")] = "copy",
    model: Annotated[str, typer.Option(help="Whose boxes and classes.")] = "human",
    min_score: Annotated[float, typer.Option(help="Lower scores do not count.")] = 0.0,
    max_distance: Annotated[
        int, typer.Option(help="Bits in which pictures that look alike may differ.")
    ] = 6,
    report: Annotated[
        Path | None, typer.Option(help="File for every problem, one JSON object a line.")
    ] = None,
    catalog: CatalogOption = None,
    json_: JsonOption = False,
) -> None:
    """Make a data set: random images of some classes, split without look-alikes across splits."""
    from vistadex.datasets import build_dataset, class_list, id_list

    with progress_bar() as progress:
        summary = build_dataset(
            out_,
            classes=class_list(classes),
            per_class=per_class,
            split=split,
            seed=seed,
            format=format,
            query=query,
            ids=None if ids is None else id_list(ids),
            group_by=group_by,
            stratify=stratify,
            pictures=pictures,
            model=model,
            min_score=min_score,
            max_distance=max_distance,
            report=report,
            catalog=catalog,
            progress=progress,
        )
    if json_:
        out_json(asdict(summary))
    else:
        print_dataset(summary, stratified=stratify)


def print_dataset(summary: DatasetSummary, *, stratified: bool = False) -> None:
    """The table of classes and splits, and what there is to know of the set."""
    for line in table(summary):
        out(line)
    done = f"{summary.images:,} images"
    done += f" with {summary.boxes:,} boxes" if summary.boxes else ""
    out(f"{done} written to {summary.path} in {summary.seconds:.1f} s")
    for name, number in summary.missing.items():
        out(f"  {name}: {number:,} too few")
    for name, splits in summary.absent.items():
        out(f"  {name}: none in {' and '.join(splits)}{'' if stratified else '; try --stratify'}")
    out(
        f"  near-duplicates: {summary.near_duplicates_apart:,} groups in two splits; "
        f"{summary.near_duplicates:,} images kept together, at most {summary.max_distance} bits"
    )
    if summary.not_compared:
        what = "images without a perceptual hash: not compared"
        out(f"  {summary.not_compared:,} {what}; `vistadex index` or --pictures copy finds it")
    if summary.ungrouped:
        out(f"  {summary.ungrouped:,} images without the attribute: each a group by itself")
    if summary.replaced:
        out(f"  {summary.replaced:,} chosen images could not be used: the next took their places")
    print_problems(summary)


def print_problems(summary: DatasetSummary) -> None:
    """Why images could not be used, and what the format leaves out."""
    for kind, number in summary.problems.items():
        out(f"  {number:,} {kind}")
    for problem in summary.first_problems:
        say(f"  {problem}")
    if summary.replaced > len(summary.first_problems) and summary.report is None:
        say("--report FILE writes all of them")
    elif summary.report is not None:
        say(f"all of them are in {summary.report}")
    for loss in summary.losses:
        say(f"  the format can't hold: {loss}")


def table(summary: DatasetSummary) -> list[str]:
    """Lines with the images of each class in each split, and in all."""
    rows = {**summary.counts, "images": summary.splits}
    width = max(len("class"), *map(len, rows))
    lines = [f"{'class':<{width}}" + "".join(f"{one:>9}" for one in (*summary.splits, "all"))]
    for name, counts in rows.items():
        numbers = (*counts.values(), sum(counts.values()))
        lines.append(f"{name:<{width}}" + "".join(f"{one:>9,}" for one in numbers))
    return lines
