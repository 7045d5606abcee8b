"""vistadex.web.jobs: processes that pages start, known from files alone."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.web_jobs import indexed_catalog, model_store, photos_folder, wait_for
from vistadex.catalog import Catalog
from vistadex.catalog.runs import get_run
from vistadex.errors import NotFoundError, UsageError
from vistadex.web.jobs import BusyError, Jobs

pytestmark = pytest.mark.timeout(180)
photos = pytest.fixture(photos_folder)
store = pytest.fixture(model_store)
catalog = pytest.fixture(indexed_catalog)


def index(photos: Path) -> list[str]:
    return ["index", "--only=all", "--detector=yolox_nano", "--", str(photos)]


def test_one_at_a_time_and_every_worker_knows_it(
    catalog: Catalog, photos: Path, tmp_path: Path
) -> None:
    for path in list(photos.glob("0*.jpg")):
        for copy in range(20):
            (photos / f"{path.stem}-{copy}.jpg").write_bytes(path.read_bytes())
    mine, another = Jobs(catalog, tmp_path / "cache"), Jobs(catalog, tmp_path / "cache")
    run = mine.start(index(photos))
    assert [job.pid for job in another.running()] == [run.process[1]]
    with pytest.raises(BusyError, match="at work already"):
        another.start(index(photos))
    with pytest.raises(NotFoundError):  # The same number on another machine is another process.
        another.stop(("elsewhere", run.process[1]))
    another.stop(run.process)  # The next worker, or the next server, can end it.
    wait_for(lambda: not mine.running())
    assert get_run(catalog, run.id).status == "stopped"
    with pytest.raises(NotFoundError):
        mine.stop(run.process)


def test_a_slot_is_free_again_after_an_end(catalog: Catalog, photos: Path, tmp_path: Path) -> None:
    jobs = Jobs(catalog, tmp_path / "cache")
    for _ in range(2):
        run = jobs.start(index(photos))
        wait_for(lambda: not jobs.running())
        assert get_run(catalog, run.id).status == "done"


def test_a_command_that_cannot_begin_says_why(catalog: Catalog, tmp_path: Path) -> None:
    jobs = Jobs(catalog, tmp_path / "cache")
    with pytest.raises(UsageError, match=r"ended before it began: error: .*absent"):
        jobs.start(["index", "--detector=yolox_nano", "--", str(tmp_path / "absent")])
    assert jobs.running() == []


def test_catalogs_do_not_wait_for_each_other(catalog: Catalog, tmp_path: Path) -> None:
    with Catalog(tmp_path / "other.db", create=True) as other:
        folders = {Jobs(one, tmp_path / "cache").folder for one in (catalog, other)}
    assert len(folders) == 2


def test_a_process_that_is_no_job_is_never_interrupted(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not started here"):
        Jobs(catalog, tmp_path / "cache").stop((socket.gethostname(), 1))


def test_a_folder_that_cannot_be_made_is_said(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="see --cache"):
        Jobs(catalog, tmp_path / "file").start(["index"])
