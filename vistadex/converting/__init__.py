"""Models handed on to other tools: one ONNX or TensorFlow Lite file with its card, checked.

from vistadex.converting import export_model
done = export_model("yolox_nano", "yolox_nano.tflite", pictures="photos/")
done.max_difference
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vistadex.errors import ModelError, UsageError
from vistadex.models import ModelCard, ModelFile, ModelStore
from vistadex.models.cards import MAX_SIDE, SUFFIXES, file_sha256
from vistadex.models.dynamic import make_dynamic
from vistadex.models.recognition import complete
from vistadex.models.store import describe
from vistadex.registry import missing_extra

__all__ = ["ExportedModel", "export_model"]

FORMATS = ("onnx", "tflite")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedModel:
    """A file written for other tools, and how far it computes what the model does."""

    path: Path
    format: str
    size_bytes: int
    before_bytes: int
    """Of the model's own file."""
    max_difference: float
    """Largest difference of any number of the raw outputs, over all pictures."""
    agreement: float
    """What boxes or classes have in common with the model's; 1 for the same, see quantizing."""
    pictures: int
    """With which it was checked."""
    source: str
    """Where they are from; empty for random pixels."""
    failures: Mapping[str, int]
    """Pictures that could not be used, by reason."""

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return asdict(self) | {"path": str(self.path), "failures": dict(self.failures)}


def export_model(
    model: str,
    out: str | Path,
    *,
    format: str = "auto",
    int8: bool = False,
    size: int | None = None,
    pictures: str | None = None,
    count: int = 16,
    models: Path | None = None,
) -> ExportedModel:
    """Writes a stored model as one file with its card beside it, OUT.json.

    Before it lies at `out`, it is opened again, by LiteRT or ONNX Runtime, and looks at the same
    pictures as the model.

    Args:
        model: name in the store, SHA-256 prefix, or path of an .onnx file.
        format: onnx or tflite; auto goes by the name of `out`.
        int8: store the weights of layers in int8, a quarter of the bytes; activations stay float.
        size: side in pixels of a square input of fixed size; None: the card's size for tflite, as
            it is for onnx.
        pictures: folder, bucket or archive of pictures to check with; None: random pixels.
        count: how many, chosen by chance.
        models: folder of the store; None: the setting.
    Raises: UsageError for options that can't be; ModelError if the model can't be written so, or
        computes something else; MissingExtraError if LiteRT is not installed.
    """
    from vistadex import settings
    from vistadex.converting.checking import check

    path = Path(out)
    format = path.suffix.lower().removeprefix(".") if format == "auto" else format
    if format not in FORMATS or path.suffix.lower() != f".{format}":
        raise UsageError(f"{out}: expected a file named .onnx or .tflite, as the format is")
    if path.exists():
        raise UsageError(f"{path}: is there already; choose another name or remove it")
    if count < 1 or (size is not None and not 1 <= size <= MAX_SIDE):
        raise UsageError(f"count {count}, size {size}: expected 1 or more, and 1 to {MAX_SIDE}")
    store = ModelStore(Path(settings.value("models", None if models is None else str(models), str)))
    file = _find(model, store)
    with TemporaryDirectory() as scratch:
        source = _at_size(file, size, Path(scratch))
        fixed = format == "tflite" or size is not None
        card = _card(file, source.card, format, int8, fixed)
        data = _tflite(source, int8) if format == "tflite" else _onnx(source, card, int8, fixed)
        made = Path(scratch) / f"made.{format}"
        made.write_bytes(data)
        new = ModelFile(made, file_sha256(made), card)
        checked = check(source, new, pictures, count, rounded=int8 or _computes_int8(source))
        _publish(made, path, card)
    return ExportedModel(
        path=path,
        format=format,
        size_bytes=len(data),
        before_bytes=file.path.stat().st_size,
        **checked,
    )


def _find(reference: str, store: ModelStore) -> ModelFile:
    """The .onnx model that is meant, whatever its task."""
    path = Path(reference)
    if path.suffix.lower() in SUFFIXES or len(path.parts) > 1:
        sha256 = file_sha256(path)
        file = ModelFile(path.absolute(), sha256, complete(path, describe(path, sha256, store)))
    else:
        file = store.get(reference)
    if file.path.suffix.lower() != ".onnx":
        raise ModelError(f"{reference}: only .onnx files can be exported; give the model it is of")
    return file


def _at_size(file: ModelFile, size: int | None, scratch: Path) -> ModelFile:
    """The model with that size in its card; rewritten to take any, where its own is another."""
    how = file.card.input
    if size is None or how.size_wh == (size, size):
        return file
    if size % how.stride:
        raise ModelError(f"{file.card.name}: size {size}, expected a multiple of {how.stride}")
    card = replace(file.card, input=replace(how, size_wh=(size, size), dynamic=True))
    if how.dynamic:
        return replace(file, card=card)
    path = scratch / "dynamic.onnx"
    path.write_bytes(make_dynamic(file.path, file.card))
    return ModelFile(path, file_sha256(path), card)


def _card(file: ModelFile, card: ModelCard, format: str, int8: bool, fixed: bool) -> ModelCard:
    """The card of the new file."""
    name = f"{file.card.name}-{format}" + ("-int8" if int8 else "")
    how = f"export {format}" + (" int8" if int8 else "")
    return replace(
        card,
        name=name,
        derived_from=file.sha256,
        derived_with=how,
        input=replace(card.input, dynamic=card.input.dynamic and not fixed),
    )


def _tflite(file: ModelFile, int8: bool) -> bytes:
    try:
        from vistadex.converting.tflite import convert
    except ModuleNotFoundError as error:
        raise missing_extra("format 'tflite'", error) from error
    from vistadex.converting.graphs import fixed

    place = str(file.path)
    return convert(fixed(file.path, file.card.input.size_wh), int8=int8, place=place)


def _onnx(file: ModelFile, card: ModelCard, int8: bool, fixed: bool) -> bytes:
    from vistadex.converting.graphs import declare_size
    from vistadex.models.graphs import embed_card, load_onnx
    from vistadex.quantizing.graphs import ready
    from vistadex.quantizing.weights import as_int8

    model = as_int8(ready(file.path)) if int8 else load_onnx(file.path)
    if fixed:
        declare_size(model, card.input.size_wh)
    embed_card(model, card)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _computes_int8(file: ModelFile) -> bool:
    """Whether a model was quantized: another runtime rounds halves otherwise."""
    from vistadex.models.graphs import load_onnx

    return any(node.op_type == "QuantizeLinear" for node in load_onnx(file.path).graph.node)


def _publish(made: Path, path: Path, card: ModelCard) -> None:
    """Puts the card, then the file, at their places."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(made.read_bytes())
        path.with_name(f"{path.name}.json").write_text(card.to_json(), encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UsageError(f"{path}: can't be written ({error.strerror})") from error
