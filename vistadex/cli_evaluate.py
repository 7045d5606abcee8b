"""The command that measures a model on annotated pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vistadex.console import CatalogOption, JsonOption, out, out_json, progress_bar, say
from vistadex.errors import UsageError

if TYPE_CHECKING:
    from vistadex.evaluating import Evaluation

_ROWS = 40
"""Classes that are printed."""


def evaluate(
    model: Annotated[str, typer.Argument(help="Name in the store, or an .onnx or .tflite file.")],
    data: Annotated[
        str,
        typer.Argument(help="VOC, COCO, YOLO, Open Images or image folder; or the word catalog."),
    ],
    format: Annotated[str, typer.Option(help="Format of the annotations.")] = "auto",
    images: Annotated[
        str | None, typer.Option(help="Folder, bucket or archive with the pictures.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only these images: train, val, test.")] = None,
    query: Annotated[
        str | None, typer.Option(help="Only images of the catalog that this finds.")
    ] = None,
    catalog: CatalogOption = None,
    metric: Annotated[
        Literal["coco", "voc2007", "voc2010", "open-images"],
        typer.Option(help="How boxes are measured."),
    ] = "coco",
    names: Annotated[
        list[str] | None,
        typer.Option(help="DATA=MODEL: what the model calls a class of the data."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="A class of the data that is judged; others are not.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many images.")] = None,
    min_score: Annotated[float, typer.Option(help="Boxes below are not looked at.")] = 0.001,
    nms_iou: Annotated[
        float, typer.Option(help="Of two boxes of a class that overlap more, the better remains.")
    ] = 0.65,
    count_score: Annotated[
        float, typer.Option(help="Score from which boxes count as errors, and are drawn.")
    ] = 0.25,
    iou: Annotated[float, typer.Option(help="Overlap from which two boxes are one object.")] = 0.5,
    size: Annotated[
        int | None, typer.Option(help="Long side in pixels to which pictures are scaled.")
    ] = None,
    rectangular: Annotated[
        bool | None,
        typer.Option("--rectangular/--square", help="Pad pictures to their shape, or to a square."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    runtime: Annotated[str, typer.Option(help="auto, onnxruntime, openvino, litert.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, f32 or bf16.")] = "auto",
    tile: Annotated[
        int | None, typer.Option(help="Side of windows for larger pictures, in pixels.")
    ] = None,
    overlap: Annotated[float, typer.Option(help="Share that windows have in common.")] = 0.2,
    threads: Annotated[int | None, typer.Option(help="Images in work at a time.")] = None,
    timed: Annotated[int, typer.Option(help="Pictures that are timed one by one; 0: none.")] = 50,
    out_: Annotated[
        Path | None, typer.Option("--out", help="Folder for the report, pictures and JSON.")
    ] = None,
    draw: Annotated[
        int, typer.Option(help="Draw the first so many, truth and predictions side by side.")
    ] = 0,
    card: Annotated[
        bool, typer.Option("--card", help="Write the measures into the model's card.")
    ] = False,
    models: Annotated[
        Path | None, typer.Option("--models", help="Folder of the model store.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Measure a model on annotated pictures: average precision, errors, speed, size."""
    from vistadex.evaluating import evaluate as run
    from vistadex.evaluating.carding import write_card_of

    with progress_bar() as progress:
        done = run(
            model,
            data,
            format=format,
            images=images,
            split=split,
            query=query,
            catalog=catalog,
            metric=metric,
            names=renamed(names or ()),
            only=only,
            limit=limit,
            min_score=min_score,
            nms_iou=nms_iou,
            count_score=count_score,
            iou=iou,
            size=size,
            rectangular=rectangular,
            device=device,
            runtime=runtime,
            precision=precision,
            tile=tile,
            overlap=overlap,
            threads=threads,
            timed=timed,
            models=models,
            progress=progress,
        )
    if json_:
        out_json(done.to_dict())
    else:
        print_evaluation(done)
    if out_ is not None:
        say(f"report: {done.write_report(out_)}")
    if draw:
        picture = (out_ or Path()) / f"{done.model}.first-{draw}.png"
        done.write_grid(picture, draw)
        say(f"first pictures: {picture}")
    if card:
        say(f"card: {write_card_of(done, model, models)}")


def renamed(pairs: Sequence[str]) -> dict[str, str]:
    """DATA=MODEL as a mapping.

    Raises: UsageError for what has no "=".
    """
    found = {}
    for pair in pairs:
        name, mark, model = pair.partition("=")
        if not (name and mark and model):
            what = f"--names {pair!r}: expected DATA=MODEL"
            raise UsageError(f"{what}; write for instance --names aeroplane=airplane")
        found[name] = model
    return found


def print_evaluation(done: Evaluation) -> None:
    """Measures, classes, errors and speed as a person reads them."""
    failed = f", {len(done.failed):,} could not be" if done.failed else ""
    out(f"{done.model} on {done.data}: {done.images:,} images judged{failed}")
    for name, value in done.metrics.items():
        shown = "-" if value < 0 else f"{value:.1f}" if name == "box_mse" else f"{value:.4f}"
        out(f"  {name:<22}{shown:>9}")
    print_classes(done)
    if done.errors:
        out(f"errors with a score of {done.counting.min_score:g} or more:")
        for kind in done.errors:
            out(f"  {kind.count:>6,} {kind.name:<15} AP50 {kind.gain:+.3f} without: {kind.meaning}")
    if done.speed is not None:
        out(
            f"{done.speed.p50_ms:.1f} ms for a picture in one thread (95 % within "
            f"{done.speed.p95_ms:.1f} ms), {done.speed.images_per_s:.1f} images/s with "
            f"{done.speed.threads} threads, reading and decoding included"
        )
    out(f"{done.size_bytes / 1e6:.2f} MB, {done.peak_mib:.0f} MiB of memory at most")
    print_left_out(done)


def print_classes(done: Evaluation) -> None:
    """One line for each class that is there, those with most truth first."""
    there = sorted((one for one in done.per_class if one.truth), key=lambda one: -one.truth)
    measures = list(there[0].measures) if there else []
    width = max([len(one.name) for one in there[:_ROWS]] + [len("class")]) + 2
    titles = "".join(f"{name:>9}" for name in ("truth", "found", "precision", "recall", *measures))
    out(f"  {'class':<{width}}{titles.replace('precision', ' precis.')}")
    for one in there[:_ROWS]:
        shares = (one.precision, one.recall, *(one.measures[name] for name in measures))
        shown = "".join(f"{'-' if x is None or x < 0 else f'{x:.3f}':>9}" for x in shares)
        out(f"  {one.name:<{width}}{one.truth:>9,}{one.found:>9,}{shown}")
    if len(there) > _ROWS:
        say(f"and {len(there) - _ROWS} more classes; --json or --out has all")


def print_left_out(done: Evaluation) -> None:
    """What could not be used, on stderr."""
    for line in done.first_problems[:5]:
        say(f"  {line}")
    for kind, number in done.problems.items():
        say(f"{number:,} {kind} in the data")
    for uri, why in done.failed[:5]:
        say(f"  {uri}: {why}")
    if done.not_in_data:
        several = sum(done.not_in_data.values())
        say(f"{several:,} boxes of {len(done.not_in_data)} classes that the data does not have")
