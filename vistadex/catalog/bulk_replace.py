"""What a bulk load does with images that the catalog has: these origins' results anew."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import tables, writing
from vistadex.catalog.attributes import sets_by_id, whole
from vistadex.catalog.bulk_reading import ChunkRows, Numbers
from vistadex.catalog.counting import slices
from vistadex.catalog.packing import unpack
from vistadex.catalog.registering import RegisteredAnalyzer
from vistadex.formats.columns import UNKNOWN, Kind
from vistadex.records import (
    FLAGS,
    NOMINAL_SIDE,
    SCORE_SCALE,
    Classification,
    Detections,
    ImageEntry,
    Json,
    Outcome,
    Relation,
    Relations,
    Result,
)

IMAGES_AT_A_TIME = 2000
_Box: TypeAlias = tuple[float, ...]
_Corners: TypeAlias = tuple[float | None, ...]


@dataclass(slots=True)
class _Said:
    """What the origins of a load say of an image, in the image's own frame."""

    classes: dict[int, bytes | None] = field(default_factory=dict)
    """By analyzer."""
    boxes: list[tuple[int, int, int | None, _Box]] = field(default_factory=list)
    """Class, score, flags and corners."""
    relations: list[tuple[int, int, _Corners]] = field(default_factory=list)
    """Type, score and corners of both boxes."""


def replace(
    connection: sa.Connection,
    rows: ChunkRows,
    numbers: Numbers,
    known: Mapping[str, Any],
) -> int:
    """Puts what is said now in place of what was said before; of how many images that differs.

    Args:
        rows: of images that the catalog has.
        known: id, width, height, attributes and what their sets say, by key.
    """
    images = [known[key] for key in rows.keys]
    now = _said_now(rows, images)
    before = _said_before(connection, [row.id for row in images], list(numbers.analyzers.values()))
    attributes = _described(connection, rows, numbers)
    changed = [
        i
        for i, row in enumerate(images)
        if now[i] != before[row.id] or _says_more(attributes[i], whole(row.attributes, row.shared))
    ]
    makes = _Outcomes(connection, numbers)
    for start in range(0, len(changed), IMAGES_AT_A_TIME):
        outcomes = [
            makes.outcome(ImageEntry(rows.keys[i], None, "", attributes=attributes[i]), now[i])
            for i in changed[start : start + IMAGES_AT_A_TIME]
        ]
        writing.write_annotations(connection, numbers.source, makes.analyzers, outcomes)
    return len(changed)


def _described(
    connection: sa.Connection, rows: ChunkRows, numbers: Numbers
) -> list[dict[str, Json]]:
    """What is said of each image, alone and with others."""
    shared = sets_by_id(connection, numbers.sets.tolist())
    sets: list[dict[str, Json] | None] = [shared[one] for one in numbers.sets.tolist()]
    sets.append(None)  # so that NO_SET is the last
    return [
        whole(json.loads(own) if own else None, sets[i])
        for own, i in zip(rows.attributes, rows.set_of.tolist(), strict=True)
    ]


def _says_more(said: Mapping[str, Json], known: Mapping[str, Json]) -> bool:
    return any(known.get(name) != one for name, one in said.items())


def _said_now(rows: ChunkRows, images: Sequence[sa.Row[Any]]) -> list[_Said]:
    """By the number of the image."""
    said = [_Said() for _ in images]
    seen = rows.analyses
    for i, analyzer, packed in zip(
        seen.images.tolist(), seen.analyzers.tolist(), seen.classes, strict=True
    ):
        said[i].classes[analyzer] = packed
    sizes = [(row.width or NOMINAL_SIDE, row.height or NOMINAL_SIDE) for row in images]
    boxes = rows.boxes
    for i, class_id, score, flags, corners in zip(
        *(one.tolist() for one in (boxes.images, boxes.classes, boxes.scores, boxes.flags)),
        boxes.corners.tolist(),
        strict=True,
    ):
        said[i].boxes.append((class_id, score, flags or None, _scaled(corners, sizes[i])))
    relations = rows.relations
    for i, type_id, score, corners in zip(
        *(one.tolist() for one in (relations.images, relations.types, relations.scores)),
        relations.corners.tolist(),
        strict=True,
    ):
        said[i].relations.append((type_id, score, _scaled(corners, sizes[i])))
    return said


def _scaled(corners: Sequence[int], size_wh: tuple[int, int]) -> tuple[Any, ...]:
    """Corners in millionths in the frame of the image; None where they are unknown."""
    return tuple(
        None if corner == UNKNOWN else corner * size_wh[i % 2] / NOMINAL_SIDE
        for i, corner in enumerate(corners)
    )


