"""vistadex.export_annotations: what was imported comes out again, and detections too."""

import json
from pathlib import Path
from typing import Any

import pytest

import vistadex
from vistadex.catalog import Catalog
from vistadex.errors import FormatError, QueryError, UsageError
from vistadex.testing import RedSquareDetector, scene_jpeg

RED = ("red square", 10, 20, 40)
BLUE = ("blue square", 90, 60, 30)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub ü").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(scene_jpeg([RED]))
    (folder / "sub ü" / "b %20.jpg").write_bytes(scene_jpeg([RED, BLUE]))
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture
def catalog(tmp_path: Path, photos: Path) -> Catalog:
    opened = Catalog(tmp_path / "catalog.db", create=True)
    vistadex.index(photos, detector=RedSquareDetector(), catalog=opened)
    return opened


def test_the_coco_set_comes_out_as_it_went_in(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "coco" / "instances_val.json"
    catalog = Catalog(tmp_path / "catalog.db", create=True)
    images = shared_data / "coco" / "images" / "val"
    read = vistadex.import_annotations("coco", source, images=images, catalog=catalog)
    assert read.problems == {}
    written = vistadex.export_annotations("coco", tmp_path / "out.json", catalog=catalog)
    assert (written.images, written.boxes) == (read.imported, read.boxes) == (240, read.boxes)
    before = json.loads(source.read_text())
    after = json.loads((tmp_path / "out.json").read_text())

    def by_id(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
        return {row["id"]: {k: v for k, v in row.items() if k != "segmentation"} for row in rows}

    assert by_id(after["images"]) == by_id(before["images"])
    used = {row["category_id"] for row in before["annotations"]}
    categories = by_id(before["categories"])
    assert {k: v["name"] for k, v in by_id(after["categories"]).items() if k in used} == {
        k: categories[k]["name"] for k in used
    }
    then, now = by_id(before["annotations"]), by_id(after["annotations"])
    assert set(then) == set(now)
    for id_, row in then.items():
        assert now[id_].pop("bbox") == pytest.approx(row.pop("bbox"), abs=1e-9)
        assert now[id_].get("iscrowd", 0) == row.pop("iscrowd", 0)
        assert {k: now[id_][k] for k in row} == row


def test_detections_are_written_by_their_model(
    catalog: Catalog, photos: Path, tmp_path: Path
) -> None:
    done = vistadex.export_annotations(
        "coco", tmp_path / "out.json", model="red-squares", catalog=catalog
    )
    assert (done.images, done.boxes) == (2, 3)
    written = json.loads((tmp_path / "out.json").read_text())
    assert {one["file_name"] for one in written["images"]} == {"a.jpg", "sub ü/b %20.jpg"}
    assert sorted(one["id"] for one in written["categories"]) == [1, 2]
    assert min(one["id"] for one in written["annotations"]) == 1


def test_a_query_and_a_score_narrow_it(catalog: Catalog, tmp_path: Path) -> None:
    one = vistadex.export_annotations(
        "coco", tmp_path / "1.json", query="blue square", model="red-squares", catalog=catalog
    )
    assert (one.images, one.boxes) == (1, 2)
    none = vistadex.export_annotations(
        "coco", tmp_path / "2.json", model="red-squares", min_score=1.0, catalog=catalog
    )
    assert none.images == 2
    assert none.boxes < 3


@pytest.mark.parametrize("format", ["yolo", "voc"])
def test_a_set_with_pictures_can_be_imported_again(
    format: str, catalog: Catalog, tmp_path: Path
) -> None:
    done = vistadex.export_annotations(
        format, tmp_path / "set", model="red-squares", pictures=True, catalog=catalog
    )
    assert (done.images, done.pictures, done.problems) == (2, 2, {})
    second = Catalog(tmp_path / "second.db", create=True)
    back = vistadex.import_annotations(format, tmp_path / "set", catalog=second)
    assert (back.imported, back.boxes, back.problems) == (2, 3, {})

    def boxes(opened: Catalog) -> list[tuple[Any, ...]]:
        found = (image for image in opened.walk() if image.boxes)
        return sorted(
            (Path(image.key).name, box.class_name, *(round(x) for x in box.box_xyxy))
            for image in found
            for box in image.boxes
        )

    assert boxes(second) == boxes(catalog)


def test_nothing_is_left_behind_where_nothing_is_written(catalog: Catalog, tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    with pytest.raises(QueryError, match="no model is named 'human'; known are: red-squares"):
        vistadex.export_annotations("coco", place / "x.json", catalog=catalog)
    with pytest.raises(FormatError, match="nothing to write"):
        vistadex.export_annotations(
            "coco",
            place / "x.json",
            query='source:photos -"red square"',
            model="red-squares",
            catalog=catalog,
        )
    with pytest.raises(UsageError, match="no place for pictures"):
        vistadex.export_annotations(
            "coco", place / "x.json", model="red-squares", pictures=True, catalog=catalog
        )
    assert list(place.iterdir()) == []


def test_what_is_there_is_not_overwritten(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        vistadex.export_annotations("coco", tmp_path / "out.json", catalog=catalog)
    assert (tmp_path / "out.json").read_text() == "mine"


def test_images_of_one_name_in_two_sources_are_said(
    catalog: Catalog, photos: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.jpg").write_bytes(scene_jpeg([BLUE]))
    vistadex.index(other, detector=RedSquareDetector(), catalog=catalog)
    done = vistadex.export_annotations(
        "coco", tmp_path / "out.json", model="red-squares", catalog=catalog
    )
    assert (done.images, done.problems) == (2, {"same-name": 1})


def test_pictures_that_are_gone_are_said(catalog: Catalog, photos: Path, tmp_path: Path) -> None:
    (photos / "a.jpg").unlink()
    done = vistadex.export_annotations(
        "yolo", tmp_path / "set", model="red-squares", pictures=True, catalog=catalog
    )
    assert (done.images, done.problems) == (1, {"unreadable": 1})


def test_classes_of_one_origin_are_not_those_of_another(tmp_path: Path, photos: Path) -> None:
    catalog = Catalog(tmp_path / "own.db", create=True)
    root = tmp_path / "set"
    for name in ("gas pump", "aardvark"):
        (root / name).mkdir(parents=True)
    (root / "gas pump" / "a.jpg").write_bytes((photos / "a.jpg").read_bytes())
    (root / "aardvark" / "b.jpg").write_bytes((photos / "a.jpg").read_bytes())
    vistadex.import_annotations("imagefolder", root, catalog=catalog)
    lines = "UNASSIGNED,gas pump/a.jpg,red square\n"
    (tmp_path / "bob.csv").write_text(lines)
    vistadex.import_annotations(
        "automl-csv", tmp_path / "bob.csv", images=root, model="bob", catalog=catalog
    )
    vistadex.index(root, detector=RedSquareDetector(), catalog=catalog)
    written = []
    for model in ("human", "bob"):
        out = tmp_path / f"{model}-out.csv"
        vistadex.export_annotations("automl-csv", out, model=model, catalog=catalog)
        written.append(out.read_text())
    assert "red square" not in written[0]
    assert "aardvark" in written[0]
    assert "red square" in written[1]
    assert ",gas pump," not in written[1].replace("gas pump/", "")


def test_what_a_killed_export_has_left_is_not_mixed_in(catalog: Catalog, tmp_path: Path) -> None:
    stale = tmp_path / ".writing-set-left" / "set" / "labels" / "train"
    stale.mkdir(parents=True)
    (stale / "stale.txt").write_text("0 0.5 0.5 1 1")
    vistadex.export_annotations("yolo", tmp_path / "set", model="red-squares", catalog=catalog)
    assert not list((tmp_path / "set").rglob("stale*"))
    assert [path.name for path in tmp_path.glob(".writing*")] == [".writing-set-left"]


def test_a_picture_that_has_changed_is_not_written_with_old_boxes(
    catalog: Catalog, photos: Path, tmp_path: Path
) -> None:
    (photos / "a.jpg").write_bytes(scene_jpeg([BLUE], (320, 240)))
    done = vistadex.export_annotations(
        "yolo", tmp_path / "set", model="red-squares", pictures=True, catalog=catalog
    )
    assert (done.images, done.problems) == (1, {"changed-picture": 1})


def test_classes_of_a_yolo_set_count_from_one_in_coco_and_keep_their_order_in_yolo(
    catalog: Catalog, tmp_path: Path
) -> None:
    vistadex.export_annotations(
        "yolo", tmp_path / "set", model="red-squares", pictures=True, catalog=catalog
    )
    second = Catalog(tmp_path / "second.db", create=True)
    vistadex.import_annotations("yolo", tmp_path / "set", catalog=second)
    vistadex.export_annotations("coco", tmp_path / "out.json", catalog=second)
    written = json.loads((tmp_path / "out.json").read_text())
    assert [one["id"] for one in written["categories"]] == [1, 2]
    vistadex.export_annotations("yolo", tmp_path / "again", pictures=True, catalog=second)
    first, again = ((tmp_path / name / "data.yaml").read_text() for name in ("set", "again"))
    assert first == again


def test_a_detector_is_written_with_the_numbers_of_the_annotations(
    catalog: Catalog, photos: Path, tmp_path: Path
) -> None:
    numbers = [{"id": 17, "name": "red square"}, {"id": 90, "name": "blue square"}]
    images = [{"id": 5, "file_name": "a.jpg", "width": 160, "height": 120}]
    path = tmp_path / "said.json"
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": numbers}))
    vistadex.import_annotations("coco", path, images=photos, catalog=catalog)
    vistadex.export_annotations(
        "coco-results", tmp_path / "r.json", query="id:5", model="red-squares", catalog=catalog
    )
    (row,) = json.loads((tmp_path / "r.json").read_text())
    assert (row["image_id"], row["category_id"]) == (5, 17)
