"""What is in a catalog: numbers that are kept in it, and how many images are bad."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import NamedTuple

import sqlalchemy as sa

from vistadex.catalog import postings_building, tables
from vistadex.catalog.postings import Identity
from vistadex.catalog.reading import ModelStats, SourceStats, Stats

_IMAGE = tables.image
# The index of bad images has them alone: SQLite takes it where a query says so in its words.
_BAD = (
    sa.select(_IMAGE.c.source_id, _IMAGE.c.status, _IMAGE.c.reason, sa.func.count())
    .where(
        _IMAGE.c.status.in_(("failed", "vanished")),
        _IMAGE.c.status != "ok",
        _IMAGE.c.status != "unseen",
    )
    .group_by(_IMAGE.c.source_id, _IMAGE.c.status, _IMAGE.c.reason)
)


_COUNT = tables.class_count
_CLASSES = sa.select(sa.func.count(), sa.func.sum(_COUNT.c.boxes)).where(
    _COUNT.c.analyzer_id == tables.ANY_ANALYZER, _COUNT.c.images > 0
)


class _Bad(NamedTuple):
    """Some bad images."""

    source_id: int
    status: str
    reason: str
    images: int


class _Counted(NamedTuple):
    """What is counted anew when the catalog has changed."""

    state: Identity
    bad: tuple[_Bad, ...]
    classes: int
    boxes: int


class KnownTotals:
    """The totals of a catalog; what has to be counted is kept until it changes. Safe to use from
    several threads.
    """

    def __init__(self) -> None:
        self._known: _Counted | None = None
        self._lock = threading.Lock()

    def stats(self, connection: sa.Connection) -> Stats:
        """What is in the catalog as this transaction sees it."""
        known = self._counted(connection)
        of: Counter[tuple[int, str]] = Counter()
        failures: Counter[str] = Counter()
        for one in known.bad:
            of[one.source_id, one.status] += one.images
            if one.status == "failed":
                failures[one.reason] += one.images
        source = tables.source
        sources = tuple(
            SourceStats(row.uri, row.images, of[row.id, "failed"], of[row.id, "vanished"])
            for row in connection.execute(sa.select(source).order_by(source.c.uri))
        )
        return Stats(
            sum(one.images for one in sources),
            sum(one.failed for one in sources),
            sum(one.vanished for one in sources),
            known.boxes,
            known.classes,
            sources,
            _models(connection),
            dict(failures.most_common()),
        )

    def _counted(self, connection: sa.Connection) -> _Counted:
        state = postings_building.identity(connection)
        with self._lock:
            if self._known is None or self._known.state != state:
                bad = tuple(_Bad(*row) for row in connection.execute(_BAD))
                classes, boxes = connection.execute(_CLASSES).one()
                self._known = _Counted(state, bad, classes, int(boxes or 0))
            return self._known


def _models(connection: sa.Connection) -> tuple[ModelStats, ...]:
    model, analyzer = tables.model, tables.analyzer
    columns = (
        model.c.name,
        model.c.sha256,
        model.c.task,
        analyzer.c.parameters,
        analyzer.c.images,
    )
    query = sa.select(*columns).join_from(analyzer, model).order_by(analyzer.c.id)
    return tuple(
        ModelStats(name, sha256, task, json.loads(parameters), images)
        for name, sha256, task, parameters, images in connection.execute(query)
    )
