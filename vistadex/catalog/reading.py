"""Reading the catalog: images with all that is known of them, classes, bad images, totals."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.counting import slices
from vistadex.catalog.tables import ANY_ANALYZER
from vistadex.errors import UsageError
from vistadex.records import FAILURE_REASONS, SCORE_SCALE


class FoundClass(NamedTuple):
    """A class of one image: its best score and how many boxes."""

    class_name: str
    score: float
    boxes: int


class FoundBox(NamedTuple):
    """A box of one image, in pixels of the upright picture."""

    class_name: str
    score: float
    box_xyxy: tuple[float, float, float, float]
    model: str


@dataclass(frozen=True, slots=True)
class IndexedImage:
    """An image and everything that models found in it."""

    id: int
    source: str
    """Address of the source."""
    key: str
    """Name below the source."""
    width: int
    height: int
    size_bytes: int
    version: str
    status: str
    """ok, failed, or vanished: gone from its source since it was indexed."""
    reason: str | None
    error: str | None
    indexed_at: int
    """Seconds since 1970, UTC."""
    classes: tuple[FoundClass, ...]
    """By falling score."""
    boxes: tuple[FoundBox, ...]
    """By falling score."""
    models: tuple[str, ...]
    """Names of the models that have seen this version."""

    @property
    def uri(self) -> str:
        """Where the picture is: a path or s3://bucket/key."""
        return self.source.rstrip("/") + "/" + self.key


@dataclass(frozen=True, slots=True)
class ClassCount:
    """A class with how many images and boxes have it."""

    class_name: str
    images: int
    boxes: int


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image without results, and why."""

    id: int
    uri: str
    reason: str
    message: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SourceStats:
    """One source of a catalog."""

    uri: str
    images: int
    failed: int
    vanished: int


@dataclass(frozen=True, slots=True)
class ModelStats:
    """One model with one set of parameters, and how many images it has seen."""

    name: str
    sha256: str
    task: str
    parameters: dict[str, Any]
    images: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What is in a catalog."""

    images: int
    """All images, failed and vanished ones included."""
    failed: int
    vanished: int
    boxes: int
    classes: int
    """Classes that some image has."""
    sources: tuple[SourceStats, ...]
    models: tuple[ModelStats, ...]
    failures: dict[str, int]
    """Failed images by reason."""


@dataclass(frozen=True, slots=True)
class KnownImage:
    """What planning needs to know of an image."""

    id: int
    key: str
    version: str
    size_bytes: int
    status: str
    reason: str | None
    analyses: int
    """How many of the wanted analyzers have seen this version."""


def images(connection: sa.Connection, ids: Sequence[int]) -> list[IndexedImage]:
    """Images by id with all that is known, in the order of ids; unknown ids are left out."""
    image, source = tables.image, tables.source
    found: dict[int, sa.Row[Any]] = {}
    for part in slices(ids):
        query = sa.select(image, source.c.uri).join_from(image, source).where(image.c.id.in_(part))
        found.update((row.id, row) for row in connection.execute(query))
    known = [id_ for id_ in ids if id_ in found]
    names = _analyzer_names(connection)
    classes = _classes_of(connection, known)
    boxes = _boxes_of(connection, known, names)
    models = _models_of(connection, known, names)
    return [
        IndexedImage(
            row.id,
            row.uri,
            row.key,
            row.width,
            row.height,
            row.size_bytes,
            row.version,
            row.status,
            row.reason,
            row.error,
            row.indexed_at,
            tuple(classes[row.id]),
            tuple(boxes[row.id]),
            tuple(models[row.id]),
        )
        for row in (found[id_] for id_ in known)
    ]


