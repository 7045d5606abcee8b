"""The totals of a catalog are what counting every row gives, whatever has been written."""

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from tests.databases import Place
from tests.test_catalog_counts import Catalogs
from vistadex.catalog import Catalog, ModelStats, SourceStats, Stats, checking, tables
from vistadex.catalog.tables import analysis, analyzer, box, image, image_class, model, source


def counted(connection: sa.Connection) -> Stats:
    """The totals, row by row."""
    images = connection.execute(sa.select(image)).all()
    of = Counter((row.source_id, row.status) for row in images)
    all_of = Counter(row.source_id for row in images)
    seen = Counter(connection.execute(sa.select(analysis.c.analyzer_id)).scalars())
    models = sa.select(analyzer, model.c.name, model.c.sha256, model.c.task)
    return Stats(
        len(images),
        sum(row.status == "failed" for row in images),
        sum(row.status == "vanished" for row in images),
        connection.execute(sa.select(sa.func.count()).select_from(box)).scalar_one(),
        len(set(connection.execute(sa.select(image_class.c.class_id)).scalars())),
        tuple(
            SourceStats(row.uri, all_of[row.id], of[row.id, "failed"], of[row.id, "vanished"])
            for row in sorted(connection.execute(sa.select(source)), key=lambda row: row.uri)
        ),
        tuple(
            ModelStats(row.name, row.sha256, row.task, json.loads(row.parameters), seen[row.id])
            for row in connection.execute(models.join_from(analyzer, model).order_by(analyzer.c.id))
        ),
        dict(Counter(row.reason for row in images if row.status == "failed")),
    )


class Watched(Catalogs):
    """Writers of all kinds, and somebody who looks at the totals all the time."""

    def __init__(self, database: Place) -> None:
        self.database, self.stack = database, ExitStack()
        super().__init__()

    def opened(self) -> Catalog:
        place = self.stack.enter_context(self.database.catalog())
        self.reader = self.stack.enter_context(Catalog(place))
        return Catalog(place, postings=False)

    def teardown(self) -> None:
        super().teardown()
        self.stack.close()

    @invariant()
    def all_is_right(self) -> None:
        with self.reader.reading() as connection:
            expected = counted(connection)
        assert self.reader.stats() == expected
        assert self.reader.stats() == expected  # what is kept now


def test_totals_are_what_counting_gives_after_any_sequence_of_writes(database: Place) -> None:
    few = settings(max_examples=8, stateful_step_count=8, deadline=None)
    run_state_machine_as_test(lambda: Watched(database), settings=few)


def test_failures_come_by_falling_number(catalog_url: str) -> None:
    with Catalog(catalog_url) as catalog:
        with catalog.writing() as connection:
            connection.execute(sa.insert(source).values(id=1, uri="/a", images=6))
            reasons = [
                "corrupt",
                "unreadable",
                "unreadable",
                "unreadable",
                "too_large",
                "too_large",
            ]
            rows = [
                {
                    "source_id": 1,
                    "key": str(i),
                    "version": "",
                    "size_bytes": 0,
                    "width": 0,
                    "height": 0,
                    "status": "failed",
                    "reason": reason,
                    "indexed_at": 0,
                }
                for i, reason in enumerate(reasons)
            ]
            connection.execute(sa.insert(image), rows)
        found = catalog.stats()
    assert list(found.failures.items()) == [("unreadable", 3), ("too_large", 2), ("corrupt", 1)]
    assert (found.images, found.failed, found.sources[0].failed) == (6, 6, 6)


def test_totals_do_not_look_at_images_that_are_well(tmp_path: Path) -> None:
    with Catalog(tmp_path / "c.db", create=True) as catalog, catalog.reading() as connection:
        read: list[str] = []

        def note(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
            rows = connection.connection.driver_connection.execute(
                f"EXPLAIN QUERY PLAN {statement}", parameters
            )
            read.extend(row[3] for row in rows)

        sa.event.listen(catalog.engine, "before_cursor_execute", note)
        catalog._totals.stats(connection)
        sa.event.remove(catalog.engine, "before_cursor_execute", note)
    of_images = [step for step in read if step.split()[1] == "image"]
    assert of_images == ["SEARCH image USING INDEX image_by_trouble (status=?)"]
    assert not [step for step in read if step.split()[1] in ("analysis", "box", "image_class")]


@pytest.mark.parametrize("table", ["source", "analyzer"])
def test_a_wrong_number_of_images_is_found(tmp_path: Path, table: str) -> None:
    place = str(tmp_path / "c.db")
    with Catalog(place, create=True) as catalog, catalog.writing() as connection:
        connection.execute(sa.insert(source).values(id=1, uri="/a"))
        connection.execute(sa.insert(model).values(id=1, sha256="0", name="m", task="", card=""))
        connection.execute(
            sa.insert(analyzer).values(id=1, model_id=1, parameters_hash="", parameters="{}")
        )
    assert checking.check_catalog(place) == []
    with Catalog(place) as catalog, catalog.writing() as connection:
        connection.execute(sa.update(tables.metadata.tables[table]).values(images=3))
    (wrong,) = checking.check_catalog(place)
    name = "/a" if table == "source" else "1"
    assert (wrong.table, wrong.examples) == (table, (f"{name} says 3, has 0",))
