"""Results as tables on stdout, and whether goals are reached."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any


def show(title: str, headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table in Markdown, its columns aligned; floats with three digits that count."""
    cells = [list(headers), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    print(f"\n{title}\n")
    for number, row in enumerate(cells):
        line = [
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print(f"| {' | '.join(line)} |")
        if number == 0:
            rules = [
                "-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)
            ]
            print(f"| {' | '.join(rules)} |")
    sys.stdout.flush()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def goal_rows(goals: Sequence[tuple[str, float | None, str, float]]) -> list[list[Any]]:
    """(name, measured, ">=" or "<=", goal) as rows that say whether each is reached."""
    rows: list[list[Any]] = []
    for name, measured, relation, goal in goals:
        reached = "not measured"
        if measured is not None:
            reached = (
                "yes" if (measured >= goal if relation == ">=" else measured <= goal) else "NO"
            )
        rows.append([name, measured, f"{relation} {goal:g}", reached])
    return rows


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is at least as large as this share of all."""
    return sorted(values)[max(0, -(-int(share * 100) * len(values) // 100) - 1)]
