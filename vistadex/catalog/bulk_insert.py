"""Rows of a chunk into the tables of a catalog, the quickest way that its database has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import bulk_mysql, bulk_postgresql, bulk_sqlite, tables
from vistadex.catalog.bulk_chunks import Ints, Ranking
from vistadex.catalog.bulk_ranking import count
from vistadex.catalog.bulk_reading import ChunkRows, Numbers
from vistadex.catalog.bulk_spool import CHUNK
from vistadex.catalog.columns import Nullable
from vistadex.formats.columns import UNKNOWN
from vistadex.records import NOMINAL_SIDE

CORNERS = ("x0", "y0", "x1", "y1")
_NULL = 0
"""The id of no set; it stands last, where NO_SET is found."""


def chunk_tables(
    rows: ChunkRows, ids: Ints, numbers: Numbers, now: int
) -> Iterator[tuple[sa.Table, Mapping[str, Any], int]]:
    """The new rows of every table by image that is ordered by image: columns, and how many.

    Args:
        ids: of the images by their number in the chunk.
        now: Unix seconds.
    """
    sets = np.append(numbers.sets, _NULL)[rows.set_of]
    images: dict[str, Any] = {
        "id": ids,
        "source_id": numbers.source,
        "key": rows.keys,
        "version": "",
        "size_bytes": 0,
        "width": NOMINAL_SIDE,
        "height": NOMINAL_SIDE,
        "status": "unseen",
        "indexed_at": now,
        "attributes": rows.attributes,
        "attribute_set_id": Nullable(sets, _NULL),
    }
    yield tables.image, images, len(rows.keys)
    seen = rows.analyses
    analyses: dict[str, Any] = {
        "image_id": ids[seen.images],
        "analyzer_id": seen.analyzers,
        "version": "",
        "classes": seen.classes,
    }
    yield tables.analysis, analyses, len(seen.images)
    boxes: dict[str, Any] = {
        "image_id": ids[rows.boxes.images],
        "analyzer_id": numbers.analyzers.get(("", "boxes"), 0),
        "ordinal": rows.boxes.ordinals,
        "class_id": rows.boxes.classes,
        "score": rows.boxes.scores,
        **dict(zip(CORNERS, rows.boxes.corners.T, strict=True)),
        "flags": Nullable(rows.boxes.flags, 0),
    }
    yield tables.box, boxes, len(rows.boxes.images)
    names = [f"{part}_{corner}" for part in ("subject", "object") for corner in CORNERS]
    corners = [Nullable(one, UNKNOWN) for one in rows.relations.corners.T]
    relations: dict[str, Any] = {
        "image_id": ids[rows.relations.images],
        "analyzer_id": numbers.analyzers.get(("", "relations"), 0),
        "ordinal": rows.relations.ordinals,
        "type_id": rows.relations.types,
        "score": rows.relations.scores,
        **dict(zip(names, corners, strict=True)),
    }
    yield tables.relation, relations, len(rows.relations.images)


class Ranked(NamedTuple):
    """Where rows that rank stand, and their counts."""

    table: sa.Table
    counts: sa.Table
    key: str
    number: str


OF_CLASSES = Ranked(tables.image_class, tables.class_count, "class_id", "boxes")
OF_TYPES = Ranked(tables.image_relation, tables.relation_count, "type_id", "relations")


def rank_tables(rows: Ranking, names: Ranked) -> Iterator[tuple[sa.Table, Mapping[str, Any], int]]:
    """All rows of some keys in the order of the primary key, a part at a time; then their counts.

    Args:
        rows: of images by rank; the first has the id 1.
    """
    for start in range(0, len(rows.keys), CHUNK):
        some = slice(start, start + CHUNK)
        columns: dict[str, Any] = {
            names.key: rows.keys[some],
            "score": rows.scores[some],
            "image_id": rows.images[some] + 1,
            "analyzer_id": rows.analyzers[some],
            names.number: rows.numbers[some],
        }
        yield names.table, columns, len(rows.keys[some])
    found = count(rows)
    counts = {
        names.key: found.keys,
        "analyzer_id": found.analyzers,
        "images": found.images,
        names.number: found.numbers,
    }
    yield names.counts, counts, len(found.keys)


def ranking_columns(ranking: Ranking, ids: Ints, key: str, number: str) -> dict[str, Any]:
    """The columns of image_class or image_relation."""
    return {
        key: ranking.keys,
        "score": ranking.scores,
        "image_id": ids[ranking.images],
        "analyzer_id": ranking.analyzers,
        number: ranking.numbers,
    }


def insert(
    connection: sa.Connection, table: sa.Table, columns: Mapping[str, Any], rows: int
) -> None:
    """Inserts rows that are given by column, as bulk_sqlite.insert does."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        raw: Any = connection.connection.driver_connection
        bulk_sqlite.insert(raw, table.name, columns, rows)
    elif connection.dialect.name == "postgresql":
        bulk_postgresql.insert(connection, table, columns, rows)
    else:
        bulk_mysql.insert(connection, table, columns, rows)
