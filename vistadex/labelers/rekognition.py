"""AWS Rekognition: DetectLabels through AWS's own client, names or boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
)
from botocore.session import Session

from vistadex.errors import LabelerError
from vistadex.labelers.contract import Answer, Busy, Label, LabelOptions, Price, Refused
from vistadex.records import Json, Task

PLACE = "rekognition"
CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
CONNECT_TIMEOUT_S = 5
TRANSIENT = {
    "ThrottlingException",
    "Throttling",
    "ProvisionedThroughputExceededException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "InternalServerError",
    "InternalFailure",
    "ServiceUnavailable",
    "ServiceUnavailableException",
}
"""Codes that may pass by themselves."""
REFUSALS = {"InvalidImageFormatException", "ImageTooLargeException", "InvalidParameterException"}
"""Codes that are about one picture."""
CURES: Mapping[str, str] = {
    "AccessDeniedException": "give the account the right to rekognition:DetectLabels",
    "ExpiredTokenException": "the credentials have expired; renew them (aws sso login)",
}


class Rekognition:
    """DetectLabels as names of whole pictures, those above in its hierarchy included."""

    task: ClassVar[Task] = "classifier"
    price = Price(
        1.00,
        "aws.amazon.com/rekognition/pricing as others copied it in October 2026, DetectLabels up "
        "to 1,000,000 a month; regions differ",
    )
    images_per_request: ClassVar[int] = 1
    bytes_per_request: ClassVar[int] = 5_000_000
    """What bytes in a request may have: 5 MB."""
    min_side: ClassVar[int] = 80
    calls_per_second: ClassVar[float] = 5.0
    """A careful pace: quotas depend on the region."""
    parameters: ClassVar[Mapping[str, Json]] = {"api": "rekognition.2016-06-27"}

    def __init__(self, options: LabelOptions) -> None:
        """See contract.Service. Settings are found as the AWS tools find them."""
        # boto reads AWS_DEFAULT_REGION alone; every other AWS library reads AWS_REGION first.
        region = ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)
        self._options = options
        once = Config(
            retries={"total_max_attempts": 1},  # calls are counted, so they are repeated elsewhere
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=options.timeout_s,
            max_pool_connections=64,
        )
        try:
            session = boto3.session.Session(
                botocore_session=Session(session_vars={"region": region})
            )
            self._client = session.client("rekognition", config=once)
        except NoRegionError as error:
            raise LabelerError(f"{PLACE}: no region is set; set AWS_REGION") from error
        except BotoCoreError as error:
            raise LabelerError(f"{PLACE}: {error}; check AWS_PROFILE and ~/.aws") from error

    def ask(self, jpegs: Sequence[bytes]) -> list[Answer]:
        """See contract.Service."""
        return [self._labels(jpeg) for jpeg in jpegs]

    def _labels(self, jpeg: bytes) -> tuple[Label, ...]:
        try:
            found = self._client.detect_labels(
                Image={"Bytes": jpeg},
                MaxLabels=self._options.max_labels,
                MinConfidence=100 * self._options.min_score,
            )
        except ClientError as error:
            raise _translated(error) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise LabelerError(f"{PLACE}: {error}; {CREDENTIALS}") from error
        except (ConnectionError, HTTPClientError) as error:
            raise Busy(f"{type(error).__name__}: {error}") from error
        except BotoCoreError as error:
            raise LabelerError(f"{PLACE}: {error}; check AWS_PROFILE and ~/.aws") from error
        return tuple(_label(one) for one in found.get("Labels", ()))


class RekognitionBoxes(Rekognition):
    """DetectLabels as boxes: of what it names, the instances that it can point at."""

    task: ClassVar[Task] = "detector"


def _label(found: Mapping[str, Any]) -> Label:
    boxes = []
    for one in found.get("Instances", ()):
        box = one["BoundingBox"]
        x0, y0 = box["Left"], box["Top"]
        corners = (x0, y0, x0 + box["Width"], y0 + box["Height"])
        boxes.append((one.get("Confidence", found["Confidence"]) / 100, corners))
    return Label(found["Name"], found["Confidence"] / 100, tuple(boxes))


def _translated(error: ClientError) -> Exception:
    """What an error answer means for the run."""
    code = error.response.get("Error", {}).get("Code", "Unknown")
    message = error.response.get("Error", {}).get("Message", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f"{code}: {message}" if message else code
    if code in REFUSALS:
        return Refused(said)
    if code in TRANSIENT or status == 429 or status >= 500:
        return Busy(said, _wait_s(error))
    return LabelerError(f"{PLACE}: {said}; {CURES.get(code, CREDENTIALS)}")


def _wait_s(error: ClientError) -> float | None:
    """How long the service asks to be left alone, where it says so in seconds."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    text = headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None
