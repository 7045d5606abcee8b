"""Reading the catalog: images with all that is known of them, classes, bad images, totals."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.counting import slices
from vistadex.catalog.tables import ANY_ANALYZER
from vistadex.errors import UsageError
from vistadex.records import (
    FAILURE_REASONS,
    FLAGS,
    SCORE_SCALE,
    Flags,
    Json,
    image_address,
)


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
    flags: Flags = MappingProxyType({})
    """What an annotation file says of it by yes or no."""
    attributes: Mapping[str, Json] = MappingProxyType({})
    """What else it says."""
    analyzer_id: int = 0
    """Which parameters the model ran with: the catalog's number for both."""


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
    """Names of the models that have seen it."""
    analyzer_ids: tuple[int, ...] = ()
    """The catalog's number for each of them and its parameters."""
    warning: str | None = None
    """What is wrong although there are results: only a part was readable."""
    attributes: Mapping[str, Json] = field(default_factory=dict)
    """What a manifest or an annotation file says of it."""

    @property
    def uri(self) -> str:
        """Where the picture is: a path or s3://bucket/key."""
        return image_address(self.source, self.key)


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
    attributes: Mapping[str, Json] | None
    analyses: int
    """How many of the wanted analyzers have seen this version."""


ANNOTATIONS = "annotations:"
"""How the identity of a model begins that is no file but an origin of annotations."""

_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
_IMAGES = (
    sa.select(tables.image, tables.source.c.uri)
    .join_from(tables.image, tables.source)
    .where(tables.image.c.id.in_(_IDS))
)
_CLASSES = (
    sa.select(
        tables.image_class.c.image_id,
        tables.klass.c.name,
        sa.func.max(tables.image_class.c.score).label("best"),
        sa.func.max(tables.image_class.c.boxes),
    )
    .join_from(tables.image_class, tables.klass)
    .where(tables.image_class.c.image_id.in_(_IDS))
    .group_by(tables.image_class.c.image_id, tables.image_class.c.class_id)
)
_BOXES = (
    sa.select(
        tables.box.c.image_id,
        tables.klass.c.name,
        tables.box.c.score,
        tables.box.c.x0,
        tables.box.c.y0,
        tables.box.c.x1,
        tables.box.c.y1,
        tables.box.c.analyzer_id,
        tables.box.c.flags,
        tables.box.c.attributes,
    )
    .join_from(tables.box, tables.klass)
    .where(tables.box.c.image_id.in_(_IDS))
)
_ANALYSES = sa.select(tables.analysis.c.image_id, tables.analysis.c.analyzer_id).where(
    tables.analysis.c.image_id.in_(_IDS)
)
"""Written once: putting a statement together takes longer than running it for a page."""


def images(
    connection: sa.Connection, ids: Sequence[int], analyzers: Sequence[Analyzer] | None = None
) -> list[IndexedImage]:
    """Images by id with all that is known, in the order of ids; unknown ids are left out.

    Args:
        analyzers: those of the catalog, where they were read already.
    """
    names = {one.id: one.name for one in analyzers or all_analyzers(connection)}
    found: list[IndexedImage] = []
    for part in slices(ids):
        found += _some_images(connection, part, names)
    return found


def _some_images(
    connection: sa.Connection, ids: Sequence[int], names: Mapping[int, str]
) -> list[IndexedImage]:
    wanted = {"ids": list(ids)}
    classes: dict[int, list[FoundClass]] = defaultdict(list)
    for image_id, name, score, number in connection.execute(_CLASSES, wanted).all():
        classes[image_id].append(FoundClass(name, score / SCORE_SCALE, number))
    boxes: dict[int, list[FoundBox]] = defaultdict(list)
    for row in connection.execute(_BOXES, wanted).all():
        image_id, name, score, x0, y0, x1, y1, analyzer, bits, more = row
        corners = (x0, y0, x1, y1)
        flags = unpacked_flags(bits) if bits else {}
        box = FoundBox(
            name, score / SCORE_SCALE, corners, names[analyzer], flags, more or {}, analyzer
        )
        boxes[image_id].append(box)
    analyses: dict[int, list[int]] = defaultdict(list)
    for image_id, analyzer in sorted(connection.execute(_ANALYSES, wanted).all()):
        analyses[image_id].append(analyzer)
    rows = {row.id: row for row in connection.execute(_IMAGES, wanted).all()}
    return [
        IndexedImage(
            id=row.id,
            source=row.uri,
            key=row.key,
            width=row.width,
            height=row.height,
            size_bytes=row.size_bytes,
            version=row.version,
            status=row.status,
            reason=row.reason,
            error=row.error,
            indexed_at=row.indexed_at,
            classes=tuple(sorted(classes[row.id], key=_rank)),
            boxes=tuple(sorted(boxes[row.id], key=_rank)),
            models=tuple(names[analyzer] for analyzer in analyses[row.id]),
            analyzer_ids=tuple(analyses[row.id]),
            warning=row.warning,
            attributes=row.attributes or {},
        )
        for row in (rows[id_] for id_ in ids if id_ in rows)
    ]


