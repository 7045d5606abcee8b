"""What choosing images by chance needs of the catalog: who has a class, and what images are called.

Millions of them: numbers are arrays, and names pass by a slice at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from vistadex import grammar
from vistadex.catalog import registering, resolving, tables
from vistadex.catalog.answering import Answers
from vistadex.catalog.counting import slices
from vistadex.records import IntArray


def known_classes(connection: sa.Connection, names: Sequence[str]) -> tuple[str, ...]:
    """The classes as the catalog writes them, in their order and each once.

    Raises: QueryError for an unknown class, with the nearest known ones.
    """
    ids = list(dict.fromkeys(resolving.class_ids(connection, names)))
    klass = tables.klass
    found: dict[int, str] = {}
    for part in slices(ids):
        query = sa.select(klass.c.id, klass.c.name).where(klass.c.id.in_(part))
        found.update((id_, name) for id_, name in connection.execute(query))
    return tuple(found[id_] for id_ in ids)


def every_class(connection: sa.Connection) -> tuple[str, ...]:
    """The names of all classes, sorted, also of those that no image has."""
    return tuple(sorted(connection.execute(sa.select(tables.klass.c.name)).scalars()))


def with_class(
    connection: sa.Connection, class_name: str, analyzer_ids: Sequence[int], min_score: int
) -> IntArray:
    """The ids of the images in which one of these analyzers has found a class, rising.

    Args:
        min_score: in millionths.
    """
    query = grammar.Query(terms=(grammar.Term(class_name),), min_score=min_score)
    scope = resolving.resolve(connection, query, registering.all_analyzers(connection))
    one = len(analyzer_ids) <= 1
    scope = replace(scope, analyzer_ids=tuple(analyzer_ids), one_analyzer=one)
    return np.sort(np.array(Answers(connection).every_id(scope), np.int64))


def found_by(connection: sa.Connection, query: str) -> IntArray:
    """The ids of all images that a query finds, rising.

    Raises: QueryError.
    """
    parsed = grammar.parse(query)
    scope = resolving.resolve(connection, parsed, registering.all_analyzers(connection))
    return np.sort(np.array(Answers(connection).every_id(scope), np.int64))


def names_of(connection: sa.Connection, ids: Sequence[int]) -> Iterator[tuple[int, str, str]]:
    """Id, source and key of those of these images that are there or were never read."""
    image, source = tables.image, tables.source
    sources = {row.id: str(row.uri) for row in connection.execute(sa.select(source))}
    wanted: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
    query = sa.select(image.c.id, image.c.source_id, image.c.key).where(
        image.c.id.in_(wanted), image.c.status.in_(("ok", "unseen"))
    )
    for part in slices(ids):
        for id_, source_id, key in connection.execute(query, {"ids": list(part)}):
            yield id_, sources[source_id], key


def vocabulary(
    connection: sa.Connection,
) -> tuple[dict[str, str], dict[str, str], tuple[tuple[str, str], ...]]:
    """What is said of classes by name: their own ids, descriptions, and class and parent."""
    klass, parent = tables.klass, tables.class_parent
    query = sa.select(klass).where(
        klass.c.external_id.is_not(None) | klass.c.description.is_not(None)
    )
    rows = connection.execute(query).all()
    ids = {row.name: row.external_id for row in rows if row.external_id is not None}
    texts = {row.name: row.description for row in rows if row.description is not None}
    above = klass.alias("above")
    pairs = (
        sa.select(klass.c.name, above.c.name)
        .join_from(parent, klass, parent.c.class_id == klass.c.id)
        .join(above, parent.c.parent_id == above.c.id)
    )
    parents = sorted((child, upper) for child, upper in connection.execute(pairs))
    return ids, texts, tuple(parents)
