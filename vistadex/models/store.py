"""The model store: a folder with each model's file and card under its SHA-256."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypedDict, Unpack, cast

from vistadex.errors import ModelError, NotFoundError
from vistadex.models.cards import (
    PRESETS,
    SUFFIXES,
    Color,
    ModelCard,
    ModelFile,
    Resize,
    file_sha256,
)
from vistadex.models.coco import COCO_LISTS
from vistadex.models.graphs import embedded_card, read_graph
from vistadex.models.known import KNOWN
from vistadex.models.recognition import Draft, complete, draft_of_card, draft_of_graph
from vistadex.records import DecodedImage, Json, Task
from vistadex.registry import missing_extra

_MIN_PREFIX = 6
DIFFERENCE = "optimize_difference"
"""The metric that says by how much an optimized graph's output changed at most."""


class InputOptions(TypedDict, total=False):
    """What may be said about preprocessing when adding a model; see cards.Preprocessing."""

    preset: str | None
    """One of cards.PRESETS; the other fields go over it."""
    size: int | tuple[int, int] | None
    """Side in pixels of a square input, or width and height."""
    color: Color | None
    scale: float | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    resize: Resize | None
    crop: float | None
    pad_value: int | None
    stride: int | None


class AddOptions(InputOptions, total=False):
    """What may be said about a model when adding it; see ModelStore.add."""

    name: str | None
    head: str | None
    task: Task | None
    classes: str | Path | Sequence[str] | None
    license: str | None
    source: str | None
    metrics: Mapping[str, float] | None
    dynamic_size: bool
    optimize: bool
    check_with: Sequence[DecodedImage]


