"""Bytes of http(s) addresses: whole, a range, or resumed into a file; the home of urllib3."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version as installed_version
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

import urllib3
from urllib3 import BaseHTTPResponse
from urllib3 import exceptions as foreign

from vistadex.connections import pool, proxy_for, public_addresses
from vistadex.errors import (
    SourceDeniedError,
    SourceError,
    SourceMissingError,
    SourceTooLargeError,
    SourceUnavailableError,
    UsageError,
)

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
SLOWEST_BYTES_PER_S = 10_000
"""What is read into memory may come so slowly on average, after the time for a silence."""
SLOWEST_PUBLIC_BYTES_PER_S = 500_000
"""Likewise, of addresses that others may have chosen, so that they hold nobody up for long."""
MAX_BODY_BYTES = 1 << 30
MAX_REDIRECTS = 5
CHUNK_BYTES = 1 << 18

_DENIED = {401, 403, 407}
_MISSING = {404, 410}
_PASSING = {408, 425, 429}
_REDIRECTS = {301, 302, 303, 307, 308}
_HEAD_REFUSED = {403, 405, 501}
_SUCCESSES = {200, 206}
_PAST_THE_END = {416}

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)")
_NO_NETWORK = {errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, socket.EAI_AGAIN}
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (foreign.ProxyError, "the proxy can't be reached; check http_proxy and https_proxy"),
    (
        foreign.NameResolutionError,
        "no network, or no host of that name; connect this machine or check the address",
    ),
    (
        foreign.NewConnectionError,
        "nothing answers at that host and port; check the address, or try again later",
    ),
    (
        foreign.ConnectTimeoutError,
        f"no answer within {CONNECT_TIMEOUT_S:g} s; check network and address, then try again",
    ),
    (foreign.ReadTimeoutError, "the server fell silent; try again later"),
)
"""What an error of urllib3 means, and what to do; the first that fits."""

Told = Callable[[int, int | None], None]
"""Called with the bytes that are there and how many there will be (None: not stated)."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answered."""

    data: bytes
    version: str
    """The ETag without quotes, else the time of the last change and the length; empty: neither."""
    size_bytes: int | None
    """Length of the whole file; None: not stated."""


def fetch(
    url: str,
    *,
    start: int = 0,
    stop: int | None = None,
    max_bytes: int | None = None,
    timeout_s: float = READ_TIMEOUT_S,
    public_only: bool = False,
) -> Response:
    """The bytes from start up to stop, cut at the file's end as Python cuts slices.

    Args:
        stop: the file's end if not given.
        max_bytes: more is refused; MAX_BODY_BYTES if not given.
        public_only: whether hosts in private networks are refused, also behind redirects. Behind
            a proxy the names are looked up here and there, which need not be the same.
    Raises: SourceMissingError, SourceDeniedError, SourceUnavailableError; SourceTooLargeError;
        SourceError for what is answered against the rules; UsageError for what is no http(s)
        address.
    """
    if stop is not None and stop <= start:
        return head(url, timeout_s=timeout_s, public_only=public_only)
    limit = MAX_BODY_BYTES if max_bytes is None else max_bytes
    asked = _range(start, stop)
    fine = _PAST_THE_END if asked else ()
    slowest = SLOWEST_PUBLIC_BYTES_PER_S if public_only else SLOWEST_BYTES_PER_S
    with _opened("GET", url, asked, timeout_s, fine=fine, public_only=public_only) as answer:
        size = _whole_size(answer)
        if answer.status in _PAST_THE_END and (size is None or size <= start):
            return Response(b"", _version(answer), size)
        if start > 0 and answer.status == 200:
            raise SourceError(
                f"{shown(url)}: the server does not give ranges, expected the bytes from "
                f"{start:,} on; download the file and give its path"
            )
        first = _first_byte(answer)
        if first is None or first > start:
            raise SourceError(
                f"{shown(url)}: answered with other bytes than those from {start:,} on; expected "
                "the range that was asked for; the server does not keep to HTTP"
            )
        ends = [end for end in (stop, size) if end is not None]
        wanted = max(0, min(ends) - start) if ends else None
        data = _read(answer, url, start - first, wanted, limit, timeout_s, slowest)
        return Response(data, _version(answer), size)


