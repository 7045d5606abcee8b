"""The command `vistadex`: one function per command reads options, calls the library and prints.

Results go to stdout, everything else to stderr; every command has --json.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from vistadex import (
    cli_annotations,
    cli_collections,
    cli_datasets,
    cli_duplicates,
    cli_evaluate,
    cli_quantize,
    cli_search,
    cli_similar,
)
from vistadex.cli_catalog import catalog_app
from vistadex.cli_models import models_app
from vistadex.cli_train import train_app
from vistadex.console import (
    CatalogOption,
    JsonOption,
    open_catalog,
    out,
    out_json,
    progress_bar,
    say,
)
from vistadex.errors import NotFoundError, UsageError, VistadexError

if TYPE_CHECKING:
    from vistadex.catalog import Catalog, IndexedImage
    from vistadex.indexing import Summary

app = typer.Typer(
    help="Index a folder or bucket of photographs and search it by what is in them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(models_app, name="models")
app.add_typer(catalog_app, name="catalog")
app.add_typer(train_app, name="train")
app.command("import")(cli_annotations.import_annotations)
app.command("export")(cli_annotations.export_annotations)
app.command()(cli_annotations.compare)
app.command()(cli_annotations.copy)
app.command()(cli_search.search)
app.command()(cli_search.facets)
app.command()(cli_search.classes)
app.command()(cli_search.relations)
app.command()(cli_search.relate)
app.command()(cli_collections.collections)
app.command()(cli_collections.collect)
app.command()(cli_datasets.dataset)
app.command()(cli_duplicates.duplicates)
app.command()(cli_similar.similar)
app.command()(cli_evaluate.evaluate)
app.command()(cli_quantize.quantize)

INTERRUPTED = 130


@app.command()
def index(
    sources: Annotated[
        list[str],
        typer.Argument(help="Folders, buckets (s3://, gs://, az://), archives, manifests."),
    ],
    detector: Annotated[
        str | None, typer.Option(help="Model that finds objects: name in the store, or file.")
    ] = None,
    classifier: Annotated[str | None, typer.Option(help="Model that names whole images.")] = None,
    embedder: Annotated[str | None, typer.Option(help="Model for similarity.")] = None,
    labeler: Annotated[
        str | None,
        typer.Option(help="Service that gets every picture, for money: google-vision, …"),
    ] = None,
    max_calls: Annotated[
        int | None, typer.Option(help="Pictures that the labeler gets at most; needed with it.")
    ] = None,
    calls_per_second: Annotated[
        float | None, typer.Option(help="Pictures that the labeler gets in a second.")
    ] = None,
    price_per_1000: Annotated[
        float | None, typer.Option(help="Dollars for 1,000 pictures, instead of the list price.")
    ] = None,
    catalog: CatalogOption = None,
    only: Annotated[
        Literal["new", "failed", "all"],
        typer.Option(help="new: also what changed; failed: what failed before; all: again."),
    ] = "new",
    prune: Annotated[bool, typer.Option("--prune", help="Remove images that are gone.")] = False,
    min_score: Annotated[float, typer.Option(help="Boxes with a lower score are not kept.")] = 0.25,
    size: Annotated[
        int | None, typer.Option(help="Long side in pixels for the model; its own if not given.")
    ] = None,
    rectangular: Annotated[
        bool | None,
        typer.Option(
            "--rectangular/--square",
            help="Pad pictures to their own shape or to a square; the first where the model can.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    runtime: Annotated[
        str, typer.Option(help="auto, onnxruntime, openvino or litert; auto: the file's own.")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto, f32 or bf16; bf16 needs openvino; auto: f32.")
    ] = "auto",
    tile: Annotated[
        int | None,
        typer.Option(help="Go over larger pictures in windows of so many pixels, too."),
    ] = None,
    overlap: Annotated[
        float, typer.Option(help="Share of a window that the next one covers too.")
    ] = 0.2,
    threads: Annotated[
        int | None, typer.Option(help="Images in work at a time; 0: one per core.")
    ] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Refuse larger pictures.")] = None,
    allow_truncated: Annotated[
        bool, typer.Option("--allow-truncated", help="Take the readable part of broken pictures.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Find what is in every image of folders and buckets, and keep it in the catalog."""
    from vistadex.indexing import index as run

    if labeler is not None and max_calls is not None:
        say_cost(labeler, max_calls, price_per_1000)
    with progress_bar() as progress:
        summary = run(
            *sources,
            detector=detector,
            classifier=classifier,
            embedder=embedder,
            labeler=labeler,
            max_calls=max_calls,
            calls_per_second=calls_per_second,
            price_per_1000=price_per_1000,
            catalog=catalog,
            only=only,
            prune=prune,
            min_score=min_score,
            size=size,
            rectangular=rectangular,
            device=device,
            runtime=runtime,
            precision=precision,
            tile=tile,
            overlap=overlap,
            threads=threads,
            max_pixels=max_pixels,
            allow_truncated=allow_truncated,
            progress=progress,
        )
    if json_:
        out_json(asdict(summary))
    else:
        print_summary(summary)


