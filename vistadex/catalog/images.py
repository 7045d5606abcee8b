"""Images with all that is known of them: classes, boxes, relations, and who says so."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.attributes import sets_by_id, whole
from vistadex.catalog.counting import slices
from vistadex.catalog.lookup import Lookup
from vistadex.catalog.packing import triplets
from vistadex.catalog.registering import KnownAnalyzer, all_analyzers
from vistadex.records import FLAGS, SCORE_SCALE, Flags, Json, image_address

T = TypeVar("T", "FoundClass", "FoundBox")


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


class IndexedImage(NamedTuple):
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
    attributes: Mapping[str, Json] = MappingProxyType({})
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


ANALYSES = Lookup(
    sa.select(tables.analysis.c.image_id, tables.analysis.c.analyzer_id, tables.analysis.c.classes),
    tables.analysis.c.image_id,
    order=(tables.analysis.c.image_id, tables.analysis.c.analyzer_id),
)
_IMAGES = Lookup(
    sa.select(
        tables.image.c.id,
        tables.source.c.uri,
        tables.image.c.key,
        tables.image.c.width,
        tables.image.c.height,
        tables.image.c.size_bytes,
        tables.image.c.version,
        tables.image.c.status,
        tables.image.c.reason,
        tables.image.c.error,
        tables.image.c.indexed_at,
        tables.image.c.warning,
        tables.image.c.content_hash,
        tables.image.c.perceptual_hash,
        tables.source.c.image_url,
        tables.image.c.attributes,
        tables.image.c.attribute_set_id,
    ).join_from(tables.image, tables.source),
    tables.image.c.id,
)
_BOXES = Lookup(
    sa.select(
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
    ),
    tables.box.c.image_id,
    order=(tables.box.c.image_id, tables.box.c.analyzer_id, tables.box.c.ordinal),
)
_RELATIONS = Lookup(
    sa.select(
        tables.relation.c.image_id,
        tables.relation.c.type_id,
        tables.relation.c.score,
        tables.relation.c.analyzer_id,
        *tables.relation.c[5:],
    ),
    tables.relation.c.image_id,
    order=(tables.relation.c.image_id, tables.relation.c.analyzer_id, tables.relation.c.ordinal),
)


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
    said = _said(connection, ids)
    names = names_of(connection, set[int]().union(*(one.best for one in said.values())))
    boxes = _boxes(connection, ids, names, analyzers)
    silent = [id_ for id_, one in said.items() if one.is_silent]
    relations = _relations(connection, silent, analyzers)
    columns = _IMAGES.columns(connection, ids)
    rows = dict(zip(columns[0], zip(*columns, strict=True), strict=True))
    shared = attributes_of_sets(connection, columns[-1])

    def found(id_: int) -> IndexedImage:
        *first, warning, content_hash, perceptual_hash, template, own, set_id = rows[id_]
        one = said.get(id_, _NOTHING_SAID)
        attributes = own or {} if set_id is None else whole(own, shared[set_id])
        return IndexedImage._make(  # names of fields would take as long again
            (
                *first,
                one.found(names),
                ranked(boxes[id_]) if id_ in boxes else (),
                tuple([analyzers[analyzer] for analyzer in one.analyzer_ids]),
                tuple(one.analyzer_ids),
                warning,
                attributes,
                tuple(relations[id_]) if id_ in relations else (),
                one.absent(names),
                picture_url(template, first[2], attributes),
                content_hash,
                perceptual_hash,
            )
        )

    return [found(id_) for id_ in ids if id_ in rows]


@dataclass(slots=True)
class _Said:
    """What all analyzers say of one image as a whole."""

    analyzer_ids: list[int] = field(default_factory=list)
    best: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Best score and most boxes by class id; both 0 where it was looked for and is not there."""
    is_silent: bool = False
    """Whether an analyzer names no classes: what it says are relations, or nothing."""

    def add(self, analyzer_id: int, packed: bytes | None) -> None:
        self.analyzer_ids.append(analyzer_id)
        if packed is None:
            self.is_silent = True
            return
        best = self.best
        for class_id, score, boxes in triplets(packed):
            known = best.get(class_id)
            best[class_id] = (
                (score, boxes) if known is None else (max(score, known[0]), max(boxes, known[1]))
            )

    def found(self, names: Mapping[int, str]) -> tuple[FoundClass, ...]:
        return ranked(
            [
                FoundClass(names[class_id], score / SCORE_SCALE, boxes)
                for class_id, (score, boxes) in self.best.items()
                if score or boxes
            ]
        )

    def absent(self, names: Mapping[int, str]) -> tuple[str, ...]:
        absent = [names[one] for one, best in self.best.items() if best == _ABSENT]
        return tuple(sorted(absent)) if absent else ()


