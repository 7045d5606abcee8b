"""COCO instances: what a file says is what is read, and what is written says the same."""

import gzip
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vistadex.errors import FormatError, SourceError
from vistadex.formats.coco import CocoFormat, box_field, category_ids
from vistadex.formats.contract import About, Problems
from vistadex.records import AnnotatedImage, Annotation

SMALL: dict[str, Any] = {
    "info": {"year": 2026},
    "licenses": [{"id": 1, "name": "none"}],
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80, "license": 1},
        {"id": 9, "file_name": "b/c.jpg", "width": 50, "height": 40},
    ],
    "annotations": [
        {
            "id": 3,
            "image_id": 7,
            "category_id": 18,
            "bbox": [10.5, 20, 30.25, 5],
            "area": 99.5,
            "iscrowd": 1,
            "segmentation": [[1, 2, 3, 4, 5, 6]],
        },
        {"id": 4, "image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1], "segmentation": []},
    ],
    "categories": [
        {"id": 1, "name": "person", "supercategory": "human"},
        {"id": 18, "name": "dog"},
    ],
}


def saved(folder: Path, value: object, name: str = "a.json") -> str:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def read(path: str) -> tuple[list[AnnotatedImage], Problems]:
    problems = Problems()
    return list(CocoFormat().read(path, problems)), problems


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(SMALL))
    change(copy)
    return copy


def write(
    out: Path,
    images: list[AnnotatedImage],
    about: About | None = None,
) -> Any:
    classes = tuple(sorted({box.class_name for image in images for box in image.boxes or ()}))
    CocoFormat().write(out, iter(images), classes, about or About())
    data = gzip.decompress(out.read_bytes()) if out.suffix == ".gz" else out.read_bytes()
    return json.loads(data)


def by_id(items: list[dict[str, Any]]) -> Mapping[int, dict[str, Any]]:
    assert len({item["id"] for item in items}) == len(items)
    return {item["id"]: item for item in items}


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


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
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


def first_box(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda coco: coco["annotations"][0].update(fields)


def without(key: str, name: str) -> Callable[[dict[str, Any]], object]:
    return lambda coco: coco[key][0].pop(name)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (first_box(image_id=8), "unknown-image", "image_id 8"),
        (first_box(image_id="7"), "unknown-image", 'image_id "7"'),
        (first_box(image_id=[7]), "missing-field", "no image_id"),
        (first_box(category_id=2), "unknown-category", "category_id 2"),
        (without("annotations", "category_id"), "unknown-category", "category_id null"),
        (without("annotations", "bbox"), "missing-field", "no bbox"),
        (without("annotations", "image_id"), "missing-field", "no image_id"),
        (first_box(bbox=[1, 2, 3]), "bad-box", "[1, 2, 3]"),
        (first_box(bbox=[1, 2, 3, "4"]), "bad-box", '"4"'),
        (first_box(bbox=[1, 2, 3, None]), "bad-box", "null"),
        (first_box(bbox=[1, 2, True, 4]), "bad-box", "true"),
        (first_box(bbox={"x": 1}), "bad-box", '"x"'),
        (first_box(bbox=[1, 2, 0, 4]), "bad-box", "above 0"),
        (first_box(bbox=[1, 2, 3, -4]), "bad-box", "above 0"),
        (first_box(bbox=[1e308, 2, 1e308, 4]), "bad-box", "picture's size"),
        (first_box(bbox=[1, -1e12, 3, 4]), "bad-box", "picture's size"),
        (first_box(bbox=[999_999, 2, 1e-12, 4]), "bad-box", "above 0"),
        (first_box(score=1.5), "bad-score", "1.5"),
        (first_box(score="high"), "bad-score", "high"),
        (lambda coco: coco["annotations"].__setitem__(0, [1, 2]), "bad-object", "[1, 2]"),
        (lambda coco: coco["annotations"].__setitem__(0, None), "bad-object", "null"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_reported_and_the_rest_goes_on(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], kind: str, words: str
) -> None:
    path = saved(tmp_path, changed(change))
    images, problems = read(path)
    assert problems.counts == {kind: 1}
    problem = problems.first[0]
    assert problem.place.startswith(f"{path} annotations[0]")
    assert words in str(problem)
    assert problem.expected
    assert problem.cure
    assert images[0].boxes is not None
    assert [box.attributes["id"] for box in images[0].boxes] == [4]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (first_box(iscrowd=2), "bad-field"),
        (first_box(iscrowd="0"), "bad-field"),
        (first_box(area="large"), "bad-field"),
        (first_box(id=4), "repeated-id"),
    ],
)
def test_a_damaged_extra_is_left_out_and_the_box_stays(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], kind: str
) -> None:
    images, problems = read(saved(tmp_path, changed(change)))
    assert problems.counts == {kind: 1}
    assert len(images[0].boxes or ()) == 2


