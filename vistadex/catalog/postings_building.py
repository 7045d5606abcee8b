"""Posting lists from the tables: of a whole catalog into files, or of some images into memory.

Rows are spooled as the tables have them, by image, and then brought into the order of their slots
a range of slots at a time, so that memory stays flat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import postings, postings_rows, tables
from vistadex.catalog.counting import predicates_of
from vistadex.catalog.facets import STATUS_CODE, size_bins
from vistadex.catalog.packing import columns
from vistadex.catalog.postings import MOST_NUMBER, NOT_BEST, Array, Folder, Identity, Memory
from vistadex.catalog.postings_rows import Batch, Columns
from vistadex.errors import CatalogError

SORTED_ROWS = 1 << 22
"""Rows that are brought into order at a time, unless one slot alone has more."""

Store: TypeAlias = Folder | Memory


class Rows(NamedTuple):
    """Rows of a table, (R,) each, by rising image and analyzer."""

    image: Array
    analyzer: Array
    key: Array
    score: Array
    number: Array


def identity(connection: sa.Connection) -> Identity:
    """The state of the catalog that this transaction sees."""
    state, change = tables.state, tables.change
    joined = state.outerjoin(change, change.c.revision == state.c.revision)
    query = sa.select(state.c.uuid, state.c.revision, change.c.token).select_from(joined)
    uuid, revision, token = connection.execute(query).one()
    return Identity(uuid, revision, token or "")


def build(
    connection: sa.Connection, store: Store, image_ids: Sequence[int] | None = None
) -> dict[str, Any]:
    """Puts arrays into a store; returns what else a header needs.

    Args:
        image_ids: rising; None: every image.
    Raises: CatalogError if ids of images are beyond MOST_IMAGE_ID.
    """
    builder = _Builder(connection, store, image_ids)
    with builder.reading, _unmapped(connection) if image_ids is None else nullcontext():
        builder.add_images()
        builder.add_classes()
        builder.add_relations()
        builder.add_boxes()
    return postings.described(
        identity(connection), builder.sources.tolist(), builder.analyzers.tolist()
    )


@contextmanager
def _unmapped(connection: sa.Connection) -> Iterator[None]:
    """Keeps SQLite from mapping the file: all that is read would count as the process's memory."""
    if connection.dialect.name != "sqlite":
        yield
        return
    mapped = connection.exec_driver_sql("PRAGMA mmap_size").scalar() or 0
    connection.exec_driver_sql("PRAGMA mmap_size=0").close()
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA mmap_size={mapped}").close()


def in_memory(connection: sa.Connection, image_ids: Sequence[int]) -> postings.Postings:
    """Posting lists of some images, by rising id; those that are gone are left out."""
    store = Memory()
    header = build(connection, store, image_ids)
    return postings.assembled({name: store.column(name) for name in store.names()}, header)


