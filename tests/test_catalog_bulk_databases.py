"""Bulk loading gives the same rows on every database."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from tests.databases import Place, Server
from tests.open_images_sets import contents, write_set
from tests.test_loading import assert_counts_are_true, written_by_row
from vistadex.catalog import Catalog, bulk_insert, registering, tables, writing
from vistadex.catalog.columns import Nullable
from vistadex.errors import CatalogError
from vistadex.loading import load_open_images
from vistadex.progress import Silent
from vistadex.records import ImageEntry, Outcome


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set of 400 images."""
    write_set(tmp_path / "oi", 400)
    return tmp_path / "oi"


def test_every_database_gets_what_writing_image_by_image_gives(
    folder: Path, tmp_path: Path, database: Place
) -> None:
    with database.catalog() as place, Catalog(place) as catalog:
        summary = load_open_images(folder, catalog=catalog)
        assert (summary.images, summary.changed) == (400, 400)
        with written_by_row(folder, tmp_path / "written.db") as written:
            assert contents(catalog) == contents(written)
        assert_counts_are_true(catalog)


def test_a_second_load_beside_a_first_counts_right_on_every_database(
    folder: Path, tmp_path: Path, database: Place
) -> None:
    write_set(tmp_path / "other", 100, seed=7)
    with database.catalog() as place, Catalog(place) as catalog:
        load_open_images(tmp_path / "other", catalog=catalog)
        load_open_images(folder, catalog=catalog)
        before = contents(catalog)
        assert len(before["image"]) == 500
        assert_counts_are_true(catalog)
        assert load_open_images(folder, catalog=catalog).changed == 0
        assert contents(catalog) == before


def test_images_that_come_after_a_load_get_free_ids(folder: Path, database: Place) -> None:
    with database.catalog() as place, Catalog(place) as catalog:
        load_open_images(folder, catalog=catalog)
        new = Outcome(ImageEntry("new.jpg", None, ""), seen=False)
        with catalog.writing() as connection:
            source = registering.register_source(connection, "elsewhere")
            writing.write_annotations(connection, source, [], [new])
        assert len(contents(catalog)["image"]) == 401


def test_what_changed_at_its_source_is_replaced_on_every_database(
    folder: Path, tmp_path: Path, database: Place
) -> None:
    with database.catalog() as place, Catalog(place) as catalog:
        load_open_images(folder, catalog=catalog)
        human = next(folder.glob("*train*human*"))
        lines = human.read_text().splitlines(keepends=True)
        human.write_text("".join([*lines[:50], *lines[60:]]))
        assert 0 < load_open_images(folder, catalog=catalog).changed < 400
        with written_by_row(folder, tmp_path / "written.db") as written:
            assert contents(catalog) == contents(written)


KNOWN_ROWS = {
    "postgresql": "SELECT reltuples FROM pg_class WHERE relname = 'image'",
    "mysql": "SELECT table_rows FROM information_schema.tables "
    "WHERE table_schema = DATABASE() AND table_name = 'image'",
}


def test_a_server_plans_for_what_was_loaded_and_not_for_empty_tables(
    folder: Path, database_server: Server, catalog_url: str
) -> None:
    with Catalog(catalog_url) as catalog:
        load_open_images(folder, catalog=catalog)
        with catalog.engine.connect() as connection:
            query = KNOWN_ROWS[connection.dialect.name.replace("mariadb", "mysql")]
            assert 300 < float(connection.exec_driver_sql(query).scalar_one()) < 500


