"""Data sets of images that nobody has read yet: their pictures come from where they are shown."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vistadex
from vistadex.catalog import Catalog, registering, writing
from vistadex.datasets import build_dataset
from vistadex.decoding import decode, encode_jpeg
from vistadex.errors import FormatError
from vistadex.origins import AnnotationOrigin
from vistadex.records import (
    NOMINAL_SIDE,
    Classification,
    Detections,
    ImageEntry,
    Outcome,
    Relation,
    Relations,
)

CLASSES = ("Apple", "Boat", "Car")
NUMBER = 12


def picture(seed: int) -> bytes:
    import cv2

    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return encode_jpeg(cv2.resize(coarse, (80, 40), interpolation=cv2.INTER_CUBIC))


def far(at: int) -> Outcome:
    """An image with an apple in its right lower quarter, no boat, and every second one a car."""
    side = NOMINAL_SIDE
    corners = np.array([[side / 2, side / 2, side, side]], np.float64)
    found = Detections(corners, np.ones(1), np.array([0], np.int64))
    scores, ids = ([0.0, 1.0], [1, 2]) if at % 2 else ([0.0], [1])
    labels = Classification(np.array(scores), np.array(ids, np.int64))
    box = (0.0, 0.0, side / 2, side / 2)
    related = Relations((Relation("Apple", "under", "Car", box, box, 1.0),))
    entry = ImageEntry(f"{at:016x}.jpg", 0, "")
    return Outcome(entry, side, side, (found, labels, related), seen=False)


@pytest.fixture
def catalog(tmp_path: Path, aws: pytest.MonkeyPatch) -> Catalog:
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.create_bucket(Bucket="shown")
    for at in range(NUMBER):
        if at != 3:
            client.put_object(Bucket="shown", Key=f"{at:016x}.jpg", Body=picture(at))
    (tmp_path / "none").mkdir()
    made = Catalog(tmp_path / "catalog.db", create=True)
    with made.writing() as connection:
        url = "s3://shown/{image_id}.jpg"
        source = registering.register_source(connection, str(tmp_path / "none"), url)
        analyzers = [
            registering.register_analyzer(connection, AnnotationOrigin("human", task, CLASSES, {}))
            for task in ("detector", "classifier", "relater")
        ]
        writing.write_annotations(connection, source, analyzers, list(map(far, range(NUMBER))))
    return made


def test_pictures_are_fetched_and_boxes_become_their_pixels(
    catalog: Catalog, tmp_path: Path
) -> None:
    done = build_dataset(
        tmp_path / "set", classes=["Apple"], per_class=100, split="50/50", catalog=catalog
    )
    assert (done.images, done.pictures, done.boxes) == (NUMBER - 1, NUMBER - 1, NUMBER - 1)
    assert (done.problems, done.replaced) == ({"unreadable": 1}, 1)
    assert (done.missing, done.not_compared) == ({"Apple": 89}, 0)
    for split in ("train", "val"):
        said = json.loads((tmp_path / f"set/annotations/instances_{split}.json").read_text())
        for image in said["images"]:
            assert (image["width"], image["height"]) == (80, 40)
            data = (tmp_path / "set" / split / image["file_name"]).read_bytes()
            assert data == picture(int(image["file_name"][:16], 16))
            assert decode(data).width == 80
        assert {tuple(one["bbox"]) for one in said["annotations"]} == {(40, 20, 40, 20)}


def test_without_pictures_a_format_of_pixels_says_that_sizes_are_unknown(
    catalog: Catalog, tmp_path: Path
) -> None:
    wanted: dict[str, Any] = {"classes": ["Apple"], "per_class": 2, "pictures": "reference"}
    with pytest.raises(FormatError, match="12 no-size"):
        build_dataset(tmp_path / "set", catalog=catalog, **wanted)


def test_references_are_where_pictures_are_shown(catalog: Catalog, tmp_path: Path) -> None:
    done = build_dataset(
        tmp_path / "set",
        classes=["Apple", "Car"],
        per_class=4,
        format="automl-csv",
        pictures="reference",
        catalog=catalog,
    )
    rows = list(csv.reader((tmp_path / "set/automl.csv").read_text().splitlines()))
    assert len(rows) == done.images == done.not_compared
    for _, address, *names in rows:
        stem = address.removeprefix("s3://shown/").removesuffix(".jpg")
        assert names == (["Apple", "Car"] if int(stem, 16) % 2 else ["Apple"])


def test_an_open_images_set_keeps_relations_and_what_is_not_there(
    catalog: Catalog, tmp_path: Path
) -> None:
    done = build_dataset(
        tmp_path / "set",
        classes=CLASSES,
        per_class=8,
        split="50/25/25",
        format="open-images",
        catalog=catalog,
    )
    assert min(done.splits.values()) >= 2
    assert done.counts["Boat"] == {"train": 0, "val": 0, "test": 0}
    assert done.missing["Boat"] == 8
    second = Catalog(tmp_path / "second.db", create=True)
    back = vistadex.import_annotations("open-images", tmp_path / "set", catalog=second)
    assert back.imported == done.images
    images = list(second.walk())
    words = {"train": "train", "val": "validation", "test": "test"}
    for split, number in done.splits.items():
        own = [one for one in images if one.attributes["split"] == words[split]]
        assert len(own) == number == len(list((tmp_path / "set").glob(f"{words[split]}/*.jpg")))
    assert all(one.absent == ("Boat",) for one in images)
    assert all(one.relations[0].predicate == "under" for one in images)
