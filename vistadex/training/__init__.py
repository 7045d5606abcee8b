"""Training detectors on one's own annotations: see docs/train.md.

from vistadex.training import train_detector
summary = train_detector("annotations/", "out", epochs=100, name="mine")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vistadex.errors import UsageError
from vistadex.progress import Progress
from vistadex.registry import missing_extra
from vistadex.training.recipe import EpochReport, Precision, Recipe, TrainSummary

if TYPE_CHECKING:
    from vistadex.annotated import AnnotatedSet
    from vistadex.catalog import Catalog
    from vistadex.models import ModelStore

__all__ = ["EpochReport", "Recipe", "TrainSummary", "train_detector"]


def train_detector(
    data: str | Path | AnnotatedSet,
    out: str | Path,
    *,
    format: str = "auto",
    images: str | None = None,
    split: str | None = None,
    query: str | None = None,
    validate: str | Path | AnnotatedSet | None = None,
    validate_split: str | None = None,
    network: str | None = None,
    init: str | None = None,
    teacher: str | None = None,
    epochs: int = 300,
    size: int = 416,
    batch: int = 16,
    lr: float | None = None,
    weight_decay: float = 0.01,
    clip: float = 10.0,
    warm_up_epochs: float = 3.0,
    plain_epochs: int | None = None,
    multi_scale: int = 0,
    mosaic: float = 0.7,
    mixup: float = 0.0,
    flip: float = 0.5,
    flip_vertical: float = 0.0,
    min_scale: float = 0.5,
    max_scale: float = 1.5,
    color: float = 1.0,
    seed: int = 0,
    precision: Precision = "auto",
    fake_quantize: bool = False,
    keep_float: Sequence[str] | None = None,
    devices: str = "auto",
    workers: int | None = None,
    resume: bool = False,
    checkpoint_minutes: float = 10.0,
    validate_every: int = 1,
    cache_gib: float = 4.0,
    name: str | None = None,
    license: str | None = None,
    catalog: str | Path | Catalog | None = None,
    models: Path | ModelStore | None = None,
    progress: Progress | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> TrainSummary:
    """Trains a detector on annotated pictures and writes it as one ONNX file with its card.

    Of the folder `out`, model.onnx is the detector, metrics.csv and tensorboard/ its course,
    last.pt and best.pt its checkpoints, and problems.txt what could not be used.

    Args:
        data: annotations as vistadex.annotated.open_annotated takes them, or a set of its.
        out: folder to write.
        format: of the annotations; "auto" tells it from the files.
        images: where the pictures are, if the format does not say.
        split: its images are learned; None: "train" where there is one, else all.
        query: with data "catalog", only images that it finds.
        validate: data to measure on; None: the same data's split `validate_split`, or "val" where
            there is one, else a tenth of the images, chosen by the seed and not learned.
        network: one of networks.ARCHITECTURES; None: that of `init`, else nano.
        init: ONNX file or stored model of the same structure whose weights are the start.
        teacher: detector of the store whose boxes are learned beside the truth.
        size: side of the square samples in pixels, and of the model's input.
        batch: samples of a step, over all processes.
        lr: peak of the learning rate; None: 0.002, or 0.0002 with init.
        clip: most length of the gradient.
        plain_epochs: last epochs without mosaic; None: a tenth.
        multi_scale: how many steps of 32 pixels batches may be smaller or larger.
        mosaic, mixup, flip, flip_vertical: probabilities; see augmenting.Augmentation.
        min_scale, max_scale: size of a picture in its sample; 1 fills it.
        color: strength of changes of color; 0 for none.
        fake_quantize: round as int8 does while learning; needs init.
        keep_float: modules that are not rounded; None: the stem and the prediction layers.
        devices: auto, cpu, cpu:N, cuda or cuda:N: so many processes. Under torchrun its processes.
        workers: processes that prepare batches, for each process; None: by the cores at hand.
        resume: go on from out/last.pt, made with the same options.
        validate_every: epochs between two measurements.
        cache_gib: disk space for decoded pictures, in `out`, removed at the end.
        name: of the model in the store; None: it is not added.
        license: of the model, for its card.
        models: the store or its folder; None: the setting.
        progress: is told how many samples are learned.
        on_epoch: is told how each epoch went.
    Raises: UsageError for options that can't be; MissingExtraError without torch; FormatError or
        SourceError where the data can't be read; ModelError where init or teacher does not fit.
        KeyboardInterrupt after SIGTERM or Ctrl-C, when the checkpoint is written.
    """
    recipe = Recipe(
        data=_name(data),
        format=format,
        images=images,
        split=split,
        query=query,
        validate=None if validate is None else _name(validate),
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
        scale=(min_scale, max_scale),
        color=color,
        seed=seed,
        precision=precision,
        fake_quantize=fake_quantize,
        keep_float=tuple(keep_float if keep_float is not None else KEPT_FLOAT),
    )
    if checkpoint_minutes <= 0 or validate_every < 1 or cache_gib < 0:
        raise UsageError(
            f"checkpoint_minutes {checkpoint_minutes}, validate_every {validate_every}, cache_gib "
            f"{cache_gib}: expected above 0, 1 or more, 0 or more"
        )
    try:
        from vistadex.training.running import Asked, run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("vistadex"):
            raise
        raise missing_extra("training", error) from error
    asked = Asked(
        recipe=recipe,
        out=Path(out),
        data=data,
        validate=validate,
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
        on_epoch=on_epoch,
    )
    return run(asked)


KEPT_FLOAT = ("backbone.stem", "classes", "boxes", "objects")
"""What fake quantization leaves in float unless told otherwise."""


def _name(data: str | Path | AnnotatedSet) -> str:
    return str(data) if isinstance(data, str | Path) else data.name
