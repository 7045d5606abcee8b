"""Boxes of images to derive relations from: whose wait for it, what they are, what came of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import changes, tables
from vistadex.catalog.counting import Counts, slices
from vistadex.catalog.images import names_of, unpacked_flags
from vistadex.catalog.reading import revision
from vistadex.catalog.results import delete_results
from vistadex.catalog.writing import GEOMETRY
from vistadex.records import SCORE_SCALE, IntArray


class Boxes(NamedTuple):
    """The boxes of one image in one version, as the catalog has them."""

    version: str
    size_wh: tuple[int, int]
    boxes_xyxy: list[tuple[float, float, float, float]]
    class_names: list[str]
    scores: list[float]
    crowds: int
    """Boxes that are not among them: nobody knows where in them a thing is."""


def parameters_hash(connection: sa.Connection, analyzer_id: int) -> str:
    """What tells the parameters of an analyzer from others of its model."""
    analyzer = tables.analyzer
    query = sa.select(analyzer.c.parameters_hash).where(analyzer.c.id == analyzer_id)
    return str(connection.execute(query).scalar_one())


def analyzed(connection: sa.Connection, detector_id: int) -> IntArray:
    """Rising ids of the images in which a detector has looked for boxes."""
    return _ids(connection, _analyzed(detector_id))


def waiting(
    connection: sa.Connection,
    detector_id: int,
    relater_id: int,
    image_ids: Sequence[int] | None = None,
) -> IntArray:
    """Those of the analyzed() images, or of some of them, that a relater has not looked at."""
    done, image = tables.analysis.alias("done"), tables.image
    same = sa.select(sa.literal(1)).where(
        done.c.image_id == image.c.id,
        done.c.analyzer_id == relater_id,
        done.c.version == image.c.version,
    )
    query = _analyzed(detector_id).where(~same.correlate(image).exists())
    if image_ids is None:
        return _ids(connection, query)
    parts = [
        _ids(connection, query.where(image.c.id.in_(part))) for part in slices(sorted(image_ids))
    ]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _analyzed(detector_id: int) -> sa.Select[tuple[int]]:
    analysis, image = tables.analysis, tables.image
    return (
        sa.select(analysis.c.image_id)
        .join_from(analysis, image)
        .where(analysis.c.analyzer_id == detector_id, analysis.c.classes.is_not(None))
    )


def _ids(connection: sa.Connection, query: sa.Select[tuple[int]]) -> IntArray:
    rows = connection.execute(query.execution_options(yield_per=10_000)).scalars()
    return np.unique(np.fromiter(rows, np.int64))


def boxes_of(
    connection: sa.Connection, image_ids: Sequence[int], detector_id: int
) -> dict[int, Boxes]:
    """The boxes of images by id, those that are marked as crowds left out."""
    image, box = tables.image, tables.box
    found: dict[int, Boxes] = {}
    for part in slices(image_ids):
        columns = (image.c.id, image.c.version, image.c.width, image.c.height)
        query = sa.select(*columns).where(image.c.id.in_(part))
        for id_, version, width, height in connection.execute(query):
            found[id_] = Boxes(version, (width, height), [], [], [], 0)
        some = sa.select(box).where(box.c.image_id.in_(part), box.c.analyzer_id == detector_id)
        rows = connection.execute(some.order_by(box.c.image_id, box.c.ordinal)).all()
        names = names_of(connection, {row.class_id for row in rows})
        for row in rows:
            one = found[row.image_id]
            if row.flags and unpacked_flags(row.flags).get("crowd", False):
                found[row.image_id] = one._replace(crowds=one.crowds + 1)
                continue
            one.boxes_xyxy.append((row.x0, row.y0, row.x1, row.y1))
            one.class_names.append(names[row.class_id])
            one.scores.append(row.score / SCORE_SCALE)
    return found


def remove_superseded(
    connection: sa.Connection, detector_id: int, relater_id: int, image_ids: Sequence[int]
) -> None:
    """Removes what was derived from the same boxes otherwise: other definitions or parameters.

    Part of the caller's writing transaction, counts and log included.
    """
    older = _derived_from(connection, detector_id) - {relater_id}
    having = _having(connection, older, image_ids) if older else []
    if not having:
        return
    counts = Counts()
    counts.add_images(connection, having, -1)
    delete_results(connection, having, older)
    counts.add_images(connection, having, +1)
    counts.write(connection)
    changes.note(connection, having)


def _derived_from(connection: sa.Connection, detector_id: int) -> set[int]:
    """Ids of the analyzers that derive relations from the boxes of one."""
    model, analyzer = tables.model, tables.analyzer
    query = sa.select(analyzer.c.id, analyzer.c.parameters).join_from(analyzer, model)
    rows = connection.execute(query.where(model.c.task == "relater", model.c.name == GEOMETRY))
    return {id_ for id_, said in rows if json.loads(said).get("of_analyzer") == detector_id}


def _having(
    connection: sa.Connection, analyzer_ids: Collection[int], image_ids: Sequence[int]
) -> list[int]:
    """Those of the images that have results of any of these analyzers."""
    analysis = tables.analysis
    found: set[int] = set()
    for part in slices(image_ids):
        query = sa.select(analysis.c.image_id).where(
            analysis.c.image_id.in_(part), analysis.c.analyzer_id.in_(sorted(analyzer_ids))
        )
        found.update(connection.execute(query).scalars())
    return sorted(found)


def changed_since(connection: sa.Connection, before: int, image_ids: Sequence[int]) -> set[int]:
    """Which of these images have other results than at a revision, or may have."""
    change = tables.change
    query = sa.select(change.c.images).where(change.c.revision > before)
    parts = list(connection.execute(query).scalars())
    if len(parts) != revision(connection) - before or None in parts:
        return set(image_ids)
    changed: set[int] = set()
    for part in parts:
        changed.update(np.frombuffer(part, "<i8").tolist())
    return changed & set(image_ids)
