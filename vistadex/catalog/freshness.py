"""What answers depend on beside the query: they hold as long as this stays the same."""

from __future__ import annotations

from typing import TypeAlias

import sqlalchemy as sa

from vistadex.catalog import tables

Freshness: TypeAlias = frozenset[tuple[str | int | None, ...]]

_STATE, _CHANGE, _SOURCE = tables.state, tables.change, tables.source
_MODEL, _ANALYZER = tables.model, tables.analyzer
_ROWS = sa.union_all(
    sa.select(_STATE.c.uuid, _CHANGE.c.token, _STATE.c.revision, sa.literal(0)).select_from(
        _STATE.outerjoin(_CHANGE, _CHANGE.c.revision == _STATE.c.revision)
    ),
    sa.select(_SOURCE.c.uri, _SOURCE.c.image_url, _SOURCE.c.images, _SOURCE.c.id),
    sa.select(_MODEL.c.name, _MODEL.c.sha256, _ANALYZER.c.images, _ANALYZER.c.id).join_from(
        _ANALYZER, _MODEL
    ),
)


def freshness(connection: sa.Connection) -> Freshness:
    """The last change of results, the sources and the models, in one statement.

    Collections, attributes of images and which are copies may change without it.
    """
    return frozenset(tuple(row) for row in connection.execute(_ROWS))
