"""An archive as a source: the files in a zip, tar or tar.gz, read where they are."""

from __future__ import annotations

import logging
import os.path
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote
from weakref import WeakValueDictionary

from vistadex.errors import (
    SourceError,
    SourceMissingError,
    SourceUnavailableError,
    UsageError,
)
from vistadex.records import ImageEntry
from vistadex.sources import FILES, inflating, open_source, zip_members
from vistadex.sources.contract import Content, Source
from vistadex.sources.inflating import Inflated
from vistadex.sources.listing import Draft, Listing, Member, kept
from vistadex.sources.places import AddressError, Places, address, is_local
from vistadex.sources.retrying import with_retries
from vistadex.sources.stored import Broken, Stored
from vistadex.sources.tar_members import TarMembers
from vistadex.sources.zip_members import ZipMembers

SEVERAL_READS = 8
ONE_READ = 1
"""Of a packed tar one read after the other: they unpack what lies between them once."""

_OTHERS = {
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "RAR",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}

log = logging.getLogger(__name__)


class Members(Protocol):
    """What is in an archive of one kind."""

    def list(self, draft: Draft) -> None:
        """Enters all members. Raises: SourceError; Broken where there may be more of them."""
        ...

    def read(self, member: Member) -> bytes:
        """All bytes of a member. Raises: SourceError, Broken."""
        ...

    def read_range(self, member: Member, start: int, stop: int) -> bytes:
        """Some bytes of a member. Raises: SourceError, Broken."""
        ...

    def chunks(self, member: Member) -> Iterator[bytes]:
        """A member's bytes in order. Raises: SourceError, Broken, also after some pieces."""
        ...


@dataclass(frozen=True, slots=True)
class Contents:
    """One version of an archive."""

    version: str
    listing: Listing
    members: Members
    problem: str
    """Why the listing is not whole; empty: it is."""


class ArchiveSource(Source):
    """The files in an archive; keys are their names in it. Hidden ones are left out, as of folders.

    What kind of archive it is, its bytes say. Which files there are is found out once for each
    version of the archive and kept in the cache.
    """

    def __init__(self, uri: str) -> None:
        """A .zip, .tar, .tar.gz or .tgz: a path, or an address that can be read by ranges.

        Raises: SourceError where a file of this machine is missing; UsageError for an address that
            is none.
        """
        source, key, self.uri, local = _located(uri)
        if local:
            source.stat(key)
        else:
            packed = self.uri.lower().partition("?")[0].endswith((".gz", ".tgz"))
            self.read_ahead = ONE_READ if packed else SEVERAL_READS
        self._archive = _shared(self.uri, source, key, local=local)

    def pages(self, after: str | None = None) -> Iterator[list[ImageEntry]]:
        """See Source.

        Raises: SourceError where it is no archive; after all that can be read, where it breaks off.
        """
        contents = with_retries(self._archive.latest)
        self.partial = bool(contents.problem)
        if after is None and contents.listing.duplicates:
            what = "files whose name comes again in the archive; the last counts"
            log.warning("%s: %d %s", self.uri, contents.listing.duplicates, what)
        last = after or ""
        while page := contents.listing.page(last):
            last = page[-1].key
            yield page
        if contents.problem:
            raise SourceError(contents.problem)

    def read(self, key: str) -> Content:
        """See Source; the version is of the member alone."""
        contents, member = self._find(key)
        try:
            return Content(contents.members.read(member), member.version)
        except (SourceError, Broken) as error:
            return self._read_again(contents, key, error)

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """See Source; of a packed member, what lies before start is unpacked too."""
        contents, member = self._find(key)
        try:
            return contents.members.read_range(member, start, stop) if start < stop else b""
        except Broken as error:
            raise self._broken(key, error) from error

    def chunks(self, key: str) -> Iterator[bytes]:
        """See Source."""
        contents, member = self._find(key)
        try:
            yield from contents.members.chunks(member)
        except Broken as error:
            raise self._broken(key, error) from error

    def stat(self, key: str) -> ImageEntry:
        """See Source."""
        return self._find(key)[1].entry()

    def image_uri(self, key: str) -> str:
        """The archive's address and the name in it."""
        return f"{self.uri}/{key}"

    def _find(self, key: str) -> tuple[Contents, Member]:
        contents = self._archive.current()
        member = contents.listing.find(key)
        if member is None:
            contents = self._archive.latest()
            member = contents.listing.find(key)
        if member is None:
            raise SourceMissingError(f"{self.image_uri(key)}: the archive has no such file")
        if member.reason:
            raise SourceError(f"{self.image_uri(key)}: {member.message}")
        return contents, member

    def _read_again(self, contents: Contents, key: str, error: Exception) -> Content:
        """What could not be read, from another version of the archive if there is one by now."""
        if isinstance(error, SourceUnavailableError):
            raise error
        if self._archive.latest() is not contents:
            what = "the archive was changed while it was read; try again"
            raise SourceUnavailableError(f"{self.image_uri(key)}: {what}") from error
        if isinstance(error, Broken):
            raise self._broken(key, error) from error
        raise error

    def _broken(self, key: str, error: Broken) -> SourceError:
        return SourceError(f"{self.image_uri(key)}: {error}; fetch the archive again")


