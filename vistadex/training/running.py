"""One run from beginning to end: prepare, start processes, train, write the model, clear up."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from vistadex import settings
from vistadex.annotated import AnnotatedSet
from vistadex.catalog import Catalog
from vistadex.catalog.runs import Recorder
from vistadex.decoding import decode
from vistadex.errors import UsageError
from vistadex.models import ModelFile, ModelStore, resolve
from vistadex.models.analyzers import load_once
from vistadex.models.cards import ModelCard, Preprocessing, file_sha256
from vistadex.models.graphs import embed_card
from vistadex.models.preprocessing import Preprocessor
from vistadex.progress import Progress, Silent
from vistadex.records import FloatArray
from vistadex.training import checkpoints
from vistadex.training.augmenting import Augmentation
from vistadex.training.distributed import Place, joined, meeting_point, places, together
from vistadex.training.fake_quantization import (
    add_fake_quantization,
    input_ranges,
    without_fake_quantization,
)
from vistadex.training.folding import folded
from vistadex.training.loading import Plan, Samples
from vistadex.training.loop import Job, StoppedError, Training, Watch
from vistadex.training.networks import DetectorNetwork, architecture_from_json
from vistadex.training.pictures import UNREADABLE, Pictures
from vistadex.training.preparing import Sets, Start, open_sets, start_of
from vistadex.training.recipe import EpochReport, Recipe, TrainSummary
from vistadex.training.teaching import teacher_of
from vistadex.training.validating import (
    OPTIONS,
    card_of,
    measure,
    validation_set,
    with_metrics,
)
from vistadex.training.writing import check_outputs, to_onnx

MODEL, PROBLEMS, RECIPE, RANGES, DECODED = (
    "model.onnx",
    "problems.txt",
    "recipe.json",
    "input_ranges.json",
    "decoded",
)
"""What a run writes into its folder, checkpoints and records aside."""
_COLOR = (0.015, 0.6, 0.4)
_CHECKED = 8
"""Pictures on which the file is compared with the network."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What train_detector was called with."""

    recipe: Recipe
    out: Path
    data: str | Path | AnnotatedSet
    validate: str | Path | AnnotatedSet | None
    devices: str
    workers: int | None
    resume: bool
    checkpoint_minutes: float
    validate_every: int
    cache_gib: float
    name: str | None
    license: str | None
    catalog: str | Path | Catalog | None
    models: Path | ModelStore | None
    progress: Progress | None
    on_epoch: Callable[[EpochReport], None] | None


def run(asked: Asked) -> TrainSummary:
    """See vistadex.training.train_detector."""
    began = time.monotonic()
    with ExitStack() as stack:
        meeting = stack.enter_context(meeting_point())
        torchrun = settings.torchrun()
        here = places(asked.devices, torchrun, meeting)
        _check_folder(asked, here[0])
        store = _store(asked.models)
        if asked.name is not None and here[0].leads:
            made = asked.out / MODEL  # by a run that is resumed at its very end
            store.check_name(asked.name, file_sha256(made) if made.exists() else "")
        sets = open_sets(asked.recipe, asked.data, asked.validate, asked.catalog)
        problems = _Problems(asked.out, sets)
        job, start = _job(asked, sets, here, store)
        progress = _progress(stack, asked, sets)
        watch = _watch(asked, sets, problems, progress, job.plan)
        try:
            with together(here, take_part, job, StoppedError):
                training = Training(job, here[0], watch)
                training.run()
        except StoppedError as error:
            raise KeyboardInterrupt from error
        if not here[0].leads:
            return _follower(asked, job, sets, began)
        problems.write()
        summary = _finish(asked, job, sets, start, training, store, began)
        summary.bad = dict(problems.counts)
        summary.problems = str(asked.out / PROBLEMS) if problems.counts else None
        if isinstance(progress, Recorder):
            progress.summary = json.loads(json.dumps(asdict(summary)))
        return summary


def _check_folder(asked: Asked, place: Place) -> None:
    """Raises: UsageError if the folder holds another run, or can't be written."""
    last = asked.out / checkpoints.LAST
    if asked.resume:
        asked.recipe.check_same(checkpoints.load(last)["recipe"], last)
    elif last.exists() or (asked.out / MODEL).exists():
        raise UsageError(
            f"{asked.out}: holds a run already; go on with --resume, or choose another folder"
        )
    if place.leads:
        try:
            asked.out.mkdir(parents=True, exist_ok=True)
            text = json.dumps(asked.recipe.to_dict(), indent=2) + "\n"
            (asked.out / RECIPE).write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{asked.out}: can't be written ({error.strerror})") from error


