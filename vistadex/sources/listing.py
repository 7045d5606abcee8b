"""What an archive holds, by key: a SQLite file that is written once and then only read."""

from __future__ import annotations

import hashlib
import logging
import os
import posixpath
import sqlite3
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from glob import escape, glob
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vistadex import settings
from vistadex.errors import SourceError
from vistadex.records import Failure, ImageEntry
from vistadex.sources.contract import PAGE_SIZE

LAYOUT = 1
"""Of the tables below and what their values mean; listings of another are made anew."""
BATCH = 1000
CACHE_KIB = 8 << 10
DRAFT_LIFE_S = 86_400
MOST_HOPS = 40
"""Links that lead over more other links lead nowhere, as on Linux."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive, and where its bytes are."""

    key: str
    version: str
    size_bytes: int
    offset: int
    """Where its header begins."""
    lead_bytes: int
    """The most that its header takes."""
    packed_bytes: int
    method: str
    """How it is packed; empty: not at all."""
    checksum: int
    """Checksum to know its bytes, or its header, by."""
    reason: str = ""
    """One of FAILURE_REASONS where it can't be read."""
    message: str = ""

    def entry(self) -> ImageEntry:
        """It as a source lists it."""
        failure = Failure(self.reason, self.message) if self.reason else None
        return ImageEntry(self.key, self.size_bytes, self.version, failure)


COLUMNS = tuple(field.name for field in fields(Member))
_values = attrgetter(*COLUMNS)
_TABLE = f"CREATE TABLE member ({', '.join(COLUMNS)}, hidden, PRIMARY KEY (key)) WITHOUT ROWID"
_INSERT = f"INSERT OR REPLACE INTO member VALUES ({', '.join('?' * (len(COLUMNS) + 1))})"
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM member"
_SELECT_ENTRY = "SELECT key, size_bytes, version, reason, message FROM member"


class Listing:
    """The members of one version of an archive, by key; safe in threads."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Raises: sqlite3.Error where it is no listing of this layout."""
        about = dict(connection.execute("SELECT name, value FROM about"))
        if about["layout"] != LAYOUT:
            raise sqlite3.DatabaseError("another layout")
        self.duplicates: int = about["duplicates"]
        self._connection = connection
        self._lock = threading.Lock()
        weakref.finalize(self, connection.close)

    def page(self, after: str) -> list[ImageEntry]:
        """The next entries by rising key, PAGE_SIZE at most.

        Raises: SourceError where the listing's file is damaged.
        """
        query = f"{_SELECT_ENTRY} WHERE key > ? ORDER BY key LIMIT {PAGE_SIZE}"
        return [
            ImageEntry(key, size_bytes, version, Failure(reason, message) if reason else None)
            for key, size_bytes, version, reason, message in self._rows(query, after)
        ]

    def find(self, key: str) -> Member | None:
        """The member of that name.

        Raises: SourceError like page.
        """
        rows = self._rows(f"{_SELECT} WHERE key = ?", key)
        return Member(*rows[0]) if rows else None

    def _rows(self, query: str, key: str) -> list[tuple[Any, ...]]:
        if not _is_text(key):
            return []
        try:
            with self._lock:
                return self._connection.execute(query, (key,)).fetchall()
        except sqlite3.Error as error:
            what = f"{error}, expected an archive's listing; remove the folder"
            raise SourceError(f"{_folder()}: {what}") from error


