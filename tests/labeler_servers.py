"""Servers on loopback that speak the protocols of labeling services, with scripted answers."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import google.cloud.vision_v1 as vision
import grpc
import numpy as np
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

METHOD = "BatchAnnotateImages"


class Fault(Exception):
    """A scripted failure of a whole request: gRPC code or AWS error code, and what else is said."""

    def __init__(
        self,
        code: int | str,
        message: str = "scripted",
        *,
        retry_after_s: int | None = None,
        status: int = 400,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.status = status


Step = Fault | float | Callable[[bytes], Any]
"""A failure; seconds to sleep before an answer; or the answer to each picture."""


class Script:
    """What a server answers to one request after the other, and what it got."""

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self.steps = list(steps)
        self.requests: list[list[bytes]] = []
        self.raw: list[Any] = []
        self.times: list[float] = []
        self._lock = threading.Lock()

    @property
    def pictures(self) -> int:
        """Pictures received in all."""
        return sum(map(len, self.requests))

    def next(self, pictures: list[bytes], raw: Any) -> Callable[[bytes], Any] | None:
        """How this request's pictures are answered; None: as usual."""
        with self._lock:
            self.requests.append(pictures)
            self.raw.append(raw)
            self.times.append(time.monotonic())
            step = self.steps.pop(0) if self.steps else None
        if isinstance(step, Fault):
            raise step
        if isinstance(step, float):
            time.sleep(step)
            return None
        return step


def main_color(jpeg: bytes) -> str:
    """What a server sees in a picture: which of three colors has most."""
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    return ("Red", "Green", "Blue")[int(pixels.reshape(-1, 3).mean(axis=0).argmax())]


def size_of(jpeg: bytes) -> tuple[int, int]:
    """Width and height of what a server got; a JPEG, or it is an error."""
    assert jpeg[:3] == b"\xff\xd8\xff"
    height, width = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    return width, height


def annotations(**scores: float) -> vision.AnnotateImageResponse:
    """Vision's answer to one picture."""
    return vision.AnnotateImageResponse(
        label_annotations=[
            vision.EntityAnnotation(description=name, score=score) for name, score in scores.items()
        ]
    )


def image_error(code: int, message: str = "Bad image data.") -> vision.AnnotateImageResponse:
    """Vision's answer to one picture that it does not take."""
    return vision.AnnotateImageResponse(error=status_pb2.Status(code=code, message=message))


@contextmanager
def vision_server(script: Script) -> Iterator[str]:
    """The address of a server with Vision's service; its usual answer is the main color."""

    def annotate(
        request: vision.BatchAnnotateImagesRequest, context: grpc.ServicerContext
    ) -> vision.BatchAnnotateImagesResponse:
        try:
            answer = script.next([one.image.content for one in request.requests], request)
        except Fault as fault:
            context.abort_with_status(rpc_status.to_status(_status(fault)))
        usual = answer or (lambda jpeg: annotations(**{main_color(jpeg): 0.9, "Picture": 0.6}))
        answers = [usual(one.image.content) for one in request.requests]
        return vision.BatchAnnotateImagesResponse(
            responses=[one for one in answers if one is not None]
        )

    handler = grpc.unary_unary_rpc_method_handler(
        annotate,
        request_deserializer=vision.BatchAnnotateImagesRequest.deserialize,
        response_serializer=vision.BatchAnnotateImagesResponse.serialize,
    )
    most = ("grpc.max_receive_message_length", 10_000_000)
    server = grpc.server(ThreadPoolExecutor(8), options=[most])
    service = "google.cloud.vision.v1.ImageAnnotator"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {METHOD: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def _status(fault: Fault) -> status_pb2.Status:
    status = status_pb2.Status(code=fault.code, message=fault.message)
    if fault.retry_after_s is not None:
        delay = duration_pb2.Duration(seconds=fault.retry_after_s)
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        status.details.append(detail)
    return status


def labels(*found: tuple[str, float], box: tuple[float, ...] = ()) -> list[dict[str, Any]]:
    """Rekognition's answer to one picture; the first label is seen in the box."""
    rows: list[dict[str, Any]] = [
        {"Name": name, "Confidence": 100 * score, "Instances": [], "Parents": []}
        for name, score in found
    ]
    if box:
        left, top, width, height = box
        corners = {"Left": left, "Top": top, "Width": width, "Height": height}
        rows[0]["Instances"] = [{"BoundingBox": corners, "Confidence": 95.0}]
    return rows


@contextmanager
def rekognition_server(script: Script) -> Iterator[str]:
    """The address of a server that speaks JSON 1.1 as Rekognition does."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers["X-Amz-Target"] == "RekognitionService.DetectLabels"
            assert "Credential=" in self.headers["Authorization"]
            jpeg = b64decode(body["Image"]["Bytes"])
            try:
                answer = script.next([jpeg], body) or (
                    lambda jpeg: labels((main_color(jpeg), 0.9), ("Picture", 0.6))
                )
            except Fault as fault:
                text = {"__type": fault.code, "message": fault.message}
                self._send(fault.status, text, fault.retry_after_s)
                return
            self._send(200, {"Labels": answer(jpeg), "LabelModelVersion": "3.0"})

        def _send(self, status: int, answer: Any, retry_after_s: int | None = None) -> None:
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(data)))
            if retry_after_s is not None:
                self.send_header("Retry-After", str(retry_after_s))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