def second_image(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda coco: coco["images"][1].update(fields)


@pytest.mark.parametrize(
    ("change", "counts", "names"),
    [
        (without("images", "file_name"), {"missing-field": 1, "unknown-image": 2}, ["b/c.jpg"]),
        (without("images", "id"), {"missing-field": 1, "unknown-image": 2}, ["b/c.jpg"]),
        (second_image(file_name="a.jpg"), {"repeated-image": 1}, ["a.jpg"]),
        (second_image(id=7, file_name="a.jpg"), {"repeated-image": 1}, ["a.jpg"]),
        (second_image(id=7), {"repeated-id": 2, "unknown-image": 2}, []),
        (second_image(width=0), {"bad-size": 1}, ["a.jpg", "b/c.jpg"]),
        (second_image(height="40"), {"bad-size": 1}, ["a.jpg", "b/c.jpg"]),
        (second_image(height=40.5), {"bad-size": 1}, ["a.jpg", "b/c.jpg"]),
        (lambda coco: coco["images"].append(3), {"bad-object": 1}, ["a.jpg", "b/c.jpg"]),
    ],
)
def test_a_damaged_image_is_reported_and_its_annotations_with_it(
    tmp_path: Path,
    change: Callable[[dict[str, Any]], object],
    counts: dict[str, int],
    names: list[str],
) -> None:
    images, problems = read(saved(tmp_path, changed(change)))
    assert problems.counts == counts
    assert [image.file_name for image in images] == names


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (without("categories", "name"), {"missing-field": 1, "unknown-category": 1}),
        (without("categories", "id"), {"missing-field": 1, "unknown-category": 1}),
        (
            lambda coco: coco["categories"][0].update(id=18),
            {"repeated-id": 1, "unknown-category": 2},
        ),
    ],
)
def test_a_damaged_category_is_reported_and_nothing_is_guessed(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], counts: dict[str, int]
) -> None:
    assert read(saved(tmp_path, changed(change)))[1].counts == counts


def test_category_ids_of_one_name_become_one_class_and_are_counted(tmp_path: Path) -> None:
    value = changed(lambda coco: coco["categories"].append({"id": 2, "name": "dog"}))
    value["annotations"][1]["category_id"] = 2
    images, problems = read(saved(tmp_path, value))
    assert [box.class_name for box in images[0].boxes or ()] == ["dog", "dog"]
    assert problems.losses == {"segmentation": 1, "category ids that share a name": 1}


