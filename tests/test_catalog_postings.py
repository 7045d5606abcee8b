"""vistadex.catalog.postings: what is on the disk, and what is not believed."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from vistadex.catalog import (
    Catalog,
    postings,
    postings_building,
    postings_rows,
    registering,
    tables,
    writing,
)
from vistadex.catalog.following import Following
from vistadex.catalog.scope import Scope, Wanted
from vistadex.errors import CatalogError
from vistadex.records import Classification, Detections, ImageEntry, Outcome
from vistadex.testing import RedSquareDetector


class _Whole(RedSquareDetector):
    """Says red square of whole images."""

    @property
    def sha256(self) -> str:
        return "f" * 64

    @property
    def task(self) -> str:
        return "classifier"


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with Catalog(catalog_url) as opened:
        with opened.writing() as connection:
            source_id = registering.register_source(connection, "/photos")
            analyzers = [
                registering.register_analyzer(connection, one)
                for one in (RedSquareDetector(), _Whole())
            ]
            found = Detections(
                np.array([[0, 0, 50, 50], [0, 0, 100, 100]]), np.array([0.9, 0.5]), np.array([0, 1])
            )
            said = Classification(np.array([0.7, 0.2], np.float32), np.array([0, 1]))
            outcomes = [
                Outcome(ImageEntry(f"{i}.jpg", 1, "v"), 100, 100, (found, said)) for i in range(9)
            ]
            writing.write_outcomes(connection, source_id, analyzers, outcomes)
        yield opened


@pytest.fixture
def snapshot(catalog: Catalog, tmp_path: Path) -> Path:
    Following(catalog.reading, tmp_path / "postings").rebuild()
    (path,) = postings.snapshots(tmp_path / "postings")
    return path


def change_header(path: Path, **values: object) -> None:
    header = json.loads((path / postings.HEADER).read_text())
    (path / postings.HEADER).write_text(json.dumps({**header, **values}))


def shorten(path: Path, by: int) -> None:
    path.write_bytes(path.read_bytes()[:-by])


def forget(path: Path, name: str) -> None:
    arrays = json.loads((path / postings.HEADER).read_text())["arrays"]
    change_header(path, arrays={key: value for key, value in arrays.items() if key != name})


def fewer(path: Path, name: str) -> None:
    """One row less, in the header too."""
    arrays = json.loads((path / postings.HEADER).read_text())["arrays"]
    dtype, length = arrays[name]
    shorten(path / name, np.dtype(dtype).itemsize)
    change_header(path, arrays={**arrays, name: [dtype, length - 1]})


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a byte short": lambda path: shorten(path / "class.pos", 1),
    "a row short": lambda path: shorten(path / "class.score", 4),
    "a byte more": lambda path: (path / "image.ids").write_bytes(bytes(73)),
    "empty": lambda path: (path / "class.starts").write_bytes(b""),
    "no file": lambda path: (path / "box.number").unlink(),
    "no header": lambda path: (path / postings.HEADER).unlink(),
    "half a header": lambda path: shorten(path / postings.HEADER, 100),
    "a header of zeros": lambda path: (path / postings.HEADER).write_bytes(bytes(100)),
    "a header of a list": lambda path: (path / postings.HEADER).write_text("[]"),
    "another format": lambda path: change_header(path, format=postings.FORMAT + 1),
    "no identity": lambda path: change_header(path, identity={}),
    "an array unknown": lambda path: forget(path, "class.pos"),
    "lists too short": lambda path: fewer(path, "class.pos"),
    "images too few": lambda path: fewer(path, "image.ids"),
    "slots too few": lambda path: fewer(path, "class.slots"),
    "rows by image too few": lambda path: fewer(path, "class.row.score"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_is_not_used_and_made_anew(
    catalog: Catalog, snapshot: Path, damage: str
) -> None:
    DAMAGES[damage](snapshot)
    with pytest.raises((OSError, ValueError)):
        postings.opened(snapshot)
    following = Following(catalog.reading, snapshot.parent)
    with catalog.reading() as connection:
        assert following.current(connection) is None
        assert following.rebuild()
        view = following.current(connection)
    assert view is not None
    assert view.count(Scope((Wanted("class", (1,)),))) == 9
    assert postings.snapshots(snapshot.parent) != [snapshot]


def test_an_older_snapshot_serves_while_the_newest_is_damaged(
    catalog: Catalog, snapshot: Path
) -> None:
    newest = snapshot.parent / "999999999999-00000000"
    shutil.copytree(snapshot, newest)
    shorten(newest / "class.pos", 1)
    with catalog.reading() as connection:
        assert Following(catalog.reading, snapshot.parent).current(connection) is not None


def test_a_snapshot_says_which_state_it_is_of(catalog: Catalog, snapshot: Path) -> None:
    found = postings.opened(snapshot)
    with catalog.reading() as connection:
        assert found.identity == postings_building.identity(connection)
    assert found.identity.revision == 1
    assert len(found.identity.token) == 32
    assert found.ids.tolist() == list(range(1, 10))


def test_rows_that_are_not_an_images_best_stand_behind(snapshot: Path) -> None:
    lists = postings.opened(snapshot).lists["class"]
    assert lists.pos.tolist() == [*range(9), *range(9)]
    assert set(lists.score.tolist()[:9]) == {900_000}
    assert lists.more is not None
    assert set(lists.more.score.tolist()) == {700_000, 200_000}


def test_a_snapshot_in_memory_has_only_the_images_asked_for(catalog: Catalog) -> None:
    with catalog.reading() as connection:
        found = postings_building.in_memory(connection, [2, 5, 77])
    assert found.ids.tolist() == [2, 5]
    assert found.lists["class"].pos.tolist() == [0, 1, 0, 1]
    assert found.lists["box"].number.tolist() == [10, 10, 19, 19]


def test_an_empty_catalog_has_empty_lists(tmp_path: Path) -> None:
    with Catalog(str(tmp_path / "empty.db"), create=True) as catalog:
        following = Following(catalog.reading, tmp_path / "postings")
        assert following.rebuild()
        with catalog.reading() as connection:
            view = following.current(connection)
    assert view is not None
    for scope in (Scope(), Scope((Wanted("class", (1,)),)), Scope((Wanted("relation", (1,)),))):
        assert (view.count(scope), view.page(scope, 5), list(view.every_id(scope))) == (0, [], [])
        assert view.facets(scope).images == 0
        assert sum(view.facets(scope).box_sizes) == 0


def test_ids_beyond_32_bits_are_refused_with_a_cure(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "far.db", create=True)  # servers refuse such ids themselves
    with catalog.writing() as connection:
        row = {"source_id": 1, "key": "far.jpg", "version": "v", "size_bytes": 1, "status": "ok"}
        size = {"id": 1 << 32, "width": 5, "height": 5, "indexed_at": 0}
        connection.execute(sa.insert(tables.image).values(**row, **size))
    with pytest.raises(CatalogError, match="posting lists hold ids up to"):
        Following(catalog.reading, tmp_path / "postings").rebuild()
    assert postings.snapshots(tmp_path / "postings") == []
    assert [path.name for path in (tmp_path / "postings").iterdir()] == ["lock"]
    catalog.close()


def test_results_without_an_image_are_refused_not_put_elsewhere(
    catalog: Catalog, tmp_path: Path
) -> None:
    with catalog.writing() as connection:
        connection.execute(sa.delete(tables.image).where(tables.image.c.id == 1))
    with pytest.raises(CatalogError, match="image 1: has results"):
        Following(catalog.reading, tmp_path / "postings").rebuild()
    assert postings.snapshots(tmp_path / "postings") == []


def test_rows_are_the_same_one_by_one_and_put_together(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postings_rows, "IMAGES", 2)
    with catalog.writing() as connection:  # gaps between ids
        writing.delete_images(connection, [3, 4, 5, 9])
        connection.execute(sa.update(tables.box).values(x1=tables.box.c.x1 + 0.1 + 0.2))
    box, analysis = tables.box, tables.analysis
    of_box = (box.c.image_id, box.c.analyzer_id, box.c.ordinal)
    of_analysis = (analysis.c.image_id, analysis.c.analyzer_id)
    for columns in (
        postings_rows.Columns(box.c.image_id, of_box, of_box, real=box.c.x1),
        postings_rows.Columns(
            analysis.c.image_id, of_analysis, of_analysis, packed=analysis.c.classes
        ),
    ):
        with catalog.reading() as connection:
            ranges = postings_rows.ranges_of(connection)
            every = list(postings_rows.of_all(connection, columns, ranges))
            some = list(postings_rows.of_some(connection, columns, range(20)))
        assert sum(one.numbers[0].size for one in every) == len(some[0].numbers[0]) == 10
        for i in range(len(columns.numbers)):
            assert [n for one in every for n in one.numbers[i]] == some[0].numbers[i].tolist()
        assert [n for one in every for n in one.real] == some[0].real.tolist()
        assert [n for one in every for n in one.sizes] == some[0].sizes.tolist()
        assert b"".join(one.packed for one in every) == some[0].packed
        if connection.dialect.name == "sqlite":  # servers give rows as a stream
            assert [one.numbers[0].size for one in every] == [4, 4, 2]


def test_distinct_numbers_rise() -> None:
    assert postings.distinct(np.array([5, 1, 5, 3, 1])).tolist() == [1, 3, 5]
    assert postings.distinct(np.empty(0, np.int64)).tolist() == []
