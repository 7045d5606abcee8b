"""Class tables: three plain CSV files, with and without a first row."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistadex.errors import FormatError
from vistadex.formats import About, Problems
from vistadex.formats.class_tables import ClassTablesFormat
from vistadex.records import AnnotatedImage, Relation

CLASSES = "Label,Description\nApple,a fruit\nPerson,\nHorse,\n"
LABELS = "ImageId,Label\nb,Person\na.png,Apple\nb,Horse\nb,Person\n"
RELATIONS = "ImageId,Label1,Relation,Label2\nb,Person,rides,Horse\nb,Person,rides,Horse\n"


def put(folder: Path, classes: str | None = CLASSES, labels: str = LABELS) -> Path:
    if classes is not None:
        (folder / "classes.csv").write_text(classes)
    (folder / "image_labels.csv").write_text(labels)
    (folder / "relations.csv").write_text(RELATIONS)
    return folder


def read(folder: Path | str) -> tuple[list[AnnotatedImage], Problems]:
    problems = Problems()
    return list(ClassTablesFormat().read(str(folder), problems)), problems


def test_the_tables_say_classes_descriptions_and_relations(tmp_path: Path) -> None:
    (a, b), problems = read(put(tmp_path))
    assert (a.file_name, a.classes, a.relations) == ("a.png", ("Apple",), None)
    assert (b.file_name, b.classes) == ("b.jpg", ("Person", "Horse"))
    assert b.relations == (Relation("Person", "rides", "Horse"),)
    assert (a.boxes, b.boxes) == (None, None)
    assert problems.counts == {}
    assert ClassTablesFormat().about(str(tmp_path)) == About(descriptions={"Apple": "a fruit"})


def test_without_a_first_row_columns_stand_in_their_order(tmp_path: Path) -> None:
    expected, _ = read(put(tmp_path))
    for name in ("classes", "image_labels", "relations"):
        path = tmp_path / f"{name}.csv"
        rest = path.read_text().partition("\n")[2]
        path.unlink()
        (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(rest.encode()))
    found, problems = read(tmp_path)
    assert problems.counts == {}
    assert [(i.file_name, i.classes, i.relations) for i in found] == [
        (i.file_name, i.classes, i.relations) for i in expected
    ]


def test_the_first_row_decides_which_column_is_which(tmp_path: Path) -> None:
    put(tmp_path, labels="label,note,IMAGEID\nApple,x,c\n")
    images, problems = read(tmp_path)
    assert ("c.jpg", ("Apple",)) in [(one.file_name, one.classes) for one in images]
    assert problems.counts == {}


@pytest.mark.parametrize(
    ("row", "kind", "found"),
    [
        ("a,Pear", "unknown-class", "the label 'Pear'"),
        ("a", "bad-row", "1 fields"),
        ("a,Apple,x", "bad-row", "3 fields"),
        (",Apple", "bad-row", "no ImageId"),
        ('a,"Apple', "bad-row", "no CSV"),
    ],
)
def test_a_row_that_cant_be_used_is_reported_with_its_line(
    tmp_path: Path, row: str, kind: str, found: str
) -> None:
    put(tmp_path, labels=f"ImageId,Label\n{row}\nb,Horse\n")
    (image,), problems = read(tmp_path)
    assert image.classes == ("Horse",)
    assert problems.counts == {kind: 1}
    assert problems.first[0].place == f"{tmp_path / 'image_labels.csv'} line 2"
    assert found in problems.first[0].found


def test_a_relation_of_an_unknown_class_is_reported(tmp_path: Path) -> None:
    put(tmp_path, classes="Apple,\nPerson,\n", labels="a,Apple\n")
    (image,), problems = read(tmp_path)
    assert (image.classes, image.relations) == (("Apple",), None)
    assert problems.counts == {"unknown-class": 2}
    assert problems.first[0].place == f"{tmp_path / 'relations.csv'} line 2"


def test_without_classes_every_label_is_one_and_that_is_said(tmp_path: Path) -> None:
    (a, b), problems = read(put(tmp_path, classes=None))
    assert (a.classes, b.classes) == (("Apple",), ("Person", "Horse"))
    assert problems.counts == {"no-classes": 1}


def test_two_descriptions_and_other_files_are_reported(tmp_path: Path) -> None:
    put(tmp_path, classes=f"{CLASSES}Apple,\nApple,a firm\n")
    (tmp_path / "more.csv").write_text("x\n")
    (tmp_path / "classes.csv.gz").write_bytes(gzip.compress(b"x"))
    (tmp_path / "a.jpg").write_bytes(b"")
    _, problems = read(tmp_path)
    assert problems.counts == {"contradiction": 1, "unknown-file": 2}
    assert ClassTablesFormat().about(str(tmp_path)).descriptions == {"Apple": "a fruit"}


def test_a_folder_without_tables_and_a_single_table_are_errors(tmp_path: Path) -> None:
    put(tmp_path)
    with pytest.raises(FormatError, match="name the folder"):
        read(tmp_path / "relations.csv")
    (tmp_path / "relations.csv").unlink()
    (tmp_path / "image_labels.csv").unlink()
    with pytest.raises(FormatError, match="neither"):
        read(tmp_path)


def test_classes_that_are_not_there_are_not_written(tmp_path: Path) -> None:
    said = AnnotatedImage(
        file_name="a.jpg", place="a", classes=("A", "B", "C"), class_scores=(1.0, 0.0, 0.25)
    )
    ClassTablesFormat().write(tmp_path / "out", [said], ("A", "B", "C"), About())
    assert (tmp_path / "out" / "image_labels.csv").read_text() == "ImageId,Label\na,A\na,C\n"


names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8
).filter(str.strip)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_what_is_written_reads_the_same(data: st.DataObject) -> None:
    known = data.draw(st.lists(names, min_size=1, max_size=5, unique=True).map(sorted))
    name = st.sampled_from(known)
    relations = st.lists(st.builds(Relation, name, names, name), max_size=3, unique=True)
    labels = st.lists(name, min_size=1, max_size=3, unique=True)
    said = [
        AnnotatedImage(
            file_name=f"{number}.jpg",
            place="",
            classes=tuple(data.draw(labels)),
            relations=tuple(data.draw(relations)) or None,
        )
        for number in range(data.draw(st.integers(1, 4)))
    ]
    about = About(descriptions=data.draw(st.dictionaries(name, names, max_size=3)))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        ClassTablesFormat().write(out, said, tuple(known), about)
        found, problems = read(out)
        assert ClassTablesFormat().about(str(out)) == about
    assert problems.counts == {}
    assert [(i.file_name, i.classes, i.relations) for i in found] == [
        (i.file_name, i.classes, i.relations) for i in said
    ]
