"""vistadex.labelers.google_vision against a server that speaks its gRPC protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import google.cloud.vision_v1 as vision
import numpy as np
import pytest
from google.rpc import code_pb2

from tests.labeler_servers import (
    Fault,
    Script,
    annotations,
    image_error,
    main_color,
    size_of,
    vision_server,
)
from vistadex import labelers
from vistadex.errors import CallsUsedUpError, LabelerError, UsageError
from vistadex.labelers import calls, google_vision
from vistadex.labelers.labeling import LabelingModel
from vistadex.records import Classification, DecodedImage, Failure, Result


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """What the server answers; the labeler finds it."""
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.01)
    made = Script()
    with vision_server(made) as address:
        monkeypatch.setenv("VISTADEX_GOOGLE_VISION_ENDPOINT", address)
        yield made


def model(max_calls: int | None = None, **options: float) -> LabelingModel:
    made = labelers.labeler(
        "google-vision",
        max_calls=max_calls,
        calls_per_second=1e6,
        **options,  # type: ignore[arg-type]
    )
    return made.load()


def pictures(number: int, first: int = 0) -> list[DecodedImage]:
    """Pictures of which no two are alike: red, green, blue, red, ..."""
    found = []
    for i in range(first, first + number):
        pixels = np.zeros((60, 80, 3), np.uint8)
        pixels[..., i % 3] = 250 - i
        found.append(DecodedImage(pixels, 80, 60))
    return found


def names(result: Result | Failure) -> list[tuple[str, float]]:
    assert isinstance(result, Classification)
    return [
        (result.names[i], round(score, 3))
        for i, score in zip(result.class_ids.tolist(), result.scores.tolist(), strict=True)
    ]


def colors(results: list[Result | Failure]) -> list[str]:
    return [names(result)[0][0] for result in results]


def test_labels_come_as_the_service_names_them_by_falling_score(script: Script) -> None:
    script.steps = [lambda _: annotations(**{"Wood": 0.3, "Cat": 0.97, "Fur": 0.3, "Air": 0.2})]
    [found] = model().analyze(pictures(1))
    assert names(found) == [("Cat", 0.97), ("Fur", 0.3), ("Wood", 0.3)]
    request = script.raw[0].requests[0]
    assert request.features[0].type_ == vision.Feature.Type.LABEL_DETECTION
    assert request.features[0].max_results == 50


def test_forty_pictures_are_three_requests_in_order(script: Script) -> None:
    found = model().analyze(pictures(40))
    assert [len(request) for request in script.requests] == [16, 16, 8]
    assert colors(found) == [("Red", "Green", "Blue")[i % 3] for i in range(40)]


def test_a_request_stays_below_its_bytes(script: Script) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2500, 2500, 3), np.uint8)
    image = [DecodedImage(noise[: 2500 - 50 * i], 2500, 2500 - 50 * i) for i in range(4)]
    model(size=2500).analyze(image)
    sent = [sum(map(len, request)) for request in script.requests]
    assert len(sent) > 1
    assert max(sent) <= 7_000_000
    assert script.pictures == 4


def test_large_pictures_are_sent_small(script: Script) -> None:
    big = DecodedImage(np.zeros((1500, 3000, 3), np.uint8), 3000, 1500)
    model().analyze([big])
    assert size_of(script.requests[0][0]) == (1024, 512)


def test_the_same_picture_twice_in_a_batch_is_sent_once(script: Script) -> None:
    image = pictures(1)
    assert colors(model().analyze(image * 3)) == ["Red"] * 3
    assert script.pictures == 1


def test_a_picture_without_labels_has_none(script: Script) -> None:
    script.steps = [lambda _: annotations()]
    assert names(model().analyze(pictures(1))[0]) == []


def test_a_bad_picture_fails_alone(script: Script) -> None:
    script.steps = [
        lambda jpeg: (
            image_error(code_pb2.INVALID_ARGUMENT)
            if main_color(jpeg) == "Green"
            else annotations(Fine=0.9)
        )
    ]
    found = model().analyze(pictures(3))
    said = "google-vision: INVALID_ARGUMENT: Bad image data."
    assert found[1] == Failure("refused", said)
    assert [names(found[i]) for i in (0, 2)] == [[("Fine", 0.9)]] * 2
    assert len(script.requests) == 1


def test_a_request_that_is_refused_as_a_whole_is_sent_again_picture_by_picture(
    script: Script,
) -> None:
    script.steps = [Fault(code_pb2.INVALID_ARGUMENT), Fault(code_pb2.INVALID_ARGUMENT, "odd")]
    found = model().analyze(pictures(3))
    assert found[0] == Failure("refused", "google-vision: INVALID_ARGUMENT: odd")
    assert colors(found[1:]) == ["Green", "Blue"]
    assert [len(request) for request in script.requests] == [3, 1, 1, 1]


@pytest.mark.parametrize(
    "code", ["RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "ABORTED"]
)
def test_what_may_pass_is_tried_again(script: Script, code: str) -> None:
    script.steps = [Fault(code_pb2.Code.Value(code))] * 4
    assert colors(model().analyze(pictures(2))) == ["Red", "Green"]
    assert [len(request) for request in script.requests] == [2] * 5


def test_only_those_without_an_answer_are_asked_again(script: Script) -> None:
    def green_later(jpeg: bytes) -> vision.AnnotateImageResponse:
        if main_color(jpeg) == "Green":
            return image_error(code_pb2.UNAVAILABLE, "later")
        return annotations(**{main_color(jpeg): 0.9})

    script.steps = [green_later, green_later]
    assert colors(model().analyze(pictures(6))) == ["Red", "Green", "Blue"] * 2
    assert [len(request) for request in script.requests] == [6, 2, 2]


def test_one_that_never_gets_an_answer_does_not_end_the_run(script: Script) -> None:
    def never_green(jpeg: bytes) -> vision.AnnotateImageResponse:
        if main_color(jpeg) == "Green":
            return image_error(code_pb2.INTERNAL, "broken")
        return annotations(**{main_color(jpeg): 0.9})

    script.steps = [never_green] * 5
    found = model().analyze(pictures(3))
    assert found[1] == Failure("refused", "google-vision: no answer: INTERNAL: broken")
    assert colors([found[0], found[2]]) == ["Red", "Blue"]
    assert [len(request) for request in script.requests] == [3, 1, 1, 1, 1]


def test_a_quota_that_stays_used_up_ends_the_run(script: Script) -> None:
    script.steps = [Fault(code_pb2.RESOURCE_EXHAUSTED, "Quota exceeded for a day")] * 5
    made = model()
    said = r"google-vision: RESOURCE_EXHAUSTED: Quota exceeded for a day, 5 times; nothing is lost"
    with pytest.raises(LabelerError, match=said):
        made.analyze(pictures(1))
    with pytest.raises(LabelerError, match=said):
        made.analyze(pictures(1))
    assert len(script.requests) == 5


def test_it_waits_as_long_as_the_service_asks(script: Script) -> None:
    script.steps = [Fault(code_pb2.RESOURCE_EXHAUSTED, retry_after_s=1)]
    model().analyze(pictures(1))
    assert script.times[1] - script.times[0] >= 1


def test_it_does_not_wait_for_an_hour(script: Script) -> None:
    script.steps = [Fault(code_pb2.RESOURCE_EXHAUSTED, retry_after_s=3600)]
    with pytest.raises(LabelerError, match=r"it asks to wait 3,600 s, run it again then"):
        model().analyze(pictures(1))
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        ("UNAUTHENTICATED", "set GOOGLE_APPLICATION_CREDENTIALS"),
        ("PERMISSION_DENIED", "switch the Vision API and billing on"),
        ("NOT_FOUND", "expected an answer; look the code up"),
    ],
)
def test_what_does_not_pass_is_not_tried_again(script: Script, code: str, cure: str) -> None:
    script.steps = [Fault(code_pb2.Code.Value(code), "no")]
    with pytest.raises(LabelerError, match=f"google-vision: {code}: no; {cure}"):
        model().analyze(pictures(3))
    assert len(script.requests) == 1


def test_no_answer_in_time_counts_as_an_attempt(script: Script) -> None:
    script.steps = [1.0]
    made = labelers.labeler("google-vision", calls_per_second=1e6, timeout_s=0.3)
    assert colors(made.load().analyze(pictures(1))) == ["Red"]
    assert len(script.requests) == made.calls.used == 2


def test_too_few_answers_are_an_attempt(script: Script) -> None:
    script.steps = [lambda jpeg: None if main_color(jpeg) == "Red" else annotations(Fine=0.9)]
    assert colors(model().analyze(pictures(3))) == ["Red", "Green", "Blue"]
    assert [len(request) for request in script.requests] == [3, 3]


def test_credentials_that_can_not_be_renewed_are_no_busy_server(script: Script) -> None:
    plugin = "Getting metadata from plugin failed with error: invalid_grant"
    script.steps = [Fault(code_pb2.UNAVAILABLE, plugin)]
    with pytest.raises(LabelerError, match=r"credentials refused .*invalid_grant.*; set GOOGLE_AP"):
        model().analyze(pictures(1))
    assert len(script.requests) == 1


def test_a_server_that_is_gone_ends_the_run(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISTADEX_GOOGLE_VISION_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(LabelerError, match=r"google-vision: UNAVAILABLE: .*, 5 times"):
        model().analyze(pictures(1))
    assert script.requests == []


def test_retries_count_against_the_calls(script: Script) -> None:
    script.steps = [Fault(code_pb2.UNAVAILABLE)] * 5
    made = model(max_calls=5)
    said = r"google-vision: UNAVAILABLE: scripted, and there are no calls left to try again; nothi"
    with pytest.raises(LabelerError, match=said):
        made.analyze(pictures(2))
    assert script.pictures == 4


def test_a_service_that_answers_until_the_calls_are_used_up_has_not_failed(script: Script) -> None:
    def green_later(jpeg: bytes) -> vision.AnnotateImageResponse:
        if main_color(jpeg) == "Green":
            return image_error(code_pb2.UNAVAILABLE, "later")
        return annotations(**{main_color(jpeg): 0.9})

    script.steps = [green_later]
    made = model(max_calls=6)
    with pytest.raises(CallsUsedUpError, match=r"google-vision: 6 of 6 calls are used, so 2 more"):
        made.analyze(pictures(6))
    assert colors(made.analyze([pictures(6)[i] for i in (0, 2, 3, 5)])) == ["Red", "Blue"] * 2


def test_answers_that_were_paid_for_are_given_when_asked_again(script: Script) -> None:
    made = model(max_calls=20)
    images = pictures(24)
    with pytest.raises(CallsUsedUpError):
        made.analyze(images)  # 16, and then not 8 more
    assert script.pictures == 16
    assert len(colors([made.analyze([image])[0] for image in images[:20]])) == 20
    assert script.pictures == 20
    with pytest.raises(CallsUsedUpError):
        made.analyze(images[:1])  # given once: it is not kept for ever


def test_an_address_in_the_clear_must_be_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("http://192.0.2.7:80", "http://example.org"):
        monkeypatch.setenv("VISTADEX_GOOGLE_VISION_ENDPOINT", address)
        with pytest.raises(UsageError, match="is not encrypted and not on this machine"):
            model()


@pytest.mark.parametrize("given", ["eu-vision.googleapis.com", "https://eu-vision.googleapis.com"])
def test_an_endpoint_may_be_a_host_or_an_https_address(
    given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    user = {"client_id": "x", "client_secret": "y", "refresh_token": "z", "type": "authorized_user"}
    (tmp_path / "user.json").write_text(json.dumps(user))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "user.json"))
    assert google_vision._client(given).transport.host == "eu-vision.googleapis.com:443"


def test_missing_credentials_are_an_error_with_a_cure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: str
) -> None:
    monkeypatch.delenv("VISTADEX_GOOGLE_VISION_ENDPOINT", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f"{tmp_path}/none.json")
    with pytest.raises(LabelerError, match=r"google-vision: no credentials .*none.json.*; set GOO"):
        model()
