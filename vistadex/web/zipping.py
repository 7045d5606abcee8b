"""A folder as a zip archive that is made while it is sent, in flat memory whatever its size."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from typing_extensions import Buffer

PART_BYTES = 1 << 18


class _Sent(io.RawIOBase):
    """What the archive's writer has written since it was taken last."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        """Always; it can't seek, so that sizes stand behind the files."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Keeps bytes until take()."""
        part = bytes(data)
        self._parts.append(part)
        return len(part)

    def take(self) -> bytes:
        """The bytes, once."""
        taken, self._parts = b"".join(self._parts), []
        return taken


def zipped(folder: Path, top: str) -> Iterator[bytes]:
    """The archive in parts: every file below the folder, sorted, as it is; pictures don't shrink.

    Links and what is no file are left out. Files and archives of more than 4 GiB are ZIP64. A
    backslash in a name becomes _, as some programs take it for the border of a folder.

    Args:
        top: the folder in the archive.
    Raises: OSError where a file can't be read any more: then the archive breaks off.
    """
    sent = _Sent()
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            name = path.relative_to(folder).as_posix().replace("\\", "_")
            info = zipfile.ZipInfo.from_file(path, f"{top}/{name}", strict_timestamps=False)
            with path.open("rb") as file, archive.open(info, "w", force_zip64=True) as entry:
                while part := file.read(PART_BYTES):
                    entry.write(part)
                    yield sent.take()
    yield sent.take()
