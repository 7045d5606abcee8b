"""What an evaluation says: measures in all and by class, errors, speed, size.

Shape letters: K classes of the data, R points of a curve.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vistadex.errors import UsageError
from vistadex.records import DoubleArray, Json

if TYPE_CHECKING:
    from vistadex.annotated import AnnotatedSet
    from vistadex.evaluating.judging import Judged
    from vistadex.records import Pixels

Metric = Literal["coco", "voc2007", "voc2010", "open-images"]
_NOT_WRITTEN = ("pictures", "judged", "mistaken")
BACKGROUND = "background"
"""What is no object, in a confusion matrix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """What counts in a confusion matrix, in kinds of errors and in pictures of them."""

    min_score: float = 0.25
    """Boxes with a lower score do not count."""
    iou: float = 0.5
    """Overlap from which two boxes are one object."""

    def __post_init__(self) -> None:
        if not (0 <= self.min_score <= 1 and 0 < self.iou <= 1):
            raise UsageError(
                f"count_score={self.min_score}, iou={self.iou}: expected 0 to 1 and above 0 to 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassResult:
    """One class."""

    name: str
    truth: int
    """Boxes, or images, that have it; crowds and difficult ones left out."""
    found: int
    """Boxes, or images, that the model says have it and that count."""
    precision: float | None
    """Share of these that are right; None where there are none."""
    recall: float | None
    """Share of the truth that is found; None where there is none."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Average precision by name; -1 without truth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Precision over recall of one class, or of the mean of all."""

    name: str
    recall: DoubleArray
    """(R,) rising."""
    precision: DoubleArray
    """(R,)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorKind:
    """Errors of one kind."""

    name: str
    meaning: str
    count: int
    """With scores that count."""
    gain: float
    """How much AP50, the area below the curve, would rise without them, whatever the score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast the model is."""

    p50_ms: float
    """Median time of one decoded picture through the model alone, in one thread."""
    p95_ms: float
    timed: int
    """Pictures that were timed so."""
    images_per_s: float
    """Of the whole run, with reading and decoding."""
    threads: int
    """Images in work at a time in the whole run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistaken:
    """A picture that a classifier is wrong about."""

    image: int
    """Its position in the data."""
    truth: str
    said: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How good, fast and large a model is, on some data."""

    model: str
    sha256: str
    task: str
    """detection or classification."""
    data: str
    images: int
    """Judged."""
    failed: Sequence[tuple[str, str]]
    """Pictures that could not be judged, with the reason; what is true of them is not asked for."""
    problems: Mapping[str, int]
    """What could not be used of the data, by kind."""
    first_problems: Sequence[str]
    metric: str
    metrics: Mapping[str, float]
    """The measures by name, the main one first; -1 where nothing can be said."""
    per_class: Sequence[ClassResult]
    confusion_classes: Sequence[str]
    """What the rows and columns of the matrix are; "background" is the last for a detector."""
    confusion: Sequence[Sequence[int]]
    """A row for each class that it is, a column for each that the model says."""
    counting: Counting
    errors: Sequence[ErrorKind] = ()
    curves: Sequence[Curve] = ()
    not_in_data: Mapping[str, int] = field(default_factory=dict)
    """Boxes that count of classes that the data does not have, which are left out."""
    speed: Speed | None = None
    """None where nothing was timed."""
    size_bytes: int
    """Of the model's file."""
    peak_mib: float
    """Most memory that the process held while it ran, in MiB."""
    parameters: Mapping[str, Json]
    """How the model ran."""
    seconds: float
    pictures: AnnotatedSet = field(repr=False, compare=False)
    """The data."""
    judged: Judged | None = field(default=None, repr=False, compare=False)
    """The boxes of all pictures; None for a classifier."""
    mistaken: Sequence[Mistaken] = field(default=(), repr=False)
    """Pictures that a classifier is wrong about, those first of which it is surest."""

    @property
    def headline(self) -> tuple[str, float]:
        """The main measure: its name and value."""
        return next(iter(self.metrics.items()))

    def to_dict(self) -> dict[str, Any]:
        """Everything but pictures and boxes as JSON values; what is not finite is null."""
        kept = [one.name for one in fields(self) if one.name not in _NOT_WRITTEN]
        values = {name: _value(getattr(self, name)) for name in kept}
        return {"headline": self.headline[0], **values}

    def to_json(self) -> str:
        """What to_dict gives, as text."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"

    def draw(self, i: int) -> Pixels:
        """A picture of the data twice, side by side: with the truth, and with what counts of what
        the model says. (H, W, 3) RGB.

        Raises: SourceError or DecodingError; UsageError for a classifier.
        """
        from vistadex.evaluating.pictures import both

        return both(self, i)

    def write_grid(self, path: Path, number: int) -> None:
        """Writes a PNG of the first pictures, each as draw() gives it, at reduced size.

        Raises: UsageError where it can't be written, or for a classifier.
        """
        from vistadex.evaluating.pictures import write_grid

        write_grid(self, path, number)

    def write_report(self, folder: Path) -> Path:
        """Writes `report.html` with pictures of the worst errors, and `evaluation.json`.

        Returns: the HTML file.
        Raises: UsageError where it can't be written.
        """
        from vistadex.evaluating.report import write_report

        return write_report(self, folder)


def _value(value: Any) -> Any:
    """JSON of a value of these records."""
    if is_dataclass(value):
        return {one.name: _value(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _value(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_value(one) for one in value]
    return value.round(6).tolist() if hasattr(value, "tolist") else value
