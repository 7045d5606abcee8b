"""A bulk load into a catalog that has something already: a chunk of images in each transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vistadex.catalog import Catalog, bulk_insert, bulk_postgresql, changes, tables, writing
from vistadex.catalog.bulk_chunks import (
    Analyses,
    BoxRows,
    Ints,
    Ranking,
    RelationRows,
)
from vistadex.catalog.bulk_ranking import Counted, count
from vistadex.catalog.bulk_reading import ChunkRows, Numbers, Spooled
from vistadex.catalog.bulk_replace import replace
from vistadex.catalog.counting import Counts, predicates_of, slices
from vistadex.progress import Progress

Mask: TypeAlias = NDArray[np.bool_]


def merge(catalog: Catalog, spooled: Spooled, numbers: Numbers, progress: Progress) -> int:
    """Enters everything; how many images were new or known otherwise.

    Images that the catalog has so are passed by. Of the others, what these origins say now is put
    in place of what they said before. Images that the set does not list any more stay.
    """
    changed = 0
    now = spooled.work.marks["now"]
    for number in range(spooled.chunks):
        rows = spooled.chunk(number, numbers)
        chunk = _Chunk(rows, numbers, now)
        changed += catalog.transaction(chunk.write)
        spooled.note(number, rows)
        done = min((number + 1) * spooled.size, spooled.images)
        progress.update(listed=spooled.images, listing=False, done=done, failed=0)
    return changed


@dataclass(frozen=True, slots=True)
class _Chunk:
    """The rows of a chunk, on their way into the catalog."""

    rows: ChunkRows
    numbers: Numbers
    now: int

    def write(self, connection: sa.Connection) -> int:
        """Enters the chunk; how many images were changed."""
        known = _known(connection, self.numbers.source, self.rows.keys)
        is_new = np.array([key not in known for key in self.rows.keys], bool)
        changed = int(is_new.sum())
        if changed:
            self._insert(connection, is_new)
        if changed < len(is_new):
            again = _only(self.rows, ~is_new)
            changed += replace(connection, again, self.numbers, known)
        return changed

    def _insert(self, connection: sa.Connection, is_new: Mask) -> None:
        """Inserts everything about new images, counts included."""
        image = tables.image
        rows = self.rows if is_new.all() else _only(self.rows, is_new)
        first = 1 + (connection.execute(sa.select(sa.func.max(image.c.id))).scalar() or 0)
        ids = np.arange(first, first + len(rows.keys))
        for table, columns, number in bulk_insert.chunk_tables(rows, ids, self.numbers, self.now):
            bulk_insert.insert(connection, table, columns, number)
        bulk_postgresql.set_number(connection, image)
        counts = Counts()
        counts.seen.update(rows.analyses.analyzers.tolist())
        for table, ranking, key, number_of, tally in (
            (tables.image_class, rows.classes, "class_id", "boxes", counts.classes),
            (tables.image_relation, rows.types, "type_id", "relations", counts.types),
        ):
            ordered = _by_key(ranking)
            columns = bulk_insert.ranking_columns(ordered, ids, key, number_of)
            bulk_insert.insert(connection, table, columns, len(ordered.keys))
            _add(tally, count(ordered))
        _add(counts.predicates, count(_by_key(_by_predicate(connection, rows.types))))
        counts.write(connection)
        writing.add_to_source(connection, self.numbers.source, len(ids))
        changes.note(connection, ids.tolist())


def _known(connection: sa.Connection, source_id: int, keys: Sequence[str]) -> dict[str, Any]:
    """Rows of the images of a source that the catalog has, by key."""
    source, image = tables.source, tables.image
    query = sa.select(source.c.images).where(source.c.id == source_id)
    if not connection.execute(query).scalar_one():
        return {}
    known: dict[str, Any] = {}
    shared = tables.attribute_set
    columns = (image.c.key, image.c.id, image.c.width, image.c.height, image.c.attributes)
    chosen = (
        sa.select(*columns, shared.c.attributes.label("shared"))
        .select_from(image.outerjoin(shared, image.c.attribute_set_id == shared.c.id))
        .where(image.c.source_id == source_id)
    )
    for part in slices(keys):
        for row in connection.execute(chosen.where(image.c.key.in_(part))):
            known[row.key] = row
    return known


def _only(rows: ChunkRows, chosen: Mask) -> ChunkRows:
    """The rows of some images, which are numbered anew."""
    numbers = np.cumsum(chosen) - 1
    at = np.flatnonzero(chosen).tolist()
    seen, boxes, relations = rows.analyses, rows.boxes, rows.relations
    kept, boxed, related = chosen[seen.images], chosen[boxes.images], chosen[relations.images]
    return ChunkRows(
        [rows.keys[i] for i in at],
        [rows.attributes[i] for i in at],
        rows.set_of[at],
        Analyses(
            numbers[seen.images[kept]],
            seen.analyzers[kept],
            [seen.classes[i] for i in np.flatnonzero(kept).tolist()],
        ),
        _some_ranked(rows.classes, chosen, numbers),
        BoxRows(
            numbers[boxes.images[boxed]],
            boxes.ordinals[boxed],
            boxes.classes[boxed],
            boxes.scores[boxed],
            boxes.corners[boxed],
            boxes.flags[boxed],
        ),
        RelationRows(
            numbers[relations.images[related]],
            relations.ordinals[related],
            relations.types[related],
            relations.scores[related],
            relations.corners[related],
        ),
        _some_ranked(rows.types, chosen, numbers),
        rows.repeated,
        rows.contradictions,
    )


def _some_ranked(ranking: Ranking, chosen: Mask, numbers: Ints) -> Ranking:
    kept = chosen[ranking.images]
    return Ranking(
        ranking.keys[kept],
        ranking.scores[kept],
        numbers[ranking.images[kept]],
        ranking.analyzers[kept],
        ranking.numbers[kept],
    )


def _by_key(ranking: Ranking) -> Ranking:
    """In the order of the primary key of image_class and image_relation."""
    order = np.lexsort((ranking.analyzers, ranking.images, ranking.scores, ranking.keys))
    return Ranking(
        ranking.keys[order],
        ranking.scores[order],
        ranking.images[order],
        ranking.analyzers[order],
        ranking.numbers[order],
    )


def _by_predicate(connection: sa.Connection, types: Ranking) -> Ranking:
    """Rows of image_relation with predicates in place of types, each image once for each."""
    if not len(types.keys):
        return types
    unique, inverse = np.unique(types.keys, return_inverse=True)
    predicates = predicates_of(connection, unique.tolist())
    keys = np.array([predicates[one] for one in unique.tolist()], np.int64)[inverse]
    triples = np.stack([keys, types.images, types.analyzers], axis=1)
    rows, at = np.unique(triples, axis=0, return_inverse=True)
    numbers = np.bincount(at.reshape(-1), types.numbers).astype(np.int64)
    return Ranking(rows[:, 0], np.zeros(len(rows), np.int64), rows[:, 1], rows[:, 2], numbers)


def _add(tally: Any, counted: Counted) -> None:
    """Adds counts to those of a transaction."""
    pairs = zip(counted.keys.tolist(), counted.analyzers.tolist(), strict=True)
    images, numbers = counted.images.tolist(), counted.numbers.tolist()
    for pair, more_images, more in zip(pairs, images, numbers, strict=True):
        tally.images[pair] += more_images
        tally.numbers[pair] += more
