"""vistadex.catalog: opening, versions, transactions, counts."""

import re
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.databases import Place
from vistadex.catalog import (
    Catalog,
    images,
    opening,
    reading,
    registering,
    results,
    tables,
    writing,
)
from vistadex.errors import CatalogError, NotFoundError, QueryError, UsageError
from vistadex.records import (
    FLAGS,
    Detections,
    Embedding,
    Failure,
    ImageEntry,
    Outcome,
    image_address,
)
from vistadex.testing import RedSquareDetector


@pytest.fixture
def place(catalog_url: str) -> str:
    return catalog_url


@pytest.fixture
def file(tmp_path: Path) -> str:
    """The name of a file that is none yet."""
    return str(tmp_path / "sub" / "catalog.db")


def outcome(key: str, found: Sequence[tuple[int, float]], version: str = "v1") -> Outcome:
    """An image with boxes of (class, score)."""
    boxes = np.array([[i, i, i + 10, i + 20] for i in range(len(found))], np.float32)
    result = Detections(
        boxes.reshape(-1, 4),
        np.array([score for _, score in found], np.float32),
        np.array([class_id for class_id, _ in found], np.int64),
    )
    return Outcome(ImageEntry(key, 10, version), 640, 480, (result,))


def commit(catalog: Catalog, outcomes: Sequence[Outcome], min_score: float = 0.25) -> None:
    with catalog.writing() as connection:
        source_id = registering.register_source(connection, "/photos")
        analyzer = registering.register_analyzer(connection, RedSquareDetector(min_score=min_score))
        writing.write_outcomes(connection, source_id, [analyzer], outcomes)


def counted(catalog: Catalog) -> dict[tuple[int, int], tuple[int, int]]:
    """What class_count should hold, counted from image_class."""
    ic = tables.image_class
    with catalog.reading() as connection:
        rows = connection.execute(sa.select(ic)).all()
    found: dict[tuple[int, int], tuple[int, int]] = {}
    for analyzer_id in {row.analyzer_id for row in rows} | {tables.ANY_ANALYZER}:
        for class_id in {row.class_id for row in rows}:
            own = [
                row
                for row in rows
                if row.class_id == class_id
                and analyzer_id in (row.analyzer_id, tables.ANY_ANALYZER)
            ]
            if own:
                images = len({row.image_id for row in own})
                found[class_id, analyzer_id] = images, sum(row.boxes for row in own)
    return found


def kept(catalog: Catalog) -> dict[tuple[int, int], tuple[int, int]]:
    """What class_count holds, zeros left out."""
    with catalog.reading() as connection:
        rows = connection.execute(sa.select(tables.class_count)).all()
    return {
        (row.class_id, row.analyzer_id): (row.images, row.boxes)
        for row in rows
        if row.images or row.boxes
    }


def clauses(sql: str) -> list[str]:
    """The words of a CREATE statement, whatever the order of its clauses."""
    return sorted(re.findall(r"\w+", sql))


