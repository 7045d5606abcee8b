"""What outlives a crash: kill -9 at random moments, Ctrl-C, a disk that can't be written."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from vistadex.testing import scene_jpeg

PICTURES = 500
SCRIPT = """
import sys, vistadex
from vistadex.testing import RedSquareDetector
vistadex.index(sys.argv[1], detector=RedSquareDetector(), catalog=sys.argv[2])
"""
INTERRUPTIBLE = """
import sys
from vistadex import cli, indexing
from vistadex.testing import RedSquareDetector
indexing._analyzers = lambda *args, **options: (RedSquareDetector(),)
sys.argv = ["vistadex", "index", sys.argv[1], "--catalog", sys.argv[2], "--json"]
cli.main()
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = random.Random(1)
    for i in range(PICTURES):
        reds = [("red square", rng.randrange(200), rng.randrange(150), 30) for _ in range(3)]
        (folder / f"{i:04}.jpg").write_bytes(scene_jpeg(reds, (320, 240)))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder


def start(script: str, photos: Path, catalog: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(photos), str(catalog)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has them ignore Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def run_to_the_end(photos: Path, catalog: Path) -> int:
    """The exit code of an undisturbed run."""
    process = start(SCRIPT, photos, catalog)
    process.communicate(timeout=120)
    return process.returncode


def contents(catalog: Path) -> list[list[tuple[object, ...]]]:
    """Everything in a catalog by its meaning: row ids depend on the order of work."""
    connection = sqlite3.connect(catalog)
    queries = (
        "SELECT key, version, width, height, status, reason, error FROM image",
        "SELECT key, class_id, score, ordinal, x0, y0, x1, y1 FROM box "
        "JOIN image ON image.id = image_id",
        "SELECT key, class_id, score, boxes FROM image_class JOIN image ON image.id = image_id",
        "SELECT key, analyzer_id, analysis.version FROM analysis JOIN image ON image.id = image_id",
        "SELECT class_id, analyzer_id, images, boxes FROM class_count",
    )
    found = [sorted(connection.execute(query).fetchall(), key=repr) for query in queries]
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    return found


def analyzed(catalog: Path) -> int:
    """How many images are committed."""
    if not catalog.exists():
        return 0
    connection = sqlite3.connect(f"file:{catalog}?mode=ro", uri=True, timeout=10)
    try:
        return int(connection.execute("SELECT count(*) FROM analysis").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


@pytest.mark.slow
def test_killed_ten_times_and_run_to_the_end_equals_an_undisturbed_run(
    photos: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole.db", tmp_path / "killed.db"
    assert run_to_the_end(photos, whole) == 0
    rng = random.Random(2)
    seen, caught = [0], 0
    while caught < 10:
        process = start(SCRIPT, photos, killed)
        # The last run must find work left: kill early, at moments from start-up to mid-commit.
        target = seen[-1] + rng.choice([0, 1, 20, 40])
        deadline = time.monotonic() + 30
        while analyzed(killed) < target and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(rng.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        if process.returncode == -signal.SIGKILL:
            caught += 1
        elif seen[-1] == PICTURES:
            killed.unlink()  # finished too early: begin again
            seen = [0]
        assert analyzed(killed) >= seen[-1] or not killed.exists()
        seen.append(analyzed(killed))
    assert run_to_the_end(photos, killed) == 0
    assert contents(killed) == contents(whole)


def test_ctrl_c_stops_within_two_seconds_and_keeps_what_was_committed(
    photos: Path, tmp_path: Path
) -> None:
    catalog = tmp_path / "c.db"
    process = start(INTERRUPTIBLE, photos, catalog)
    deadline = time.monotonic() + 30
    while analyzed(catalog) < 20:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - begun < 2
    assert (process.returncode, out) == (130, "")
    assert "what was committed stays" in err
    assert "Traceback" not in err
    assert 20 <= analyzed(catalog) < PICTURES
    assert run_to_the_end(photos, catalog) == 0
    assert analyzed(catalog) == PICTURES


def test_two_processes_fill_one_catalog(photos: Path, tmp_path: Path) -> None:
    catalog, alone = tmp_path / "c.db", tmp_path / "alone.db"
    both = [start(SCRIPT, photos, catalog) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert run_to_the_end(photos, alone) == 0
    assert contents(catalog)[1:] == contents(alone)[1:]


def test_a_catalog_in_a_folder_that_cannot_be_written_is_a_clear_error(
    photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    process = start(INTERRUPTIBLE, photos, tmp_path / "file" / "c.db")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 6
    assert "give another file with --catalog" in err
    assert "Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_results_into_a_full_disk_are_an_error(photos: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "c.db"
    assert run_to_the_end(photos, catalog) == 0
    command = [sys.executable, "-m", "vistadex", "search", "--catalog", str(catalog)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error(photos: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "c.db"
    assert run_to_the_end(photos, catalog) == 0
    command = f"'{sys.executable}' -m vistadex search --catalog '{catalog}' --limit 500 | head -1"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
