"""What a run leaves of its course: a table for spreadsheets, and event files for TensorBoard."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboardX import SummaryWriter

CSV = "metrics.csv"
EVENTS = "tensorboard"


class Records:
    """The rows of all epochs so far, in both forms."""

    def __init__(self, folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
        """Args:
        rows: of the epochs before a run was resumed.
        """
        self.rows = [dict(row) for row in rows]
        self._folder = folder
        after = int(self.rows[-1]["step"]) + 1 if self.rows else 0
        self._events = SummaryWriter(str(folder / EVENTS), purge_step=after, flush_secs=10)

    def add(self, row: Mapping[str, float]) -> None:
        """One epoch more."""
        self.rows.append(dict(row))
        step = int(row["step"])
        for name, value in row.items():
            if name not in ("epoch", "step"):
                self._events.add_scalar(_tag(name), value, step)
        self._write()

    def close(self) -> None:
        """Ends the event file."""
        self._events.close()

    def _write(self) -> None:
        """All rows anew: epochs that a resumed run repeats do not stand there twice."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        path = self._folder / CSV
        part = path.with_name(f"{CSV}.part")
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(part, path)


def _tag(name: str) -> str:
    """Curves of a kind share a group."""
    if name.startswith("loss_"):
        return f"loss/{name.removeprefix('loss_')}"
    if name.startswith(("AP", "AR")):
        return f"validation/{name}"
    return f"run/{name}"
