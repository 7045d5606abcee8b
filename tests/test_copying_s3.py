"""Copying into a bucket that refuses, slows down or breaks off."""

import base64
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import vistadex
from vistadex.testing import MemorySource

EMPTY = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


@dataclass
class Bucket:
    """An S3 server that keeps what is put there, after the failures that a test lines up."""

    failures: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    checked: list[bool] = field(default_factory=list)
    """Whether each upload's SHA-256 was stated and right."""

    def put(self, request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        stated = request.headers.get("x-amz-checksum-sha256", "")
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        self.checked.append(stated == digest)
        how = self.failures.pop(0) if self.failures else ""
        if how:
            status, _, code = how.partition(" ")
            return int(status), f"<Error><Code>{code}</Code></Error>".encode()
        self.objects[request.path] = body
        return 200, b""

    def get(self, request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        if "list-type" in request.path:
            return 200, EMPTY
        if request.path not in self.objects:
            return 404, b"<Error><Code>NoSuchKey</Code></Error>"
        return 200, self.objects[request.path]

    def handler(self) -> type[BaseHTTPRequestHandler]:
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_PUT(self) -> None:
                self.answer(*bucket.put(self))

            def do_GET(self) -> None:
                self.answer(*bucket.get(self))

            def do_HEAD(self) -> None:
                self.answer(*bucket.get(self))

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                digest = hashlib.md5(bucket.objects.get(self.path, b"")).hexdigest()
                self.send_header("ETag", f'"{digest}"')
                self.send_header("Last-Modified", "Fri, 20 Nov 2026 12:00:00 GMT")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        return Handler


@pytest.fixture
def bucket(aws: pytest.MonkeyPatch) -> Iterator[Bucket]:
    bucket = Bucket()
    server = ThreadingHTTPServer(("127.0.0.1", 0), bucket.handler())
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    aws.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    aws.setattr("vistadex.sources.retrying.FIRST_WAIT_S", 0.001)
    yield bucket
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def source() -> str:
    return MemorySource.create("for-s3", {"a.jpg": b"data", "odd//b.jpg": b"more"}).uri


def test_uploads_carry_a_checksum_that_the_store_can_check(bucket: Bucket, source: str) -> None:
    assert vistadex.copy(source, "s3://x", threads=1).copied == 2
    assert bucket.objects == {"/x/a.jpg": b"data", "/x/odd//b.jpg": b"more"}
    assert bucket.checked == [True, True]


@pytest.mark.parametrize("failure", ["503 SlowDown", "500 InternalError"])
def test_a_store_that_slows_down_is_asked_again(failure: str, bucket: Bucket, source: str) -> None:
    bucket.failures = [failure, failure]
    done = vistadex.copy(source, "s3://x", threads=1)
    assert (done.copied, done.failed) == (2, 0)
    assert len(bucket.checked) == 4


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        ("403 AccessDenied", "access denied.*s3:PutObject"),
        ("403 SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        ("403 ExpiredToken", "have expired"),
        ("503 SlowDown", "status 503"),
    ],
)
def test_a_store_that_keeps_refusing_is_a_failure_with_its_cure(
    failure: str, why: str, bucket: Bucket, source: str
) -> None:
    import re

    bucket.failures = [failure] * 100
    done = vistadex.copy(source, "s3://x", threads=1)
    assert (done.copied, done.failed) == (0, 2)
    assert bucket.objects == {}
    assert all(re.search(why, message) for message in done.failures.values())