def unpacked_flags(bits: int | None) -> dict[str, bool]:
    """What writing.packed_flags() made of the flags."""
    pairs = ((name, (bits or 0) >> 2 * i & 3) for i, name in enumerate(FLAGS))
    return {name: value == 2 for name, value in pairs if value}


def _rank(found: FoundClass | FoundBox) -> tuple[float, str]:
    return -found.score, found.class_name


class Analyzer(NamedTuple):
    """A model with parameters, as the catalog knows it."""

    id: int
    name: str
    sha256: str
    task: str


_ANALYZERS = sa.select(
    tables.analyzer.c.id, tables.model.c.name, tables.model.c.sha256, tables.model.c.task
).join_from(tables.analyzer, tables.model)


def all_analyzers(connection: sa.Connection) -> list[Analyzer]:
    """Every analyzer of the catalog: a handful."""
    return [Analyzer(*row) for row in connection.execute(_ANALYZERS).all()]


def find_image(connection: sa.Connection, reference: str) -> int | None:
    """The id of an image given by its id or its whole path or URI."""
    image, source = tables.image, tables.source
    if re.fullmatch("[0-9]{1,18}", reference):
        query = sa.select(image.c.id).where(image.c.id == int(reference))
        if (found := connection.execute(query).scalar()) is not None:
            return int(found)
    whole = [reference, "file://" + quote(reference)]  # keys of manifests
    for row in connection.execute(sa.select(source)):
        root = row.uri.rstrip("/") + "/"
        keys = [reference[len(root) :]] if reference.startswith(root) else whole
        query = sa.select(image.c.id).where(image.c.source_id == row.id, image.c.key.in_(keys))
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
        BadImage(row.id, image_address(row.uri, row.key), row.reason, row.error, row.size_bytes)
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
        image.c.attributes,
        analyses.label("analyses"),
    )
    query = sa.select(*columns).where(image.c.source_id == source_id).order_by(image.c.key)
    return query if after is None else query.where(image.c.key > after)


def model_card(connection: sa.Connection, sha256: str) -> dict[str, Any]:
    """What is known of a model; empty where the catalog does not have it."""
    query = sa.select(tables.model.c.card).where(tables.model.c.sha256 == sha256)
    card = connection.execute(query).scalar()
    return {} if card is None else dict(json.loads(card))


def class_names(connection: sa.Connection, analyzer_id: int) -> tuple[str, ...]:
    """The classes that an analyzer has found in some image, sorted."""
    table, klass = tables.class_count, tables.klass
    query = (
        sa.select(klass.c.name)
        .join_from(table, klass, table.c.class_id == klass.c.id)
        .where(table.c.analyzer_id == analyzer_id, table.c.images > 0)
    )
    return tuple(sorted(connection.execute(query).scalars()))


def known_sizes(
    connection: sa.Connection, source_id: int, keys: Sequence[str]
) -> dict[str, tuple[str, int, int]]:
    """Version, width and height of the images of a source that could be decoded, by key."""
    image = tables.image
    known: dict[str, tuple[str, int, int]] = {}
    for part in slices(keys):
        query = sa.select(image.c.key, image.c.version, image.c.width, image.c.height).where(
            image.c.source_id == source_id, image.c.key.in_(part), image.c.width > 0
        )
        for key, version, width, height in connection.execute(query):
            known[key] = version, width, height
    return known


def shared_keys(connection: sa.Connection) -> set[str]:
    """The keys that images of more than one source have."""
    key = tables.image.c.key
    query = sa.select(key).group_by(key).having(sa.func.count() > 1)
    return set(connection.execute(query).scalars())


def classes_of(
    connection: sa.Connection, image_ids: Sequence[int], analyzer_id: int
) -> dict[int, list[FoundClass]]:
    """What one analyzer says of images as a whole, by id: by falling score, then name."""
    table, klass = tables.image_class, tables.klass
    found: dict[int, list[FoundClass]] = defaultdict(list)
    for part in slices(image_ids):
        query = (
            sa.select(table.c.image_id, klass.c.name, table.c.score, table.c.boxes)
            .join_from(table, klass)
            .where(table.c.image_id.in_(part), table.c.analyzer_id == analyzer_id)
        )
        for image_id, name, score, boxes in connection.execute(query):
            found[image_id].append(FoundClass(name, score / SCORE_SCALE, boxes))
    return {image_id: sorted(classes, key=_rank) for image_id, classes in found.items()}


def annotated(connection: sa.Connection, image_ids: Sequence[int]) -> set[int]:
    """Which of these images have imported annotations."""
    model, analyzer, analysis = tables.model, tables.analyzer, tables.analysis
    found: set[int] = set()
    for part in slices(image_ids):
        query = (
            sa.select(analysis.c.image_id)
            .join_from(analysis, analyzer)
            .join(model)
            .where(
                analysis.c.image_id.in_(part),
                model.c.sha256.startswith(ANNOTATIONS, autoescape=True),
            )
        )
        found.update(connection.execute(query).scalars())
    return found
