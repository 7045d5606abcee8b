"""Annotation files as bytes: opened wherever they are, and created whole or not at all."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO, cast
from urllib.parse import unquote, urlsplit

from vistadex.errors import (
    FormatError,
    SourceDeniedError,
    SourceMissingError,
    SourceUnavailableError,
)
from vistadex.sources import FILES, Source, open_source
from vistadex.sources.retrying import with_retries

_GZIP = b"\x1f\x8b"


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """An annotation file's bytes, seekable; what is gzipped is unpacked, whatever its name.

    Args:
        path: a local file, one inside an archive (`photos.zip/instances.json`), or an address.
    Raises: SourceError where the bytes can't be had; FormatError for a folder and damaged gzip.
    """
    with ExitStack() as stack:
        file = stack.enter_context(_stored(path))
        packed = file.read(2) == _GZIP
        file.seek(0)
        if packed:
            file = stack.enter_context(cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb")))
        try:
            yield file
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            what = f"the gzip data is damaged or breaks off ({error})"
            raise FormatError(f"{path}: {what}, expected a whole file; copy it again") from error


@contextmanager
def created(out: Path) -> Iterator[TextIO]:
    """A text file (UTF-8) to write: at `out` once it is complete; gzipped where it ends in .gz.

    Raises: FormatError where it can't be written.
    """
    part = out.with_name(f".{out.name}.part")
    try:
        with ExitStack() as stack:
            file: BinaryIO = stack.enter_context(part.open("wb"))
            if out.suffix == ".gz":
                # Neither a time nor a name: the same annotations give the same bytes.
                packed = gzip.GzipFile("", "wb", 6, fileobj=file, mtime=0)
                file = cast(BinaryIO, stack.enter_context(packed))
            yield stack.enter_context(io.TextIOWrapper(file, encoding="utf-8", newline=""))
        os.replace(part, out)
    except UnicodeEncodeError as error:
        what = f"{error.object[:60]!r} is no text, expected names in UTF-8"
        raise FormatError(f"{out}: {what}; rename it") from error
    except OSError as error:
        what = f"{error.strerror or error}, expected to write the annotations"
        raise FormatError(f"{out}: {what}; choose another place") from error
    finally:
        with suppress(OSError):  # It is in its place by then, or never was.
            part.unlink()


@contextmanager
def _stored(path: str) -> Iterator[BinaryIO]:
    """The bytes as they are stored."""
    local = _local_path(path)
    if local is None:
        with _fetched(*_source_and_key(path)) as file:
            yield file
        return
    archive = next((parent for parent in local.parents if parent.is_file()), None)
    if archive is not None:
        with _fetched(str(archive), local.relative_to(archive).as_posix()) as file:
            yield file
        return
    try:
        file = local.open("rb")
    except IsADirectoryError as error:
        raise FormatError(f"{path}: is a folder, expected a file; name the file in it") from error
    except FileNotFoundError as error:
        raise SourceMissingError(f"{path}: there is no such file; check the path") from error
    except PermissionError as error:
        what = "permission denied; change its permissions (chmod)"
        raise SourceDeniedError(f"{path}: {what}") from error
    except OSError as error:
        what = f"{error.strerror or error}; check the disk"
        raise SourceUnavailableError(f"{path}: {what}") from error
    with file:
        yield file


def _local_path(path: str) -> Path | None:
    """None for an address."""
    scheme, mark, _ = path.partition("://")
    if not mark:
        return Path(path).expanduser()
    return Path(unquote(urlsplit(path).path)) if scheme.lower() == "file" else None


def _source_and_key(address: str) -> tuple[str, str]:
    """What lies in an archive has that as its source, else the folder is."""
    parts = address.split("/")
    for end in range(4, len(parts)):
        root = "/".join(parts[:end])
        if root.lower().endswith(tuple(FILES)):
            return root, "/".join(parts[end:])
    return "/".join(parts[:-1]), parts[-1]


@contextmanager
def _fetched(root: str, key: str) -> Iterator[BinaryIO]:
    """A copy of a source's file on this machine's disk, gone at the end."""
    source = open_source(root)
    with tempfile.TemporaryFile() as file:
        with_retries(lambda: _copy(source, key, file))
        file.seek(0)
        yield file


def _copy(source: Source, key: str, file: BinaryIO) -> None:
    """Puts a source's file into a local one, from its beginning."""
    file.seek(0)
    file.truncate()
    for chunk in source.chunks(key):
        file.write(chunk)
