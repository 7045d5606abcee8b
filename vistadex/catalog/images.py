"""Images with all that is known of them: classes, boxes, relations, and who says so."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import repeat
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.attributes import sets_by_id, whole
from vistadex.catalog.counting import slices
from vistadex.catalog.lookup import Lookup
from vistadex.catalog.packing import (
    BOXES_BITS,
    CLASS_AT,
    MOST_BOXES,
    MOST_SCORE,
    unpacked,
)
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


_Analysis: TypeAlias = Sequence[Any]
"""The id of an analyzer, and the classes that it names, packed; None: relations, or nothing."""
_Placed: TypeAlias = tuple[int, str, FoundClass]
"""A class behind what places it among others: its falling score, then its name."""
_ANALYSES = Lookup(
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
    connection: sa.Connection,
    ids: Sequence[int],
    analyzers: Sequence[KnownAnalyzer] | None = None,
    analyses: Analyses | None = None,
) -> list[IndexedImage]:
    """Images by id with all that is known, in the order of ids; unknown ids are left out.

    Args:
        analyzers: those of the catalog, where they were read already.
        analyses: likewise what analyzers say of some of the images.
    """
    names = {one.id: one.name for one in analyzers or all_analyzers(connection)}
    analyses = analyses or Analyses(connection)
    found: list[IndexedImage] = []
    for part in slices(ids):
        found += _some_images(connection, part, names, analyses.of(part))
    return found


class Analyses:
    """What analyzers say of images as a whole, read once in a transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self._known: dict[int, list[_Analysis]] = {}

    def of(self, ids: Sequence[int]) -> Mapping[int, Sequence[_Analysis]]:
        """For each of these images its analyzers, rising, and the classes that each has packed."""
        known = self._known
        missing = [id_ for id_ in ids if id_ not in known]
        for part in slices(missing):
            known.update((id_, []) for id_ in part)
            for image_id, *analysis in zip(*_ANALYSES.columns(self.connection, part), strict=True):
                known[image_id].append(analysis)
        return known


def _some_images(
    connection: sa.Connection,
    ids: Sequence[int],
    analyzers: Mapping[int, str],
    analyses: Mapping[int, Sequence[_Analysis]],
) -> list[IndexedImage]:
    columns = _IMAGES.columns(connection, ids)
    rows = dict(zip(columns[0], zip(*columns, strict=True), strict=True))
    shared = attributes_of_sets(connection, columns[-1])
    said = {id_: _words([packed for _, packed in analyses[id_] if packed]) for id_ in rows}
    known = _known_classes(connection, set().union(*said.values()))
    boxes = _boxes(connection, ids, analyzers)
    # Who names no classes says relations, or nothing.
    silent = [id_ for id_ in rows if any(packed is None for _, packed in analyses[id_])]
    relations = _relations(connection, silent, analyzers)

    def found(id_: int) -> IndexedImage:
        *first, warning, content_hash, perceptual_hash, template, own, set_id = rows[id_]
        classes, absent = _classes(said[id_], known)
        seen_by = tuple([analyzer for analyzer, _ in analyses[id_]])
        attributes = own or {} if set_id is None else whole(own, shared[set_id])
        return _new(
            IndexedImage,
            (
                *first,
                classes,
                boxes.get(id_, ()),
                tuple([analyzers[one] for one in seen_by]),
                seen_by,
                warning,
                attributes,
                relations.get(id_, ()),
                absent,
                picture_url(template, first[2], attributes),
                content_hash,
                perceptual_hash,
            ),
        )

    return [found(id_) for id_ in ids if id_ in rows]


_new = tuple.__new__
"""Makes a named tuple of a tuple in a third of the time that its own class takes."""


def _words(packed: Sequence[bytes]) -> Collection[int]:
    """Each class once, packed, with its best score and the most boxes that somebody says."""
    if len(packed) < 2:
        return unpacked(packed[0]) if packed else ()
    best: dict[int, int] = {}
    for word in unpacked(b"".join(packed)):
        class_id = word >> CLASS_AT
        known = best.setdefault(class_id, word)
        if known != word:
            boxes = max(known & MOST_BOXES, word & MOST_BOXES)
            best[class_id] = (known if known > word else word) & ~MOST_BOXES | boxes
    return best.values()