_NOTHING_SAID = _Said()
_ABSENT = 0, 0


def _said(connection: sa.Connection, ids: Sequence[int]) -> dict[int, _Said]:
    """What is said of images, by id."""
    said: dict[int, _Said] = defaultdict(_Said)
    for image_id, *analysis in zip(*ANALYSES.columns(connection, ids), strict=True):
        said[image_id].add(*analysis)
    return said


def _boxes(
    connection: sa.Connection,
    ids: Sequence[int],
    names: Mapping[int, str],
    analyzers: Mapping[int, str],
) -> dict[int, list[FoundBox]]:
    """Boxes by image."""
    image_ids, class_ids, scores, x0, y0, x1, y1, analyzer_ids, flags, attributes = _BOXES.columns(
        connection, ids
    )
    found = map(
        FoundBox,
        map(names.__getitem__, class_ids),
        [score / SCORE_SCALE for score in scores],
        zip(x0, y0, x1, y1, strict=True),
        map(analyzers.__getitem__, analyzer_ids),
        map(unpacked_flags, flags),
        [more or _NOTHING for more in attributes],
        analyzer_ids,
    )
    boxes: dict[int, list[FoundBox]] = defaultdict(list)
    for image_id, box in zip(image_ids, found, strict=True):
        boxes[image_id].append(box)
    return boxes


_NOTHING: Mapping[str, Json] = MappingProxyType({})


def _relations(
    connection: sa.Connection, ids: Collection[int], analyzers: Mapping[int, str]
) -> dict[int, list[FoundRelation]]:
    """Relations by image, by falling score."""
    image_ids, type_ids, scores, analyzer_ids, *corners = _RELATIONS.columns(connection, ids)
    found: dict[int, list[FoundRelation]] = defaultdict(list)
    if not image_ids:
        return found
    types = types_of(connection, sorted(set(type_ids)))
    relations = map(
        FoundRelation,
        *zip(*(types[type_id] for type_id in type_ids), strict=True),
        [score / SCORE_SCALE for score in scores],
        [None if None in one else one for one in zip(*corners[:4], strict=True)],
        [None if None in one else one for one in zip(*corners[4:], strict=True)],
        map(analyzers.__getitem__, analyzer_ids),
        analyzer_ids,
    )
    for image_id, relation in zip(image_ids, relations, strict=True):
        found[image_id].append(relation)
    for some in found.values():
        some.sort(key=_BY_SCORE, reverse=True)
    return found


_BY_SCORE = attrgetter("score")
_BY_NAME = attrgetter("class_name")


def ranked(found: Iterable[T]) -> tuple[T, ...]:
    """Classes or boxes by falling score, then name, else in the order that they are in."""
    # Two sorts by a field each are quicker than one by a key that has to be made.
    in_order = sorted(found, key=_BY_NAME)
    in_order.sort(key=_BY_SCORE, reverse=True)
    return tuple(in_order)


def names_of(
    connection: sa.Connection, ids: Collection[int], table: sa.Table = tables.klass
) -> dict[int, str]:
    """Names of classes or predicates by id. Reading connections remember them."""
    known: dict[int, str] = remembered(connection, table.name)
    missing = [id_ for id_ in ids if id_ not in known]
    for part in slices(missing):
        query = sa.select(table.c.id, table.c.name).where(table.c.id.in_(part))
        known.update((id_, name) for id_, name in connection.execute(query))
    return known


def remembered(connection: sa.Connection, what: str) -> dict[Any, Any]:
    """What a connection knows of rows that never change; nothing where it writes: what it reads may
    be rolled back."""
    writes = connection.get_execution_options().get("write", False)
    return {} if writes else connection.info.setdefault(what, {})


def attributes_of_sets(
    connection: sa.Connection, ids: Iterable[int | None]
) -> dict[int, Mapping[str, Json]]:
    """What sets of attributes say, by id, None left out; remembered like names."""
    known: dict[int, Mapping[str, Json]] = remembered(connection, tables.attribute_set.name)
    missing = {id_ for id_ in ids if id_ is not None and id_ not in known}
    if missing:
        known.update(sets_by_id(connection, missing))
    return known


def types_of(connection: sa.Connection, type_ids: Sequence[int]) -> dict[int, tuple[str, str, str]]:
    """Subject, predicate and object of relation types by id; remembered like names."""
    table = tables.relation_type
    known: dict[int, tuple[str, str, str]] = remembered(connection, table.name)
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
