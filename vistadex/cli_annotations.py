"""The commands about what people have annotated, and about moving collections."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vistadex.console import CatalogOption, JsonOption, out, out_json, progress_bar, say
from vistadex.errors import FormatError, SourceError

if TYPE_CHECKING:
    from vistadex.comparing import Comparison, Difference
    from vistadex.copying import CopySummary
    from vistadex.exporting import ExportSummary
    from vistadex.importing import ImportSummary

FormatArgument = Annotated[
    str,
    typer.Argument(
        help="coco, coco-results, voc, yolo, imagefolder, automl-csv, open-images, "
        "class-tables or vrd."
    ),
]
ReportOption = Annotated[
    Path | None, typer.Option(help="File for every problem, one JSON object a line.")
]


def import_annotations(
    format: FormatArgument,
    path: Annotated[str, typer.Argument(help="The annotation file, folder or archive.")],
    images: Annotated[
        str | None, typer.Option(help="Where the pictures are; where the format says, if it does.")
    ] = None,
    image_url: Annotated[
        str | None,
        typer.Option(help="Where absent pictures are shown from: https://host/{split}/{image_id}"),
    ] = None,
    attributes: Annotated[
        list[str] | None, typer.Option(help="Keep this attribute of images, one each; else all.")
    ] = None,
    model: Annotated[str, typer.Option(help="Whose annotations these are.")] = "human",
    reference: Annotated[
        str | None, typer.Option(help="coco-results: the instances file that explains its numbers.")
    ] = None,
    report: ReportOption = None,
    catalog: CatalogOption = None,
    json_: JsonOption = False,
) -> None:
    """Bring annotations of other tools into the catalog, beside what models find."""
    from vistadex.importing import import_annotations as run

    with progress_bar() as progress:
        summary = run(
            format,
            path,
            images=images,
            image_url=image_url,
            attributes=attributes,
            model=model,
            reference=reference,
            report=report,
            catalog=catalog,
            progress=progress,
        )
    if json_:
        out_json(asdict(summary))
    else:
        print_import(summary)
    if summary.images and not summary.imported:
        raise FormatError(f"{path}: nothing was imported; check --images, and the problems above")


def print_import(summary: ImportSummary) -> None:
    """A run as sentences with its numbers."""
    relations = f" and {summary.relations:,} relations" if summary.relations else ""
    out(
        f"{summary.images:,} annotated images in {summary.seconds:.1f} s: "
        f"{summary.imported:,} imported with {summary.boxes:,} boxes{relations} of "
        f"{summary.class_names:,} classes; {summary.without_annotation:,} pictures not annotated"
    )
    print_problems(summary.problems, summary.first_problems, summary.report)
    for what, number in summary.losses.items():
        out(f"  not kept: {number:,} {what}")


def print_problems(counts: dict[str, int], first: list[str], report: str | None) -> None:
    """Problems by kind, the first ones in words, and where all of them stand."""
    for kind, number in counts.items():
        out(f"  {number:,} {kind}")
    for problem in first:
        say(f"  {problem}")
    if sum(counts.values()) > len(first) and report is None:
        say("--report FILE writes all of them")
    elif counts and report is not None:
        say(f"all of them are in {report}")


def export_annotations(
    format: FormatArgument,
    out_: Annotated[Path, typer.Argument(metavar="OUT", help="File or folder to write.")],
    query: Annotated[str, typer.Option(help="Only images that this query finds.")] = "",
    model: Annotated[str, typer.Option(help="Whose boxes and classes.")] = "human",
    min_score: Annotated[float, typer.Option(help="Lower scores are left out.")] = 0.0,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Copy the pictures too, where the format has them.")
    ] = False,
    report: ReportOption = None,
    catalog: CatalogOption = None,
    json_: JsonOption = False,
) -> None:
    """Write annotations, or what a model found, in a format of other tools."""
    from vistadex.exporting import export_annotations as run

    with progress_bar() as progress:
        summary = run(
            format,
            out_,
            query=query,
            model=model,
            min_score=min_score,
            pictures=pictures,
            report=report,
            catalog=catalog,
            progress=progress,
        )
    if json_:
        out_json(asdict(summary))
    else:
        print_export(summary)


def print_export(summary: ExportSummary) -> None:
    """A run as sentences with its numbers."""
    relations = f" and {summary.relations:,} relations" if summary.relations else ""
    out(
        f"{summary.images:,} images with {summary.boxes:,} boxes{relations} written to "
        f"{summary.path} in {summary.seconds:.1f} s"
    )
    print_problems(summary.problems, summary.first_problems, summary.report)
    for loss in summary.losses:
        out(f"  the format can't hold: {loss}")


def compare(
    model: Annotated[
        str | None, typer.Option(help="Model to compare; the only one that has looked.")
    ] = None,
    reference: Annotated[str, typer.Option(help="What it is compared with.")] = "human",
    query: Annotated[str, typer.Option(help="Only images that this query finds.")] = "",
    min_score: Annotated[float, typer.Option(help="Lower scores of the model don't count.")] = 0.25,
    iou: Annotated[float, typer.Option(help="Overlap from which two boxes are one object.")] = 0.5,
    limit: Annotated[int, typer.Option(help="Images to list.")] = 20,
    catalog: CatalogOption = None,
    json_: JsonOption = False,
) -> None:
    """List the images where a model and the annotations differ most."""
    from vistadex.comparing import compare as run

    found = run(
        model=model,
        reference=reference,
        query=query,
        min_score=min_score,
        iou=iou,
        limit=limit,
        catalog=catalog,
    )
    if json_:
        out_json(asdict(found))
    else:
        print_comparison(found)


def print_comparison(found: Comparison) -> None:
    """The totals, and an image a line."""
    for one in found.differences:
        out(difference_line(one))
    if not found.images:
        say(f"no image was seen by both {found.model} and {found.reference}")
        return
    say(
        f"{found.images:,} images compared, {found.model} with {found.reference}: "
        f"{found.agreed:,} boxes agree, {found.missed:,} missed, {found.invented:,} invented, "
        f"{found.other_class:,} of another class"
    )
    if found.left_out:
        say(f"not compared, as only one side knows them: {', '.join(found.left_out)}")


def difference_line(one: Difference) -> str:
    """One image for a person: how many boxes differ, where, and which."""
    renamed = [f"{said} called {found}" for said, found in one.other_class]
    kinds = (("missed", one.missed), ("invented", one.invented), ("", renamed))
    parts = [
        f"{kind} {number} {name}".lstrip()
        for kind, names in kinds
        for name, number in Counter(names).most_common()
    ]
    shown = ", ".join(parts[:5]) + (f" and {len(parts) - 5} more kinds" if len(parts) > 5 else "")
    return f"{one.number:>4}  {one.uri}  [{shown}]"


def copy(
    source: Annotated[str, typer.Argument(help="Folder, bucket, archive or manifest.")],
    target: Annotated[str, typer.Argument(help="Folder or bucket to copy into.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the bytes of what is there already.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="Files in work at a time.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="File for every failure, one JSON object a line.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Copy or unpack a collection into a folder or bucket; the same command goes on."""
    from vistadex.copying import copy as run

    with progress_bar() as progress:
        summary = run(
            source, target, verify=verify, threads=threads, report=report, progress=progress
        )
    if json_:
        out_json(asdict(summary))
    else:
        print_copy(summary)
    if summary.failed:
        raise SourceError(f"{summary.failed:,} files were not copied; the same command tries again")


def print_copy(summary: CopySummary) -> None:
    """A run as sentences with its numbers."""
    rate = summary.bytes / 1e6 / summary.seconds
    out(
        f"{summary.files:,} files in {summary.seconds:.1f} s: {summary.copied:,} copied "
        f"({summary.bytes / 1e6:,.1f} MB, {rate:,.1f} MB/s), {summary.unchanged:,} were there, "
        f"{summary.failed:,} failed"
    )
    if summary.unchanged:
        say("what was there has the same size; --verify compares bytes")
    for place, why in list(summary.failures.items())[:10]:
        say(f"  {place}: {why}")
