"""Progress as a bar on a terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from vistadex.progress import Speed

REFRESHES_PER_S = 4


def can_redraw() -> bool:
    """Whether stderr is a terminal on which a line can be drawn again."""
    console = Console(stderr=True)
    return console.is_terminal and not console.is_dumb_terminal


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
