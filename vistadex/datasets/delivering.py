"""Puts a finished data set where it belongs: a folder at once, a bucket file by file."""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vistadex.errors import FormatError, UsageError
from vistadex.sources import Target, open_target, place_of
from vistadex.sources.retrying import with_retries

THREADS = 8


def local_path(out: str | Path) -> Path | None:
    """The folder of this machine that is meant; None for a bucket."""
    text = str(out)
    is_local = "://" not in text or text.lower().startswith("file://")
    return Path(place_of(text)) if is_local else None


def empty_bucket(out: str) -> Target:
    """The bucket or the part of one that is meant.

    Raises: UsageError where something is there; SourceError where it can't be listed.
    """
    target = open_target(out)
    if with_retries(lambda: next(target.pages(), None)):
        raise UsageError(f"{out}: is not empty; choose another prefix, or remove what is there")
    return target


def move(part: Path, out: Path) -> None:
    """Puts a folder in its place. Raises: FormatError where something is there by now."""
    if out.exists():
        raise FormatError(f"{out}: is there by now; choose another name, or remove it")
    os.replace(part, out)


def upload(part: Path, target: Target, pictures: Collection[str]) -> None:
    """Puts all files into a bucket, annotations last: a set that broke off has none, or not all.

    Args:
        pictures: which of the files are no annotations.
    Raises: SourceError.
    """
    files = [path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file()]
    files.sort(key=lambda key: (-key.count("/"), key))  # What names the others comes last.
    own = set(pictures)
    for some in ([key for key in files if key in own], [key for key in files if key not in own]):
        with ThreadPoolExecutor(THREADS, "upload") as pool:
            for _ in pool.map(lambda key: _put(part / key, target, key), some):
                pass


def _put(path: Path, target: Target, key: str) -> None:
    data = path.read_bytes()
    with_retries(lambda: target.write(key, [data], len(data)))
