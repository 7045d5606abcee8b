"""COCO files that are damaged, no COCO at all, or can't be written; and the memory they take."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.coco_files import NAMES, SMALL, changed, read, saved, write
from vistadex.errors import FormatError, SourceError
from vistadex.formats.coco import CocoFormat
from vistadex.records import AnnotatedImage


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
