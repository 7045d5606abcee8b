"""Every benchmark runs at a tiny size and writes JSON; what it measures is not looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
SMALL = {
    "index_speed.py": "--number 8 --large 2 --rounds 1 --sample 8 --no-daft",
    "ceiling.py": "--number 8 --sample 8",
    "start_speed.py": "--number 24 --unchanged 32 --rounds 1",
    "memory.py": "--number 8 --large 16",
    "s3_speed.py": "--number 8 --rounds 1",
    "annotations_speed.py": "--number 20 --large 30",
    "copy_speed.py": "--number 8 --rounds 1",
    "duplicates_speed.py": "--number 3000 --pictures 16",
    "neighbors_speed.py": "--vectors 3000 --length 16 --queries 3 --pictures 8",
    "search_speed.py": "--images 400 --boxes 3000 --calls 3 --rounds 1",
    "web_load.py": "--pictures 8 --visitors 4 --think-s 0.2 --seconds 2 --warm-s 1",
    "metrics_speed.py": "--images 40 --rounds 1",
    "runtimes.py": "--rounds 1 --seconds 0.1 --size 64",
}
# Daft is in the extra `bench`, which the tests' environment need not have.
RIVALS = ["loop.py", *(["daft_udf.py"] if find_spec("daft") else [])]


def run_small(script: str, options: str, work: Path, data: Path) -> dict[str, Any]:
    """What a benchmark writes."""
    out = work / f"{script}.json"
    command = [sys.executable, str(BENCHMARKS / script), "--work", str(work), "--out", str(out)]
    env = {**os.environ, "VISTADEX_TEST_DATA": str(data)}
    done = subprocess.run([*command, *options.split()], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "|" in done.stdout
    written: dict[str, Any] = json.loads(out.read_text())
    return written


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One work folder for all, so that pictures and models are made once."""
    return tmp_path_factory.mktemp("bench")


@pytest.mark.slow
@pytest.mark.parametrize("script", SMALL)
def test_benchmark_runs_and_writes_json(script: str, work: Path, shared_data: Path) -> None:
    written = run_small(script, SMALL[script], work, shared_data)
    assert written["benchmark"] == script.removesuffix(".py")
    assert written["machine"]["cores"] >= 1
    assert written["results"]


@pytest.mark.slow
def test_loop_finds_the_same_boxes_as_square_indexing(work: Path, shared_data: Path) -> None:
    options = "--number 12 --large 0 --rounds 1 --sample 8 --no-daft"
    written = run_small("index_speed.py", options, work, shared_data)
    agreement = written["results"]["640px"]["agreement"]
    assert agreement["boxes"] > 20
    assert agreement["same"] > 0.98


@pytest.mark.slow
@pytest.mark.parametrize("rival", RIVALS)
def test_rival_prints_images_boxes_and_seconds(
    rival: str, tmp_path: Path, shared_data: Path
) -> None:
    for path in sorted((shared_data / "coco/images/val").glob("*.jpg"))[:4]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = shared_data / "weights/yolox_nano.onnx"
    command = [sys.executable, str(BENCHMARKS / "rivals" / rival), str(tmp_path), str(weights)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["images"] == 4
    assert found["boxes"] > 4
    assert found["seconds"] > 0


def test_server_lists_pages_and_serves_ranges_after_its_latency(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.jpg", "a b.jpg", "b.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"0123456789")
    script = str(BENCHMARKS / "s3_server.py")
    command = [sys.executable, script, str(tmp_path), "--latency-ms", "50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            root = f"http://127.0.0.1:{int(server.stdout.readline())}/bucket"
            started = time.monotonic()
            first = _get(f"{root}?list-type=2&max-keys=2&encoding-type=url")
            assert time.monotonic() - started >= 0.05
            assert b"<Key>a%20b.jpg</Key>" in first
            assert b"<NextContinuationToken>a/1.jpg</NextContinuationToken>" in first
            second = _get(f"{root}?list-type=2&max-keys=2&continuation-token=a%2F1.jpg")
            assert second.count(b"<Key>") == 2
            assert b"<IsTruncated>false" in second
            assert _get(f"{root}?list-type=2&prefix=a/&start-after=a/1.jpg").count(b"<Key>") == 1
            assert _get(f"{root}/a%20b.jpg") == b"0123456789"
            assert _get(f"{root}/b.jpg", Range="bytes=2-4") == b"234"
            with pytest.raises(urllib.error.HTTPError, match="404") as refused:
                _get(f"{root}/none.jpg")
            refused.value.close()
        finally:
            server.terminate()


def _get(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
        content: bytes = response.read()
    return content
