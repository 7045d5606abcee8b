"""A bulk load into an empty SQLite catalog: built in side files, then poured into the catalog.

A side file's user_version is the number of its steps that are done: each chunk of images, or each
range of classes and relation types.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import TypeAlias

import numpy as np
import sqlalchemy as sa

from vistadex.catalog import Catalog, bulk_insert, bulk_sqlite, opening, tables
from vistadex.catalog.bulk_ranking import RankSpool, spools
from vistadex.catalog.bulk_reading import Numbers, Spooled
from vistadex.catalog.bulk_spool import Work
from vistadex.progress import Progress

Register: TypeAlias = Callable[[sa.Connection], Numbers]
IMAGES, RANKS = "images.db", "ranks.db"
RANKED = (tables.image_class, tables.class_count, tables.image_relation, tables.relation_count)


def build(catalog: Catalog, spooled: Spooled, register: Register, progress: Progress) -> None:
    """Enters everything into an empty catalog: in the end all of it is there, or nothing is.

    While the rankings are sorted, what is known by image is poured already: SQLite does that
    beside Python.

    Raises: CatalogError where the disk is full, or the catalog is not empty any more.
    """
    folder = spooled.work.folder
    with translated(catalog.place):
        numbers = _prepared(spooled.work, register)
        steps = _Steps(spooled, numbers)
        done = partial(_report, spooled, progress)
        with closing(bulk_sqlite.side_file(str(folder / IMAGES))) as side:
            _run(side, steps.by_image(side), done)
        with bulk_sqlite.Pouring(catalog) as pouring, ThreadPoolExecutor(1) as pool:
            others = [one for one in tables.metadata.sorted_tables if one not in NOT_POURED]
            poured = pool.submit(pouring.pour, folder / IMAGES, others)
            try:
                with closing(bulk_sqlite.side_file(str(folder / RANKS))) as ranks:
                    _run(ranks, steps.by_rank(ranks), lambda _: None)
            except BaseException:
                pouring.interrupt()
                raise
            poured.result()
            pouring.pour(folder / RANKS, RANKED)
            pouring.prove(steps.lengths())
            pouring.commit()


NOT_POURED = (*RANKED, tables.predicate_count, tables.state, tables.change, tables.run)


def _report(spooled: Spooled, progress: Progress, step: int) -> None:
    images = min(step * spooled.size, spooled.images)
    progress.update(listed=spooled.images, listing=False, done=images, failed=0)


def _prepared(work: Work, register: Register) -> Numbers:
    """The side files, with all names in the first."""
    if "named" not in work.marks:
        for name in (IMAGES, RANKS):
            for one in work.folder.glob(f"{name}*"):
                one.unlink()
        Catalog(work.folder / RANKS, create=True).close()
    with Catalog(work.folder / IMAGES, create=True) as side:
        numbers = side.transaction(register)
    work.mark(named=True)
    return numbers


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Errors of SQLite inside become CatalogError with place and cure."""
    with opening.translated(place):
        try:
            yield
        except sqlite3.Error as error:
            raise sa.exc.OperationalError("bulk load", None, error) from error


def _run(
    side: sqlite3.Connection, steps: Iterator[Callable[[], None]], report: Callable[[int], None]
) -> None:
    """Does every step that is not done, each in a transaction."""
    done = side.execute("PRAGMA user_version").fetchone()[0]
    for step, work in enumerate(steps, 1):
        if step > done:
            side.execute("BEGIN IMMEDIATE")
            work()
            side.execute(f"PRAGMA user_version = {step}")
            side.execute("COMMIT")
            report(step)


class _Steps:
    """The steps of one build."""

    def __init__(self, spooled: Spooled, numbers: Numbers) -> None:
        self.spooled, self.numbers = spooled, numbers
        self.classes, self.types = spools(spooled, numbers)

    def by_image(self, side: sqlite3.Connection) -> Iterator[Callable[[], None]]:
        """Of what is known by image."""
        for chunk in range(self.spooled.chunks):
            yield partial(self._chunk, side, chunk)
        yield partial(self._count_images, side)

    def lengths(self) -> dict[str, int]:
        """How many rows each table has to have."""
        ranked = {"image_class": self.classes.length, "image_relation": self.types.length}
        return {**self.spooled.lengths(), **ranked}

    def by_rank(self, side: sqlite3.Connection) -> Iterator[Callable[[], None]]:
        """Of what ranks, and its counts."""
        for part in range(self.classes.ranges):
            yield partial(_rank, side, self.classes, part, bulk_insert.OF_CLASSES)
        for part in range(self.types.ranges):
            yield partial(_rank, side, self.types, part, bulk_insert.OF_TYPES)

    def _chunk(self, side: sqlite3.Connection, number: int) -> None:
        rows = self.spooled.chunk(number, self.numbers)
        first = number * self.spooled.size + 1
        ids = np.arange(first, first + len(rows.keys))
        now = self.spooled.work.marks["now"]
        for table, columns, count_ in bulk_insert.chunk_tables(rows, ids, self.numbers, now):
            bulk_sqlite.insert(side, table.name, columns, count_)
        self.classes.add(number, rows.classes)
        self.types.add(number, rows.types)
        self.spooled.note(number, rows)

    def _count_images(self, side: sqlite3.Connection) -> None:
        values = (self.spooled.images, self.numbers.source)
        side.execute("UPDATE source SET images = ? WHERE id = ?", values)
        seen = [(number, id_) for id_, number in self.spooled.seen().items()]
        side.executemany("UPDATE analyzer SET images = ? WHERE id = ?", seen)


def _rank(side: sqlite3.Connection, spool: RankSpool, part: int, names: bulk_insert.Ranked) -> None:
    """Inserts a range of the rows that rank, and their counts."""
    for table, columns, rows in bulk_insert.rank_tables(spool.rows(part), names):
        bulk_sqlite.insert(side, table.name, columns, rows)
