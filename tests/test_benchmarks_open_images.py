"""The look-alike of Open Images says what the true files say, and the benchmark on it runs."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
IMAGES = 3000
ROWS = {"images": 3000, "boxes": 5333, "relations": 1100}
FLAGS = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")


def generate(folder: Path, *options: str, images: int = IMAGES) -> dict[str, int]:
    """Number of rows by kind, as the generator says."""
    command = [sys.executable, str(BENCHMARKS / "open_images_like.py"), str(folder)]
    command += ["--images", str(images), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, int] = json.loads(done.stdout)
    return said


def rows(folder: Path, pattern: str) -> list[dict[str, str]]:
    """The rows of all files that match."""
    found = []
    for path in sorted(folder.glob(pattern)):
        with path.open(newline="", encoding="utf-8") as file:
            found += list(csv.DictReader(file))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of files for all tests, which only read it."""
    made = tmp_path_factory.mktemp("like")
    (made / "said.json").write_text(json.dumps(generate(made)))
    return made


def test_rows_are_as_many_as_said_and_as_shares_want(folder: Path) -> None:
    said = json.loads((folder / "said.json").read_text())
    assert {kind: said[kind] for kind in ROWS} == pytest.approx(ROWS, abs=3)
    assert said["human"] + said["machine"] == pytest.approx(IMAGES * 60 / 9, rel=0.03)
    assert len(rows(folder, "*-with-rotation.csv")) == said["images"]
    assert len(rows(folder, "*-human-imagelabels.csv")) == said["human"]
    assert len(rows(folder, "*-machine-imagelabels.csv")) == said["machine"]
    assert len(rows(folder, "*-annotations-bbox.csv")) == said["boxes"]
    assert len(rows(folder, "*-annotations-vrd.csv")) == said["relations"]


def test_ids_are_different_hexadecimal_and_rise_in_each_split(folder: Path) -> None:
    everything = []
    for path in folder.glob("*-with-rotation.csv"):
        ids = [row["ImageID"] for row in rows(folder, path.name)]
        assert ids == sorted(ids)
        assert all(len(one) == 16 and int(one, 16) >= 0 for one in ids)
        everything += ids
    assert len(everything) == len(set(everything)) == IMAGES


def test_columns_of_boxes_are_those_of_the_true_file(folder: Path, shared_data: Path) -> None:
    true = (shared_data / "openimages/test-annotations-bbox.csv").read_text().splitlines()[0]
    for path in folder.glob("*-annotations-bbox.csv"):
        assert path.read_text().splitlines()[0] == true


def test_boxes_lie_in_the_picture_and_their_classes_are_verified(folder: Path) -> None:
    labels = rows(folder, "*-human-imagelabels.csv")
    said = {(row["ImageID"], row["LabelName"]) for row in labels if row["Confidence"] == "1"}
    boxes = rows(folder, "*-annotations-bbox.csv")
    for row in boxes:
        assert 0 <= float(row["XMin"]) < float(row["XMax"]) <= 1
        assert 0 <= float(row["YMin"]) < float(row["YMax"]) <= 1
        assert {row[name] for name in FLAGS} <= {"0", "1", "-1"}
    assert {(row["ImageID"], row["LabelName"]) for row in boxes} <= said
    assert len({row["ImageID"] for row in boxes}) == pytest.approx(IMAGES * 1.9 / 9, rel=0.05)


def test_relations_connect_boxes_and_attributes_repeat_theirs(folder: Path) -> None:
    sides = ("XMin", "XMax", "YMin", "YMax")
    boxes = {
        (row["ImageID"], row["LabelName"], *(row[side] for side in sides))
        for row in rows(folder, "*-annotations-bbox.csv")
    }
    attributes = {row["id"] for row in rows(folder, "*attributes-description.csv")}
    kinds = Counter()
    for row in rows(folder, "*-annotations-vrd.csv"):
        one, other = ([row[f"{side}{i}"] for side in sides] for i in "12")
        assert (row["ImageID"], row["LabelName1"], *one) in boxes
        kinds[row["RelationshipLabel"]] += 1
        if row["RelationshipLabel"] == "is":
            assert row["LabelName2"] in attributes
            assert one == other
        else:
            assert (row["ImageID"], row["LabelName2"], *other) in boxes
    assert kinds["is"] == pytest.approx(0.4 * ROWS["relations"], rel=0.1)


