"""Models made small: quantized, judged against the float one, and refused where they lose too much.

from vistadex.quantizing import quantize
made = quantize("yolox_nano", calibrate="photos/", evaluate="instances_val.json")
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from vistadex.errors import ModelError, UsageError
from vistadex.models import ModelFile, ModelStore
from vistadex.models.cards import SUFFIXES, file_sha256
from vistadex.models.recognition import complete
from vistadex.models.store import describe
from vistadex.quantizing.results import Quantization, Row

if TYPE_CHECKING:
    from vistadex.annotated import AnnotatedSet
    from vistadex.quantizing.variants import Variant, Workbench

__all__ = ["Quantization", "Row", "quantize"]


def quantize(
    model: str,
    *,
    calibrate: str,
    evaluate: str,
    format: str = "auto",
    images: str | None = None,
    split: str | None = None,
    name: str | None = None,
    method: str = "static",
    calibration: str = "auto",
    pictures: int = 64,
    max_drop: float = 0.01,
    force: bool = False,
    qat: str | None = None,
    qat_images: str | None = None,
    qat_split: str | None = None,
    qat_epochs: int = 10,
    seed: int = 0,
    catalog: str | None = None,
    models: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Quantization:
    """Quantizes a detector or classifier, judges every form of it, and stores the best.

    The form to be stored is chosen by its agreement with the float model on calibration pictures;
    the evaluation only judges, and refuses it where the main measure drops by more than allowed.

    Args:
        model: name in the store, SHA-256 prefix, or path of an .onnx file.
        calibrate: folder, bucket or archive of pictures, best those it will see; no annotations.
        evaluate: annotated pictures, as vistadex.annotated.open_annotated takes them, also format,
            images, split and catalog; never those of calibrate.
        name: of the new model; the old one's and -int8 or -float16 if not given.
        method: static, weights-float16, weights-int8 or dynamic.
        calibration: min-max, entropy or percentile; auto tries all.
        pictures: how many to calibrate with.
        max_drop: of the main measure, in its own units (0.01 of mAP is one point).
        force: store it whatever was lost.
        qat: annotated pictures to train with rounding in effect, a form of its own in the table;
            pictures in qat_images, split qat_split, for qat_epochs. Only detectors that training
            can start from, see training.networks.
        seed: another one chooses other pictures.
        models: folder of the store; None: the setting.
        say: is told what is being done.
    Raises: UsageError for options that can't be; ModelError if the model can't be quantized or the
        name is taken; SourceError or FormatError where pictures or annotations can't be read.
    """
    from vistadex import settings
    from vistadex.annotated import open_annotated
    from vistadex.quantizing import pictures as choosing
    from vistadex.quantizing.judging import Limits, judge
    from vistadex.quantizing.variants import Workbench, make

    if pictures < 1 or not 0 <= max_drop <= 1 or qat_epochs < 1:
        raise UsageError(
            f"pictures {pictures}, max_drop {max_drop}, qat_epochs {qat_epochs}: expected 1 or "
            "more, 0 to 1, and 1 or more"
        )
    say = say or (lambda line: None)
    store = ModelStore(Path(settings.value("models", None if models is None else str(models), str)))
    file = _find(model, store)
    new_name = name or f"{file.card.name}-{'float16' if method == 'weights-float16' else 'int8'}"
    if any(other.card.name == new_name for other in store.list()):
        raise ModelError(
            f"{store.folder}: the name {new_name!r} is taken; choose another with --name, or "
            f"vistadex models remove {new_name!r}"
        )
    if qat is not None and file.card.task != "detector":
        raise UsageError(
            f"{file.card.name}: a {file.card.task}; qat trains detectors, leave it out"
        )
    data = open_annotated(evaluate, format=format, images=images, split=split, catalog=catalog)
    with TemporaryDirectory() as scratch:
        chosen = choosing.choose(calibrate, pictures, file, seed=seed)
        say(f"{len(chosen.images)} of {chosen.listed:,} files of {chosen.source} to calibrate with")
        bench = Workbench(file, chosen.images, Path(scratch))
        variants = make(bench, method, calibration, say)
        if qat is not None:
            learned = {"data": qat, "images": qat_images, "split": qat_split, "seed": seed}
            variants.append(_qat(bench, learned | {"epochs": qat_epochs}, data, store, say))
        judged = judge(bench, variants, data, say)
        source = f"{len(chosen.images)} pictures of {chosen.source}, seed {seed}"
        limits = Limits(max_drop, force)
        return judged.kept(new_name, store, limits, source, dict(chosen.failures))


def _find(reference: str, store: ModelStore) -> ModelFile:
    """The .onnx detector or classifier that is meant."""
    path = Path(reference)
    if path.suffix.lower() in SUFFIXES or len(path.parts) > 1:
        sha256 = file_sha256(path)
        file = ModelFile(path.absolute(), sha256, complete(path, describe(path, sha256, store)))
    else:
        file = store.get(reference)
    if file.path.suffix.lower() != ".onnx":
        raise ModelError(f"{reference}: only .onnx files can be quantized; give the float model")
    if file.card.task == "embedder":
        raise ModelError(f"{reference}: an embedder; only detectors and classifiers are quantized")
    return file


def _qat(
    bench: Workbench,
    learned: dict[str, Any],
    data: AnnotatedSet,
    store: ModelStore,
    say: Callable[[str], None],
) -> Variant:
    """The model fine-tuned with rounding in effect, then quantized as it was trained.

    Args:
        learned: options of train_detector.
    """
    from vistadex.quantizing.variants import Workbench, trained
    from vistadex.training import train_detector

    file, out = bench.file, bench.folder / "qat"
    say(f"training {learned['epochs']} epochs with rounding in effect on {learned['data']}")
    train_detector(
        out=out,
        validate=data,
        init=str(file.path),
        size=max(file.card.input.size_wh),
        fake_quantize=True,
        models=store,
        **learned,
    )
    (out / "trials").mkdir()
    new = ModelFile(out / "model.onnx", file_sha256(out / "model.onnx"), file.card)
    return trained(Workbench(new, bench.images, out / "trials"))
