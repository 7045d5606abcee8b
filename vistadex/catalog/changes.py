"""The log of changes: what is derived from the catalog reads here what is no longer true."""

from __future__ import annotations

import secrets
from collections.abc import Collection

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import tables

KEPT = 20_000
"""Changes that stay in the log; what is derived from an older state is made anew."""


def note(connection: sa.Connection, image_ids: Collection[int] | None) -> None:
    """Says that this transaction changes the results of these images; None: of any.

    The connection is that of a writing transaction, so that revisions are committed in order.
    """
    if image_ids is not None and not image_ids:
        return
    state, change = tables.state, tables.change
    connection.execute(sa.update(state).values(revision=state.c.revision + 1))
    revision = connection.execute(sa.select(state.c.revision)).scalar_one()
    ids = None if image_ids is None else np.array(sorted(image_ids), "<i8").tobytes()
    row = {"revision": revision, "token": secrets.token_hex(16), "images": ids}
    connection.execute(sa.insert(change).values(**row))
    if revision % 1000 == 0:
        connection.execute(sa.delete(change).where(change.c.revision <= revision - KEPT))
