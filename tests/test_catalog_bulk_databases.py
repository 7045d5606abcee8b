"""Bulk loading gives the same rows on every database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.databases import Place
from tests.open_images_sets import contents, write_set
from tests.test_loading import assert_counts_are_true, written_by_row
from vistadex.catalog import Catalog, registering, writing
from vistadex.loading import load_open_images
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
