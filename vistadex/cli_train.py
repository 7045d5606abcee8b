"""The commands `vistadex train …`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vistadex.console import CatalogOption, JsonOption, out, out_json, progress_bar, say

if TYPE_CHECKING:
    from vistadex.training import EpochReport, TrainSummary

train_app = typer.Typer(
    help="Train models on annotated pictures.", no_args_is_help=True, rich_markup_mode=None
)

ModelsOption = Annotated[Path | None, typer.Option("--models", help="Folder of the model store.")]


@train_app.command("detector")
def train_detector(
    data: Annotated[
        str, typer.Argument(help="Annotations: VOC, COCO, YOLO, Open Images; or catalog.")
    ],
    out_: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    format: Annotated[
        str, typer.Option(help="Of the annotations; auto: told from files.")
    ] = "auto",
    images: Annotated[
        str | None, typer.Option(help="Where the pictures are, if the format does not say.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="What is learned; train where there is one, else all.")
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="With data catalog: only images that this finds.")
    ] = None,
    validate: Annotated[
        str | None, typer.Option(help="Other data to measure on; else a split of the same.")
    ] = None,
    validate_split: Annotated[
        str | None, typer.Option(help="Split to measure on; val, or a tenth that is held out.")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="nano, tiny or small, each also as nano-silu, …")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="ONNX file or stored model whose weights are the start.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Stored detector whose boxes are learned too.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Times that every image is learned.")] = 300,
    size: Annotated[int, typer.Option(help="Side of samples in pixels.")] = 416,
    batch: Annotated[int, typer.Option(help="Samples of a step, over all processes.")] = 16,
    lr: Annotated[
        float | None, typer.Option(help="Peak of the learning rate; 0.002, with --init 0.0002.")
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    clip: Annotated[float, typer.Option(help="Most length of the gradient.")] = 10.0,
    warm_up_epochs: Annotated[float, typer.Option(help="Epochs of rising learning rate.")] = 3.0,
    plain_epochs: Annotated[
        int | None, typer.Option(help="Last epochs without mosaic; a tenth.")
    ] = None,
    multi_scale: Annotated[
        int, typer.Option(help="Steps of 32 pixels by which batches differ in size.")
    ] = 0,
    mosaic: Annotated[float, typer.Option(help="Share of samples of four pictures.")] = 0.7,
    mixup: Annotated[float, typer.Option(help="Share of samples laid over another.")] = 0.0,
    flip: Annotated[float, typer.Option(help="Share of samples that are mirrored.")] = 0.5,
    flip_vertical: Annotated[float, typer.Option(help="Share of samples upside down.")] = 0.0,
    min_scale: Annotated[float, typer.Option(help="Smallest size of a picture; 1 fills.")] = 0.5,
    max_scale: Annotated[float, typer.Option(help="Largest size of a picture; 1 fills.")] = 1.5,
    color: Annotated[float, typer.Option(help="Strength of changes of color; 0: none.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Another one gives another run.")] = 0,
    precision: Annotated[
        Literal["auto", "f32", "bf16", "f16"], typer.Option(help="Of convolutions.")
    ] = "auto",
    fake_quantize: Annotated[
        bool, typer.Option("--fake-quantize", help="Round as int8 does; needs --init.")
    ] = False,
    keep_float: Annotated[
        list[str] | None, typer.Option(help="Module that is not rounded; can be repeated.")
    ] = None,
    devices: Annotated[str, typer.Option(help="auto, cpu, cpu:2, cuda or cuda:4.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Processes that prepare batches; by the cores.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")
    ] = False,
    checkpoint_minutes: Annotated[float, typer.Option(help="Between two checkpoints.")] = 10.0,
    validate_every: Annotated[int, typer.Option(help="Epochs between two measurements.")] = 1,
    cache_gib: Annotated[
        float, typer.Option(help="Disk space in --out for decoded pictures while it runs.")
    ] = 4.0,
    name: Annotated[
        str | None, typer.Option(help="Name in the model store; without it, not added.")
    ] = None,
    license: Annotated[str | None, typer.Option(help="Of the model, for its card.")] = None,
    catalog: CatalogOption = None,
    models: ModelsOption = None,
    json_: JsonOption = False,
) -> None:
    """Train a detector on annotated pictures; the end is one ONNX file with its card."""
    from vistadex import training

    try:
        with progress_bar() as progress:
            summary = training.train_detector(
                data,
                out_,
                format=format,
                images=images,
                split=split,
                query=query,
                validate=validate,
                validate_split=validate_split,
                network=network,
                init=init,
                teacher=teacher,
                epochs=epochs,
                size=size,
                batch=batch,
                lr=lr,
                weight_decay=weight_decay,
                clip=clip,
                warm_up_epochs=warm_up_epochs,
                plain_epochs=plain_epochs,
                multi_scale=multi_scale,
                mosaic=mosaic,
                mixup=mixup,
                flip=flip,
                flip_vertical=flip_vertical,
                min_scale=min_scale,
                max_scale=max_scale,
                color=color,
                seed=seed,
                precision=precision,
                fake_quantize=fake_quantize,
                keep_float=keep_float,
                devices=devices,
                workers=workers,
                resume=resume,
                checkpoint_minutes=checkpoint_minutes,
                validate_every=validate_every,
                cache_gib=cache_gib,
                name=name,
                license=license,
                catalog=catalog,
                models=models,
                progress=progress,
                on_epoch=say_epoch,
            )
    except KeyboardInterrupt:
        say(f"interrupted; where {out_} has a last.pt, the same command with --resume goes on")
        raise
    if not summary.leads:
        return
    if json_:
        out_json(asdict(summary))
    else:
        print_training(summary)


def say_epoch(report: EpochReport) -> None:
    """A line for each epoch: losses, how good it is, and how fast."""
    losses = ", ".join(f"{name} {value:.3f}" for name, value in report.losses.items() if value)
    measured = "".join(
        f", {name} {report.metrics[name]:.4f}" for name in ("AP", "AP50") if name in report.metrics
    )
    say(
        f"epoch {report.epoch} of {report.epochs}: loss {losses}{measured}; "
        f"{report.images_per_s:,.1f} images/s, {report.waited:.1%} waiting for them, "
        f"{report.seconds:,.0f} s"
    )


def print_training(summary: TrainSummary) -> None:
    """What was made, how good it is, and what could not be used."""
    out(
        f"{summary.model}: {len(summary.classes)} classes, {summary.size_bytes / 1e6:.2f} MB, "
        f"{summary.onnx_difference:.1g} at most from the network on real pictures"
    )
    for name in ("AP", "AP50", "AP75"):
        out(f"  {name:<5} {summary.metrics[name]:.4f}")
    out(f"  on {summary.validation} ({summary.validation_images:,} images)")
    out(
        f"  {summary.images:,} images with {summary.boxes:,} boxes, {summary.epochs} epochs, best "
        f"{summary.best_epoch}; {summary.images_per_s:,.1f} images/s, {summary.waited:.1%} waiting "
        f"for them; {summary.seconds:,.0f} s in all"
    )
    if summary.new_classes:
        out(f"  new prediction layers for {', '.join(summary.new_classes)}")
    for kind, number in summary.bad.items():
        out(f"  {number:,} {kind}: see {summary.problems}")
    if summary.name is not None:
        say(f"`vistadex index SOURCE --detector {summary.name}` uses it")
    else:
        say(f"`vistadex models add {summary.model} --name NAME` makes it known to `vistadex index`")