class _Builder:
    def __init__(
        self, connection: sa.Connection, store: Store, image_ids: Sequence[int] | None
    ) -> None:
        self.connection, self.store, self.only = connection, store, image_ids
        self.reading = ExitStack()
        """Ends what is still being read where the building breaks off."""
        self.sources = self._every_id(tables.source)
        self.analyzers = self._every_id(tables.analyzer)
        self.of_source = _slots_of(self.sources)
        self.of_analyzer = _slots_of(self.analyzers)
        self.ranges = postings_rows.ranges_of(connection) if image_ids is None else []

    def _every_id(self, table: sa.Table) -> Array:
        rows = self.connection.execute(sa.select(table.c.id).order_by(table.c.id)).scalars()
        return np.fromiter(rows, np.int64)

    def add_images(self) -> None:
        """Puts the images, and keeps where they stand and how large they are."""
        image, store = tables.image, self.store
        shown = sa.case((sa.or_(image.c.width > 0, image.c.status == "unseen"), 1), else_=0)
        code = (2 * STATUS_CODE + shown).label("code")
        area = sa.cast(image.c.width, sa.BigInteger) * image.c.height
        numbers = (image.c.id, image.c.source_id, code, area.label("area"))
        for name, dtype in (
            ("ids", "i8"),
            ("source", self.of_source.dtype),
            ("shown", "?"),
            ("status", "u1"),
        ):
            store.append(f"image.{name}", np.empty(0, dtype))
        store.append("_area", np.empty(0, np.float64))
        for rows in self._batches(Columns(image.c.id, numbers, (image.c.id,))):
            ids, source, codes, areas = rows.numbers
            if ids[-1] > postings.MOST_IMAGE_ID:
                raise CatalogError(
                    f"image {ids[-1]}: posting lists hold ids up to {postings.MOST_IMAGE_ID:,}; "
                    "copy the catalog to number its images anew"
                )
            store.append("image.ids", ids)
            store.append("image.source", self.of_source[source])
            store.append("image.shown", (codes & 1).astype(bool))
            store.append("image.status", (codes >> 1).astype(np.uint8))
            store.append("_area", areas.astype(np.float64))
        self.ids, self.area = store.column("image.ids"), store.column("_area")

    def add_classes(self) -> None:
        """Puts what analysis.classes says, and each analyzer's best score of every image."""
        table = tables.analysis
        numbers = (table.c.image_id, table.c.analyzer_id)
        given = Columns(table.c.image_id, numbers, numbers, packed=table.c.classes)
        batches: Iterator[Rows] = map(_unpacked, self._batches(given))
        keys, of_key, batches = self._keys(tables.klass, batches)
        spool = _Spool(self.store, "class", self.ids.size, of_key.dtype)
        best = _Spool(self.store, "analyzer", self.ids.size, self.of_analyzer.dtype)
        for rows in batches:
            pos, analyzer = self._placed(rows)
            spool.add(pos, of_key[rows.key], rows.score, analyzer, rows.number)
            nothing = np.zeros(pos.size, np.uint8)
            pair = np.flatnonzero(np.diff(pos) | np.diff(analyzer.astype(np.int64))) + 1
            starts = np.concatenate(([0], pair))[: pos.size]
            if starts.size:
                scores = np.maximum.reduceat(rows.score, starts)
                best.add(pos[starts], analyzer[starts], scores, analyzer[starts], nothing[starts])
        spool.finish(keys)
        best.finish(self.analyzers, forward=False)

    def add_relations(self) -> None:
        """Puts relations, by type and by predicate."""
        table = tables.relation
        of = (table.c.image_id, table.c.analyzer_id, table.c.type_id)
        best, number = sa.func.max(table.c.score).label("best"), sa.func.count().label("number")
        given = Columns(table.c.image_id, (*of, best, number), of, grouped=True)
        batches: Iterator[Rows] = map(_related, self._batches(given))
        if self.only is not None:
            batches = iter(kept := list(batches))
            used = np.unique(np.concatenate([np.empty(0, np.int64), *(one.key for one in kept)]))
        else:
            used = None
        keys, slots, predicates = self._types(used)
        found, each = np.unique(predicates, return_counts=True)
        of_predicate = np.empty(keys.size, np.uint32)
        of_predicate[slots] = np.searchsorted(found, predicates)
        types = _Spool(self.store, "relation", self.ids.size, slots.dtype)
        spool = _Spool(self.store, "predicate", self.ids.size, np.dtype(np.uint32))
        for rows in batches:
            pos, analyzer = self._placed(rows)
            slot = slots[np.searchsorted(keys, rows.key)]
            types.add(pos, slot, rows.score, analyzer, rows.number)
            spool.add(*_collapsed(pos, of_predicate[slot], rows.score, analyzer))
        types.finish(keys, slots, forward=False)
        self.store.append("predicate.types", _starts(each))
        spool.finish(found)

    def _types(self, used: Array | None) -> tuple[Array, Array, Array]:
        """Ids of relation types, their slots, and their predicates, each by rising id.

        Types of one predicate stand side by side: what is asked by predicate is one slice.

        Args:
            used: ids of types; None: all.
        """
        table = tables.relation_type
        if used is None:
            query = sa.select(table.c.id, table.c.predicate_id).order_by(table.c.id)
            pairs = [(id_, predicate) for id_, predicate in self.connection.execute(query)]
        else:
            pairs = sorted(predicates_of(self.connection, used.tolist()).items())
        keys, predicates = np.array(pairs, np.int64).reshape(-1, 2).T
        slots = np.empty(keys.size, np.uint32)
        slots[np.lexsort((keys, predicates))] = np.arange(keys.size)
        return keys, slots, predicates

    def add_boxes(self) -> None:
        """Puts the boxes of images of known size, with the bins of their sizes."""
        box = tables.box
        numbers = (box.c.image_id, box.c.analyzer_id, box.c.class_id, box.c.score)
        order = (box.c.image_id, box.c.analyzer_id, box.c.ordinal)
        zero: sa.ColumnElement[float] = sa.literal_column("0.0")
        sides = [
            sa.case((high > low, high - low), else_=zero)
            for low, high in ((box.c.x0, box.c.x1), (box.c.y0, box.c.y1))
        ]
        given = Columns(box.c.image_id, numbers, order, real=sides[0] * sides[1])
        batches: Iterator[Rows] = map(self._sized, self._batches(given))
        keys, of_key, batches = self._keys(tables.klass, batches)
        spool = _Spool(self.store, "box", self.ids.size, of_key.dtype)
        for rows in batches:
            pos, analyzer = self._placed(rows)
            spool.add(pos, of_key[rows.key], rows.score, analyzer, rows.number)
        spool.finish(keys, ranked=False)
        self.store.drop("_area")

    def _sized(self, rows: Batch) -> Rows:
        image, analyzer, key, score = rows.numbers
        area = self.area[self._positions(image)]
        known = area > 0
        area, covered = area[known], rows.real[known]
        return Rows(
            image[known],
            analyzer[known],
            key[known],
            score[known].astype(np.uint32),
            size_bins(covered, np.ones(covered.size), area).astype(np.uint8),
        )

    def _placed(self, rows: Rows) -> tuple[Array, Array]:
        """Positions and analyzers' slots of rows."""
        return self._positions(rows.image).astype(np.uint32), self.of_analyzer[rows.analyzer]

    def _positions(self, image: Array) -> Array:
        """Where images stand whose ids are rising.

        Raises: CatalogError if there is none with such an id.
        """
        if not image.size:
            return np.empty(0, np.int64)
        first, last = np.searchsorted(self.ids, (image[0], image[-1] + 1))
        known = self.ids[first:last]
        at = np.searchsorted(known, image)
        there = known[np.minimum(at, known.size - 1)] == image if known.size else at < 0
        if not there.all():
            raise CatalogError(
                f"image {image[~there][0]}: has results, but is not in the catalog; "
                "`vistadex catalog check` says more; until then there are no posting lists"
            )
        positions: Array = at + first
        return positions

    def _keys(
        self, table: sa.Table, batches: Iterator[Rows]
    ) -> tuple[Array, Array, Iterator[Rows]]:
        """Ids that get slots, slots by id, and the batches: all ids, or those of some images."""
        if self.only is None:
            keys = self._every_id(table)
        else:
            kept = list(batches)
            keys = postings.distinct(
                np.concatenate([np.empty(0, np.int64), *(one.key for one in kept)])
            )
            batches = iter(kept)
        return keys, _slots_of(keys), batches

    def _batches(self, given: Columns) -> Iterator[Batch]:
        if self.only is None:
            found = postings_rows.of_all(self.connection, given, self.ranges)
            self.reading.callback(found.close)
            return found
        return postings_rows.of_some(self.connection, given, self.only)


