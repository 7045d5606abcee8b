"""The contract of every engine, and the local one's own promises."""

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from vistadex.decoding import encode_jpeg
from vistadex.engines import ENGINES, Engine
from vistadex.engines.local import LocalEngine, still_working
from vistadex.errors import UsageError
from vistadex.registry import lookup


def squares(shard: range) -> Generator[int, None, None]:
    for i in shard:
        yield i * i


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    made: Engine = lookup(ENGINES, request.param, "engine")()
    return made


def test_every_shard_comes_exactly_once_with_all_its_items(engine: Engine) -> None:
    shards = [range(i, i + 5) for i in range(0, 100, 5)]
    results = dict(engine.run(squares, shards))
    assert results == {shard: [i * i for i in shard] for shard in shards}


def test_no_shards_are_no_results(engine: Engine) -> None:
    assert list(engine.run(squares, [])) == []


def test_an_error_in_the_work_is_raised_and_ends_the_run(engine: Engine) -> None:
    def broken(shard: range) -> Generator[int, None, None]:
        yield 1
        raise OSError("no model here")

    with pytest.raises(OSError, match="no model here"):
        list(engine.run(broken, [range(1)] * 10))


def test_an_error_while_listing_is_raised_after_all_that_was_drawn_is_done(engine: Engine) -> None:
    def listing() -> Iterator[range]:
        yield from [range(1)] * 10
        raise OSError("the network is gone")

    done = []
    with (
        pytest.raises(OSError, match="the network is gone"),
        closing(engine.run(squares, listing())) as results,
    ):
        done.extend(results)
    assert len(done) == 10


def test_shards_are_drawn_only_as_they_are_needed() -> None:
    drawn = 0

    def listing() -> Iterator[range]:
        nonlocal drawn
        for _ in range(1000):
            drawn += 1
            yield range(1)

    with closing(LocalEngine(threads=2).run(squares, listing())) as results:
        next(results)
        assert drawn <= 4


def test_an_interruption_stops_between_two_items() -> None:
    items = []

    def slow(shard: int) -> Generator[int, None, None]:
        for i in range(shard and 1000):
            items.append(i)
            time.sleep(0.01)
            yield i

    results = LocalEngine(threads=2).run(slow, range(100))
    next(results)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)
    assert time.monotonic() - begun < 1
    assert len(items) < 200


def test_results_are_given_while_listing_waits() -> None:
    waits = threading.Event()

    def listing() -> Iterator[range]:
        yield range(3)
        assert waits.wait(10)
        yield range(4)

    with closing(LocalEngine(threads=2).run(squares, listing())) as results:
        assert next(results) == (range(3), [0, 1, 4])
        waits.set()
        assert next(results)[0] == range(4)


def test_fewer_than_no_threads_are_refused() -> None:
    with pytest.raises(UsageError, match="threads=-1: expected 0"):
        LocalEngine(threads=-1)


def test_threads_work_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=10)

    def meet(shard: int) -> Generator[int, None, None]:
        together.wait()
        yield shard

    assert len(list(LocalEngine(threads=3).run(meet, range(3)))) == 3


INTERRUPTED = """
import sys
from vistadex import cli
sys.argv = ["vistadex", "index", *sys.argv[1:]]
cli.main()
"""


def _analyzed(catalog: Path) -> int:
    """How many images are committed."""
    if not catalog.exists():
        return 0
    with closing(sqlite3.connect(f"file:{catalog}?mode=ro", uri=True, timeout=10)) as opened:
        with suppress(sqlite3.OperationalError):
            return int(opened.execute("SELECT count(*) FROM analysis").fetchone()[0])
    return 0


def test_ctrl_c_inside_a_network_ends_in_time_and_keeps_what_was_committed(
    shared_data: Path, tmp_path: Path
) -> None:
    """A picture in 6,889 windows keeps its thread for a minute and more."""
    photos, catalog = tmp_path / "photos", tmp_path / "c.db"
    photos.mkdir()
    for i in range(4):
        (photos / f"a{i}.jpg").write_bytes(encode_jpeg(np.zeros((64, 64, 3), np.uint8)))
        (photos / f"b{i}.jpg").write_bytes(encode_jpeg(np.zeros((3000, 3000, 3), np.uint8)))
    weights = str(shared_data / "weights" / "yolox_nano.onnx")
    options = ["--detector", weights, "--tile", "300", "--overlap", "0.89", "--threads", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(photos), "--catalog", str(catalog), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has them ignore Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while _analyzed(catalog) < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - begun < 3  # 2 s, and one for a machine with other work
    assert (process.returncode, out) == (130, "")
    assert "what was committed stays" in err
    assert _analyzed(catalog) == 4


def test_threads_of_a_run_that_ended_in_time_are_not_left() -> None:
    with closing(LocalEngine(threads=2).run(squares, [range(3)] * 4)) as results:
        next(results)
        assert still_working()
    assert not still_working()
