"""The contract of a source: a place whose images can be listed in key order and read."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vistadex.errors import SourceTooLargeError
from vistadex.records import ImageEntry, image_address, is_address

PAGE_SIZE = 1000
"""How many entries a page of a listing holds at most."""
CHUNK_BYTES = 8 * 2**20
NO_VERSION = "manifest"
"""The version of an image of which a manifest names none."""


@dataclass(frozen=True, slots=True)
class Content:
    """A file's bytes and the version that they are."""

    data: bytes
    version: str


class Source(ABC):
    """A place with images: cheap to open, picklable as its URI, its methods safe in threads."""

    uri: str
    """The identity under which the catalog remembers it; no trailing slash."""
    read_ahead: int = 0
    """The number of concurrent reads that pays; 0 to read where the bytes are used."""
    partial: bool = False
    """Set by pages() before the first page where some of the images can't be listed (an archive
    that breaks off): then nothing counts as vanished."""
    names_only: bool = False
    """Whether pages() has not looked for what it names, so that it may never have been there."""

    @abstractmethod
    def pages(self, after: str | None = None) -> Iterator[list[ImageEntry]]:
        """The listing, in pages of at most PAGE_SIZE, by rising key (code points), in flat memory.

        Args:
            after: only keys greater than this one.
        Raises: SourceError where listing can't begin or go on. What concerns one entry or one
            folder is an entry with its failure set.
        """

    @abstractmethod
    def read(self, key: str) -> Content:
        """All bytes of a file, and the version of exactly these bytes.

        Raises: SourceError; SourceUnavailableError where trying again may help.
        """

    def read_within(self, key: str, max_bytes: int) -> Content:
        """As read, of a file whose size the listing may not say, or say wrongly.

        Sources that learn the size before the bytes have their own, which raises.

        Raises: SourceTooLargeError for a file with more bytes; SourceError like read.
        """
        return self.read(key)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """The bytes from start up to, not including, stop; fewer where the file ends before.

        Sources that can do it cheaper than by reading the whole file have their own.

        Raises: SourceError like read.
        """
        return self.read(key).data[start:stop]

    def read_start(self, key: str, size: int) -> bytes:
        """The first bytes of a file that is not empty; fewer where it has fewer.

        Raises: SourceError like read.
        """
        return self.read_range(key, 0, size)

    def chunks(self, key: str) -> Iterator[bytes]:
        """All bytes of a file in order, in pieces of about CHUNK_BYTES, for files of any size.

        Sources that can do it without the whole file in memory have their own.

        Raises: SourceError like read, also after some pieces.
        """
        yield self.read(key).data

    def stat(self, key: str) -> ImageEntry:
        """One file as the listing would name it; cheaper than reading it where that can be.

        Raises: SourceError like read.
        """
        content = self.read(key)
        return ImageEntry(key, len(content.data), content.version)

    def only_public(self) -> None:
        """From now on no web address that is read lies in a private network.

        For addresses that come from metadata; most sources read none.
        """
        return

    def image_uri(self, key: str) -> str:
        """What users see and can open: the path or address of one image."""
        return image_address(self.uri, key)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return type(self), (self.uri,)


def check_size(place: str, size_bytes: int | None, max_bytes: int | None) -> None:
    """Raises: SourceTooLargeError where a file is known to have more bytes than it may."""
    if max_bytes is not None and size_bytes is not None and size_bytes > max_bytes:
        what = f"{size_bytes:,} bytes, expected {max_bytes:,} at most"
        raise SourceTooLargeError(f"{place}: {what}; make the file smaller", size_bytes)


def part_bytes(size_bytes: int) -> int:
    """How large the parts of an upload are: S3 takes ten thousand at most, Azure fifty thousand."""
    return max(CHUNK_BYTES, -(-size_bytes // 9000))


class Target(Source):
    """A source that can be written to: a folder or a bucket."""

    @abstractmethod
    def write(self, key: str, chunks: Iterable[bytes], size_bytes: int) -> None:
        """Puts a file there whole or not at all, in place of one of that name.

        Args:
            chunks: its bytes in order; a single one for all but large files.
        Raises: SourceError; SourceUnavailableError where trying again may help.
        """


def local_key(source_uri: str, key: str) -> str:
    """The name below a target of a source's file; of a manifest's addresses, another for each.

    `https://host/a/b.jpg` becomes `https/host/a/b.jpg`, and with a query `…/b-5d41402a.jpg`.
    """
    if not is_address(source_uri, key):
        return key
    scheme, _, rest = key.partition("://")
    path, _, query = rest.lstrip("/").partition("?")
    if query:
        stem, dot, suffix = path.rpartition(".")
        mark = hashlib.md5(query.encode(), usedforsecurity=False).hexdigest()[:8]
        path = f"{stem}-{mark}.{suffix}" if dot else f"{path}-{mark}"
    return f"{scheme}/{path}"
