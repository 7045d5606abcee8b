"""The commands `vistadex models …`: the model store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vistadex.console import JsonOption, out, out_json, say

if TYPE_CHECKING:
    from vistadex.models import ModelFile, ModelStore

models_app = typer.Typer(
    help="The model store: what `index` can look with.", no_args_is_help=True, rich_markup_mode=None
)

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
    file: Annotated[Path, typer.Argument(help="An .onnx file.")],
    name: Annotated[str | None, typer.Option(help="Name; the file's if not given.")] = None,
    head: Annotated[str | None, typer.Option(help="How the outputs are read: yolox, …")] = None,
    classes: Annotated[
        str | None, typer.Option(help="coco, or a text file with one name a line.")
    ] = None,
    license: Annotated[str | None, typer.Option(help="License of the weights.")] = None,
    source: Annotated[str | None, typer.Option(help="Where the weights come from.")] = None,
    dynamic_size: Annotated[
        bool, typer.Option("--dynamic-size", help="Make a static graph take any input size.")
    ] = False,
    optimize: Annotated[
        bool, typer.Option("--optimize", help="Rewrite the graph to compute the same in less time.")
    ] = False,
    preset: Annotated[
        str | None, typer.Option(help="Preprocessing: yolox, ultralytics or imagenet.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Side in pixels of the input, where the graph leaves it open."),
    ] = None,
    models: ModelsOption = None,
    json_: JsonOption = False,
) -> None:
    """Add a model to the store, with the card that says how to use it."""
    options: dict[str, Any] = {"size": size, "preset": preset}
    added = model_store(models).add(
        file,
        name=name,
        head=head,
        classes=classes,
        license=license,
        source=source,
        dynamic_size=dynamic_size,
        optimize=optimize,
        **options,
    )
    if json_:
        out_json(model_json(added))
    else:
        out(f"{added.card.name}: {added.card.task}, {len(added.card.classes)} classes")


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


def model_json(file: ModelFile) -> dict[str, Any]:
    """A model's card with where it is."""
    return {**file.card.to_dict(), "sha256": file.sha256, "path": str(file.path)}


def model_store(folder: Path | None) -> ModelStore:
    """The model store that an option or the setting names."""
    from vistadex import settings
    from vistadex.models import ModelStore

    return ModelStore(Path(settings.value("models", None if folder is None else str(folder), str)))
