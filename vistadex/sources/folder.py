"""A local folder as a source: every file below it, in key order, without hidden ones."""

from __future__ import annotations

import errno
import hashlib
import heapq
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from itertools import islice
from typing import TextIO
from urllib.parse import unquote, urlsplit

from vistadex.errors import (
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
    UsageError,
)
from vistadex.records import Failure, ImageEntry
from vistadex.sources.contract import CHUNK_BYTES, PAGE_SIZE, Content, Target, check_size

NAMES_IN_MEMORY = 200_000
"""The names of a folder with more go through a temporary file to be sorted."""

_Identity = tuple[int, int]


class FolderSource(Target):
    """The files below a folder of this machine.

    They are read by plain `open().read()`, which obstore's LocalStore does not beat, and not ahead:
    the operating system does that.
    """

    def __init__(self, uri: str) -> None:
        """A folder by path, `~/…` or `file://…`.

        Raises: SourceError where it is no folder that can be listed.
        """
        path = real_path(uri)
        if not _is_text(path):
            raise SourceError(f"{_printable(path)}: the path is not UTF-8; rename it")
        if os.path.isfile(path):
            folder = os.path.dirname(path)
            raise SourceError(f"{path}: is a file, expected a folder; give its folder: {folder}")
        try:
            with os.scandir(path):
                self.uri = path
        except OSError as error:
            raise _source_error(path, error) from error

    def pages(self, after: str | None = None) -> Iterator[list[ImageEntry]]:
        """See Source. Links to files are followed; links to folders too, unless they lead back."""
        try:
            entries = self._walk("", after or "", (_identity(self.uri),))
        except OSError as error:
            raise _source_error(self.uri, error) from error
        while page := list(islice(entries, PAGE_SIZE)):
            yield page

    def read(self, key: str) -> Content:
        """See Source; the version is size and modification time."""
        return self._got(key, None)

    def read_within(self, key: str, max_bytes: int) -> Content:
        """See Source."""
        return self._got(key, max_bytes)

    def _got(self, key: str, max_bytes: int | None) -> Content:
        with self._opened(key) as file:
            status = os.fstat(file.fileno())
            check_size(self.image_uri(key), status.st_size, max_bytes)
            version = _version(status)
            data = file.read()
            if _version(os.fstat(file.fileno())) != version:
                raise SourceUnavailableError(f"{self.image_uri(key)}: is being written; try later")
        return Content(data, version)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """See Source."""
        with self._opened(key) as file:
            file.seek(start)
            return file.read(max(0, stop - start))

    def chunks(self, key: str) -> Iterator[bytes]:
        """See Source."""
        with self._opened(key) as file:
            version = _version(os.fstat(file.fileno()))
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
            if _version(os.fstat(file.fileno())) != version:
                raise SourceUnavailableError(f"{self.image_uri(key)}: is being written; try later")

    def write(self, key: str, chunks: Iterable[bytes], size_bytes: int) -> None:
        """See Target."""
        path = self.image_uri(key)
        parts = key.split("/")
        if not key or "" in parts or ".." in parts or "." in parts or "\0" in key:
            raise SourceError(
                f"{path}: no name for a file below {self.uri}; rename it at its source"
            )
        folder, name = os.path.split(path)
        # One name for each file: what a killed run has left, the next one writes over.
        mark = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
        part = os.path.join(folder, f".{mark}.part")
        try:
            os.makedirs(folder, exist_ok=True)
            try:
                with open(part, "wb") as file:
                    file.writelines(chunks)
                os.replace(part, path)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(part)
        except OSError as error:
            raise _write_error(path, error) from error

    def stat(self, key: str) -> ImageEntry:
        """See Source."""
        with self._opened(key) as file:
            status = os.fstat(file.fileno())
        return ImageEntry(key, status.st_size, _version(status))

    @contextmanager
    def _opened(self, key: str) -> Iterator[FileIO]:
        path = self.image_uri(key)
        if ".." in key.split("/"):
            raise SourceMissingError(f"{path}: leads out of the source")
        try:
            with FileIO(path, opener=_open_without_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise SourceMissingError(f"{path}: is no file any more")
                yield file
        except OSError as error:
            raise _source_error(path, error) from error

    def _walk(self, prefix: str, after: str, above: tuple[_Identity, ...]) -> Iterator[ImageEntry]:
        """Entries of the folder at prefix ("" or "a/b/") and below, with keys greater than after.

        Args:
            above: this folder and those that lead to it, to know a link that leads back.
        """
        try:
            names = _sorted_names(self.image_uri(prefix))
        except OSError as error:
            if not prefix:
                raise _source_error(self.uri, error) from error
            yield _unreadable(prefix, error)
            return
        for name in names:
            key = _printable(prefix + name)
            if name.endswith("/"):
                if key > after or after.startswith(key):
                    yield from self._folder_entries(prefix + name, after, above)
            elif key > after and (entry := self._file_entry(prefix + name)) is not None:
                yield entry

    def _folder_entries(
        self, key: str, after: str, above: tuple[_Identity, ...]
    ) -> Iterator[ImageEntry]:
        if not _is_text(key):
            message = "the folder's name is not UTF-8, its files are not listed; rename it"
            yield ImageEntry(_printable(key), 0, "", Failure("bad_name", message))
            return
        path = self.image_uri(key[:-1])
        try:
            identity = _identity(path)
        except OSError as error:
            yield _unreadable(key, error)
            return
        if not (os.path.islink(path) and (identity in above or self._lists_target(path))):
            yield from self._walk(key, after, (*above, identity))

    def _lists_target(self, link: str) -> bool:
        """Whether what a link leads to lies in this source and so is listed by its own name."""
        below = os.path.relpath(os.path.realpath(link), self.uri).split("/")
        return not any(part.startswith(".") for part in below)

    def _file_entry(self, key: str) -> ImageEntry | None:
        """The entry of a file; None for what is no file (a pipe, a socket) or has just vanished."""
        path = self.image_uri(key)
        try:
            status = os.stat(path)
        except OSError as error:
            vanished = isinstance(error, FileNotFoundError) and not os.path.islink(path)
            return None if vanished else _unreadable(key, error)
        if not stat.S_ISREG(status.st_mode):
            return None
        failure = None
        if not _is_text(key):
            failure = Failure("bad_name", "the file's name is not UTF-8; rename it")
        return ImageEntry(_printable(key), status.st_size, _version(status), failure)


def real_path(uri: str) -> str:
    """The path of a folder by path, `~/…` or `file://…`, links followed."""
    return os.path.realpath(os.path.expanduser(_path_of(uri)))


def make_folder(uri: str) -> None:
    """Makes the folder at a path, `~/…` or `file://…`, and those above it.

    Raises: SourceError where that can't be.
    """
    path = os.path.expanduser(_path_of(uri))
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise _write_error(path, error) from error


def _path_of(uri: str) -> str:
    if not uri.lower().startswith("file://"):
        return uri
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"{uri}: names the host {parts.netloc!r}; write file:///folder")
    return unquote(parts.path)


