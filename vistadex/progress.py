"""The Progress protocol: who wants to know how far a run has come, and the silent default."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told of a run's state now and then; the CLI draws it, tests record it."""

    def update(self, *, listed: int, listing: bool, done: int, failed: int) -> None:
        """So many images are listed (still counting while `listing`), done, and failed of these."""
        ...


class Silent:
    """Progress that nobody watches."""

    def update(self, *, listed: int, listing: bool, done: int, failed: int) -> None:
        """Does nothing."""