def head(url: str, *, timeout_s: float = READ_TIMEOUT_S, public_only: bool = False) -> Response:
    """The version and size of a file without its bytes; one byte is asked for where HEAD fails.

    Raises: as fetch.
    """
    fine = _HEAD_REFUSED
    with _opened("HEAD", url, {}, timeout_s, fine=fine, public_only=public_only) as answer:
        size = _whole_size(answer)
        if answer.status not in _HEAD_REFUSED and size is not None:
            return Response(b"", _version(answer), size)
    asked = fetch(url, stop=1, timeout_s=timeout_s, public_only=public_only)
    return Response(b"", asked.version, asked.size_bytes)


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    size_bytes: int | None = None,
    progress: Told | None = None,
    bearer: str = "",
    timeout_s: float = READ_TIMEOUT_S,
    public_only: bool = False,
) -> str:
    """Writes a file whole or not at all, going on where an earlier call broke off; its SHA-256.

    What has come lies in `<path>.part`, and its version in `<path>.part.version`: a file that has
    another version by then is begun again.

    Args:
        sha256, size_bytes: what the file must have.
        bearer: a token, sent to the address's own host only.
        public_only: as for fetch.
    Raises: SourceUnavailableError where it broke off (what has come is kept); SourceError if it is
        not the expected file (nothing is kept) or can't be written; else as fetch.
    """
    with _written(path), _kept(path) as kept:
        headers = {**_range(kept.offset, None), **kept.condition()}
        fine = _PAST_THE_END if kept.offset else ()
        with _opened(
            "GET", url, headers, timeout_s, bearer, fine=fine, public_only=public_only
        ) as answer:
            whole = _continued(answer, url, kept)
            _check_size(url, kept, whole, size_bytes)
            _receive(answer, url, kept, size_bytes or whole, progress)
        if whole is not None and kept.offset < whole:
            raise _broken_off(url, kept.offset, whole)
        _check_size(url, kept, kept.offset, size_bytes)
        found = kept.digest.hexdigest()
        if sha256 is not None and found != sha256.lower():
            kept.drop()
            raise SourceError(
                f"{shown(url)}: the SHA-256 of what came is {found}, expected {sha256.lower()}; "
                "it is not the file that was meant and was deleted; check address and SHA-256"
            )
        kept.move(path)
    return found


def shown(url: str) -> str:
    """An address as messages show it: without user, password, query and fragment."""
    try:
        split = urlsplit(url)
        port = f":{split.port}" if split.port else ""  # not a number: half a password
    except ValueError:
        return "an address that can't be read"
    host = split.netloc.rpartition("@")[2].removesuffix(port)
    return f"{split.scheme}://{host}{port}{split.path}"


def redirect_target(url: str, location: str) -> str:
    """The absolute address that a redirect leads to.

    Raises: SourceError where it leads from https to http, or away from http(s).
    """
    schemes = ("https",) if urlsplit(url).scheme == "https" else ("http", "https")
    try:
        target = urljoin(url, location)
    except ValueError:
        target = ""
    if not shown(target).startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise SourceError(
            f"{shown(url)}: redirected to {shown(target)}, expected {' or '.join(schemes)}; "
            "it was not followed; check the address"
        )
    return target


