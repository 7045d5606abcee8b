"""COCO instances: what a file says is what is read, and what is written says the same."""

import gzip
import io
import json
import random
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.coco_files import NAMES, SMALL, by_id, changed, read, saved, write
from vistadex.formats.coco import CocoFormat, box_field, category_ids
from vistadex.records import AnnotatedImage, Annotation


def test_a_box_is_its_corners_and_keeps_id_area_and_crowd(tmp_path: Path) -> None:
    path = saved(tmp_path, SMALL)
    images, problems = read(path)
    first = images[0]
    assert (first.file_name, first.width, first.height) == ("a.jpg", 100, 80)
    assert first.place == f"{path} images[0] id 7"
    assert first.attributes == {"id": 7, "license": 1}
    assert first.boxes is not None
    dog, person = first.boxes
    assert dog == Annotation(
        "dog", (10.5, 20, 40.75, 25), 1.0, {"crowd": True}, {"id": 3, "area": 99.5}
    )
    assert person.flags == {}
    assert not problems.counts
    assert problems.losses == {"segmentation": 1}


def test_an_image_without_annotations_has_no_boxes(tmp_path: Path) -> None:
    assert read(saved(tmp_path, SMALL))[0][1].boxes == ()


@pytest.mark.parametrize("absent", ["annotations", "categories"])
def test_a_file_without_annotations_or_categories_says_nothing_of_boxes(
    tmp_path: Path, absent: str
) -> None:
    value = changed(lambda coco: (coco.update(annotations=[]), coco.pop(absent)))
    assert [image.boxes for image in read(saved(tmp_path, value))[0]] == [None, None]


def test_captions_are_a_counted_loss_and_no_damage(tmp_path: Path) -> None:
    captions = [{"id": 1, "image_id": 7, "caption": "A dog."}]
    value = changed(lambda coco: (coco.update(annotations=captions), coco.pop("categories")))
    images, problems = read(saved(tmp_path, value))
    assert images[0].boxes is None
    assert problems.losses == {"caption": 1}
    assert not problems.counts


def test_keypoints_are_lost_with_their_number(tmp_path: Path) -> None:
    points = {"keypoints": [1, 2, 2], "num_keypoints": 1}
    images, problems = read(
        saved(tmp_path, changed(lambda coco: coco["annotations"][1].update(points)))
    )
    assert images[0].boxes is not None
    assert images[0].boxes[1].attributes == {"id": 4}
    assert problems.losses == {"segmentation": 1, "keypoints": 1}


def test_lists_may_stand_in_any_order(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "coco/instances_val.json"
    coco = json.loads(path.read_text())
    shuffled = {key: coco[key] for key in ("annotations", "categories", "images")}
    random.Random(1).shuffle(shuffled["annotations"])
    images, problems = read(saved(tmp_path, shuffled))
    expected, _ = read(str(path))
    assert not problems.counts
    assert len(images) == len(expected) == 240
    for image, other in zip(images, expected, strict=True):
        assert image.file_name == other.file_name
        assert sorted(map(str, image.boxes or ())) == sorted(map(str, other.boxes or ()))


def test_about_has_category_ids_and_what_stands_beside_the_lists(tmp_path: Path) -> None:
    about = CocoFormat().about(saved(tmp_path, changed(lambda coco: coco.update(type="x"))))
    assert about.category_ids == {"person": 1, "dog": 18}
    assert about.attributes == {
        "info": {"year": 2026},
        "licenses": [{"id": 1, "name": "none"}],
        "type": "x",
        "categories": {"person": {"supercategory": "human"}},
    }


def test_the_real_file_comes_back_as_it_was(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "coco/instances_val.json"
    images, _ = read(str(path))
    about = CocoFormat().about(str(path))
    made = write(tmp_path / "out.json", images, about)
    real = json.loads(path.read_text())
    for key in ("images", "annotations", "categories"):
        assert by_id(made[key]) == by_id(real[key])
    assert (made["info"], made["licenses"]) == (real["info"], real["licenses"])
    assert CocoFormat().about(str(tmp_path / "out.json")) == about


def test_the_one_unusable_box_of_the_real_training_file_is_named(shared_data: Path) -> None:
    images, problems = read(str(shared_data / "coco/instances_train.json"))
    assert problems.counts == {"bad-box": 1}
    assert "annotations[4844] id 4845" in problems.first[0].place
    assert sum(len(image.boxes or ()) for image in images) == 6247


def test_pycocotools_gives_the_same_figures_for_the_written_file(
    shared_data: Path, tmp_path: Path
) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = shared_data / "coco/instances_val.json"
    write(tmp_path / "out.json", read(str(path))[0], CocoFormat().about(str(path)))
    rng = random.Random(3)
    found = [
        {
            "image_id": one["image_id"],
            "category_id": one["category_id"],
            "bbox": [value * rng.uniform(0.9, 1.1) for value in one["bbox"]],
            "score": rng.random(),
        }
        for one in json.loads(path.read_text())["annotations"]
    ]

    def figures(truth: Path) -> list[float]:
        with redirect_stdout(io.StringIO()):
            coco = COCO(str(truth))
            evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return list(evaluation.stats)

    assert figures(tmp_path / "out.json") == figures(path)
    assert 0.1 < figures(path)[0] < 0.99


SIMPLE = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | NAMES
OTHERS = st.dictionaries(NAMES.map("x_{}".format), SIMPLE, max_size=3)
CORNERS = st.tuples(
    st.floats(0, 1000), st.floats(0, 1000), st.floats(0.01, 500), st.floats(0.01, 500)
).map(lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3]))
BOXES = st.builds(
    Annotation,
    class_name=NAMES,
    box_xyxy=CORNERS,
    score=st.floats(0, 1),
    flags=st.dictionaries(
        st.sampled_from(["crowd", "difficult", "truncated", "inside"]), st.booleans()
    ),
    attributes=OTHERS,
)
IMAGES = st.lists(
    st.builds(
        AnnotatedImage,
        file_name=NAMES,
        place=st.just("made"),
        width=st.integers(1, 5000),
        height=st.integers(1, 5000),
        boxes=st.lists(BOXES, max_size=3).map(tuple),
        attributes=OTHERS,
    ),
    max_size=4,
    unique_by=lambda image: image.file_name,
)


