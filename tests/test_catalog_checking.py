"""vistadex.catalog.checking: a sound catalog has no findings, and each kind of damage has one."""

import json
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from tests.test_catalog import commit, outcome
from tests.test_catalog_moving import fill
from vistadex.catalog import Catalog, opening, tables
from vistadex.catalog.checking import check_catalog
from vistadex.cli_catalog import catalog_app
from vistadex.errors import CatalogError

DAMAGES = [
    ("UPDATE image_class SET score = score + 1 WHERE image_id = 2", "analysis", "image 2"),
    ("DELETE FROM image_class WHERE image_id = 3", "analysis", "image 3"),
    ("UPDATE analysis SET classes = NULL WHERE image_id = 4", "analysis", "image 4"),
    ("UPDATE image_class SET boxes = boxes + 1 WHERE image_id = 2", "box", "image 2"),
    ("DELETE FROM box WHERE image_id = 6 AND ordinal = 0", "box", "image 6"),
    ("UPDATE box SET score = 1000000 WHERE image_id = 6 AND ordinal = 0", "box", "image 6"),
    ("UPDATE image_relation SET relations = relations + 1", "relation", "image "),
    ("DELETE FROM relation", "relation", "image "),
    ("UPDATE class_count SET images = images + 1 WHERE analyzer_id = 0", "class_count", "class_id"),
    ("DELETE FROM class_count WHERE class_id = 1", "class_count", "class_id 1 analyzer 0 says (0"),
    ("UPDATE relation_count SET relations = 77", "relation_count", "(9, 77)"),
    ("UPDATE predicate_count SET images = 77", "predicate_count", "(77, 9)"),
    ("UPDATE source SET images = images - 1 WHERE id = 1", "source", "/photos says 299, has 300"),
    ("DELETE FROM analysis WHERE image_id = 8", "box", "8/1/0"),
    ("UPDATE box SET class_id = 999 WHERE image_id = 6", "box", "6/1/0"),
    ("UPDATE image SET status = 'odd' WHERE id = 9", "image", "9"),
    ("DELETE FROM attribute_set", "image", "attribute_set_id is no attribute_set: 3, 6"),
    ("UPDATE state SET revision = 1", "change", ""),
]


@pytest.fixture
def filled(catalog_url: str) -> str:
    with Catalog(catalog_url) as catalog:
        fill(catalog)
    return catalog_url


def test_a_sound_catalog_has_no_findings(filled: str, catalog_url: str) -> None:
    assert check_catalog(filled) == []


def test_an_empty_catalog_has_no_findings(catalog_url: str) -> None:
    assert check_catalog(catalog_url) == []


def test_posting_lists_that_say_something_else_are_found(filled: str) -> None:
    with Catalog(filled) as catalog:
        assert catalog.postings is not None
        assert catalog.postings.rebuild()
    assert check_catalog(filled) == []
    with Catalog(filled) as catalog, catalog.writing() as connection:
        best = connection.execute(sa.select(sa.func.max(tables.image_class.c.score))).scalar()
        connection.execute(sa.delete(tables.image_class).where(tables.image_class.c.score == best))
    found = [str(one) for one in check_catalog(filled) if "posting lists" in str(one)]
    assert any(one.startswith("class_count: ") for one in found), found


@pytest.mark.parametrize(("damage", "table", "example"), DAMAGES)
def test_every_damage_is_found(filled: str, damage: str, table: str, example: str) -> None:
    with Catalog(filled) as catalog, catalog.writing() as connection:
        assert connection.exec_driver_sql(damage).rowcount > 0
    found = check_catalog(filled)
    assert any(one.table == table and example in str(one) for one in found), found


@pytest.mark.parametrize("table", ["image", "class", "analyzer", "relation_type"])
def test_rows_that_point_nowhere_are_found(tmp_path: Path, table: str) -> None:
    place = str(tmp_path / "c.db")
    with Catalog(place, create=True) as catalog:
        fill(catalog)
        with catalog.writing() as connection:  # SQLite does not hold to foreign keys
            last = connection.exec_driver_sql(f"SELECT max(id) FROM {table} WHERE id < 302")
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE id = {last.scalar_one()}")
    found = check_catalog(place)
    assert any(one.what.endswith(f"is no {table}") for one in found), found


def test_a_missing_table_or_column_is_found(tmp_path: Path) -> None:
    place = str(tmp_path / "c.db")
    Catalog(place, create=True).close()
    connection = sqlite3.connect(place)
    connection.execute("DROP TABLE embedding")
    connection.execute("ALTER TABLE box DROP COLUMN flags")
    connection.close()
    assert [str(one) for one in check_catalog(place)] == [
        "box: 1 columns are missing: flags",
        "embedding: 1 table is missing",
    ]


def test_a_damaged_file_is_found(tmp_path: Path) -> None:
    place = str(tmp_path / "c.db")
    with Catalog(place, create=True) as catalog:
        commit(catalog, [outcome(f"{i}.jpg", [(0, 0.5)] * 3) for i in range(200)])
        with catalog.writing() as connection:  # an index of which nothing is known any more
            connection.exec_driver_sql("PRAGMA writable_schema = ON")
            connection.exec_driver_sql("DELETE FROM sqlite_master WHERE name = 'image_by_trouble'")
    (found,) = check_catalog(place)
    assert (found.table, found.number) == ("file", 1)
    assert "never used" in str(found)


def test_a_missing_catalog_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no catalog here"):
        check_catalog(str(tmp_path / "none.db"))


def test_the_command_says_what_is_wrong(filled: str) -> None:
    run = CliRunner().invoke(catalog_app, ["check", "--catalog", filled])
    assert (run.exit_code, run.stdout) == (0, "the catalog is consistent\n")
    with Catalog(filled) as catalog, catalog.writing() as connection:
        connection.exec_driver_sql("UPDATE source SET images = 0 WHERE id = 1")
    run = CliRunner().invoke(catalog_app, ["check", "--json", "--catalog", filled])
    assert isinstance(run.exception, CatalogError)
    said = json.loads(run.stdout)
    assert (said["table"], said["examples"]) == ("source", ["/photos says 0, has 300"])


def test_an_old_catalog_is_migrated_and_a_new_one_left(tmp_path: Path) -> None:
    from alembic import command

    place = str(tmp_path / "old.db")
    engine = opening.engine_for(place)
    config = opening.alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    newest = tables.SCHEMA_REVISION
    assert opening.migrate(place) == (place, "0001", newest)
    assert opening.migrate(place) == (place, newest, newest)
    assert check_catalog(place) == []
    run = CliRunner().invoke(catalog_app, ["migrate", "--catalog", place])
    assert run.stdout == f"{place}: has schema {newest} already\n"
    with pytest.raises(CatalogError, match="no catalog here"):
        opening.migrate(str(tmp_path / "none.db"))
