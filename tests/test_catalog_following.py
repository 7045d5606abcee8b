"""vistadex.catalog.following: posting lists that are as new as the catalog, or are not used."""

import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from vistadex.catalog import (
    Catalog,
    changes,
    postings,
    ranking_facets,
    registering,
    tables,
    writing,
)
from vistadex.catalog.following import Following, View, place_of
from vistadex.catalog.scope import Scope, Wanted
from vistadex.records import Detections, ImageEntry, Outcome
from vistadex.testing import RedSquareDetector

NONE = np.empty(0, np.int64)
RED = Scope((Wanted("class", (1,)),))


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with Catalog(catalog_url, create=True) as opened:
        write(opened, range(20))
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "postings"


def write(catalog: Catalog, numbers: range, score: float = 0.5) -> None:
    """Images with one red square each, in one transaction."""
    outcomes = [
        Outcome(
            ImageEntry(f"{i:03}.jpg", 1, "v"),
            100,
            100,
            (Detections(np.array([[0, 0, 50, 50]]), np.array([score]), np.array([0])),),
        )
        for i in numbers
    ]
    with catalog.writing() as connection:
        source_id = registering.register_source(connection, "/photos")
        analyzer = registering.register_analyzer(connection, RedSquareDetector())
        writing.write_outcomes(connection, source_id, [analyzer], outcomes)


def view_of(catalog: Catalog, following: Following) -> View | None:
    with catalog.reading() as connection:
        return following.current(connection)


def count(catalog: Catalog, following: Following) -> int | None:
    """How many images have a red square, by posting lists."""
    view = view_of(catalog, following)
    return None if view is None else view.count(RED)


def only_snapshot(folder: Path) -> Path:
    (path,) = postings.snapshots(folder)
    return path


def test_without_a_snapshot_the_database_is_asked_and_one_is_needed(
    catalog: Catalog, folder: Path
) -> None:
    following = Following(catalog.reading, folder)
    assert view_of(catalog, following) is None
    assert following.needs_rebuild
    assert following.rebuild()
    assert count(catalog, following) == 20
    assert not following.needs_rebuild


def test_what_is_written_is_found_at_once(catalog: Catalog, folder: Path) -> None:
    following = Following(catalog.reading, folder)
    following.rebuild()
    for more in (21, 25, 60):
        write(catalog, range(more))
        assert count(catalog, following) == more
    with catalog.writing() as connection:
        writing.delete_images(connection, [1, 2, 60])
    assert count(catalog, following) == 57


def test_nothing_is_read_again_where_nothing_has_changed(catalog: Catalog, folder: Path) -> None:
    following = Following(catalog.reading, folder)
    following.rebuild()
    write(catalog, range(3))
    seen: list[str] = []
    sa.event.listen(catalog.engine, "before_cursor_execute", lambda *given: seen.append(given[2]))
    first = view_of(catalog, following)
    assert sum(text.startswith("SELECT") for text in seen) > 1
    seen.clear()
    assert view_of(catalog, following) is first
    assert sum(text.startswith("SELECT") for text in seen) == 1


def test_many_transactions_leave_few_lists(catalog: Catalog, folder: Path) -> None:
    following = Following(catalog.reading, folder)
    following.rebuild()
    for i in range(64):
        write(catalog, range(100 + i, 101 + i))
        view = view_of(catalog, following)
        assert view is not None
        assert len(view.tiers) <= 8
        assert view.count(RED) == 21 + i


def test_a_reader_that_began_earlier_sees_the_catalog_as_it_was(
    catalog: Catalog, folder: Path
) -> None:
    following = Following(catalog.reading, folder)
    following.rebuild()
    with catalog.reading() as early:
        assert early.execute(sa.select(sa.func.count(tables.image.c.id))).scalar() == 20
        write(catalog, range(30))
        assert count(catalog, following) == 30
        view = following.current(early)
        assert view is not None
        assert view.count(RED) == 20
    assert count(catalog, following) == 30


def test_too_many_changes_need_a_new_snapshot(catalog: Catalog, folder: Path) -> None:
    following = Following(catalog.reading, folder, most_changed=5)
    following.rebuild()
    write(catalog, range(20, 28))
    assert count(catalog, following) == 28  # still told, but not for long
    assert following.needs_rebuild
    write(catalog, range(28, 60))
    assert count(catalog, following) is None
    assert following.rebuild()
    assert count(catalog, following) == 60
    assert not following.needs_rebuild


