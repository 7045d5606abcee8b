"""The catalog's vectors in files: as new as the catalog, for several processes, deletable."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import sqlalchemy as sa

from vistadex.catalog import Catalog, registering, tables, vectors, writing
from vistadex.catalog.vectors import KnownVectors
from vistadex.errors import CatalogError
from vistadex.neighbors import unit
from vistadex.records import Analyzer, Embedding, FloatArray, ImageEntry, Outcome

LENGTH = 12


def embedder(name: str = "seer") -> Analyzer:
    found = SimpleNamespace(
        sha256=name.encode().hex().ljust(64, "0"),
        name=name,
        task="embedder",
        classes=(),
        card={},
        parameters={"size": 8},
    )
    return cast(Analyzer, found)


def rows(number: int, seed: int = 0) -> FloatArray:
    return unit(np.random.default_rng(seed).standard_normal((number, LENGTH)))


def write(catalog: Catalog, found: Mapping[str, FloatArray], name: str = "seer") -> int:
    """Enters vectors by key; returns the analyzer's id."""
    with catalog.writing() as connection:
        source_id = registering.register_source(connection, "/pictures")
        registered = registering.register_analyzer(connection, embedder(name))
        outcomes = [
            Outcome(ImageEntry(key, 1, "v"), 8, 8, (Embedding(vector),))
            for key, vector in found.items()
        ]
        writing.write_outcomes(connection, source_id, [registered], outcomes)
        return registered.id


def keys(number: int, start: int = 0) -> list[str]:
    return [f"{i:05}.jpg" for i in range(start, start + number)]


def expected(catalog: Catalog, analyzer_id: int, query: FloatArray) -> list[int]:
    """Ids in order of similarity, from the table itself."""
    table = tables.embedding
    with catalog.reading() as connection:
        found = connection.execute(
            sa.select(table.c.image_id, table.c.vector).where(table.c.analyzer_id == analyzer_id)
        ).all()
    scores = {
        image_id: float(
            np.dot(unit(np.frombuffer(vector, "<f2")).astype(float), query.astype(float))
        )
        for image_id, vector in found
    }
    return sorted(scores, key=lambda image_id: (-scores[image_id], image_id))


def seen(catalog: Catalog, known: KnownVectors, analyzer_id: int, query: FloatArray) -> list[int]:
    with catalog.reading() as connection:
        return known.current(connection, analyzer_id).nearest(query, 10_000).ids.tolist()


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with Catalog(catalog_url, create=True) as catalog:
        yield catalog


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "vectors"


def snapshots(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob("header.json"))


def test_vectors_are_those_of_the_catalog_by_similarity(catalog: Catalog, folder: Path) -> None:
    id_ = write(catalog, dict(zip(keys(300), rows(300), strict=True)))
    known = KnownVectors(catalog.reading, folder)
    for query in rows(5, seed=9):
        assert seen(catalog, known, id_, query) == expected(catalog, id_, query)
    assert len(snapshots(folder)) == 1


def test_a_catalog_without_vectors_has_none(catalog: Catalog, folder: Path) -> None:
    id_ = write(catalog, {})
    known = KnownVectors(catalog.reading, folder)
    assert seen(catalog, known, id_, rows(1)[0]) == []
    write(catalog, {"a.jpg": rows(1)[0]})
    assert len(seen(catalog, known, id_, rows(1)[0])) == 1


def test_changes_are_followed_without_a_new_snapshot(catalog: Catalog, folder: Path) -> None:
    id_ = write(catalog, dict(zip(keys(100), rows(100), strict=True)))
    known = KnownVectors(catalog.reading, folder)
    query = rows(1, seed=9)[0]
    seen(catalog, known, id_, query)
    before = snapshots(folder)
    for step in range(4):
        write(catalog, dict(zip(keys(10, 20 * step), rows(10, 50 + step), strict=True)))
        write(catalog, dict(zip(keys(5, 200 + 5 * step), rows(5, 60 + step), strict=True)))
        with catalog.reading() as connection:
            gone = connection.execute(sa.select(tables.image.c.id).limit(1).offset(step * 3)).all()
        catalog.transaction(
            lambda connection, ids=[one.id for one in gone]: writing.delete_images(connection, ids)
        )
        assert seen(catalog, known, id_, query) == expected(catalog, id_, query)
        with catalog.reading() as connection:
            number = known.current(connection, id_).number
        assert number == len(expected(catalog, id_, query))
    assert snapshots(folder) == before