class _Archive:
    """An archive that all sources of this process with one address share."""

    def __init__(self, uri: str, source: Source, key: str, *, local: bool) -> None:
        self._uri = uri
        self._source = source
        self._key = key
        self._local = local
        self._lock = threading.Lock()
        self._contents: Contents | None = None

    def current(self) -> Contents:
        """What is in it: in a file of this machine at this moment, elsewhere when last asked."""
        contents = self._contents
        return self.latest() if contents is None or self._local else contents

    def latest(self) -> Contents:
        """What is in it at this moment.

        Raises: SourceError.
        """
        with self._lock:
            stored = self._stored()
            if self._contents is None or self._contents.version != stored.version:
                self._contents = self._opened(stored)
            return self._contents

    def _stored(self) -> Stored:
        return Stored(self._source, self._key, self._uri, local=self._local)

    def _opened(self, stored: Stored) -> Contents:
        members = _members(stored)
        if stored.known and (listing := kept(self._uri, stored.version)) is not None:
            return Contents(stored.version, listing, members, "")
        draft = Draft(self._uri, stored.version)
        try:
            problem = self._listed(draft, members)
            if self._stored().version != stored.version:
                raise SourceUnavailableError(f"{self._uri}: is being written; try later")
            listing = draft.finish(whole=stored.known and not problem)
            return Contents(stored.version, listing, members, problem)
        except BaseException:
            draft.discard()
            raise

    def _listed(self, draft: Draft, members: Members) -> str:
        """Enters all members; why there may be more of them, or nothing."""
        try:
            members.list(draft)
        except Broken as error:
            if error.damaged:
                draft.mark_damaged()
            return (
                f"{self._uri}: breaks off after {draft.members:,} files, at byte {error.at:,} "
                f"({error}); fetch it again; what could be read was read"
            )
        return ""


_OPEN: WeakValueDictionary[str, _Archive] = WeakValueDictionary()
_OPENING = threading.Lock()


def _shared(uri: str, source: Source, key: str, *, local: bool) -> _Archive:
    with _OPENING:
        archive = _OPEN.get(uri)
        if archive is None:
            archive = _OPEN[uri] = _Archive(uri, source, key, local=local)
        return archive


def _located(uri: str) -> tuple[Source, str, str, bool]:
    """The source that an archive lies in, its key there, its one address, and whether it is here.

    Raises: UsageError for an address that is none.
    """
    if uri.startswith("memory://"):
        name, _, key = uri.removeprefix("memory://").partition("/")
        return open_source(f"memory://{name}"), key, uri, False
    try:
        whole = address(uri, "") if "://" in uri else ""
        if not whole or is_local(whole):
            path = unquote(whole.removeprefix("file://")) if whole else os.path.expanduser(uri)
            path = _real(path)
            return *Places(local=True).locate(address(path, "")), path, True
        return *Places(local=False).locate(whole), whole, False
    except AddressError as error:
        raise UsageError(f"{uri}: {error}") from error


def _real(path: str) -> str:
    """A path without links; with the last one where only its name says that it is an archive."""
    real = os.path.realpath(path)
    if real.lower().endswith(tuple(FILES)):
        return real
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _members(stored: Stored) -> Members:
    """The reader for what an archive's bytes say that it is.

    Raises: SourceError where they are of no archive that is read here.
    """
    start = stored.read(0, tarfile.BLOCKSIZE)
    if not start:
        raise SourceError(f"{stored.place}: is empty, expected an archive; fetch it again")
    if start.startswith(zip_members.STARTS):
        return ZipMembers(stored)
    if start.startswith(inflating.START):
        return TarMembers(Inflated(stored))
    if _is_tar(start):
        return TarMembers(stored)
    if zip_members.has_table(stored):
        return ZipMembers(stored)
    advice = "expected a zip, tar or tar.gz"
    for mark, kind in _OTHERS.items():
        if start.startswith(mark):
            raise SourceError(f"{stored.place}: is {kind}, {advice}; unpack it, or pack it anew")
    raise SourceError(f"{stored.place}: begins with {start[:8]!r}, {advice}; check the file")


def _is_tar(start: bytes) -> bool:
    """Whether a block is the header of a tar archive, or the end of an empty one."""
    if len(start) < tarfile.BLOCKSIZE:
        return False
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return not any(start)
    return True
