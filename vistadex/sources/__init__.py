"""Where bytes are: folders and S3 behind one contract, and reading from them with retries.

A new source is one class with the methods of `Source` and one line in SCHEMES.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vistadex.registry import lookup
from vistadex.sources.contract import Content, Source
from vistadex.sources.reading import read_images

__all__ = ["SCHEMES", "Content", "Source", "open_source", "read_images"]

SCHEMES: Mapping[str, str] = {
    "file": "vistadex.sources.folder:FolderSource",
    "s3": "vistadex.sources.s3:S3Source",
    "s3a": "vistadex.sources.s3:S3Source",
    "memory": "vistadex.testing:MemorySource",
}
"""What stands before "://", and the class that is called with the whole URI."""


def open_source(uri: str | Path) -> Source:
    """The source at a folder's path (also `~/…` and `file://…`) or at `s3://bucket/prefix`.

    Raises: UsageError for an unknown scheme; SourceError where a folder can't be used. A bucket is
        first asked when it is listed or read.
    """
    text = str(uri)
    scheme, mark, _ = text.partition("://")
    source: Source = lookup(SCHEMES, scheme.lower() if mark else "file", "source")(text)
    return source
