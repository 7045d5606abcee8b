"""A bulk load into an empty catalog on a server: one transaction, tables in the order of keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import Catalog, bulk_insert, bulk_postgresql, changes, tables, writing
from vistadex.catalog.bulk_ranking import RankSpool, spools
from vistadex.catalog.bulk_reading import Numbers, Spooled
from vistadex.catalog.counting import add_to_analyzers
from vistadex.progress import Progress

Register: TypeAlias = Callable[[sa.Connection], Numbers]
FILLED = (
    tables.image,
    *tables.RESULT_TABLES,
    tables.class_count,
    tables.relation_count,
    tables.predicate_count,
)
"""What has to be empty, and gets rows."""


def build(catalog: Catalog, spooled: Spooled, register: Register, progress: Progress) -> bool:
    """Enters everything into a catalog without images; False: it has some, nothing was done.

    Rows that rank come in the order of their primary key, and counts once for all images: by
    chunks, a server would look for the place of each row, and add to each count again and again.
    Where the connection is lost, all is entered again.
    """
    entered = catalog.transaction(lambda one: _entered(one, spooled, register, progress))
    if entered:
        catalog.transaction(_analyze)
    return entered


def _analyze(connection: sa.Connection) -> None:
    """Lets the server count what it has: else it plans as for empty tables for some time."""
    word = "ANALYZE" if connection.dialect.name == "postgresql" else "ANALYZE TABLE"
    quote = connection.dialect.identifier_preparer.quote
    for table in tables.metadata.sorted_tables:
        connection.exec_driver_sql(f"{word} {quote(table.name)}")


def _entered(
    connection: sa.Connection, spooled: Spooled, register: Register, progress: Progress
) -> bool:
    for table in FILLED:
        query = sa.select(sa.literal(1)).select_from(table).limit(1)
        if connection.execute(query).first() is not None:
            return False
    numbers = register(connection)
    ranking = spools(spooled, numbers)
    for chunk in range(spooled.chunks):
        _enter_chunk(connection, spooled, chunk, numbers, ranking)
        done = min((chunk + 1) * spooled.size, spooled.images)
        progress.update(listed=spooled.images, listing=False, done=done, failed=0)
    for spool, names in zip(ranking, (bulk_insert.OF_CLASSES, bulk_insert.OF_TYPES), strict=True):
        for part in range(spool.ranges):
            for table, columns, rows in bulk_insert.rank_tables(spool.rows(part), names):
                bulk_insert.insert(connection, table, columns, rows)
    _count_predicates(connection)
    writing.add_to_source(connection, numbers.source, spooled.images)
    add_to_analyzers(connection, spooled.seen())
    bulk_postgresql.set_number(connection, tables.image)
    changes.note(connection, None)
    return True


def _enter_chunk(
    connection: sa.Connection,
    spooled: Spooled,
    chunk: int,
    numbers: Numbers,
    ranking: tuple[RankSpool, RankSpool],
) -> None:
    rows = spooled.chunk(chunk, numbers)
    first = chunk * spooled.size + 1
    ids = np.arange(first, first + len(rows.keys))
    now = spooled.work.marks["now"]
    for table, columns, number in bulk_insert.chunk_tables(rows, ids, numbers, now):
        bulk_insert.insert(connection, table, columns, number)
    for spool, ranked in zip(ranking, (rows.classes, rows.types), strict=True):
        spool.add(chunk, ranked)
    spooled.note(chunk, rows)


def _count_predicates(connection: sa.Connection) -> None:
    """Counts images and relations of each predicate, by analyzer and of any."""
    ranked, type_, count = tables.image_relation, tables.relation_type, tables.predicate_count
    predicate, analyzer = type_.c.predicate_id, ranked.c.analyzer_id
    images = sa.func.count(ranked.c.image_id.distinct())
    joined = sa.select().select_from(ranked.join(type_, type_.c.id == ranked.c.type_id))
    for shown, groups in (
        (analyzer, (predicate, analyzer)),
        (sa.literal(tables.ANY_ANALYZER), (predicate,)),
    ):
        counted = joined.add_columns(predicate, shown, images, sa.func.sum(ranked.c.relations))
        into = sa.insert(count).from_select(list(count.c.keys()), counted.group_by(*groups))
        connection.execute(into)
