"""Archives for tests, made in memory by the standard library."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping

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
