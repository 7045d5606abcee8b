"""Progress for people: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

REFRESHES_PER_S = 4
LINE_EVERY_S = 10.0


def can_redraw() -> bool:
    """Whether stderr is a terminal on which a line can be drawn again."""
    console = Console(stderr=True)
    return console.is_terminal and not console.is_dumb_terminal


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


class _Words(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.description)


class Bar:
    """A bar on stderr."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self.progress = Progress(
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            _Words(),
            console=console,
            transient=True,
            refresh_per_second=REFRESHES_PER_S,
        )
        self.task = self.progress.add_task("starting", total=None)
        self.speed = Speed()

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def update(self, *, listed: int, listing: bool, done: int, failed: int) -> None:
        """Redraws at the next refresh."""
        words = self.speed.text(listed=listed, listing=listing, done=done, failed=failed)
        total = None if listing else listed
        self.progress.update(self.task, completed=done, total=total, description=words)


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
