"""Annotation sets that are read by column, loaded into a catalog without their pictures."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vistadex.catalog import Catalog, bulk, reading, registering
from vistadex.errors import UsageError
from vistadex.formats import Problems
from vistadex.formats.columns import Kind
from vistadex.formats.open_images_columns import OpenImagesColumns
from vistadex.formats.open_images_files import find_files
from vistadex.formats.open_images_layout import find
from vistadex.origins import AnnotationOrigin, origin_id, origin_name
from vistadex.progress import Progress, Silent
from vistadex.records import Json, Task
from vistadex.sources import place_of

_TASKS: Mapping[Kind, Task] = {
    "labels": "classifier",
    "boxes": "detector",
    "relations": "relater",
}


@dataclass(slots=True, kw_only=True)
class LoadSummary:
    """How a run of load_open_images() went."""

    images: int = 0
    boxes: int = 0
    relations: int = 0
    changed: int = 0
    """Images that the catalog did not have so before."""
    class_names: int = 0
    repeated_images: int = 0
    """Rows of the lists that name an image again."""
    repeated_labels: int = 0
    """Labels that say of an image what the same people or machine say more surely elsewhere."""
    problems: dict[str, int] = field(default_factory=dict)
    """What could not be used, by kind."""
    first_problems: list[str] = field(default_factory=list)
    losses: dict[str, int] = field(default_factory=dict)
    """What the files say and the catalog has no place for, with how often."""
    report: str | None = None
    """The file with every problem."""
    seconds: float = 0.0


def can_load(path: str | Path) -> bool:
    """Whether a set has what loading by column needs: its list of images, and names of classes."""
    found = find(str(path))
    return bool(found.images and found.class_descriptions)


def load_open_images(
    path: str | Path,
    *,
    catalog: str | Path | Catalog | None = None,
    model: str = "human",
    image_url: str | None = None,
    attributes: Collection[str] | None = None,
    report: Path | None = None,
    progress: Progress | None = None,
) -> LoadSummary:
    """Enters Open Images as it is published into a catalog, without reading a picture.

    Loading the same again changes nothing. A run that was killed goes on where it was.

    Args:
        path: the folder with the CSV files, gzipped or not.
        catalog: file name or URL, made where it is missing; None: the setting.
        model: the name under which people's annotations stand in the catalog.
        image_url: where pictures are shown from, as https://host/{split}/{image_id}.jpg.
        attributes: what is kept of what the lists say of images, by the catalog's names
            ("split", "original_url"); None: everything.
        report: file that gets every problem, one JSON object a line.
        progress: is told how far the run is.
    Raises: UsageError, FormatError, SourceError or CatalogError where nothing can be loaded; a
        damaged row is counted in the summary.
    """
    started = time.monotonic()
    store = catalog if isinstance(catalog, Catalog) else Catalog(catalog, create=True)
    try:
        with Problems(report) as problems:
            columns = OpenImagesColumns(find_files(str(path), problems), attributes)
            with store.reading() as connection:
                _need_no_model(registering.all_analyzers(connection), model)
            loading = bulk.Loading(
                source_uri=place_of(path),
                analyzers={who: _origin(store, model, *who) for who in columns.origins},
                image_url=image_url,
            )
            loaded = bulk.load(store, columns, loading, problems, progress or Silent())
            return LoadSummary(
                images=loaded.images,
                boxes=loaded.boxes,
                relations=loaded.relations,
                changed=loaded.changed,
                class_names=len(columns.vocabulary.classes),
                repeated_images=loaded.repeated_images,
                repeated_labels=loaded.repeated_labels,
                problems=dict(problems.counts.most_common()),
                first_problems=[str(one) for one in problems.first],
                losses=dict(problems.losses),
                report=str(report) if report is not None and problems.counts else None,
                seconds=time.monotonic() - started,
            )
    finally:
        if store is not catalog:
            store.close()


def _origin(store: Catalog, model: str, origin: str, kind: Kind) -> AnnotationOrigin:
    """Who says something, as an analyzer; what the catalog knows of it stays."""
    name, task = origin_name(model, origin), _TASKS[kind]
    card: dict[str, Json] = {"name": name, "task": task, "category_ids": {}, "about": {}}
    with store.reading() as connection:
        known = reading.model_card(connection, origin_id(name, task))
    return AnnotationOrigin(name, task, (), {**card, **known})


def _need_no_model(known: Collection[registering.KnownAnalyzer], name: str) -> None:
    """Raises: UsageError where a model of that name has looked itself: the two would be mixed."""
    if any(one.name == name and not one.sha256.startswith(reading.ANNOTATIONS) for one in known):
        raise UsageError(f"--model {name}: is a model that has looked at images; choose another")
