"""Annotations spread over the files of a folder: listed, read ahead and written, in flat memory."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TextIO, TypeAlias, TypeVar
from urllib.parse import quote, unquote

from vistadex.errors import FormatError, SourceError, SourceUnavailableError
from vistadex.formats.contract import Problems
from vistadex.records import AnnotatedImage, Annotation, ImageEntry, Json
from vistadex.sources import Source, named_as_picture
from vistadex.sources.reading import PICTURE_EXTENSIONS
from vistadex.sources.retrying import with_retries

MAX_TEXT_BYTES = 16 * 2**20
"""Of one picture's annotations, or one line: larger is damage, and memory stays flat."""

SPLITS: Mapping[str, str] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""What folders and files call a split, and how the attribute `split` calls it."""

T = TypeVar("T")
Wanted: TypeAlias = tuple[T, str | None, int | None]
"""What it is for, the key (None for nothing to read) and the size where it is known."""

_CONTROL = re.compile(r"[\x00-\x1f]")
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")


def number(text: str) -> float | None:
    """A finite decimal number; None for anything else (`nan`, `1_000`, `1,5`, the empty text)."""
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def shown(text: str) -> str:
    """Quoted, and shortened where it is long, for messages."""
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def text_of(data: bytes) -> str | None:
    """UTF-8 as text, without the mark at its start; None where it is none."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def root_and_name(path: str, suffixes: tuple[str, ...]) -> tuple[str, str]:
    """The folder and the name of the file that a path names; the path and "" for a folder.

    Args:
        suffixes: how the files end, in lower case.
    """
    text = path.rstrip("/")
    if not text.lower().endswith(suffixes):
        return path, ""
    folder, mark, name = text.rpartition("/")
    if text.lower().startswith("file://"):
        name = unquote(name)
    return (folder or "/") if mark else ".", name


def entries_below(source: Source, prefix: str) -> Iterator[ImageEntry]:
    """The listing of one folder (`a/b/`), or of all ("")."""
    for page in source.pages(prefix or None):
        for entry in page:
            if not entry.key.startswith(prefix):
                return
            yield entry


def top_names(source: Source) -> Iterator[str]:
    """Names at the top in their order, folders with "/" at their end, without listing these."""
    after: str | None = None
    while (page := next(source.pages(after), None)) is not None:
        folder = ""
        for entry in page:
            folder = entry.key[: entry.key.find("/") + 1]
            if folder:
                yield folder
                break
            yield entry.key
        after = f"{folder}\U0010ffff" if folder else page[-1].key