class ModelStore:
    """The models in one folder; the folder need not exist before the first is added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(
        self,
        file: Path,
        *,
        name: str | None = None,
        head: str | None = None,
        task: Task | None = None,
        classes: str | Path | Sequence[str] | None = None,
        license: str | None = None,
        source: str | None = None,
        metrics: Mapping[str, float] | None = None,
        dynamic_size: bool = False,
        optimize: bool = False,
        check_with: Sequence[DecodedImage] = (),
        **input: Unpack[InputOptions],
    ) -> ModelFile:
        """Copies a model file into the store, with its card; what is given goes over what is known.

        Args:
            name: the file's stem if not given.
            classes: one of coco.COCO_LISTS, a text file with one name a line, or the names.
            dynamic_size: stores a copy that takes inputs of any size.
            optimize: stores a copy that computes the same in less time; the card's metrics say
                by how much an output changed at most, as `optimize_difference`.
            check_with: decoded pictures on which that is checked; without, random pixels.
        Raises: ModelQuestionError if the file and the arguments leave something open; ModelError
            if the file is no model, contradicts its card, or the name is another file's.
        """
        with self.prepared(
            file,
            name=name,
            head=head,
            task=task,
            classes=classes,
            license=license,
            source=source,
            metrics=metrics,
            dynamic_size=dynamic_size,
            optimize=optimize,
            check_with=check_with,
            **input,
        ) as ready:
            self.check_name(ready.card.name, ready.sha256)
            return self._keep(ready.path, ready.sha256, ready.card)

    @contextmanager
    def prepared(self, file: Path, **said: Unpack[AddOptions]) -> Iterator[ModelFile]:
        """What `add` would store, tried out on a gray picture; deleted at the end unless kept.

        Raises: as add does.
        """
        from vistadex.models.analyzers import try_out

        dynamic_size, optimize = said.get("dynamic_size", False), said.get("optimize", False)
        if file.suffix.lower() == ".tflite" and (dynamic_size or optimize):
            raise ModelError(
                f"{file}: --dynamic-size and --optimize rewrite .onnx files, a .tflite stays as it "
                "is; leave them out"
            )
        sha256 = file_sha256(file)
        known = describe(file, sha256, self).with_head(said.get("head"))
        draft = Draft(_card_fields(said), _input_fields(said)).over(known)
        card = complete(file, draft)
        with self._incoming(_suffix(file)) as incoming:
            sha256, card = _write(file, incoming, sha256, card, said)
            ready = ModelFile(incoming, sha256, card)
            try_out(ready, str(file))
            yield ready

    def list(self) -> list[ModelFile]:
        """Every model, by name.

        Raises: ModelError if a card is damaged or its file is gone.
        """
        files = [self._read(path) for path in sorted(self.folder.glob("*.json"))]
        return sorted(files, key=lambda file: file.card.name)

    def get(self, name_or_sha_prefix: str) -> ModelFile:
        """The model of that name, or whose SHA-256 begins so (6 digits or more).

        Raises: NotFoundError that lists the names there are.
        """
        files = self.list()
        named = [f for f in files if f.card.name == name_or_sha_prefix]
        if not named and len(name_or_sha_prefix) >= _MIN_PREFIX:
            named = [f for f in files if f.sha256.startswith(name_or_sha_prefix)]
        if len(named) == 1:
            return named[0]
        names = ", ".join(f.card.name for f in files) or "none; add one with vistadex models add"
        found = f"{len(named)} models begin with" if named else "there is no model"
        raise NotFoundError(f"{self.folder}: {found} {name_or_sha_prefix!r}; there are: {names}")

    def find(self, sha256: str) -> ModelFile | None:
        """The model with that whole SHA-256; None if the store lacks it."""
        path = self.folder / f"{sha256}.json"
        return self._read(path) if path.exists() else None

    def remove(self, name: str) -> ModelFile:
        """Deletes the model of that name or SHA-256 prefix, and says which it was."""
        file = self.get(name)
        with _translated(self.folder):
            (self.folder / f"{file.sha256}.json").unlink(missing_ok=True)
            file.path.unlink(missing_ok=True)
        return file

    def _read(self, path: Path) -> ModelFile:
        files = [path.with_suffix(suffix) for suffix in SUFFIXES]
        file = next((file for file in files if file.exists()), None)
        if file is None:
            raise ModelError(f"{path}: the model's file {files[0].name} is gone; delete this card")
        with _translated(path):
            return ModelFile(file, path.stem, ModelCard.from_json(path.read_bytes(), str(path)))

    def find_derived(self, sha256: str, options: str) -> ModelFile | None:
        """The model that was made from the file with that SHA-256; None if the store lacks it.

        Args:
            options: what it was made with, as `rewriting` gives it.
        """
        wanted = (sha256, options)
        made = (f for f in self.list() if (f.card.derived_from, f.card.derived_with) == wanted)
        return next(made, None)

    def check_name(self, name: str, sha256: str) -> None:
        """Raises: ModelError if the name is another file's."""
        for other in self.list():
            if other.card.name == name and other.sha256 != sha256:
                raise ModelError(
                    f"{self.folder}: the name {name!r} is taken by the file {other.sha256[:12]}; "
                    f"choose another with --name, or vistadex models remove {name!r}"
                )

    @contextmanager
    def _incoming(self, suffix: str = "") -> Iterator[Path]:
        """A new file in the folder, deleted at the end unless it was moved away."""
        with _translated(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=self.folder, suffix=f".part{suffix}", delete=False) as part:
                path = Path(part.name)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _keep(self, incoming: Path, sha256: str, card: ModelCard) -> ModelFile:
        """Moves the file to its place, then its card: a card without its file never exists."""
        path = self.folder / f"{sha256}{incoming.suffix}"
        with _translated(self.folder), self._incoming() as text:
            text.write_text(card.to_json(), encoding="utf-8")
            for part in (incoming, text):
                part.chmod(0o644)
            os.replace(incoming, path)
            os.replace(text, path.with_suffix(".json"))
        return ModelFile(path, sha256, card)


def describe(path: Path, sha256: str, store: ModelStore) -> Draft:
    """What is known of a file: its sidecar, the store, known files, its own card, or its graph.

    Raises: ModelError if the file is no model, or its card is damaged.
    """
    sidecar = path.with_name(path.name + ".json")
    if sidecar.exists():
        with _translated(sidecar):
            return draft_of_card(ModelCard.from_json(sidecar.read_bytes(), str(sidecar)))
    stored = store.find(sha256)
    if stored:
        return draft_of_card(stored.card)
    if sha256 in KNOWN:
        return Draft({"name": path.stem}).over(draft_of_card(KNOWN[sha256]))
    if _suffix(path) == ".tflite":
        return _draft_of_tflite(path)
    graph = read_graph(path)
    card = embedded_card(path, graph)
    return draft_of_graph(path, graph) if card is None else draft_of_card(card)


