"""Images with all that is known of them: classes, boxes, relations, and who says so."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.counting import slices
from vistadex.catalog.packing import triplets
from vistadex.catalog.registering import KnownAnalyzer, all_analyzers
from vistadex.records import FLAGS, SCORE_SCALE, Flags, Json, image_address


class FoundClass(NamedTuple):
    """A class of one image: its best score and how many boxes."""

    class_name: str
    score: float
    boxes: int


class FoundRelation(NamedTuple):
    """A relation in one image, with both boxes where they are known."""

    subject: str
    predicate: str
    object: str
    score: float
    subject_xyxy: tuple[float, float, float, float] | None
    object_xyxy: tuple[float, float, float, float] | None
    model: str
    analyzer_id: int = 0


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
    """ok, failed, vanished: gone from its source since it was indexed, or unseen: never read, known
    from annotations alone. Boxes of an unseen image stand in a frame of NOMINAL_SIDE squared where
    only fractions are known of them; its width and height are 0 where nothing says them."""
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
    relations: tuple[FoundRelation, ...] = ()
    """By falling score."""
    absent: tuple[str, ...] = ()
    """Classes that people have looked for and not found."""
    image_url: str | None = None
    """Where the picture is shown from, where it was never read."""
    content_hash: bytes | None = None
    """BLAKE2b of the file's bytes, 16 bytes long."""
    perceptual_hash: int | None = None
    """64 bits of what the picture looks like, as a signed number."""

    @property
    def uri(self) -> str:
        """Where the picture is: a path or s3://bucket/key."""
        return image_address(self.source, self.key)


_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
_IMAGES = (
    sa.select(tables.image, tables.source.c.uri, tables.source.c.image_url)
    .join_from(tables.image, tables.source)
    .where(tables.image.c.id.in_(_IDS))
)
ANALYSES = (
    sa.select(tables.analysis.c.image_id, tables.analysis.c.analyzer_id, tables.analysis.c.classes)
    .where(tables.analysis.c.image_id.in_(_IDS))
    .order_by(tables.analysis.c.image_id, tables.analysis.c.analyzer_id)
)
_BOXES = sa.select(
    tables.box.c.image_id,
    tables.box.c.class_id,
    tables.box.c.score,
    tables.box.c.x0,
    tables.box.c.y0,
    tables.box.c.x1,
    tables.box.c.y1,
    tables.box.c.analyzer_id,
    tables.box.c.flags,
    tables.box.c.attributes,
).where(tables.box.c.image_id.in_(_IDS))
_RELATIONS = sa.select(tables.relation).where(tables.relation.c.image_id.in_(_IDS))
"""Written once: putting a statement together takes longer than running it for a page."""


def images(
    connection: sa.Connection, ids: Sequence[int], analyzers: Sequence[KnownAnalyzer] | None = None
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
    connection: sa.Connection, ids: Sequence[int], analyzers: Mapping[int, str]
) -> list[IndexedImage]:
    wanted = {"ids": list(ids)}
    said: dict[int, _Said] = defaultdict(_Said)
    for image_id, analyzer_id, classes_ in connection.execute(ANALYSES, wanted).all():
        said[image_id].add(analyzer_id, classes_)
    names = names_of(connection, set[int]().union(*(one.best for one in said.values())))
    boxes = _boxes(connection, wanted, names, analyzers)
    relation_rows = connection.execute(_RELATIONS, wanted).all()
    relations = _relations(connection, relation_rows, analyzers)
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
            classes=said[row.id].found(names),
            boxes=tuple(sorted(boxes[row.id], key=rank)) if row.id in boxes else (),
            models=tuple(analyzers[analyzer] for analyzer in said[row.id].analyzer_ids),
            analyzer_ids=tuple(said[row.id].analyzer_ids),
            warning=row.warning,
            attributes=row.attributes or {},
            relations=tuple(relations[row.id]) if row.id in relations else (),
            absent=said[row.id].absent(names),
            image_url=picture_url(row.image_url, row.key, row.attributes or {}),
            content_hash=row.content_hash,
            perceptual_hash=row.perceptual_hash,
        )
        for row in (rows[id_] for id_ in ids if id_ in rows)
    ]


def _boxes(
    connection: sa.Connection,
    wanted: Mapping[str, list[int]],
    names: Mapping[int, str],
    analyzers: Mapping[int, str],
) -> dict[int, list[FoundBox]]:
    """Boxes by image."""
    boxes: dict[int, list[FoundBox]] = defaultdict(list)
    for image_id, class_id, score, x0, y0, x1, y1, analyzer_id, bits, more in connection.execute(
        _BOXES, wanted
    ).all():
        boxes[image_id].append(
            FoundBox(
                names[class_id],
                score / SCORE_SCALE,
                (x0, y0, x1, y1),
                analyzers[analyzer_id],
                unpacked_flags(bits),
                more or _NOTHING,
                analyzer_id,
            )
        )
    return boxes