def _classes_of(connection: sa.Connection, ids: Sequence[int]) -> dict[int, list[FoundClass]]:
    ic, klass = tables.image_class, tables.klass
    found: dict[int, list[FoundClass]] = defaultdict(list)
    best, boxes = sa.func.max(ic.c.score).label("best"), sa.func.max(ic.c.boxes)
    for part in slices(ids):
        query = (
            sa.select(ic.c.image_id, klass.c.name, best, boxes)
            .join_from(ic, klass)
            .where(ic.c.image_id.in_(part))
            .group_by(ic.c.image_id, ic.c.class_id)
            .order_by(sa.desc("best"), klass.c.name)
        )
        for image_id, name, score, number in connection.execute(query).all():
            found[image_id].append(FoundClass(name, score / SCORE_SCALE, number))
    return found


def _boxes_of(
    connection: sa.Connection, ids: Sequence[int], names: Mapping[int, str]
) -> dict[int, list[FoundBox]]:
    box, klass = tables.box, tables.klass
    found: dict[int, list[FoundBox]] = defaultdict(list)
    for part in slices(ids):
        query = (
            sa.select(
                box.c.image_id,
                klass.c.name,
                box.c.score,
                box.c.x0,
                box.c.y0,
                box.c.x1,
                box.c.y1,
                box.c.analyzer_id,
            )
            .join_from(box, klass)
            .where(box.c.image_id.in_(part))
        )
        for image_id, name, score, x0, y0, x1, y1, analyzer_id in connection.execute(query).all():
            found[image_id].append(
                FoundBox(name, score / SCORE_SCALE, (x0, y0, x1, y1), names[analyzer_id])
            )
    for boxes in found.values():
        boxes.sort(key=lambda one: -one.score)
    return found


def _models_of(
    connection: sa.Connection, ids: Sequence[int], names: Mapping[int, str]
) -> dict[int, list[str]]:
    analysis = tables.analysis
    found: dict[int, list[str]] = defaultdict(list)
    for part in slices(ids):
        query = (
            sa.select(analysis.c.image_id, analysis.c.analyzer_id)
            .where(analysis.c.image_id.in_(part))
            .order_by(analysis.c.image_id, analysis.c.analyzer_id)
        )
        for image_id, analyzer_id in connection.execute(query).all():
            found[image_id].append(names[analyzer_id])
    return found


def _analyzer_names(connection: sa.Connection) -> dict[int, str]:
    query = sa.select(tables.analyzer.c.id, tables.model.c.name).join_from(
        tables.analyzer, tables.model
    )
    return {row.id: row.name for row in connection.execute(query)}


def find_image(connection: sa.Connection, reference: str) -> int | None:
    """The id of an image given by its id, its whole URI, or the end of its key after a slash."""
    image, source = tables.image, tables.source
    if re.fullmatch("[0-9]{1,18}", reference):
        query = sa.select(image.c.id).where(image.c.id == int(reference))
        if (found := connection.execute(query).scalar()) is not None:
            return int(found)
    for row in connection.execute(sa.select(source)):
        root = row.uri.rstrip("/") + "/"
        if reference.startswith(root):
            query = sa.select(image.c.id).where(
                image.c.source_id == row.id, image.c.key == reference[len(root) :]
            )
            if (found := connection.execute(query).scalar()) is not None:
                return int(found)
    return None


def classes(connection: sa.Connection) -> list[ClassCount]:
    """Every class that some image has, most images first."""
    table, klass = tables.class_count, tables.klass
    query = (
        sa.select(klass.c.name, table.c.images, table.c.boxes)
        .join_from(table, klass, table.c.class_id == klass.c.id)
        .where(table.c.analyzer_id == ANY_ANALYZER, table.c.images > 0)
        .order_by(table.c.images.desc(), klass.c.name)
    )
    return [ClassCount(*row) for row in connection.execute(query)]


def bad_images(
    connection: sa.Connection, reason: str | None, limit: int, after: int
) -> list[BadImage]:
    """Failed images with an id above `after`, by rising id.

    Raises: UsageError for an unknown reason.
    """
    if reason is not None and reason not in FAILURE_REASONS:
        raise UsageError(f"unknown reason {reason!r}; known are: {', '.join(FAILURE_REASONS)}")
    image, source = tables.image, tables.source
    query = (
        sa.select(image, source.c.uri)
        .join_from(image, source)
        .where(image.c.status == "failed", image.c.id > after)
        .order_by(image.c.id)
        .limit(limit)
    )
    if reason is not None:
        query = query.where(image.c.reason == reason)
    return [
        BadImage(row.id, f"{row.uri.rstrip('/')}/{row.key}", row.reason, row.error, row.size_bytes)
        for row in connection.execute(query)
    ]