class Draft:
    """A listing that is being made: members and links in any order, the last of a name counts."""

    def __init__(self, uri: str, version: str) -> None:
        """Raises: SourceError where no file can be made, neither in the cache nor elsewhere."""
        self.members = 0
        self._path = _path(uri, version)
        self._part = _new_file()
        self._waiting: list[tuple[object, ...]] = []
        self._links = False
        try:
            self._db = sqlite3.connect(self._part, check_same_thread=False, isolation_level=None)
            for pragma in (
                "journal_mode = OFF",
                "synchronous = OFF",
                "temp_store = FILE",
                f"cache_size = -{CACHE_KIB}",
            ):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.execute(_TABLE)
            self._db.execute("CREATE TABLE link (key PRIMARY KEY, target) WITHOUT ROWID")
            self._db.execute("CREATE TABLE about (name PRIMARY KEY, value)")
            self._db.execute("BEGIN")
        except sqlite3.Error as error:
            raise _disk_error(self._part, error) from error

    def add(self, member: Member) -> None:
        """Takes a member; names that are hidden are kept for links to them, and not listed."""
        hidden = _is_hidden(member.key)
        self.members += not hidden
        if self._links:
            self._write("DELETE FROM link WHERE key = ?", (member.key,))
        self._waiting.append((*_values(member), hidden))
        if len(self._waiting) >= BATCH:
            self._flush()

    def add_link(self, key: str, target: str) -> None:
        """Takes a name for another member's bytes, whether that one is there yet or not."""
        if _is_hidden(key):
            return
        self._links = True
        self.members += 1
        self._flush()
        self._write("DELETE FROM member WHERE key = ?", (key,))
        self._write("INSERT OR REPLACE INTO link VALUES (?, ?)", (key, target))

    def mark_damaged(self) -> None:
        """Gives all members versions of their own, so that those of a whole archive are new.

        Raises: SourceError where the disk is full.
        """
        self._flush()
        self._write("UPDATE member SET version = version || ?", ("-damaged",))

    def finish(self, *, whole: bool) -> Listing:
        """The listing; that of an archive which is whole stays in the cache for the next time.

        Raises: SourceError where the disk is full.
        """
        self._flush()
        try:
            listed = self._one("SELECT count(*) FROM member WHERE NOT hidden")
            listed += self._one("SELECT count(*) FROM link")
            for key, target in self._db.execute("SELECT key, target FROM link"):
                self._resolve(key, target)
                if len(self._waiting) >= BATCH:
                    self._flush()
            self._flush()
            self._db.execute("DELETE FROM member WHERE hidden")
            self._db.execute("DROP TABLE link")
            about = {"layout": LAYOUT, "duplicates": self.members - listed}
            self._db.executemany("INSERT INTO about VALUES (?, ?)", about.items())
            self._db.execute("COMMIT")
            listing = Listing(self._db)
        except sqlite3.Error as error:
            raise _disk_error(self._part, error) from error
        self._keep(whole and os.path.dirname(self._part) == os.path.dirname(self._path))
        return listing

    def discard(self) -> None:
        """Removes what is there so far."""
        self._db.close()
        with suppress(FileNotFoundError):
            os.unlink(self._part)

    def _keep(self, keep: bool) -> None:
        """Puts the file in place of those of other versions, or leaves it without a name."""
        if not keep:
            os.unlink(self._part)
            return
        with open(self._part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(self._part, self._path)
        for path in glob(escape(self._path.rpartition("-")[0]) + "-*"):
            if path != self._path:
                with suppress(OSError):
                    os.unlink(path)

    def _resolve(self, key: str, target: str) -> None:
        """Enters a link as the member that it leads to; one to a folder is left out."""
        name = target
        for _ in range(MOST_HOPS):
            row = self._db.execute(f"{_SELECT} WHERE key = ?", (name,)).fetchone()
            if row is not None:
                self._waiting.append((*_values(replace(Member(*row), key=key)), False))
                return
            further = self._db.execute("SELECT target FROM link WHERE key = ?", (name,)).fetchone()
            if further is None:
                break
            name = further[0]
        else:
            self._add_broken(key, f"a link to {target!r}, which leads in a circle")
            return
        inside = "SELECT count(*) FROM (SELECT 1 FROM member WHERE key > ? AND key < ? LIMIT 1)"
        if not self._db.execute(inside, (name + "/", name + "0")).fetchone()[0]:
            self._add_broken(key, f"a link to {target!r}, which is not in the archive")

    def _add_broken(self, key: str, why: str) -> None:
        """Enters a link that leads to nothing."""
        message = f"{why}; pack with --dereference"
        broken = Member(key, "", 0, 0, 0, 0, "", 0, "unreadable", message)
        self._waiting.append((*_values(broken), False))

    def _one(self, query: str) -> int:
        number: int = self._db.execute(query).fetchone()[0]
        return number

    def _flush(self) -> None:
        try:
            self._db.executemany(_INSERT, self._waiting)
        except sqlite3.Error as error:
            raise _disk_error(self._part, error) from error
        self._waiting.clear()

    def _write(self, statement: str, values: tuple[str, ...]) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise _disk_error(self._part, error) from error


def kept(uri: str, version: str) -> Listing | None:
    """The listing of an archive that an earlier run has left in the cache."""
    path = _path(uri, version)
    if not os.path.exists(path):
        return None
    try:
        address = f"file:{quote(path)}?mode=ro&immutable=1"
        connection = sqlite3.connect(address, uri=True, check_same_thread=False)
        try:
            return Listing(connection)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, KeyError) as error:
        log.warning("%s: %s, expected a listing; reading the archive again", path, error)
        return None


def link_target(key: str, target: str) -> str:
    """The key to which a symbolic link leads; what leads out of the archive is no key."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(key), target))


def _is_text(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _is_hidden(key: str) -> bool:
    """Whether a folder's listing would leave it out, or it is what macOS adds."""
    parts = key.split("/")
    return parts[0] == "__MACOSX" or any(
        part.startswith(".") and part not in (".", "..") for part in parts
    )


def _folder() -> str:
    return str(Path(settings.value("cache", None, str), "archives").absolute())


def _path(uri: str, version: str) -> str:
    """Where the listing of an archive lies; those of its versions differ after the last "-"."""
    whole, one = (
        hashlib.sha256(text.encode()).hexdigest()[:32] for text in (uri, f"{LAYOUT}\0{version}")
    )
    return os.path.join(_folder(), f"{whole}-{one}.db")


def _new_file() -> str:
    """An empty file in the cache, or else where temporary files are."""
    folder = _folder()
    try:
        os.makedirs(folder, exist_ok=True)
        _tidy(folder)
        number, path = tempfile.mkstemp(".part", dir=folder)
    except OSError as error:
        log.warning("%s: %s; listings of archives are not kept", folder, error.strerror)
        try:
            number, path = tempfile.mkstemp(".vistadex")
        except OSError as worse:
            raise _disk_error(tempfile.gettempdir(), worse) from worse
    os.close(number)
    return path


def _tidy(folder: str) -> None:
    """Removes the drafts that runs have left which were killed."""
    for path in glob(os.path.join(escape(folder), "*.part")):
        with suppress(OSError):
            if time.time() - os.path.getmtime(path) > DRAFT_LIFE_S:
                os.unlink(path)


def _disk_error(path: str, error: Exception) -> SourceError:
    advice = "expected room for an archive's listing; free some, or set VISTADEX_CACHE"
    return SourceError(f"{path}: {error}; {advice}")
