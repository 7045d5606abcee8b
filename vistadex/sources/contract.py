"""The contract of a source: a place whose images can be listed in key order and read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vistadex.records import ImageEntry

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

    @abstractmethod
    def read_start(self, key: str, size: int) -> bytes:
        """The first bytes of a file that is not empty; fewer where it has fewer.

        Raises: SourceError like read.
        """

    def image_uri(self, key: str) -> str:
        """What users see and can open: the path or address of one image."""
        return f"{self.uri.rstrip('/')}/{key}"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return type(self), (self.uri,)
