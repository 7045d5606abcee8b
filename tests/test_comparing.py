"""vistadex.compare lists where a model and people differ, most first."""

import json
from pathlib import Path
from typing import Any

import pytest

import vistadex
from vistadex.catalog import Catalog
from vistadex.errors import QueryError, UsageError
from vistadex.testing import RedSquareDetector, scene_jpeg

RED = ("red square", 10, 20, 40)
BLUE = ("blue square", 90, 60, 30)
NAMES = {1: "red square", 2: "blue square", 3: "zebra"}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Four scenes, looked at by a detector and annotated as annotate() says."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("same", "missed", "invented", "other"):
        (folder / f"{name}.jpg").write_bytes(scene_jpeg([RED, BLUE]))
    opened = Catalog(tmp_path / "catalog.db", create=True)
    vistadex.index(folder, detector=RedSquareDetector(), catalog=opened)
    return opened


def annotate(catalog: Catalog, tmp_path: Path, said: dict[str, list[tuple[Any, ...]]]) -> None:
    """Imports boxes (category, x, y, width, height, iscrowd) by picture."""
    images, boxes = [], []
    for number, (name, rows) in enumerate(said.items(), 1):
        images.append({"id": number, "file_name": f"{name}.jpg", "width": 160, "height": 120})
        for category, *xywh, crowd in rows:
            box = {"category_id": category, "bbox": xywh, "iscrowd": crowd}
            boxes.append({"id": len(boxes) + 1, "image_id": number, **box})
    categories = [{"id": id_, "name": name} for id_, name in NAMES.items()]
    values = {"images": images, "annotations": boxes, "categories": categories}
    (tmp_path / "said.json").write_text(json.dumps(values))
    vistadex.import_annotations(
        "coco", tmp_path / "said.json", images=tmp_path / "photos", catalog=catalog
    )


RED_BOX, BLUE_BOX = (1, 10, 20, 40, 40, 0), (2, 90, 60, 30, 30, 0)


def test_each_kind_of_difference_is_found(catalog: Catalog, tmp_path: Path) -> None:
    said = {
        "same": [RED_BOX, BLUE_BOX],
        "missed": [RED_BOX, BLUE_BOX, (1, 120, 5, 20, 20, 0), (1, 130, 100, 9, 9, 0)],
        "invented": [RED_BOX],
        "other": [RED_BOX, (1, 90, 60, 30, 30, 0)],
    }
    annotate(catalog, tmp_path, said)
    found = vistadex.compare(catalog=catalog)
    assert (found.model, found.reference) == ("red-squares", "human")
    assert (found.images, found.agreed) == (4, 6)
    assert (found.missed, found.invented, found.other_class) == (2, 1, 1)
    first, second, third = found.differences
    assert (Path(first.uri).name, first.missed) == ("missed.jpg", ("red square",) * 2)
    by_name = {Path(one.uri).name: one for one in (second, third)}
    assert by_name["invented.jpg"].invented == ("blue square",)
    assert by_name["other.jpg"].other_class == (("red square", "blue square"),)


def test_a_shift_below_the_overlap_is_two_objects(catalog: Catalog, tmp_path: Path) -> None:
    annotate(catalog, tmp_path, {"same": [(1, 25, 20, 40, 40, 0), BLUE_BOX]})
    assert vistadex.compare(catalog=catalog, iou=0.4).agreed == 2
    strict = vistadex.compare(catalog=catalog, iou=0.5)
    assert (strict.agreed, strict.missed, strict.invented) == (1, 1, 1)


def test_crowds_are_neither_missed_nor_held_against_the_model(
    catalog: Catalog, tmp_path: Path
) -> None:
    annotate(catalog, tmp_path, {"same": [RED_BOX, (2, 80, 50, 70, 60, 1)]})
    found = vistadex.compare(catalog=catalog)
    assert (found.agreed, found.missed, found.invented) == (1, 0, 0)


def test_classes_that_one_side_does_not_know_are_left_out_and_named(
    catalog: Catalog, tmp_path: Path
) -> None:
    annotate(catalog, tmp_path, {"same": [RED_BOX, (3, 1, 1, 5, 5, 0)]})
    found = vistadex.compare(catalog=catalog)
    assert (found.agreed, found.missed, found.invented) == (1, 0, 0)
    assert found.left_out == ("blue square", "zebra")


def test_only_images_that_both_have_seen_count(catalog: Catalog, tmp_path: Path) -> None:
    annotate(catalog, tmp_path, {"same": [RED_BOX, BLUE_BOX]})
    assert vistadex.compare(catalog=catalog).images == 1


def test_query_limit_and_score_narrow_it(catalog: Catalog, tmp_path: Path) -> None:
    said = {name: [RED_BOX, BLUE_BOX, (1, 120, 5, 20, 20, 0)] for name in ("same", "other")}
    said["missed"] = [BLUE_BOX]
    annotate(catalog, tmp_path, said)
    assert vistadex.compare(catalog=catalog, query="red square>=2 model:human").images == 2
    assert len(vistadex.compare(catalog=catalog, limit=1).differences) == 1
    assert vistadex.compare(catalog=catalog, limit=0).differences == []
    assert vistadex.compare(catalog=catalog, min_score=1.0).agreed < 5


def test_a_model_that_ran_twice_is_compared_once_with_its_latest_parameters(
    catalog: Catalog, tmp_path: Path
) -> None:
    vistadex.index(tmp_path / "photos", detector=RedSquareDetector(min_score=0.9), catalog=catalog)
    annotate(catalog, tmp_path, {"same": [RED_BOX, BLUE_BOX]})
    found = vistadex.compare(catalog=catalog)
    assert found.agreed + found.missed == 2
    assert found.invented == 0


def test_what_can_not_be_compared_is_an_error_with_its_cure(
    catalog: Catalog, tmp_path: Path
) -> None:
    with pytest.raises(QueryError, match=r"no boxes of 'human'.*`vistadex import`"):
        vistadex.compare(catalog=catalog)
    annotate(catalog, tmp_path, {"same": [RED_BOX]})
    with pytest.raises(QueryError, match="no boxes of 'nobody' in the catalog; there are: human"):
        vistadex.compare(model="nobody", catalog=catalog)
    with pytest.raises(UsageError, match="iou=0"):
        vistadex.compare(iou=0, catalog=catalog)