def test_of_too_many_changes_no_image_is_read_in_vain(catalog: Catalog, folder: Path) -> None:
    following = Following(catalog.reading, folder, most_changed=5)
    following.rebuild()
    for first in (20, 28, 36):
        write(catalog, range(first, first + 8))
        view_of(catalog, following)
    seen: list[str] = []
    sa.event.listen(catalog.engine, "before_cursor_execute", lambda *given: seen.append(given[2]))
    assert view_of(catalog, following) is None
    assert following.needs_rebuild
    assert not [text for text in seen if "FROM analysis" in text]


@pytest.mark.parametrize("changed", [range(0), range(15, 40)])
def test_facets_asked_again_are_kept_and_mended(
    catalog: Catalog, folder: Path, changed: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking_facets, "FEW_IMAGES", 0)
    following = Following(catalog.reading, folder)
    following.rebuild()
    view = view_of(catalog, following)
    assert view is not None
    before = view.facets(RED)
    kept = view.tiers[0].kept.facets(view._searches(RED, None)[0])
    assert kept is view.tiers[0].kept.facets(view._searches(RED, None)[0])
    write(catalog, changed, 0.9)
    view = view_of(catalog, following)
    assert view is not None
    after = view.facets(RED)
    assert before.scores[10] == before.images == 20
    assert (after.images, after.scores[10]) == ((40, 15) if changed else (20, 20))
    assert after.scores[18] == len(changed)
    assert sum(after.box_sizes) == after.images
    assert view.tiers[0].kept.facets(replace(view._searches(RED, None)[0], dead=NONE)) is kept


def test_a_change_of_any_image_needs_a_new_snapshot(catalog: Catalog, folder: Path) -> None:
    following = Following(catalog.reading, folder)
    following.rebuild()
    with catalog.writing() as connection:
        changes.note(connection, None)
    assert view_of(catalog, following) is None
    assert following.needs_rebuild
    following.rebuild()
    assert count(catalog, following) == 20


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_a_log_with_a_gap_is_not_followed(catalog: Catalog, folder: Path, gone: int) -> None:
    following = Following(catalog.reading, folder)
    following.rebuild()
    for more in (21, 22):
        write(catalog, range(more))
    with catalog.writing() as connection:
        connection.execute(sa.delete(tables.change).where(tables.change.c.revision <= gone))
    assert count(catalog, following) is None
    assert following.needs_rebuild


def test_a_catalog_that_went_on_from_an_older_copy_is_not_mistaken(
    folder: Path, tmp_path: Path
) -> None:
    with Catalog(str(tmp_path / "c.db"), create=True) as catalog:
        write(catalog, range(20))
        write(catalog, range(20, 25))
    shutil.copy(tmp_path / "c.db", tmp_path / "copy.db")
    with Catalog(str(tmp_path / "c.db")) as catalog:
        following = Following(catalog.reading, folder)
        write(catalog, range(25, 40))
        write(catalog, range(40, 50))
        following.rebuild()
        assert count(catalog, following) == 50
    with Catalog(str(tmp_path / "copy.db")) as restored:
        assert view_of(restored, following) is None  # fewer changes than the snapshot
        write(restored, range(25, 26))
        assert view_of(restored, following) is None
        write(restored, range(26, 27))
        assert view_of(restored, following) is None  # as many, but others
        write(restored, range(27, 28))
        assert view_of(restored, following) is None
        again = Following(restored.reading, folder)
        assert view_of(restored, again) is None
        assert again.rebuild()
        assert count(restored, again) == 28
        assert count(restored, following) == 28  # which sees the new snapshot
        write(restored, range(28, 29))
        assert count(restored, following) == 29


