"""Google Cloud Storage and Azure Blob Storage as sources, through obstore.

obstore finds the credentials, and lists and reads. Unlike S3 these stores are listed by obstore
too: requests of our own would need its credentials, which it does not give out.
"""

from __future__ import annotations

import re
import threading
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore.exceptions
from obstore.store import AzureStore, GCSStore

from vistadex.errors import (
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
    UsageError,
)
from vistadex.records import ImageEntry
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
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

CONNECT_TIMEOUT_S = 5

_UNNAMEABLE = re.compile(r"(^|/)(\.\.?)?(/|$)|[\x00-\x1f\x7f]")
"""Keys that obstore refuses, or would quietly take for another key."""
_STATUS = re.compile(r"status code: (\d{3})")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|ContainerBeingDeleted")
_FOREIGN_ERRORS = (obstore.exceptions.BaseError, OSError)


class ObjectSource(Target):
    """The objects below `scheme://bucket/prefix`. Nothing is asked before the first use."""

    scheme: str
    bucket_word: str
    """What the store calls a bucket."""
    cure: str
    """How to give credentials."""
    read_ahead = 8
    read_timeout_s: float = 30
    """How long a store may send nothing."""

    def __init__(self, uri: str) -> None:
        """A bucket with or without a prefix.

        Raises: UsageError where the URI names no bucket, or a prefix that can't be asked for.
        """
        bucket, _, prefix = uri.partition("://")[2].partition("/")
        if "@" in bucket:
            raise UsageError(f"{self.scheme}://…@…: keys don't belong in an address; {self.cure}")
        if not bucket:
            word = self.bucket_word
            raise UsageError(f"{uri!r} names no {word}; write {self.scheme}://{word}/prefix")
        self._bucket = bucket
        self._prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        self.uri = f"{self.scheme}://{bucket}/{self._prefix}".rstrip("/")
        if self._prefix and _UNNAMEABLE.search(self._prefix.rstrip("/")):
            raise UsageError(f"{self.uri}: {_CANT_NAME}; rename it at the store")
        self._lock = threading.Lock()
        self._reached: GCSStore | AzureStore | None = None

    @abstractmethod
    def _connect(self, client: ClientConfig, retries: RetryConfig) -> GCSStore | AzureStore:
        """obstore's client; the settings come from the environment."""

    def pages(self, after: str | None = None) -> Iterator[list[ImageEntry]]:
        """See Source. Markers of folders (keys that end in "/") are left out: obstore lists `a/` as
        an empty `a`, which can't be asked for, or comes a second time.

        Raises: SourceError also at a key that obstore can't name, as it then lists nothing more.
        """
        last = after or ""
        listing = _Listing(self, after)
        while (entries := with_retries(listing.step)) is not None:
            page: list[ImageEntry] = []
            for entry in entries:
                if entry.size_bytes or (entry.key > last and not self._is_marker(entry.key)):
                    page.append(entry)
                    last = entry.key
            if page:
                yield page

    def read(self, key: str) -> Content:
        """See Source; the version is the ETag."""
        return self._got(key, None)

    def read_within(self, key: str, max_bytes: int) -> Content:
        """See Source: one request, whose body is only taken where it is no larger."""
        return self._got(key, max_bytes)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """See Source; asks the store for no more than these bytes."""
        if stop <= start:
            return b""
        with self._asking(key) as (store, name):
            return bytes(store.get_range(name, start=start, end=stop))

    def chunks(self, key: str) -> Iterator[bytes]:
        """See Source: one request, whose answer is taken as it comes."""
        with self._asking(key) as (store, name):
            for chunk in store.get(name).stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    def stat(self, key: str) -> ImageEntry:
        """See Source."""
        try:
            with self._asking(key) as (store, name):
                meta = store.head(name)
        except SourceMissingError:
            # An answer to HEAD has no body; that to GET says whether there is such a bucket.
            self.read_range(key, 0, 1)
            raise
        return ImageEntry(key, meta["size"], _version(meta))

    def write(self, key: str, chunks: Iterable[bytes], size_bytes: int) -> None:
        """See Target; large files go in parts."""
        with self._asking(key) as (store, name):
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

    def listing(self, after: str) -> Iterator[list[ImageEntry]]:
        """obstore's listing of what comes after a key, markers of folders included."""
        offset = self._prefix + after if after else None
        if offset and _UNNAMEABLE.search(offset):
            offset = None  # what is too much is left out below
        prefix = self._prefix.rstrip("/") or None
        for metas in self._reach().list(prefix, offset=offset, chunk_size=PAGE_SIZE):
            keyed = ((meta["path"][len(self._prefix) :], meta) for meta in metas)
            yield [
                ImageEntry(key, meta["size"], _version(meta)) for key, meta in keyed if key > after
            ]

    def error(self, place: str, error: Exception) -> SourceError:
        """obstore's error as ours. Of its text only what is of use to the user is shown."""
        text = str(error).partition("Debug source:")[0].strip()
        if isinstance(error, obstore.exceptions.InvalidPathError):
            found = re.search(r'[Pp]ath "(.*?)"(?: contained|:)', text, re.DOTALL)
            key = repr(found[1]) if found else "a key"
            return SourceError(
                f"{self.uri}: {key}: {_CANT_NAME}, which ends the listing; rename it at the store, "
                "or index the folders beside it one by one"
            )
        match = _STATUS.search(text)
        status = int(match[1]) if match else 0
        if status >= 500 or status in (408, 429):
            return self._unavailable(place, f"status {status}")
        if "token request" in text:
            return SourceDeniedError(f"{place}: no credentials were found that work; {self.cure}")
        if status in (401, 403) or isinstance(error, _REFUSALS):
            return SourceDeniedError(f"{place}: access denied; {self.cure}")
        if _NO_BUCKET.search(text):
            what = f"there is no {self.bucket_word} {self._bucket!r}"
            return SourceMissingError(f"{self.uri}: {what}; check its name and the account")
        if status == 404 or isinstance(error, FileNotFoundError):
            return SourceMissingError(f"{place}: there is no such key")
        if status:
            code = re.search("<Code>([^<]*)</Code>", text)
            said = f"status {status} {code[1] if code else ''}".rstrip()
            return SourceError(f"{place}: the store answered with {said}; check the address")
        return self._unavailable(place, text.splitlines()[0].rpartition(": ")[2] or "broke off")

    def _got(self, key: str, max_bytes: int | None) -> Content:
        with self._asking(key) as (store, name):
            result = store.get(name)
            check_size(self.image_uri(key), result.meta["size"], max_bytes)
            return Content(bytes(result.bytes()), _version(result.meta))

    def _unavailable(self, place: str, why: str) -> SourceUnavailableError:
        advice = "check the network, then try again"
        return SourceUnavailableError(f"{place}: no answer from the store ({why}); {advice}")

    def _is_marker(self, key: str) -> bool:
        """Whether there is no object behind what is listed as an empty one."""
        try:
            with_retries(lambda: self.stat(key))
        except SourceMissingError:
            return True
        return False

    def _reach(self) -> GCSStore | AzureStore:
        """obstore's client, made at the first use."""
        with self._lock:
            if self._reached is None:
                client: ClientConfig = {
                    "allow_http": True,  # where the user's endpoint says so; a test server
                    "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
                    "read_timeout": timedelta(seconds=self.read_timeout_s),
                    # A large file over a slow line may take long, if something keeps coming.
                    "timeout": timedelta(hours=1),
                }
                # with_retries tries again; obstore's own attempts would multiply with its.
                once: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(minutes=1)}
                try:
                    self._reached = self._connect(client, once)
                except obstore.exceptions.BaseError as error:
                    why = str(error).partition("Debug source:")[0].partition("error: ")[2].strip()
                    raise SourceDeniedError(f"{self.uri}: {why}; {self.cure}") from error
            return self._reached

    @contextmanager
    def _asking(self, key: str) -> Iterator[tuple[GCSStore | AzureStore, str]]:
        """The store and a key's whole name in it; errors of obstore become ours."""
        name, place = self._prefix + key, self.image_uri(key)
        if _UNNAMEABLE.search(name):
            raise SourceMissingError(f"{place}: {_CANT_NAME}; rename it at the store")
        store = self._reach()
        try:
            yield store, name
        except _FOREIGN_ERRORS as error:
            raise self.error(place, error) from error


