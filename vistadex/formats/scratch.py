"""A database on disk for the time of one call: joins and groups what does not fit in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from vistadex.errors import FormatError

CACHE_KIB = 8192


@contextmanager
def scratch(schema: str) -> Iterator[sqlite3.Connection]:
    """A private SQLite database in the folder for temporary files, gone at the end.

    Args:
        schema: statements that make its tables.
    Raises: FormatError where the disk is full.
    """
    try:
        with closing(sqlite3.connect("", isolation_level=None, check_same_thread=False)) as rows:
            rows.executescript(
                f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE;"
                f"PRAGMA cache_size=-{CACHE_KIB}; BEGIN; {schema}"
            )
            yield rows
    except sqlite3.OperationalError as error:
        place = f"temporary file: {error}, expected room for a copy of the annotations"
        raise FormatError(f"{place}; set TMPDIR to a folder on a larger disk") from error
