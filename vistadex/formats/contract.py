"""The contract of an annotation format: a file or data set on disk ⇄ annotated images."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar, TextIO

from vistadex.errors import FormatError
from vistadex.records import AnnotatedImage, Json


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in an annotation file that can't be used as it stands."""

    kind: str
    """What is counted together: `bad-box`, `unknown-image`, …"""
    place: str
    """The file; with ` line N` where there are lines, or the id of the object where there are."""
    found: str
    expected: str
    cure: str

    def __str__(self) -> str:
        return f"{self.place}: {self.found}, expected {self.expected}; {self.cure}"


class Problems:
    """Collects problems: counts them by kind and writes each to a report, one JSON a line."""

    def __init__(self, report: Path | None = None) -> None:
        """Begins the report; without one, problems are only counted.

        Raises: FormatError where it can't be written.
        """
        self.report = report
        self.counts: Counter[str] = Counter()
        self.losses: Counter[str] = Counter()
        """What a format can say and annotations here cannot hold (masks), with how often."""
        self.first: list[Problem] = []
        """The first ones, to show."""
        self._file: TextIO | None = None
        if report is not None:
            with self._translated():
                self._file = report.open("w", encoding="utf-8")

    def add(self, kind: str, place: str, *, found: str, expected: str, cure: str) -> None:
        """Notes a problem; what it concerns is left out, the rest goes on."""
        problem = Problem(kind, place, found, expected, cure)
        self.counts[kind] += 1
        if len(self.first) < 10:
            self.first.append(problem)
        if self._file is not None:
            with self._translated():
                self._file.write(json.dumps(asdict(problem), ensure_ascii=False) + "\n")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            place = f"{self.report}: {error.strerror}, expected to write the report"
            raise FormatError(f"{place}; choose another with --report") from error

    def lose(self, what: str, number: int = 1) -> None:
        """Notes that something was said that can't be kept; stated once, with its number."""
        self.losses[what] += number

    def __enter__(self) -> Problems:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            with self._translated():
                self._file.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a whole set of annotations says beside its images."""

    category_ids: Mapping[str, int] = field(default_factory=dict)
    """A file's own number of each class by name, where it has numbers (COCO)."""
    attributes: Mapping[str, Json] = field(default_factory=dict)
    """What else it says of itself (COCO's info and licenses)."""
    external_ids: Mapping[str, str] = field(default_factory=dict)
    """The vocabulary's own id of each class by name (Open Images: /m/0k4j)."""
    descriptions: Mapping[str, str] = field(default_factory=dict)
    """What each class means, by name."""
    parents: tuple[tuple[str, str], ...] = ()
    """The hierarchy: class and the class above it."""


def classes_there(image: AnnotatedImage) -> tuple[str, ...]:
    """The classes of the whole image, without those that were looked for and are not there."""
    names = image.classes or ()
    scores = image.class_scores or (1.0,) * len(names)
    return tuple(name for name, score in zip(names, scores, strict=True) if score > 0)


class Format(ABC):
    """One annotation format: reads and writes it."""

    below_path: ClassVar[bool] = False
    """Whether file names of pictures are below the same folder as the annotations (YOLO)."""
    pictures: ClassVar[str | None] = None
    """Folder with the pictures, below the annotations; None where the user has to say."""
    pictures_optional: ClassVar[bool] = False
    """Whether it is of use without its pictures: they are then known by their names alone."""
    columnar: ClassVar[bool] = False
    """Whether vistadex.loading reads it by column, where its pictures are not at hand."""
    losses: ClassVar[tuple[str, ...]] = ()
    """What writing this format leaves out of what the catalog can hold."""

    def root(self, path: str) -> str:
        """The folder, bucket or archive of a data set whose annotations are at path."""
        return path

    @abstractmethod
    def read(
        self, path: str, problems: Problems, reference: str | None = None
    ) -> Iterator[AnnotatedImage]:
        """Every annotated image, in any order, in flat memory; damaged parts become problems.

        Args:
            path: file, folder, archive or address, as the user wrote it.
            reference: another file that this one refers to (COCO results name pictures and
                classes by numbers that only the instances file explains).
        Raises: FormatError where nothing can be read; SourceError where bytes can't be had.
        """

    def about(self, path: str) -> About:
        """What the set says beside its images."""
        return About()

    @abstractmethod
    def write(
        self,
        out: Path,
        images: Iterable[AnnotatedImage],
        classes: tuple[str, ...],
        about: About,
    ) -> None:
        """Writes annotated images, in flat memory.

        Args:
            out: the file or folder to write; it does not exist yet.
            images: with width, height and boxes in pixels.
            classes: every class name that occurs, in relations too, sorted.
        Raises: FormatError.
        """

    def picture_path(self, image: AnnotatedImage) -> str | None:
        """Where below the written folder an image's picture belongs; None where the format has no
        place for pictures.

        Raises: FormatError where the format can't hold the image.
        """
        return None
