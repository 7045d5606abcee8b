"""A query with its names resolved to ids, and what answers it: positions in the ranking, facets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from vistadex.errors import QueryError

STATUSES = ("ok", "failed", "vanished", "unseen")
"""What an image can be."""
BINS = 20
"""Of the histograms of scores and box sizes: each 0.05 wide."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Something that an image has or has not: one of several classes, or of relation types."""

    kind: Literal["class", "relation"]
    ids: tuple[int, ...]
    """Classes or relation types: an image has it if it has any, with the best of their scores."""
    min_boxes: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """What is searched for, in ids."""

    wanted: tuple[Wanted, ...] = ()
    mode: Literal["all", "any"] = "all"
    without: tuple[Wanted, ...] = ()
    min_score: int = 0
    """In millionths."""
    source_ids: tuple[int, ...] | None = None
    """None: every source."""
    analyzer_ids: tuple[int, ...] | None = None
    """None: every analyzer."""
    attributes: tuple[tuple[str, str], ...] = ()
    duplicates: Literal["exact", "near"] | None = None
    """Only images that are copies of a better one."""
    status: str | None = None
    """One of STATUSES; None: every one."""
    min_size: int = 0
    """The least bin that some box of the wanted classes must be in, of all where none is."""
    newest: bool = False
    """By falling id instead of the best first."""
    one_analyzer: bool = False
    """No image can have two rows for one class."""
    collection_ids: tuple[int, ...] = ()
    """Only images that are in all of these."""
    not_in_ids: tuple[int, ...] = ()
    """Only images that are in none of these collections."""

    @property
    def box_classes(self) -> list[int]:
        """Classes of which boxes are looked at; empty: all."""
        return [id_ for one in self.wanted if one.kind == "class" for id_ in one.ids]

    @property
    def is_simple(self) -> bool:
        """Whether it asks for one class or type and nothing else: an index has it in order."""
        return len(self.wanted) == 1 and len(self.wanted[0].ids) == 1 and not self.without


class Position(NamedTuple):
    """Where a result stands in the ranking: most matched, best score, newest."""

    image_id: int
    matched: int
    """How many of the wanted it has."""
    score: int
    """Sum over the wanted of the best score, in millionths."""


@dataclass(frozen=True, slots=True)
class Facets:
    """What is in the images that a query finds."""

    images: int
    classes: tuple[tuple[int, int], ...]
    """Class id and how many of the images have it, by falling number, then rising id."""
    predicates: tuple[tuple[int, int], ...]
    """Predicate id and how many of the images have a relation with it, likewise."""
    scores: tuple[int, ...]
    """Images by their mean best score over what they match, in BINS; () where nothing is wanted."""
    box_sizes: tuple[int, ...]
    """Boxes of the wanted classes, of all classes where none is, by the square root of their share
    of the picture, in BINS; pictures of unknown size are left out."""
    sources: tuple[tuple[int, int], ...]
    """Source id and how many of the images it has, by falling number, then rising id."""
    statuses: tuple[tuple[str, int], ...]
    """Those of STATUSES that images have, and how many have each."""


def cursor(position: Position) -> str:
    """A position as text for --after."""
    return f"{position.matched}.{position.score}.{position.image_id}"


def read_cursor(text: str) -> Position:
    """The position that a cursor says.

    Raises: QueryError if it is none.
    """
    if not re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,18}\.[0-9]{1,18}", text):
        raise QueryError(f"after={text!r}: not a cursor; take it from the last result of a page")
    matched, score, image_id = map(int, text.split("."))
    return Position(image_id, matched, score)
