"""CSV files of any length as blocks of columns; a damaged line is reported, the rest is read."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from vistadex.errors import FormatError
from vistadex.formats.contract import Problems
from vistadex.formats.csv_rows import (
    LEFT_OUT,
    LONGEST_ROW,
    NO_FLAG,
    Type,
    fields_expected,
    misread,
    need_columns,
    rows_of,
    value_of,
)
from vistadex.formats.files import opened

BLOCK_BYTES = 8 << 20
THREADS = 2

_TYPES: Mapping[Type, pa.DataType] = {
    "text": pa.string(),
    "name": pa.dictionary(pa.int32(), pa.string()),
    "number": pa.float64(),
    "flag": pa.int8(),
}


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a file."""

    path: str
    columns: Mapping[str, pa.Array]
    first_line: int
    lines: NDArray[np.int64] | None
    """The line of each row; None where they follow each other from first_line on."""
    rows: int

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        line = self.first_line + row if self.lines is None else int(self.lines[row])
        return f"{self.path} line {line}"

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column of numbers; NaN in each row where the file does not have it."""
        if name not in self.columns:
            return np.full(self.rows, np.nan)
        found: NDArray[np.float64] = self.columns[name].to_numpy(zero_copy_only=False)
        return found

    def flags(self, name: str) -> NDArray[np.int8]:
        """A column of flags; unknown in each row where the file does not have it."""
        if name not in self.columns:
            return np.full(self.rows, -1, np.int8)
        values = self.columns[name].fill_null(NO_FLAG)
        found: NDArray[np.int8] = values.to_numpy(zero_copy_only=False)
        return found


def read_blocks(
    path: str,
    columns: Mapping[str, Type],
    problems: Problems,
    optional: Iterable[str] = (),
    aliases: Mapping[str, str] | None = None,
) -> Iterator[Block]:
    """A CSV file with a header line, gzipped or not, in flat memory.

    Args:
        columns: what is read of it.
        optional: those of them that the file may lack.
        aliases: names that a file may have, and those that they stand for.
    Raises: FormatError where the file lacks a column; SourceError where it can't be read.
    """
    with opened(path) as file:
        names = _names(path, file.readline(LONGEST_ROW))
        names = [(aliases or {}).get(name, name) for name in names]
        need_columns(path, names, set(columns) - set(optional))
        parser = _Parser(path, names, {one: columns[one] for one in columns if one in names})
        with ThreadPoolExecutor(THREADS) as pool:
            waiting: deque[tuple[Future[pa.Table | None], bytes, int]] = deque()
            for data, first_line in _cut(file):
                waiting.append((pool.submit(parser.quick, data), data, first_line))
                if len(waiting) > THREADS:
                    yield parser.block(*_next(waiting), problems)
            while waiting:
                yield parser.block(*_next(waiting), problems)


def header(path: str) -> list[str]:
    """The names of a file's columns.

    Raises: FormatError where the first line has none; SourceError where it can't be read.
    """
    with opened(path) as file:
        return _names(path, file.readline(LONGEST_ROW))


def _next(
    waiting: deque[tuple[Future[pa.Table | None], bytes, int]],
) -> tuple[pa.Table | None, bytes, int]:
    future, data, first_line = waiting.popleft()
    return future.result(), data, first_line


def _names(path: str, header: bytes) -> list[str]:
    try:
        rows = list(csv.reader([header.decode("utf-8-sig").rstrip("\r\n")]))
    except (UnicodeDecodeError, csv.Error) as error:
        what = f"{error}, expected the names of columns"
        raise FormatError(f"{path} line 1: {what}; give a CSV file in UTF-8") from error
    return [name.strip() for name in rows[0]] if rows else []


def _cut(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Pieces of whole rows, each with the number of its first line."""
    rest, line = b"", 2
    more = file.read(BLOCK_BYTES)
    while more:
        data = rest + more
        more = file.read(BLOCK_BYTES)
        end = _end_of_rows(data) if more else len(data)
        if end:
            yield data[:end], line
            line += data.count(b"\n", 0, end)
        rest = data[end:]
        if len(rest) > BLOCK_BYTES and b"\n" not in rest:
            rest = rest[:LONGEST_ROW]  # too long as it is


def _end_of_rows(data: bytes) -> int:
    """Where the last whole row ends: a line break between quotation marks belongs to a value."""
    end = last = data.rfind(b"\n") + 1
    if b'"' not in data:
        return end
    quotes = data.count(b'"', 0, end)
    while quotes % 2 and last - end <= LONGEST_ROW and end:
        start = data.rfind(b"\n", 0, end - 1) + 1
        quotes -= data.count(b'"', start, end)
        end = start
    return last if quotes % 2 else end


class _Parser:
    """Bytes of whole rows -> columns."""

    def __init__(self, path: str, names: list[str], columns: Mapping[str, Type]) -> None:
        self.path, self.names, self.columns = path, names, columns
        self.options = pa.csv.ConvertOptions(
            column_types={name: _TYPES[kind] for name, kind in columns.items()},
            include_columns=list(columns),
            null_values=[""],
            strings_can_be_null=False,
        )

    def quick(self, data: bytes) -> pa.Table | None:
        """All columns; None where some row is damaged."""
        if b"\0" in data:
            return None
        try:
            return pa.csv.read_csv(
                pa.py_buffer(data),
                # One block for all, as each would have a dictionary of its own.
                pa.csv.ReadOptions(
                    use_threads=False, block_size=len(data) + 1, column_names=self.names
                ),
                pa.csv.ParseOptions(newlines_in_values=b'"' in data),
                self.options,
            ).combine_chunks()
        except (pa.ArrowInvalid, pa.ArrowKeyError):
            return None

    def block(
        self, table: pa.Table | None, data: bytes, first_line: int, problems: Problems
    ) -> Block:
        """The rows with their lines; those that are damaged become problems."""
        lines = data.count(b"\n") + (not data.endswith(b"\n"))
        if table is not None and table.num_rows == lines:
            columns = {name: _whole(table.column(name)) for name in self.columns}
            return Block(self.path, columns, first_line, None, lines)
        rows: list[list[str | float]] = []
        places: list[int] = []
        for row in rows_of(io.BytesIO(data), first_line):
            fields, wrong = dict(zip(self.names, row.fields, strict=False)), row.wrong
            if not wrong and len(row.fields) != len(self.names):
                wrong = f"{len(row.fields)} fields"
            reason = (
                (wrong, fields_expected(self.names)) if wrong else misread(self.columns, fields)
            )
            if reason is None:
                rows.append([value_of(kind, fields[n]) for n, kind in self.columns.items()])
                places.append(row.line)
            else:
                found, expected = reason
                place, cure = f"{self.path} line {row.line}", LEFT_OUT
                problems.add("bad-row", place, found=found, expected=expected, cure=cure)
        return Block(
            self.path, self._arrays(rows), first_line, np.array(places, np.int64), len(rows)
        )

    def _arrays(self, rows: list[list[str | float]]) -> dict[str, pa.Array]:
        arrays = {}
        for i, (name, kind) in enumerate(self.columns.items()):
            type_ = pa.string() if kind == "name" else _TYPES[kind]
            array = pa.array([row[i] for row in rows], type_)
            arrays[name] = array.dictionary_encode() if kind == "name" else array
        return arrays


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
