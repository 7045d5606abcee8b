"""Runs over collections with a labeler: what is kept, what is left, what is never sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.rpc import code_pb2
from typer.testing import CliRunner

import vistadex
from tests.labeler_servers import (
    Fault,
    Script,
    annotations,
    image_error,
    main_color,
    vision_server,
)
from vistadex.catalog import Catalog
from vistadex.cli import app
from vistadex.decoding import encode_jpeg
from vistadex.errors import LabelerError, UsageError
from vistadex.indexing import Summary
from vistadex.labelers import calls
from vistadex.testing import RedSquareDetector

PHOTOS = 30


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """What the server answers; the labeler finds it."""
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.01)
    made = Script()
    with vision_server(made) as address:
        monkeypatch.setenv("VISTADEX_GOOGLE_VISION_ENDPOINT", address)
        yield made


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Thirty pictures of which no two are alike: red, green, blue, red, ..."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(PHOTOS):
        pixels = np.zeros((60, 80, 3), np.uint8)
        pixels[..., i % 3] = 250 - i
        (folder / f"{i:02}.jpg").write_bytes(encode_jpeg(pixels, 95))
    return folder


def index(photos: Path, max_calls: int, **options: Any) -> Summary:
    return vistadex.index(
        photos,
        labeler="google-vision",
        max_calls=max_calls,
        calls_per_second=1e6,
        catalog=photos.parent / "catalog.db",
        **options,
    )


def counts(photos: Path) -> dict[str, int]:
    with Catalog(photos.parent / "catalog.db") as opened:
        return {one.class_name: one.images for one in opened.classes()}


def test_labels_are_searched_like_any_class(script: Script, photos: Path) -> None:
    summary = index(photos, 100)
    assert (summary.indexed, summary.calls, summary.left) == (PHOTOS, PHOTOS, 0)
    assert counts(photos) == {"Picture": 30, "Red": 10, "Green": 10, "Blue": 10}
    with Catalog(photos.parent / "catalog.db") as opened:
        found = opened.search("Red score>=0.5").results
        assert len(found) == 10
        assert found[0].score == pytest.approx(0.9)
        [known] = opened.stats().models
        assert (known.name, known.task, known.images) == ("google-vision", "classifier", 30)
        assert known.parameters["api"] == "vision.v1"
    again = index(photos, 100)
    assert (again.unchanged, again.calls) == (PHOTOS, 0)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("max_calls", [1, 7, 16, 29])
def test_calls_bound_a_run_exactly_and_the_next_one_goes_on(
    script: Script, photos: Path, max_calls: int, threads: int
) -> None:
    done = index(photos, max_calls, threads=threads, price_per_1000=1000)
    assert script.pictures == done.calls == done.indexed == max_calls
    assert (done.left, done.left_usd) == (PHOTOS - max_calls, float(PHOTOS - max_calls))
    assert counts(photos)["Picture"] == max_calls
    rest = index(photos, 100, threads=threads)
    assert (rest.unchanged, rest.indexed, rest.left) == (max_calls, PHOTOS - max_calls, 0)
    assert script.pictures == PHOTOS
    assert len({picture for request in script.requests for picture in request}) == PHOTOS


@pytest.mark.parametrize("threads", [1, 4])
def test_retries_do_not_break_the_bound(
    script: Script, photos: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.5)  # the others have their answers by then

    def some_later(jpeg: bytes) -> Any:
        if main_color(jpeg) == "Green":
            return image_error(code_pb2.UNAVAILABLE, "later")
        return annotations(Picture=0.9)

    script.steps = [Fault(code_pb2.UNAVAILABLE), some_later, some_later]
    done = index(photos, 20, threads=threads)
    assert script.pictures == done.calls == 20
    assert 0 < done.indexed < 20
    assert done.indexed + done.left + done.failed == PHOTOS
    answered = 20 - len(script.requests[0])
    assert counts(photos)["Picture"] <= answered


def test_what_was_labeled_before_the_service_failed_is_kept(script: Script, photos: Path) -> None:
    usual = {"threads": 1}
    script.steps = [lambda _: annotations(Fine=0.9)] * 2 + [
        Fault(code_pb2.PERMISSION_DENIED, "billing is off")
    ]
    with pytest.raises(LabelerError, match=r"google-vision: PERMISSION_DENIED: billing is off; sw"):
        index(photos, 100, **usual)
    labeled = sum(map(len, script.requests[:2]))
    assert labeled > 0
    assert counts(photos) == {"Fine": labeled}
    assert len(script.requests) == 3  # and no further one
    rest = index(photos, 100, **usual)
    assert (rest.unchanged, rest.indexed) == (labeled, PHOTOS - labeled)


def test_a_failing_service_ends_every_thread(script: Script, photos: Path) -> None:
    script.steps = [Fault(code_pb2.UNAUTHENTICATED, "who?")] * PHOTOS
    with pytest.raises(LabelerError, match="UNAUTHENTICATED"):
        index(photos, 100, threads=4)
    assert len(script.requests) <= 4
    assert counts(photos) == {}


def test_a_service_that_never_answers_is_no_run_that_is_done(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("VISTADEX_GOOGLE_VISION_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(LabelerError, match=r"UNAVAILABLE: .*, and there are no calls left to try"):
        index(photos, 10)


class Impatient:
    """A person who presses Ctrl-C after the first results, when the server has got some more."""

    def __init__(self, script: Script, pictures: int) -> None:
        self.script = script
        self.pictures = pictures
        self.pressed = False

    def update(self, *, listed: int, listing: bool, done: int, failed: int) -> None:
        """Interrupts the main thread, which is the one that commits."""
        if done and not self.pressed and threading.current_thread() is threading.main_thread():
            deadline = time.monotonic() + 20
            while self.script.pictures < self.pictures and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.2)
            self.pressed = True
            raise KeyboardInterrupt


@pytest.mark.parametrize(("threads", "pictures"), [(1, 10), (2, 15)])
def test_what_was_paid_for_is_kept_when_someone_stops_the_run(
    script: Script, photos: Path, threads: int, pictures: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        index(photos, 100, threads=threads, progress=Impatient(script, pictures))
    assert pictures <= script.pictures < PHOTOS
    assert counts(photos)["Picture"] == script.pictures


def no_green(jpeg: bytes) -> Any:
    """An answer that refuses what is green."""
    green = main_color(jpeg) == "Green"
    return image_error(code_pb2.INVALID_ARGUMENT) if green else annotations(Fine=0.9)


def test_a_refused_picture_is_a_failure_that_later_runs_try_again(
    script: Script, photos: Path
) -> None:
    script.steps = [no_green] * PHOTOS
    done = index(photos, 100)
    assert (done.indexed, dict(done.failures)) == (20, {"refused": 10})
    with Catalog(photos.parent / "catalog.db") as opened:
        assert {one.reason for one in opened.errors(limit=100)} == {"refused"}
        assert "INVALID_ARGUMENT: Bad image data." in opened.errors(limit=1)[0].message
    script.steps.clear()
    again = index(photos, 100)
    assert (again.indexed, again.unchanged, again.calls) == (10, 20, 10)


def seen(photos: Path) -> dict[str, int]:
    """How many images each model has seen."""
    with Catalog(photos.parent / "catalog.db") as opened:
        return {one.name: one.images for one in opened.stats().models}


def test_what_other_models_found_in_a_refused_picture_is_kept(script: Script, photos: Path) -> None:
    detector = RedSquareDetector()
    script.steps = [no_green] * PHOTOS
    done = index(photos, 100, detector=detector)
    assert (done.indexed, done.refused, dict(done.failures)) == (PHOTOS, 10, {})
    assert seen(photos) == {detector.name: PHOTOS, "google-vision": 20}
    with Catalog(photos.parent / "catalog.db") as opened:
        images = [opened.image(result.image.id) for result in opened.search(limit=100).results]
    warned = [one for one in images if one.warning]
    assert (len(images), len(warned)) == (PHOTOS, 10)
    for one in warned:
        assert "refused: google-vision: INVALID_ARGUMENT: Bad image data." in (one.warning or "")
        assert one.width == 80
    script.steps.clear()
    again = index(photos, 100, detector=detector)
    assert (again.indexed, again.unchanged, again.refused, again.calls) == (10, 20, 0, 10)
    assert seen(photos) == {detector.name: PHOTOS, "google-vision": PHOTOS}
    with Catalog(photos.parent / "catalog.db") as opened:
        assert opened.image(warned[0].id).warning is None


def test_labels_that_were_paid_for_outlast_a_later_refusal(script: Script, photos: Path) -> None:
    index(photos, 100)
    script.steps = [no_green] * PHOTOS
    done = index(photos, 100, detector=RedSquareDetector(), only="all")
    assert (done.indexed, done.refused) == (PHOTOS, 10)
    known = {name: number for name, number in counts(photos).items() if "square" not in name}
    assert known == {"Fine": 20, "Green": 10, "Picture": 10}


def test_a_file_that_is_no_picture_is_not_sent(script: Script, photos: Path) -> None:
    (photos / "00.jpg").write_bytes(b"\xff\xd8\xffnothing")
    done = index(photos, 100)
    assert (done.indexed, done.failed, done.calls) == (PHOTOS - 1, 1, PHOTOS - 1)


def test_a_labeler_stands_beside_a_detector(script: Script, photos: Path) -> None:
    broken = RedSquareDetector(fail_on_width=200)
    (photos / "odd.jpg").write_bytes(encode_jpeg(np.zeros((50, 200, 3), np.uint8)))
    done = index(photos, 100, detector=broken)
    assert (done.indexed, done.failures) == (PHOTOS, {"internal": 1})
    assert script.pictures == PHOTOS  # a picture that breaks the detector costs nothing
    with Catalog(photos.parent / "catalog.db") as opened:
        assert {one.task for one in opened.stats().models} == {"detector", "classifier"}


def test_labels_go_below_the_score_only_where_asked(script: Script, photos: Path) -> None:
    index(photos, 100, min_score=0.7)
    assert "Picture" not in counts(photos)


def test_a_bound_is_needed_and_the_price_is_said(script: Script, photos: Path) -> None:
    with pytest.raises(UsageError, match=r"charges for each, about \$1\.50 .*: --max-calls N"):
        vistadex.index(photos, labeler="google-vision", catalog=photos.parent / "c.db")
    assert script.requests == []
    assert not (photos.parent / "c.db").exists()


@pytest.mark.parametrize("option", ["max_calls", "calls_per_second", "price_per_1000"])
def test_options_of_a_labeler_need_one(photos: Path, option: str) -> None:
    with pytest.raises(UsageError, match="expected one; name it with --labeler: google-vision"):
        vistadex.index(photos, catalog=photos.parent / "c.db", **{option: 5})


def test_nothing_is_sent_without_a_labeler(script: Script, photos: Path) -> None:
    vistadex.index(photos, detector=RedSquareDetector(), catalog=photos.parent / "c.db")
    assert script.requests == []
    assert not [one for one in threading.enumerate() if "grpc" in one.name.lower()]


def command(photos: Path, *options: str) -> Any:
    place = str(photos.parent / "catalog.db")
    given = ["index", str(photos), "--labeler", "google-vision", "--catalog", place, *options]
    return CliRunner().invoke(app, [*given, "--calls-per-second", "1000000"])


def test_the_command_states_the_cost_before_and_what_is_left_after(
    script: Script, photos: Path
) -> None:
    done = command(photos, "--max-calls", "20", "--price-per-1000", "500")
    assert done.exit_code == 0, done.output
    stated = "google-vision: up to 20 pictures leave this machine, at most about $10.00 at $500.00"
    assert stated in done.stderr
    assert "20 pictures sent to be labeled: about $10.00" in done.stdout
    assert "10 images left: about $5.00" in done.stdout
    assert "the same command goes on with the images left" in done.stderr
    assert "without the labeler" not in done.stdout
    rest = command(photos, "--max-calls", "20", "--json")
    assert json.loads(rest.stdout)["calls"] == 10
    assert json.loads(rest.stdout)["left"] == 0


def test_the_command_asks_for_a_bound(script: Script, photos: Path) -> None:
    done = command(photos)
    assert isinstance(done.exception, UsageError)
    assert "--max-calls N" in str(done.exception)
    assert script.requests == []