def test_many_changes_make_a_new_snapshot(catalog: Catalog, folder: Path) -> None:
    id_ = write(catalog, dict(zip(keys(50), rows(50), strict=True)))
    known = KnownVectors(catalog.reading, folder, most_changed=20)
    query = rows(1, seed=9)[0]
    seen(catalog, known, id_, query)
    before = snapshots(folder)
    write(catalog, dict(zip(keys(30), rows(30, 5), strict=True)))
    assert seen(catalog, known, id_, query) == expected(catalog, id_, query)
    assert len(snapshots(folder)) == 1
    assert snapshots(folder) != before


def test_another_process_uses_the_snapshot_that_is_there(catalog: Catalog, folder: Path) -> None:
    id_ = write(catalog, dict(zip(keys(50), rows(50), strict=True)))
    query = rows(1, seed=9)[0]
    seen(catalog, KnownVectors(catalog.reading, folder), id_, query)
    before = snapshots(folder)
    write(catalog, dict(zip(keys(5, 45), rows(5, 3), strict=True)))
    other = KnownVectors(catalog.reading, folder)
    assert seen(catalog, other, id_, query) == expected(catalog, id_, query)
    assert snapshots(folder) == before


def test_another_process_that_builds_is_waited_for(
    catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    id_ = write(catalog, dict(zip(keys(20), rows(20), strict=True)))
    query = rows(1, seed=9)[0]
    elsewhere = tmp_path / "elsewhere"
    right = seen(catalog, KnownVectors(catalog.reading, elsewhere), id_, query)
    (made,) = snapshots(elsewhere)
    with ThreadPoolExecutor(1) as pool:
        with vectors.postings.locked(folder / str(id_)) as free:
            assert free
            known = KnownVectors(catalog.reading, folder)
            waiting = pool.submit(seen, catalog, known, id_, query)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
            shutil.copytree(made, folder / str(id_) / made.name)
        assert waiting.result(10) == right
    assert [one.name for one in snapshots(folder)] == [made.name]


def test_another_process_that_builds_for_long_costs_memory_and_a_warning(
    catalog: Catalog,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(vectors, "PATIENCE_S", 0.05)
    id_ = write(catalog, dict(zip(keys(20), rows(20), strict=True)))
    query = rows(1, seed=9)[0]
    known = KnownVectors(catalog.reading, folder)
    with vectors.postings.locked(folder / str(id_)) as free:
        assert free
        assert seen(catalog, known, id_, query) == expected(catalog, id_, query)
    assert snapshots(folder) == []
    assert "another process has been building" in caplog.text


def test_a_deleted_folder_is_made_again(catalog: Catalog, folder: Path) -> None:
    id_ = write(catalog, dict(zip(keys(20), rows(20), strict=True)))
    query = rows(1, seed=9)[0]
    known = KnownVectors(catalog.reading, folder)
    first = seen(catalog, known, id_, query)
    shutil.rmtree(folder)
    assert seen(catalog, known, id_, query) == first
    assert seen(catalog, KnownVectors(catalog.reading, folder), id_, query) == first
    assert len(snapshots(folder)) == 1


@pytest.mark.parametrize("damage", ["short", "no header", "foreign", "header"])
def test_a_damaged_snapshot_is_not_used(catalog: Catalog, folder: Path, damage: str) -> None:
    id_ = write(catalog, dict(zip(keys(20), rows(20), strict=True)))
    query = rows(1, seed=9)[0]
    first = seen(catalog, KnownVectors(catalog.reading, folder), id_, query)
    (path,) = snapshots(folder)
    header = path / "header.json"
    if damage == "short":
        (path / "rows").write_bytes((path / "rows").read_bytes()[:-4])
    elif damage == "no header":
        header.unlink()
    elif damage == "header":
        header.write_text("{")
    else:
        said = json.loads(header.read_text())
        said["identity"]["uuid"] = "another"
        header.write_text(json.dumps(said))
    assert seen(catalog, KnownVectors(catalog.reading, folder), id_, query) == first
    assert [one for one in snapshots(folder) if one != path] or damage == "foreign"


def test_a_copy_that_went_its_own_way_does_not_use_the_other_ones_vectors(
    tmp_path: Path, folder: Path
) -> None:
    place = tmp_path / "one.db"
    query = rows(1, seed=9)[0]
    with Catalog(str(place), create=True) as catalog:
        id_ = write(catalog, dict(zip(keys(20), rows(20), strict=True)))
    shutil.copy(place, tmp_path / "older.db")
    with Catalog(str(place)) as catalog:
        write(catalog, dict(zip(keys(20), rows(20, 7), strict=True)))
        seen(catalog, KnownVectors(catalog.reading, folder), id_, query)
    with Catalog(str(tmp_path / "older.db")) as copy:
        known = KnownVectors(copy.reading, folder)
        assert seen(copy, known, id_, query) == expected(copy, id_, query)
        write(copy, dict(zip(keys(20), rows(20, 8), strict=True)))
        assert seen(copy, known, id_, query) == expected(copy, id_, query)


def test_a_folder_that_cannot_be_written_costs_time_and_a_warning(
    catalog: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    id_ = write(catalog, dict(zip(keys(20), rows(20), strict=True)))
    (tmp_path / "file").write_text("")
    known = KnownVectors(catalog.reading, tmp_path / "file" / "vectors")
    query = rows(1, seed=9)[0]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert seen(catalog, known, id_, query) == expected(catalog, id_, query)
    assert caplog.text.count("no vectors can be kept here") == 1


def test_many_vectors_are_put_in_lists_which_changes_are_followed_from(
    catalog: Catalog, folder: Path
) -> None:
    id_ = write(catalog, dict(zip(keys(400), rows(400), strict=True)))
    known = KnownVectors(catalog.reading, folder, exact_rows=300)
    query = rows(1, seed=9)[0]
    known.refresh([id_])
    assert len(snapshots(folder)) == 1
    assert (snapshots(folder)[0] / "centers").exists()
    write(catalog, dict(zip(keys(10, 395), rows(10, 4), strict=True)))
    with catalog.reading() as connection:
        view = known.current(connection, id_)
        found = view.nearest(query, 10_000, exact=True).ids.tolist()
    assert view.base.lists is not None
    assert found == expected(catalog, id_, query)


def test_a_server_puts_vectors_in_lists_in_the_background(catalog: Catalog, folder: Path) -> None:
    id_ = write(catalog, dict(zip(keys(400), rows(400), strict=True)))
    known = KnownVectors(catalog.reading, folder, exact_rows=300)
    known.background = True
    seen(catalog, known, id_, rows(1)[0])
    for thread in threading.enumerate():
        if thread.name == "vectors":
            thread.join(60)
    with catalog.reading() as connection:
        assert known.current(connection, id_).base.lists is not None


def test_each_embedder_has_its_own_vectors(catalog: Catalog, folder: Path) -> None:
    first = write(catalog, dict(zip(keys(20), rows(20), strict=True)))
    second = write(catalog, dict(zip(keys(5), rows(5, 2), strict=True)), "other")
    known = KnownVectors(catalog.reading, folder)
    query = rows(1, seed=9)[0]
    assert len(seen(catalog, known, first, query)) == 20
    assert seen(catalog, known, second, query) == expected(catalog, second, query)


def test_vectors_of_unequal_length_are_an_error_that_says_the_cure(
    catalog: Catalog, folder: Path
) -> None:
    id_ = write(catalog, {"a.jpg": rows(1)[0], "b.jpg": unit(np.ones(5))})
    known = KnownVectors(catalog.reading, folder)
    with pytest.raises(CatalogError, match="expected one length; index again"):
        seen(catalog, known, id_, rows(1)[0])
    known.refresh([id_])
    assert snapshots(folder) == []


def test_a_vector_of_another_length_is_an_error(catalog: Catalog, folder: Path) -> None:
    id_ = write(catalog, {"a.jpg": rows(1)[0]})
    with pytest.raises(CatalogError, match="12; take one of the same model"):
        seen(catalog, KnownVectors(catalog.reading, folder), id_, unit(np.ones(5)))


def test_readers_in_threads_see_one_state_each(catalog: Catalog, folder: Path) -> None:
    id_ = write(catalog, dict(zip(keys(200), rows(200), strict=True)))
    known = KnownVectors(catalog.reading, folder, most_changed=40)
    query = rows(1, seed=9)[0]
    wrong: list[str] = []

    def look() -> None:
        for _ in range(20):
            with catalog.reading() as connection:
                view = known.current(connection, id_)
                table = tables.embedding
                there = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar()
                if view.nearest(query, 10_000).ids.size != there or view.number != there:
                    wrong.append(f"{view.number} of {there}")

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for step in range(12):
        write(catalog, dict(zip(keys(7, 200 + 7 * step), rows(7, step), strict=True)))
    for thread in threads:
        thread.join()
    assert wrong == []