@given(images=IMAGES)
def test_what_is_written_is_read_again(
    images: list[AnnotatedImage], tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("coco") / "a.json"
    write(out, images)
    again, problems = read(str(out))
    assert not problems.counts
    assert len(again) == len(images)
    boxes = 0
    for number, (image, other) in enumerate(zip(images, again, strict=True), 1):
        assert (image.file_name, image.width, image.height) == (
            other.file_name,
            other.width,
            other.height,
        )
        assert {**image.attributes, "id": number} == other.attributes
        for box, found in zip(image.boxes or (), other.boxes or (), strict=True):
            boxes += 1
            assert (box.class_name, box.score) == (found.class_name, found.score)
            assert {"crowd": False, **box.flags} == found.flags
            x0, y0, x1, y1 = box.box_xyxy
            area = pytest.approx((x1 - x0) * (y1 - y0), abs=1e-6)
            assert {**box.attributes, "id": boxes, "area": area} == found.attributes
            assert found.box_xyxy == pytest.approx(box.box_xyxy, abs=1e-9)


@given(images=IMAGES)
def test_what_was_read_once_is_written_the_same_ever_after(
    images: list[AnnotatedImage], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("coco")
    write(folder / "a.json", images)
    about = CocoFormat().about(str(folder / "a.json"))
    write(folder / "b.json", read(str(folder / "a.json"))[0], about)
    assert (folder / "b.json").read_bytes() == (folder / "a.json").read_bytes()


@given(box=st.tuples(*[st.integers(0, 100_000)] * 2, *[st.integers(1, 100_000)] * 2))
def test_widths_come_back_with_the_decimals_they_had(box: tuple[int, int, int, int]) -> None:
    x, y, width, height = (value / 100 for value in box)
    assert box_field((x, y, x + width, y + height)) == [x, y, width, height]


def test_ids_that_can_be_kept_are_and_others_are_above_them(tmp_path: Path) -> None:
    own: list[Any] = [5, None, 5, "x", 0, True, 3]
    images = [
        AnnotatedImage(
            file_name=f"{number}.jpg",
            place="here",
            width=9,
            height=9,
            boxes=(Annotation("a", (0, 0, 1, 1), attributes={"id": value}),),
            attributes={"id": value},
        )
        for number, value in enumerate(own)
    ]
    made = write(tmp_path / "a.json", images)
    for key in ("images", "annotations"):
        ids = [item["id"] for item in made[key]]
        assert (ids[0], ids[6]) == (5, 3)
        assert len(set(ids)) == 7
        assert all(number > 5 for number in ids[1:6])
    assert [item["image_id"] for item in made["annotations"]] == [
        item["id"] for item in made["images"]
    ]


def test_categories_keep_their_ids_and_new_ones_fill_the_gaps() -> None:
    known = {"person": 1, "dog": 18, "also one": 1}
    assert category_ids(("cat", "dog"), known) == {"person": 1, "also one": 2, "cat": 3, "dog": 18}
    assert category_ids(("b", "a"), {}) == {"a": 1, "b": 2}


def test_a_name_that_ends_in_gz_is_written_gzipped_and_the_same_each_time(tmp_path: Path) -> None:
    images, _ = read(saved(tmp_path, SMALL))
    for name in ("x.json.gz", "y.json.gz"):
        assert len(write(tmp_path / name, images)["images"]) == 2
    assert (tmp_path / "x.json.gz").read_bytes() == (tmp_path / "y.json.gz").read_bytes()
    assert [image.boxes for image in read(str(tmp_path / "x.json.gz"))[0]][1] == ()


def test_gzip_is_known_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(gzip.compress(json.dumps(SMALL).encode()))
    assert len(read(str(path))[0]) == 2


def test_a_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(SMALL), encoding="utf-8-sig")
    assert len(read(str(path))[0]) == 2
