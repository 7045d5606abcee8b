"""The commands `vistadex models …`: the model store."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vistadex.console import JsonOption, out, out_json, say

if TYPE_CHECKING:
    from vistadex.models import ModelFile, ModelStore
    from vistadex.models.looking import Look
    from vistadex.models.store import AddOptions
    from vistadex.records import DecodedImage

models_app = typer.Typer(
    help="The model store: what `index` can look with.", no_args_is_help=True, rich_markup_mode=None
)

CHECKED = 16
"""Pictures with which an optimized graph is compared."""

ModelsOption = Annotated[Path | None, typer.Option("--models", help="Folder of the model store.")]


@models_app.command("list")
def models_list(models: ModelsOption = None, json_: JsonOption = False) -> None:
    """List the models of the store."""
    files = model_store(models).list()
    for file in files:
        if json_:
            out_json(model_json(file))
        else:
            card = file.card
            out(
                f"{card.name:<24} {card.task:<10} {card.head:<16} {len(card.classes):>5} classes  "
                f"{file.sha256[:12]}  {card.license or 'license unknown'}"
            )
    if not files:
        say("no models yet; `vistadex models add FILE` adds one")


@models_app.command("info")
def models_info(
    model: Annotated[str, typer.Argument(help="Name or SHA-256 prefix.")],
    models: ModelsOption = None,
    json_: JsonOption = False,
) -> None:
    """Print a model's card."""
    found = model_json(model_store(models).get(model))
    if json_:
        out_json(found)
        return
    for key, value in found.items():
        out(f"{key:<13} {value if isinstance(value, str) else json.dumps(value)}")


@models_app.command("add")
def models_add(
    file: Annotated[Path, typer.Argument(help="An .onnx or .tflite file.")],
    name: Annotated[str | None, typer.Option(help="Name; the file's if not given.")] = None,
    head: Annotated[str | None, typer.Option(help="How the outputs are read: yolox, …")] = None,
    classes: Annotated[
        str | None, typer.Option(help="coco, or a file with one name a line.")
    ] = None,
    license: Annotated[str | None, typer.Option(help="License of the weights.")] = None,
    source: Annotated[str | None, typer.Option(help="Where the weights come from.")] = None,
    dynamic_size: Annotated[
        bool, typer.Option("--dynamic-size", help="Make a static graph take any input size.")
    ] = False,
    optimize: Annotated[
        bool, typer.Option("--optimize", help="Rewrite the graph to compute the same in less time.")
    ] = False,
    preset: Annotated[str | None, typer.Option(help="Preprocessing: yolox, imagenet, …")] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Side in pixels of the input, where the graph leaves it open."),
    ] = None,
    pictures: Annotated[
        str | None,
        typer.Option(help="With --optimize: pictures to check with; else random ones."),
    ] = None,
    try_: Annotated[
        Path | None,
        typer.Option("--try", metavar="IMAGE", help="Only look what it finds; store nothing."),
    ] = None,
    models: ModelsOption = None,
    json_: JsonOption = False,
) -> None:
    """Add a model to the store, with the card that says how to use it."""
    said: AddOptions = {
        "name": name,
        "head": head,
        "classes": classes,
        "license": license,
        "source": source,
        "dynamic_size": dynamic_size,
        "optimize": optimize,
        "size": size,
        "preset": preset,
    }
    if pictures is not None:
        said["check_with"] = check_pictures(pictures, optimize)
    store = model_store(models)
    if try_ is not None:
        from vistadex.models.looking import look

        show_look(look(store, file, try_, **said), json_)
        return
    added = store.add(file, **said)
    if json_:
        out_json(model_json(added))
    else:
        out(f"{added.card.name}: {added.card.task}, {len(added.card.classes)} classes")
        if optimize:
            where = f"{len(said.get('check_with', ())) or 2} pictures"
            where += "" if pictures else " of random pixels"
            most = added.card.metrics["optimize_difference"]
            out(f"optimized; on {where} no number of the output changed by more than {most:.2g}")


@models_app.command("pull")
def models_pull(
    model: Annotated[
        str | None,
        typer.Argument(help="A name, an http(s) address, or hf://…; without: what there is."),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", help="SHA-256 of the file, for an address.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name; the file's if not given.")] = None,
    head: Annotated[str | None, typer.Option(help="How the outputs are read: yolox, …")] = None,
    classes: Annotated[
        str | None, typer.Option(help="coco, or a file with one name a line.")
    ] = None,
    license: Annotated[str | None, typer.Option(help="License of the weights.")] = None,
    source: Annotated[str | None, typer.Option(help="Where the weights come from.")] = None,
    dynamic_size: Annotated[
        bool, typer.Option("--dynamic-size", help="Make a static graph take any input size.")
    ] = False,
    optimize: Annotated[
        bool, typer.Option("--optimize", help="Rewrite the graph to compute the same in less time.")
    ] = False,
    preset: Annotated[str | None, typer.Option(help="Preprocessing: yolox, imagenet, …")] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Side in pixels of the input, where the graph leaves it open."),
    ] = None,
    models: ModelsOption = None,
    json_: JsonOption = False,
) -> None:
    """Download a model into the store; without a name, list those that are known."""
    from vistadex.models import pulling

    if model is None:
        list_published(json_)
        return
    pulled = pulling.pull(
        model,
        store=model_store(models),
        sha256=sha256,
        progress=Tenths(),
        name=name,
        head=head,
        classes=classes,
        license=license,
        source=source,
        dynamic_size=dynamic_size,
        optimize=optimize,
        preset=preset,
        size=size,
    )
    if json_:
        out_json(model_json(pulled))
    else:
        out(f"{pulled.card.name}: {pulled.card.task}, {len(pulled.card.classes)} classes")


