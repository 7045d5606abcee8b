"""Slow answers a few at a time, so that quick ones need not wait for a thread."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any

from anyio import CapacityLimiter, to_thread

AT_ONCE = 1
"""Answers of a route that a process makes at a time; who waits holds neither a thread nor a
connection to the catalog."""


def aside(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A route's function, AT_ONCE calls at a time; the others wait for their turn."""
    limiter = CapacityLimiter(AT_ONCE)

    @wraps(function)
    async def answer(*args: Any, **values: Any) -> Any:
        return await to_thread.run_sync(partial(function, *args, **values), limiter=limiter)

    return answer
