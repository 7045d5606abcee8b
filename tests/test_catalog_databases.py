"""The catalog on servers: what they promise beside what the catalog's own suite tests on them."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from tests.databases import PASSWORD, Place, Server, certificate
from tests.test_catalog import commit, counted, kept, outcome
from vistadex.catalog import Catalog, opening, registering, tables, writing
from vistadex.catalog.checking import check_catalog
from vistadex.catalog.columns import attribute_text
from vistadex.errors import CatalogError
from vistadex.records import Failure, ImageEntry, Outcome
from vistadex.testing import RedSquareDetector

NAMES = [
    "a",
    "A",
    "a ",
    " a",
    "ä",
    "a\u0308",
    "ß",
    "ss",
    "z",
    "Z",
    "\U0001f600",
    "\uffee",
    "1",
    "01",
]
NAMES += ["a%", "a_", "a\\", "a'", 'a"', "e" * 1024, "日" * 300]


def name_of(url: str) -> str:
    return str(sa.make_url(url).database)


def encrypted(catalog: Catalog) -> bool:
    with catalog.reading() as connection:
        if connection.dialect.name == "mysql":
            row = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Ssl_cipher'").one()
            return bool(row[1])
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        return bool(connection.exec_driver_sql(query).scalar())


def test_tls_is_used_where_the_address_asks_for_it(
    database_server: Server, catalog_url: str
) -> None:
    trusted = f"&sslrootcert={database_server.certificate}"
    for options, expected in (
        ("sslmode=disable", False),
        ("sslmode=require", True),
        (f"sslmode=verify-ca{trusted}", True),
        (f"sslmode=verify-full{trusted}", True),
        (f"sslmode=verify-full&ssl_ca={database_server.certificate}", True),
    ):
        with Catalog(f"{catalog_url}?{options}") as catalog:
            assert encrypted(catalog) is expected, options


def test_a_certificate_that_is_not_trusted_is_an_error(
    database_server: Server, catalog_url: str, tmp_path: Path
) -> None:
    other, _ = certificate(tmp_path)
    for mode in ("verify-ca", "verify-full"):
        with pytest.raises(CatalogError, match=r"no connection by TLS: .*check sslmode"):
            Catalog(f"{catalog_url}?sslmode={mode}&sslrootcert={other}")
    by_number = catalog_url.replace("@localhost", "@127.0.0.1")
    with pytest.raises(CatalogError, match=r"no connection by TLS: .*check sslmode"):
        Catalog(f"{by_number}?sslmode=verify-full&sslrootcert={database_server.certificate}")


def test_a_wrong_password_is_an_error_that_shows_none(
    database_server: Server, catalog_url: str
) -> None:
    wrong = catalog_url.replace(PASSWORD, "wr0ng-s3cr3t")
    with pytest.raises(CatalogError, match="refuses this user or password") as caught:
        Catalog(wrong)
    assert "s3cr3t" not in str(caught.value)
    assert "://vistadex@localhost:" in str(caught.value)


def test_no_password_is_shown_anywhere(database_server: Server, catalog_url: str) -> None:
    with Catalog(catalog_url) as catalog:
        shown = [catalog.place, catalog.location, repr(catalog.engine), str(catalog.engine.url)]
        with pytest.raises(CatalogError) as caught, catalog.reading() as connection:
            connection.exec_driver_sql("SELECT nothing FROM nowhere")
    assert PASSWORD not in " ".join([*shown, str(caught.value), str(caught.value.__cause__)])


def test_a_missing_database_says_how_to_make_one(database_server: Server, catalog_url: str) -> None:
    url = sa.make_url(catalog_url).set(database="none_such")
    with pytest.raises(CatalogError, match=r"/none_such: there is no such database; make it with"):
        Catalog(url.render_as_string(hide_password=False), create=True)


def test_an_empty_database_is_filled_by_create_only(database_server: Server) -> None:
    url = database_server.empty()
    with pytest.raises(CatalogError, match="the catalog is empty; `vistadex index FOLDER` fills"):
        Catalog(url)
    Catalog(url, create=True).close()
    with Catalog(url) as catalog:
        assert catalog.stats().images == 0
    assert check_catalog(url) == []


def test_several_that_make_a_catalog_at_once_all_have_it(database_server: Server) -> None:
    url = database_server.empty()
    begin = threading.Barrier(4)

    def make(number: int) -> None:
        begin.wait()
        with Catalog(url, create=True) as catalog:
            commit(catalog, [outcome(f"{number}.jpg", [(0, 0.5)])])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(make, range(4)))
    with Catalog(url) as catalog, catalog.reading() as connection:
        assert len(connection.execute(sa.select(tables.state)).all()) == 1
        marks = connection.exec_driver_sql("SELECT version_num FROM alembic_version").all()
        assert [tuple(mark) for mark in marks] == [(tables.SCHEMA_REVISION,)]
    assert check_catalog(url) == []


def test_tables_that_were_half_made_are_completed_where_that_can_be(
    database_server: Server,
) -> None:
    url = database_server.empty()
    engine = opening.engine_for(url)
    with engine.connect().execution_options(schema=True) as connection, connection.begin():
        some = [tables.source, tables.klass, tables.image]
        tables.metadata.create_all(connection, tables=some)
    engine.dispose()
    if database_server.name == "postgresql":  # makes all tables or none: this was somebody else
        with pytest.raises(CatalogError, match="is no catalog"):
            Catalog(url, create=True)
        return
    with Catalog(url, create=True) as catalog:
        commit(catalog, [outcome("a.jpg", [(0, 0.5)])])
    assert check_catalog(url) == []


def test_a_database_of_something_else_is_refused(database_server: Server) -> None:
    url = database_server.empty()
    with database_server.admin(name_of(url)) as connection:
        connection.exec_driver_sql("CREATE TABLE things (id INTEGER)")
    with pytest.raises(CatalogError, match="this database is no catalog"):
        Catalog(url, create=True)


def test_a_catalog_of_a_newer_version_is_refused(database_server: Server) -> None:
    url = database_server.empty()
    Catalog(url, create=True).close()
    with database_server.admin(name_of(url)) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(CatalogError, match=r"newer Vistadex .*9999.*upgrade"):
        Catalog(url)


def test_who_may_only_read_can_search_but_not_write(
    database_server: Server, catalog_url: str
) -> None:
    with Catalog(catalog_url) as catalog:
        commit(catalog, [outcome("a.jpg", [(0, 0.5)])])
    with Catalog(database_server.reader(name_of(catalog_url))) as catalog:
        assert catalog.count("red square") == 1
        with pytest.raises(CatalogError, match=r"denied.*grant it"):
            commit(catalog, [outcome("b.jpg", [(0, 0.5)])])


def test_a_reader_sees_one_state_and_cannot_write(
    database_server: Server, catalog_url: str
) -> None:
    with Catalog(catalog_url) as catalog:
        commit(catalog, [outcome("a.jpg", [(0, 0.5)])])
        number = sa.select(sa.func.count()).select_from(tables.image)
        with catalog.reading() as connection:
            assert connection.execute(number).scalar() == 1
            commit(catalog, [outcome("b.jpg", [(0, 0.5)])])
            assert connection.execute(number).scalar() == 1
        with pytest.raises(CatalogError, match="read"), catalog.reading() as connection:
            connection.execute(sa.update(tables.image).values(width=1))
        assert catalog.image(2).width == 640


def test_writers_come_one_after_the_other(database_server: Server, catalog_url: str) -> None:
    with Catalog(catalog_url) as catalog, ThreadPoolExecutor(1) as threads:
        with catalog.writing():
            waiting = threads.submit(commit, catalog, [outcome("a.jpg", [(0, 0.5)])])
            time.sleep(0.3)
            assert not waiting.done()
            assert catalog.stats().images == 0
        waiting.result(30)
        assert catalog.stats().images == 1


def test_a_writer_waits_no_longer_than_the_address_says(
    database_server: Server, catalog_url: str
) -> None:
    with (
        Catalog(catalog_url) as catalog,
        Catalog(f"{catalog_url}?lock_timeout=1") as hasty,
        catalog.writing(),
        pytest.raises(CatalogError, match="another process has been writing for lock_timeout"),
        hasty.writing(),
    ):
        pass


def test_a_statement_of_a_reader_takes_no_longer_than_the_address_says(
    database_server: Server, catalog_url: str
) -> None:
    slow = "SELECT SLEEP(3)" if database_server.name == "mariadb" else "SELECT pg_sleep(3)"
    with Catalog(f"{catalog_url}?statement_timeout=1&pool_size=1&pool_overflow=0") as catalog:
        for _ in range(2):  # the same connection, after a writer has had it
            with pytest.raises(CatalogError, match="took longer than statement_timeout"):
                _execute(catalog, slow)
            with catalog.writing() as connection:
                connection.exec_driver_sql(slow.replace("3", "1.2"))
        patient = catalog.engine.connect().execution_options(patient=True)
        with patient as connection, connection.begin():
            connection.exec_driver_sql(slow.replace("3", "1.2"))


def _execute(catalog: Catalog, statement: str) -> None:
    with catalog.reading() as connection:
        connection.exec_driver_sql(statement)


def test_a_pool_that_is_used_up_is_an_error_with_the_cure(
    database_server: Server, catalog_url: str
) -> None:
    url = f"{catalog_url}?pool_size=1&pool_overflow=0&pool_timeout=1"
    with (
        Catalog(url) as catalog,
        catalog.reading(),
        pytest.raises(CatalogError, match="all connections of this process are in use; raise"),
        catalog.reading(),
    ):
        pass


def test_a_server_without_free_connections_is_an_error_with_the_cure(
    database_server: Server, catalog_url: str
) -> None:
    if database_server.name == "mariadb":
        with database_server.admin() as connection:
            connection.exec_driver_sql("SET GLOBAL max_connections = 10")
    url = (
        database_server.reader(name_of(catalog_url))
        if database_server.name == "mariadb"
        else catalog_url
    )
    try:
        with pytest.raises(CatalogError, match="too many connections; lower"):
            _use_connections(url, 60)
    finally:
        if database_server.name == "mariadb":
            with database_server.admin() as connection:
                connection.exec_driver_sql("SET GLOBAL max_connections = 151")


def _use_connections(url: str, number: int) -> None:
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(stack.enter_context(Catalog(url)).reading())


def writes(found: list[Outcome], between: Callable[[], None]) -> Callable[[sa.Connection], int]:
    """Work that enters outcomes in two halves."""

    def work(connection: sa.Connection) -> int:
        source_id = registering.register_source(connection, "/photos")
        analyzer = registering.register_analyzer(connection, RedSquareDetector())
        half = len(found) // 2
        writing.write_outcomes(connection, source_id, [analyzer], found[:half])
        between()
        writing.write_outcomes(connection, source_id, [analyzer], found[half:])
        return len(found)

    return work


def test_a_connection_lost_in_the_middle_is_retried_and_nothing_is_doubled(
    database_server: Server, catalog_url: str
) -> None:
    calls: list[int] = []

    def lose() -> None:
        calls.append(1)
        if len(calls) < 3:
            assert database_server.terminate(name_of(catalog_url)) >= 1

    outcomes = [outcome(f"{i:03}.jpg", [(0, 0.9), (1, 0.5)]) for i in range(40)]
    with Catalog(catalog_url) as catalog:
        assert catalog.transaction(writes(outcomes, lose)) == 40
        assert len(calls) == 3
        assert catalog.stats().images == 40
        assert kept(catalog) == counted(catalog)
        assert catalog.stats().boxes == 80
    assert check_catalog(catalog_url) == []


def test_idle_connections_that_were_broken_are_made_anew(
    database_server: Server, catalog_url: str
) -> None:
    with Catalog(catalog_url) as catalog:
        assert catalog.stats().images == 0
        assert database_server.terminate(name_of(catalog_url)) >= 1
        assert catalog.stats().images == 0


def test_a_connection_lost_while_images_are_read_is_an_error_and_the_next_is_sound(
    database_server: Server, catalog_url: str
) -> None:
    def read(catalog: Catalog) -> None:
        with catalog.reading() as connection:
            assert database_server.terminate(name_of(catalog_url)) >= 1
            registering.all_analyzers(connection)

    with Catalog(catalog_url) as catalog:
        with pytest.raises(CatalogError) as caught:
            read(catalog)
        assert opening.is_passing(caught.value)
        assert catalog.search().results == ()


def test_several_indexers_over_the_same_images_end_in_the_right_state(
    database_server: Server, catalog_url: str
) -> None:
    rng = random.Random(4)

    def index(number: int) -> None:
        own = random.Random(number)
        with Catalog(catalog_url) as catalog:
            for _ in range(5):
                keys = own.sample(range(30), 12)
                found = [
                    outcome(f"{key}.jpg", [(own.randrange(2), 0.5)], f"v{own.randrange(3)}")
                    for key in keys
                ]
                catalog.transaction(writes(found, lambda: time.sleep(0.002)))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(index, [rng.random() for _ in range(4)]))
    with Catalog(catalog_url) as catalog:
        assert kept(catalog) == counted(catalog)
        assert catalog.stats().images <= 30
    assert check_catalog(catalog_url) == []


def test_names_are_compared_and_sorted_byte_by_byte(catalog_url: str) -> None:
    entries = [Outcome(ImageEntry(name, 1, "v"), 4, 3, ()) for name in NAMES]
    with Catalog(catalog_url) as catalog:
        with catalog.writing() as connection:
            source_id = registering.register_source(connection, "/photos")
            writing.write_outcomes(connection, source_id, [], entries)
            ids = registering.ids_by_name(connection, tables.klass, NAMES)
            assert len(set(ids.values())) == len(NAMES)
            assert set(ids) == set(NAMES)
        image = tables.image.c
        with catalog.reading() as connection:
            found = connection.execute(sa.select(image.key).order_by(image.key)).scalars().all()
            assert found == sorted(NAMES)
            for name in NAMES:
                query = sa.select(image.key).where(image.key == name)
                assert connection.execute(query).scalars().all() == [name]
                query = sa.select(image.key).where(image.key > name).order_by(image.key)
                assert connection.execute(query).scalars().all() == [
                    other for other in sorted(NAMES) if other > name
                ]


def test_a_name_that_is_too_long_is_an_error_that_leaves_nothing(
    database_server: Server, catalog_url: str
) -> None:
    longest = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=2600))
    with Catalog(catalog_url) as catalog:
        commit(catalog, [outcome(longest, [(0, 0.5)])])
        with pytest.raises(CatalogError, match=r"2,601 bytes, expected at most 2,600"):
            commit(catalog, [outcome("b.jpg", []), outcome(longest + "x", [])])
        assert catalog.image(1).key == longest
        assert catalog.stats().images == 1


def test_a_nul_in_an_error_does_not_stop_a_run(catalog_url: str) -> None:
    failed = Outcome(ImageEntry("a.jpg", 1, "v"), failure=Failure("corrupt", "bad \0 marker"))
    described = replace(outcome("b.jpg", []), warning="odd \0 trailer")
    entry = replace(described.entry, attributes={"make": "a\0b", "n\0": [1]})
    with Catalog(catalog_url) as catalog:
        commit(catalog, [failed, replace(described, entry=entry)])
        assert catalog.errors()[0].message == "bad \N{REPLACEMENT CHARACTER} marker"
        assert catalog.image(2).warning == "odd \N{REPLACEMENT CHARACTER} trailer"
        assert catalog.image(2).attributes == {"make": "a\ufffdb", "n\ufffd": [1]}


def test_attributes_are_the_same_text_on_every_database(catalog_url: str) -> None:
    values = {
        "whole": (7, "7"),
        "text": ("7", "7"),
        "fraction": (0.1 + 0.2, "0.30000000000000004"),
        "round": (7.0, "7.0"),
        "large": (1e300, "1e+300"),
        "yes": (True, "true"),
        "no": (False, "false"),
        "as text": ("true", "true"),
        "space ": ("a ", "a "),
        "two words": ("\U0001f600 ä\\", "\U0001f600 ä\\"),
        "ä": ("", ""),
        "nothing": (None, "none of these"),
    }
    entry = replace(
        outcome("a.jpg", []).entry,
        attributes={name: value for name, (value, _) in values.items()},
    )
    with Catalog(catalog_url) as catalog:
        commit(catalog, [replace(outcome("a.jpg", []), entry=entry)])
        commit(catalog, [outcome("b.jpg", [])])
        image = tables.image.c
        with catalog.reading() as connection:
            for name, (_, text) in values.items():
                stored = attribute_text(image.attributes, name)
                there = 0 if name == "nothing" else 1
                for wanted, number in ((text, there), (text + " ", 0), ("null", 0)):
                    query = sa.select(image.id).where(stored.in_((wanted, "other")))
                    assert len(connection.execute(query).all()) == number, (name, wanted)
            query = sa.select(image.id).where(attribute_text(image.attributes, "none").in_(("7",)))
            assert connection.execute(query).all() == []


def test_numbers_and_bytes_come_back_as_they_went(catalog_url: str) -> None:
    rng = np.random.default_rng(5)
    corners = rng.normal(scale=1e4, size=(200, 4)) * 10.0 ** rng.integers(-8, 8, (200, 1))
    packed = rng.bytes(1 << 20)
    with Catalog(catalog_url) as catalog:
        commit(catalog, [outcome("a.jpg", [(0, 0.5)])])
        box = tables.box
        with catalog.writing() as connection:
            connection.execute(sa.delete(box))
            names = ("x0", "y0", "x1", "y1")
            rows = [
                {"image_id": 1, "analyzer_id": 1, "ordinal": i, "class_id": 1, "score": 1}
                | dict(zip(names, values, strict=True))
                for i, values in enumerate(corners.tolist())
            ]
            connection.execute(sa.insert(box), rows)
            connection.execute(sa.update(tables.analysis).values(classes=packed))
            low = -(1 << 63)
            connection.execute(
                sa.update(tables.image).values(perceptual_hash=low, content_hash=packed[:16])
            )
        with catalog.reading() as connection:
            query = sa.select(box.c.x0, box.c.y0, box.c.x1, box.c.y1).order_by(box.c.ordinal)
            stored = [tuple(row) for row in connection.execute(query)]
            assert connection.execute(sa.select(tables.analysis.c.classes)).scalar() == packed
            hashes = sa.select(tables.image.c.perceptual_hash, tables.image.c.content_hash)
            assert tuple(connection.execute(hashes).one()) == (low, packed[:16])
    assert stored == [tuple(row) for row in corners.tolist()]


def test_fresh_catalogs_of_tests_are_empty(database: Place) -> None:
    for _ in range(2):
        with database.catalog() as url, Catalog(url) as catalog:
            assert catalog.stats().images == 0
            commit(catalog, [outcome("a.jpg", [(0, 0.5)])])
            assert catalog.image(1).key == "a.jpg"
