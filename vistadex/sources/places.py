"""Whole addresses of files: one way to write each, and the source that stands behind it."""

from __future__ import annotations

import os.path
import re
import threading
from collections import OrderedDict
from urllib.parse import quote, unquote

from vistadex.errors import SourceMissingError
from vistadex.sources import open_source
from vistadex.sources.contract import Source
from vistadex.sources.web_files import web_problem

OPEN_SOURCES = 64
"""Sources that are kept open, with their connections; of more, the one longest unused goes."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PLAIN_WEB = re.compile(r"https?://[a-z0-9.-]+/[!\"$-~]*")
"""Most addresses; there is nothing to check or change in them."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DEFAULT_PORTS = {"http:": ":80", "https:": ":443"}
_BUCKETS = {"s3": "s3", "s3a": "s3", "gs": "gs", "az": "az"}
_KNOWN = "http(s)://, s3://, gs://, az://, file:/// or a path"


class AddressError(ValueError):
    """A text is no address of a file; the message says why, without its place."""


def address(text: str, folder: str) -> str:
    """The one way to write an address: the same file always gives the same text.

    Args:
        text: a whole address, an absolute path, or a name below the folder.
        folder: an address that ends in "/".
    Raises: AddressError.
    """
    if _PLAIN_WEB.fullmatch(text):
        return text
    text = text.strip()
    if not text:
        raise AddressError("the address is empty")
    if "\0" in text or (not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)):
        raise AddressError("the address is not UTF-8, or holds a NUL")
    if match := _SCHEME.match(text):
        return _whole(match[1].lower(), text[match.end() :])
    if text.startswith("/"):
        return file_address(text)
    return _below(folder, text)


def file_address(path: str) -> str:
    """The address of a file of this machine."""
    # normpath keeps two leading slashes, which POSIX lets mean anything.
    return "file://" + quote("/" + os.path.normpath(path).lstrip("/"))


def is_local(whole: str) -> bool:
    """Whether an address is that of a file of this machine."""
    return whole.startswith("file://")


def _whole(scheme: str, rest: str) -> str:
    if scheme in ("http", "https"):
        return _web(f"{scheme}://{rest}")
    if scheme == "file":
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost") or not slash:
            raise AddressError(f"names the host {host!r}; write file:///folder/name")
        return file_address("/" + unquote(path, errors="strict"))
    if scheme not in _BUCKETS:
        raise AddressError(f"{scheme}:// is unknown, expected {_KNOWN}")
    bucket, _, key = rest.partition("/")
    if "@" in bucket:
        raise AddressError("names a user; keys don't belong in an address")
    if not bucket or not key:
        raise AddressError(f"names no file; write {scheme}://bucket/name")
    return f"{_BUCKETS[scheme]}://{bucket}/{key}"


def _web(url: str) -> str:
    if why := web_problem(url):
        raise AddressError(why)
    if _CONTROL.search(url):
        raise AddressError("holds a control character; percent-encode it")
    root, mark, rest = url.partition("#")[0].partition("//")
    end = next((i for i, char in enumerate(rest) if char in "/?"), len(rest))
    host, path = rest[:end].lower(), rest[end:]
    host = host.removesuffix(_DEFAULT_PORTS[root]).removesuffix(":")
    return f"{root}{mark}{host}{path if path.startswith('/') else '/' + path}"


def _below(folder: str, name: str) -> str:
    """The address of a name below a folder; on a web server its special characters are encoded."""
    scheme, _, rest = folder.partition("://")
    if scheme == "file":
        return file_address(os.path.join(unquote(rest), name))
    root, _, prefix = rest.partition("/")
    parts = prefix.split("/")[:-1]
    for part in name.split("/"):
        if part == ".." and not parts:
            raise AddressError("leads out of the place where the manifest lies")
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part if scheme in _BUCKETS else quote(part))
    return f"{scheme}://{root}/" + "/".join(parts)


class Places:
    """Reads by whole address: opens the source before the name, and keeps it open for the next."""

    def __init__(self, *, local: bool, public_only: bool = False) -> None:
        """With local=False, addresses of files of this machine are refused; with public_only those
        of web servers in private networks, see downloads.fetch.
        """
        self._local = local
        self._public_only = public_only
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Source] = OrderedDict()

    def locate(self, whole: str) -> tuple[Source, str]:
        """The source of an address as address() gives it, and the key in that source.

        Raises: SourceError where the source can't be used, or the address is none.
        """
        match = _SCHEME.match(whole)
        if match is None or (is_local(whole) and not self._local):
            raise SourceMissingError(f"{whole}: not an address that this manifest may name")
        if is_local(whole):
            return self._source("/"), unquote(whole[len("file:///") :])
        root, _, key = whole[match.end() :].partition("/")
        return self._source(match[0] + root), key

    def _source(self, uri: str) -> Source:
        with self._lock:
            source = self._open.get(uri) or open_source(uri)
            if self._public_only:
                source.only_public()
            self._open[uri] = source
            self._open.move_to_end(uri)
            if len(self._open) > OPEN_SOURCES:
                self._open.popitem(last=False)
            return source
