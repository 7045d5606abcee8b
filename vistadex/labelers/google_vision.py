"""Google Cloud Vision: label detection by BatchAnnotateImages, through Google's own client."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import ClassVar
from urllib.parse import urlsplit

import google.cloud.vision_v1 as vision
import grpc
from google.api_core import exceptions as api
from google.api_core.client_options import ClientOptions
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.cloud.vision_v1.services.image_annotator.transports import ImageAnnotatorGrpcTransport
from google.rpc import code_pb2, error_details_pb2

from vistadex import settings
from vistadex.errors import LabelerError, UsageError
from vistadex.labelers.contract import Answer, Busy, Label, LabelOptions, Price, Refused
from vistadex.records import Json, Task

PLACE = "google-vision"
CREDENTIALS = (
    "set GOOGLE_APPLICATION_CREDENTIALS to a service account's file, or run "
    "`gcloud auth application-default login`"
)
_TRANSIENT = {
    code_pb2.RESOURCE_EXHAUSTED,
    code_pb2.UNAVAILABLE,
    code_pb2.DEADLINE_EXCEEDED,
    code_pb2.INTERNAL,
    code_pb2.ABORTED,
    code_pb2.UNKNOWN,
}
"""Codes that may pass by themselves."""
_CURES: Mapping[int, str] = {
    code_pb2.UNAUTHENTICATED: CREDENTIALS,
    code_pb2.PERMISSION_DENIED: "switch the Vision API and billing on for the project, and give "
    "the account the right to use it",
}


class GoogleVision:
    """Label detection of Google Cloud Vision. See contract.Service."""

    task: ClassVar[Task] = "classifier"
    price = Price(
        1.50,
        "cloud.google.com/vision/pricing in an undated copy, label detection up to 5,000,000 a "
        "month; the first 1,000 of a month are free",
    )
    images_per_request: ClassVar[int] = 16
    bytes_per_request: ClassVar[int] = 7_000_000
    """A request may have 10 MB as JSON, where bytes take a third more room."""
    min_side: ClassVar[int] = 1
    calls_per_second: ClassVar[float] = 30.0
    """The quota of a project is 1,800 a minute."""
    parameters: ClassVar[Mapping[str, Json]] = {"api": "vision.v1", "feature": "LABEL_DETECTION"}

    def __init__(self, options: LabelOptions) -> None:
        """See contract.Service."""
        self._options = options
        self._feature = vision.Feature(
            type_=vision.Feature.Type.LABEL_DETECTION, max_results=options.max_labels
        )
        try:
            self._client = _client(settings.value("google_vision_endpoint", None, str))
        except (auth.GoogleAuthError, OSError, ValueError) as error:
            raise LabelerError(f"{PLACE}: no credentials ({error}); {CREDENTIALS}") from error

    def ask(self, jpegs: Sequence[bytes]) -> list[Answer]:
        """See contract.Service."""
        requests = [
            vision.AnnotateImageRequest(image=vision.Image(content=jpeg), features=[self._feature])
            for jpeg in jpegs
        ]
        try:
            found = self._client.batch_annotate_images(
                requests=requests, retry=None, timeout=self._options.timeout_s
            )
        except api.GoogleAPICallError as error:
            raise _translated(error) from error
        except auth.GoogleAuthError as error:
            raise LabelerError(f"{PLACE}: credentials refused ({error}); {CREDENTIALS}") from error
        if len(found.responses) != len(jpegs):
            raise Busy(f"{len(found.responses)} answers to {len(jpegs)} pictures")
        return [_answer(one) for one in found.responses]


def _client(endpoint: str) -> vision.ImageAnnotatorClient:
    """A client of the service, or of a server on this machine that speaks its protocol."""
    address = urlsplit(endpoint)
    if address.scheme != "http":
        host = address.netloc if address.scheme == "https" else endpoint
        return vision.ImageAnnotatorClient(client_options=ClientOptions(api_endpoint=host))
    if not _is_loopback(address.hostname or ""):
        raise UsageError(
            f"google_vision_endpoint: {endpoint} is not encrypted and not on this machine; "
            "expected the name of a host, such as eu-vision.googleapis.com"
        )
    channel = grpc.insecure_channel(address.netloc)
    transport = ImageAnnotatorGrpcTransport(channel=channel, credentials=AnonymousCredentials())
    return vision.ImageAnnotatorClient(transport=transport)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _answer(response: vision.AnnotateImageResponse) -> Answer:
    """What one picture of a request got."""
    code, message = response.error.code, response.error.message
    if code in _TRANSIENT:
        return Busy(_said(code, message))
    if code:
        return Refused(_said(code, message))
    return tuple(Label(one.description, one.score) for one in response.label_annotations)


def _translated(error: api.GoogleAPICallError) -> Exception:
    """What an error of a whole request means for the run."""
    status = error.grpc_status_code
    code = status.value[0] if status is not None else code_pb2.UNKNOWN
    said = _said(code, str(error.message))
    if "Getting metadata from plugin failed" in said:
        return LabelerError(f"{PLACE}: credentials refused ({said}); {CREDENTIALS}")
    if code in _TRANSIENT:
        return Busy(said, _wait_s(error))
    if code == code_pb2.INVALID_ARGUMENT:
        return Refused(said)
    cure = _CURES.get(code, "expected an answer; look the code up in Google's documentation")
    return LabelerError(f"{PLACE}: {said}; {cure}")


def _wait_s(error: api.GoogleAPICallError) -> float | None:
    """How long the service asks to be left alone."""
    for detail in error.details or ():
        if isinstance(detail, error_details_pb2.RetryInfo):
            return float(detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9)
    return None


def _said(code: int, message: str) -> str:
    name = code_pb2.Code.Name(code) if code in code_pb2.Code.values() else f"code {code}"
    return f"{name}: {message}" if message else name
