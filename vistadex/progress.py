"""How far a run has come, and at what cost: who wants to know, silence, and lines for logs."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Protocol

LINE_EVERY_S = 10.0


class Progress(Protocol):
    """Told of a run's state now and then; the CLI draws it, tests record it."""

    def update(self, *, listed: int, listing: bool, done: int, failed: int) -> None:
        """So many images are listed (still counting while `listing`), done, and failed of these."""
        ...


class Silent:
    """Progress that nobody watches."""

    def update(self, *, listed: int, listing: bool, done: int, failed: int) -> None:
        """Does nothing."""


class Speed:
    """Images per second over the whole run, and what remains of it."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def text(self, *, listed: int, listing: bool, done: int, failed: int) -> str:
        """1,284 of 2,000 images, 285/s, 0:03 left, 2 failed."""
        seconds = max(time.monotonic() - self.started, 1e-6)
        rate = done / seconds
        parts = [f"{done:,} of {listed:,}{'+' if listing else ''} images", f"{rate:,.0f}/s"]
        if not listing and rate > 0:
            left = int((listed - done) / rate)
            parts.append(f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left")
        if failed:
            parts.append(f"{failed:,} failed")
        return ", ".join(parts)


class Lines:
    """A line on stderr every ten seconds: for logs."""

    def __init__(self) -> None:
        self.speed = Speed()
        self.last = time.monotonic()

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to end."""

    def update(self, *, listed: int, listing: bool, done: int, failed: int) -> None:
        """Prints a line if the last one is old."""
        now = time.monotonic()
        if now - self.last >= LINE_EVERY_S:
            self.last = now
            words = self.speed.text(listed=listed, listing=listing, done=done, failed=failed)
            sys.stderr.write(words + "\n")


def peak_rss_bytes() -> int:
    """The most memory that this process has held at a time."""
    status = Path("/proc/self/status")  # getrusage() would count what the parent held
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
