"""vistadex.labelers.rekognition against servers that speak its protocol, moto's among them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.labeler_servers import Fault, Script, labels, rekognition_server, size_of
from vistadex import labelers
from vistadex.errors import LabelerError
from vistadex.labelers import calls
from vistadex.labelers.labeling import LabelingModel
from vistadex.records import Classification, DecodedImage, Detections, Failure, Result


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of someone who has keys; tests change it."""
    empty = tmp_path / "empty"
    empty.write_text("")
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(empty))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(empty))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.01)
    return monkeypatch


@pytest.fixture
def script(account: pytest.MonkeyPatch) -> Iterator[Script]:
    """What the server answers; the labeler finds it."""
    made = Script()
    with rekognition_server(made) as address:
        account.setenv("AWS_ENDPOINT_URL_REKOGNITION", address)
        yield made


def model(name: str = "rekognition", **options: float) -> LabelingModel:
    return labelers.labeler(name, calls_per_second=1e6, **options).load()  # type: ignore[arg-type]


def picture(red: int = 220, size_wh: tuple[int, int] = (160, 120)) -> DecodedImage:
    pixels = np.full((size_wh[1], size_wh[0], 3), (red, 20, 20), np.uint8)
    return DecodedImage(pixels, *size_wh)


def names(result: Result | Failure) -> list[tuple[str, float]]:
    assert isinstance(result, Classification)
    return [
        (result.names[i], round(score, 3))
        for i, score in zip(result.class_ids.tolist(), result.scores.tolist(), strict=True)
    ]


def test_the_server_of_moto_is_understood(s3_server: str, account: pytest.MonkeyPatch) -> None:
    account.setenv("AWS_ENDPOINT_URL", s3_server)
    [found] = model().analyze([picture()])
    assert names(found) == [("Mobile Phone", 0.999)]
    [boxes] = model("rekognition-boxes").analyze([picture()])
    assert isinstance(boxes, Detections)
    assert boxes.names == ("Mobile Phone",)
    assert len(boxes.scores) == 1


def test_labels_of_every_level_come_by_falling_score(script: Script) -> None:
    script.steps = [lambda _: labels(("Animal", 0.8), ("Dog", 0.95), ("Pet", 0.8))]
    [found] = model(min_score=0.4, max_labels=7).analyze([picture()])
    assert names(found) == [("Dog", 0.95), ("Animal", 0.8), ("Pet", 0.8)]
    assert script.raw[0]["MaxLabels"] == 7
    assert script.raw[0]["MinConfidence"] == 40.0


def test_boxes_are_pixels_of_the_picture_at_full_size(script: Script) -> None:
    script.steps = [lambda _: labels(("Dog", 0.9), ("Animal", 0.99), box=(0.25, 0.5, 0.5, 0.6))]
    reduced = DecodedImage(picture().pixels, 1600, 1200)
    [found] = model("rekognition-boxes").analyze([reduced])
    assert isinstance(found, Detections)
    assert found.boxes_xyxy.tolist() == [[400.0, 600.0, 1200.0, 1200.0]]  # within the picture
    assert [found.names[i] for i in found.class_ids.tolist()] == ["Dog"]
    assert found.scores.tolist() == [pytest.approx(0.95)]


def test_small_and_large_pictures_are_brought_within_the_limits(script: Script) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5000, 5000, 3), np.uint8)
    images = [picture(size_wh=(40, 20)), DecodedImage(noise, 5000, 5000)]
    model(size=5000).analyze(images)
    assert size_of(script.requests[0][0]) == (160, 80)
    assert len(script.requests[1][0]) <= 5_000_000


def test_one_picture_is_one_request(script: Script) -> None:
    found = model().analyze([picture(200), picture(201), picture(202)])
    assert [names(one)[0][0] for one in found] == ["Red"] * 3
    assert [len(request) for request in script.requests] == [1, 1, 1]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ThrottlingException", 400),
        ("ProvisionedThroughputExceededException", 400),
        ("InternalServerError", 500),
        ("SomethingNew", 503),
        ("SomethingElse", 429),
    ],
)
def test_what_may_pass_is_tried_again(script: Script, code: str, status: int) -> None:
    script.steps = [Fault(code, status=status)] * 4
    made = labelers.labeler("rekognition", calls_per_second=1e6)
    assert names(made.load().analyze([picture()])[0])[0] == ("Red", 0.9)
    assert script.pictures == made.calls.used == 5  # the client itself has not tried again


def test_a_quota_that_stays_used_up_ends_the_run(script: Script) -> None:
    script.steps = [Fault("ProvisionedThroughputExceededException", "slow down")] * 5
    said = r"rekognition: ProvisionedThroughputExceededException: slow down, 5 times; nothing is lo"
    with pytest.raises(LabelerError, match=said):
        model().analyze([picture()])


def test_it_waits_as_long_as_the_service_asks(script: Script) -> None:
    script.steps = [Fault("ThrottlingException", retry_after_s=1)]
    model().analyze([picture()])
    assert script.times[1] - script.times[0] >= 1


@pytest.mark.parametrize(
    "code", ["InvalidImageFormatException", "ImageTooLargeException", "InvalidParameterException"]
)
def test_a_bad_picture_fails_alone(script: Script, code: str) -> None:
    script.steps = [Fault(code, "bad")]
    found = model().analyze([picture(200), picture(201)])
    assert found[0] == Failure("refused", f"rekognition: {code}: bad")
    assert names(found[1])[0] == ("Red", 0.9)


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        ("AccessDeniedException", "give the account the right to rekognition:DetectLabels"),
        ("UnrecognizedClientException", "set AWS_PROFILE, or AWS_ACCESS_KEY_ID"),
        ("ExpiredTokenException", "the credentials have expired"),
    ],
)
def test_what_does_not_pass_is_not_tried_again(script: Script, code: str, cure: str) -> None:
    script.steps = [Fault(code, "no")]
    with pytest.raises(LabelerError, match=f"rekognition: {code}: no; {cure}"):
        model().analyze([picture(200), picture(201)])
    assert len(script.requests) == 1


def test_no_answer_in_time_counts_as_an_attempt(script: Script) -> None:
    script.steps = [1.0]
    made = labelers.labeler("rekognition", calls_per_second=1e6, timeout_s=0.3)
    assert names(made.load().analyze([picture()])[0])[0] == ("Red", 0.9)
    assert made.calls.used == len(script.requests) == 2


def test_a_server_that_is_gone_ends_the_run(account: pytest.MonkeyPatch) -> None:
    account.setenv("AWS_ENDPOINT_URL_REKOGNITION", "http://127.0.0.1:1")
    with pytest.raises(LabelerError, match=r"rekognition: EndpointConnectionError: .*, 5 times"):
        model().analyze([picture()])


def test_no_region_is_an_error(account: pytest.MonkeyPatch) -> None:
    account.delenv("AWS_REGION")
    with pytest.raises(LabelerError, match="rekognition: no region is set; set AWS_REGION"):
        model()


def test_no_keys_are_an_error_and_nothing_is_sent(
    script: Script, account: pytest.MonkeyPatch
) -> None:
    account.delenv("AWS_ACCESS_KEY_ID")
    account.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(LabelerError, match=r"rekognition: Unable to locate credentials; set AWS_P"):
        model().analyze([picture()])
    assert script.requests == []


def test_an_unknown_profile_is_an_error(account: pytest.MonkeyPatch) -> None:
    account.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(LabelerError, match=r"rekognition: .*nobody.*; check AWS_PROFILE"):
        model()
