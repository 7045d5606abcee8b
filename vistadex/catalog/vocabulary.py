"""What the catalog knows of one class beside its counts: a description, its own id, its place."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from vistadex.catalog import tables


class DescribedClass(NamedTuple):
    """What a vocabulary says of a class."""

    description: str | None
    external_id: str | None
    parents: tuple[str, ...]
    """Names of the classes of which it is a kind, sorted."""
    children: tuple[str, ...]
    """Names of its own kinds, sorted."""


def described(connection: sa.Connection, class_name: str) -> DescribedClass | None:
    """What is said of a class; None where the catalog has no class of that name."""
    klass, link = tables.klass, tables.class_parent
    query = sa.select(klass).where(klass.c.name == class_name)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    names = sa.select(klass.c.name).order_by(klass.c.name)
    above = names.join(link, link.c.parent_id == klass.c.id).where(link.c.class_id == row.id)
    below = names.join(link, link.c.class_id == klass.c.id).where(link.c.parent_id == row.id)
    return DescribedClass(
        row.description,
        row.external_id,
        tuple(connection.execute(above).scalars()),
        tuple(connection.execute(below).scalars()),
    )
