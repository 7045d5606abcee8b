"""The benchmark of derived relations runs, and the docs say what it finds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vistadex.relations import RULES

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "relations_vrd.py"


def run(shared_data: Path, tmp_path: Path, *options: str) -> Any:
    out = tmp_path / "out.json"
    command = [sys.executable, str(SCRIPT), "--work", str(tmp_path), "--out", str(out), *options]
    env = {**os.environ, "VISTADEX_TEST_DATA": str(shared_data)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())["results"]


def test_a_few_images_are_measured(shared_data: Path, tmp_path: Path) -> None:
    found = run(shared_data, tmp_path, "--images", "40", "--speed", "20")
    assert found["images"] == 20
    assert found["speed"]["relations"] > 20
    for name, row in found["agreement"].items():
        for what in ("recall", "precision"):
            assert row[what] is None or 0 <= row[what] <= 1, name


@pytest.mark.slow
def test_limits_are_those_that_fit_one_half_and_the_docs_show_the_other(
    shared_data: Path, tmp_path: Path
) -> None:
    found = run(shared_data, tmp_path, "--tune", "--speed", "20")
    for name, tuned in found["tuned"].items():
        used = [[one.measure, one.limit, one.reach] for one in RULES[name].conditions]
        assert tuned == used, name
    text = (ROOT / "docs" / "relations.md").read_text(encoding="utf-8")
    for number, relations, kept, said in found["places"]:
        assert f"| {number} | {relations:.1f} | {kept:.2f} | {said:.2f} |" in text, number
    for page in ("relations.md", "benchmarks.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for name, row in found["agreement"].items():
            numbers = [
                f"{value:,}" if isinstance(value, int) else f"{value:.2f}" for value in row.values()
            ]
            assert f"| `{name}` | {' | '.join(numbers)} |" in text, (page, name)


def test_missing_data_says_the_cure(tmp_path: Path) -> None:
    env = {**os.environ, "VISTADEX_TEST_DATA": str(tmp_path)}
    done = subprocess.run([sys.executable, str(SCRIPT)], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "vrd: not there; set VISTADEX_TEST_DATA" in done.stderr
