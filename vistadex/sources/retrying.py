"""The one place where sources try again: exponential back-off with jitter, ended by a stop."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TypeVar

from vistadex.errors import SourceUnavailableError

ATTEMPTS = 4
FIRST_WAIT_S = 0.2

T = TypeVar("T")


def with_retries(call: Callable[[], T], stopped: threading.Event | None = None) -> T:
    """What the call returns, tried up to ATTEMPTS times while the source is unavailable.

    Args:
        stopped: when set, there is no further attempt and a wait ends at once.
    Raises: what the last attempt raised.
    """
    stopped = stopped or threading.Event()
    for attempt in range(ATTEMPTS - 1):
        try:
            return call()
        except SourceUnavailableError:
            # Jitter keeps the readers of a store that was down from coming back all at once.
            if stopped.wait(FIRST_WAIT_S * 2**attempt * random.uniform(0.75, 1.25)):
                raise
    return call()
