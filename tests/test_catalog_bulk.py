"""Bulk loading into a catalog that others have open, and into one that is not empty any more."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from tests.open_images_sets import contents, write_set
from vistadex.catalog import Catalog, bulk_sqlite, registering, tables
from vistadex.catalog.bulk_chunks import Ranking
from vistadex.catalog.bulk_ranking import count
from vistadex.catalog.bulk_spool import Runs, Work
from vistadex.errors import CatalogError
from vistadex.loading import load_open_images


def test_a_reader_beside_a_load_sees_nothing_or_everything(tmp_path: Path) -> None:
    write_set(tmp_path / "oi", 2000)
    place = tmp_path / "c.db"
    with Catalog(place, create=True) as catalog:
        ended = threading.Event()
        seen: list[tuple[int, int]] = []

        def look() -> None:
            while not ended.is_set():
                with catalog.reading() as connection:
                    seen.append(
                        (
                            connection.execute(count_of(tables.image)).scalar_one(),
                            connection.execute(count_of(tables.image_class)).scalar_one(),
                        )
                    )

        with catalog.reading() as before:
            assert before.execute(count_of(tables.image)).scalar_one() == 0
            thread = threading.Thread(target=look)
            thread.start()
            load_open_images(tmp_path / "oi", catalog=place)
            assert before.execute(count_of(tables.image)).scalar_one() == 0
        ended.set()
        thread.join()
        with catalog.reading() as connection:
            last = connection.execute(count_of(tables.image_class)).scalar_one()
        assert set(seen) <= {(0, 0), (2000, last)}
        assert seen[0] == (0, 0)


def count_of(table: sa.Table) -> sa.Select[tuple[int]]:
    """How many rows a table has."""
    return sa.select(sa.func.count()).select_from(table)


def test_a_load_is_one_change_of_any_image(tmp_path: Path) -> None:
    write_set(tmp_path / "oi", 30)
    load_open_images(tmp_path / "oi", catalog=tmp_path / "c.db", image_url="https://x/{split}")
    with Catalog(tmp_path / "c.db") as catalog, catalog.reading() as connection:
        [change] = connection.execute(sa.select(tables.change)).all()
        assert (change.revision, change.images) == (1, None)
        assert connection.execute(sa.select(tables.state.c.revision)).scalar_one() == 1
        [source] = connection.execute(sa.select(tables.source)).all()
        assert (source.images, source.image_url) == (30, "https://x/{split}")
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_catalog_that_was_written_to_in_the_meantime_is_left_as_it_is(tmp_path: Path) -> None:
    side, place = tmp_path / "side.db", tmp_path / "c.db"
    with Catalog(side, create=True) as one, one.writing() as connection:
        registering.register_source(connection, "of the side file")
    with Catalog(place, create=True) as catalog:
        with catalog.writing() as connection:
            registering.register_source(connection, "of others")
        before = contents(catalog)
        with (
            pytest.raises(CatalogError, match="load again"),
            bulk_sqlite.Pouring(catalog) as pouring,
        ):
            pouring.pour(side, [tables.source])
        assert contents(catalog) == before
        with catalog.reading() as connection:
            assert connection.execute(sa.select(tables.state.c.revision)).scalar_one() == 0


def test_who_opens_the_catalog_while_it_is_filled_waits_and_then_sees_everything(
    tmp_path: Path,
) -> None:
    side, place = tmp_path / "side.db", tmp_path / "c.db"
    Catalog(place, create=True).close()
    with Catalog(side, create=True) as one, one.writing() as connection:
        registering.register_source(connection, "of the side file")
    answers: list[int] = []

    def look() -> None:
        with Catalog(place) as catalog, catalog.reading() as connection:
            answers.append(connection.execute(count_of(tables.source)).scalar_one())

    with Catalog(place) as catalog, bulk_sqlite.Pouring(catalog) as pouring:
        thread = threading.Thread(target=look)
        thread.start()
        pouring.pour(side, [tables.source])
        thread.join(1)
        assert thread.is_alive()
        assert not answers
        pouring.commit()
    thread.join(30)
    assert answers == [1]


def test_a_table_with_other_rows_than_were_read_is_not_kept(tmp_path: Path) -> None:
    side, place = tmp_path / "side.db", tmp_path / "c.db"
    with Catalog(side, create=True) as one, one.writing() as connection:
        registering.register_source(connection, "of the side file")
    with Catalog(place, create=True) as catalog:
        with bulk_sqlite.Pouring(catalog) as pouring:
            pouring.pour(side, [tables.source])
            pouring.prove({"source": 1})
            with pytest.raises(CatalogError, match="1 rows came into source, expected 2"):
                pouring.prove({"source": 2})
        assert contents(catalog)["source"] == []


def test_a_second_load_of_the_same_at_once_is_refused(tmp_path: Path) -> None:
    work = Work(tmp_path / "work", {"a": 1})
    with pytest.raises(CatalogError, match="another process"):
        Work(tmp_path / "work", {"a": 1})
    work.close()


def test_work_on_other_input_is_thrown_away(tmp_path: Path) -> None:
    first = Work(tmp_path / "work", {"input": "one"})
    first.mark(step=3)
    (first.folder / "rows").write_text("rows")
    first.close()
    again = Work(tmp_path / "work", {"input": "one"})
    assert again.marks == {"step": 3}
    again.close()
    other = Work(tmp_path / "work", {"input": "other"})
    assert other.marks == {}
    assert not (other.folder / "rows").exists()
    other.close()


def test_runs_give_back_each_chunk_in_the_order_of_arrival(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    runs = Runs(tmp_path / "runs", np.dtype("<u8"), 1000, 64)
    added: list[tuple[int, int]] = []
    states = []
    for _ in range(5):
        images = rng.integers(0, 1000, 300)
        values = rng.integers(0, 1 << 60, 300).astype(np.uint64)
        runs.add(images, values)
        added += zip(images.tolist(), values.tolist(), strict=True)
        states.append((runs.state()[:], len(added)))
    for state, number in reversed(states):
        runs.restore(state)
        for chunk in range(runs.chunks):
            expected = [value for image, value in added[:number] if image // 64 == chunk]
            assert runs.chunk(chunk).tolist() == expected
    runs.close()


def test_counts_are_of_distinct_images() -> None:
    rows = [(3, 5, 0, 1, 0), (3, 5, 0, 2, 4), (3, 6, 1, 2, 1), (9, 1, 7, 1, 0)]
    found = count(Ranking(*np.array(rows, np.int64).T))
    table = zip(found.keys, found.analyzers, found.images, found.numbers, strict=True)
    assert [tuple(map(int, row)) for row in table] == [
        (3, 0, 2, 5),
        (3, 1, 1, 0),
        (3, 2, 2, 5),
        (9, 0, 1, 0),
        (9, 1, 1, 0),
    ]


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 200])
def test_rows_by_column_are_inserted_whatever_their_number(rows: int) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (a, b, c, d, e)")
    columns = {
        "a": np.arange(rows),
        "b": [f"{i}'" for i in range(rows)],
        "c": bulk_sqlite.Nullable(np.arange(rows) % 2, 0),
        "d": None,
        "e": "it's",
    }
    bulk_sqlite.insert(connection, "t", columns, rows)
    expected = [(i, f"{i}'", i % 2 or None, None, "it's") for i in range(rows)]
    assert connection.execute("SELECT * FROM t").fetchall() == expected
    connection.close()
