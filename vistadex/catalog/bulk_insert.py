"""Rows of a chunk into the tables of a catalog, the quickest way that its database has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import bulk_sqlite, tables
from vistadex.catalog.bulk_chunks import Ints, Ranking
from vistadex.catalog.bulk_reading import ChunkRows, Numbers
from vistadex.formats.columns import UNKNOWN
from vistadex.records import NOMINAL_SIDE

CORNERS = ("x0", "y0", "x1", "y1")
ROWS_AT_A_TIME = 20_000
"""Of rows that are held as objects."""


def chunk_tables(
    rows: ChunkRows, ids: Ints, numbers: Numbers, now: int
) -> Iterator[tuple[sa.Table, Mapping[str, Any], int]]:
    """The new rows of every table by image that is ordered by image: columns, and how many.

    Args:
        ids: of the images by their number in the chunk.
        now: Unix seconds.
    """
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
        "flags": bulk_sqlite.Nullable(rows.boxes.flags, 0),
    }
    yield tables.box, boxes, len(rows.boxes.images)
    names = [f"{part}_{corner}" for part in ("subject", "object") for corner in CORNERS]
    corners = [bulk_sqlite.Nullable(one, UNKNOWN) for one in rows.relations.corners.T]
    relations: dict[str, Any] = {
        "image_id": ids[rows.relations.images],
        "analyzer_id": numbers.analyzers.get(("", "relations"), 0),
        "ordinal": rows.relations.ordinals,
        "type_id": rows.relations.types,
        "score": rows.relations.scores,
        **dict(zip(names, corners, strict=True)),
    }
    yield tables.relation, relations, len(rows.relations.images)


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
    elif connection.dialect.driver == "psycopg":
        _copy(connection, table, columns, rows)
    else:
        names = list(columns)
        for part in _parts(columns, rows):
            values = [dict(zip(names, row, strict=True)) for row in part]
            connection.execute(_plain(table, names), values)


def _plain(table: sa.Table, names: list[str]) -> sa.Insert:
    """Values as they are: attributes are JSON text already."""
    columns = {name: sa.bindparam(name, type_=_type(table.c[name])) for name in names}
    return sa.insert(table).values(columns)


def _type(column: sa.Column[Any]) -> Any:
    return sa.Text() if isinstance(column.type, sa.JSON) else column.type


def _copy(
    connection: sa.Connection, table: sa.Table, columns: Mapping[str, Any], rows: int
) -> None:
    """PostgreSQL's COPY."""
    quote = connection.dialect.identifier_preparer.quote
    statement = f"COPY {quote(table.name)} ({','.join(map(quote, columns))}) FROM STDIN"
    cursor: Any = connection.connection.cursor()
    try:
        with cursor.copy(statement) as copy:
            for part in _parts(columns, rows):
                for row in part:
                    copy.write_row(row)
    finally:
        cursor.close()


def _parts(columns: Mapping[str, Any], rows: int) -> Iterator[list[tuple[Any, ...]]]:
    """Rows as tuples, some at a time."""
    for start in range(0, rows, ROWS_AT_A_TIME):
        end = min(start + ROWS_AT_A_TIME, rows)
        yield list(zip(*(_listed(one, start, end) for one in columns.values()), strict=True))


def _listed(values: Any, start: int, end: int) -> list[Any]:
    if isinstance(values, bulk_sqlite.Nullable):
        part = values.values[start:end].tolist()
        return [None if one == values.unknown else one for one in part]
    if isinstance(values, np.ndarray):
        listed: list[Any] = values[start:end].tolist()
        return listed
    return values[start:end] if isinstance(values, list) else [values] * (end - start)
