"""vistadex.catalog.runs: rows of runs, whatever becomes of the run."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

import vistadex
from vistadex.catalog import Catalog, reading, runs, tables
from vistadex.catalog.runs import Recorder, get_run, list_runs, run_of
from vistadex.errors import NotFoundError, SourceError, SourceMissingError
from vistadex.progress import Silent
from vistadex.testing import MemorySource, RedSquareDetector, scene_jpeg

SCENE = scene_jpeg([("red square", 10, 20, 40)])


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with Catalog(catalog_url, create=True) as opened:
        yield opened


def wait_for(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def begun(catalog: Catalog, **values: object) -> int:
    """A row as another process has written it."""
    row = {
        "kind": "index",
        "subject": "photos",
        "status": "running",
        "started_at": int(time.time()) - 600,
        "updated_at": int(time.time()),
        "numbers": {"process": [socket.gethostname(), os.getpid()]},
    }
    with catalog.writing() as connection:
        key = connection.execute(sa.insert(tables.run).values(row | values)).inserted_primary_key
    assert key is not None
    return int(key[0])


def test_index_leaves_a_row_with_its_numbers(catalog: Catalog) -> None:
    MemorySource.create("photos", {"a.jpg": SCENE, "b.jpg": b"no picture at all"})
    summary = vistadex.index("memory://photos", detector=RedSquareDetector(), catalog=catalog)
    (run,) = list_runs(catalog)
    assert (run.kind, run.status, run.error) == ("index", "done", None)
    assert run.subject == "memory://photos with red-squares"
    assert run.numbers["images"] == run.numbers["done"] == 2
    assert run.numbers["failures"] == dict(summary.failures) == {"not_an_image": 1}
    assert run.numbers["peak_rss_bytes"] > 10**6
    assert run.process == (socket.gethostname(), os.getpid())
    assert get_run(catalog, run.id) == run


def test_a_failed_run_says_why(catalog: Catalog) -> None:
    MemorySource.create("photos", {})
    with pytest.raises(SourceMissingError):
        vistadex.index("memory://photos", detector=RedSquareDetector(), catalog=catalog)
    (run,) = list_runs(catalog)
    assert run.status == "failed"
    assert "no files found" in str(run.error)


def test_an_interrupted_run_is_stopped(catalog: Catalog) -> None:
    with pytest.raises(KeyboardInterrupt), Recorder(catalog, "index", "photos", Silent()):
        raise KeyboardInterrupt
    (run,) = list_runs(catalog)
    assert (run.status, run.error) == ("stopped", None)


def test_relate_duplicates_and_datasets_are_runs_too(catalog: Catalog, tmp_path: Path) -> None:
    MemorySource.create("photos", {"a.jpg": SCENE})
    vistadex.index("memory://photos", detector=RedSquareDetector(), catalog=catalog)
    vistadex.relate(catalog=catalog)
    vistadex.find_duplicates(catalog=catalog)
    vistadex.build_dataset(
        tmp_path / "set",
        classes=["red square"],
        per_class=1,
        split="100",
        model="red-squares",
        catalog=catalog,
    )
    kinds = {run.kind: run for run in list_runs(catalog)}
    assert list(kinds) == ["dataset", "duplicates", "relate", "index"]
    assert {run.status for run in kinds.values()} == {"done"}
    assert kinds["dataset"].numbers["counts"] == {"red square": {"train": 1}}


def test_progress_is_seen_while_the_run_goes_on(catalog: Catalog) -> None:
    with Recorder(catalog, "index", "photos", Silent()) as recorder:
        recorder.details = lambda: {"failures": {"truncated": 2}}
        for done in range(0, 500, 100):
            recorder.update(listed=1000, listing=False, done=done, failed=2)
            time.sleep(0.02)
        wait_for(lambda: list_runs(catalog)[0].numbers.get("done") == 400)
        (run,) = list_runs(catalog)
        assert run.status == "running"
        assert run.numbers["failures"] == {"truncated": 2}
        assert run.numbers["images_per_s"] > 0
        assert run.numbers["eta_s"] >= 0
    assert list_runs(catalog)[0].status == "done"


def test_rows_change_neither_the_revision_nor_the_log_of_changes(catalog: Catalog) -> None:
    def state() -> tuple[int, int]:
        with catalog.reading() as connection:
            counted = sa.select(sa.func.count()).select_from(tables.change)
            return reading.revision(connection), int(connection.execute(counted).scalar_one())

    before = state()
    with Recorder(catalog, "index", "photos", Silent()):
        pass
    assert len(list_runs(catalog)) == 1
    assert state() == before


def test_a_locked_catalog_costs_the_run_neither_its_end_nor_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LAST_WRITE_S", 0.2)
    file = tmp_path / "c.db"
    with Catalog(file, create=True) as catalog:
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with Recorder(catalog, "relate", "photos", Silent()) as recorder:
            recorder.update(listed=1, listing=False, done=1, failed=0)
        assert time.monotonic() - started < 5
        other.execute("ROLLBACK")
        other.close()
        wait_for(lambda: [run.status for run in list_runs(catalog)] == ["done"])


def test_a_catalog_that_cannot_be_written_is_read_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "c.db"
    with Catalog(file, create=True) as catalog:
        with catalog.engine.connect() as connection:
            connection.exec_driver_sql("DROP TABLE run")
        with Recorder(catalog, "duplicates", "all", Silent()):
            pass


def test_a_killed_run_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "c.db"
    code = (
        "import sys, time\n"
        "from vistadex.catalog import Catalog\n"
        "from vistadex.catalog.runs import Recorder\n"
        "from vistadex.progress import Silent\n"
        f"with Catalog({str(file)!r}, create=True) as catalog:\n"
        "    with Recorder(catalog, 'index', 'photos', Silent()):\n"
        "        print('begun', flush=True)\n"
        "        time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    with Catalog(file) as catalog:
        wait_for(lambda: run_of(catalog, process.pid, 0) is not None)
        run = run_of(catalog, process.pid, 0)
        assert run is not None
        assert run.status == "running"
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        wait_for(lambda: get_run(catalog, run.id).status == "lost")
        assert run_of(catalog, process.pid, int(time.time()) + 1) is None


@pytest.mark.parametrize(
    ("silent_s", "host", "status"),
    [
        (0, "here", "running"),
        (30, "here", "running"),
        (30, "elsewhere", "running"),
        (70, "here", "lost"),
        (70, "elsewhere", "lost"),
    ],
)
def test_silence_makes_a_run_lost(catalog: Catalog, silent_s: int, host: str, status: str) -> None:
    name = socket.gethostname() if host == "here" else host
    process = {"process": [name, os.getpid()]}
    id_ = begun(catalog, updated_at=int(time.time()) - silent_s, numbers=process)
    assert get_run(catalog, id_).status == status


def test_runs_are_listed_newest_first_and_on(catalog: Catalog) -> None:
    made = [begun(catalog) for _ in range(5)]
    assert [run.id for run in list_runs(catalog, limit=2)] == made[:-3:-1]
    assert [run.id for run in list_runs(catalog, limit=2, before=made[2])] == made[1::-1]


def test_the_oldest_rows_go(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "KEPT", 3)
    for _ in range(5):
        begun(catalog)
    with Recorder(catalog, "index", "photos", Silent()):
        pass
    assert len(list_runs(catalog)) == 3


def test_an_unknown_run_is_not_found(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError, match="run 7: there is none"):
        get_run(catalog, 7)


def test_a_long_error_is_cut(catalog: Catalog) -> None:
    with pytest.raises(SourceError), Recorder(catalog, "index", "photos", Silent()):
        raise SourceError("x" * 10**5)
    assert len(str(list_runs(catalog)[0].error)) == runs.MOST_ERROR
