"""S3: a real protocol server (moto) for what works, a server that fails on purpose for the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.sax.saxutils import escape

import boto3
import pytest

from vistadex.errors import (
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
    UsageError,
)
from vistadex.records import Failure, ImageEntry
from vistadex.sources import Source, open_source, read_images
from vistadex.sources.retrying import ATTEMPTS
from vistadex.sources.s3 import S3Source

VIDEO = b"\0\0\0\x18ftypisom".ljust(64, b"\0")
JPEG = b"\xff\xd8\xff\xe0" + b"x" * 96
SECRET = "s3cr3t-k3y-of-the-test"
KEYS = [
    "a.jpg",
    "A.jpg",
    "a b.jpg",
    "a+b.jpg",
    "100%.jpg",
    "%20.jpg",
    "a#b?c=d&e.jpg",
    "[x]{y}|z^.jpg",
    'it\'s "q".jpg',
    "back\\slash.jpg",
    "~*!().jpg",
    "é.jpg",
    "e\u0301.jpg",
    "日本/写真.jpg",
    "\U0001f600.jpg",
    "\uffee.jpg",
    " lead.jpg",
    "trail ",
    "tab\t.jpg",
    "control\x01.jpg",
    "double//slash.jpg",
    "/slash-first.jpg",
    "./dot.jpg",
    "up/../dots.jpg",
    "sub/deep/er.jpg",
]


@pytest.fixture(scope="module")
def bucket(s3_server: str) -> str:
    client = boto3.client(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id="AKTEST",
        aws_secret_access_key=SECRET,
    )
    client.create_bucket(Bucket="photos")
    for key in KEYS:
        client.put_object(Bucket="photos", Key=f"odd/{key}", Body=JPEG + key.encode())
    for key in ("odd/", "odd/sub/", "odder/x.jpg", "odd.jpg"):
        client.put_object(Bucket="photos", Key=key, Body=b"")
    for i in range(1005):
        client.put_object(Bucket="photos", Key=f"many/{i:04}.jpg", Body=JPEG)
    return "photos"


def keys(source: Source, after: str | None = None) -> list[str]:
    return [entry.key for page in source.pages(after) for entry in page]


# Against moto


@pytest.mark.usefixtures("aws")
def test_every_key_is_listed_in_order_and_read_back(bucket: str) -> None:
    source = open_source(f"s3://{bucket}/odd")
    entries = [entry for page in source.pages() for entry in page]
    assert [entry.key for entry in entries] == sorted(KEYS)
    for entry in entries:
        content = source.read(entry.key)
        assert content.data == JPEG + entry.key.encode()
        assert (len(content.data), content.version) == (entry.size_bytes, entry.version)
        assert source.read_start(entry.key, 3) == JPEG[:3]


@pytest.mark.usefixtures("aws")
def test_pages_stream_and_go_on_after_any_key(bucket: str) -> None:
    source = open_source(f"s3://{bucket}/many")
    assert [len(page) for page in source.pages()] == [1000, 5]
    everything = keys(source)
    assert keys(source, everything[2]) == everything[3:]
    assert keys(source, "05x") == [key for key in everything if key > "05x"]
    odd = open_source(f"s3://{bucket}/odd")
    for key in set(KEYS) - {"control\x01.jpg"}:  # moto repeats it in XML, where it can't stand
        assert keys(odd, key) == [other for other in sorted(KEYS) if other > key]


@pytest.mark.usefixtures("aws")
def test_images_of_a_bucket_are_read_ahead_in_order(bucket: str) -> None:
    source = open_source(f"s3://{bucket}/many/")
    entries = next(source.pages())[:200]
    results = list(read_images(source, entries))
    assert [entry for entry, _ in results] == entries
    assert all(data == JPEG for _, data in results)


@pytest.mark.usefixtures("aws")
def test_a_bucket_has_one_uri_however_it_is_written(bucket: str) -> None:
    for written in ("s3://photos/odd", "s3://photos/odd/", "s3a://photos/odd", "S3://photos/odd"):
        assert open_source(written).uri == "s3://photos/odd"
    assert open_source("s3://photos").uri == open_source("s3://photos/").uri == "s3://photos"
    assert open_source("s3://photos/odd/").image_uri("a b.jpg") == "s3://photos/odd/a b.jpg"
    assert "odd/a.jpg" in keys(open_source(f"s3://{bucket}"))


@pytest.mark.usefixtures("aws")
def test_a_prefix_without_keys_is_empty(bucket: str) -> None:
    assert list(open_source(f"s3://{bucket}/none").pages()) == []


@pytest.mark.usefixtures("aws", "bucket")
def test_a_wrong_bucket_and_a_wrong_key_are_missing() -> None:
    source = open_source("s3://no-such-bucket/x")
    for ask in (lambda: list(source.pages()), lambda: source.read("k")):
        with pytest.raises(SourceMissingError, match=r"no bucket 'no-such-bucket'.*check its name"):
            ask()
    with pytest.raises(SourceMissingError, match="s3://photos/none: there is no such key"):
        open_source("s3://photos").read("none")
    with pytest.raises(SourceMissingError, match="no such key"):
        open_source("s3://photos").read_start("no//ne", 9)


def test_a_file_in_a_bucket_that_is_not_there_names_the_bucket(aws: pytest.MonkeyPatch) -> None:
    source = S3Source("s3://no-such-bucket")
    for ask in (source.stat, source.read):
        with pytest.raises(SourceMissingError, match=r"no bucket 'no-such-bucket'.*check its name"):
            ask("x.zip")


@pytest.mark.usefixtures("aws")
def test_a_key_that_is_not_there_is_said_to_be_missing(bucket: str) -> None:
    source = S3Source(f"s3://{bucket}")
    for ask in (source.stat, source.read):
        with pytest.raises(SourceMissingError, match=r"none\.zip: there is no such key"):
            ask("none.zip")


def test_a_profile_of_the_config_files_is_used(
    aws: pytest.MonkeyPatch, bucket: str, s3_server: str, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(f"[profile work]\nregion = us-west-2\nendpoint_url = {s3_server}\n")
    credentials = tmp_path / "credentials"
    credentials.write_text(f"[work]\naws_access_key_id = WORK\naws_secret_access_key = {SECRET}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
        aws.delenv(name)
    aws.setenv("AWS_CONFIG_FILE", str(config))
    aws.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    aws.setenv("AWS_PROFILE", "work")
    source = open_source(f"s3://{bucket}/odd")
    assert len(keys(source)) == len(KEYS)
    assert source.read("a.jpg").data.startswith(JPEG)
    aws.setenv("AWS_PROFILE", "play")
    with pytest.raises(UsageError, match=r"play.*AWS_PROFILE"):
        list(open_source(f"s3://{bucket}").pages())


def test_the_endpoint_of_s3_goes_before_that_of_all_services(
    aws: pytest.MonkeyPatch, bucket: str, s3_server: str
) -> None:
    aws.setenv("AWS_ENDPOINT_URL_S3", s3_server)
    aws.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    source = open_source(f"s3://{bucket}/odd")
    assert source.read(keys(source)[0])


# Against a server that fails on purpose


@dataclass
class Faulty:
    """An S3 server that answers what the test lines up, and keeps what it was asked."""

    answers: list[str] = field(default_factory=list)
    """What to do with the next requests; after them everything is well."""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    endpoint: str = ""

    def handler(self) -> type[BaseHTTPRequestHandler]:
        faulty = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                faulty.requests.append((self.path, dict(self.headers)))
                faulty.answer(self, faulty.answers.pop(0) if faulty.answers else "well")

        return Handler

    def answer(self, request: BaseHTTPRequestHandler, how: str) -> None:
        listing = "list-type" in request.path
        body = LISTING if listing else JPEG
        if how == "reset":
            request.close_connection = True
            return
        if how in ("half", "stall"):
            reply(request, 200, body, half=True)
            time.sleep(3 if how == "stall" else 0)
            request.close_connection = True
        elif how == "html":
            reply(request, 200, b"<html><p>It works!</p></html>")
        elif how == "video":
            reply(request, 206, VIDEO, **{"Content-Range": f"bytes 0-63/{4 * 2**30}"})
        elif how == "well":
            reply(request, 200, body)
        else:
            status, _, code = how.partition(" ")
            extra = {"x-amz-bucket-region": "eu-west-1"} if code == "Region" else {}
            reply(request, int(status), error_xml(code), **extra)


def error_xml(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{escape(code)}</Code></Error>".encode()


def reply(
    request: BaseHTTPRequestHandler, status: int, body: bytes, half: bool = False, **extra: str
) -> None:
    request.send_response(status)
    headers = {"ETag": '"v1"', "Last-Modified": "Fri, 20 Nov 2026 12:00:00 GMT", **extra}
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body[: len(body) // 2] if half else body)
    request.wfile.flush()


LISTING = (
    b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Contents>'
    b"<Key>a.jpg</Key><ETag>&quot;v1&quot;</ETag><Size>100</Size></Contents></ListBucketResult>"
)


@pytest.fixture
def faulty(aws: pytest.MonkeyPatch) -> Iterator[Faulty]:
    faulty = Faulty()
    server = ThreadingHTTPServer(("127.0.0.1", 0), faulty.handler())
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    faulty.endpoint = f"http://127.0.0.1:{server.server_port}"
    aws.setenv("AWS_ENDPOINT_URL", faulty.endpoint)
    aws.setattr("vistadex.sources.retrying.FIRST_WAIT_S", 0.01)
    yield faulty
    server.shutdown()
    thread.join()
    server.server_close()


class Impatient(S3Source):
    """Waits for a silent store less long than users do."""

    read_timeout_s = 0.5


ENTRY = ImageEntry("a.jpg", 100, "v1")
TRANSIENT = ["503 SlowDown", "500 InternalError", "429 TooManyRequests", "reset", "half", "stall"]


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_listing_survives_what_passes(faulty: Faulty, fault: str) -> None:
    faulty.answers = [fault, fault]
    assert list(Impatient("s3://bucket").pages()) == [[ENTRY]]
    assert len(faulty.requests) == 3


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_read_survives_what_passes(faulty: Faulty, fault: str) -> None:
    faulty.answers = [fault, fault]
    assert list(read_images(Impatient("s3://bucket"), [ENTRY])) == [(ENTRY, JPEG)]
    assert len(faulty.requests) == 3


def test_a_store_that_stays_down_is_unavailable_and_a_reason(faulty: Faulty) -> None:
    faulty.answers = ["503 SlowDown"] * 99
    with pytest.raises(SourceUnavailableError, match=r"s3://bucket: no answer .*503 SlowDown"):
        list(open_source("s3://bucket").pages())
    assert len(faulty.requests) == ATTEMPTS
    ((_, failure),) = read_images(open_source("s3://bucket"), [ENTRY])
    assert isinstance(failure, Failure)
    assert failure.reason == "unreadable"
    assert "503 SlowDown" in failure.message
    assert len(faulty.requests) == 2 * ATTEMPTS


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://nowhere.invalid"])
def test_no_server_at_the_endpoint_says_so(aws: pytest.MonkeyPatch, endpoint: str) -> None:
    aws.setattr("vistadex.sources.retrying.FIRST_WAIT_S", 0.01)
    aws.setenv("AWS_ENDPOINT_URL", endpoint)
    source = open_source("s3://bucket")
    for ask in (lambda: list(source.pages()), lambda: source.read("k")):
        with pytest.raises(SourceUnavailableError, match=f"{endpoint}.*AWS_ENDPOINT_URL"):
            ask()


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        ("ExpiredToken", "renew"),
        ("AccessDenied", "s3:ListBucket"),
    ],
)
def test_refused_credentials_say_what_to_do(faulty: Faulty, code: str, advice: str) -> None:
    source = open_source("s3://bucket/p")
    for ask in (lambda: list(source.pages()), lambda: source.read("k"), lambda: source.read("/k")):
        faulty.answers = [f"403 {code}"]
        with pytest.raises(SourceDeniedError, match=advice) as caught:
            ask()
        assert str(caught.value).startswith("s3://bucket")
        assert SECRET not in str(caught.value) + repr(caught.value.__cause__)
    assert len(faulty.requests) == 3


def test_without_credentials_requests_are_unsigned_and_a_refusal_says_how(
    faulty: Faulty, aws: pytest.MonkeyPatch
) -> None:
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    source = open_source("s3://bucket")
    assert keys(source) == ["a.jpg"]
    assert source.read("a.jpg").data == JPEG
    assert all("Authorization" not in headers for _, headers in faulty.requests)
    for ask in (lambda: list(source.pages()), lambda: source.read("k")):
        faulty.answers = ["403 AccessDenied"]
        with pytest.raises(SourceDeniedError, match="no credentials were found; set AWS_PROFILE"):
            ask()


def test_with_credentials_requests_are_signed_for_their_region(
    faulty: Faulty, aws: pytest.MonkeyPatch
) -> None:
    aws.setenv("AWS_SESSION_TOKEN", "token")
    for name, region in (("AWS_DEFAULT_REGION", "eu-north-1"), ("AWS_REGION", "eu-west-3")):
        aws.delenv("AWS_REGION", raising=False)
        aws.setenv(name, region)
        source = open_source("s3://bucket/p")
        keys(source)
        source.read("a.jpg")
        for path, headers in faulty.requests[-2:]:
            sent = {name.lower(): value for name, value in headers.items()}
            assert f"AKTEST/{time.strftime('%Y', time.gmtime())}" in sent["authorization"]
            assert f"/{region}/s3/aws4_request" in sent["authorization"]
            assert sent["x-amz-security-token"] == "token"
            assert path.startswith("/bucket")
            assert SECRET not in str(headers)


def test_a_bucket_in_another_region_names_the_region(faulty: Faulty) -> None:
    source = open_source("s3://bucket")
    for status in ("301", "400"):
        faulty.answers = [f"{status} Region"]
        with pytest.raises(SourceError, match="set AWS_REGION=eu-west-1"):
            list(source.pages())
    faulty.answers = ["301 Region"]
    with pytest.raises(SourceError, match="AWS_REGION"):
        source.read("k")


def test_a_server_that_is_no_s3_is_told_apart(faulty: Faulty) -> None:
    faulty.answers = ["html"]
    with pytest.raises(SourceError, match=r"does not list buckets.*AWS_ENDPOINT_URL"):
        list(open_source("s3://bucket").pages())


def test_of_a_file_not_named_as_a_picture_only_the_start_is_asked(faulty: Faulty) -> None:
    source = open_source("s3://bucket")
    faulty.answers = ["video"]
    ((_, outcome),) = read_images(source, [ImageEntry("video.mp4", 4 * 2**30, "v")])
    assert isinstance(outcome, Failure)
    assert outcome.reason == "not_an_image"
    ((_, headers),) = faulty.requests
    ranges = [value for name, value in headers.items() if name.lower() == "range"]
    assert ranges == ["bytes=0-63"]


def test_credentials_that_can_not_be_renewed_are_a_refusal(
    faulty: Faulty, aws: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("[default]\ncredential_process = /bin/false\n")
    aws.setenv("AWS_CONFIG_FILE", str(config))
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    source = open_source("s3://bucket")
    for ask in (lambda: list(source.pages()), lambda: source.read("k")):
        with pytest.raises(SourceDeniedError, match="credentials"):
            ask()
    assert faulty.requests == []


def test_a_uri_with_keys_in_it_is_refused_without_repeating_them() -> None:
    with pytest.raises(UsageError) as caught:
        open_source(f"s3://AK:{SECRET}@bucket/p")
    assert SECRET not in str(caught.value)