@models_app.command("remove")
def models_remove(
    model: Annotated[str, typer.Argument(help="Name or SHA-256 prefix.")],
    models: ModelsOption = None,
    json_: JsonOption = False,
) -> None:
    """Remove a model from the store; what it found stays in the catalog."""
    removed = model_store(models).remove(model)
    if json_:
        out_json(model_json(removed))
    else:
        out(f"{removed.card.name} removed")


@models_app.command("export")
def models_export(
    model: Annotated[str, typer.Argument(help="Name, SHA-256 prefix, or path of an .onnx file.")],
    out_: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: .onnx or .tflite.")],
    format: Annotated[str, typer.Option(help="onnx or tflite; auto goes by OUT.")] = "auto",
    int8: Annotated[
        bool, typer.Option("--int8", help="Weights in int8: a quarter of the bytes.")
    ] = False,
    size: Annotated[
        int | None, typer.Option(help="Side in pixels of an input of fixed size.")
    ] = None,
    pictures: Annotated[
        str | None, typer.Option(help="Pictures to check with: folder or bucket; else random.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many of them.")] = 16,
    models: ModelsOption = None,
    json_: JsonOption = False,
) -> None:
    """Write a model as one ONNX or TensorFlow Lite file, checked against the model."""
    from vistadex.converting import export_model

    done = export_model(
        model,
        out_,
        format=format,
        int8=int8,
        size=size,
        pictures=pictures,
        count=count,
        models=models,
    )
    if json_:
        out_json(done.to_dict())
        return
    out(f"{done.path}: {done.size_bytes:,} bytes, the model has {done.before_bytes:,}")
    where = f"pictures of {done.source}" if done.source else "pictures of random pixels"
    out(
        f"on {done.pictures} {where}: largest difference of an output {done.max_difference:.2g}, "
        f"agreement of results {done.agreement:.4f}"
    )
    for reason, number in done.failures.items():
        say(f"  {number:,} pictures could not be used: {reason}")


def check_pictures(source: str, optimize: bool) -> list[DecodedImage]:
    """Some pictures of a source.

    Raises: UsageError if nothing is to be checked with them; SourceError.
    """
    from vistadex.errors import UsageError
    from vistadex.quantizing.pictures import read

    if not optimize:
        raise UsageError("--pictures: checks what --optimize does; add it or leave them out")
    return read(source, CHECKED).images


class Tenths:
    """Progress of a download: a line on stderr for each tenth."""

    def __init__(self) -> None:
        self.tenth = 0

    def say(self, line: str) -> None:
        """Prints the line."""
        say(line)

    def update(self, done: int, whole: int | None) -> None:
        """Prints a line if another tenth has come."""
        tenth = 10 * done // whole if whole else 0
        if whole and tenth > self.tenth:
            say(f"{done:,} of {whole:,} bytes")
        self.tenth = tenth


def list_published(json_: bool) -> None:
    """Prints the table of models that can be pulled by name."""
    from vistadex.models.pulling import TABLE

    for name, file in TABLE.items():
        task, license = file.options.get("task"), file.options.get("license")
        if json_:
            row = {"name": name, "task": task, "size_bytes": file.size_bytes, "license": license}
            out_json({**row, "url": file.url, "sha256": file.sha256})
        else:
            out(f"{name:<24} {task:<10} {file.size_bytes:>12,} bytes  {license}  {file.url}")


def show_look(found: Look, json_: bool) -> None:
    """Prints what a model says of one picture; boxes go into NAME.boxes.jpg too."""
    from vistadex.records import Classification, Detections

    names, result = found.card.classes, found.result
    rows: list[dict[str, Any]] = []
    if isinstance(result, Classification | Detections):
        scores = zip(result.class_ids.tolist(), result.scores.tolist(), strict=True)
        rows = [{"class": names[class_id], "score": score} for class_id, score in scores]
    if isinstance(result, Detections):
        for row, box in zip(rows, result.boxes_xyxy.tolist(), strict=True):
            row["box"] = box
    for row in rows:
        corners = "".join(f"{x:>8.1f}" for x in row.get("box", ()))
        if json_:
            out_json(row)
        else:
            out(f"{row['class']:<24} {row['score']:.3f} {corners}".rstrip())
    if isinstance(result, Detections):
        say(f"{len(rows)} boxes, drawn into {draw_look(found, rows)}; nothing is stored")
    else:
        article = "an" if found.card.task == "embedder" else "a"
        say(f"{article} {found.card.task} that works; nothing is stored")


def draw_look(found: Look, rows: list[dict[str, Any]]) -> Path:
    """The JPEG of the picture with its boxes, written into the current folder beside older ones."""
    from vistadex.catalog import FoundBox
    from vistadex.decoding import encode_jpeg
    from vistadex.drawing import draw_boxes
    from vistadex.errors import UsageError

    name = found.card.name
    boxes = [FoundBox(row["class"], row["score"], tuple(row["box"]), name) for row in rows]
    jpeg = encode_jpeg(draw_boxes(found.image.pixels, boxes), quality=92)
    numbers = itertools.chain([""], (f"-{i}" for i in itertools.count(2)))
    free = (Path(f"{name}.boxes{number}.jpg") for number in numbers)
    path = next(path for path in free if not path.exists())
    try:
        path.write_bytes(jpeg)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; run it in a folder you may write") from error
    return path


def model_json(file: ModelFile) -> dict[str, Any]:
    """A model's card with where it is."""
    return {**file.card.to_dict(), "sha256": file.sha256, "path": str(file.path)}


def model_store(folder: Path | None) -> ModelStore:
    """The model store that an option or the setting names."""
    from vistadex import settings
    from vistadex.models import ModelStore

    return ModelStore(Path(settings.value("models", None if folder is None else str(folder), str)))
