"""Exports of relations, of classes that are not there, and of images that were never read."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vistadex
from tests.open_images_sets import contents, write_set
from vistadex.assembling import Assembler, Refusal, note
from vistadex.catalog import Catalog, registering, writing
from vistadex.formats import Problems
from vistadex.origins import AnnotationOrigin
from vistadex.records import (
    NOMINAL_SIDE,
    AnnotatedImage,
    Classification,
    Detections,
    ImageEntry,
    Outcome,
    Relation,
    Relations,
    Result,
)

CLASSES = ("Horse", "Person", "Table")
TASKS = ("detector", "classifier", "relater")


def write(
    catalog: Catalog, key: str, *results: Result | None, size_wh: tuple[int, int], seen: bool
) -> None:
    outcome = Outcome(ImageEntry(key, 1, "v1" if seen else ""), *size_wh, results, seen=seen)
    with catalog.writing() as connection:
        source = registering.register_source(connection, "/photos")
        origins = [AnnotationOrigin("human", task, CLASSES, {}) for task in TASKS]
        analyzers = [registering.register_analyzer(connection, one) for one in origins]
        writing.write_annotations(connection, source, analyzers, [outcome])


def boxes(frame_wh: tuple[int, int]) -> Detections:
    """A horse in the right lower quarter."""
    width, height = frame_wh
    corners = np.array([[width / 2, height / 2, width, height]], np.float64)
    return Detections(corners, np.ones(1), np.array([0], np.int64))


def said(frame_wh: tuple[int, int]) -> tuple[Detections, Classification, Relations]:
    """A box, a class that is there and one that is not, and a relation."""
    width, height = frame_wh
    half = (0.0, 0.0, width / 2, height / 2)
    classification = Classification(np.array([0.75, 0.0]), np.array([1, 2], np.int64))
    related = Relations((Relation("Person", "rides", "Horse", half, None, 1.0),))
    return boxes(frame_wh), classification, related


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    made = Catalog(tmp_path / "catalog.db", create=True)
    nominal = (NOMINAL_SIDE, NOMINAL_SIDE)
    write(made, "read.jpg", *said((80, 40)), size_wh=(80, 40), seen=True)
    write(made, "far.jpg", *said(nominal), size_wh=nominal, seen=False)
    write(made, "unsized.jpg", *said((80, 40)), size_wh=(0, 0), seen=False)
    return made


def assembled(catalog: Catalog, format: str) -> tuple[dict[str, AnnotatedImage], Problems]:
    problems = Problems()
    assembler = Assembler(catalog, format, "human", 0.0)
    images = {}
    for found, made in assembler.each(list(catalog.walk())):
        if isinstance(made, Refusal):
            note(problems, found, made)
        elif made is not None:
            images[made.file_name] = made
    return images, problems


@pytest.mark.parametrize(
    ("format", "left_out"),
    [("coco", 2), ("voc", 2), ("coco-results", 1), ("yolo", 1), ("imagefolder", 0)],
)
def test_a_format_of_pixels_leaves_out_images_of_unknown_size(
    format: str, left_out: int, catalog: Catalog
) -> None:
    found, problems = assembled(catalog, format)
    assert len(found) == 3 - left_out
    assert dict(problems.counts) == ({"no-size": left_out} if left_out else {})
    assert "read.jpg" in found


def test_boxes_of_a_picture_never_read_are_fractions(catalog: Catalog) -> None:
    found, _ = assembled(catalog, "automl-csv")
    image = found["far.jpg"]
    assert (image.relative, image.width, image.height) == (True, None, None)
    assert image.boxes is not None
    assert image.boxes[0].box_xyxy == (0.5, 0.5, 1.0, 1.0)
    assert image.relations is not None
    assert image.relations[0].subject_xyxy == (0.0, 0.0, 0.5, 0.5)
    assert image.relations[0].object_xyxy is None
    near = found["read.jpg"]
    assert (near.relative, near.width) == (False, 80)


def test_only_formats_that_can_say_it_get_classes_that_are_not_there(catalog: Catalog) -> None:
    found, _ = assembled(catalog, "open-images")
    assert found["read.jpg"].classes == ("Person", "Table")
    assert found["read.jpg"].class_scores == (0.75, 0.0)
    found, _ = assembled(catalog, "imagefolder")
    assert found["read.jpg"].classes == ("Person",)


def test_yolo_and_automl_say_the_same_boxes_of_what_was_never_read(
    catalog: Catalog, tmp_path: Path
) -> None:
    done = vistadex.export_annotations("yolo", tmp_path / "yolo", catalog=catalog)
    assert (done.images, done.problems) == (2, {"no-size": 1})
    for name in ("read", "far"):
        line = (tmp_path / f"yolo/labels/train/{name}.txt").read_text()
        assert [float(one) for one in line.split()[1:]] == [0.75, 0.75, 0.5, 0.5]
    vistadex.export_annotations("automl-csv", tmp_path / "a.csv", catalog=catalog)
    rows = list(csv.reader((tmp_path / "a.csv").read_text().splitlines()))
    corners = [row[3:9] for row in rows if row[1] in ("read.jpg", "far.jpg") and len(row) > 9]
    assert corners == [["0.5", "0.5", "", "", "1", "1"]] * 2


def test_coco_results_of_what_was_never_read_are_a_problem_not_a_lie(
    catalog: Catalog, tmp_path: Path
) -> None:
    done = vistadex.export_annotations("coco", tmp_path / "a.json", catalog=catalog)
    assert (done.images, done.relations, done.problems) == (1, 1, {"no-size": 2})
    assert all("index the pictures" in one for one in done.first_problems)
    written = json.loads((tmp_path / "a.json").read_text())
    assert [one["file_name"] for one in written["images"]] == ["read.jpg"]


def test_open_images_get_relations_scores_and_absent_classes(
    catalog: Catalog, tmp_path: Path
) -> None:
    done = vistadex.export_annotations("open-images", tmp_path / "set", catalog=catalog)
    assert (done.images, done.relations, done.problems) == (2, 2, {"no-size": 1})
    second = Catalog(tmp_path / "second.db", create=True)
    back = vistadex.import_annotations("open-images", tmp_path / "set", catalog=second)
    assert back.imported == 2
    image = next(one for one in second.walk() if one.key.startswith("far"))
    assert image.status == "unseen"
    assert "Table" in image.absent
    assert [tuple(one[:3]) for one in image.relations] == [("Person", "rides", "Horse")]
    assert image.boxes[0].box_xyxy == (500_000, 500_000, 1_000_000, 1_000_000)


def everything(catalog: Catalog, folder: Path) -> dict[str, list[str]]:
    """Every row but for numbers, the name of the folder, and the order of boxes of one score."""
    return {
        table: sorted(re.sub(r"'ordinal': \d+", "", row).replace(str(folder), "") for row in rows)
        for table, rows in contents(catalog).items()
    }


@pytest.mark.parametrize("model", ["human", "people of ours"])
def test_open_images_come_out_as_they_went_in_with_labels_of_people_and_machines(
    model: str, tmp_path: Path
) -> None:
    write_set(tmp_path / "set", images=80)
    wanted: dict[str, Any] = {"model": model, "image_url": "https://x.org/{split}/{image_id}.jpg"}
    with Catalog(tmp_path / "one.db", create=True) as one:
        vistadex.import_annotations("open-images", tmp_path / "set", catalog=one, **wanted)
        done = vistadex.export_annotations(
            "open-images", tmp_path / "out", model=model, catalog=one
        )
        before = everything(one, tmp_path / "set")
        assert done.images == one.count()
    assert (done.problems, done.boxes) == ({}, len(before["box"]))
    with Catalog(tmp_path / "two.db", create=True) as two:
        vistadex.import_annotations("open-images", tmp_path / "out", catalog=two, **wanted)
        after = everything(two, tmp_path / "out")
    assert after == before
    assert len({row for row in before["analyzer"]}) == 4  # one is the machine


def test_a_machine_alone_is_written_alone(tmp_path: Path) -> None:
    write_set(tmp_path / "set", images=80)
    with Catalog(tmp_path / "one.db", create=True) as one:
        vistadex.import_annotations("open-images", tmp_path / "set", catalog=one)
        vistadex.export_annotations("open-images", tmp_path / "out", model="machine", catalog=one)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "train-annotations-machine-imagelabels.csv" in names
    assert not [name for name in names if "human" in name or "bbox." in name]