def names_in(source: Source, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names of the files in one folder (`a/b/`; "" for the top), each with why it can't be read.

    That is "" for most. Folders in it are not walked.
    """
    after = prefix or None
    while (page := next(source.pages(after), None)) is not None:
        for entry in page:
            if not entry.key.startswith(prefix):
                return
            name = entry.key[len(prefix) :]
            if "/" in name:
                after = f"{prefix}{name[: name.index('/') + 1]}\U0010ffff"
                break
            yield name, entry.failure.message if entry.failure is not None else ""
            after = entry.key


def place_in(folder: str, key: str) -> str:
    """The path or address of a file below a folder, as opened() takes it."""
    if folder.lower().startswith("file://"):
        key = quote(key)
    return f"{folder.rstrip('/')}/{key}"


def lines_of(source: Source, key: str) -> Iterator[tuple[int, bytes]]:
    """The numbered lines of a file of any size, without their ends.

    Raises: SourceError; FormatError for a line that is too long.
    """
    rest, count = b"", 0
    for chunk in source.chunks(key):
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_TEXT_BYTES:
            place = f"{source.image_uri(key)} line {count + len(whole) + 1}"
            what = f"more than {MAX_TEXT_BYTES} bytes, expected a line of text"
            raise FormatError(f"{place}: {what}; check that it is the right file")
        for line in whole:
            count += 1
            yield count, line.removesuffix(b"\r")
    if rest:
        yield count + 1, rest.removesuffix(b"\r")


def read_texts(
    source: Source, wanted: Iterable[Wanted[T]]
) -> Iterator[tuple[T, bytes | SourceError | None]]:
    """The bytes of each wanted file or why they can't be had, in order, read ahead where it pays.

    Raises: SourceUnavailableError where the source does not answer, also when asked again.
    """
    if source.read_ahead <= 0:
        for owner, key, size in wanted:
            yield owner, _text(source, key, size)
        return
    pending: deque[tuple[T, Future[bytes | SourceError | None]]] = deque()
    with ThreadPoolExecutor(source.read_ahead, "read-texts") as pool:
        try:
            for owner, key, size in wanted:
                pending.append((owner, pool.submit(_text, source, key, size)))
                if len(pending) >= 2 * source.read_ahead:
                    owner, text = pending.popleft()
                    yield owner, text.result()
            while pending:
                owner, text = pending.popleft()
                yield owner, text.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _text(source: Source, key: str | None, size: int | None) -> bytes | SourceError | None:
    if key is None:
        return None
    if size is not None and size > MAX_TEXT_BYTES:
        return SourceError(f"{size} bytes, more than {MAX_TEXT_BYTES}")
    try:
        return with_retries(lambda: source.read(key)).data
    except SourceUnavailableError:
        raise
    except SourceError as error:
        return error


def note_unreadable(problems: Problems, place: str, why: object) -> None:
    """Notes a file or folder that can't be read."""
    cure = "make it readable and read the set again"
    problems.add("unreadable", place, found=str(why), expected="a file to read", cure=cure)


def note_partial(problems: Problems, source: Source) -> None:
    """Notes an archive that breaks off."""
    if source.partial:
        cure = "what is missing is unknown; fetch it again"
        place, found = source.uri, "breaks off, so a part is not listed"
        problems.add("partial", place, found=found, expected="a whole archive", cure=cure)


def is_storable(value: Json) -> bool:
    """Whether it can be stored as UTF-8 JSON: no lone surrogates, no NaN, not nested too deep."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


def clipped(box: Annotation, image: AnnotatedImage) -> tuple[float, float, float, float] | None:
    """The part of a box that lies in its picture; None where there is none.

    Raises: FormatError where the picture's size is unknown.
    """
    if not image.width or not image.height:
        what = "the picture's size is unknown, expected width and height"
        raise FormatError(f"{image.file_name}: {what}; index the picture first")
    x0, y0, x1, y1 = box.box_xyxy
    x0, x1 = max(0.0, x0), min(float(image.width), x1)
    y0, y1 = max(0.0, y0), min(float(image.height), y1)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def checked_name(image: AnnotatedImage) -> str:
    """An image's name as one below a folder, with a picture's extension.

    Raises: FormatError where it is none, as a name with `..` in it.
    """
    name = image.file_name
    if any(part[:1] in ("", ".") or _CONTROL.search(part) for part in name.split("/")):
        what = "can't be a file below a folder (an empty part, a dot ahead or a control character)"
        raise FormatError(f"{name!r}: {what}; rename it at its source or leave it out")
    if not named_as_picture(name):
        known = ", ".join(sorted(PICTURE_EXTENSIONS))
        what = f"has no picture's extension, expected one of {known}"
        raise FormatError(f"{name}: {what}; rename it at its source or leave it out")
    return name


def split_of(image: AnnotatedImage, known: Mapping[str, str] = SPLITS) -> str | None:
    """train, val or test; None where nothing is said.

    Args:
        known: what it may be called, and what that becomes.
    Raises: FormatError for another.
    """
    split = image.attributes.get("split")
    if split is None:
        return None
    if not isinstance(split, str) or split not in known:
        what = f"split {shown(str(split))}, expected one of {', '.join(known)}"
        raise FormatError(f"{image.file_name}: {what}; export these pictures by themselves")
    return known[split]


def write_new(path: Path, text: str) -> None:
    """Writes a file that must not be there yet, with the folders above it.

    Raises: FormatError where it is there or can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError as error:
        what = "two pictures would share this file, as their names are alike up to the extension"
        raise FormatError(f"{path}: {what}; rename one or export them apart") from error
    except (OSError, UnicodeEncodeError) as error:
        raise _unwritable(path, error) from error


class LineFiles:
    """A few text files that grow line by line, each opened when its first line comes."""

    def __init__(self) -> None:
        self._files: dict[Path, TextIO] = {}
        self._stack = ExitStack()

    def add(self, path: Path, line: str) -> None:
        """Puts a line at the end of a file.

        Raises: FormatError where it can't be written.
        """
        try:
            if path not in self._files:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = path.open("x", encoding="utf-8", newline="")
                self._files[path] = self._stack.enter_context(file)
            self._files[path].write(f"{line}\n")
        except (OSError, UnicodeEncodeError) as error:
            raise _unwritable(path, error) from error

    def __enter__(self) -> LineFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()


def _unwritable(path: Path, error: OSError | UnicodeEncodeError) -> FormatError:
    why = error.reason if isinstance(error, UnicodeEncodeError) else error.strerror
    return FormatError(f"{path}: {why}, expected to write it; choose another place or name")