class GoogleSource(ObjectSource):
    """A bucket of Google Cloud Storage, `gs://bucket/prefix`."""

    scheme = "gs"
    bucket_word = "bucket"
    cure = (
        "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a "
        "key file whose account may list and read it; for a public bucket set "
        "GOOGLE_SKIP_SIGNATURE=true"
    )

    def _connect(self, client: ClientConfig, retries: RetryConfig) -> GCSStore:
        return GCSStore(self._bucket, client_options=client, retry_config=retries)


class AzureSource(ObjectSource):
    """A container of Azure Blob Storage, `az://container/prefix`; the account is a setting."""

    scheme = "az"
    bucket_word = "container"
    cure = (
        "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN "
        "(or AZURE_USE_AZURE_CLI=true after `az login`); for a public container set "
        "AZURE_SKIP_SIGNATURE=true"
    )

    def _connect(self, client: ClientConfig, retries: RetryConfig) -> AzureStore:
        return AzureStore(self._bucket, client_options=client, retry_config=retries)


_CANT_NAME = "holds an empty part, '.', '..' or a control character, which obstore can't name"
_REFUSALS = (
    obstore.exceptions.PermissionDeniedError,
    obstore.exceptions.UnauthenticatedError,
)


class _Listing:
    """A listing that goes on behind what it has given when it is asked again after an error."""

    def __init__(self, source: ObjectSource, after: str | None) -> None:
        self._source = source
        self._last = after or ""
        self._pages: Iterator[list[ImageEntry]] | None = None

    def step(self) -> list[ImageEntry] | None:
        """The next entries; None at the end.

        Raises: SourceError.
        """
        try:
            if self._pages is None:
                self._pages = self._source.listing(self._last)
            page = next(self._pages, None)
        except _FOREIGN_ERRORS as error:
            self._pages = None
            raise self._source.error(self._source.uri, error) from error
        if page:
            self._last = page[-1].key
        return page


def _version(meta: ObjectMeta) -> str:
    """The ETag without its quotes; the size where a store has none."""
    return (meta["e_tag"] or "").strip('"') or str(meta["size"])