def say_cost(labeler: str, max_calls: int, price_per_1000: float | None) -> None:
    """States, before a run, where pictures will go and what that may cost at most."""
    from vistadex import labelers

    cost = labelers.cost(labeler, max_calls, price_per_1000)
    say(f"{labeler}: up to {max_calls:,} pictures leave this machine, at most {cost.text}")


def print_summary(summary: Summary) -> None:
    """A run as sentences with its numbers."""
    done = f"{summary.indexed:,} indexed ({summary.images_per_s:,.0f}/s)"
    parts = [done, f"{summary.unchanged:,} unchanged", f"{summary.failed:,} failed"]
    if summary.vanished:
        gone = "removed from the catalog" if summary.pruned else "gone from the source"
        parts.append(f"{summary.vanished:,} {gone}")
    memory = summary.peak_rss_bytes / 1e6
    out(
        f"{summary.images:,} images in {summary.seconds:.1f} s: {', '.join(parts)}; {memory:.0f} MB"
    )
    for reason, number in summary.failures.items():
        out(f"  {number:,} {reason}")
    if summary.refused:
        out(f"  {summary.refused:,} indexed without the labeler, which refused them")
    if summary.calls:
        out(f"  {summary.calls:,} pictures sent to be labeled: about ${summary.calls_usd:,.2f}")
    if summary.left:
        out(f"  {summary.left:,} images left: about ${summary.left_usd:,.2f}")
        say("the calls allowed are used up; the same command goes on with the images left")
    if summary.failures:
        say("`vistadex errors` says which and why; `--only failed` tries them again")


@app.command()
def show(
    image: Annotated[str, typer.Argument(help="Id, path or URI of an indexed image.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: NAME.boxes.jpg.")
    ] = None,
    min_score: Annotated[float, typer.Option(help="Boxes with a lower score are left out.")] = 0.0,
    apart: Annotated[
        bool, typer.Option("--apart", help="People's boxes and those of models side by side.")
    ] = False,
    catalog: CatalogOption = None,
    json_: JsonOption = False,
) -> None:
    """Draw an image's boxes into a file, and print what is known about it."""
    from vistadex import jsonable
    from vistadex.drawing import save_with_boxes

    with open_catalog(catalog) as opened:
        known = find_image(opened, image)
    path = output or Path(Path(known.key).stem + ".boxes.jpg")
    save_with_boxes(known, path, min_score=min_score, apart=apart)
    if json_:
        out_json({**jsonable.image(known), "drawn": str(path)})
        return
    out(f"{known.uri}: {known.width} x {known.height}, {known.status}")
    if known.warning:
        out(f"  {known.warning}")
    for box in known.boxes:
        if box.score >= min_score:
            x0, y0, x1, y1 = box.box_xyxy
            out(f"  {box.score:.3f} {box.class_name}  {x0:.0f} {y0:.0f} {x1:.0f} {y1:.0f}")
    say(f"drawn into {path}")


def find_image(catalog: Catalog, image: str) -> IndexedImage:
    """An image by id, URI or path; a path may be relative, or lead over links."""
    path = Path(image).expanduser()
    if "://" in image or not path.exists():
        return catalog.image(image)
    with suppress(NotFoundError):
        return catalog.image(os.path.abspath(path))
    return catalog.image(str(path.resolve()))


@app.command()
def errors(
    reason: Annotated[str | None, typer.Option(help="Only this reason.")] = None,
    limit: Annotated[int, typer.Option(help="Lines at most; 0: all.")] = 0,
    catalog: CatalogOption = None,
    json_: JsonOption = False,
) -> None:
    """List the images that could not be analyzed, and why."""
    from vistadex import jsonable

    with open_catalog(catalog) as opened:
        number = after = 0
        while not limit or number < limit:
            page = opened.errors(
                reason=reason, limit=min(1000, limit - number or 1000), after=after
            )
            for bad in page:
                if json_:
                    out_json(jsonable.bad_image(bad))
                else:
                    out(f"{bad.reason:<13} {bad.uri}: {bad.message}")
            if not page:
                break
            number, after = number + len(page), page[-1].id
    say(f"{number:,} bad images")