def test_migrations_make_exactly_the_tables(tmp_path: Path) -> None:
    from alembic import command
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = opening.alembic_config()
    assert ScriptDirectory.from_config(config).get_current_head() == tables.SCHEMA_REVISION
    engine = opening.engine_for(str(tmp_path / "migrated.db"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, tables.metadata) == []
        text = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name != :own"
        query = sa.text(text).bindparams(own="alembic_version")
        migrated = {name: clauses(sql) for name, sql in connection.execute(query)}
    fresh = Catalog(str(tmp_path / "fresh.db"), create=True)
    with fresh.reading() as connection:
        made = {name: clauses(sql) for name, sql in connection.execute(query)}
    assert migrated == made
    engine.dispose()
    fresh.close()


def test_a_catalog_of_the_first_version_is_upgraded_and_keeps_its_rows(file: str) -> None:
    from alembic import command

    config = opening.alembic_config()
    engine = opening.engine_for(file)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for row in (
            "INSERT INTO source VALUES (1, '/photos')",
            "INSERT INTO image VALUES (1, 1, 'a.jpg', 'v1', 10, 640, 480, 'ok', NULL, NULL, 0)",
            "INSERT INTO class VALUES (1, 'dog', NULL, NULL)",
            "INSERT INTO model VALUES (1, 'f00', 'nano', 'detector', '{}')",
            "INSERT INTO analyzer VALUES (1, 1, 'p', '{}')",
            "INSERT INTO analysis VALUES (1, 1, 'v1')",
            "INSERT INTO box VALUES (1, 1, 0, 1, 900000, 1, 2, 3, 4)",
            "INSERT INTO image_class VALUES (1, 900000, 1, 1, 1)",
        ):
            connection.exec_driver_sql(row)
    engine.dispose()
    with Catalog(file) as catalog:
        (found,) = catalog.search("dog").results
    assert found.image.boxes[0].box_xyxy == (1, 2, 3, 4)
    assert (found.image.warning, found.image.attributes) == (None, {})
    assert (found.image.boxes[0].flags, found.image.boxes[0].attributes) == ({}, {})


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("split:train", {"a.jpg", "c.jpg"}),
        ("red square split:train", {"a.jpg"}),
        ("camera:7", {"a.jpg"}),
        ("night:true", {"b.jpg"}),
        ("night:false", {"a.jpg"}),
        ("split:train camera:8", {"c.jpg"}),
        ('"place name":x', None),
        ("split:TRAIN", set()),
        ("unknown:1", set()),
    ],
)
def test_attributes_narrow_a_search(place: str, query: str, names: set[str] | None) -> None:
    said = {
        "a.jpg": {"split": "train", "camera": 7, "night": False},
        "b.jpg": {"split": "val", "night": True},
        "c.jpg": {"split": "train", "camera": "8"},
    }
    with Catalog(place, create=True) as catalog:
        for name, attributes in said.items():
            one = outcome(name, [(0, 0.9)] if name != "c.jpg" else [])
            entry = replace(one.entry, attributes=attributes)
            commit(catalog, [replace(one, entry=entry)])
        if names is None:
            with pytest.raises(QueryError):
                catalog.search(query)
            return
        page = catalog.search(query)
        assert {one.image.key for one in page.results} == names
        assert catalog.count(query) == len(names)


def test_attributes_of_an_outcome_without_any_stay(place: str) -> None:
    with Catalog(place, create=True) as catalog:
        one = outcome("a.jpg", [])
        described = replace(one, entry=replace(one.entry, attributes={"camera": 7}))
        commit(catalog, [described])
        commit(catalog, [one, outcome("b.jpg", [])])
        assert catalog.image(1).attributes == {"camera": 7}
        commit(catalog, [replace(one, entry=replace(one.entry, attributes={"night": True}))])
        assert catalog.image(1).attributes == {"camera": 7, "night": True}


@given(st.dictionaries(st.sampled_from(FLAGS), st.booleans()))
def test_flags_come_back_as_they_went(flags: dict[str, bool]) -> None:
    assert images.unpacked_flags(results.packed_flags(flags)) == flags


def test_a_catalog_is_made_with_its_folder_and_opened_again(file: str) -> None:
    with Catalog(file, create=True) as catalog:
        commit(catalog, [outcome("a.jpg", [(0, 0.5)])])
    with Catalog(file) as catalog:
        assert catalog.stats().images == 1


def test_a_missing_catalog_says_how_to_make_one(file: str) -> None:
    with pytest.raises(CatalogError, match=r"no catalog here; `vistadex index FOLDER` makes one"):
        Catalog(file)
    assert not Path(file).exists()


def test_a_catalog_of_a_newer_version_is_refused(file: str) -> None:
    Catalog(file, create=True).close()
    connection = sqlite3.connect(file)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(CatalogError, match=r"newer Vistadex .*9999.*upgrade"):
        Catalog(file)


def test_another_database_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE things (id INTEGER)")
    connection.close()
    with pytest.raises(CatalogError, match="is no catalog"):
        Catalog(str(tmp_path / "other.db"), create=True)


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database at all, but long enough" * 10)
    with pytest.raises(CatalogError, match=r"notes.txt: this is no catalog"):
        Catalog(str(tmp_path / "notes.txt"), create=True)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="can't be opened"):
        Catalog(str(tmp_path), create=True)


