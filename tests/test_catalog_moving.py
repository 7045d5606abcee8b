"""vistadex.catalog.moving: a catalog arrives whole in any other database, or not at all."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from tests.databases import PASSWORD, Files, Place, Server
from tests.test_catalog import commit, counted, kept, outcome
from vistadex.catalog import Catalog, attributes, moving, registering, tables, writing
from vistadex.catalog.checking import check_catalog
from vistadex.catalog.checksums import Checksum
from vistadex.cli_catalog import catalog_app
from vistadex.errors import CatalogError, UsageError
from vistadex.origins import AnnotationOrigin
from vistadex.records import (
    Classification,
    Detections,
    Embedding,
    Failure,
    ImageEntry,
    Outcome,
    Relation,
    Relations,
)

ODD = [
    "a",
    "A ",
    "ä\u0308",
    "\U0001f600.jpg",
    "tab\there",
    "new\nline",
    "back\\slash",
    "\\N",
    "'\"",
]


def fill(catalog: Catalog) -> None:
    """Something in every table, with what is hard to copy."""
    rng = random.Random(2)
    commit(catalog, [outcome(f"{i:04}.jpg", [(i % 2, rng.random())] * (i % 4)) for i in range(300)])
    boxes = np.array([[1 / 3, 0.1, 1e-9, 123456.789]])
    said = Detections(
        boxes,
        np.ones(1),
        np.zeros(1, np.int64),
        flags=({"occluded": True},),
        attributes=({"note": "\\.\t\U0001f600"},),
    )
    whole = Classification(np.array([1.0, 0.0]), np.array([0, 1], np.int64))
    corners = (0.0, 0.1, 2.5, 3.5)
    related = Relations((Relation("dog", "on", "mat", corners, None, 0.5),))
    vector = Embedding(np.array([0.6, 0.8], np.float32))
    analyzers = [
        AnnotationOrigin("human", task, ("dog", "mat"), {})
        for task in ("detector", "classifier", "relater")
    ]
    outcomes: list[Outcome] = []
    for i, name in enumerate(ODD):
        entry = ImageEntry(name, 1 << 40, f"v{name}", attributes={"n": [i, None, name]})
        results = (said, whole, related)
        outcomes.append(Outcome(entry, 640, 480, results, content_hash=bytes([0, i] * 8)))
    failure = Failure("corrupt", "bad\tbytes\\N")
    outcomes.append(Outcome(ImageEntry("bad", 0, ""), failure=failure))
    with catalog.writing() as connection:
        source = registering.register_source(connection, "s3://b/ü", "https://h/{image_id}.jpg")
        registered = [registering.register_analyzer(connection, one) for one in analyzers]
        writing.write_annotations(connection, source, registered, outcomes)
        registering.describe_classes(connection, {"dog": "/m/1"}, {"mat": "flat"}, [("dog", "mat")])
        embedder = registering.register_analyzer(
            connection, AnnotationOrigin("machine", "embedder", (), {})
        )
        writing.write_annotations(
            connection, source, [embedder], [Outcome(ImageEntry("e", 1, "v"), 4, 3, (vector,))]
        )
        fill_beside(connection)


def fill_beside(connection: sa.Connection) -> None:
    """Something in the tables that no results enter."""
    sets = attributes.set_ids(connection, ['{"split":"träin","n":7.0}', '{"unused":true}'])
    shared = sa.update(tables.image).where(tables.image.c.id % 3 == 0)
    connection.execute(shared.values(attribute_set_id=sets[0]))
    values: dict[str, Any] = {"name": "Ä \\N", "made_at": 1 << 33}
    connection.execute(sa.insert(tables.collection).values(values))
    chosen = [{"collection_id": 1, "image_id": id_} for id_ in range(2, 200, 2)]
    connection.execute(sa.insert(tables.collection_image), chosen)
    times = {"started_at": 1 << 33, "updated_at": 1 << 33}
    run = {"kind": "index", "subject": "a\tb", "status": "done", "numbers": {"done": [1, 2.5]}}
    connection.execute(sa.insert(tables.run).values(**run, **times))


def contents(url: str) -> dict[str, list[Any]]:
    """All rows of all tables but those that say which catalog it is."""
    found = {}
    with Catalog(url) as catalog, catalog.reading() as connection:
        for table in tables.metadata.sorted_tables:
            if table not in moving.OWN:
                rows = connection.execute(sa.select(table)).all()
                found[table.name] = sorted((tuple(row) for row in rows), key=repr)
    return found


@pytest.fixture
def filled(catalog_url: str) -> str:
    with Catalog(catalog_url) as catalog:
        fill(catalog)
    return catalog_url


@pytest.fixture
def file(tmp_path: Path) -> str:
    """The name of a file that is none yet."""
    return str(tmp_path / "copy" / "catalog.db")


def test_every_table_arrives_row_by_row(filled: str, file: str, database: Place) -> None:
    before = contents(filled)
    empty = {name for name, rows in before.items() if not rows}
    assert empty <= {"embedding"}
    first = moving.copy_catalog(filled, file)
    assert contents(file) == before
    back = database.empty()
    second = moving.copy_catalog(file, back)
    assert contents(back) == before
    assert first.tables == second.tables
    assert {one.name: one.rows for one in first.tables} == {
        name: len(rows) for name, rows in before.items()
    }
    assert check_catalog(file) == []
    assert check_catalog(back) == []


def test_a_copy_can_be_written_to(filled: str, file: str, database: Place) -> None:
    target = database.empty()
    moving.copy_catalog(filled, file)
    moving.copy_catalog(file, target)
    with Catalog(target) as catalog:
        images = catalog.stats().images
        commit(catalog, [outcome("new.jpg", [(0, 0.5)]), outcome("0001.jpg", [], "v2")])
        assert catalog.stats().images == images + 1
        assert kept(catalog) == counted(catalog)
    assert check_catalog(target) == []


def test_a_copy_is_another_catalog_in_which_all_has_changed(filled: str, file: str) -> None:
    moving.copy_catalog(filled, file)
    said = []
    for url in (filled, file):
        with Catalog(url) as catalog, catalog.reading() as connection:
            said.append(connection.execute(sa.select(tables.state.c.uuid)).scalar_one())
            last = connection.execute(sa.select(tables.change.c.images)).scalars().all()[-1]
    assert said[0] != said[1]
    assert last is None


def test_a_target_with_rows_is_refused_and_stays(filled: str, file: str) -> None:
    with Catalog(file, create=True) as catalog:
        commit(catalog, [outcome("mine.jpg", [(0, 0.5)])])
    before = contents(file)
    with pytest.raises(CatalogError, match=r"has rows, expected an empty catalog; give another"):
        moving.copy_catalog(filled, file)
    assert contents(file) == before


def test_a_catalog_is_not_copied_onto_itself(filled: str) -> None:
    with pytest.raises(UsageError, match="another place than the catalog itself"):
        moving.copy_catalog(filled, filled)


def test_what_the_target_does_not_hold_is_found_and_nothing_stays(
    database: Place, file: str
) -> None:
    with Catalog(file, create=True) as catalog:
        fill(catalog)
    target = database.empty()
    with Catalog(target, create=True) as catalog, catalog.writing() as connection:
        _lose_rows(connection)
    with pytest.raises(CatalogError, match=r"table box holds .* rows .*, expected .*nothing was"):
        moving.copy_catalog(file, target)
    with Catalog(target) as catalog:
        assert catalog.stats().images == 0


def _lose_rows(connection: sa.Connection) -> None:
    """Makes a database that forgets: a trigger changes what is entered."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            "CREATE FUNCTION forget() RETURNS trigger AS $$ BEGIN "
            "NEW.x0 := NEW.x0 + 1; RETURN NEW; END $$ LANGUAGE plpgsql"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER forgets BEFORE INSERT ON box FOR EACH ROW EXECUTE FUNCTION forget()"
        )
    elif connection.dialect.name == "mysql":
        connection.exec_driver_sql(
            "CREATE TRIGGER forgets BEFORE INSERT ON box FOR EACH ROW SET NEW.x0 = NEW.x0 + 1"
        )
    else:
        connection.exec_driver_sql(
            "CREATE TRIGGER forgets AFTER INSERT ON box BEGIN "
            "UPDATE box SET x0 = x0 + 1 WHERE image_id = NEW.image_id; END"
        )


