"""Rows sorted by key on disk: any number of them in flat memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from vistadex.errors import SourceError

BATCH = 1000
CACHE_KIB = 8 << 10
"""What SQLite holds in memory, for its pages and again for sorting."""


class Spool:
    """A temporary file of (key, value) that gives them back by rising key (code points).

    It lies in the folder of the variable TMPDIR, else in /var/tmp, and is gone when the spool is
    closed or the process ends. To be filled first, then read; by one thread at a time.
    """

    def __init__(self) -> None:
        self.rows = 0
        """How many were added."""
        self.duplicates = 0
        """How many of them items() has passed by so far, as their key came again later."""
        # The name "" is SQLite's for a file that is deleted as soon as it is opened.
        self._file = sqlite3.connect("", check_same_thread=False)
        self._file.execute("PRAGMA journal_mode = OFF")
        self._file.execute("PRAGMA temp_store = FILE")
        self._file.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._file.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, key TEXT, value TEXT)")
        self._waiting: list[tuple[str, str]] = []

    def add(self, key: str, value: str) -> None:
        """Takes a row; keys may come again.

        Raises: SourceError where the disk is full.
        """
        self._waiting.append((key, value))
        self.rows += 1
        if len(self._waiting) == BATCH:
            self._flush()

    def items(self, after: str | None = None) -> Iterator[tuple[str, str]]:
        """The last value of each key, by rising key, of keys greater than after.

        Raises: SourceError where the disk is full.
        """
        self.duplicates = 0
        for key, values in self.groups(after):
            self.duplicates += len(values) - 1
            yield key, values[-1]

    def groups(self, after: str | None = None) -> Iterator[tuple[str, list[str]]]:
        """All values of each key as they came, by rising key, of keys greater than after.

        Raises: SourceError where the disk is full.
        """
        self._flush()
        where, values = ("", ()) if after is None else ("WHERE key > ?", (after,))
        try:
            rows = self._file.execute(
                f"SELECT key, value FROM row {where} ORDER BY key, id", values
            )
            for key, group in groupby(rows, itemgetter(0)):
                yield key, [value for _, value in group]
        except sqlite3.Error as error:
            raise _disk_error(error) from error

    def close(self) -> None:
        """Removes the file."""
        self._file.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _flush(self) -> None:
        try:
            self._file.executemany("INSERT INTO row (key, value) VALUES (?, ?)", self._waiting)
        except sqlite3.Error as error:
            raise _disk_error(error) from error
        self._waiting.clear()


def _disk_error(error: sqlite3.Error) -> SourceError:
    advice = "expected room for sorted rows; free some, or set TMPDIR to a folder with more"
    return SourceError(f"temporary folder: {error}; {advice}")
