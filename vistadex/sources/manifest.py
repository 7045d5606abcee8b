"""A manifest as a source: a file that names pictures by address, and says what else is known."""

from __future__ import annotations

import json
import logging
import os.path
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from vistadex.errors import SourceMissingError, UsageError
from vistadex.records import Failure, ImageEntry, shown_address
from vistadex.sources.contract import NO_VERSION, PAGE_SIZE, Content, Source
from vistadex.sources.manifest_rows import READERS, Opened, Reader, Row, is_text
from vistadex.sources.places import AddressError, Places, address, file_address, is_local
from vistadex.sources.retrying import with_retries
from vistadex.sources.spool import Spool

log = logging.getLogger(__name__)


class ManifestSource(Source):
    """The pictures that a list, table or Parquet file names. A key is a whole address."""

    read_ahead = 8
    names_only = True

    def __init__(self, uri: str) -> None:
        """A .txt, .csv, .tsv, .jsonl or .parquet file: a path, or an address that can be read.

        Raises: SourceError where a file of this machine is missing; UsageError for an address that
            is none.
        """
        whole = _address_of(uri)
        suffix = whole.partition("?")[0].rpartition(".")[2].lower()
        if suffix not in READERS:
            names = ", ".join(f".{name}" for name in READERS)
            raise UsageError(f"{uri}: is no manifest by its name, expected {names}; rename it")
        self.uri = shown_address(whole)
        self._reader: Reader = READERS[suffix]
        self._address = whole
        self._places = Places(local=is_local(whole))
        if is_local(whole):
            source, key = self._places.locate(whole)
            source.stat(key)

    def pages(self, after: str | None = None) -> Iterator[list[ImageEntry]]:
        """See Source. The whole manifest is read before the first page, to have it in key order."""
        with with_retries(self._spooled) as spool:
            entries = (_entry(*item) for item in spool.items(after))
            while page := list(islice(entries, PAGE_SIZE)):
                yield page
            if spool.duplicates:
                what = "rows whose address comes again in a later row, which counts"
                log.warning("%s: %d %s", self.uri, spool.duplicates, what)

    def read(self, key: str) -> Content:
        """See Source. Its version is empty, which stands for the one that the listing said."""
        source, name = self._places.locate(key)
        return replace(source.read(name), version="")

    def read_within(self, key: str, max_bytes: int) -> Content:
        """See Source."""
        source, name = self._places.locate(key)
        return replace(source.read_within(name, max_bytes), version="")

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """See Source."""
        source, name = self._places.locate(key)
        return source.read_range(name, start, stop)

    def chunks(self, key: str) -> Iterator[bytes]:
        """See Source."""
        source, name = self._places.locate(key)
        return source.chunks(name)

    def stat(self, key: str) -> ImageEntry:
        """See Source; the version is that of an image of which the manifest names none."""
        source, name = self._places.locate(key)
        return replace(source.stat(name), key=key, version=NO_VERSION)

    def only_public(self) -> None:
        """See Source."""
        self._places = Places(local=is_local(self._address), public_only=True)

    def _spooled(self) -> Spool:
        """All rows, to be given back by key.

        Raises: SourceError where the manifest can't be read, or names nothing.
        """
        source, key = self._places.locate(self._address)
        self.partial = False
        spool = Spool()
        try:
            for row in self._reader(Opened(source, key, self.uri, local=is_local(self._address))):
                self._add(spool, row)
            if not spool.rows:
                raise SourceMissingError(f"{self.uri}: names no pictures, expected one a line")
        except BaseException:
            spool.close()
            raise
        return spool

    def _add(self, spool: Spool, row: Row) -> None:
        self.partial = self.partial or bool(row.problem)  # it may be that of a known image
        said = json.dumps(
            [row.version or NO_VERSION, row.size_bytes, row.attributes], ensure_ascii=False
        )
        try:
            key = self._key(row)
            if not is_text(said):
                raise AddressError("holds text that is no Unicode (half of a surrogate pair)")
            spool.add(key, said)
        except AddressError as error:
            why = f"{self.uri} line {row.line}: {error}"
            spool.add(f"{self._address}#line={row.line}", json.dumps([NO_VERSION, None, None, why]))

    def _key(self, row: Row) -> str:
        """The address of the picture that a row names.

        Raises: AddressError where it names none.
        """
        if row.problem:
            raise AddressError(row.problem)
        key = address(row.address, self._address.rpartition("/")[0] + "/")
        if is_local(key) and not is_local(self._address):
            raise AddressError("names a file of this machine, which only a manifest on it may do")
        return key


def _entry(key: str, said: str) -> ImageEntry:
    """An image as its row in the spool says it."""
    version, size_bytes, attributes, *problem = json.loads(said)
    failure = Failure("bad_name", problem[0]) if problem else None
    return ImageEntry(key, size_bytes, version, failure, attributes)


def _address_of(uri: str) -> str:
    """The address of a manifest as a user writes it."""
    try:
        if "://" in uri:
            return address(uri, "")
        return file_address(os.path.realpath(os.path.expanduser(uri)))
    except AddressError as error:
        raise UsageError(f"{uri}: {error}") from error