def stats(connection: sa.Connection) -> Stats:
    """Totals of the whole catalog."""
    image = tables.image
    by_status: dict[tuple[int, str], int] = {}
    query = sa.select(image.c.source_id, image.c.status, sa.func.count()).group_by(
        image.c.source_id, image.c.status
    )
    for source_id, status, number in connection.execute(query):
        by_status[source_id, status] = number
    sources = tuple(
        SourceStats(
            row.uri,
            sum(number for (id_, _), number in by_status.items() if id_ == row.id),
            by_status.get((row.id, "failed"), 0),
            by_status.get((row.id, "vanished"), 0),
        )
        for row in connection.execute(sa.select(tables.source).order_by(tables.source.c.uri))
    )
    known = classes(connection)
    failures = (
        sa.select(image.c.reason, sa.func.count())
        .where(image.c.status == "failed")
        .group_by(image.c.reason)
        .order_by(sa.func.count().desc())
    )
    return Stats(
        sum(one.images for one in sources),
        sum(one.failed for one in sources),
        sum(one.vanished for one in sources),
        sum(one.boxes for one in known),
        len(known),
        sources,
        _model_stats(connection),
        {reason: number for reason, number in connection.execute(failures)},
    )


def _model_stats(connection: sa.Connection) -> tuple[ModelStats, ...]:
    model, analyzer, analysis = tables.model, tables.analyzer, tables.analysis
    seen = sa.select(analysis.c.analyzer_id, sa.func.count().label("images")).group_by(
        analysis.c.analyzer_id
    )
    counts = {row.analyzer_id: row.images for row in connection.execute(seen)}
    query = sa.select(analyzer, model.c.name, model.c.sha256, model.c.task).join_from(
        analyzer, model
    )
    return tuple(
        ModelStats(
            row.name, row.sha256, row.task, json.loads(row.parameters), counts.get(row.id, 0)
        )
        for row in connection.execute(query.order_by(analyzer.c.id))
    )


def known_images(
    connection: sa.Connection,
    source_id: int,
    analyzer_ids: Sequence[int],
    after: str | None,
    until: str | None,
    at_most: int | None = None,
) -> list[KnownImage]:
    """Images of a source with after < key <= until (None: no bound), by key."""
    image, analysis = tables.image, tables.analysis
    seen = sa.select(sa.func.count()).where(
        analysis.c.image_id == image.c.id,
        analysis.c.analyzer_id.in_(analyzer_ids),
        analysis.c.version == image.c.version,
    )
    query = _planning(source_id, seen.scalar_subquery(), after).limit(at_most)
    if until is not None:
        query = query.where(image.c.key <= until)
    return [KnownImage(*row) for row in connection.execute(query)]


def failed_images(
    connection: sa.Connection, source_id: int, after: str | None, at_most: int
) -> list[KnownImage]:
    """Failed images of a source with after < key (None: no bound), by key."""
    query = _planning(source_id, sa.literal(0), after).limit(at_most)
    rows = connection.execute(query.where(tables.image.c.status == "failed"))
    return [KnownImage(*row) for row in rows]


def _planning(source_id: int, analyses: sa.ColumnElement[int], after: str | None) -> sa.Select[Any]:
    """The columns of KnownImage, by key."""
    image = tables.image
    columns = (
        image.c.id,
        image.c.key,
        image.c.version,
        image.c.size_bytes,
        image.c.status,
        image.c.reason,
        analyses.label("analyses"),
    )
    query = sa.select(*columns).where(image.c.source_id == source_id).order_by(image.c.key)
    return query if after is None else query.where(image.c.key > after)