def _unpacked(rows: Batch) -> Rows:
    """Rows of analysis as rows of image_class."""
    image, analyzer = rows.numbers
    lengths = rows.sizes // 8
    key, score, number = columns(rows.packed)
    found = Rows(
        np.repeat(image, lengths),
        np.repeat(analyzer, lengths),
        key,
        score,
        np.minimum(number, MOST_NUMBER).astype(np.uint8),
    )
    there = (score | number) != 0
    return found if there.all() else Rows(*(column.compress(there) for column in found))


def _related(rows: Batch) -> Rows:
    """Relations of the same type in one image as rows of image_relation."""
    image, analyzer, key, score, number = rows.numbers
    few = np.minimum(number, MOST_NUMBER).astype(np.uint8)
    return Rows(image, analyzer, key, score.astype(np.uint32), few)


def _slots_of(ids: Array) -> Array:
    """Slots by id: (largest id + 1,), as small as they can be."""
    dtype = np.uint8 if ids.size < 1 << 8 else np.uint16 if ids.size < 1 << 16 else np.uint32
    found = np.zeros(int(ids[-1]) + 1 if ids.size else 1, dtype)
    found[ids] = np.arange(ids.size)
    return found


def _collapsed(
    pos: Array, slot: Array, score: Array, analyzer: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """One row with the best score for each position, analyzer and slot."""
    order = np.lexsort((score, slot, analyzer, pos))
    pos, slot, score, analyzer = (one[order] for one in (pos, slot, score, analyzer))
    same = (pos[1:] == pos[:-1]) & (slot[1:] == slot[:-1]) & (analyzer[1:] == analyzer[:-1])
    last = np.append(~same, True)
    number = np.zeros(int(last.sum()), np.uint8)
    return pos[last], slot[last], score[last], analyzer[last], number


_SPOOLED = ("_pos", "row.score", "row.analyzer", "row.number")


class _Spool:
    """The rows of one kind by image, then brought into the order of slots."""

    def __init__(self, store: Store, kind: str, images: int, slot: np.dtype[Any]) -> None:
        self.store, self.kind = store, kind
        self.each = np.zeros(images, np.uint32)
        self.slot = slot
        self._begun = False

    def add(self, pos: Array, slot: Array, score: Array, analyzer: Array, number: Array) -> None:
        """Adds rows by rising position and analyzer, behind those before."""
        rows = {"slot": slot, "score": score, "analyzer": analyzer, "number": number}
        self.store.append(f"{self.kind}._pos", pos.astype(np.uint32))
        for name, column in rows.items():
            self.store.append(f"{self.kind}.row.{name}", column)
        self._begun = True
        if pos.size:
            first, last = int(pos[0]), int(pos[-1])
            self.each[first : last + 1] += np.bincount(pos - pos[0]).astype(np.uint32)

    def finish(
        self,
        keys: Array,
        slots: Array | None = None,
        *,
        ranked: bool = True,
        forward: bool = True,
    ) -> None:
        """Puts the lists of all slots.

        Args:
            slots: of the keys; None: in their order.
            ranked: only the best row of an image is in the lists, the others in `more`.
            forward: rows by image stay too.
        """
        store, kind = self.store, self.kind
        if not self._begun:
            none, small = np.empty(0, np.uint32), np.empty(0, np.uint8)
            self.add(none, none.astype(self.slot), none, small, small)
        store.append(f"{kind}.keys", keys)
        store.append(
            f"{kind}.slots", np.arange(keys.size, dtype=np.uint32) if slots is None else slots
        )
        self._arrange(keys.size, ranked)
        store.drop(f"{kind}._pos")
        if forward:
            store.append(f"{kind}.row.starts", _starts(self.each))
        else:
            for name in ("slot", "score", "analyzer", "number"):
                store.drop(f"{kind}.row.{name}")

    def _arrange(self, slots: int, ranked: bool) -> None:
        slot, score = (self.store.column(f"{self.kind}.row.{name}") for name in ("slot", "score"))
        counts = _counts(slot, slots)
        best = np.zeros(slots, np.int64)
        for first, last in _ranges(counts):
            rows = _in_range(slot, first, last)
            rows = rows[np.argsort(slot[rows], kind="stable")]
            of_slot = slot[rows]
            self.store.release(f"{self.kind}.row.slot")
            found = [self._taken(name, rows) for name in _SPOOLED]
            first_of = _best_first(of_slot, found, rows) if ranked else None
            if first_of is None:
                self._append("", found)
                best[first:last] = counts[first:last]
            else:
                self._split(found, first_of)
                score[rows[~first_of]] |= NOT_BEST
                self.store.release(f"{self.kind}.row.score")
                best[first:last] = np.bincount(
                    of_slot[first_of].astype(np.int64) - first, minlength=last - first
                )
        nothing = [self._taken(name, np.empty(0, np.int64)) for name in _SPOOLED]
        for part, each in (("", best), ("more.", counts - best)):
            self._append(part, nothing)
            self.store.append(f"{self.kind}.{part}starts", _starts(each))
        self.store.append(f"{self.kind}.more.ahead", nothing[2])
        self._add_bits(best if ranked else best[:0])

    def _add_bits(self, best: Array) -> None:
        """Puts the images of slots that many have as bits."""
        images, starts = self.each.size, _starts(best)
        dense = np.flatnonzero(best * postings.DENSE > images)
        self.store.append(f"{self.kind}.dense", dense.astype(np.uint32))
        self.store.append(f"{self.kind}.bits", np.empty(0, np.uint64))
        pos = self.store.column(f"{self.kind}.pos")
        for slot in dense.tolist():
            mask = np.zeros(images, bool)
            mask[pos[starts[slot] : starts[slot + 1]]] = True
            self.store.append(f"{self.kind}.bits", postings.as_bits(mask))
        self.store.release(f"{self.kind}.pos")

    def _taken(self, name: str, rows: Array) -> Array:
        """Rows of one column; of the whole column nothing stays in memory."""
        found: Array = self.store.column(f"{self.kind}.{name}")[rows]
        self.store.release(f"{self.kind}.{name}")
        return found

    def _append(self, part: str, found: list[Array]) -> None:
        for name, column in zip(("pos", "score", "analyzer", "number"), found, strict=True):
            self.store.append(f"{self.kind}.{part}{name}", column)

    def _split(self, found: list[Array], first_of: Array) -> None:
        """Puts the best rows into the lists, and the others into `more`."""
        self._append("", [column.compress(first_of) for column in found])
        self._append("more.", [column.compress(~first_of) for column in found])
        analyzer = found[2]
        ahead = analyzer.compress(first_of)[np.cumsum(first_of).compress(~first_of) - 1]
        self.store.append(f"{self.kind}.more.ahead", ahead)


def _best_first(slot: Array, found: list[Array], rows: Array) -> Array | None:
    """Brings rows of the same slot and image into the order of falling score, in place.

    Returns: (R,) whether a row is the first of its slot and image; None if all are.
    """
    pos, score = found[0], found[1]
    same = np.zeros(pos.size + 1, bool)
    same[1:-1] = (pos[1:] == pos[:-1]) & (slot[1:] == slot[:-1])
    several = np.flatnonzero(same[1:] | same[:-1])
    if not several.size:
        return None
    group = np.cumsum(~same[several])
    order = np.lexsort((-score[several].astype(np.int64), group))
    for column in (*found, rows):
        column[several] = column[several[order]]
    return ~same[:-1]


def _counts(slot: Array, slots: int) -> Array:
    """Rows of each slot, without a wide copy of all of them."""
    counts = np.zeros(slots, np.int64)
    for start in range(0, slot.size, SORTED_ROWS):
        counts += np.bincount(slot[start : start + SORTED_ROWS], minlength=slots)
    return counts


def _ranges(counts: Array) -> Iterator[tuple[int, int]]:
    """Ranges of slots with at most SORTED_ROWS rows each, or a single slot."""
    ends = np.cumsum(counts)
    first = 0
    while first < counts.size:
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + SORTED_ROWS, "right")))
        yield first, last
        first = last


def _in_range(slot: Array, first: int, last: int) -> Array:
    """The rows of slots first to last - 1."""
    parts = []
    for start in range(0, slot.size, SORTED_ROWS):
        part = slot[start : start + SORTED_ROWS]
        parts.append(np.flatnonzero((part >= first) & (part < last)) + start)
    return np.concatenate([np.empty(0, np.int64), *parts])


def _starts(each: Array) -> Array:
    """Where things begin that have so many rows each."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(each, dtype=np.int64)))
