"""Open Images: what its files say, in which names and columns, and what becomes of damage."""

from __future__ import annotations

import gzip
import json
import random
import tempfile
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistadex.errors import FormatError
from vistadex.formats import About, Problems
from vistadex.formats.open_images import OpenImagesFormat
from vistadex.formats.open_images_layout import file_name_of, find, image_id_of
from vistadex.records import AnnotatedImage, Annotation, Relation

CLASSES = "/m/1,Apple\n/m/2,Person\n/m/3,Wooden\n/m/4,Table\n"
IMAGES = (
    "ImageID,Subset,OriginalURL,License,Author,OriginalSize,Rotation\n"
    "a,train,https://x/a.jpg,https://by,Zoë,123,90.0\n"
    "b,validation,,,,,\n"
)
LABELS = "ImageID,Source,LabelName,Confidence\n"
BOXES = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
    "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)
RELATIONS = (
    "ImageID,LabelName1,LabelName2,XMin1,XMax1,YMin1,YMax1,XMin2,XMax2,YMin2,YMax2,"
    "RelationshipLabel\n"
)
TREE = {
    "LabelName": "/m/0bl9f",
    "Subcategory": [
        {"LabelName": "/m/4", "Subcategory": [{"LabelName": "/m/1"}]},
        {"LabelName": "/m/2", "Subcategory": [{"LabelName": "/m/1"}], "Part": [{}, {}]},
    ],
}


def put(folder: Path, **files: str) -> Path:
    """A set with images and classes; files by name, with _ for - and without the ending."""
    texts = {"class_descriptions": CLASSES, "train_images_with_rotation": IMAGES} | files
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name.replace('_', '-')}.csv").write_text(text, encoding="utf-8")
    return folder


NOTHING = About()


def read(folder: Path | str) -> tuple[list[AnnotatedImage], Problems]:
    problems = Problems()
    return list(OpenImagesFormat().read(str(folder), problems)), problems


def test_columns_of_the_images_become_attributes_where_they_say_something(tmp_path: Path) -> None:
    (a, b), problems = read(put(tmp_path))
    assert a.file_name == "a.jpg"
    assert a.attributes == {
        "split": "train",
        "original_url": "https://x/a.jpg",
        "license": "https://by",
        "author": "Zoë",
        "original_size": 123,
        "rotation": 90,
    }
    assert (b.file_name, b.attributes) == ("b.jpg", {"split": "validation"})
    assert (b.boxes, b.classes, b.relations) == (None, None, None)
    assert problems.counts == {}


def test_a_list_without_subset_has_the_split_of_its_name(tmp_path: Path) -> None:
    put(tmp_path, val_images="ImageID,Rotation\nc,\n")
    images, _ = read(tmp_path)
    assert [image.attributes["split"] for image in images] == ["train", "validation", "validation"]
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "image_ids_and_rotation.csv").write_text("ImageID,Rotation\nd,\n")
    images, _ = read(tmp_path)
    assert images[3].attributes == {"split": "test"}


def test_labels_of_people_and_of_machines_are_told_apart(tmp_path: Path) -> None:
    human = f"{LABELS}a,verification,/m/1,1\na,crowdsource-verification,/m/2,0\n"
    machine = f"{LABELS}a,machine,/m/1,0.7\n"
    mixed = f"{LABELS}b,machine,/m/2,0.5\nb,verification,/m/2,1\n"
    put(
        tmp_path,
        train_annotations_human_imagelabels=human,
        train_annotations_machine_imagelabels=machine,
        anything=mixed,
    )
    images, problems = read(tmp_path)
    said = [(one.file_name, one.origin, one.classes, one.class_scores) for one in images]
    assert said == [
        ("a.jpg", "", ("Apple", "Person"), (1.0, 0.0)),
        ("a.jpg", "machine", ("Apple",), (0.7,)),
        ("b.jpg", "", ("Person",), ()),
        ("b.jpg", "machine", ("Person",), (0.5,)),
    ]
    assert images[1].attributes == images[0].attributes
    assert problems.counts == {}
    assert problems.losses == {"how a label was made (Source)": 1}


def test_flags_of_boxes_are_yes_no_or_unknown(tmp_path: Path) -> None:
    row = "a,xclick,/m/1,1,0.25,0.5,0.125,1,1,0,-1,1,-1\n"
    (image, _), _ = read(put(tmp_path, train_annotations_bbox=BOXES + row))
    assert image.relative
    flags = {"occluded": True, "truncated": False, "depiction": True}
    box = Annotation("Apple", (0.25, 0.125, 0.5, 1.0), 1.0, flags, {"source": "xclick"})
    assert image.boxes == (box,)