def _known_classes(connection: sa.Connection, words: Collection[int]) -> Mapping[int, _Placed]:
    """The classes that words stand for, remembered like names: most are in many images."""
    known: dict[int, _Placed] = remembered(connection, "classes with score and boxes")
    new = [word for word in words if word not in known]
    if new:
        if len(known) > MOST_PLACED:
            known.clear()
            new = list(words)
        names = names_of(connection, {word >> CLASS_AT for word in new})
        for word in new:
            name, score = names[word >> CLASS_AT], word >> BOXES_BITS & MOST_SCORE
            found = FoundClass(name, score / SCORE_SCALE, word & MOST_BOXES)
            known[word] = -score, name, found
    return known


MOST_PLACED = 20_000
"""Classes with a score and a number of boxes that a connection remembers: some 6 MB."""


def _classes(
    words: Collection[int], known: Mapping[int, _Placed]
) -> tuple[tuple[FoundClass, ...], tuple[str, ...]]:
    """Classes by falling score, then name, and the names of those that were not found."""
    placed = sorted([known[word] for word in words])
    if placed and not placed[-1][0]:  # a score of 0: looked for, or a box without a score
        absent = [name for _, name, one in placed if not (one.score or one.boxes)]
        return tuple([one for _, _, one in placed if one.score or one.boxes]), tuple(absent)
    return tuple([one for _, _, one in placed]), ()


def _boxes(
    connection: sa.Connection,
    ids: Sequence[int],
    analyzers: Mapping[int, str],
) -> dict[int, tuple[FoundBox, ...]]:
    """Boxes by image, by falling score, then name."""
    image_ids, class_ids, scores, x0, y0, x1, y1, analyzer_ids, flags, attributes = _BOXES.columns(
        connection, ids
    )
    names = names_of(connection, set(class_ids))
    fields = zip(
        map(names.__getitem__, class_ids),
        [score / SCORE_SCALE for score in scores],
        zip(x0, y0, x1, y1, strict=True),
        map(analyzers.__getitem__, analyzer_ids),
        map(unpacked_flags, flags),
        [more or _NOTHING for more in attributes],
        analyzer_ids,
        strict=True,
    )
    found = list(map(_new, repeat(FoundBox), fields))
    boxes: dict[int, tuple[FoundBox, ...]] = {}
    start = 0
    for image_id, number in Counter(image_ids).items():  # whose rows are side by side
        some = found[start : start + number]
        boxes[image_id] = ranked(some) if number > 1 else tuple(some)
        start += number
    return boxes


_NOTHING: Mapping[str, Json] = MappingProxyType({})


def _relations(
    connection: sa.Connection, ids: Collection[int], analyzers: Mapping[int, str]
) -> dict[int, tuple[FoundRelation, ...]]:
    """Relations by image, by falling score."""
    image_ids, type_ids, scores, analyzer_ids, *corners = _RELATIONS.columns(connection, ids)
    if not image_ids:
        return {}
    types = types_of(connection, sorted(set(type_ids)))
    fields = zip(
        *zip(*[types[type_id] for type_id in type_ids], strict=True),
        [score / SCORE_SCALE for score in scores],
        [None if None in one else one for one in zip(*corners[:4], strict=True)],
        [None if None in one else one for one in zip(*corners[4:], strict=True)],
        map(analyzers.__getitem__, analyzer_ids),
        analyzer_ids,
        strict=True,
    )
    found: dict[int, list[FoundRelation]] = defaultdict(list)
    for image_id, relation in zip(image_ids, map(_new, repeat(FoundRelation), fields), strict=True):
        found[image_id].append(relation)
    return {
        image_id: tuple(sorted(some, key=_BY_SCORE, reverse=True))
        for image_id, some in found.items()
    }


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
    texts, names = _parts(template)
    stem = key.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    own = {"key": key, "image_id": stem}
    found = [attributes.get(name, own.get(name)) for name in names]
    if None in found:
        return None
    values = list(map(str, found))
    if len(values) == 1 and not any(texts):  # an attribute that is a whole address
        return values[0]
    return texts[0] + "".join(
        [quote(value, safe="/:") + text for value, text in zip(values, texts[1:], strict=True)]
    )


@lru_cache(maxsize=256)
def _parts(template: str) -> tuple[Sequence[str], Sequence[str]]:
    """The texts of a template around its fields, and the names of these."""
    parts = _FIELD.split(template)
    return parts[::2], parts[1::2]


@cache
def unpacked_flags(bits: int | None) -> Mapping[str, bool]:
    """What results.packed_flags() made of the flags."""
    pairs = ((name, (bits or 0) >> 2 * i & 3) for i, name in enumerate(FLAGS))
    return {name: value == 2 for name, value in pairs if value}
