"""Thumbnails on disk: written whole or not at all, the oldest removed where a bound is reached."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

from vistadex.errors import UsageError

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 30
_KEPT = 0.9
"""Part of the bound that stays when the oldest go, so that they seldom have to."""


class Cache:
    """Files by name below a folder. Safe in threads, and beside other processes' caches there."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        """Makes the folder.

        Raises: UsageError if it can't be made.
        """
        self.folder = folder / "thumbnails"
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._bytes: int | None = None
        self._warned = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{self.folder}: {error.strerror}; give another folder as VISTADEX_CACHE"
            ) from error

    def get(self, name: str) -> bytes | None:
        """What was put under a name; None if it was not, or is gone."""
        try:
            return self._path(name).read_bytes()
        except OSError:
            return None

    def put(self, name: str, data: bytes) -> None:
        """Keeps bytes under a hexadecimal name. A full disk is logged once, not raised.

        The folder may be removed at any time: it is made again.
        """
        path = self._path(name)
        part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            part.replace(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            if not self._warned:
                log.warning("%s: %s; thumbnails are not kept", self.folder, error.strerror)
            self._warned = True
            return
        with self._lock:
            if self._bytes is None:
                self._bytes = sum(size for _, size, _ in self._files())
            else:
                self._bytes += len(data)
            if self._bytes > self.max_bytes:
                self._bytes = self._remove_oldest()

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name[2:]

    def _files(self) -> list[tuple[int, int, Path]]:
        """Time, size and path of every file; what vanishes meanwhile is left out."""
        found = []
        for folder, _, names in os.walk(self.folder):
            for path in (Path(folder, name) for name in names):
                with suppress(OSError):
                    known = path.stat()
                    found.append((known.st_mtime_ns, known.st_size, path))
        return found

    def _remove_oldest(self) -> int:
        """Returns how many bytes are left; a file that can't be removed counts on."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= self.max_bytes * _KEPT:
                break
            with suppress(OSError):
                path.unlink(missing_ok=True)
                total -= size
        return total