def _job(asked: Asked, sets: Sets, here: list[Place], store: ModelStore) -> tuple[Job, Start]:
    recipe, world = asked.recipe, here[0].world
    if recipe.batch % world:
        raise UsageError(
            f"batch {recipe.batch}: can't be shared by {world} processes, expected a multiple"
        )
    classes = sets.training.classes
    largest = recipe.size + 32 * recipe.multi_scale
    pictures = Pictures(
        sets.training,
        round(largest * min(1.5, max(1.0, recipe.scale[1]))),
        asked.out / DECODED,
        int(asked.cache_gib * (1 << 30)),
    )
    start = start_of(recipe, classes, pictures, store)
    teacher = None
    if recipe.teacher is not None:
        teacher = teacher_of(resolve(recipe.teacher, task="detector", store=store), classes)
    hue, saturation, value = (recipe.color * most for most in _COLOR)
    how = Augmentation(
        mosaic=recipe.mosaic,
        mixup=recipe.mixup,
        flip=recipe.flip,
        flip_vertical=recipe.flip_vertical,
        scale=recipe.scale,
        color=(hue, saturation, value),
    )
    plan = Plan(
        images=len(pictures),
        seed=recipe.seed,
        batch=recipe.batch,
        size=recipe.size,
        epochs=recipe.epochs,
        plain_epochs=recipe.plain,
        multi_scale=recipe.multi_scale,
    )
    job = Job(
        recipe=recipe,
        architecture=start.architecture,
        classes=classes,
        weights=start.network.state_dict(),
        samples=Samples(pictures, how, recipe.seed, teacher),
        plan=plan,
        out=asked.out,
        workers=_workers(asked.workers, world),
        threads=max(1, cores() // world) if here[0].device == "cpu" else 0,
        resume=asked.resume,
        validation=validation_set(sets.validation, classes) if here[0].leads else None,
        validate_every=asked.validate_every,
        checkpoint_minutes=asked.checkpoint_minutes,
    )
    return job, start


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _workers(wanted: int | None, world: int) -> int:
    if wanted is not None:
        if wanted < 0:
            raise UsageError(f"workers {wanted}: expected 0 or more")
        return wanted
    return max(1, min(8, cores() // world - (1 if cores() > 2 else 0)))


def take_part(place: Place, job: Job) -> None:
    """What a further process does."""
    with joined(place):
        try:
            Training(job, place, Watch()).run()
        except StoppedError:
            return


def _progress(stack: ExitStack, asked: Asked, sets: Sets) -> Progress:
    """Who is told; with a catalog also its table of runs."""
    progress = asked.progress or Silent()
    if asked.catalog is None:
        return progress
    catalog = asked.catalog
    if not isinstance(catalog, Catalog):
        catalog = Catalog(catalog)
        stack.callback(catalog.close)
    classes = len(sets.training.classes)
    subject = f"detector of {classes} class{'' if classes == 1 else 'es'} on {asked.recipe.data}"
    return stack.enter_context(Recorder(catalog, "train", subject, progress))


class _Problems:
    """What could not be used, as counts and as a file."""

    def __init__(self, out: Path, sets: Sets) -> None:
        self.path = out / PROBLEMS
        several = [*sets.training.problems]
        if sets.validation.problems is not sets.training.problems:
            several += sets.validation.problems
        self.lines = list(dict.fromkeys(str(one) for one in several))
        kinds = {str(one): one.kind for one in several}
        self.counts = Counter(kinds.values())
        self._training = sets.training
        self.bad = 0
        self.write()

    def add(self, image: int, why: str) -> None:
        """A picture that turned out to be bad."""
        line = f"{self._training.images[image].uri}: {why}"
        if line not in self.lines:
            self.lines.append(line)
            self.counts["bad-picture"] += 1
            self.bad += 1
            self.write()

    def write(self) -> None:
        """All of them, one a line."""
        if self.lines:
            self.path.write_text("\n".join(self.lines) + "\n", encoding="utf-8")


def _watch(asked: Asked, sets: Sets, problems: _Problems, progress: Progress, plan: Plan) -> Watch:
    total = plan.steps * plan.batch * plan.epochs

    def tell(done: int, _: int) -> None:
        progress.update(listed=total, listing=False, done=done, failed=problems.bad)

    return Watch(tell, asked.on_epoch or (lambda report: None), problems.add)


def _store(models: Path | ModelStore | None) -> ModelStore:
    if isinstance(models, ModelStore):
        return models
    return ModelStore(Path(settings.value("models", None if models is None else str(models), str)))


def best_network(out: Path) -> tuple[DetectorNetwork, checkpoints.State]:
    """The network of the best epoch, as averaged; of the last where none was measured.

    Raises: UsageError if the folder has no checkpoint.
    """
    path = out / checkpoints.BEST
    state = checkpoints.load(path if path.exists() else out / checkpoints.LAST)
    how = architecture_from_json(state["architecture"], str(path))
    network = DetectorNetwork(how, len(state["classes"]))
    if state["recipe"]["fake_quantize"]:
        network = folded(network)
        add_fake_quantization(network, keep_float=state["recipe"]["keep_float"])
    network.load_state_dict(state["average"])
    return network.eval(), state


def _finish(
    asked: Asked,
    job: Job,
    sets: Sets,
    start: Start,
    training: Training,
    store: ModelStore,
    began: float,
) -> TrainSummary:
    network, state = best_network(asked.out)
    if job.recipe.fake_quantize:
        text = json.dumps(input_ranges(network), indent=1)
        (asked.out / RANGES).write_text(text, encoding="utf-8")
        network = without_fake_quantization(network)
    path = asked.out / MODEL
    card = card_of(
        asked.name or asked.out.resolve().name,
        job.classes,
        job.recipe.size,
        license=asked.license or (start.file.card.license if start.file else ""),
        source=_source(start, job.recipe),
    )
    data = to_onnx(network)
    difference = check_outputs(data, network, _real_inputs(sets.validation, card.input))
    path.write_bytes(data)
    file = ModelFile(path, "", card)
    assert job.validation is not None
    numbers = measure(load_once(file, str(path), replace(OPTIONS, device="cpu")), job.validation)
    card = with_metrics(card, numbers, sets.validation_name)
    sha256 = _write_with_card(path, data, card)
    if asked.name is not None:
        store.add(path, name=asked.name)
    shutil.rmtree(asked.out / DECODED, ignore_errors=True)
    rows = training.rows
    return TrainSummary(
        out=str(asked.out),
        model=str(path),
        name=asked.name,
        sha256=sha256,
        classes=job.classes,
        images=len(sets.training.images),
        boxes=sum(len(one.boxes) for one in sets.training.images),
        validation_images=len(sets.validation.images),
        validation=sets.validation_name,
        epochs=job.recipe.epochs,
        steps=training.step,
        best_epoch=state["best_epoch"],
        metrics=numbers,
        onnx_difference=difference,
        size_bytes=path.stat().st_size,
        images_per_s=float(np.median([row["images_per_s"] for row in rows])),
        waited=float(np.median([row["waited"] for row in rows])),
        seconds=round(time.monotonic() - began, 1),
        bad={},
        problems=None,
        new_classes=start.loaded.new_classes if start.loaded else (),
    )


def _follower(asked: Asked, job: Job, sets: Sets, began: float) -> TrainSummary:
    """What a process of torchrun that does not lead has to say: where the other one writes."""
    return TrainSummary(
        out=str(asked.out),
        model=str(asked.out / MODEL),
        name=None,
        sha256="",
        classes=job.classes,
        images=len(sets.training.images),
        boxes=0,
        validation_images=0,
        validation="",
        epochs=job.recipe.epochs,
        steps=0,
        best_epoch=0,
        metrics={},
        onnx_difference=0.0,
        size_bytes=0,
        images_per_s=0.0,
        waited=0.0,
        seconds=round(time.monotonic() - began, 1),
        bad={},
        problems=None,
        new_classes=(),
        leads=False,
    )


def _source(start: Start, recipe: Recipe) -> str:
    name = Path(recipe.data).name or recipe.data
    said = f"trained by Vistadex on {name}"
    if start.file is not None:
        return f"{said}, from {start.file.card.name} ({start.file.sha256[:12]})"
    return f"{said}, from random weights"


def _write_with_card(path: Path, data: bytes, card: ModelCard) -> str:
    """Writes the file with its card inside; its SHA-256."""
    import onnx

    model = onnx.load_from_string(data)
    embed_card(model, card)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(model.SerializeToString(deterministic=True))
    os.replace(part, path)
    return file_sha256(path)


def _real_inputs(data: AnnotatedSet, how: Preprocessing) -> FloatArray:
    """(N, 3, S, S) inputs of the first pictures that can be read."""
    preprocessor = Preprocessor(how, how.size_wh, rectangular=False)
    width, height = how.size_wh
    inputs = []
    for i in range(min(_CHECKED * 2, len(data.images))):
        try:
            image = decode(data.read(i), min_long_side=max(how.size_wh))
        except UNREADABLE:
            continue
        blob = np.empty((3, height, width), np.float32)
        placement = preprocessor.place(image.width, image.height)
        preprocessor.write(preprocessor.reduced(image), placement, blob)
        inputs.append(blob)
    return np.stack(inputs[:_CHECKED])