class _Kept:
    """The part of a file that has come, in this call and earlier ones, with its hash."""

    def __init__(self, part: Path, file: BinaryIO) -> None:
        self.part = part
        self.file = file
        self.version_file = part.with_name(part.name + ".version")
        self.validator = ""
        if self.version_file.exists():
            self.validator = self.version_file.read_text(encoding="latin-1")
        self.digest = hashlib.sha256()
        self.offset = 0
        if not self.validator:
            file.truncate()
        while chunk := file.read(CHUNK_BYTES):
            self._count(chunk)

    def condition(self) -> dict[str, str]:
        """The header that makes a server send everything if the file has changed."""
        return {"If-Range": self.validator} if self.offset else {}

    def restart(self, validator: str) -> None:
        """Empties the file; later calls go on only with what has this validator."""
        self.file.seek(0)
        self.file.truncate()
        self.version_file.write_text(validator, encoding="latin-1")
        self.digest = hashlib.sha256()
        self.offset = 0

    def write(self, chunk: bytes) -> None:
        """Adds bytes to the end."""
        self.file.write(chunk)
        self._count(chunk)

    def move(self, path: Path) -> None:
        """Makes the part the whole file."""
        self.file.flush()
        os.fsync(self.file.fileno())
        os.replace(self.part, path)
        self.version_file.unlink(missing_ok=True)

    def drop(self) -> None:
        """Deletes what has come."""
        self.part.unlink(missing_ok=True)
        self.version_file.unlink(missing_ok=True)

    def _count(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        self.offset += len(chunk)


@contextmanager
def _kept(path: Path) -> Iterator[_Kept]:
    """What has come of a file, locked against other processes; deleted where it is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.stat(part), os.fstat(descriptor))
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if not ours:
            raise SourceUnavailableError(
                f"{part}: another download writes this file; wait for it, then try again"
            )
        kept = _Kept(part, file)
        try:
            yield kept
        finally:
            if not kept.offset:
                kept.drop()


def _continued(answer: BaseHTTPResponse, url: str, kept: _Kept) -> int | None:
    """The whole file's size; empties what was kept unless the answer goes on from there."""
    whole = _whole_size(answer)
    if answer.status == 200:
        kept.restart(_validator(answer))
    elif _validator(answer) not in ("", kept.validator) or (
        kept.offset not in (_first_byte(answer), whole)
    ):
        kept.drop()
        raise SourceUnavailableError(
            f"{shown(url)}: the answer does not go on from byte {kept.offset:,}; what had come "
            "was deleted; try again"
        )
    return whole


def _receive(
    answer: BaseHTTPResponse, url: str, kept: _Kept, expected: int | None, progress: Told | None
) -> None:
    """Adds the answer's bytes to what is kept, and one chunk too many at most."""
    if answer.status in _PAST_THE_END:
        return
    for chunk in _chunks(answer, url):
        kept.write(chunk)
        if progress is not None:
            progress(kept.offset, expected)
        if expected is not None and kept.offset > expected:
            return


def _check_size(url: str, kept: _Kept, size: int | None, expected: int | None) -> None:
    if expected is not None and size is not None and size != expected:
        kept.drop()
        raise SourceError(
            f"{shown(url)}: the file has {size:,} bytes, expected {expected:,}; it is not the file "
            "that was meant, and nothing was kept; check the address"
        )


def _read(
    answer: BaseHTTPResponse,
    url: str,
    skip: int,
    wanted: int | None,
    limit: int,
    timeout_s: float,
    slowest: int,
) -> bytes:
    """The wanted bytes behind those to be skipped.

    Raises: SourceTooLargeError if there are more than the limit; SourceUnavailableError if fewer
        came, or they come more slowly than the slowest bytes per second.
    """
    begun = time.monotonic()
    body = BytesIO()  # gives its bytes out without another copy of them
    length = 0
    _check_limit(url, wanted or 0, limit, wanted)
    for chunk in _pieces(answer, url):
        part = chunk[skip:] if wanted is None else chunk[skip : skip + wanted - length]
        skip = max(0, skip - len(chunk))
        length += len(part)
        _check_limit(url, length, limit, wanted)
        body.write(part)
        if length == wanted:
            break
        if time.monotonic() - begun > timeout_s + length / slowest:
            what = f"only {length:,} bytes came in {time.monotonic() - begun:.0f} s"
            raise SourceUnavailableError(f"{shown(url)}: {what}; try again later")
    if wanted is not None and length < wanted:
        raise _broken_off(url, length, wanted)
    return body.getvalue()


def _check_limit(url: str, length: int, limit: int, stated: int | None) -> None:
    if length > limit:
        raise SourceTooLargeError(
            f"{shown(url)}: more than {limit:,} bytes, expected no more to be read into memory; "
            "make the file smaller or the limit larger",
            stated,
        )


@contextmanager
def _opened(
    method: str,
    url: str,
    headers: Mapping[str, str],
    timeout_s: float,
    bearer: str = "",
    *,
    fine: Collection[int] = (),
    public_only: bool = False,
) -> Iterator[BaseHTTPResponse]:
    """An answer with a good status, or one of the fine ones, behind all redirects."""
    here = url
    _check_address(url)
    for _ in range(MAX_REDIRECTS + 1):
        access = _authorization(url, bearer) if _origin(here) == _origin(url) else {}
        answer = _ask(method, here, {**headers, **access}, timeout_s, public_only)
        try:
            if answer.status not in _REDIRECTS:
                if answer.status not in _SUCCESSES and answer.status not in fine:
                    raise _refusal(answer, url)
                yield answer
                return
        except SourceUnavailableError:
            answer.close()  # or what is left of the body would be waited for
            raise
        finally:
            _let_go(answer)
        here = redirect_target(here, answer.headers.get("Location", ""))
    raise SourceError(
        f"{shown(url)}: redirected more than {MAX_REDIRECTS} times; check the address"
    )


def _let_go(answer: BaseHTTPResponse) -> None:
    """Keeps the connection for the next question, unless much of the body is unread."""
    unread = answer.length_remaining
    if not answer.closed and unread is not None and unread <= CHUNK_BYTES:
        answer.drain_conn()
    answer.close()


def _check_address(url: str) -> None:
    if not re.match("https?://[^/]", shown(url)):
        raise UsageError(f"{shown(url)}: no web address, expected http(s)://host/path; check it")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    split = urlsplit(url)
    return split.scheme, split.hostname, split.port


def _ask(
    method: str, url: str, headers: Mapping[str, str], timeout_s: float, public_only: bool
) -> BaseHTTPResponse:
    """One answer to one question, its body unread."""
    split = urlsplit(url)
    address = split._replace(netloc=split.netloc.rpartition("@")[2], fragment="").geturl()
    proxy = proxy_for(split.scheme, split.hostname or "")
    with _translated(url):
        if proxy and public_only:
            public_addresses(split.hostname or "", split.port)
        return pool(os.getpid(), proxy, public_only).request(
            method,
            address,
            headers={"User-Agent": _agent(), "Accept-Encoding": "identity", **headers},
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=timeout_s),
            preload_content=False,
            decode_content=False,
            redirect=False,
            retries=False,
        )


