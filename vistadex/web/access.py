"""Who may do what: keys, sessions in signed cookies, and refusal of changes from foreign pages.

A request is let in with the token (`Authorization: Bearer …`) or with a session that the login page
gave. A session is a time of expiry and its signature: nothing is stored, so it holds for every
worker and through restarts, until a key changes. Without keys everyone is let in, which
`vistadex serve` does on loopback alone.

A change (any method but GET, HEAD and OPTIONS) must come from our own pages. Browsers say where a
request comes from in Sec-Fetch-Site, and in Origin where they don't. What says neither is no
browser: it needs the token, or an app without keys and no cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from vistadex.errors import UsageError
from vistadex.web import problems
from vistadex.web.problems import PageMaker

log = logging.getLogger(__name__)

SESSION_S = 7 * 24 * 3600
SHORTEST_TOKEN = 20
SHORTEST_PASSWORD = 8
MAX_KEY_FILE_BYTES = 4096
OPEN_PATHS = frozenset({"/login", "/health"})
"""Answered to everyone; so is what lies below OPEN_FOLDER."""
OPEN_FOLDER = "/static/"
SIGNING_IN = frozenset({"/login", "/logout"})
"""Changes that are no change of the catalog."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What opens the app; none of it is ever shown."""

    token: str = field(default="", repr=False)
    """For programs, and for the login page; empty: none."""
    password: str = field(default="", repr=False)
    """For the login page alone; empty: none."""

    def __bool__(self) -> bool:
        return bool(self.token or self.password)

    def is_token(self, given: str) -> bool:
        """Whether this is the token; takes as long for any text of its length."""
        return bool(self.token) and _equal(given, self.token)

    def opens(self, given: str) -> bool:
        """Whether this opens the login page; each key is compared, whatever the others say."""
        found = [bool(key) and _equal(given, key) for key in (self.token, self.password)]
        return any(found)

    def session(self, now: float) -> str:
        """The value of a session's cookie that ends SESSION_S from now (seconds of the epoch)."""
        ends = str(int(now) + SESSION_S)
        return f"{ends}.{self._signature(ends)}"

    def is_session(self, value: str, now: float) -> bool:
        """Whether a cookie's value was given out by these keys and has not ended."""
        ends, _, signature = value.partition(".")
        signed = _equal(signature, self._signature(ends))
        return bool(self) and signed and ends.isascii() and ends.isdigit() and now < int(ends)

    def _signature(self, text: str) -> str:
        return hmac.new(self._signing_key, text.encode(), hashlib.sha256).hexdigest()

    @cached_property
    def _signing_key(self) -> bytes:
        """Slow to derive, so that a cookie is of no help in guessing a password."""
        digests = [hashlib.sha256(key.encode()).digest() for key in (self.token, self.password)]
        return hashlib.scrypt(b"".join(digests), salt=b"vistadex session", n=2**14, r=8, p=1)


NO_KEYS = Keys()


def _equal(given: str, key: str) -> bool:
    """Equality in constant time; digests hide the length, too."""
    one, other = (hashlib.sha256(text.encode(errors="replace")).digest() for text in (given, key))
    return hmac.compare_digest(one, other)


def read_keys(token: Path | None, password: Path | None) -> Keys:
    """The keys in files: the first line of each.

    Raises: UsageError that does not show them, where a file can't be read, is open to every user
        of this machine, or holds what can be guessed.
    """
    found = Keys(
        token="" if token is None else _key(token, SHORTEST_TOKEN),
        password="" if password is None else _key(password, SHORTEST_PASSWORD),
    )
    if not all("!" <= letter <= "~" for letter in found.token):
        raise UsageError(f"{token}: a token has letters, digits and signs of ASCII, no spaces")
    return found


def _key(path: Path, shortest: int) -> str:
    try:
        mode = path.stat().st_mode
        if mode & 0o002:
            raise UsageError(f"{path}: every user of this machine can write it; chmod 600 {path}")
        with path.open("rb") as file:
            key = file.read(MAX_KEY_FILE_BYTES).decode().partition("\n")[0].strip("\r")
    except OSError as error:
        why = error.strerror or "not readable"
        raise UsageError(f"{path}: {why}; expected a file with one line") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8, expected a file with one line of text") from error
    if mode & 0o004:
        log.warning("%s: every user of this machine can read it; chmod 600 %s", path, path)
    if len(key) < shortest:
        raise UsageError(
            f"{path}: {len(key)} characters in the first line, expected {shortest} or more; "
            "`openssl rand -hex 32` makes a good one"
        )
    return key


def cookie_name(request: Request) -> str:
    """The session's cookie; over https a name that browsers let no other host or path set."""
    return "__Host-vistadex" if request.url.scheme == "https" else "vistadex"


def is_signed_in(request: Request, keys: Keys) -> bool:
    """Whether the request brings a session that holds."""
    return keys.is_session(request.cookies.get(cookie_name(request), ""), time.time())


class Access:
    """The second door, behind Guard: lets in who has a key, and changes only from our own pages."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        make_page: PageMaker,
        *,
        read_only: bool = False,
        questions: Collection[str] = (),
    ) -> None:
        """With read_only, changes are refused; `questions` are paths whose POST is none."""
        self.app = app
        self.keys = keys
        self.make_page = make_page
        self.read_only = read_only
        self.questions = questions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._refusal(Request(scope)) if scope["type"] == "http" else None
        await (self.app if answer is None else answer)(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        """What is answered in the app's place; None: the request is let in."""
        path = request.url.path
        programs = self._has_token(request)
        known = programs or not self.keys or is_signed_in(request, self.keys)
        if not (known or path in OPEN_PATHS or path.startswith(OPEN_FOLDER)):
            return self._unknown(request)
        if request.method in _READING:
            return None
        if not (programs or self._is_ours(request)):
            text = (
                "a change must come from a page of this app, or from a program with the token; "
                "open the page again (behind a proxy: it must pass on the Host header)"
            )
            return self._refused(request, 403, text)
        if self.read_only and path not in SIGNING_IN and path not in self.questions:
            text = "this app was started with --read-only: nothing can be changed here"
            return self._refused(request, 403, text)
        return None

    def _has_token(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.keys.is_token(given.strip())

    def _is_ours(self, request: Request) -> bool:
        """Whether a request without the token comes from a page of this app, or from no page."""
        headers = request.headers
        if (site := headers.get("sec-fetch-site")) is not None:
            return site in ("same-origin", "none")
        if (origin := headers.get("origin")) is not None:
            return urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""
        return not self.keys and "cookie" not in headers

    def _unknown(self, request: Request) -> Response:
        """The way to the login page for browsers, a 401 for all else."""
        if "text/html" in request.headers.get("accept", ""):
            whole = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            following = whole if request.method in _READING else "/"
            return RedirectResponse(f"/login?next={quote(following, safe='')}", 303)
        text = "no session and no right token; send Authorization: Bearer TOKEN, or open /login"
        answer = problems.answer(401, "AccessError", f"{request.url.path}: {text}")
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    def _refused(self, request: Request, status: int, text: str) -> Response:
        whole = f"{request.method} {request.url.path}: {text}"
        if "text/html" in request.headers.get("accept", ""):
            return self.make_page(request, status, whole, [])
        return problems.answer(status, "AccessError", whole)