def test_rows_by_column_come_back_to_the_last_bit(
    database_server: Server, catalog_url: str
) -> None:
    rng = np.random.default_rng(3)
    rows = 20_003  # more than are held at a time
    texts = ["", "it's", 'a"b', "50 % of it", "%s %(x)s :y", "back\\slash", "日本", "a\nb\tc"]
    flags = rng.integers(0, 3, rows)
    attributes = [None if i % 3 else f'{{"k": {i}}}' for i in range(rows)]
    corners = rng.normal(scale=1e4, size=(4, rows)) * 10.0 ** rng.integers(-8, 8, rows)
    packed = [[None, b"", b"\0%'\\", rng.bytes(300)][i % 4] for i in range(rows)]
    with Catalog(catalog_url) as catalog:
        with catalog.writing() as connection:
            of_boxes = {
                "image_id": np.arange(rows),
                "analyzer_id": 1,
                "ordinal": [0] * rows,
                "class_id": np.full(rows, 7),
                "score": list(range(rows)),
                **dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True)),
                "flags": Nullable(flags, 0),
                "attributes": attributes,
            }
            of_analyses = {
                "image_id": np.arange(rows),
                "analyzer_id": 1,
                "version": [texts[i % len(texts)] for i in range(rows)],
                "classes": packed,
            }
            bulk_insert.insert(connection, tables.box, of_boxes, rows)
            bulk_insert.insert(connection, tables.analysis, of_analyses, rows)
        box, analysis = tables.box.c, tables.analysis.c
        with catalog.reading() as connection:
            query = sa.select(box.image_id, box.score, box.x0, box.y0, box.x1, box.y1, box.flags)
            found = [tuple(row) for row in connection.execute(query.order_by(box.image_id))]
            wanted = zip(range(rows), range(rows), *corners.tolist(), flags.tolist(), strict=True)
            assert found == [(*one[:-1], one[-1] or None) for one in wanted]
            query = sa.select(box.attributes).order_by(box.image_id)
            said = [None if one is None else json.loads(one) for one in attributes]
            assert connection.execute(query).scalars().all() == said
            query = sa.select(analysis.version, analysis.classes).order_by(analysis.image_id)
            found = [tuple(row) for row in connection.execute(query)]
            assert found == list(zip(of_analyses["version"], packed, strict=True))


def test_rows_that_are_there_already_are_an_error_and_the_catalog_stays(
    database_server: Server, catalog_url: str
) -> None:
    columns = {"image_id": np.arange(5), "analyzer_id": 1, "version": "", "classes": None}
    with Catalog(catalog_url) as catalog:
        for _ in range(2):
            with suppress(CatalogError), catalog.writing() as connection:
                bulk_insert.insert(connection, tables.analysis, columns, 5)
        with pytest.raises(CatalogError, match=r"image_id|PRIMARY"), catalog.writing() as one:
            bulk_insert.insert(one, tables.analysis, columns, 5)
        with catalog.reading() as connection:
            number = sa.select(sa.func.count()).select_from(tables.analysis)
            assert connection.execute(number).scalar() == 5


def test_a_connection_lost_in_a_load_is_retried_and_nothing_is_doubled(
    folder: Path, tmp_path: Path, database_server: Server, catalog_url: str
) -> None:
    broken: list[int] = []

    class Breaks(Silent):
        """Ends all connections while the first chunk has just been entered."""

        def update(self, *, listed: int, listing: bool, done: int, failed: int) -> None:
            if done and not broken:
                broken.append(database_server.terminate(str(sa.make_url(catalog_url).database)))

    with Catalog(catalog_url) as catalog:
        assert load_open_images(folder, catalog=catalog, progress=Breaks()).images == 400
        assert broken[0] >= 1
        with written_by_row(folder, tmp_path / "written.db") as written:
            assert contents(catalog) == contents(written)
        assert_counts_are_true(catalog)


def test_a_key_that_no_server_can_hold_is_an_error_that_leaves_nothing(
    database_server: Server, catalog_url: str
) -> None:
    columns = {"id": [1], "name": ["a\0b"]}
    with Catalog(catalog_url) as catalog:
        with pytest.raises(CatalogError, match="NUL character"), catalog.writing() as connection:
            bulk_insert.insert(connection, tables.klass, columns, 1)
        assert catalog.classes() == []
