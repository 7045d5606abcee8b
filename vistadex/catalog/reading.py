"""Reading the catalog: images with all that is known of them, classes, bad images, totals."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.attributes import whole
from vistadex.catalog.counting import slices
from vistadex.catalog.images import FoundClass, names_of, ranked, types_of
from vistadex.catalog.packing import unpack
from vistadex.catalog.tables import ANY_ANALYZER
from vistadex.errors import UsageError
from vistadex.records import (
    FAILURE_REASONS,
    SCORE_SCALE,
    Json,
    image_address,
)


class ClassCount(NamedTuple):
    """A class with how many images and boxes have it."""

    class_name: str
    images: int
    boxes: int


@dataclass(frozen=True, slots=True)
class RelationCount:
    """A relation type with how many images and triplets have it."""

    subject: str
    predicate: str
    object: str
    images: int
    relations: int


@dataclass(frozen=True, slots=True)
class PredicateCount:
    """A predicate with how many images and triplets have it."""

    predicate: str
    images: int
    relations: int


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


def revision(connection: sa.Connection) -> int:
    """The number of the last change of results."""
    return int(connection.execute(sa.select(tables.state.c.revision)).scalar_one())


def rows_of_classes(connection: sa.Connection) -> int:
    """How many pairs of image and class there are, each counted once."""
    table = tables.class_count
    query = sa.select(sa.func.sum(table.c.images)).where(table.c.analyzer_id == ANY_ANALYZER)
    return int(connection.execute(query).scalar() or 0)


def relations(connection: sa.Connection, type_ids: Sequence[int]) -> list[RelationCount]:
    """These relation types as far as some image has them, most images first."""
    table = tables.relation_count
    wanted = set(type_ids)
    query = sa.select(table.c.type_id, table.c.images, table.c.relations).where(
        table.c.analyzer_id == ANY_ANALYZER, table.c.images > 0
    )
    rows = [row for row in connection.execute(query) if row.type_id in wanted]
    types = types_of(connection, [row.type_id for row in rows])
    found = [RelationCount(*types[row.type_id], row.images, row.relations) for row in rows]
    return sorted(found, key=lambda one: (-one.images, one.subject, one.predicate, one.object))


def predicates(connection: sa.Connection) -> list[PredicateCount]:
    """Every predicate that some image has, most images first."""
    table, predicate = tables.predicate_count, tables.predicate
    query = (
        sa.select(predicate.c.name, table.c.images, table.c.relations)
        .join_from(table, predicate)
        .where(table.c.analyzer_id == ANY_ANALYZER, table.c.images > 0)
    )
    found = [PredicateCount(*row) for row in connection.execute(query)]
    return sorted(found, key=lambda one: (-one.images, one.predicate))


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
    return [_known(row) for row in connection.execute(query)]


def failed_images(
    connection: sa.Connection, source_id: int, after: str | None, at_most: int
) -> list[KnownImage]:
    """Failed images of a source with after < key (None: no bound), by key."""
    query = _planning(source_id, sa.literal(0), after).limit(at_most)
    rows = connection.execute(query.where(tables.image.c.status == "failed"))
    return [_known(row) for row in rows]


def _planning(source_id: int, analyses: sa.ColumnElement[int], after: str | None) -> sa.Select[Any]:
    """The columns of KnownImage and what its set of attributes says, by key."""
    image, shared = tables.image, tables.attribute_set
    columns = (
        image.c.id,
        image.c.key,
        image.c.version,
        image.c.size_bytes,
        image.c.status,
        image.c.reason,
        image.c.attributes,
        analyses.label("analyses"),
        shared.c.attributes,
    )
    described = image.outerjoin(shared, image.c.attribute_set_id == shared.c.id)
    query = sa.select(*columns).select_from(described)
    query = query.where(image.c.source_id == source_id).order_by(image.c.key)
    return query if after is None else query.where(image.c.key > after)


def _known(row: sa.Row[Any]) -> KnownImage:
    *columns, own, analyses, shared = tuple(row)
    return KnownImage(*(*columns, whole(own, shared) or None, analyses))


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
    """What one analyzer says of images as a whole, by id: by falling score, then name.

    Score 0 and no box: people have looked for the class, and it is not there.
    """
    table = tables.analysis
    packed: dict[int, bytes | None] = {}
    for part in slices(image_ids):
        query = sa.select(table.c.image_id, table.c.classes).where(
            table.c.image_id.in_(part), table.c.analyzer_id == analyzer_id
        )
        packed.update((image_id, classes_) for image_id, classes_ in connection.execute(query))
    said = {image_id: unpack(classes_) for image_id, classes_ in packed.items()}
    names = names_of(connection, {one.class_id for some in said.values() for one in some})
    return {
        image_id: list(
            ranked(FoundClass(names[id_], score / SCORE_SCALE, boxes) for id_, score, boxes in some)
        )
        for image_id, some in said.items()
    }


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