def test_a_copy_that_breaks_off_leaves_nothing(database_server: Server, file: str) -> None:
    with Catalog(file, create=True) as catalog:
        fill(catalog)
    target = database_server.empty()

    class Broken:
        def update(self, *, listed: int, listing: bool, done: int, failed: int) -> None:
            if done > 300:
                database_server.terminate(str(sa.make_url(target).database))

    with pytest.raises(CatalogError, match="connection was lost"):
        moving.copy_catalog(file, target, Broken())
    with Catalog(target) as catalog:
        assert catalog.stats().images == 0
    moving.copy_catalog(file, target)
    assert contents(target) == contents(file)


def test_a_name_that_the_target_cannot_hold_is_an_error(database_server: Server, file: str) -> None:
    with Catalog(file, create=True) as catalog:
        commit(catalog, [outcome("x" * 3000, [])])
    target = database_server.empty()
    with pytest.raises(CatalogError, match=r"3,000 bytes, expected at most 2,600"):
        moving.copy_catalog(file, target)
    with Catalog(target) as catalog:
        assert catalog.stats().images == 0


def test_a_sum_sees_every_difference_but_that_of_order() -> None:
    table = tables.image
    rng = random.Random(1)
    rows = [_image_row(rng, i) for i in range(50)]

    def summed(some: list[tuple[Any, ...]]) -> tuple[int, int]:
        checksum = Checksum(table)
        for start in range(0, len(some), 7):
            checksum.add(some[start : start + 7])
        return checksum.rows, checksum.sum

    whole = summed(rows)
    assert summed(rng.sample(rows, len(rows))) == whole
    assert summed(rows[1:]) != whole
    assert summed([*rows[1:], rows[1]]) != whole
    for i, column in enumerate(table.c):
        for other in (None, _other(rows[3][i])):
            if other != rows[3][i]:
                changed = (*rows[3][:i], other, *rows[3][i + 1 :])
                assert summed([*rows[:3], changed, *rows[4:]]) != whole, column.name


