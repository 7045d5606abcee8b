"""The command that makes a model small, and says what that costs and gains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vistadex.console import CatalogOption, JsonOption, out, out_json, say

if TYPE_CHECKING:
    from vistadex.quantizing import Quantization


def quantize(
    model: Annotated[str, typer.Argument(help="Name, SHA-256 prefix, or path of an .onnx file.")],
    calibrate: Annotated[str, typer.Option(help="Pictures like those it will see.")],
    evaluate: Annotated[str, typer.Option(help="Annotated pictures to judge it on.")],
    format: Annotated[str, typer.Option(help="Of the annotations; auto tells it.")] = "auto",
    images: Annotated[
        str | None, typer.Option(help="Where the annotations' pictures are, if they don't say.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Judge on this split alone.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the new model; else the old one's and -int8.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="static, weights-float16, weights-int8 or dynamic.")
    ] = "static",
    calibration: Annotated[
        str, typer.Option(help="min-max, entropy or percentile; auto tries all.")
    ] = "auto",
    pictures: Annotated[int, typer.Option(help="How many to calibrate with.")] = 64,
    max_drop: Annotated[
        float, typer.Option(help="Largest drop of mAP or accuracy; 0.01 is one point.")
    ] = 0.01,
    force: Annotated[bool, typer.Option("--force", help="Store it whatever was lost.")] = False,
    qat: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Annotated pictures to train with rounding in effect."),
    ] = None,
    qat_images: Annotated[str | None, typer.Option(help="Where their pictures are.")] = None,
    qat_split: Annotated[str | None, typer.Option(help="Train on this split of them.")] = None,
    qat_epochs: Annotated[int, typer.Option(help="Epochs of that training.")] = 10,
    seed: Annotated[int, typer.Option(help="Another one chooses other pictures.")] = 0,
    catalog: CatalogOption = None,
    models: Annotated[Path | None, typer.Option(help="Folder of the model store.")] = None,
    json_: JsonOption = False,
) -> None:
    """Make a model small (int8, float16), judge it against the float one, and store it."""
    from vistadex.quantizing import quantize as library

    made = library(
        model,
        calibrate=calibrate,
        evaluate=evaluate,
        format=format,
        images=images,
        split=split,
        name=name,
        method=method,
        calibration=calibration,
        pictures=pictures,
        max_drop=max_drop,
        force=force,
        qat=qat,
        qat_images=qat_images,
        qat_split=qat_split,
        qat_epochs=qat_epochs,
        seed=seed,
        catalog=catalog,
        models=models,
        say=say,
    )
    if json_:
        out_json(made.to_dict())
    else:
        print_quantization(made)
    made.need_stored()


def print_quantization(made: Quantization) -> None:
    """The table, what was done, and where the model is."""
    width = max(len(row.name) for row in made.rows) + 2
    columns = (made.measure, "bytes", "p50 ms", "images/s", "x float", "peak MiB", "agreement")
    out(f"{'':<{width}}" + "".join(f"{one:>12}" for one in columns))
    for row in made.rows:
        numbers = (
            *(f"{row.value:.4f}", f"{row.size_bytes:,}", f"{row.p50_ms:.2f}"),
            *(f"{row.images_per_s:.1f}", f"{row.speedup:.2f}", f"{row.peak_mib:.0f}"),
            f"{row.agreement:.3f}",
        )
        mark = " *" if row.chosen else ""
        out(f"{row.name + mark:<{width}}" + "".join(f"{one:>12}" for one in numbers))
    say(f"* {made.how}; calibrated with {made.pictures} pictures")
    for reason, count in made.failures.items():
        say(f"  {count:,} pictures could not be used: {reason}")
    for note in made.notes:
        say(note)
    if made.stored is not None:
        out(f"{made.stored.card.name}: stored, {made.stored.sha256[:12]}")