def test_relations_have_both_boxes_and_attributes_are_what_a_thing_is(tmp_path: Path) -> None:
    rows = "a,/m/2,/m/4,0,0.5,0,1,0.5,1,0,1,at\na,/m/4,/m/3,0.5,1,0,1,0.5,1,0,1,is\n"
    rows += "b,/m/2,/m/4,,,,,,,,,at\n"
    (a, b), problems = read(put(tmp_path, oidv6_train_annotations_vrd=RELATIONS + rows))
    table = (0.5, 0.0, 1.0, 1.0)
    assert a.relations == (
        Relation("Person", "at", "Table", (0.0, 0.0, 0.5, 1.0), table),
        Relation("Table", "is", "Wooden", table, table),
    )
    assert b.relations == (Relation("Person", "at", "Table"),)
    assert problems.counts == {}


def test_the_older_name_of_the_relation_column_is_known(tmp_path: Path) -> None:
    header = RELATIONS.replace("RelationshipLabel", "RelationLabel")
    put(tmp_path, train_annotations_vrd=f"{header}a,/m/2,/m/4,,,,,,,,,at\n")
    (a, _), problems = read(tmp_path)
    assert a.relations == (Relation("Person", "at", "Table"),)
    assert problems.losses == {}


def test_the_hierarchy_gives_parents_and_counts_parts_as_lost(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "bbox_labels_600_hierarchy.json").write_text(json.dumps(TREE))
    about = OpenImagesFormat().about(str(tmp_path))
    assert about.parents == (("Apple", "Person"), ("Apple", "Table"))
    ids = {"Apple": "/m/1", "Person": "/m/2", "Wooden": "/m/3", "Table": "/m/4"}
    assert about.external_ids == ids
    _, problems = read(tmp_path)
    assert problems.losses == {"parts of classes": 2}
    assert problems.counts == {}


def test_unknown_classes_of_the_hierarchy_are_reported_once(tmp_path: Path) -> None:
    put(tmp_path)
    tree = {"LabelName": "/m/4", "Subcategory": [{"LabelName": "/m/9"}, {"LabelName": "/m/9"}, 7]}
    (tmp_path / "hierarchy.json").write_text(json.dumps(tree))
    _, problems = read(tmp_path)
    assert problems.counts == {"unknown-class": 1, "bad-class": 1}


def test_a_hierarchy_that_is_no_json_is_an_error_with_its_name(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "hierarchy.json").write_text("{")
    with pytest.raises(FormatError, match=r"hierarchy\.json: no JSON"):
        read(tmp_path)


@pytest.mark.parametrize("header", ["", "LabelName,DisplayName\n"])
def test_class_descriptions_have_a_first_row_or_none(tmp_path: Path, header: str) -> None:
    put(tmp_path, class_descriptions=header + CLASSES)
    _, problems = read(tmp_path)
    assert problems.counts == {}
    assert OpenImagesFormat().about(str(tmp_path)).external_ids["Apple"] == "/m/1"


def test_classes_of_one_name_stay_apart_and_a_class_without_name_has_its_id(
    tmp_path: Path,
) -> None:
    put(tmp_path, class_descriptions="/m/1,Bat\n/m/2,Bat\n/m/3,\n/m/1,Club\n")
    _, problems = read(tmp_path)
    ids = OpenImagesFormat().about(str(tmp_path)).external_ids
    assert ids == {"Bat": "/m/1", "Bat (/m/2)": "/m/2", "/m/3": "/m/3"}
    assert problems.counts == {"same-name": 1, "no-name": 1, "several-names": 1}
    assert {one.place.rpartition("csv ")[2] for one in problems.first} == {
        "line 2",
        "line 3",
        "line 4",
    }


def test_a_name_in_a_second_file_is_used_where_the_first_has_none(tmp_path: Path) -> None:
    put(tmp_path, class_descriptions="/m/1,\n", oidv6_attributes_description="/m/1,Apple\n")
    _, problems = read(tmp_path)
    assert OpenImagesFormat().about(str(tmp_path)).external_ids == {"Apple": "/m/1"}
    assert problems.counts == {}


