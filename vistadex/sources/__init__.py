"""Where bytes are: folders, buckets and files behind one contract, read with retries.

A new source is one class with the methods of `Source` and one line in SCHEMES or FILES.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from vistadex.errors import UsageError
from vistadex.registry import lookup
from vistadex.sources.contract import Content, Source, Target, local_key
from vistadex.sources.reading import named_as_picture, read_images

__all__ = [
    "SCHEMES",
    "Content",
    "Source",
    "Target",
    "local_key",
    "named_as_picture",
    "open_source",
    "open_target",
    "place_of",
    "read_images",
]

SCHEMES: Mapping[str, str] = {
    "file": "vistadex.sources.folder:FolderSource",
    "s3": "vistadex.sources.s3:S3Source",
    "s3a": "vistadex.sources.s3:S3Source",
    "gs": "vistadex.sources.objects:GoogleSource",
    "az": "vistadex.sources.objects:AzureSource",
    "http": "vistadex.sources.web_files:WebSource",
    "https": "vistadex.sources.web_files:WebSource",
    "memory": "vistadex.testing:MemorySource",
}
"""What stands before "://", and the class that is called with the whole URI."""

FILES: Mapping[str, str] = {
    ".zip": "vistadex.sources.archive:ArchiveSource",
    ".tar": "vistadex.sources.archive:ArchiveSource",
    ".tar.gz": "vistadex.sources.archive:ArchiveSource",
    ".tgz": "vistadex.sources.archive:ArchiveSource",
    ".csv": "vistadex.sources.manifest:ManifestSource",
    ".tsv": "vistadex.sources.manifest:ManifestSource",
    ".txt": "vistadex.sources.manifest:ManifestSource",
    ".jsonl": "vistadex.sources.manifest:ManifestSource",
    ".parquet": "vistadex.sources.manifest:ManifestSource",
}
"""How the name of a file ends that is a source by itself, wherever it lies, and its class."""


def open_target(uri: str | Path) -> Target:
    """The place at a URI to write to; a local folder is made where it is missing.

    Raises: UsageError where nothing can be written there; SourceError where it can't be used.
    """
    text = str(uri)
    if "://" not in text or text.lower().startswith("file://"):
        from vistadex.sources.folder import make_folder

        make_folder(text)
    target = open_source(uri)
    if not isinstance(target, Target):
        raise UsageError(f"{uri}: can't be written to; give a folder or s3://bucket/prefix")
    return target


def place_of(uri: str | Path) -> str:
    """The address that open_target() would open, without making anything."""
    text = str(uri)
    if "://" not in text or text.lower().startswith("file://"):
        from vistadex.sources.folder import real_path

        return real_path(text)
    return open_source(uri).uri


def open_source(uri: str | Path) -> Source:
    """The source at a folder's path (also `~/…` and `file://…`), at `s3://bucket/prefix` or the
    like, or in a file that ends like one of FILES, wherever it lies.

    Raises: UsageError for an unknown scheme; SourceError where a folder can't be used. A bucket is
        first asked when it is listed or read.
    """
    text = str(uri)
    scheme, mark, _ = text.partition("://")
    ending = _file_ending(text)
    source: Source
    if ending:
        source = lookup(FILES, ending, "file")(text)
    else:
        source = lookup(SCHEMES, scheme.lower() if mark else "file", "source")(text)
    return source


def _file_ending(text: str) -> str:
    """Which of FILES an address or path ends with; empty: none, or it is a folder or a bucket."""
    scheme, mark, rest = text.partition("://")
    web = scheme.lower() in ("http", "https")
    name = (text.partition("?")[0] if web else text).lower()
    ending = next((one for one in FILES if name.endswith(one)), "")
    if mark and scheme.lower() != "file":
        return ending if "/" in rest else ""
    path = unquote("/" + rest.partition("/")[2]) if mark else text
    return "" if ending and Path(path).expanduser().is_dir() else ending
