"""Annotations as columns: what is said of millions of images, without an object for each.

Shape letter: N rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vistadex.formats.contract import Problems
from vistadex.records import Json

Kind: TypeAlias = Literal["labels", "boxes", "relations"]
KINDS: tuple[Kind, ...] = ("labels", "boxes", "relations")
UNKNOWN = -(1 << 31)
"""A corner of a box that nobody has drawn."""
NO_SET = -1
"""In place of the position of a set."""


@dataclass(frozen=True, slots=True)
class ImageColumns:
    """Images of a batch."""

    keys: Sequence[str]
    """(N,) of pictures below their folder."""
    order: NDArray[np.uint64]
    """(N,) numbers that rise as the keys do; equal ones may stand for different keys."""
    attributes: Sequence[str | None]
    """(N,) JSON objects in compact form: what is said of each image alone."""
    sets: Sequence[str]
    """JSON objects that many images share: what else is said, with other names."""
    set_of: NDArray[np.int32]
    """(N,) positions in sets; NO_SET: nothing else."""


@dataclass(frozen=True, slots=True)
class LabelColumns:
    """What is said of whole images; an image may be said to have a class several times."""

    images: NDArray[np.int64]
    """(N,) positions in the order in which images() has named them."""
    classes: NDArray[np.int64]
    """(N,) positions in Vocabulary.classes."""
    scores: NDArray[np.int64]
    """(N,) in millionths; 0: people looked for it, and it is not there."""
    origin: str = ""
    """Whose this is; "" for the one that the user names."""


@dataclass(frozen=True, slots=True)
class BoxColumns:
    """Boxes, in the order of the file."""

    images: NDArray[np.int64]
    classes: NDArray[np.int64]
    scores: NDArray[np.int64]
    """(N,) in millionths."""
    corners: NDArray[np.int64]
    """(N, 4) x0, y0, x1, y1 in millionths of the picture's sides."""
    flags: NDArray[np.int64]
    """(N,) two bits for each of records.FLAGS, 0 unknown, 1 no, 2 yes; 0 where all are unknown."""
    origin: str = ""


@dataclass(frozen=True, slots=True)
class RelationColumns:
    """Triplets, in the order of the file."""

    images: NDArray[np.int64]
    subjects: NDArray[np.int64]
    """(N,) positions in Vocabulary.classes."""
    predicates: NDArray[np.int64]
    """(N,) positions in Vocabulary.predicates."""
    objects: NDArray[np.int64]
    scores: NDArray[np.int64]
    corners: NDArray[np.int64]
    """(N, 8) of subject and object in millionths; UNKNOWN where nobody has drawn them."""
    origin: str = ""


Columns: TypeAlias = LabelColumns | BoxColumns | RelationColumns


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names that columns give by number."""

    classes: tuple[str, ...]
    predicates: tuple[str, ...] = ()
    external_ids: Mapping[str, str] = field(default_factory=dict)
    """By class name: the set's own id (Open Images: /m/0jbk)."""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    parents: tuple[tuple[str, str], ...] = ()
    """Class and the class above it, by name."""


class Contradiction(NamedTuple):
    """What is said of an image in several ways."""

    key: str
    what: str
    """The attribute, or the class."""
    values: list[Json]
    """Of an attribute the one that is left out and the one that stays, of a class its scores."""
    is_class: bool = False


class ColumnSource(Protocol):
    """Annotations that can be read by column. Files are read one by one, images first."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def files(self) -> Mapping[Kind, Sequence[str]]:
        """What is read for each kind."""
        ...

    @property
    def origins(self) -> Sequence[tuple[str, Kind]]:
        """Who says what, most rows first."""
        ...

    def fingerprint(self) -> str:
        """Another one wherever another reading would give other columns."""
        ...

    def images(self, problems: Problems) -> Iterator[ImageColumns]:
        """Every image; read to the end before anything else."""
        ...

    def repeated(self) -> NDArray[np.int64]:
        """(M, 2) positions of images that were named before, and of the first of each: what is
        said of them is said of that."""
        ...

    def read(self, kind: Kind, file: str, problems: Problems) -> Iterator[Columns]:
        """What a file says; rows that can't be used become problems."""
        ...

    def contradicts(self, place: str, found: Contradiction, problems: Problems) -> None:
        """Notes a contradiction as a problem, in the words of the format."""
        ...

    def save(self, folder: Path) -> None:
        """Keeps what images() has learned."""
        ...

    def restore(self, folder: Path) -> None:
        """Takes up what save() has kept, in place of reading the images again."""
        ...