@pytest.mark.parametrize(
    ("file", "row", "kind", "found"),
    [
        ("bbox", "z,x,/m/1,1,0,1,0,1,0,0,0,0,0", "unknown-image", "z.jpg"),
        ("bbox", "a,x,/m/9,1,0,1,0,1,0,0,0,0,0", "unknown-class", "/m/9"),
        ("bbox", "a,x,/m/1,1,0.5,0.5,0,1,0,0,0,0,0", "outside", "0.5"),
        ("bbox", "a,x,/m/1,1,1.5,1.7,0,1,0,0,0,0,0", "outside", "1.5"),
        ("bbox", "a,x,/m/1,1,nan,1,0,1,0,0,0,0,0", "bad-row", "a box at nan, 0, 1, 1"),
        ("bbox", "a,x,/m/1,2,0,1,0,1,0,0,0,0,0", "bad-row", "Confidence 2"),
        ("bbox", "a,x,/m/1,1,0,1,0,1,0,0,0,0,7", "bad-row", "IsInside '7'"),
        ("bbox", "a,x,/m/1,1,0,1,0,1,0,0,0,0", "bad-row", "12 fields"),
        ("bbox", ",x,/m/1,1,0,1,0,1,0,0,0,0,0", "bad-row", "no ImageID"),
        ("bbox", 'a,"x,/m/1,1,0,1,0,1,0,0,0,0,0', "bad-row", "no CSV"),
        ("human-imagelabels", "z,x,/m/1,1", "unknown-image", "z.jpg"),
        ("human-imagelabels", "a,x,/m/9,1", "unknown-class", "/m/9"),
        ("human-imagelabels", "a,x,/m/1,", "bad-row", "Confidence nan"),
        ("vrd", "a,/m/2,/m/9,0,1,0,1,0,1,0,1,on", "unknown-class", "LabelName2 '/m/9'"),
        ("vrd", "a,/m/2,/m/1,0,1,0,1,0,1,0,1, ", "bad-row", "no RelationshipLabel"),
        ("vrd", "a,/m/2,/m/1,0,1,0,1,0,1,,,on", "bad-row", "a box at 0, nan, 1, nan"),
        ("vrd", "z,/m/2,/m/1,0,1,0,1,0,1,0,1,on", "unknown-image", "z.jpg"),
    ],
)
def test_a_row_that_cant_be_used_is_reported_with_its_line(
    tmp_path: Path, file: str, row: str, kind: str, found: str
) -> None:
    header = {"bbox": BOXES, "human-imagelabels": LABELS, "vrd": RELATIONS}[file]
    put(tmp_path)
    path = tmp_path / f"train-annotations-{file}.csv"
    path.write_text(f"{header}\n{row}\n")
    images, problems = read(tmp_path)
    assert problems.counts == {kind: 1}
    assert problems.first[0].place == f"{path} line 3"
    assert found in problems.first[0].found
    assert [(one.boxes, one.classes, one.relations) for one in images] == [(None,) * 3] * 2


def test_a_box_over_the_border_is_cut_off_there_and_reported(tmp_path: Path) -> None:
    rows = "a,x,/m/1,1,-0.5,0.5,0,1.25,0,0,0,0,0\nb,x,/m/1,1,0,1.0000001,0,1,0,0,0,0,0\n"
    (a, b), problems = read(put(tmp_path, train_annotations_bbox=BOXES + rows))
    assert [one.boxes[0].box_xyxy for one in (a, b) if one.boxes] == [(0, 0, 0.5, 1), (0, 0, 1, 1)]
    assert problems.counts == {"cut-off": 1}


def test_contradictions_are_reported_and_equal_rows_are_not(tmp_path: Path) -> None:
    human = f"{LABELS}a,v,/m/1,0\na,v,/m/1,1\nb,v,/m/2,1\nb,v,/m/2,1\n"
    put(
        tmp_path,
        train_annotations_human_imagelabels=human,
        train_images_boxable="ImageID,Subset,Rotation\na,test,90\n",
    )
    (a, b), problems = read(tmp_path)
    assert (a.classes, a.class_scores, b.classes) == (("Apple",), (), ("Person",))
    assert problems.counts == {"contradiction": 2}
    assert a.attributes["split"] == "test"


def test_a_published_file_without_a_column_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, train_annotations_bbox="ImageID,LabelName\na,/m/1\n")
    with pytest.raises(FormatError, match=r"bbox\.csv line 1: no column XMin"):
        read(tmp_path)


