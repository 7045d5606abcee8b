"""Names that letters may become, found in one long text instead of one name after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate, islice
from typing import Generic, TypeVar

T = TypeVar("T")


class Completing(Generic[T]):
    """Rows by how a word of their name begins; made ready again only where the rows change.

    Safe to use from several threads: what is ready is replaced as a whole.
    """

    def __init__(self, name: Callable[[T], str]) -> None:
        """`name` says the name of a row."""
        self._name = name
        self._ready = _Ready[T]([], [])

    def beginning(self, prefix: str, rows: list[T], most: int) -> list[T]:
        """Those with a word that begins so; whole names that begin so before others.

        Args:
            rows: all, in the order in which they are wanted.
            most: how many are enough.
        """
        wanted = _folded(prefix.strip())
        if not wanted:
            return rows[:most]
        ready = self._ready
        if ready.rows != rows:  # quick: rows that stay the same are the same objects
            ready = self._ready = _Ready(rows, [_folded(self._name(one)) for one in rows])
        found = dict.fromkeys(islice(ready.places(f"\n {wanted}"), most))
        for place in ready.places(f" {wanted}"):
            if len(found) == most:
                break
            found[place] = None
        return [rows[place] for place in found]


class _Ready(Generic[T]):
    """Rows, and their names one below the other, each behind a space as its words are."""

    def __init__(self, rows: list[T], names: list[str]) -> None:
        self.rows = rows
        self._text = "".join(f"\n {one}" for one in names)
        self._starts = list(accumulate((len(one) + 2 for one in names), initial=0))

    def places(self, text: str) -> Iterator[int]:
        """Places of the rows in which a text is, rising; a row as often as the text is in it."""
        at = self._text.find(text)
        while at >= 0:
            yield bisect_right(self._starts, at) - 1
            at = self._text.find(text, at + 1)


def _folded(text: str) -> str:
    return text.casefold().replace("\n", " ")
