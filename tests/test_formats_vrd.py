"""Stanford's Visual Relationship JSON: numbers or names, boxes from 1 on, damage and writing."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistadex.errors import FormatError
from vistadex.formats import About, Problems
from vistadex.formats.vrd import VrdFormat
from vistadex.records import AnnotatedImage, Annotation, Relation

TRIPLET = {
    "predicate": 1,
    "subject": {"category": 0, "bbox": [1, 10, 1, 20]},
    "object": {"category": 1, "bbox": [5, 6, 7, 8]},
}
PERSON, HORSE = (0.0, 0.0, 20.0, 10.0), (6.0, 4.0, 8.0, 6.0)


def put(folder: Path, content: object, name: str = "annotations_train.json") -> Path:
    (folder / "objects.json").write_text('["person", "horse"]')
    (folder / "predicates.json").write_text('["on", "ride"]')
    (folder / name).write_text(json.dumps(content))
    return folder / name


def read(path: Path | str) -> tuple[list[AnnotatedImage], Problems]:
    problems = Problems()
    return list(VrdFormat().read(str(path), problems)), problems


def test_pixels_count_from_1_and_the_last_one_is_inside(tmp_path: Path) -> None:
    (image,), problems = read(put(tmp_path, {"a.jpg": [TRIPLET]}))
    assert image.relations == (Relation("person", "ride", "horse", PERSON, HORSE),)
    assert image.boxes == (Annotation("person", PERSON), Annotation("horse", HORSE))
    assert (image.relative, image.width, image.height) == (False, None, None)
    assert image.attributes == {"split": "train"}
    assert problems.counts == {}


def test_a_thing_in_several_relations_is_one_box(tmp_path: Path) -> None:
    (image,), _ = read(put(tmp_path, {"a.jpg": [TRIPLET, TRIPLET | {"predicate": 0}]}))
    assert len(image.relations or ()) == 2
    assert len(image.boxes or ()) == 2


def test_names_may_stand_in_place_of_numbers(tmp_path: Path) -> None:
    triplet = {
        "predicate": "sees",
        "subject": TRIPLET["subject"] | {"category": "cat"},
        "object": TRIPLET["object"],
    }
    (image,), problems = read(put(tmp_path, {"a.jpg": [triplet]}))
    assert image.relations == (Relation("cat", "sees", "horse", PERSON, HORSE),)
    assert problems.counts == {}


def test_an_empty_list_says_no_relations_and_nothing_of_boxes(tmp_path: Path) -> None:
    (image,), problems = read(put(tmp_path, {"a.jpg": []}))
    assert (image.relations, image.boxes) == ((), None)
    assert problems.counts == {}


def test_all_files_of_a_folder_are_read_with_their_splits(tmp_path: Path) -> None:
    for name in ("annotations_train.json", "sg_annotations_test.json", "other.json"):
        put(tmp_path, {f"{name}.jpg": [TRIPLET]}, name)
    (tmp_path / "notes.txt").write_text("x")
    images, problems = read(tmp_path)
    assert [image.attributes.get("split") for image in images] == ["train", None, "test"]
    assert problems.counts == {"unknown-file": 1}


@pytest.mark.parametrize(
    ("triplet", "kind", "found"),
    [
        (7, "bad-relation", "7"),
        (TRIPLET | {"predicate": 2}, "unknown-class", "2 of predicates.json"),
        (TRIPLET | {"predicate": None}, "bad-relation", "None"),
        (TRIPLET | {"subject": None}, "bad-relation", "subject 'None'"),
        (TRIPLET | {"object": {"category": -1, "bbox": [1, 2, 1, 2]}}, "unknown-class", "-1"),
        (TRIPLET | {"object": {"category": 1, "bbox": [1, 2, 1]}}, "bad-box", "[1, 2, 1]"),
        (TRIPLET | {"object": {"category": 1, "bbox": [3, 2, 1, 2]}}, "bad-box", "[3, 2, 1, 2]"),
        (TRIPLET | {"object": {"category": 1, "bbox": [1, 2, 1, 1e99]}}, "bad-box", "1e+99"),
        (TRIPLET | {"object": {"category": 1, "bbox": [1, True, 1, 2]}}, "bad-box", "True"),
    ],
)
def test_a_triplet_that_cant_be_used_is_reported_with_its_place(
    tmp_path: Path, triplet: object, kind: str, found: str
) -> None:
    path = put(tmp_path, {"a.jpg": [TRIPLET, triplet], "b.jpg": [triplet]})
    (image,), problems = read(path)
    assert len(image.relations or ()) == 1
    assert problems.counts == {kind: 2}
    assert problems.first[0].place == f"{path} 'a.jpg' relation 1"
    assert found in problems.first[0].found


def test_numbers_without_the_list_of_names_are_reported(tmp_path: Path) -> None:
    path = put(tmp_path, {"a.jpg": [TRIPLET]})
    (tmp_path / "objects.json").unlink()
    images, problems = read(path)
    assert images == []
    assert problems.counts == {"unknown-class": 1}
    assert "objects.json" in str(problems.first[0])


@pytest.mark.parametrize("names", ["{}", '["a", "a"]', "[1]", "["])
def test_a_list_of_names_that_is_none_is_an_error(tmp_path: Path, names: str) -> None:
    path = put(tmp_path, {"a.jpg": [TRIPLET]})
    (tmp_path / "objects.json").write_text(names)
    with pytest.raises(FormatError, match=r"objects\.json"):
        read(path)


@pytest.mark.parametrize(
    ("text", "what"), [("[]", "no JSON object"), ('{"a": [', "breaks off"), ('{"a" 1}', "not JSON")]
)
def test_a_file_that_is_no_json_object_is_an_error(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(FormatError, match=what):
        read(tmp_path)


def test_a_picture_without_a_list_or_a_name_is_reported(tmp_path: Path) -> None:
    images, problems = read(put(tmp_path, {"a.jpg": 5, " ": [TRIPLET]}))
    assert images == []
    assert problems.counts == {"bad-image": 1, "bad-name": 1}


def image(**said: object) -> AnnotatedImage:
    return replace(AnnotatedImage(file_name="a.jpg", place="a.jpg"), **said)


def test_what_says_nothing_of_drawn_relations_is_not_written(tmp_path: Path) -> None:
    said = [image(relations=(Relation("A", "on", "B"),)), image(boxes=())]
    VrdFormat().write(tmp_path / "out", said, ("A", "B"), About())
    assert json.loads((tmp_path / "out" / "annotations.json").read_text()) == {}


def test_fractions_of_a_picture_of_unknown_size_are_an_error(tmp_path: Path) -> None:
    relation = Relation("A", "on", "A", (0, 0, 0.5, 1), (0, 0, 1, 1))
    said = image(relations=(relation,), relative=True)
    with pytest.raises(FormatError, match="no width and height"):
        VrdFormat().write(tmp_path / "out", [said], ("A",), About())
    VrdFormat().write(tmp_path / "in", [replace(said, width=8, height=4)], ("A",), About())
    (found,), _ = read(tmp_path / "in")
    assert found.relations == (
        replace(relation, subject_xyxy=(0, 0, 4, 4), object_xyxy=(0, 0, 8, 4)),
    )


def test_published_triplets_come_back(shared_data: Path, tmp_path: Path) -> None:
    found, problems = read(shared_data / "vrd")
    assert problems.counts == {}
    assert (len(found), sum(len(one.relations or ()) for one in found)) == (1000, 7638)
    assert sum(one.relations == () for one in found) == 45
    classes = tuple(sorted({box.class_name for one in found for box in one.boxes or ()}))
    VrdFormat().write(tmp_path / "out", found, classes, About())
    again, problems = read(tmp_path / "out")
    assert problems.counts == {}
    assert [replace(one, place="") for one in again] == [replace(one, place="") for one in found]
    assert boxes_in(tmp_path / "out") == boxes_in(shared_data / "vrd")


def boxes_in(folder: Path) -> dict[str, list[list[int]]]:
    """The numbers of all boxes as they stand in the file, by picture."""
    pictures = json.loads((folder / "annotations_test.json").read_text())
    return {
        name: [one[part]["bbox"] for one in triplets for part in ("subject", "object")]
        for name, triplets in pictures.items()
    }


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)
starts = st.integers(-5, 99) | st.floats(0, 99).map(lambda value: round(value, 3))
corners = st.tuples(starts, starts, st.integers(1, 50), st.integers(1, 50)).map(
    lambda box: (float(box[0]), float(box[1]), float(box[0] + box[2]), float(box[1] + box[3]))
)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_what_is_written_reads_the_same(data: st.DataObject) -> None:
    known = data.draw(st.lists(names, min_size=1, max_size=5, unique=True).map(sorted))
    name = st.sampled_from(known)
    relations = st.lists(st.builds(Relation, name, names, name, corners, corners), max_size=3)
    files = data.draw(st.lists(names, unique=True, max_size=3))
    said = [image(file_name=one, relations=tuple(data.draw(relations))) for one in files]
    with tempfile.TemporaryDirectory() as folder:
        VrdFormat().write(Path(folder) / "out", said, tuple(known), About())
        found, problems = read(Path(folder) / "out")
    assert problems.counts == {}
    assert [(one.file_name, len(one.relations or ())) for one in found] == [
        (one.file_name, len(one.relations or ())) for one in said
    ]
    for one, other in zip(found, said, strict=True):
        for relation, expected in zip(one.relations or (), other.relations or (), strict=True):
            assert relation.subject_xyxy == pytest.approx(expected.subject_xyxy, abs=1e-9)
            assert relation.object_xyxy == pytest.approx(expected.object_xyxy, abs=1e-9)
            assert replace(relation, subject_xyxy=None, object_xyxy=None) == replace(
                expected, subject_xyxy=None, object_xyxy=None
            )