def _sorted_names(path: str) -> Iterable[str]:
    """Names in a folder in key order, subfolders with a "/" at their end, without hidden ones."""
    names: list[str] = []
    runs: list[TextIO] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                names.append(entry.name + "/" if _is_folder(entry) else entry.name)
            if len(names) == NAMES_IN_MEMORY:
                runs.append(_spill(names))
                names = []
    names.sort(key=_printable)
    return _merged(names, runs) if runs else names


def _merged(names: list[str], runs: list[TextIO]) -> Iterator[str]:
    try:
        yield from heapq.merge(names, *(map(json.loads, run) for run in runs), key=_printable)
    finally:
        for run in runs:
            run.close()


def _spill(names: list[str]) -> TextIO:
    """A temporary file with the sorted names, one to a line as JSON (a name may hold a newline)."""
    names.sort(key=_printable)
    file = tempfile.TemporaryFile("w+", encoding="ascii")
    file.writelines(json.dumps(name) + "\n" for name in names)
    file.seek(0)
    return file


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads to itself; stat says so in the file's turn.
        return False


def _open_without_waiting(path: str, flags: int) -> int:
    # A pipe put in a file's place would block an ordinary open for ever.
    return os.open(path, flags | os.O_NONBLOCK)


def _identity(path: str) -> _Identity:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _is_text(name: str) -> bool:
    """Whether a name is UTF-8 on disk; Python gives other bytes as lone surrogates."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(name: str) -> str:
    r"""The name itself, or with \xff for each byte that is not UTF-8."""
    return name if _is_text(name) else os.fsencode(name).decode("utf-8", "backslashreplace")


def _unreadable(key: str, error: OSError) -> ImageEntry:
    what = "the folder can't be listed" if key.endswith("/") else "the file can't be read"
    failure = Failure("unreadable", f"{what}: {error.strerror or error}")
    return ImageEntry(_printable(key), 0, "", failure)


def _write_error(path: str, error: OSError) -> SourceError:
    path, why = _printable(path), error.strerror or str(error)
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        what = "a file and a folder of one name can't both lie there; rename one at its source"
        return SourceError(f"{path}: {why}: {what}")
    if isinstance(error, PermissionError):
        return SourceDeniedError(f"{path}: permission denied; change its folder's (chmod)")
    if error.errno == errno.ENAMETOOLONG:
        return SourceError(f"{path}: {why}; shorten it at its source")
    return SourceError(f"{path}: can't be written: {why}; free space, or choose another place")


def _source_error(path: str, error: OSError) -> SourceError:
    path = _printable(path)
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return SourceMissingError(f"{path}: {error.strerror}; check the path")
    if isinstance(error, PermissionError):
        return SourceDeniedError(f"{path}: permission denied; change its permissions (chmod)")
    return SourceUnavailableError(f"{path}: {error.strerror or error}; check the disk")