_NOTHING: Mapping[str, Json] = MappingProxyType({})


@dataclass(slots=True)
class _Said:
    """What all analyzers say of one image as a whole."""

    analyzer_ids: list[int] = field(default_factory=list)
    best: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Best score and most boxes by class id; both 0 where it was looked for and is not there."""

    def add(self, analyzer_id: int, packed: bytes | None) -> None:
        self.analyzer_ids.append(analyzer_id)
        best = self.best
        for class_id, score, boxes in triplets(packed):
            known = best.get(class_id)
            best[class_id] = (
                (score, boxes) if known is None else (max(score, known[0]), max(boxes, known[1]))
            )

    def found(self, names: Mapping[int, str]) -> tuple[FoundClass, ...]:
        found = (
            FoundClass(names[class_id], score / SCORE_SCALE, boxes)
            for class_id, (score, boxes) in self.best.items()
            if score or boxes
        )
        return tuple(sorted(found, key=rank))

    def absent(self, names: Mapping[int, str]) -> tuple[str, ...]:
        absent = [names[one] for one, best in self.best.items() if best == (0, 0)]
        return tuple(sorted(absent)) if absent else ()


def names_of(
    connection: sa.Connection, ids: Collection[int], table: sa.Table = tables.klass
) -> dict[int, str]:
    """Names of classes or predicates by id. Reading connections remember them."""
    writes = connection.get_execution_options().get("write", False)
    known: dict[int, str] = {} if writes else connection.info.setdefault(table.name, {})
    missing = [id_ for id_ in ids if id_ not in known]
    for part in slices(missing):
        query = sa.select(table.c.id, table.c.name).where(table.c.id.in_(part))
        known.update((id_, name) for id_, name in connection.execute(query))
    return known


def _relations(
    connection: sa.Connection, rows: Sequence[Any], analyzers: Mapping[int, str]
) -> dict[int, list[FoundRelation]]:
    """Relations by image, by falling score."""
    found: dict[int, list[FoundRelation]] = defaultdict(list)
    if not rows:
        return found
    types = types_of(connection, sorted({row.type_id for row in rows}))
    for row in sorted(rows, key=lambda row: (-row.score, row.analyzer_id, row.ordinal)):
        values = tuple(row)[5:]
        corners = [values[:4], values[4:]]
        subject, object_ = (None if None in one else one for one in corners)
        score, model = row.score / SCORE_SCALE, analyzers[row.analyzer_id]
        found[row.image_id].append(
            FoundRelation(*types[row.type_id], score, subject, object_, model, row.analyzer_id)
        )
    return found


def types_of(connection: sa.Connection, type_ids: Sequence[int]) -> dict[int, tuple[str, str, str]]:
    """Subject, predicate and object of relation types by id; remembered like names."""
    table = tables.relation_type
    writes = connection.get_execution_options().get("write", False)
    known: dict[int, tuple[str, str, str]] = (
        {} if writes else connection.info.setdefault(table.name, {})
    )
    rows: list[Any] = []
    for part in slices([id_ for id_ in type_ids if id_ not in known]):
        rows += connection.execute(sa.select(table).where(table.c.id.in_(part))).all()
    if rows:
        ids = {id_ for row in rows for id_ in (row.subject_id, row.object_id)}
        names = names_of(connection, ids)
        predicates = names_of(connection, {row.predicate_id for row in rows}, PREDICATES)
        known.update(
            (row.id, (names[row.subject_id], predicates[row.predicate_id], names[row.object_id]))
            for row in rows
        )
    return known


PREDICATES = tables.predicate
"""For names_of()."""
_FIELD = re.compile(r"\{([^{}]*)\}")


def picture_url(template: str | None, key: str, attributes: Mapping[str, Json]) -> str | None:
    """Where a picture is shown from; None where the template names what is not known of it."""
    if template is None:
        return None
    stem = key.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    values: Mapping[str, Json] = {"image_id": stem, "key": key, **attributes}
    if any(values.get(name) is None for name in _FIELD.findall(template)):
        return None
    if _FIELD.fullmatch(template):  # an attribute that is a whole address
        return str(values[template[1:-1]])
    return _FIELD.sub(lambda match: quote(str(values[match[1]]), safe="/:"), template)


@cache
def unpacked_flags(bits: int | None) -> Mapping[str, bool]:
    """What results.packed_flags() made of the flags."""
    pairs = ((name, (bits or 0) >> 2 * i & 3) for i, name in enumerate(FLAGS))
    return {name: value == 2 for name, value in pairs if value}


def rank(found: FoundClass | FoundBox) -> tuple[float, str]:
    """By falling score, then name."""
    return -found.score, found.class_name
