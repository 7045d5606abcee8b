"""The commands `vistadex catalog …`: moving a catalog, proving it right, upgrading it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from vistadex import settings
from vistadex.console import CatalogOption, JsonOption, out, out_json, progress_bar
from vistadex.errors import CatalogError

catalog_app = typer.Typer(
    help="The catalog itself: move it, check it, upgrade it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@catalog_app.command("copy")
def catalog_copy(
    source: Annotated[str, typer.Argument(help="File name or URL of the catalog to copy.")],
    target: Annotated[str, typer.Argument(help="File name or URL of an empty one.")],
    json_: JsonOption = False,
) -> None:
    """Copy a catalog to another database, and prove that both hold the same."""
    from vistadex.catalog.moving import copy_catalog

    with progress_bar() as progress:
        done = copy_catalog(source, target, progress)
    if json_:
        out_json(asdict(done))
        return
    for table in done.tables:
        if table.rows:
            out(f"{table.name:<16} {table.rows:>14,} rows  sum {table.checksum}")
    out(f"{done.rows:,} rows copied from {done.source} to {done.target} in {done.seconds:.1f} s")


@catalog_app.command("check")
def catalog_check(catalog: CatalogOption = None, json_: JsonOption = False) -> None:
    """Prove that a catalog is consistent, or say what is wrong in it."""
    from vistadex.catalog.checking import check_catalog

    place = settings.value("catalog", catalog, str)
    found = check_catalog(place)
    for finding in found:
        if json_:
            out_json(asdict(finding))
        else:
            out(str(finding))
    if found:
        raise CatalogError(
            f"{len(found)} findings; restore a copy of the catalog, or make a new one and index "
            "again"
        )
    if not json_:
        out("the catalog is consistent")


@catalog_app.command("migrate")
def catalog_migrate(catalog: CatalogOption = None, json_: JsonOption = False) -> None:
    """Upgrade a catalog that an older Vistadex wrote; every other command does so, too."""
    from vistadex.catalog.opening import migrate

    place, before, after = migrate(settings.value("catalog", catalog, str))
    if json_:
        out_json({"catalog": place, "before": before, "after": after})
    elif before == after:
        out(f"{place}: has schema {after} already")
    else:
        out(f"{place}: upgraded from schema {before} to {after}")