@app.command()
def stats(catalog: CatalogOption = None, json_: JsonOption = False) -> None:
    """Say what is in the catalog: images, sources, models, failures."""
    from vistadex import jsonable

    with open_catalog(catalog) as opened:
        known = opened.stats()
    if json_:
        out_json({"catalog": opened.location, **jsonable.stats(known)})
        return
    out(
        f"{opened.place}: {known.images:,} images, {known.boxes:,} boxes, {known.classes:,} classes"
    )
    for source in known.sources:
        bad = f", {source.failed:,} failed" if source.failed else ""
        gone = f", {source.vanished:,} vanished" if source.vanished else ""
        out(f"  source {source.uri}: {source.images:,} images{bad}{gone}")
    for model in known.models:
        options = " ".join(
            f"{key}={value}"
            for key, value in model.parameters.items()
            if isinstance(value, str | int | float | bool) and key != "classes"
        )
        said = f" ({options})" if options else ""
        out(f"  {model.task} {model.name}: {model.images:,} images{said}")
    for reason, number in known.failures.items():
        out(f"  failed: {number:,} {reason}")


@app.command()
def serve(
    catalog: CatalogOption = None,
    host: Annotated[str | None, typer.Option(help="Address to answer on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to answer on.")] = None,
    token: Annotated[
        Path | None, typer.Option(help="File with the token for programs and the login page.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File with a password for the login page.")
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Refuse everything that changes something.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes that answer.")] = 1,
    host_name: Annotated[
        list[str] | None, typer.Option(help="A further name under which it answers.")
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address or network of a proxy whose X-Forwarded headers are believed."),
    ] = None,
    allow_private_addresses: Annotated[
        bool,
        typer.Option(
            "--allow-private-addresses",
            help="Fetch pictures also where imported metadata names a private network.",
        ),
    ] = False,
    labeler: Annotated[
        list[str] | None,
        typer.Option(help="Service in the cloud that may be asked about pictures, for money."),
    ] = None,
    max_calls: Annotated[
        int | None, typer.Option(help="Pictures that each labeler gets at most; needed with it.")
    ] = None,
    export_to: Annotated[
        list[str] | None,
        typer.Option(help="Bucket or folder into which visitors may have data sets written."),
    ] = None,
    keep_to: Annotated[
        str | None,
        typer.Option(help="Bucket or folder for pictures that visitors ask to be kept."),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for thumbnails.")] = None,
    json_: JsonOption = False,
) -> None:
    """Serve the pages and the HTTP API until Ctrl-C."""
    from vistadex import settings
    from vistadex.web import Serving
    from vistadex.web import serve as run
    from vistadex.web.access import read_keys

    serving = Serving(
        host=settings.value("host", host, str),
        port=settings.value("port", port, int),
        cache=Path(settings.value("cache", None if cache is None else str(cache), str)),
        keys=read_keys(token, password_file),
        read_only=read_only,
        workers=workers,
        host_names=tuple(host_name or ()),
        proxies=tuple(proxy or ()),
        allow_private_addresses=allow_private_addresses,
        labelers=tuple(labeler or ()),
        max_calls=max_calls,
        export_to=tuple(export_to or ()),
        keep_to=keep_to,
    )
    with open_catalog(catalog) as opened:

        def announce(url: str) -> None:
            if json_:
                out_json({"url": url, "catalog": opened.location})
            else:
                say(f"Vistadex: {url} shows {opened.place}; Ctrl-C ends it")

        run(opened, serving, announce)


def main(run: Callable[..., Any] = app) -> NoReturn:
    """The command's entry: runs it and turns errors into a line on stderr and an exit code."""
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # odd EXIF in pictures
    try:
        code = run(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except VistadexError as error:
        say(f"error: {error}")
        code = error.exit_code
    except OSError as error:
        code = output_error(error)
    except Exception as error:
        code = usage_error(error)
    if code == INTERRUPTED:
        say("stopped; what was committed stays, and the same command goes on from there")
    leave(code if isinstance(code, int) else 0)


def leave(code: int) -> NoReturn:
    """Ends the process, at once where a stopped run's threads are still inside native code."""
    if threading.active_count() > 1:
        from vistadex.engines.local import still_working

        if still_working():
            with suppress(OSError):  # a reader that has gone away
                sys.stdout.flush()
            os._exit(code)
    sys.exit(code)


def output_error(error: OSError) -> int:
    """Says why results can't be written; a reader that has gone away needs no word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 141
    say(f"error: {error.filename or 'output'}: {error.strerror}")
    return VistadexError.exit_code


def usage_error(error: Exception) -> int:
    """Shows an error of the command line; anything else is raised again, with its trace."""
    show_error = getattr(error, "show", None)
    if show_error is None:
        raise error
    show_error()
    return UsageError.exit_code
