"""Annotations enter the catalog beside detections, and nothing of either is lost."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image

import vistadex
from vistadex.boxes import turn
from vistadex.catalog import Catalog
from vistadex.errors import FormatError, SourceError, UsageError
from vistadex.testing import MemorySource, RedSquareDetector, scene_jpeg

RED = ("red square", 10, 20, 40)
BLUE = ("blue square", 90, 60, 30)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two scenes of 160 x 120 pixels, and a picture that nobody has annotated."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(scene_jpeg([RED]))
    (folder / "b.jpg").write_bytes(scene_jpeg([RED, BLUE]))
    (folder / "extra.jpg").write_bytes(scene_jpeg([]))
    return folder


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with Catalog(catalog_url) as opened:
        yield opened


def coco(tmp_path: Path, images: list[dict[str, Any]], boxes: list[dict[str, Any]]) -> Path:
    """A COCO file with classes of the numbers 3 (red square) and 7 (knob)."""
    numbers = [{"id": 3, "name": "red square"}, {"id": 7, "name": "knob"}]
    values = {"images": images, "annotations": boxes, "categories": numbers}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def picture(id_: int, name: str, size_wh: tuple[int, int] = (160, 120)) -> dict[str, Any]:
    return {"id": id_, "file_name": name, "width": size_wh[0], "height": size_wh[1]}


def box(id_: int, image: int, category: int, *xywh: float, **more: Any) -> dict[str, Any]:
    return {"id": id_, "image_id": image, "category_id": category, "bbox": list(xywh), **more}


@pytest.fixture
def instances(tmp_path: Path) -> Path:
    images = [picture(40, "b.jpg"), {**picture(7, "a.jpg"), "license": 4}]
    boxes = [
        box(11, 7, 3, 10.25, 20.5, 39.5, 40, area=700.5, iscrowd=0),
        box(12, 40, 7, 1, 2, 3, 4, iscrowd=1),
        box(13, 40, 3, 5, 6, 70, 80),
    ]
    return coco(tmp_path, images, boxes)


def test_annotations_stand_beside_detections_and_are_searched_by_origin(
    photos: Path, instances: Path, catalog: Catalog
) -> None:
    vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
    done = vistadex.import_annotations("coco", instances, images=photos, catalog=catalog)
    assert (done.images, done.imported, done.boxes, done.class_names) == (2, 2, 3, 2)
    assert (done.without_annotation, done.problems) == (1, {})
    image = catalog.image(str(photos / "a.jpg"))
    assert image.models == ("red-squares", "human")
    (said,) = [one for one in image.boxes if one.model == "human"]
    assert said[:3] == ("red square", 1.0, (10.25, 20.5, 49.75, 60.5))
    assert said.flags == {"crowd": False}
    assert said.attributes == {"id": 11, "area": 700.5}
    assert image.attributes == {"id": 7, "license": 4}
    assert catalog.count("red square model:human") == 2
    assert catalog.count("knob") == 1
    assert catalog.count("knob model:red-squares") == 0
    assert catalog.count("id:7") == 1


def test_importing_again_replaces_what_was_said(
    tmp_path: Path, photos: Path, instances: Path, catalog: Catalog
) -> None:
    for _ in range(2):
        vistadex.import_annotations("coco", instances, images=photos, catalog=catalog)
    assert [(c.class_name, c.images, c.boxes) for c in catalog.classes()] == [
        ("red square", 2, 2),
        ("knob", 1, 1),
    ]
    coco(tmp_path, [picture(7, "a.jpg")], [box(1, 7, 7, 1, 1, 5, 5)])
    vistadex.import_annotations("coco", instances, images=photos, catalog=catalog)
    said = catalog.image(str(photos / "a.jpg")).boxes
    assert [(one.class_name, one.attributes["id"]) for one in said] == [("knob", 1)]
    assert len(catalog.image(str(photos / "b.jpg")).boxes) == 2


def test_what_was_only_annotated_is_still_indexed(
    photos: Path, instances: Path, catalog: Catalog
) -> None:
    vistadex.import_annotations("coco", instances, images=photos, catalog=catalog)
    assert catalog.stats().images == 2
    done = vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
    assert (done.indexed, done.unchanged) == (3, 0)
    assert catalog.image(str(photos / "a.jpg")).models == ("human", "red-squares")
    vistadex.import_annotations("coco", instances, images=photos, catalog=catalog)
    again = vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
    assert (again.indexed, again.unchanged) == (0, 3)


def test_annotations_stay_when_a_picture_changes(
    photos: Path, instances: Path, catalog: Catalog
) -> None:
    vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
    vistadex.import_annotations("coco", instances, images=photos, catalog=catalog)
    (photos / "a.jpg").write_bytes(scene_jpeg([BLUE]))
    vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
    found = catalog.image(str(photos / "a.jpg")).boxes
    assert {(one.class_name, one.model) for one in found} == {
        ("red square", "human"),
        ("blue square", "red-squares"),
    }
    assert [(c.class_name, c.images, c.boxes) for c in catalog.classes()] == [
        ("blue square", 2, 2),
        ("red square", 2, 3),
        ("knob", 1, 1),
    ]


def test_a_picture_without_boxes_was_looked_at(
    tmp_path: Path, photos: Path, catalog: Catalog
) -> None:
    path = coco(tmp_path, [picture(1, "extra.jpg")], [])
    vistadex.import_annotations("coco", path, images=photos, catalog=catalog)
    image = catalog.image(str(photos / "extra.jpg"))
    assert (image.models, image.boxes, image.width) == (("human",), (), 160)


def test_what_can_not_be_used_is_counted_shown_and_reported(
    tmp_path: Path, photos: Path, catalog: Catalog
) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    images = [
        picture(1, "a.jpg"),
        picture(2, "missing.jpg"),
        picture(3, "broken.jpg"),
        picture(4, "b.jpg", (161, 120)),
    ]
    boxes = [
        box(1, 1, 3, 150, 100, 40, 40),
        box(2, 1, 3, 170, 10, 10, 10),
        box(3, 1, 3, 159, 119, 1.0001, 1.0001),
        box(4, 2, 3, 1, 1, 5, 5),
        box(5, 3, 3, 1, 1, 5, 5),
        box(6, 4, 3, 1, 1, 5, 5),
    ]
    report = tmp_path / "problems.jsonl"
    done = vistadex.import_annotations(
        "coco", coco(tmp_path, images, boxes), images=photos, catalog=catalog, report=report
    )
    kinds = {"cut-off": 1, "outside": 1, "no-picture": 1, "bad-picture": 1, "other-size": 1}
    assert done.problems == kinds
    assert (done.imported, done.boxes) == (1, 2)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert {line["kind"] for line in lines} == set(kinds)
    assert all(line[part] for line in lines for part in ("place", "found", "expected", "cure"))
    assert all("instances.json" in line["place"] for line in lines)
    assert done.report == str(report)
    corners = [one.box_xyxy for one in catalog.image(str(photos / "a.jpg")).boxes]
    assert corners == [(150, 100, 160, 120), (159, 119, 160.0001, 120.0001)]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_the_picture_as_stored_are_turned_with_it(
    orientation: int, tmp_path: Path, catalog: Catalog
) -> None:
    folder = tmp_path / "turned"
    folder.mkdir()
    stored = Image.open(io.BytesIO(scene_jpeg([RED])))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(folder / "a.jpg", exif=exif, quality=95)
    vistadex.index(folder, detector=RedSquareDetector(), catalog=catalog)
    path = coco(tmp_path, [picture(1, "a.jpg")], [box(1, 1, 3, 10, 20, 40, 40)])
    done = vistadex.import_annotations("coco", path, images=folder, catalog=catalog)
    assert done.turned == 1
    image = catalog.image(str(folder / "a.jpg"))
    assert (image.width, image.height) == (120, 160)
    seen, said = sorted(image.boxes, key=lambda one: one.model, reverse=True)
    assert seen.model == "red-squares"
    assert said.box_xyxy == pytest.approx(seen.box_xyxy, abs=1.5)


def test_boxes_of_the_upright_picture_stay(tmp_path: Path, catalog: Catalog) -> None:
    folder = tmp_path / "turned"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(io.BytesIO(scene_jpeg([RED]))).save(folder / "a.jpg", exif=exif)
    path = coco(tmp_path, [picture(1, "a.jpg", (120, 160))], [box(1, 1, 3, 10, 20, 40, 40)])
    done = vistadex.import_annotations("coco", path, images=folder, catalog=catalog)
    (said,) = catalog.image(str(folder / "a.jpg")).boxes
    assert (done.turned, said.box_xyxy) == (0, (10, 20, 50, 60))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_boxes_is_turning_pixels(orientation: int) -> None:
    from vistadex.decoding import decode

    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[10:20, 30:70] = 255
    stored = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored.save(file, "PNG", exif=exif)
    shown = decode(file.getvalue()).pixels[..., 0]
    rows, columns = np.nonzero(shown)
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    turned = turn(np.array([[30.0, 10.0, 70.0, 20.0]]), orientation, 100, 60)
    assert turned.tolist() == [expected]


def test_pictures_in_a_bucket_are_annotated_without_reading_them_whole(
    aws: pytest.MonkeyPatch, s3_server: str, instances: Path, catalog: Catalog, photos: Path
) -> None:
    client = boto3.client("s3", endpoint_url=s3_server)
    client.create_bucket(Bucket="annotated")
    for path in photos.iterdir():
        client.upload_file(str(path), "annotated", f"p/{path.name}")
    done = vistadex.import_annotations(
        "coco", instances, images="s3://annotated/p", catalog=catalog
    )
    assert (done.imported, done.problems) == (2, {})
    assert catalog.image("s3://annotated/p/b.jpg").width == 160


def test_a_category_keeps_the_number_of_its_first_import(
    tmp_path: Path, photos: Path, instances: Path, catalog: Catalog
) -> None:
    vistadex.import_annotations("coco", instances, images=photos, catalog=catalog)
    values = json.loads(instances.read_text())
    values["categories"] = [{"id": 7, "name": "red square"}, {"id": 8, "name": "hat"}]
    values["annotations"] = []
    instances.write_text(json.dumps(values))
    done = vistadex.import_annotations("coco", instances, images=photos, catalog=catalog)
    assert done.problems == {"category-id": 1}
    assert "'red square' has the number 7, expected 3, as before" in done.first_problems[0]


def test_two_classes_do_not_share_a_number(
    tmp_path: Path, photos: Path, instances: Path, catalog: Catalog
) -> None:
    vistadex.import_annotations("coco", instances, images=photos, catalog=catalog)
    values = json.loads(instances.read_text())
    values["categories"] = [{"id": 7, "name": "hat"}]
    values["images"] = [picture(1, "extra.jpg")]
    values["annotations"] = [box(1, 1, 7, 1, 1, 5, 5)]
    instances.write_text(json.dumps(values))
    done = vistadex.import_annotations("coco", instances, images=photos, catalog=catalog)
    assert done.problems == {"category-id": 1}
    assert "'hat' has the number 7, expected a free one: 'knob' has it" in done.first_problems[0]
    out = tmp_path / "out.json"
    vistadex.export_annotations("coco", out, catalog=catalog)
    ids = {one["name"]: one["id"] for one in json.loads(out.read_text())["categories"]}
    assert (ids["red square"], ids["knob"]) == (3, 7)
    assert ids["hat"] not in (3, 7)


def test_what_a_set_says_of_itself_is_joined_with_what_others_said(
    tmp_path: Path, photos: Path, instances: Path, catalog: Catalog
) -> None:
    values = json.loads(instances.read_text())
    for licenses, info in (([{"id": 1}], {"year": 2025}), ([{"id": 2}], {"url": "x"}), ([], {})):
        instances.write_text(json.dumps({**values, "licenses": licenses, "info": info}))
        vistadex.import_annotations("coco", instances, images=photos, catalog=catalog)
    vistadex.export_annotations("coco", tmp_path / "out.json", catalog=catalog)
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["licenses"] == [{"id": 1}, {"id": 2}]
    assert written["info"] == {"year": 2025, "url": "x"}


def test_a_model_that_has_looked_does_not_get_annotations(
    photos: Path, instances: Path, catalog: Catalog
) -> None:
    vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
    with pytest.raises(UsageError, match="--model red-squares: is a model that has looked"):
        vistadex.import_annotations(
            "coco", instances, images=photos, model="red-squares", catalog=catalog
        )


def test_a_report_never_takes_the_place_of_the_annotations(
    photos: Path, instances: Path, catalog: Catalog
) -> None:
    before = instances.read_bytes()
    with pytest.raises(UsageError, match="holds the annotations"):
        vistadex.import_annotations(
            "coco", instances, images=photos, report=instances, catalog=catalog
        )
    assert instances.read_bytes() == before


def test_a_clean_run_leaves_an_empty_report(
    tmp_path: Path, photos: Path, instances: Path, catalog: Catalog
) -> None:
    report = tmp_path / "report.jsonl"
    report.write_text("of another run")
    vistadex.import_annotations("coco", instances, images=photos, report=report, catalog=catalog)
    assert report.read_text() == ""


def test_annotations_of_a_picture_that_has_changed_bring_its_new_size(
    tmp_path: Path, photos: Path, instances: Path, catalog: Catalog
) -> None:
    vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
    vistadex.import_annotations("coco", instances, images=photos, catalog=catalog)
    (photos / "a.jpg").write_bytes(scene_jpeg([BLUE], (320, 240)))
    path = coco(tmp_path, [picture(7, "a.jpg", (320, 240))], [box(1, 7, 7, 100, 100, 200, 100)])
    vistadex.import_annotations("coco", path, images=photos, catalog=catalog)
    image = catalog.image(str(photos / "a.jpg"))
    assert (image.width, image.height) == (320, 240)
    assert [(one.model, one.class_name) for one in image.boxes] == [("human", "knob")]
    done = vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
    assert (done.indexed, done.unchanged) == (1, 2)


def test_a_picture_of_another_size_warns_of_its_old_annotations(
    photos: Path, instances: Path, catalog: Catalog
) -> None:
    vistadex.import_annotations("coco", instances, images=photos, catalog=catalog)
    (photos / "a.jpg").write_bytes(scene_jpeg([BLUE], (320, 240)))
    vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
    image = catalog.image(str(photos / "a.jpg"))
    assert image.warning == "annotations were made for 160 x 120 pixels; import them again"
    assert "human" in image.models
    assert catalog.image(str(photos / "b.jpg")).warning is None


def test_annotations_of_an_image_that_could_not_be_read_are_kept_with_its_size(
    tmp_path: Path, photos: Path, catalog: Catalog
) -> None:
    whole = (photos / "a.jpg").read_bytes()
    (photos / "a.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
    assert catalog.image(str(photos / "a.jpg")).reason == "truncated"
    path = coco(tmp_path, [picture(7, "a.jpg")], [box(1, 7, 7, 1, 1, 5, 5)])
    vistadex.import_annotations("coco", path, images=photos, catalog=catalog)
    image = catalog.image(str(photos / "a.jpg"))
    assert (image.status, image.width, len(image.boxes)) == ("failed", 160, 1)
    with pytest.raises(FormatError, match=r"nothing to write.*1 failed"):
        vistadex.export_annotations("coco", tmp_path / "out.json", catalog=catalog)


def test_an_image_that_is_back_when_it_is_annotated_is_there_again(
    photos: Path, instances: Path, catalog: Catalog
) -> None:
    vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
    away = photos.with_name("away.jpg")
    (photos / "a.jpg").rename(away)
    vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
    assert catalog.image(str(photos / "a.jpg")).status == "vanished"
    away.rename(photos / "a.jpg")
    vistadex.import_annotations("coco", instances, images=photos, catalog=catalog)
    assert catalog.image(str(photos / "a.jpg")).status == "ok"


def test_pruning_keeps_what_people_have_annotated(
    photos: Path, instances: Path, catalog: Catalog
) -> None:
    vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
    vistadex.import_annotations("coco", instances, images=photos, catalog=catalog)
    (photos / "a.jpg").unlink()
    (photos / "extra.jpg").unlink()
    done = vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog, prune=True)
    assert (done.vanished, done.pruned) == (2, 1)
    kept = catalog.image(str(photos / "a.jpg"))
    assert (kept.status, len(kept.boxes)) == ("vanished", 2)


def test_results_of_another_tool_are_a_model_of_their_own(
    tmp_path: Path, photos: Path, instances: Path, catalog: Catalog
) -> None:
    results = tmp_path / "results.json"
    found = [{"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.75}]
    results.write_text(json.dumps(found))
    with pytest.raises(FormatError, match="reference"):
        vistadex.import_annotations("coco-results", results, images=photos, catalog=catalog)
    vistadex.import_annotations(
        "coco-results",
        results,
        images=photos,
        reference=str(instances),
        model="their-model",
        catalog=catalog,
    )
    (page,) = catalog.search("red square model:their-model").results
    assert page.score == 0.75


def test_class_folders_are_classes_of_whole_pictures(tmp_path: Path, catalog: Catalog) -> None:
    root = tmp_path / "set"
    for name in ("train/tench/a.jpg", "val/gas pump/b.jpg"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(scene_jpeg([RED]))
    done = vistadex.import_annotations("imagefolder", root, catalog=catalog)
    assert (done.imported, done.boxes, done.class_names) == (2, 0, 2)
    (found,) = catalog.search("gas pump").results
    assert (found.score, found.image.attributes) == (1.0, {"split": "val"})
    assert catalog.count("split:train") == 1


def test_a_yolo_set_is_found_from_its_root_and_from_its_pictures(
    tmp_path: Path, catalog: Catalog
) -> None:
    root = tmp_path / "set"
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        (root / "images" / split / "a.jpg").write_bytes(scene_jpeg([RED]))
        (root / "labels" / split / "a.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [knob]\n")
    whole = vistadex.import_annotations("yolo", root, catalog=catalog)
    assert (whole.imported, whole.boxes, whole.problems) == (2, 2, {})
    (said,) = catalog.image(str(root / "images/val/a.jpg")).boxes
    assert said.box_xyxy == (60, 30, 100, 90)
    part = vistadex.import_annotations(
        "yolo", root, images=root / "images" / "train", catalog=catalog
    )
    assert (part.imported, part.problems) == (1, {})
    assert part.losses == {"images of other folders than --images": 1}


def test_the_blood_cells_are_as_published_but_for_the_bad_boxes(
    shared_data: Path, catalog: Catalog
) -> None:
    done = vistadex.import_annotations("voc", shared_data / "bccd" / "BCCD", catalog=catalog)
    assert done.images == done.imported == 364
    assert sum(done.problems.values()) == 2
    counts = {one.class_name: one.boxes for one in catalog.classes()}
    assert set(counts) == {"RBC", "WBC", "Platelets"}
    assert sum(counts.values()) == done.boxes
    assert 4155 + 372 + 361 - 2 <= done.boxes <= 4155 + 372 + 361


def test_a_data_set_in_a_zip_is_read_with_its_pictures(tmp_path: Path, catalog: Catalog) -> None:
    root = tmp_path / "voc"
    (root / "JPEGImages").mkdir(parents=True)
    (root / "Annotations").mkdir()
    (root / "JPEGImages" / "a.jpg").write_bytes(scene_jpeg([RED]))
    (root / "Annotations" / "a.xml").write_text(
        "<annotation><filename>a.jpg</filename><size><width>160</width><height>120</height>"
        "<depth>3</depth></size><object><name>knob</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
        "<xmax>10</xmax><ymax>20</ymax></bndbox></object></annotation>"
    )
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", root)
    done = vistadex.import_annotations("voc", packed, catalog=catalog)
    assert (done.imported, done.problems) == (1, {})
    (said,) = catalog.image(packed + "/JPEGImages/a.jpg").boxes
    assert said.box_xyxy == (0, 0, 10, 20)


def test_what_can_not_be_imported_at_all_is_one_error(
    tmp_path: Path, photos: Path, instances: Path, catalog: Catalog
) -> None:
    def run(format: str, path: Path, images: Any = photos) -> None:
        vistadex.import_annotations(format, path, images=images, catalog=catalog)

    with pytest.raises(UsageError, match="add --images SOURCE"):
        run("coco", instances, None)
    with pytest.raises(UsageError, match=r"'cocoa' is unknown; known are: .*coco"):
        run("cocoa", instances)
    with pytest.raises((FormatError, SourceError), match=r"none\.json"):
        run("coco", tmp_path / "none.json")
    with pytest.raises(SourceError, match="no files found"):
        run("coco", instances, MemorySource.create("nothing", {}).uri)
    assert catalog.classes() == []
