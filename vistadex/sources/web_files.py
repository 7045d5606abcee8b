"""The files of a web server as a source: read by address, never listed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from vistadex.errors import SourceError, SourceMissingError
from vistadex.records import ImageEntry
from vistadex.sources.contract import CHUNK_BYTES, Content, Source
from vistadex.sources.retrying import with_retries

MAX_PUBLIC_BYTES = 128 << 20
"""Of a file whose address others may have chosen."""


class WebSource(Source):
    """What lies below `https://host/folder`; a key is the rest of an address, query included."""

    read_ahead = 8

    def __init__(self, uri: str) -> None:
        """An address of http or https; nothing is asked of the server."""
        scheme, _, rest = uri.partition("://")
        self.uri = f"{scheme.lower()}://{rest}".rstrip("/")
        self._public_only = False

    def only_public(self) -> None:
        """See Source."""
        self._public_only = True

    def pages(self, after: str | None = None) -> Iterator[list[ImageEntry]]:
        """Raises: SourceError, as web servers do not say what they have."""
        raise SourceError(
            f"{self.uri}: a web server can't be listed, expected a file that names pictures; "
            "write their addresses into a manifest (.txt, .csv, .jsonl or .parquet)"
        )

    def read(self, key: str) -> Content:
        """See Source; the version is the ETag, or else what the server says of the last change."""
        return self._fetched(key, None)

    def read_within(self, key: str, max_bytes: int) -> Content:
        """See Source; no more than these bytes come into memory, whatever the server says."""
        return self._fetched(key, max_bytes)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """See Source; asks the server for no more than these bytes."""
        from vistadex.downloads import fetch

        if stop <= start:
            return b""
        url = self._url(key)
        return fetch(url, start=start, stop=stop, public_only=self._public_only).data

    def chunks(self, key: str) -> Iterator[bytes]:
        """See Source; by way of a temporary file, so that what breaks off is gone on with."""
        from vistadex.downloads import download

        url = self._url(key)
        with TemporaryDirectory() as folder:
            file = Path(folder, "file")
            with_retries(lambda: download(url, file, public_only=self._public_only))
            with file.open("rb") as opened:
                while chunk := opened.read(CHUNK_BYTES):
                    yield chunk

    def stat(self, key: str) -> ImageEntry:
        """See Source; the size is None and the version empty where the server does not say them."""
        from vistadex.downloads import head

        answer = head(self._url(key), public_only=self._public_only)
        return ImageEntry(key, answer.size_bytes, answer.version)

    def _fetched(self, key: str, max_bytes: int | None) -> Content:
        from vistadex.downloads import fetch

        url = self._url(key)
        if self._public_only:
            max_bytes = min(max_bytes or MAX_PUBLIC_BYTES, MAX_PUBLIC_BYTES)
        answer = fetch(url, max_bytes=max_bytes, public_only=self._public_only)
        return Content(answer.data, answer.version or str(len(answer.data)))

    def _url(self, key: str) -> str:
        url = f"{self.uri}/{key}"
        if why := web_problem(url):
            raise SourceMissingError(f"{url!r}: {why}")
        return url


def web_problem(url: str) -> str:
    """What is wrong with an address of http or https; empty: nothing."""
    try:
        split = urlsplit(url)
        whole = bool(split.hostname) and split.port != 0
    except ValueError as error:
        return f"no web address ({error})"
    if split.username is not None:
        return "names a user; keys don't belong in an address"
    return "" if whole else "names no host"
