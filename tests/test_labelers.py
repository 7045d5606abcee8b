"""vistadex.labelers: options, cost, pictures as they are sent, the calls that a run may make."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from vistadex import labelers
from vistadex.errors import CallsUsedUpError, LabelerError, UsageError
from vistadex.labelers import calls as calls_module
from vistadex.labelers.calls import Calls
from vistadex.labelers.pictures import to_jpeg
from vistadex.records import Pixels


def sides(jpeg: bytes) -> tuple[int, int]:
    height, width = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    return width, height


def gray(width: int, height: int) -> Pixels:
    return np.full((height, width, 3), 128, np.uint8)


@pytest.mark.parametrize("name", labelers.NAMES)
def test_a_labeler_is_an_analyzer_that_travels(name: str) -> None:
    made = labelers.labeler(name, max_calls=7, min_score=0.4)
    same = pickle.loads(pickle.dumps(made))
    assert same.calls is made.calls
    assert same.sha256 == f"labeler:{name}"
    assert len(same.sha256) <= 64
    assert (same.name, same.task, same.classes) == (made.name, made.task, ())
    assert same.parameters == made.parameters
    assert same.parameters["min_score"] == 0.4


def test_what_changes_results_is_a_parameter_and_what_does_not_is_none() -> None:
    usual = labelers.labeler("rekognition").parameters
    assert labelers.labeler("rekognition", max_labels=5).parameters != usual
    assert labelers.labeler("rekognition", min_score=0.5).parameters != usual
    assert labelers.labeler("rekognition", size=512).parameters != usual
    same = labelers.labeler("rekognition", max_calls=5, calls_per_second=1, timeout_s=3)
    assert same.parameters == usual


def test_calls_of_another_process_are_not_counted_here() -> None:
    pickled = pickle.dumps(labelers.labeler("rekognition", max_calls=7)).hex()
    code = f"import pickle; pickle.loads(bytes.fromhex({pickled!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "use threads instead of processes" in done.stderr


def test_an_unknown_labeler_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"labeler 'azure' is unknown; known are: google-vision"):
        labelers.labeler("azure")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_calls": 0}, "max_calls 0, expected 1 or more"),
        ({"calls_per_second": 0}, "calls_per_second 0, expected more than 0"),
        ({"calls_per_second": float("nan")}, "expected more than 0"),
        ({"min_score": 1.5}, "min_score 1.5, expected 0 to 1"),
        ({"max_labels": 0}, "max_labels 0, expected 1 to 1000"),
        ({"size": 20}, "size 20, expected 100 to 8000"),
        ({"timeout_s": 0}, "timeout_s 0, expected more than 0"),
    ],
)
def test_an_option_that_can_not_be_is_an_error(options: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        labelers.labeler("rekognition", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", labelers.NAMES)
def test_a_missing_library_names_its_extra(name: str) -> None:
    package = "google.cloud.vision_v1" if name == "google-vision" else "boto3"
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from vistadex import labelers\n"
        "from vistadex.errors import MissingExtraError\n"
        f"try: labelers.labeler({name!r})\n"
        "except MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    extra = "google-vision" if name == "google-vision" else "rekognition"
    assert f"pip install 'vistadex[{extra}]'" in done.stdout


def test_cost_is_calls_times_price_and_says_whose_price() -> None:
    listed = labelers.cost("google-vision", 2000)
    assert listed.usd == 2 * labelers.cost("google-vision", 1000).usd > 0
    assert "list price, not checked: cloud.google.com/vision/pricing" in listed.text
    own = labelers.cost("google-vision", 500, 0.6)
    assert own.usd == pytest.approx(0.3)
    assert own.text == "about $0.30 at $0.60 for 1,000 pictures (as given)"
    with pytest.raises(UsageError, match="price_per_1000 -1"):
        labelers.cost("google-vision", 500, -1)


def test_a_picture_is_reduced_to_the_size_and_never_below_the_short_side() -> None:
    assert sides(to_jpeg(gray(300, 200), size=1024, min_side=80, max_bytes=10**6)) == (300, 200)
    assert sides(to_jpeg(gray(4096, 2048), size=1024, min_side=80, max_bytes=10**6)) == (1024, 512)
    assert sides(to_jpeg(gray(4000, 200), size=1024, min_side=80, max_bytes=10**6)) == (1600, 80)
    assert sides(to_jpeg(gray(20, 10), size=1024, min_side=80, max_bytes=10**6)) == (160, 80)
    assert sides(to_jpeg(gray(1, 2000), size=1024, min_side=80, max_bytes=10**6)) == (80, 10000)


def test_noise_is_made_small_enough() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), np.uint8)
    jpeg = to_jpeg(noise, size=1024, min_side=80, max_bytes=60_000)
    assert len(jpeg) <= 60_000
    assert sides(jpeg) == (256, 256)


def test_no_thread_takes_more_calls_than_there_are() -> None:
    calls = Calls("x", 1000, 1e9)
    taken = []

    def take() -> None:
        try:
            while True:
                calls.take(3)
                taken.append(3)
        except CallsUsedUpError:
            pass

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == calls.used == 999
    assert not calls.used_up
    calls.take(1)
    assert calls.used_up
    with pytest.raises(CallsUsedUpError, match=r"x: 1,000 of 1,000 calls are used"):
        calls.take(1)


def test_calls_keep_their_pace() -> None:
    calls = Calls("x", None, 200.0)
    started = time.monotonic()
    for _ in range(5):
        calls.take(10)
    assert time.monotonic() - started >= 0.2  # the first ten at once, 40 more at 200 a second


def test_an_end_reaches_a_thread_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls("x", None, 0.01)
    calls.take(1)
    seen: list[Exception] = []

    def wait() -> None:
        try:
            calls.take(1)  # in 100 s
        except LabelerError as error:
            seen.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    calls.end(LabelerError("x: gone"))
    thread.join(5)
    assert [str(error) for error in seen] == ["x: gone"]
    with pytest.raises(LabelerError, match="x: gone"):
        calls.take(1)


def test_backing_off_doubles_and_holds_back_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "FIRST_WAIT_S", 0.04)
    calls = Calls("x", None, 1e9)
    for attempt, least in ((0, 0.03), (2, 0.12)):
        started = time.monotonic()
        calls.back_off(attempt, "busy", None)
        assert time.monotonic() - started >= least
    started = time.monotonic()
    other = threading.Thread(target=calls.back_off, args=(0, "busy", 0.3))
    other.start()
    time.sleep(0.05)
    calls.take(1)
    assert time.monotonic() - started >= 0.3
    other.join()


def test_a_service_that_asks_to_wait_long_is_not_waited_for() -> None:
    with pytest.raises(LabelerError, match=r"x: quota; it asks to wait 3,600 s, run it again then"):
        Calls("x", None, 1e9).back_off(0, "quota", 3600)


def test_a_forked_process_can_not_count_for_itself() -> None:
    """It has a copy of everything, the registry of calls included."""

    def take() -> None:
        try:
            pickle.loads(pickle.dumps(calls)).take(1)
        except LabelerError as error:
            sys.exit(7 if "counted in the process that began the run" in str(error) else 8)

    calls = Calls("x", 5, 1e9)
    process = multiprocessing.get_context("fork").Process(target=take)
    process.start()
    process.join(30)
    assert process.exitcode == 7


def test_importing_labelers_loads_no_client() -> None:
    code = "import sys; from vistadex import labelers, indexing; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"boto3", "grpc", "google.cloud.vision_v1"} & set(done.stdout.split())