def test_what_fails_inside_a_transaction_leaves_nothing(place: str) -> None:
    catalog = Catalog(place, create=True)
    broken = outcome("b", [(0, 0.5)])
    object.__setattr__(broken.results[0], "class_ids", np.array([99]))
    with pytest.raises(IndexError):
        commit(catalog, [outcome("a", [(0, 0.5)]), broken])
    assert catalog.stats().images == 0
    assert kept(catalog) == {}
    catalog.close()


def test_a_full_disk_is_an_error_that_loses_nothing(file: str) -> None:
    catalog = Catalog(file, create=True)
    commit(catalog, [outcome("a.jpg", [(0, 0.5)])])
    limited = sa.event.listens_for(catalog.engine, "begin")

    @limited
    def _limit(connection: sa.Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    many = [outcome(f"{i:05}.jpg", [(0, 0.5)] * 20) for i in range(500)]
    with pytest.raises(CatalogError, match=r"the disk is full; free some space"):
        commit(catalog, many)
    assert catalog.stats().images == 1
    catalog.close()


def test_a_catalog_that_cannot_be_written_is_an_error_with_the_cure(file: str) -> None:
    catalog = Catalog(file, create=True)
    commit(catalog, [outcome("a.jpg", [(0, 0.5)])])
    catalog.close()

    @sa.event.listens_for(catalog.engine, "connect")
    def _read_only(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA query_only=ON")

    with pytest.raises(CatalogError, match="can't be written; check its permissions"):
        commit(catalog, [outcome("b.jpg", [(0, 0.5)])])
    assert catalog.stats().images == 1
    catalog.close()


def test_readers_are_not_blocked_by_a_writer(place: str) -> None:
    catalog = Catalog(place, create=True)
    commit(catalog, [outcome("a.jpg", [(0, 0.5)])])
    with catalog.writing() as connection:
        connection.execute(sa.update(tables.image).values(width=1))
        seen: list[int] = []
        reader = threading.Thread(target=lambda: seen.append(catalog.image("1").width))
        reader.start()
        reader.join(5)
        assert seen == [640]
    assert catalog.image("1").width == 1
    catalog.close()


def test_a_changed_version_replaces_all_results_of_every_analyzer(place: str) -> None:
    catalog = Catalog(place, create=True)
    commit(catalog, [outcome("a.jpg", [(0, 0.9), (1, 0.8)])], min_score=0.1)
    commit(catalog, [outcome("a.jpg", [(0, 0.9)])], min_score=0.2)
    assert {box.class_name for box in catalog.image("1").boxes} == {"red square", "blue square"}
    commit(catalog, [outcome("a.jpg", [(0, 0.7)], version="v2")], min_score=0.2)
    image = catalog.image("/photos/a.jpg")
    assert [(box.class_name, round(box.score, 6)) for box in image.boxes] == [("red square", 0.7)]
    assert len(image.models) == 1
    catalog.close()


def test_a_failure_to_read_the_same_version_keeps_its_results(place: str) -> None:
    catalog = Catalog(place, create=True)
    commit(catalog, [outcome("a.jpg", [(0, 0.9)])])
    failed = Outcome(ImageEntry("a.jpg", 10, "v1"), failure=Failure("unreadable", "no network"))
    commit(catalog, [failed])
    image = catalog.image("1")
    assert (image.status, image.reason, image.width, len(image.boxes)) == (
        "failed",
        "unreadable",
        640,
        1,
    )
    catalog.close()


def test_embeddings_are_kept_as_half_floats(place: str) -> None:
    catalog = Catalog(place, create=True)
    vector = np.array([0.6, 0.8], np.float32)
    commit(catalog, [Outcome(ImageEntry("a.jpg", 1, "v"), 4, 3, (Embedding(vector),))])
    with catalog.reading() as connection:
        stored = connection.execute(sa.select(tables.embedding.c.vector)).scalar_one()
    assert np.allclose(np.frombuffer(stored, "<f2"), vector, atol=1e-3)
    catalog.close()


found = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.3, 0.5, 0.9])), max_size=4)
step = st.tuples(st.integers(0, 5), found, st.integers(1, 2), st.sampled_from([0.1, 0.2]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(step, min_size=1, max_size=4), max_size=6), st.integers(0, 5))
def test_counts_always_equal_what_is_there(
    database: Place,
    commits: list[list[tuple[int, list[tuple[int, float]], int, float]]],
    removed: int,
) -> None:
    with database.catalog() as url, Catalog(url) as catalog:
        _check_counts(catalog, commits, removed)


