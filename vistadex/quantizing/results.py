"""What quantizing a model came to: the table, what was stored, or why it was refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vistadex.errors import AccuracyDropError
from vistadex.models import ModelFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One form of the model, as measured on this machine."""

    name: str
    """float, static min-max, weights-int8, qat, …"""
    value: float
    """Of the measure that the table names: mAP or accuracy."""
    size_bytes: int
    p50_ms: float
    """Median time of one decoded picture through the model, one thread."""
    images_per_s: float
    speedup: float
    """Against float, in turns: median over pictures of its processor time by this one's."""
    peak_mib: float
    """Peak memory of a process that runs nothing else."""
    agreement: float
    """What it and the float model say in common of calibration pictures; see agreement.py."""
    chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """What quantizing a model came to."""

    model: str
    measure: str
    """AP or accuracy: the main measure of the evaluation."""
    rows: tuple[Row, ...]
    """The float model first."""
    how: str
    """What was done to the chosen form."""
    pictures: int
    """With which it was calibrated."""
    failures: Mapping[str, int]
    """Pictures of the source that could not be used, by reason."""
    stored: ModelFile | None
    """None where it was refused."""
    refusal: str
    """Why; empty where it was stored."""
    notes: tuple[str, ...] = ()

    def need_stored(self) -> ModelFile:
        """The stored model.

        Raises: AccuracyDropError if it was refused.
        """
        if self.stored is None:
            raise AccuracyDropError(self.refusal)
        return self.stored

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        values = {name: getattr(self, name) for name in ("model", "measure", "how", "pictures")}
        stored = self.stored and {"name": self.stored.card.name, "sha256": self.stored.sha256}
        rest = {"refusal": self.refusal, "notes": list(self.notes), "stored": stored}
        rows = [asdict(row) for row in self.rows]
        return {**values, "failures": dict(self.failures), "rows": rows, **rest}
