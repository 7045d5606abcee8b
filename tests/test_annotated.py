"""open_annotated reads every format as the same set: boxes in upright pixels, sizes, classes."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vistadex
from vistadex.annotated import AnnotatedSet, guess_format, open_annotated
from vistadex.catalog import Catalog
from vistadex.errors import FormatError, SourceError, UsageError, VistadexError
from vistadex.testing import scene_jpeg

RED = ("red square", 10, 20, 40)
BLUE = ("blue square", 90, 60, 30)
RED_BOX, BLUE_BOX = [10.0, 20, 40, 40], [90.0, 60, 30, 30]
NAMES = {7: "red square", 3: "blue square", 9: "zebra"}
Rows = list[tuple[int, list[float], dict[str, Any]]]


def write_coco(folder: Path, said: dict[str, Rows], **image: object) -> Path:
    """Pictures with a red and a blue square, and what is said of each."""
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number, (name, rows) in enumerate(said.items(), 1):
        (folder / "photos" / name).write_bytes(scene_jpeg([RED, BLUE]))
        size = {"width": 160, "height": 120}
        images.append({"id": number, "file_name": name, **size, **image})
        for category, bbox, more in rows:
            one = {"id": len(boxes) + 1, "image_id": number, "category_id": category, "bbox": bbox}
            boxes.append({**one, **more})
    categories = [{"id": id_, "name": name} for id_, name in NAMES.items()]
    path = folder / "said.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return path


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    rows: Rows = [(7, RED_BOX, {"area": 900.0}), (3, BLUE_BOX, {"iscrowd": 1})]
    return write_coco(tmp_path, {"a.jpg": rows, "b.jpg": []})


def opened(coco: Path, **more: Any) -> AnnotatedSet:
    return open_annotated(coco, images=coco.parent / "photos", **more)


def test_a_coco_file_is_a_set(coco: Path) -> None:
    found = opened(coco)
    assert found.classes == ("blue square", "red square", "zebra"), "by their numbers"
    first, second = found.images
    assert (first.key, first.width, first.height) == ("a.jpg", 160, 120)
    assert first.boxes.tolist() == [[10, 20, 50, 60], [90, 60, 120, 90]]
    assert (first.boxes.dtype, first.labels.dtype) == (np.float32, np.int32)
    assert first.labels.tolist() == [1, 0]
    assert first.area.tolist() == [900, 900]
    assert (first.crowd.tolist(), first.group_of.tolist()) == ([False, True], [False, True])
    assert not first.difficult.any()
    assert second.boxes.shape == (0, 4)
    assert found.problems == []
    assert found.read(1) == (coco.parent / "photos" / "b.jpg").read_bytes()
    assert first.uri == str(coco.parent / "photos" / "a.jpg")


def test_bad_boxes_and_pictures_are_problems_and_the_rest_goes_on(tmp_path: Path) -> None:
    bad: Rows = [(7, RED_BOX, {}), (7, [5, 5, 0, 9], {}), (7, [300, 300, 9, 9], {})]
    path = write_coco(tmp_path, {"a.jpg": bad, "gone.jpg": [], "broken.jpg": [], "b.jpg": []})
    (tmp_path / "photos" / "gone.jpg").unlink()
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    found = opened(path)
    assert [one.key for one in found.images] == ["a.jpg", "b.jpg"]
    assert found.images[0].boxes.tolist() == [[10, 20, 50, 60]]
    kinds = sorted(one.kind for one in found.problems)
    assert kinds == ["bad-box", "bad-picture", "bad-picture", "outside"]


def test_boxes_of_a_picture_that_lies_on_its_side_are_turned(tmp_path: Path) -> None:
    path = write_coco(tmp_path, {"a.jpg": [(7, [0, 0, 40, 20], {})]})
    picture, exif = Image.new("RGB", (160, 120)), Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    picture.save(data, "JPEG", exif=exif)
    (tmp_path / "photos" / "a.jpg").write_bytes(data.getvalue())
    (image,) = opened(path).images
    assert (image.width, image.height) == (120, 160)
    assert image.boxes.tolist() == [[100, 0, 120, 40]]


def test_a_picture_of_another_size_is_a_problem(tmp_path: Path) -> None:
    path = write_coco(tmp_path, {"a.jpg": [(7, RED_BOX, {})], "b.jpg": []})
    (tmp_path / "photos" / "a.jpg").write_bytes(scene_jpeg([RED], (80, 60)))
    found = opened(path)
    assert [one.key for one in found.images] == ["b.jpg"]
    assert [one.kind for one in found.problems] == ["other-size"]


def test_a_set_goes_into_another_process(coco: Path) -> None:
    found = opened(coco)
    copy = pickle.loads(pickle.dumps(found))
    assert copy.classes == found.classes
    assert copy.images[0].boxes.tolist() == found.images[0].boxes.tolist()
    assert copy.read(0) == found.read(0)


def test_a_subset_has_its_own_order(coco: Path) -> None:
    found = opened(coco)
    some = found.subset([1, 0, 1])
    assert [one.key for one in some.images] == ["b.jpg", "a.jpg", "b.jpg"]
    assert some.read(1) == found.read(0)
    assert some.images[1].labels.tolist() == [1, 0]
    assert some.images[-1].key == "b.jpg"
    assert [one.key for one in some.images[:2]] == ["b.jpg", "a.jpg"]
    with pytest.raises(IndexError):
        some.images[3]


@pytest.fixture
def catalog(coco: Path, tmp_path: Path) -> Catalog:
    """What the COCO file says, of pictures with a split."""
    values = json.loads(coco.read_text())
    for image, split in zip(values["images"], ("train", "test"), strict=True):
        image["split"] = split
    values["annotations"][1].pop("iscrowd")
    coco.write_text(json.dumps(values))
    store = Catalog(tmp_path / "c.db", create=True)
    vistadex.import_annotations("coco", coco, images=tmp_path / "photos", catalog=store)
    return store


def said(found: AnnotatedSet) -> list[tuple[str, list[tuple[str, list[float]]]]]:
    """Names and boxes by picture, whatever their order and the numbers of classes."""
    pictures = []
    for one in found.images:
        names = [found.classes[i] for i in one.labels]
        boxes = one.boxes.round(3).tolist()
        pictures.append((one.key.rpartition("/")[2], sorted(zip(names, boxes, strict=True))))
    return sorted(pictures)


@pytest.mark.parametrize("format", ["voc", "yolo", "open-images"])
def test_every_format_gives_the_same_set(format: str, catalog: Catalog, tmp_path: Path) -> None:
    place = tmp_path / "data"
    open_ = format == "open-images"
    vistadex.export_annotations(format, place, catalog=catalog, pictures=not open_)
    images = tmp_path / "photos" if open_ else None
    found = open_annotated(place, images=images)
    assert guess_format(str(place)) == format
    expected = said(open_annotated("catalog", catalog=catalog))
    assert expected[0] == (
        "a.jpg",
        [("blue square", [90, 60, 120, 90]), ("red square", [10, 20, 50, 60])],
    )
    # Open Images says nothing of a picture without boxes and classes.
    assert said(found) == expected[: 1 if open_ else 2]
    assert found.problems == []
    one = open_annotated(place, images=images, split="train")
    assert [image.key.rpartition("/")[2] for image in one.images] == ["a.jpg"]
    assert found.splits["train"] == 1


def test_a_query_chooses_images_of_a_catalog(catalog: Catalog) -> None:
    found = open_annotated("catalog", catalog=catalog, query="red square")
    assert [one.key for one in found.images] == ["a.jpg"]
    assert found.name == "catalog red square"
    assert found.read(0)[:2] == b"\xff\xd8"
    assert open_annotated("catalog", catalog=catalog, split="test").images[0].key == "b.jpg"


def test_a_folder_for_each_class_is_a_set_of_labels(tmp_path: Path) -> None:
    for place in ("train/cat/1.jpg", "train/dog/2.jpg", "val/dog/3.jpg"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(scene_jpeg([RED]))
    found = open_annotated(tmp_path)
    assert found.classes == ("cat", "dog")
    assert [one.classes_of_image.tolist() for one in found.images] == [[0], [1], [1]]
    assert [one.key for one in open_annotated(tmp_path, split="val").images] == ["val/dog/3.jpg"]


def test_trainval_is_train_and_val(shared_data: Path) -> None:
    place = shared_data / "bccd" / "BCCD"
    both, test = open_annotated(place, split="trainval"), open_annotated(place, split="test")
    assert (len(both), len(test)) == (292, 72)
    assert both.classes == ("Platelets", "RBC", "WBC")
    assert [one.kind for one in both.problems] == ["bad-box"] * 2
    assert not {one.key for one in both.images} & {one.key for one in test.images}


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"split": "test"}, UsageError, "no image is of the split 'test'"),
        ({"images": None}, UsageError, "add --images SOURCE"),
        ({"images": "nowhere"}, SourceError, "nowhere"),
        ({"query": "dog"}, UsageError, "expected 'catalog' as the data"),
        ({"format": "nope"}, UsageError, "annotation format 'nope' is unknown"),
        ({"format": "voc"}, VistadexError, "said.json"),
    ],
)
def test_what_is_no_set_is_refused(
    coco: Path, given: dict[str, Any], error: type[Exception], words: str
) -> None:
    known = {"images": coco.parent / "photos"}
    with pytest.raises(error, match=words):
        open_annotated(coco, **(known | given))


def test_pictures_that_are_all_missing_are_refused_with_the_first(
    coco: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"no annotated picture can be used.*a\.jpg"):
        open_annotated(coco, images=tmp_path / "empty")


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("nothing")
    with pytest.raises(FormatError, match="no annotations are recognized"):
        open_annotated(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(scene_jpeg([RED]))
    (tmp_path / "said.json").write_text("{}")
    with pytest.raises(FormatError, match=r"give .*/said\.json"):
        open_annotated(tmp_path)


def test_a_picture_that_is_described_twice_counts_once(coco: Path) -> None:
    folder = coco.parent / "Annotations"
    folder.mkdir()
    text = "<annotation><filename>a.jpg</filename></annotation>"
    for name in ("1.xml", "2.xml"):
        (folder / name).write_text(text)
    found = open_annotated(coco.parent, format="voc", images=coco.parent / "photos")
    assert len(found) == 1
    assert [one.kind for one in found.problems] == ["same-picture"]