def test_lists_of_another_catalog_are_not_used(
    catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    with Catalog(str(tmp_path / "other.db"), create=True) as other:
        write(other, range(5))
        theirs = Following(other.reading, folder)
        theirs.rebuild()
        ours = Following(catalog.reading, folder)
        assert view_of(catalog, ours) is None
        ours.rebuild()
        assert count(catalog, ours) == 20
        assert count(other, theirs) is None


def test_a_snapshot_that_another_process_made_is_noticed(catalog: Catalog, folder: Path) -> None:
    here, there = (Following(catalog.reading, folder, most_changed=2) for _ in range(2))
    here.rebuild()
    assert count(catalog, here) == 20
    before = only_snapshot(folder)
    write(catalog, range(20, 40))
    assert view_of(catalog, here) is None
    there.rebuild()
    assert only_snapshot(folder) != before
    assert count(catalog, here) == 40
    assert not here.needs_rebuild


def test_a_view_outlives_its_folder(catalog: Catalog, folder: Path) -> None:
    following = Following(catalog.reading, folder)
    following.rebuild()
    view = view_of(catalog, following)
    shutil.rmtree(folder)
    assert view is not None
    assert len(view.every_id(RED)) == 20
    assert view.facets(RED).classes == ((1, 20),)
    assert count(catalog, following) == 20
    assert view_of(catalog, Following(catalog.reading, folder)) is None


def test_while_another_process_builds_nothing_is_built(catalog: Catalog, folder: Path) -> None:
    following = Following(catalog.reading, folder)
    with postings.locked(folder) as free:
        assert free
        assert not following.rebuild()
        assert postings.snapshots(folder) == []
    assert following.rebuild()


def test_a_builder_that_is_killed_leaves_nothing_in_the_way(catalog: Catalog, folder: Path) -> None:
    code = (
        "import sys, time, numpy as np; from pathlib import Path\n"
        "from vistadex.catalog import postings\n"
        "with postings.locked(Path(sys.argv[1])), postings.making(Path(sys.argv[1])) as store:\n"
        "    store.append('image.ids', np.arange(5)); print('at work', flush=True)\n"
        "    time.sleep(60)\n"
    )
    following = Following(catalog.reading, folder)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
    ) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "at work\n"
        assert not following.rebuild()
        builder.send_signal(signal.SIGKILL)
    assert [name for name in os.listdir(folder) if name.startswith(postings.MAKING)]
    assert view_of(catalog, following) is None
    assert following.rebuild()
    assert sorted(os.listdir(folder)) == sorted([only_snapshot(folder).name, "lock"])
    assert count(catalog, following) == 20


@pytest.mark.parametrize("background", [False, True])
def test_a_cache_that_cant_be_written_is_said_once_and_the_database_answers(
    catalog: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture, background: bool
) -> None:
    (tmp_path / "file").write_text("in the way")
    following = Following(catalog.reading, tmp_path / "file" / "postings", background=background)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert not following.rebuild()
            assert view_of(catalog, following) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no posting lists can be kept here" in caplog.text
    assert "setting `cache`" in caplog.text


def test_a_full_disk_leaves_nothing_behind_and_blames_the_cache(
    catalog: Catalog, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(catalog, range(500))
    following = Following(catalog.reading, folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        built = following.rebuild()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not built
    assert f"{folder}: no posting lists can be kept here" in caplog.text
    assert os.listdir(folder) == ["lock"]
    assert following.rebuild()
    assert count(catalog, following) == 500


def test_in_the_background_a_snapshot_is_made_when_one_is_needed(
    catalog: Catalog, folder: Path
) -> None:
    following = Following(catalog.reading, folder, background=True)
    assert view_of(catalog, following) is None
    for thread in threading.enumerate():
        if thread.name == "postings":
            thread.join()
    assert count(catalog, following) == 20


def test_readers_in_threads_beside_a_writer_see_whole_transactions(
    catalog: Catalog, folder: Path
) -> None:
    following = Following(catalog.reading, folder)
    following.rebuild()
    done = threading.Event()
    wrong: list[tuple[int, int]] = []
    told: list[int] = []

    def read() -> None:
        while not done.is_set():
            with catalog.reading() as connection:
                view = following.current(connection)
                ranked = sa.select(sa.func.count()).select_from(tables.image_class)
                expected = connection.execute(ranked).scalar_one()
            if view is not None:
                told.append(1)
                if view.count(RED) != expected:
                    wrong.append((view.count(RED), expected))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(40):
        write(catalog, range(100 + 3 * i, 103 + 3 * i))
        if i == 20:
            assert following.rebuild()
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert told
    assert count(catalog, following) == 140


def test_each_location_has_its_own_folder(tmp_path: Path) -> None:
    places = {place_of(tmp_path, name) for name in ("a.db", "b.db", "postgresql://host/c")}
    assert len(places) == 3
    assert all(place.parent == tmp_path / "postings" for place in places)