def _image_row(rng: random.Random, number: int) -> tuple[Any, ...]:
    hashed = rng.choice([None, rng.randbytes(16)])
    attributes = rng.choice([None, {"a": 1, "b": "x"}])
    size = rng.randrange(1 << 40)
    return (
        *(number, 1, f"{number}.jpg", "v", size, 640, 480, "ok", None, None, 0, None),
        *(attributes, hashed, rng.choice([None, -rng.randrange(1 << 62)]), number % 7),
    )


def _other(value: Any) -> Any:
    if isinstance(value, int):
        return value + 1
    return b"other" if isinstance(value, bytes) else "other"


def test_the_command_prints_rows_and_sums(filled: str, file: str) -> None:
    run = CliRunner().invoke(catalog_app, ["copy", filled, file, "--json"])
    assert run.exit_code == 0, run.output
    said = json.loads(run.stdout)
    assert said["target"] == file
    assert {one["name"]: one["rows"] for one in said["tables"]}["box"] == len(contents(file)["box"])
    assert PASSWORD not in run.output


@pytest.fixture
def other(tmp_path: Path) -> Iterator[str]:
    with Files(tmp_path).catalog() as url:
        yield url


def test_the_command_counts_in_words_too(other: str, file: str) -> None:
    with Catalog(other) as catalog:
        commit(catalog, [outcome("a.jpg", [(0, 0.5)])])
    run = CliRunner().invoke(catalog_app, ["copy", other, file])
    assert run.exit_code == 0, run.output
    assert f"rows copied from {other} to {file} in " in run.stdout
    assert "image_class" in run.stdout
