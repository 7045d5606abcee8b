"""Proof that posting lists say what the catalog says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import sqlalchemy as sa

from vistadex.catalog import search, tables
from vistadex.catalog.following import Following, View
from vistadex.catalog.scope import Scope, Wanted
from vistadex.catalog.tables import ANY_ANALYZER

PAGE = 50
PAGES = 100
"""Classes and relation types whose first pages are compared, the most common ones."""
WHAT = "that the posting lists have otherwise; delete their folder"


def differences(
    connection: sa.Connection, following: Following
) -> Iterator[tuple[str, str, Sequence[int]]]:
    """Table, what is wrong, and the ids of what differs; nothing where there are no lists."""
    view = following.current(connection)
    if view is None:
        return
    kinds: tuple[tuple[sa.Table, Literal["class", "relation"]], ...] = (
        (tables.class_count, "class"),
        (tables.relation_count, "relation"),
    )
    for table, kind in kinds:
        key = next(iter(table.primary_key))
        query = sa.select(key, table.c.images).where(
            table.c.analyzer_id == ANY_ANALYZER, table.c.images > 0
        )
        rows = connection.execute(query.order_by(table.c.images.desc(), key)).all()
        scopes = [(Scope((Wanted(kind, (id_,)),)), id_, images) for id_, images in rows]
        wrong = [id_ for scope, id_, images in scopes if view.count(scope) != images]
        if wrong:
            yield table.name, f"counts {WHAT} {following.folder}", wrong
        wrong = [id_ for scope, id_, _ in scopes[:PAGES] if not _same_page(connection, view, scope)]
        if wrong:
            yield table.name, f"first pages {WHAT} {following.folder}", wrong


def _same_page(connection: sa.Connection, view: View, scope: Scope) -> bool:
    return view.page(scope, PAGE) == search.page(connection, scope, PAGE, None)