def test_other_columns_are_losses_where_they_hold_something(tmp_path: Path) -> None:
    header = BOXES.replace("IsInside\n", "IsInside,XClick1X\n")
    rows = "a,x,/m/1,1,0,1,0,1,0,0,0,0,0,0.5\na,x,/m/1,1,0,1,0,1,0,0,0,0,0,-1\n"
    _, problems = read(put(tmp_path, train_annotations_bbox=header + rows))
    assert problems.losses == {"the column XClick1X": 1}


def test_files_are_found_in_folders_of_splits_gzipped_or_not(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "validation").mkdir()
    row = "b,x,/m/1,1,0,1,0,1,0,0,0,0,0\n"
    packed = gzip.compress(f"{BOXES}{row}".encode())
    (tmp_path / "validation" / "validation-annotations-bbox.csv.gz").write_bytes(packed)
    (tmp_path / "train").mkdir()
    for number in range(30):
        (tmp_path / "train" / f"{number:016x}.jpg").write_bytes(b"")
    found = find(str(tmp_path))
    assert found.boxes == (f"{tmp_path}/validation/validation-annotations-bbox.csv.gz",)
    assert found.unknown == ()
    (_, b), _ = read(tmp_path)
    assert b.boxes is not None


def test_a_packed_copy_beside_the_plain_file_and_unknown_files_are_reported(
    tmp_path: Path,
) -> None:
    put(tmp_path, notes="hello,world,again\n1,2,3\n", oidv6_relationships_description="at,at\n")
    (tmp_path / "class-descriptions.csv.gz").write_bytes(gzip.compress(CLASSES.encode()))
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "empty.csv").write_text("")
    _, problems = read(tmp_path)
    assert problems.counts == {"unknown-file": 4}
    assert "relationships" not in "".join(one.place for one in problems.first)


@pytest.mark.parametrize("header", ["id,name", "LabelName,DisplayName", "label,name"])
def test_the_first_row_of_class_descriptions_is_no_class(tmp_path: Path, header: str) -> None:
    put(tmp_path, oidv6_attributes_description=f"{header}\n/m/7,Gold\n")
    assert {"id", "name", *header.split(",")}.isdisjoint(names_of(tmp_path))
    assert names_of(tmp_path)["Gold"] == "/m/7"


def names_of(folder: Path) -> dict[str, str]:
    """The ids of a set's classes by name."""
    return dict(OpenImagesFormat().about(str(folder)).external_ids)


@pytest.mark.parametrize("twice", ["Subset", "Rotation"])
def test_a_column_that_comes_twice_is_an_error(tmp_path: Path, twice: str) -> None:
    put(tmp_path, train_images_with_rotation=f"ImageID,Subset,Rotation,{twice}\na,train,0,0\n")
    with pytest.raises(FormatError, match=f"the column {twice} comes twice"):
        read(tmp_path)
    put(tmp_path, train_images_with_rotation="ImageID,Rotation,rotation\na,90,0\n")
    with pytest.raises(FormatError, match="Rotation and rotation are the same attribute"):
        read(tmp_path)


def test_an_unknown_column_is_a_loss_though_a_known_one_is_missing(tmp_path: Path) -> None:
    boxes = "ImageID,LabelName,XMin,XMax,YMin,YMax,X\na,/m/1,0,1,0,1,0.5\na,/m/1,0,1,0,1,-1\n"
    _, problems = read(put(tmp_path, train_annotations_bbox=boxes))
    assert problems.losses == {"the column X": 1}


def test_a_single_file_names_its_images_and_classes_itself(tmp_path: Path) -> None:
    path = tmp_path / "train-annotations-human-imagelabels.csv"
    path.write_text(f"{LABELS}a,v,/m/1,1\n")
    (image,), problems = read(path)
    assert image.classes == ("/m/1",)
    assert problems.counts == {"no-image-list": 1, "no-class-descriptions": 1}


def test_names_of_pictures_lead_back_to_their_ids() -> None:
    for name in ("a.jpg", "b/c.jpg", "d.png", "e.jpg.jpg", "f.JPG", "https://x/y.jpeg"):
        assert file_name_of(image_id_of(name)) == name
    with pytest.raises(FormatError, match="no picture's ending"):
        image_id_of("a")


def write(
    out: Path,
    images: Iterable[AnnotatedImage],
    classes: tuple[str, ...] = (),
    about: About = NOTHING,
) -> Path:
    OpenImagesFormat().write(out, images, classes, about)
    return out


def image(name: str, **said: object) -> AnnotatedImage:
    return replace(AnnotatedImage(file_name=name, place=name, relative=True), **said)


