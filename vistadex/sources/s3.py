"""A bucket of S3, or of any store that speaks its protocol, as a source.

Objects are read by obstore. The listing is a signed request of our own: obstore gives up a whole
listing at the first key that it can't name (`a//b.jpg`, a control character), and shows the marker
of a folder, `a/`, as an empty file `a`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus
from xml.etree import ElementTree

import obstore.exceptions
from obstore.store import S3Store

from vistadex.errors import SourceError, SourceMissingError, UsageError
from vistadex.records import ImageEntry
from vistadex.sources.aws import CONNECT_TIMEOUT_S, Access
from vistadex.sources.contract import (
    CHUNK_BYTES,
    PAGE_SIZE,
    Content,
    Target,
    check_size,
    part_bytes,
)
from vistadex.sources.retrying import with_retries

if TYPE_CHECKING:
    from obstore.store import ClientConfig

_UNNAMEABLE = re.compile(r"(^|/)(\.\.?)?(/|$)|[\x00-\x1f\x7f]")
"""Keys that obstore refuses, or would quietly take for another key."""


class S3Source(Target):
    """The objects below `s3://bucket/prefix`. Nothing is asked of the store until the first use."""

    read_ahead = 8
    read_timeout_s: float = 30
    """How long a store may send nothing."""

    def __init__(self, uri: str) -> None:
        """A bucket with or without a prefix; `s3a://` is the same.

        Raises: UsageError where the URI names no bucket.
        """
        bucket, _, prefix = uri.partition("://")[2].partition("/")
        if "@" in bucket:
            raise UsageError("s3://…@…: keys don't belong in an address; set AWS_ACCESS_KEY_ID")
        if not bucket:
            raise UsageError(f"{uri!r} names no bucket; write s3://bucket/prefix")
        self._bucket = bucket
        self._prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        self.uri = f"s3://{bucket}/{self._prefix}".rstrip("/")
        self._lock = threading.Lock()
        self._reached: tuple[Access, S3Store] | None = None

    def pages(self, after: str | None = None) -> Iterator[list[ImageEntry]]:
        """See Source. Markers of folders (keys that end in "/") are left out."""
        access, _ = self._reach()
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(PAGE_SIZE)}
        query["prefix"] = self._prefix
        if after:
            query["start-after"] = self._prefix + after
        while True:
            listing = with_retries(lambda: self._ask(access, query))
            if page := list(self._entries(listing)):
                yield page
            token = listing.findtext("NextContinuationToken")
            if not token or listing.findtext("IsTruncated") != "true":
                return
            query["continuation-token"] = token

    def read(self, key: str) -> Content:
        """See Source; the version is the ETag."""
        return self._got(key, None)

    def read_within(self, key: str, max_bytes: int) -> Content:
        """See Source: one request, whose body is only taken where it is no larger."""
        return self._got(key, max_bytes)

    def _got(self, key: str, max_bytes: int | None) -> Content:
        access, store = self._reach()
        name = self._prefix + key
        if _UNNAMEABLE.search(name):
            answer = access.get(name)
            return Content(answer.body, _version(answer.headers.get("ETag"), len(answer.body)))
        try:
            result = store.get(name)
            check_size(self.image_uri(key), result.meta["size"], max_bytes)
            data = bytes(result.bytes())
            return Content(data, _version(result.meta["e_tag"], len(data)))
        except (obstore.exceptions.BaseError, FileNotFoundError) as error:
            raise self._error(access, key, error) from error

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """See Source; asks the store for no more than these bytes."""
        if stop <= start:
            return b""
        access, store = self._reach()
        name = self._prefix + key
        if _UNNAMEABLE.search(name):
            return access.get(name, byte_range=f"bytes={start}-{stop - 1}").body
        try:
            return bytes(store.get_range(name, start=start, end=stop))
        except (obstore.exceptions.BaseError, FileNotFoundError) as error:
            raise self._error(access, key, error) from error

    def chunks(self, key: str) -> Iterator[bytes]:
        """See Source: one request, whose answer is taken as it comes."""
        access, store = self._reach()
        name = self._prefix + key
        if _UNNAMEABLE.search(name):
            yield access.get(name).body
            return
        try:
            for chunk in store.get(name).stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self._error(access, key, error) from error

    def write(self, key: str, chunks: Iterable[bytes], size_bytes: int) -> None:
        """See Target. The store checks each part by its SHA-256; large files go in parts."""
        access, store = self._reach()
        name = self._prefix + key
        if _UNNAMEABLE.search(name):
            access.put(name, b"".join(chunks))
            return
        try:
            if size_bytes <= CHUNK_BYTES:
                store.put(name, b"".join(chunks), use_multipart=False)
            else:
                store.put(
                    name,
                    iter(chunks),
                    use_multipart=True,
                    chunk_size=part_bytes(size_bytes),
                    max_concurrency=2,
                )
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self._error(access, key, error) from error

    def stat(self, key: str) -> ImageEntry:
        """See Source."""
        access, store = self._reach()
        name = self._prefix + key
        if _UNNAMEABLE.search(name):
            answer = access.get(name)
            etag, size = answer.headers.get("ETag"), len(answer.body)
            return ImageEntry(key, size, _version(etag, size))
        try:
            meta = store.head(name)
            return ImageEntry(key, meta["size"], _version(meta["e_tag"], meta["size"]))
        except FileNotFoundError as error:
            # An answer to HEAD has no body; that to GET says whether there is such a bucket.
            access.get(name, byte_range="bytes=0-0")
            raise self._error(access, key, error) from error
        except obstore.exceptions.BaseError as error:
            raise self._error(access, key, error) from error

    def _reach(self) -> tuple[Access, S3Store]:
        """The bucket's settings and obstore's client, found at the first use."""
        with self._lock:
            if self._reached is None:
                access = Access(self._bucket, self.read_timeout_s)
                self._reached = access, _open_store(access, self.read_timeout_s)
            return self._reached

    def _ask(self, access: Access, query: dict[str, str]) -> ElementTree.Element:
        """One page of the listing, as the store's XML without its namespace."""
        body = access.get("", query).body
        try:
            listing = ElementTree.fromstring(re.sub(rb'\sxmlns="[^"]*"', b"", body, count=1))
        except ElementTree.ParseError as error:
            raise access.unavailable(self.uri, "its answer is cut off or no XML") from error
        if listing.tag != "ListBucketResult":
            what = f"{access.endpoint} does not list buckets as S3 does"
            raise SourceError(f"{self.uri}: {what}; check AWS_ENDPOINT_URL")
        return listing

    def _entries(self, listing: ElementTree.Element) -> Iterator[ImageEntry]:
        encoded = listing.findtext("EncodingType") == "url"
        for item in listing.iterfind("Contents"):
            name = item.findtext("Key", "")
            key = (unquote_plus(name) if encoded else name)[len(self._prefix) :]
            if key and not key.endswith("/"):
                size = int(item.findtext("Size", "0"))
                yield ImageEntry(key, size, _version(item.findtext("ETag"), size))

    def _error(self, access: Access, key: str, error: Exception) -> SourceError:
        """obstore's error as ours. Of its text only the answer's status and code are used."""
        place, text = self.image_uri(key), str(error).partition("Debug source:")[0]
        if status := re.search(r"status code: (\d{3})", text):
            return access.refusal(place, int(status[1]), text)
        if isinstance(error, FileNotFoundError):
            return SourceMissingError(f"{place}: there is no such key")
        if isinstance(error, obstore.exceptions.UnauthenticatedError):
            return access.refusal(place, 401, text)
        if "redirect" in text:
            return SourceError(f"{place}: the bucket is in another region; set AWS_REGION to it")
        return access.unavailable(place, text.strip().rpartition(": ")[2] or "broke off")


def _open_store(access: Access, read_timeout_s: float) -> S3Store:
    options: ClientConfig = {
        "allow_http": access.endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "read_timeout": timedelta(seconds=read_timeout_s),
        # A large file over a slow line may take long, as long as something keeps coming.
        "timeout": timedelta(hours=1),
    }
    if access.ca_bundle:
        options["root_certificate"] = Path(access.ca_bundle).read_bytes()
    return S3Store(
        access.bucket,
        endpoint=access.endpoint,
        region=access.region,
        virtual_hosted_style_request=False,
        checksum_algorithm="SHA256",
        client_options=options,
        # with_retries tries again; obstore's own attempts would multiply with its.
        retry_config={"max_retries": 0, "retry_timeout": timedelta(minutes=1)},
        credential_provider=access.provide if access.credentials is not None else None,
        skip_signature=access.credentials is None,
    )


def _version(etag: str | None, size_bytes: int) -> str:
    """The ETag without its quotes; the size where a store has none."""
    return etag.strip('"') if etag else str(size_bytes)
