"""Manifests as rows: lines, CSV, TSV, JSON lines and Parquet, each read in flat memory."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, time
from io import BufferedReader, RawIOBase, TextIOWrapper
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeAlias, cast

from vistadex.errors import SourceError
from vistadex.records import Json
from vistadex.sources.contract import Source

if TYPE_CHECKING:
    import pyarrow as pa

ADDRESS_COLUMNS = ("url", "uri", "path", "file_name", "image", "image_url")
VERSION_COLUMNS = ("version", "etag")
SIZE_COLUMN = "size_bytes"
LONGEST_LINE = 1 << 20
"""Characters; what has longer lines is no manifest."""
BUFFER_BYTES = 1 << 20
PARQUET_ROWS = 2000
"""Rows of Parquet in memory at once."""
_SURROGATE = re.compile("[\ud800-\udfff]")
NOT_UTF8 = "is not UTF-8; save the file as UTF-8"


@dataclass(frozen=True, slots=True)
class Row:
    """What one row says of an image."""

    line: int
    """From 1, a header included; in Parquet the row."""
    address: str = ""
    """As it stands there."""
    version: str = ""
    size_bytes: int | None = None
    attributes: Mapping[str, Json] | None = None
    problem: str = ""
    """Why the row can't be used; empty: it can."""


class Opened:
    """The file that holds the rows, at its source."""

    def __init__(self, source: Source, key: str, place: str, *, local: bool) -> None:
        self.place = place
        """How messages call it; of a file of this machine its path."""
        self._source = source
        self._key = key
        self._local = local

    def lines(self) -> Iterator[str]:
        r"""Its lines with their ends; bytes that are not UTF-8 are lone surrogates.

        Raises: SourceError where that is no text.
        """
        raw = BufferedReader(_Stream(self._source.chunks(self._key)), BUFFER_BYTES)
        if raw.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise SourceError(f"{self.place}: is UTF-16, expected UTF-8; save it as UTF-8")
        with TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="") as text:
            number = 0
            while line := text.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE or (number == 1 and "\0" in line):
                    what = "a line without end" if len(line) == LONGEST_LINE else "a NUL byte"
                    raise SourceError(
                        f"{self.place} line {number}: {what}, expected lines of text; check that "
                        "the file is what its name says"
                    )
                yield line

    def seekable(self) -> BinaryIO:
        """The file to be read from anywhere; from elsewhere it is copied to this machine's disk.

        Raises: SourceError.
        """
        if self._local:
            return open(self.place, "rb")
        file = cast(BinaryIO, TemporaryFile())
        try:
            file.writelines(self._source.chunks(self._key))
        except OSError as error:
            file.close()
            what = f"can't be copied to disk ({error}); free some room, or set TMPDIR"
            raise SourceError(f"{self.place}: {what}") from error
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file


class _Stream(RawIOBase):
    """Pieces of bytes as a file to read on from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        length = min(len(buffer), len(self._rest))
        buffer[:length] = self._rest[:length]
        self._rest = self._rest[length:]
        return length


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which columns mean what."""

    address: str
    attributes: bool
    """Whether a row has attributes that says nothing in its other columns."""

    def row(self, line: int, values: Mapping[str, Json]) -> Row:
        """The row that values by column make."""
        where = values.get(self.address)
        if not isinstance(where, str):
            kind = "is missing" if where is None else f"is {where!r}, expected text"
            return Row(line, problem=f"{self.address!r} {kind}")
        size = values.get(SIZE_COLUMN)
        if isinstance(size, float) and size.is_integer():  # a column of numbers with gaps
            size = int(size)
        digits = "" if size is None else str(size).strip()
        if digits and not re.fullmatch("[0-9]{1,18}", digits):
            return Row(line, problem=f"{SIZE_COLUMN} is {size!r}, expected a whole number")
        version = next((name for name in VERSION_COLUMNS if name in values), "")
        meant = {self.address, SIZE_COLUMN, version}
        more = {
            name: value
            for name, value in values.items()
            if name not in meant and value is not None and value != ""
        }
        return Row(
            line,
            where,
            "" if values.get(version) is None else str(values[version]),
            int(digits) if digits else None,
            more if more or self.attributes else None,
        )


def _columns(names: Sequence[str], place: str) -> _Columns:
    """Raises: SourceError unless exactly one column holds the addresses."""
    found = [name for name in names if name.lower() in ADDRESS_COLUMNS]
    if len(found) != 1:
        what = "no column holds addresses" if not found else f"{' and '.join(found)} both might"
        shown = ", ".join(repr(name) for name in names[:20])
        raise SourceError(
            f"{place}: {what} (columns: {shown}); expected exactly one of "
            f"{', '.join(ADDRESS_COLUMNS)}; rename a column"
        )
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise SourceError(f"{place}: column {doubled[0]!r} is there twice; rename one")
    return _Columns(found[0], len(names) > 1)


def is_text(text: str) -> bool:
    """Whether a text can be written as UTF-8: it holds no lone surrogate."""
    return text.isascii() or _SURROGATE.search(text) is None


def read_lines(file: Opened) -> Iterator[Row]:
    """One address a line; blank lines and those that begin with "# " are left out."""
    for number, line in enumerate(file.lines(), start=1):
        where = line.strip()
        if where and where != "#" and not where.startswith("# "):
            problem = "" if is_text(where) else NOT_UTF8
            yield Row(number, "" if problem else where, problem=problem)