def test_classes_have_the_shares_that_are_wanted(folder: Path) -> None:
    names = {r["LabelName"]: r["DisplayName"] for r in rows(folder, "*class-descriptions.csv")}
    assert len(set(names.values())) == len(names) == 20_000
    there = {
        (row["ImageID"], names[row["LabelName"]])
        for row in rows(folder, "*-imagelabels.csv")
        if float(row["Confidence"])
    }
    counts = Counter(name for _, name in there)
    for name, share in (("Person", 0.28), ("Clothing", 0.153), ("Tree", 0.105)):
        assert counts[name] / IMAGES == pytest.approx(share, rel=0.15)
    assert counts["Person"] > counts["Clothing"] > counts["Tree"]


def test_confidences_are_few_values_and_an_absent_class_is_nowhere_else(folder: Path) -> None:
    human = rows(folder, "*-human-imagelabels.csv")
    machine = rows(folder, "*-machine-imagelabels.csv")
    assert {row["Confidence"] for row in machine} == {"0.5", "0.6", "0.7", "0.8", "0.9"}
    absent = {(r["ImageID"], r["LabelName"]) for r in human if r["Confidence"] == "0"}
    assert len(absent) / len(human) == pytest.approx(0.15, abs=0.02)
    others = [row for row in human + machine if row["Confidence"] != "0"]
    assert not absent & {(row["ImageID"], row["LabelName"]) for row in others}


def test_hierarchy_names_every_boxable_class_once(folder: Path) -> None:
    def below(node: dict[str, Any]) -> list[str]:
        parts = [*node.get("Subcategory", []), *node.get("Part", [])]
        return [one for part in parts for one in [part["LabelName"], *below(part)]]

    root = json.loads((folder / "bbox_labels_600_hierarchy.json").read_text())
    boxable = (folder / "class-descriptions-boxable.csv").read_text().splitlines()
    assert sorted(below(root)) == sorted(line.split(",")[0] for line in boxable)
    assert len(boxable) == 600


def test_same_size_is_the_same_bytes_zipped_or_not(folder: Path, tmp_path: Path) -> None:
    generate(tmp_path, "--gzip")
    plain = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    for name, content in plain.items():
        path = tmp_path / f"{name}.gz"
        found = gzip.decompress(path.read_bytes()) if path.exists() else None
        assert content == (found if found is not None else (tmp_path / name).read_bytes())
    assert len(list(tmp_path.glob("*.csv.gz"))) == 15


def test_full_columns_fill_every_column_of_images(tmp_path: Path) -> None:
    generate(tmp_path, "--full-columns", images=200)
    found = rows(tmp_path, "*-with-rotation.csv")
    assert len(found) == 200
    assert all(value for row in found for name, value in row.items() if name != "Rotation")


def test_one_image_is_enough_and_none_is_refused(tmp_path: Path) -> None:
    assert generate(tmp_path, images=1)["images"] == 1
    command = [sys.executable, str(BENCHMARKS / "open_images_like.py"), str(tmp_path / "b")]
    done = subprocess.run([*command, "--images", "0"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "expected 1 or more" in done.stderr


@pytest.mark.slow
def test_speed_of_a_catalog_is_measured_and_answers_agree(folder: Path, tmp_path: Path) -> None:
    chosen = ["import", "queries", "plain", "cold", "writing"]
    chosen += ["duckdb"] if find_spec("duckdb") else []
    out = tmp_path / "found.json"
    command = [sys.executable, str(BENCHMARKS / "catalog_speed.py"), "--json", str(out)]
    command += ["--work", str(tmp_path / "work"), "--folder", str(folder), "--runs", "2"]
    command += ["--rounds", "1", "--batches", "5", "--tables", ",".join(chosen)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(out.read_text())["results"]
    assert results["import"]["summary"]["images"] == IMAGES
    assert results["queries"].keys() == results["plain"].keys()
    assert not any(results["plain_differs"].values()), results["plain_differs"]
    assert not any(results.get("duckdb_differs", {}).values()), results["duckdb_differs"]
    assert all(one["errors"] == 0 for one in results["writing"]["readers"].values())
    assert max(results["writing"]["behind_s"]) < 10
    again = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert again.returncode == 1
    assert "is filled; remove it, or give --skip-import" in again.stderr