def test_files_are_written_as_they_are_published(tmp_path: Path) -> None:
    boxes = (Annotation("Apple", (0.25, 0, 0.5, 1), 1, {"crowd": True}, {"source": "xclick"}),)
    said = image(
        "x/00000000000000ff.jpg",
        boxes=boxes,
        classes=("Apple", "dog, big"),
        class_scores=(1.0, 0.0),
        relations=(Relation("Apple", "on", "Apple", (0, 0, 1, 1), (0.5, 0, 1, 1)),),
        attributes={"split": "val", "rotation": 90, "author": "A", "more": "lost"},
    )
    heard = replace(said, boxes=None, relations=None, origin="machine", class_scores=(0.5, 0.25))
    about = About(external_ids={"Apple": "/m/1"}, parents=(("Apple", "Fruit"),))
    out = write(tmp_path / "out", [said, heard], ("Apple", "dog, big"), about)
    texts = {path.name: path.read_text() for path in out.iterdir()}
    key = "00000000000000ff"
    tree = {"LabelName": "/v/Fruit", "Subcategory": [{"LabelName": "/m/1"}]}
    assert json.loads(texts.pop("bbox_labels_hierarchy.json")) == tree
    assert texts == {
        "class-descriptions.csv": '/m/1,Apple\n/v/Fruit,Fruit\n/v/dog%2C%20big,"dog, big"\n',
        "validation-images-with-rotation.csv": (
            "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
            f"OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation\n{key},val,,,,,A,,,,,90\n"
        ),
        "validation-annotations-human-imagelabels.csv": (
            f"{LABELS}{key},verification,/m/1,1\n{key},verification,/v/dog%2C%20big,0\n"
        ),
        "validation-annotations-machine-imagelabels.csv": (
            f"{LABELS}{key},machine,/m/1,0.5\n{key},machine,/v/dog%2C%20big,0.25\n"
        ),
        "validation-annotations-bbox.csv": (
            f"{BOXES}{key},xclick,/m/1,1,0.25,0.5,0,1,-1,-1,1,-1,-1\n"
        ),
        "validation-annotations-vrd.csv": f"{RELATIONS}{key},/m/1,/m/1,0,1,0,1,0.5,1,0,1,on\n",
    }


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (image("a.jpg", relative=False, boxes=(Annotation("A", (0, 0, 5, 5)),)), "no width"),
        (image("a.jpg", boxes=(Annotation("A", (1.5, 0, 2, 1)),)), "no area"),
        (image("a", classes=("A",)), "no picture's ending"),
    ],
)
def test_what_cant_be_written_is_an_error(tmp_path: Path, said: AnnotatedImage, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        write(tmp_path / "out", [said], ("A",))


def test_two_pictures_of_one_id_are_an_error(tmp_path: Path) -> None:
    twins = [image(f"{folder}/00000000000000ff.jpg", classes=("A",)) for folder in "xy"]
    with pytest.raises(FormatError, match="same id 00000000000000ff"):
        write(tmp_path / "out", twins, ("A",))


def test_two_classes_of_one_id_are_written_with_an_id_each(tmp_path: Path) -> None:
    about = About(external_ids={"A": "/m/1", "B": "/m/1", "C": "/v/B"})
    out = write(tmp_path / "out", [image("a.jpg", classes=("A", "B", "C"))], ("A", "B", "C"), about)
    (found,), problems = read(out)
    assert found.classes == ("A", "B", "C")
    assert problems.counts == {}


@pytest.mark.parametrize("described", [True, False])
def test_circles_and_several_tops_of_a_hierarchy_come_back(tmp_path: Path, described: bool) -> None:
    parents = (("A", "B"), ("B", "A"), ("C", "D"), ("E", "D"), ("E", "F"), ("G", "E"))
    ids = {"F": "/m/0bl9f"} if described else {}
    about = About(external_ids=ids, parents=parents)
    out = write(tmp_path / "out", [image("a.jpg", classes=("A",))], tuple("ABCDEFG"), about)
    assert OpenImagesFormat().about(str(out)) == about


names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8
).filter(str.strip)
fractions = st.floats(0, 1, allow_subnormal=False)
sides = st.lists(fractions, min_size=2, max_size=2, unique=True).map(sorted)
corners = st.tuples(sides, sides).map(lambda xy: (xy[0][0], xy[1][0], xy[0][1], xy[1][1]))
flags = st.dictionaries(
    st.sampled_from(["occluded", "truncated", "crowd", "depiction", "inside"]), st.booleans()
)


