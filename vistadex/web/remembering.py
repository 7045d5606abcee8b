"""Answers that are remembered as long as the catalog stays as it was when they were made.

A page is the same for everyone who is let in, so that its path and parameters name it. What may
change while the catalog's log says nothing (collections, attributes, copies) is made each time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from functools import wraps
from hashlib import blake2b
from inspect import iscoroutinefunction
from typing import Any, Generic, NamedTuple, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic_core import to_json

from vistadex.catalog import Catalog
from vistadex.catalog.freshness import Freshness, freshness
from vistadex.errors import QueryError
from vistadex.grammar import parse
from vistadex.web.api import MAX_TEXT

T = TypeVar("T")
MAX_BYTES = 64 << 20
"""Of all answers that a process remembers; those longest unused go."""
MAX_ANSWER_BYTES = 1 << 20
LOOKS_AT_ONCE = 2
"""Threads of a process that ask whether the catalog has changed, beside those that make answers."""


class Memory(Generic[T]):
    """What was used last, up to a number of bytes. For the event loop alone."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self._kept: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        """What was put under a key; None if nothing was, or it is forgotten."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, value: T, size_bytes: int) -> None:
        """Keeps a value in place of what was under its key."""
        _, before = self._kept.pop(key, (None, 0))
        self._kept[key] = value, size_bytes
        self.size_bytes += size_bytes - before
        while self.size_bytes > self.max_bytes:
            _, (_, forgotten) = self._kept.popitem(last=False)
            self.size_bytes -= forgotten


class _Answer(NamedTuple):
    """The body of an answer, and what it was made of."""

    made_of: Freshness
    body: bytes
    media_type: str
    tag: str


class Remembered:
    """Answers of an app, each with what it was made of."""

    def __init__(self, catalog: Catalog, max_bytes: int = MAX_BYTES) -> None:
        self._catalog = catalog
        self._answers = Memory[_Answer](max_bytes)
        self._limiter = CapacityLimiter(LOOKS_AT_ONCE)
        self._now: Freshness = frozenset()

    async def answer(
        self, request: Request, make: Callable[[Request], Coroutine[Any, Any, Response]]
    ) -> Response:
        """The remembered answer to a request, else the one that `make` gives."""
        if not _can_be_remembered(request):
            return await make(request)
        seen = await to_thread.run_sync(self._freshness, limiter=self._limiter)
        if seen != self._now:
            self._now = seen
        now = self._now  # the same object for all answers, however many sources it names
        key = request.scope["path"], request.scope["query_string"]
        found = self._answers.get(key)
        if found is None or found.made_of != now:
            made = await make(request)
            body = bytes(made.body)
            if made.status_code != 200 or len(body) > MAX_ANSWER_BYTES:
                return made
            tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
            found = _Answer(now, body, made.media_type or "", tag)
            self._answers.put(key, found, len(body) + len(key[0]) + len(key[1]))
        headers = {"ETag": found.tag}
        if found.tag in request.headers.get("if-none-match", ""):
            return Response(None, 304, headers)
        return Response(found.body, 200, headers, found.media_type)

    @property
    def size_bytes(self) -> int:
        """Of all answers that are remembered now."""
        return self._answers.size_bytes

    def _freshness(self) -> Freshness:
        with self._catalog.reading() as connection:
            return freshness(connection)


def _can_be_remembered(request: Request) -> bool:
    """Whether the log of changes names all that the answer depends on."""
    text = request.query_params.get("q", "")
    if len(text) > MAX_TEXT or request.query_params.get("kind") == "collection":
        return False
    try:
        query = parse(text)
    except QueryError:
        return False
    return not (query.collections or query.not_in or query.attributes or query.duplicates)


class RememberedRoute(APIRoute):
    """A route whose answers depend on its path, its parameters and the catalog alone."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of each request."""
        make = super().get_route_handler()

        async def answer(request: Request) -> Response:
            remembered: Remembered = request.app.state.remembered
            return await remembered.answer(request, make)

        return answer


def written(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function's typed result as JSON, without checking its shape again: the tests do that.

    A coroutine function is left as it is.
    """
    if iscoroutinefunction(function):
        return function

    @wraps(function)
    def answer(*args: Any, **values: Any) -> Response:
        result = function(*args, **values)
        return Response(to_json(result, inf_nan_mode="null"), media_type="application/json")

    return answer
