"""Archives for tests, made in memory by the standard library."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from vistadex.records import ImageEntry
from vistadex.sources import Source, open_source

KINDS = ("zip", "stored.zip", "tar", "gnu.tar", "tar.gz", "tgz")


def pack(kind: str, files: Mapping[str, bytes], mtime: int = 1_700_000_000) -> bytes:
    """An archive with these files, in their order."""
    out = io.BytesIO()
    if kind.endswith("zip"):
        method = zipfile.ZIP_STORED if kind == "stored.zip" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(out, "w", method) as made:
            for name, data in files.items():
                made.writestr(zipfile.ZipInfo(name), data, method)
        return out.getvalue()
    form = tarfile.GNU_FORMAT if kind == "gnu.tar" else tarfile.PAX_FORMAT
    with tarfile.open(
        fileobj=out, mode="w" if kind.endswith(".tar") or kind == "tar" else "w:gz", format=form
    ) as tar:
        for name, data in files.items():
            tar.addfile(header(name, len(data), mtime=mtime), io.BytesIO(data))
    return out.getvalue()


def header(name: str, size: int = 0, mtime: int = 1_700_000_000) -> tarfile.TarInfo:
    """A tar header of a file."""
    made = tarfile.TarInfo(name)
    made.size, made.mtime = size, mtime
    return made


def entries(source: Source, after: str | None = None) -> list[ImageEntry]:
    return [entry for page in source.pages(after) for entry in page]


def keys(source: Source) -> list[str]:
    return [entry.key for entry in entries(source)]


def put(path: Path, data: bytes) -> Source:
    path.write_bytes(data)
    return open_source(path)


def contents(source: Source) -> dict[str, bytes]:
    return {entry.key: source.read(entry.key).data for entry in entries(source)}