def test_ids_that_are_equal_numbers_are_the_same(tmp_path: Path) -> None:
    images, problems = read(saved(tmp_path, changed(first_box(image_id=7.0, category_id=18.0))))
    assert not problems.counts
    assert len(images[0].boxes or ()) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "--format coco-results"),
        ("{}", "has no keys, expected images, annotations and categories"),
        ('{"boxes": [], "labels": {}}', "has the keys boxes, labels, expected images"),
        ('{"images": {}}', '"images" is no list'),
        ('{"images": [], "annotations": 3}', '"annotations" is no list'),
        ("3", "has no keys"),
        ("", "breaks off"),
        ('{"images": [{"id": 1}', "byte 21: the JSON breaks off at the end of the file"),
        ('{"images":\n[1,\nNaN]}', "line 3 byte 16: not JSON here"),
        ('{"images": []} {', "trailing garbage"),
        ('{"images": [' + "[" * 30 + "]" * 30 + "]}", "nested more than 20 deep"),
        ("image,box\na.jpg,1\n", "line 1 byte 1: not JSON here"),
        ('{"images": [{"id": 123456789012345678901234567890}]}', "integer overflow"),
    ],
)
def test_what_is_not_coco_is_an_error_that_says_what_it_is(
    tmp_path: Path, text: str, words: str
) -> None:
    path = saved(tmp_path, text)
    with pytest.raises(FormatError) as caught:
        read(path)
    assert str(caught.value).startswith(path)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"), [("[]", "is a list"), ("{}", "no keys"), ('{"images": [', "breaks off")]
)
def test_nothing_is_known_about_what_is_not_coco(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        CocoFormat().about(saved(tmp_path, text))


def test_the_place_of_damage_is_exact_far_into_a_file(tmp_path: Path) -> None:
    text = '{"images": [\n' + '{"id": 1},\n' * 30_000 + "oops]}"
    with pytest.raises(FormatError, match="line 30,002 byte 330,014: not JSON here"):
        read(saved(tmp_path, text))


@given(
    start=st.integers(0, 1100),
    length=st.integers(0, 30),
    instead=st.binary(max_size=3)
    | st.sampled_from([b"null", b"NaN", b'"', b"[]", b"{}", b"-1", b"true", b",", b"1e999"]),
)
def test_any_damage_is_a_problem_or_an_error_that_says_the_place(
    start: int, length: int, instead: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = json.dumps(SMALL).encode()
    path = tmp_path_factory.mktemp("damaged") / "a.json"
    path.write_bytes(data[:start] + instead + data[start + length :])
    message = str(path)
    try:
        read(str(path))
    except FormatError as error:
        message = str(error)
    assert message.startswith(str(path))


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)


@given(key=st.sampled_from(["images", "annotations", "categories"]), data=st.data())
def test_any_value_of_any_field_is_kept_or_reported(
    key: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    value = changed(lambda coco: None)
    name = data.draw(st.sampled_from(sorted(value[key][0])))
    value[key][0][name] = data.draw(ANY_JSON)
    folder = tmp_path_factory.mktemp("odd")
    images, problems = read(saved(folder, value))
    kept = sum(len(image.boxes or ()) for image in images)
    assert kept == 2 or problems.counts
    write(folder / "out.json", [image for image in images if image.width and image.height])


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.json: there is no such file"):
        read(str(tmp_path / "none.json"))


def test_an_image_without_size_cannot_be_written(tmp_path: Path) -> None:
    image = AnnotatedImage(file_name="a.jpg", place="x.xml", boxes=())
    with pytest.raises(FormatError, match=r"x.xml: no width and height, expected them; index"):
        write(tmp_path / "a.json", [image])
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_none_cannot_be_written(tmp_path: Path) -> None:
    attributes = {"angle": float("nan")}
    image = AnnotatedImage(file_name="a", place="p", width=1, height=1, attributes=attributes)
    with pytest.raises(FormatError, match=r"p: .*expected finite numbers"):
        write(tmp_path / "a.json", [image])


def test_writing_where_nothing_can_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="No such file or directory, expected to write"):
        write(tmp_path / "none" / "a.json", [])


MEASURED = """
import json, resource, sys
from pathlib import Path
from vistadex.formats.coco import CocoFormat
from vistadex.formats.contract import About, Problems

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

format = CocoFormat()
problems = Problems()
assert list(format.read(sys.argv[1], problems))
before = peak()
format.write(Path(sys.argv[3]), format.read(sys.argv[2], problems), ("a",), About())
print(json.dumps([peak() - before, problems.counts, problems.losses]))
"""


def test_memory_stays_flat_with_200_000_annotations(tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    polygon = [float(n) for n in range(40)]
    order = list(range(200_000))
    random.Random(2).shuffle(order)
    with large.open("w") as file:
        file.write('{"annotations": [')
        for n in order:
            box = {"id": n + 1, "image_id": n % 20_000, "category_id": 1, "bbox": [n, 0, 5.5, 7]}
            comma = "" if n == order[-1] else ",\n"
            file.write(json.dumps({**box, "iscrowd": 0, "segmentation": [polygon]}) + comma)
        images = [
            {"id": n, "file_name": f"{n:08}.jpg", "width": 640, "height": 480}
            for n in range(20_000)
        ]
        categories = [{"id": 1, "name": "a"}]
        file.write(f'], "images": {json.dumps(images)}, "categories": {json.dumps(categories)}}}')
    small = saved(tmp_path, SMALL)
    arguments = [sys.executable, "-c", MEASURED, small, str(large), str(tmp_path / "out.json")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    growth_mib, counts, losses = json.loads(done.stdout)
    assert counts == {}
    assert losses["segmentation"] == 200_001
    assert large.stat().st_size > 60 << 20
    assert growth_mib < 40
    assert (tmp_path / "out.json").read_text().count('"bbox"') == 200_000
