"""What a labeling service is: the promise that each of them keeps to the one that asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

from vistadex.errors import UsageError
from vistadex.records import Json, Task


@dataclass(frozen=True, slots=True)
class Label:
    """One name that a service gives a picture."""

    name: str
    score: float
    """In [0, 1]."""
    boxes: tuple[tuple[float, tuple[float, float, float, float]], ...] = ()
    """Where it is seen: score, and x0, y0, x1, y1 as fractions of the picture's sides."""


class Busy(Exception):
    """The service can't answer now; it asks to be left alone for `wait_s`, None: does not say."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Refused(Exception):
    """The service does not take the picture, and never will."""


Answer: TypeAlias = tuple[Label, ...] | Busy | Refused


@dataclass(frozen=True, slots=True)
class Price:
    """What a service lists for the pictures sent to it."""

    usd_per_1000: float
    source: str
    """Where that stands, and when it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions:
    """What a service is asked for."""

    max_labels: int = 50
    """Names for a picture, the best ones."""
    min_score: float = 0.25
    """Names with a lower score are left out."""
    size: int = 1024
    """Long side in pixels to which larger pictures are reduced before they are sent."""
    timeout_s: float = 60
    """How long the answer to one request may take."""

    def __post_init__(self) -> None:
        if not (1 <= self.max_labels <= 1000 and 0 <= self.min_score <= 1):
            raise UsageError(
                f"labeler: max_labels {self.max_labels}, expected 1 to 1000; "
                f"min_score {self.min_score}, expected 0 to 1"
            )
        if not 100 <= self.size <= 8000 or self.timeout_s <= 0:
            raise UsageError(
                f"labeler: size {self.size}, expected 100 to 8000 pixels; "
                f"timeout_s {self.timeout_s}, expected more than 0"
            )


class Service(Protocol):
    """A service that names what is in pictures. Nothing is sent before ask()."""

    task: ClassVar[Task]
    price: ClassVar[Price]
    images_per_request: ClassVar[int]
    bytes_per_request: ClassVar[int]
    """Of all pictures together."""
    min_side: ClassVar[int]
    """Pixels that the short side needs."""
    calls_per_second: ClassVar[float]
    """Pictures that are sent in a second where the user says nothing else."""
    parameters: ClassVar[Mapping[str, Json]]
    """What identifies the interface: another value is another analysis."""

    def __init__(self, options: LabelOptions) -> None:
        """Raises: LabelerError where credentials are missing or settings contradict each other."""
        ...

    def ask(self, jpegs: Sequence[bytes]) -> list[Answer]:
        """One answer for each picture; one request, which is never repeated here.

        Raises: Busy or Refused for the request as a whole; LabelerError where asking again is of no
            use.
        """
        ...
