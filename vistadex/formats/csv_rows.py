"""Rows of a CSV file one by one with their lines; a damaged one is told, and the rest goes on."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal, TypeAlias

from vistadex.errors import FormatError
from vistadex.formats.files import opened
from vistadex.formats.folders import number, shown

Type: TypeAlias = Literal["text", "name", "number", "flag"]
"""text: any; name: one of few; number: decimal, NaN where there is none; flag: 1, 0 or -1."""
NO_FLAG = -128
"""A flag that is empty."""
LEFT_OUT = "it is left out; correct the line"
"""What becomes of a row that can't be used."""
_NO_NUMBERS = re.compile(r"\s*[+-]?(nan|inf(inity)?)\s*", re.IGNORECASE)
_FLAG = re.compile(r"\s*-?\d{1,2}\s*", re.ASCII)

LONGEST_ROW = 1 << 20
"""In bytes: a quotation mark that nothing closes within so many is damage, not a long value."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One row, or why it is none."""

    line: int
    """Where it begins, from 1 on."""
    fields: list[str]
    wrong: str = ""
    """Why it can't be read; "" where it can."""


def csv_rows(path: str) -> Iterator[CsvRow]:
    """Every row that is not empty, in flat memory; gzipped or not, UTF-8.

    Raises: FormatError, SourceError where the file can't be read.
    """
    with opened(path) as file:
        yield from rows_of(file)


def rows_of(file: BinaryIO, first_line: int = 1) -> Iterator[CsvRow]:
    """The same of an open file, whose next line is the first one."""
    line, waiting = first_line, deque[bytes]()
    while data := _line(file, waiting):
        row, lines = _row(line, data), 1
        if row.wrong and data.count(b'"') % 2:  # The value may go on behind the line break.
            more = _continued(file, waiting, len(data))
            joined = _row(line, b"".join([data, *more]))
            if joined.wrong:
                waiting.extendleft(reversed(more))
            else:
                row, lines = joined, 1 + len(more)
        if row.fields or row.wrong:
            yield row
        line += lines if data.endswith(b"\n") else 0


def first_row(path: str) -> CsvRow | None:
    """The first row; None for an empty file.

    Raises: FormatError, SourceError where the file can't be read.
    """
    return next(csv_rows(path), None)


def need_columns(path: str, names: Sequence[str], needed: Iterable[str]) -> None:
    """Raises: FormatError where a file lacks a column, or has one twice."""
    missing = [name for name in needed if name not in names]
    if missing:
        found = f"found {','.join(names)[:200]}" if names else "the file has no first row"
        what = f"no column {', '.join(missing)}, expected the columns as they are published"
        raise FormatError(f"{path} line 1: {what} ({found}); copy the file again")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        what = f"the column {twice[0]} comes twice, expected it once"
        raise FormatError(f"{path} line 1: {what}; correct the file")


def fields_expected(names: Sequence[str]) -> str:
    """What a row should have, for messages."""
    return f"{len(names)} fields: {','.join(names)[:200]}"


def value_of(kind: Type, text: str) -> str | float | int:
    """A field as its column has it.

    Raises: ValueError where it can't be that.
    """
    if kind == "number":
        value = number(text)
        if value is None and text and not _NO_NUMBERS.fullmatch(text):
            raise ValueError(text)
        return value if value is not None else float(text or math.nan)
    if kind == "flag":
        if text and not _FLAG.fullmatch(text):
            raise ValueError(text)
        return int(text) if text else NO_FLAG
    return text


def misread(kinds: Mapping[str, Type], fields: Mapping[str, str]) -> tuple[str, str] | None:
    """What the first field is that can't be of its kind, and what was expected; None for none."""
    for name, kind in kinds.items():
        try:
            value_of(kind, fields.get(name, ""))
        except ValueError:
            expected = "a number" if kind == "number" else "1, 0 or -1 for unknown"
            return f"{name} {shown(fields[name])}", expected
    return None


def _continued(file: BinaryIO, waiting: deque[bytes], size: int) -> list[bytes]:
    """The lines up to the closing quotation mark; none where nothing closes it."""
    more: list[bytes] = []
    quotes = 1
    while quotes % 2:
        data = _line(file, waiting) if size <= LONGEST_ROW else b""
        if not data:
            waiting.extendleft(reversed(more))
            return []
        more.append(data)
        quotes += data.count(b'"')
        size += len(data)
    return more


def _line(file: BinaryIO, waiting: deque[bytes]) -> bytes:
    """The next line; of one that is too long only the start, which is too long itself."""
    if waiting:
        return waiting.popleft()
    line = file.readline(LONGEST_ROW)
    if len(line) == LONGEST_ROW and not line.endswith(b"\n"):
        while (rest := file.readline(LONGEST_ROW)) and not rest.endswith(b"\n"):
            pass
        line += b"\n"
    return line


def _row(line: int, data: bytes) -> CsvRow:
    if line == 1:
        data = data.removeprefix(_BYTE_ORDER_MARK)
    if len(data) >= LONGEST_ROW:
        return CsvRow(line, [], f"a row of more than {LONGEST_ROW:,} bytes")
    try:
        text = data.decode("utf-8").removesuffix("\n").removesuffix("\r")
        if "\0" in text:
            return CsvRow(line, [], "a NUL character")
        rows = list(csv.reader([text], strict=True))
    except UnicodeDecodeError as error:
        return CsvRow(line, [], f"bytes that are no text in UTF-8 ({error.reason})")
    except csv.Error as error:
        return CsvRow(line, [], f"no CSV ({error})")
    if len(rows) > 1:
        return CsvRow(line, [], "a line break outside of quotation marks")
    return CsvRow(line, rows[0] if rows and any(rows[0]) else [])