def _check_counts(
    catalog: Catalog,
    commits: list[list[tuple[int, list[tuple[int, float]], int, float]]],
    removed: int,
) -> None:
    for steps in commits:
        for min_score in {one[3] for one in steps}:
            by_key = {
                f"{number}.jpg": outcome(f"{number}.jpg", boxes, version=f"v{version}")
                for number, boxes, version, score in steps
                if score == min_score
            }
            commit(catalog, list(by_key.values()), min_score)
    assert kept(catalog) == counted(catalog)
    with catalog.writing() as connection:
        query = sa.select(tables.image.c.id).where(tables.image.c.key == f"{removed}.jpg")
        writing.delete_images(connection, list(connection.execute(query).scalars()))
    assert kept(catalog) == counted(catalog)


def test_an_image_is_found_by_id_path_and_uri_only(place: str) -> None:
    catalog = Catalog(place, create=True)
    commit(catalog, [outcome("sub/a.jpg", []), outcome("7", [])])
    assert catalog.image(1).key == "sub/a.jpg"
    assert catalog.image("/photos/sub/a.jpg").id == 1
    for wrong in ("a.jpg", "/photos/sub", "99", "/photos/../a.jpg", "", "9" * 30):
        with pytest.raises(NotFoundError, match="no such image"):
            catalog.image(wrong)
    catalog.close()


def test_an_unknown_failure_reason_names_the_known_ones(place: str) -> None:
    with (
        Catalog(place, create=True) as catalog,
        pytest.raises(UsageError, match=r"known are: empty, not_an_image"),
    ):
        catalog.errors(reason="bad")


def test_failed_images_come_page_by_page(place: str) -> None:
    catalog = Catalog(place, create=True)
    failed = Failure("corrupt", "bad bytes")
    commit(catalog, [Outcome(ImageEntry(f"{i}", 1, "v"), failure=failed) for i in range(5)])
    first = catalog.errors(limit=3)
    rest = catalog.errors(limit=3, after=first[-1].id)
    assert [bad.uri for bad in first + rest] == [f"/photos/{i}" for i in range(5)]
    assert catalog.stats().failures == {"corrupt": 5}
    catalog.close()


def test_planning_reads_a_range_of_keys_with_their_analyses(place: str) -> None:
    catalog = Catalog(place, create=True)
    commit(catalog, [outcome(key, []) for key in "abcd"])
    with catalog.reading() as connection:
        rows = reading.known_images(connection, 1, [1], "a", "c")
    assert [(row.key, row.analyses) for row in rows] == [("b", 1), ("c", 1)]
    catalog.close()


def test_only_keys_of_manifests_are_addresses() -> None:
    assert image_address("/data/list.csv", "https://host/a.jpg") == "https://host/a.jpg"
    assert image_address("https://host/list.txt?x=1", "s3://b/a.jpg") == "s3://b/a.jpg"
    assert image_address("/list.parquet", "file:///d/a%20b.jpg") == "/d/a b.jpg"
    assert image_address("/x.zip", "file:///etc/hostname") == "/x.zip/file:///etc/hostname"
    assert image_address("s3://b/web", "https://host/a.jpg") == "s3://b/web/https://host/a.jpg"


def test_boxes_with_the_same_score_keep_the_order_in_which_they_were_found(place: str) -> None:
    with Catalog(place) as catalog:
        commit(catalog, [outcome("a.jpg", [(0, 0.5)] * 5)])
        with catalog.writing() as connection:  # a server puts a changed row behind the others
            moved = sa.update(tables.box).where(tables.box.c.ordinal < 2)
            connection.execute(moved.values(score=tables.box.c.score))
            if connection.dialect.name == "postgresql":  # which then reads rows as they lie
                connection.exec_driver_sql("ANALYZE box")
        found = [box.box_xyxy[0] for box in catalog.images([1])[0].boxes]
    assert found == [0, 1, 2, 3, 4]