@cache
def _agent() -> str:
    return f"vistadex/{installed_version('vistadex')}"


def _authorization(url: str, bearer: str) -> dict[str, str]:
    """The header for a token, or for the user and password of an address."""
    split = urlsplit(url)
    if bearer:
        return {"Authorization": f"Bearer {bearer}"}
    if not split.username:
        return {}
    login = f"{unquote(split.username)}:{unquote(split.password or '')}"
    return {"Authorization": f"Basic {b64encode(login.encode()).decode()}"}


def _range(start: int, stop: int | None) -> dict[str, str]:
    if start == 0 and stop is None:
        return {}
    return {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}


def _content_range(answer: BaseHTTPResponse) -> tuple[int | None, int | None]:
    """First byte and whole size as Content-Range states them: bytes 5-9/100, bytes */100."""
    found = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
    first, whole = found.groups() if found else (None, None)
    return (None if first is None else int(first), None if whole is None else int(whole))


def _first_byte(answer: BaseHTTPResponse) -> int | None:
    """Position of the answer's first byte in the file; None: not stated where it must be."""
    return 0 if answer.status == 200 else _content_range(answer)[0]


def _whole_size(answer: BaseHTTPResponse) -> int | None:
    """Bytes of the whole file; None: not stated."""
    if answer.status != 200:
        return _content_range(answer)[1]
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _version(answer: BaseHTTPResponse) -> str:
    """What changes when the file changes, as far as the server says."""
    if tag := answer.headers.get("ETag", ""):
        return tag.removeprefix("W/").strip('"')
    size, changed = _whole_size(answer), answer.headers.get("Last-Modified", "")
    return f"{changed} {'' if size is None else size}".strip() if changed else ""


def _validator(answer: BaseHTTPResponse) -> str:
    """What If-Range may hold: a strong ETag, else the time of the last change; empty: neither."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


def _chunks(answer: BaseHTTPResponse, url: str) -> Iterator[bytes]:
    """The body, piece by piece."""
    pieces = answer.stream(CHUNK_BYTES, decode_content=False)
    while True:
        with _translated(url):
            piece = next(pieces, b"")
        if not piece:
            return
        yield piece


def _pieces(answer: BaseHTTPResponse, url: str) -> Iterator[bytes]:
    """The body as it comes, so that a server which sends little at a time is noticed."""
    while True:
        with _translated(url):
            piece = answer.read1(CHUNK_BYTES, decode_content=False)
        if not piece:
            return
        yield piece


def _refusal(answer: BaseHTTPResponse, url: str) -> SourceError:
    """The error that says what a bad status means."""
    place, status = shown(url), f"HTTP {answer.status}"
    if answer.status in _MISSING:
        return SourceMissingError(f"{place}: no such file ({status}); check the address")
    if answer.status in _DENIED:
        return SourceDeniedError(
            f"{place}: access denied ({status}), expected a file that may be read; give an address "
            "with a valid signature or https://user:password@host, or ask its owner"
        )
    if answer.status in _PASSING or answer.status >= 500:
        return SourceUnavailableError(
            f"{place}: the server can't answer now ({status}); try again later"
        )
    return SourceError(f"{place}: {status}, expected a file (200); check the address")


def _broken_off(url: str, length: int, whole: int) -> SourceUnavailableError:
    return SourceUnavailableError(
        f"{shown(url)}: the connection broke off at {length:,} of {whole:,} bytes; try again"
    )


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Turns urllib3's errors into ours."""
    try:
        yield
    except foreign.LocationValueError as error:
        raise UsageError(
            f"{shown(url)}: this address, or its proxy's, can't be used; check both"
        ) from error
    except foreign.SSLError as error:
        raise SourceError(
            f"{shown(url)}: the encryption is not trusted ({error}); expected a valid certificate; "
            "check the address and this machine's clock and certificates"
        ) from error
    except (foreign.HTTPError, OSError) as error:
        raise SourceUnavailableError(f"{shown(url)}: {_why(error)}") from error


def _why(error: Exception) -> str:
    """What went wrong on the way, and what to do."""
    cause = error.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    if number in _NO_NETWORK:
        return "no network; connect this machine, then try again"
    for kind, words in _REASONS:
        if isinstance(error, kind):
            return words
    return "the connection broke off; try again"


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"{path}: can't be written ({error.strerror or error}); free space, or choose another "
            "folder"
        ) from error
