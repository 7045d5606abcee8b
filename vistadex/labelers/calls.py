"""The calls that a run may make: a hard bound over all threads and retries, a pace, and an end."""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
import weakref
from typing import NoReturn

from vistadex.errors import CallsUsedUpError, LabelerError, UsageError

ATTEMPTS = 5
"""How often a picture is sent before a service counts as gone."""
FIRST_WAIT_S = 1.0
"""Doubled with every attempt."""
LONGEST_WAIT_S = 60.0
"""A service that asks for more is not waited for."""

_all: weakref.WeakValueDictionary[str, Calls] = weakref.WeakValueDictionary()


class Calls:
    """Counts pictures sent: each counts again when it is sent again, whatever came of it.

    Pickled, it is the same object in the process that made it, and an error in any other, forked
    ones included: a bound that two processes count for themselves is none.
    """

    def __init__(self, place: str, most: int | None, per_second: float) -> None:
        """place: how messages call the service. most: pictures to send at most; None: no bound.

        Raises: UsageError for a bound or pace below what can work.
        """
        if most is not None and most < 1:
            raise UsageError(f"{place}: max_calls {most}, expected 1 or more")
        if not 0 < per_second < float("inf"):
            raise UsageError(f"{place}: calls_per_second {per_second}, expected more than 0")
        self.place = place
        self.most = most
        self.per_second = per_second
        self.used = 0
        self.failure: LabelerError | None = None
        self._free_at = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._key = uuid.uuid4().hex
        self._process = os.getpid()
        _all[self._key] = self

    def __reduce__(self) -> tuple[object, ...]:
        return _here, (self.place, self._key)

    @property
    def used_up(self) -> bool:
        """Whether no picture may be sent any more."""
        return self.most is not None and self.used >= self.most

    def take(self, number: int) -> None:
        """Takes calls for so many pictures, and waits until they may be sent.

        Raises: CallsUsedUpError, and takes none, where fewer are left; LabelerError where the run
            has ended, or in another process than the one that began it.
        """
        if os.getpid() != self._process:
            raise _elsewhere(self.place)
        with self._lock:
            self._need_no_end()
            if self.most is not None and self.used + number > self.most:
                raise CallsUsedUpError(
                    f"{self.place}: {self.used:,} of {self.most:,} calls are used, so {number:,} "
                    "more can't be made; run it again with a new --max-calls to go on"
                )
            self.used += number
            now = time.monotonic()
            start = max(now, self._free_at)
            self._free_at = start + number / self.per_second
        self._wait(start - now)

    def back_off(self, attempt: int, why: str, asked_s: float | None) -> None:
        """Waits before the next attempt, and keeps other threads from sending meanwhile.

        Args:
            attempt: 0 after the first.
            why: what the service said.
            asked_s: how long it asks to be left alone.
        Raises: LabelerError where that is too long, or the run has ended.
        """
        if asked_s is not None and asked_s > LONGEST_WAIT_S:
            self.fail(
                LabelerError(
                    f"{self.place}: {why}; it asks to wait {asked_s:,.0f} s, run it again then"
                )
            )
        # Jitter keeps the threads from coming back all at once.
        own = min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S) * random.uniform(0.75, 1.25)
        seconds = max(own, asked_s or 0.0)
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic() + seconds)
        self._wait(seconds)

    def fail(self, error: LabelerError) -> NoReturn:
        """Ends the run: nothing is sent any more, in no thread. The first error stays.

        Raises: it.
        """
        self.end(error)
        raise error

    def end(self, error: LabelerError) -> None:
        """Like fail(), without raising the error."""
        with self._lock:
            self.failure = self.failure or error
            self._ended.set()

    def _wait(self, seconds: float) -> None:
        if self._ended.wait(max(0.0, seconds)):
            self._need_no_end()

    def _need_no_end(self) -> None:
        if self.failure is not None:
            raise LabelerError(str(self.failure)) from self.failure


def _here(place: str, key: str) -> Calls:
    """The calls that were pickled."""
    found = _all.get(key)
    if found is None:
        raise _elsewhere(place)
    return found


def _elsewhere(place: str) -> LabelerError:
    return LabelerError(
        f"{place}: calls are counted in the process that began the run, expected to be there; "
        "use threads instead of processes"
    )
