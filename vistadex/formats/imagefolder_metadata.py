"""What metadata.csv and metadata.jsonl say of pictures, joined to these by name, on disk."""

from __future__ import annotations

import csv
import json
import posixpath
import sqlite3
from collections.abc import Iterator, Mapping

from vistadex.errors import SourceError, SourceMissingError
from vistadex.formats.contract import Problems
from vistadex.formats.folders import is_storable, lines_of, note_unreadable, shown, text_of
from vistadex.records import Json
from vistadex.sources import Source

METADATA = ("metadata.csv", "metadata.jsonl")
FILE_NAME, LABEL, LABELS = "file_name", "label", "labels"
SCHEMA = "CREATE TABLE described (key TEXT PRIMARY KEY, place TEXT, attributes TEXT) WITHOUT ROWID"
_UNREAD = ("metadata.parquet",)


def looks_like_metadata(key: str) -> bool:
    """Whether a file is named as metadata, also of a kind that is not read."""
    return posixpath.basename(key) in (*METADATA, *_UNREAD)


class Metadata:
    """Attributes by the keys of pictures."""

    def __init__(self, rows: sqlite3.Connection, source: Source, problems: Problems) -> None:
        self._rows = rows
        self._source = source
        self._problems = problems

    def load(self, folder: str) -> None:
        """Reads the files of one folder ("" or `train/`), where there are any."""
        for name, read in zip(METADATA, (self._csv_rows, self._json_rows), strict=True):
            key = f"{folder}{name}"
            try:
                for line, row in read(key):
                    self._add(folder, f"{self._source.image_uri(key)} line {line}", row)
            except SourceMissingError:
                continue
            except SourceError as error:
                note_unreadable(self._problems, self._source.image_uri(key), error)

    def take(self, key: str) -> Mapping[str, Json] | None:
        """What is said of a picture, once."""
        found = self._rows.execute(
            "SELECT attributes FROM described WHERE key = ?", (key,)
        ).fetchone()
        if found is None:
            return None
        self._rows.execute("DELETE FROM described WHERE key = ?", (key,))
        attributes: Mapping[str, Json] = json.loads(found[0])
        return attributes

    def note_unused(self) -> None:
        """Notes what is said of pictures that are not there."""
        for key, place in self._rows.execute("SELECT key, place FROM described"):
            found, expected = f"{shown(key)}, which is not there", "the name of a picture"
            cure = "correct the name or remove the line"
            self._problems.add("no-picture", place, found=found, expected=expected, cure=cure)

    def _add(self, folder: str, place: str, row: Mapping[str, Json]) -> None:
        name = row.get(FILE_NAME)
        if not isinstance(name, str) or not name:
            self._bad(place, f"no {FILE_NAME}", f"the name of a picture as {FILE_NAME}")
            return
        if not is_storable(dict(row)):
            self._bad(place, "text that is not Unicode, or a number that is none", "plain values")
            return
        key = folder + posixpath.normpath(name)
        text = json.dumps({k: v for k, v in row.items() if k != FILE_NAME}, ensure_ascii=False)
        done = self._rows.execute(
            "INSERT OR IGNORE INTO described VALUES (?, ?, ?)", (key, place, text)
        )
        if not done.rowcount:
            self._bad(place, f"{shown(name)} again", "each picture once", "the first line counts")

    def _csv_rows(self, key: str) -> Iterator[tuple[int, Mapping[str, Json]]]:
        """Rows as text by column, without empty cells."""
        place = self._source.image_uri(key)
        rows = csv.reader(self._decoded(key))
        header: list[str] | None = None
        while True:
            at = rows.line_num + 1
            try:
                row = next(rows, None)
            except csv.Error as error:
                self._bad(f"{place} line {at}", str(error), "a row of CSV")
                continue
            if row is None:
                return
            if header is None:
                header = row
                if FILE_NAME not in header or len(set(header)) < len(header):
                    expected = f"different columns, one of them {FILE_NAME}"
                    found, cure = f"the columns {shown(', '.join(header))}", "the file is left out"
                    self._bad(f"{place} line {at}", found, expected, cure)
                    return
            elif len(row) == len(header):
                cells = zip(header, row, strict=True)
                yield at, {name: cell for name, cell in cells if cell}
            elif row:
                self._bad(f"{place} line {at}", f"{len(row)} cells", f"{len(header)}, as in line 1")

    def _decoded(self, key: str) -> Iterator[str]:
        """Lines as text; bytes that are not UTF-8 as surrogates, which are no text."""
        for at, data in lines_of(self._source, key):
            text = data.decode("utf-8", "surrogateescape")
            yield f"{text.removeprefix(chr(0xFEFF)) if at == 1 else text}\n"

    def _json_rows(self, key: str) -> Iterator[tuple[int, Mapping[str, Json]]]:
        for at, data in lines_of(self._source, key):
            text = text_of(data)
            place, expected = f"{self._source.image_uri(key)} line {at}", "a JSON object in UTF-8"
            if text is None:
                self._bad(place, "text that is not UTF-8", expected)
                continue
            if not text.strip():
                continue
            try:
                row = json.loads(text, parse_constant=_refuse)
            except (ValueError, RecursionError) as error:
                self._bad(place, f"no JSON ({error})", expected)
                continue
            yield at, row if isinstance(row, dict) else {}

    def _bad(
        self, place: str, found: str, expected: str, cure: str = "the line is left out; correct it"
    ) -> None:
        self._problems.add("bad-metadata", place, found=found, expected=expected, cure=cure)


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is no JSON")