def read_csv(file: Opened) -> Iterator[Row]:
    """Rows below a header; a row may go over several lines and is called by its last."""
    # Without strict, a quote that is never closed takes all rows behind it into its field.
    yield from _table(file, csv.reader(file.lines(), strict=True))


def read_tsv(file: Opened) -> Iterator[Row]:
    """As read_csv with tabs, and quotes are characters as any other."""
    yield from _table(file, csv.reader(file.lines(), delimiter="\t", quoting=csv.QUOTE_NONE))


def _table(file: Opened, reader: Lines) -> Iterator[Row]:
    """Rows below a header."""
    records = _records(reader)
    header = next((one for one in records if one), None)
    if header is None:
        return
    if isinstance(header, _Damage):
        raise SourceError(f"{file.place} line {header.line}: {header.problem}")
    if not is_text("".join(header)):
        raise SourceError(f"{file.place} line 1: is no header in UTF-8; save it as UTF-8")
    names = [name.strip() or f"column_{i}" for i, name in enumerate(header, start=1)]
    columns = _columns(names, file.place)
    for record in records:
        line = reader.line_num
        if isinstance(record, _Damage):
            yield Row(record.line, problem=record.problem)
        elif record and not is_text("".join(record)):
            yield Row(line, problem=NOT_UTF8)
        elif record and len(record) != len(names):
            yield Row(line, problem=f"{len(record)} fields, expected {len(names)}")
        elif record:
            row = columns.row(line, dict(zip(names, record, strict=True)))
            if "\n" in row.address.strip():  # two stray quotes, with rows between them
                row = Row(line, problem="the address goes over several lines; check the quotes")
            yield row


class Lines(Protocol):
    """A reader of the csv module."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class _Damage:
    """Lines of which no record can be made."""

    line: int
    """Where they begin."""
    problem: str


def _records(reader: Lines) -> Iterator[list[str] | _Damage]:
    """Records of a CSV file ([] for a blank line), or where there is none and why."""
    while True:
        first = reader.line_num + 1
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            lost = f"lines {first:,} to {reader.line_num:,} are lost"
            yield _Damage(first, f"{error}, {lost}; check the quotes")


def read_jsonl(file: Opened) -> Iterator[Row]:
    """One JSON object a line; the first says which field holds the addresses."""
    columns: _Columns | None = None
    for number, line in enumerate(file.lines(), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line, parse_constant=_no_number) if is_text(line) else None
        except (ValueError, RecursionError) as error:
            yield Row(number, problem=f"is not JSON ({error})")
            continue
        if not isinstance(values, dict):
            yield Row(number, problem="expected a JSON object in UTF-8")
            continue
        if columns is None:
            found = _columns(list(values), f"{file.place} line {number}")
            columns = replace(found, attributes=False)
        yield columns.row(number, values)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def read_parquet(file: Opened) -> Iterator[Row]:
    """Rows of a Parquet file, some at a time; columns with bytes in them are left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    line = 0
    with file.seekable() as raw:
        try:
            table = pq.ParquetFile(raw, buffer_size=BUFFER_BYTES, pre_buffer=False)
            kept = [one for one in table.schema_arrow if not _holds_bytes(one.type)]
            columns = _columns([one.name for one in kept], file.place)
            schema = pa.schema([one.with_type(_readable(one.type)) for one in kept])
            for batch in table.iter_batches(PARQUET_ROWS, columns=schema.names, use_threads=False):
                for values in _values(batch.select(schema.names).cast(schema, safe=False)):
                    line += 1
                    if values is None:
                        yield Row(line, problem=NOT_UTF8)
                    else:
                        yield columns.row(line, {name: _json(one) for name, one in values.items()})
        except (pa.ArrowException, OSError) as error:
            why = str(error).partition("\n")[0]
            raise SourceError(
                f"{file.place}: can't be read as Parquet ({why}); write it again"
            ) from error


def _values(batch: pa.RecordBatch) -> Sequence[Mapping[str, object] | None]:
    """The batch's rows as values by column; None for one with text that is not UTF-8."""
    try:
        rows: Sequence[Mapping[str, object]] = batch.to_pylist()
        return rows
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        half = batch.num_rows // 2
        return [*_values(batch.slice(0, half)), *_values(batch.slice(half))]


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether values of a type are bytes, or hold some."""
    import pyarrow as pa

    inner = [kind.field(i).type for i in range(kind.num_fields)]
    if pa.types.is_dictionary(kind):
        inner = [kind.value_type]
    name = str(kind)
    return "binary" in name.partition("<")[0].partition("[")[0] or any(map(_holds_bytes, inner))


def _readable(kind: pa.DataType) -> pa.DataType:
    """The type that Python can hold: times to the microsecond."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if pa.types.is_time64(kind):
        return pa.time64("us")
    return pa.duration("us") if pa.types.is_duration(kind) else kind


def _json(value: object) -> Json:
    """A value of Parquet as JSON has it: dates as ISO text, what JSON lacks as text or null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): _json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json(one) for one in value]
    return str(value)


Reader: TypeAlias = Callable[[Opened], Iterator[Row]]
READERS: Mapping[str, Reader] = {
    "txt": read_lines,
    "csv": read_csv,
    "tsv": read_tsv,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
}
"""What reads a file, by the suffix of its name."""