def _draft_of_tflite(path: Path) -> Draft:
    try:
        from vistadex.models.litert import draft_of_tflite
    except ModuleNotFoundError as error:
        raise missing_extra(f"{path.name}: runtime 'litert'", error) from error
    return draft_of_tflite(path)


def rewriting(dynamic_size: bool, optimize: bool) -> str:
    """The options that rewrite a graph, as a card names them; empty for none."""
    return " ".join(["dynamic-size"] * dynamic_size + ["optimize"] * optimize)


def _suffix(path: Path) -> str:
    """The ending under which a file is kept."""
    suffix = path.suffix.lower()
    return suffix if suffix in SUFFIXES else SUFFIXES[0]


def _write(
    file: Path, to: Path, sha256: str, card: ModelCard, said: AddOptions
) -> tuple[str, ModelCard]:
    """Writes the bytes to be stored; their SHA-256 and the card that goes with them."""
    dynamic_size, optimize = said.get("dynamic_size", False), said.get("optimize", False)
    data = file.read_bytes()
    if dynamic_size:
        from vistadex.models.dynamic import make_dynamic

        data = make_dynamic(file, card)
        card = replace(card, input=replace(card.input, dynamic=True))
    if optimize:
        from vistadex.models.rewriting import make_faster

        data, difference = make_faster(data, card, file, said.get("check_with", ()))
        card = replace(card, metrics={**card.metrics, DIFFERENCE: difference})
    if dynamic_size or optimize:
        card = replace(card, derived_from=sha256, derived_with=rewriting(dynamic_size, optimize))
    with _translated(to.parent):
        to.write_bytes(data)
    return hashlib.sha256(data).hexdigest(), card


def _card_fields(said: AddOptions) -> dict[str, Json]:
    """What was said about the card, its preprocessing aside."""
    texts = ("name", "head", "task", "license", "source")
    values = cast("Mapping[str, Json]", said)
    known = {key: values[key] for key in texts if values.get(key) is not None}
    classes, metrics = said.get("classes"), said.get("metrics")
    if classes is not None:
        known["classes"] = list(_class_names(classes))
    if metrics is not None:
        known["metrics"] = dict(metrics)
    return known


def _input_fields(options: AddOptions) -> dict[str, Json]:
    """What was said about preprocessing."""
    values = cast("Mapping[str, Json]", options)
    said: dict[str, Json] = {
        key: list(value) if isinstance(value, list | tuple) else value
        for key, value in values.items()
        if value is not None and key in InputOptions.__annotations__
    }
    preset, size = said.pop("preset", None), said.pop("size", None)
    if preset is not None:
        if preset not in PRESETS:
            raise ModelError(f"preset {preset!r} is unknown; known are {', '.join(PRESETS)}")
        said = {**PRESETS[str(preset)], **said}
    if size is not None:
        said["size_wh"] = size if isinstance(size, list) else [size, size]
    return said


def _class_names(classes: str | Path | Sequence[str]) -> tuple[str, ...]:
    """The names that are meant by a name of COCO_LISTS, a text file, or a sequence of names."""
    if isinstance(classes, str) and classes in COCO_LISTS:
        return COCO_LISTS[classes]
    if not isinstance(classes, str | Path):
        return tuple(classes)
    path = Path(classes)
    try:
        text = path.read_text(encoding="utf-8-sig").rstrip()
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file; expected one class name a line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: can't be read as text ({error})") from error
    names = [line.strip() for line in text.splitlines()]
    for number, name in enumerate(names, 1):
        if not name:
            raise ModelError(f"{path} line {number}: empty, expected a class name")
    if not names:
        raise ModelError(f"{path}: empty, expected one class name a line")
    return tuple(names)


@contextmanager
def _translated(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(f"{place}: can't be used ({error.strerror or error})") from error