def _said_before(
    connection: sa.Connection, ids: Sequence[int], analyzers: Sequence[int]
) -> defaultdict[int, _Said]:
    """By image id."""
    said: defaultdict[int, _Said] = defaultdict(_Said)
    analysis, box, relation = tables.analysis, tables.box, tables.relation
    for part in slices(ids):
        for table in (analysis, box, relation):
            query = sa.select(*_columns(table)).where(
                table.c.image_id.in_(part), table.c.analyzer_id.in_(analyzers)
            )
            for id_, first, *rest in connection.execute(query.order_by(*table.primary_key)):
                if table is analysis:
                    said[id_].classes[first] = rest[0]
                elif table is box:
                    said[id_].boxes.append((first, rest[0], rest[1], tuple(rest[2:])))
                else:
                    said[id_].relations.append((first, rest[0], tuple(rest[1:])))
    return said


def _columns(table: sa.Table) -> list[sa.Column[Any]]:
    if table is tables.analysis:
        names = ["analyzer_id", "classes"]
    elif table is tables.box:
        names = ["class_id", "score", "flags", "x0", "y0", "x1", "y1"]
    else:
        ends = ("x0", "y0", "x1", "y1")
        names = ["type_id", "score", *(f"{p}_{e}" for p in ("subject", "object") for e in ends)]
    return [table.c[name] for name in ("image_id", *names)]


class _Outcomes:
    """Makes outcomes of what is said."""

    def __init__(self, connection: sa.Connection, numbers: Numbers) -> None:
        self.origins: list[tuple[int, Kind]] = [
            (analyzer, kind) for (_, kind), analyzer in numbers.analyzers.items()
        ]
        most = int(numbers.classes.max(initial=0))
        self.analyzers = [
            RegisteredAnalyzer(analyzer, tuple(range(most + 1))) for analyzer, _ in self.origins
        ]
        self.types = _triplets(connection, numbers.types.tolist())

    def outcome(self, entry: ImageEntry, said: _Said) -> Outcome:
        """What the catalog gets of one image."""
        results: list[Result | None] = []
        for analyzer, kind in self.origins:
            if analyzer not in said.classes:
                results.append(None)
            elif kind == "labels":
                results.append(_classification(said.classes[analyzer]))
            else:
                results.append(_detections(said) if kind == "boxes" else self._relations(said))
        return Outcome(entry, NOMINAL_SIDE, NOMINAL_SIDE, tuple(results), seen=False)

    def _relations(self, said: _Said) -> Relations:
        return Relations(
            tuple(
                Relation(*self.types[type_id], _half(c[:4]), _half(c[4:]), score / SCORE_SCALE)
                for type_id, score, c in said.relations
            )
        )


def _half(corners: _Corners) -> tuple[float, float, float, float] | None:
    x0, y0, x1, y1 = corners
    if x0 is None or y0 is None or x1 is None or y1 is None:
        return None
    return x0, y0, x1, y1


def _classification(packed: bytes | None) -> Classification:
    classes = unpack(packed)
    return Classification(
        np.array([one.score / SCORE_SCALE for one in classes], np.float64),
        np.array([one.class_id for one in classes], np.int64),
    )


def _detections(said: _Said) -> Detections:
    return Detections(
        np.array([corners for *_, corners in said.boxes], np.float64).reshape(-1, 4),
        np.array([score / SCORE_SCALE for _, score, _, _ in said.boxes], np.float64),
        np.array([class_id for class_id, *_ in said.boxes], np.int64),
        [_flags(flags or 0) for _, _, flags, _ in said.boxes],
    )


def _flags(packed: int) -> dict[str, bool]:
    """The opposite of results.packed_flags."""
    values = {name: packed >> 2 * i & 3 for i, name in enumerate(FLAGS)}
    return {name: value == 2 for name, value in values.items() if value}


def _triplets(
    connection: sa.Connection, type_ids: Sequence[int]
) -> dict[int, tuple[str, str, str]]:
    """The names in relation types."""
    table, predicate = tables.relation_type, tables.predicate
    subject, object_ = tables.klass.alias(), tables.klass.alias()
    joined = (
        table.join(subject, subject.c.id == table.c.subject_id)
        .join(predicate, predicate.c.id == table.c.predicate_id)
        .join(object_, object_.c.id == table.c.object_id)
    )
    query = sa.select(table.c.id, subject.c.name, predicate.c.name, object_.c.name)
    found: dict[int, tuple[str, str, str]] = {}
    for part in slices(type_ids):
        for id_, *names in connection.execute(
            query.select_from(joined).where(table.c.id.in_(part))
        ):
            found[id_] = (names[0], names[1], names[2])
    return found