@st.composite
def images(draw: st.DrawFn) -> tuple[list[AnnotatedImage], About]:
    """Images that hold only what the format can say, and some hierarchy."""
    known = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    name = st.sampled_from(known)
    boxes = st.builds(
        Annotation, name, corners, fractions, flags, st.just({}) | st.just({"source": "x"})
    )
    box = st.none() | corners
    relations = st.builds(Relation, name, names, name, box, box)
    attributes = st.fixed_dictionaries(
        {},
        optional={
            "split": names,
            "author": names,
            "rotation": st.sampled_from([0, 90]),
            "original_size": st.integers(0, 10**15) | st.floats(0.1, 0.9),
        },
    )
    found = []
    for number in range(draw(st.integers(1, 4))):
        labels = draw(st.lists(name, max_size=4, unique=True))
        said = image(
            f"{number}.jpg",
            boxes=tuple(draw(st.lists(boxes, max_size=3))) or None,
            classes=tuple(labels) or None,
            class_scores=tuple(draw(fractions) for _ in labels),
            relations=tuple(draw(st.lists(relations, max_size=3))) or None,
            attributes=draw(attributes),
        )
        found.append(said)
        if labels and draw(st.booleans()):
            found.append(replace(said, boxes=None, relations=None, origin="machine"))
    mids = draw(st.lists(st.integers(0, 99), unique=True, max_size=len(known)))
    ids = {one: f"/m/{mid}" for one, mid in zip(known, mids, strict=False)}
    parents = sorted(set(draw(st.lists(st.tuples(name, name), max_size=6))))
    return found, About(external_ids=ids, parents=tuple(parents))


@given(images())
@settings(max_examples=150, deadline=None)
def test_what_is_written_reads_the_same(drawn: tuple[list[AnnotatedImage], About]) -> None:
    said, about = drawn
    used = {name for one in said for name in one.classes or ()}
    used |= {box.class_name for one in said for box in one.boxes or ()}
    used |= {name for one in said for r in one.relations or () for name in (r.subject, r.object)}
    with tempfile.TemporaryDirectory() as folder:
        first = write(Path(folder) / "1", said, tuple(sorted(used)), about)
        found, problems = read(first)
        again = OpenImagesFormat().about(str(first))
        second = write(Path(folder) / "2", found, tuple(sorted(used)), again)
        assert files(first) == files(second)
    assert problems.counts == {}
    assert [plain(one) for one in found] == [plain(one) for one in said]
    assert {name: again.external_ids.get(name) for name in about.external_ids} == about.external_ids
    assert again.parents == about.parents


def plain(one: AnnotatedImage) -> AnnotatedImage:
    """Without the place; scores that are all 1 are as none."""
    scores = () if all(score == 1 for score in one.class_scores) else one.class_scores
    return replace(one, place="", class_scores=scores)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_published_boxes_come_back_number_by_number(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "openimages"
    found, problems = read(source)
    assert problems.counts == {"no-image-list": 1, "no-name": 1}
    assert sum(len(one.boxes or ()) for one in found) == 2784
    used = tuple(sorted({box.class_name for one in found for box in one.boxes or ()}))
    out = write(tmp_path / "out", found, used, OpenImagesFormat().about(str(source)))
    again, problems = read(out)
    assert problems.counts == {}
    assert [plain(one) for one in again] == [plain(one) for one in found]
    ids = OpenImagesFormat().about(str(source)).external_ids
    assert OpenImagesFormat().about(str(out)).external_ids == ids
    rows = sorted((source / "test-annotations-bbox.csv").read_text().splitlines()[1:])
    written = sorted((out / "annotations-bbox.csv").read_text().splitlines()[1:])
    assert [numbers(row) for row in written] == [numbers(row) for row in rows]


def numbers(row: str) -> tuple[object, ...]:
    head, *rest = row.rsplit(",", 10)
    return (head, *map(float, rest))


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        folder = tmp_path / str(count)
        ids = [f"{number:016x}" for number in range(count)]
        random.Random(7).shuffle(ids)
        put(
            folder,
            train_images="ImageID,Subset\n" + "".join(f"{one},train\n" for one in ids),
            train_annotations_human_imagelabels=LABELS + "".join(f"{i},v,/m/1,1\n" for i in ids),
        )
        tracemalloc.start()
        try:
            assert sum(1 for _ in OpenImagesFormat().read(str(folder), Problems())) == count + 2
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)
    assert peak(20_000) < peak(4_000) + 1_000_000
