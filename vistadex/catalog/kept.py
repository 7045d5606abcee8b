"""What the catalog knows of one source by its address: how much it holds, and images by key."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from vistadex.catalog import tables
from vistadex.catalog.counting import slices


def held_bytes(connection: sa.Connection, source_uri: str) -> int:
    """The bytes of all images of a source that have not vanished; 0 where it is unknown."""
    image, source = tables.image, tables.source
    query = sa.select(sa.func.coalesce(sa.func.sum(image.c.size_bytes), 0)).join_from(image, source)
    query = query.where(source.c.uri == source_uri, image.c.status != "vanished")
    return int(connection.execute(query).scalar_one())


def ids_by_key(connection: sa.Connection, source_uri: str, keys: Collection[str]) -> dict[str, int]:
    """Ids of those images of a source that the catalog knows by these keys."""
    image, source = tables.image, tables.source
    found: dict[str, int] = {}
    for part in slices(sorted(keys)):
        query = sa.select(image.c.key, image.c.id).join_from(image, source)
        query = query.where(source.c.uri == source_uri, image.c.key.in_(part))
        found.update({row.key: row.id for row in connection.execute(query)})
    return found
