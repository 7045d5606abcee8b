"""The contract of a source: a place whose images can be listed in key order and read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vistadex.records import ImageEntry, image_address

PAGE_SIZE = 1000
"""How many entries a page of a listing holds at most."""


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

    def stat(self, key: str) -> ImageEntry:
        """One file as the listing would name it; cheaper than reading it where that can be.

        Raises: SourceError like read.
        """
        content = self.read(key)
        return ImageEntry(key, len(content.data), content.version)

    def image_uri(self, key: str) -> str:
        """What users see and can open: the path or address of one image."""
        return image_address(self.uri, key)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return type(self), (self.uri,)


class Target(Source):
    """A source that can be written to: a folder or a bucket."""

    @abstractmethod
    def write(self, key: str, chunks: Iterable[bytes], size_bytes: int) -> None:
        """Puts a file there whole or not at all, in place of one of that name.

        Args:
            chunks: its bytes in order; a single one for all but large files.
        Raises: SourceError; SourceUnavailableError where trying again may help.
        """
