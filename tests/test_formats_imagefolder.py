"""Image folders: classes from folders and metadata, damage with its line, and round trips."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistadex.errors import FormatError, SourceError
from vistadex.formats import About, Problems
from vistadex.formats.imagefolder import ImageFolderFormat
from vistadex.records import AnnotatedImage, Json
from vistadex.testing import MemorySource

NAME = st.text(
    st.characters(blacklist_categories=("Cc", "Cs", "Cn"), blacklist_characters="/."),
    min_size=1,
    max_size=12,
)


def read(files: dict[str, bytes]) -> tuple[dict[str, AnnotatedImage], Problems]:
    MemorySource.create("folder", files)
    problems = Problems()
    images = list(ImageFolderFormat().read("memory://folder", problems))
    assert all(image.boxes is None for image in images)
    return {image.file_name: image for image in images}, problems


def classes(images: dict[str, AnnotatedImage]) -> dict[str, tuple[str, ...] | None]:
    return {name: image.classes for name, image in images.items()}


def test_the_first_folder_is_the_class() -> None:
    images, problems = read({"big dog/a.JPG": b"x", "cat/sub/b.png": b"x", "cat/notes.txt": b"x"})
    assert classes(images) == {"big dog/a.JPG": ("big dog",), "cat/sub/b.png": ("cat",)}
    assert all(image.attributes == {} for image in images.values())
    assert not problems.counts


def test_folders_named_after_splits_hold_those_of_the_classes() -> None:
    images, problems = read({"train/dog/a.jpg": b"x", "valid/cat/b.jpg": b"x", "readme.md": b""})
    assert classes(images) == {"train/dog/a.jpg": ("dog",), "valid/cat/b.jpg": ("cat",)}
    splits = [image.attributes for image in images.values()]
    assert splits == [{"split": "train"}, {"split": "val"}]
    assert not problems.counts


def test_a_folder_of_another_name_makes_all_of_them_classes() -> None:
    images, _ = read({"train/a.jpg": b"x", "plane/b.jpg": b"x"})
    assert classes(images) == {"train/a.jpg": ("train",), "plane/b.jpg": ("plane",)}


def test_a_picture_in_no_folder_is_reported() -> None:
    images, problems = read({"a.jpg": b"x", "dog/b.jpg": b"x"})
    assert list(images) == ["dog/b.jpg"]
    assert problems.counts == {"no-class": 1}
    assert problems.first[0].place == "memory://folder/a.jpg"
    images, problems = read({"train/a.jpg": b"x", "train/dog/b.jpg": b"x"})
    assert list(images) == ["train/dog/b.jpg"]
    assert problems.counts == {"no-class": 1}


def test_columns_of_csv_become_attributes() -> None:
    table = '\ufefffile_name,text,lens\r\ndog/a.jpg,"one,\ntwo",50\r\n./b.jpg,,35\r\n'
    images, problems = read({"metadata.csv": table.encode(), "dog/a.jpg": b"x", "b.jpg": b"x"})
    assert images["dog/a.jpg"].attributes == {"text": "one,\ntwo", "lens": "50"}
    assert images["b.jpg"].attributes == {"lens": "35"}
    assert classes(images) == {"dog/a.jpg": ("dog",), "b.jpg": None}
    assert not problems.counts


def test_values_of_jsonl_keep_their_types() -> None:
    row: dict[str, Json] = {"file_name": "dog/a.jpg", "n": 3, "more": {"x": [1.5, None, True]}}
    lines = f"{json.dumps(row)}\n\n".encode()
    images, problems = read({"train/metadata.jsonl": lines, "train/dog/a.jpg": b"x"})
    (image,) = images.values()
    assert image.attributes == {"n": 3, "more": {"x": [1.5, None, True]}, "split": "train"}
    assert not problems.counts


def test_labels_name_classes_where_they_do_not_contradict_the_folder() -> None:
    rows: list[dict[str, Json]] = [
        {"file_name": "dog/a.jpg", "label": "dog"},
        {"file_name": "dog/b.jpg", "label": "dog", "labels": ["dog", "pet", "dog"]},
        {"file_name": "dog/c.jpg", "label": "cat"},
        {"file_name": "dog/d.jpg", "label": 3},
        {"file_name": "dog/e.jpg", "label": "3"},
        {"file_name": "f.jpg", "label": "bird"},
        {"file_name": "g.jpg", "labels": ["bird", 3]},
    ]
    files = {str(row["file_name"]): b"x" for row in rows}
    lines = "\n".join(map(json.dumps, rows)).encode()
    images, problems = read({**files, "metadata.jsonl": lines})
    assert classes(images) == {
        "dog/a.jpg": ("dog",),
        "dog/b.jpg": ("dog", "pet"),
        "dog/c.jpg": None,
        "dog/d.jpg": ("dog",),
        "dog/e.jpg": ("dog",),
        "f.jpg": ("bird",),
        "g.jpg": None,
    }
    assert images["dog/b.jpg"].attributes == {}
    assert images["dog/c.jpg"].attributes == {"label": "cat"}
    assert images["dog/d.jpg"].attributes == {"label": 3}
    assert images["g.jpg"].attributes == {"labels": ["bird", 3]}
    assert problems.counts == {"class-conflict": 1}


@pytest.mark.parametrize(
    ("name", "data", "line", "found"),
    [
        ("metadata.csv", b"file_name,a\ndog/a.jpg,1\ndog/b.jpg", 3, "1 cells"),
        ("metadata.csv", b"file_name,a\ndog/a.jpg,1\ndog/b.jpg,2,3", 3, "3 cells"),
        ("metadata.csv", b"file_name,a\ndog/a.jpg,1\n,2", 3, "no file_name"),
        ("metadata.csv", b"file_name,a\ndog/a.jpg,1\ndog/a.jpg,2", 3, "'dog/a.jpg' again"),
        ("metadata.csv", b"file_name,a\ndog/a.jpg,1\n\xff,2", 3, "text that is not Unicode"),
        ("metadata.csv", b"file_name,a\ndog/a.jpg,1\nx\ry,2", 3, "new-line character"),
        ("metadata.csv", b"file_name,a\ndog/a.jpg,1\n" + b"x" * 200_000, 3, "field larger"),
        ("metadata.csv", b"name,a\ndog/a.jpg,1", 1, "the columns 'name, a'"),
        ("metadata.csv", b"file_name,a,a\ndog/a.jpg,1,2", 1, "the columns 'file_name, a, a'"),
        ("metadata.jsonl", b'{"file_name": "dog/a.jpg"}\n{"file_name"', 2, "no JSON"),
        ("metadata.jsonl", b'{"file_name": "dog/a.jpg"}\n[1]', 2, "no file_name"),
        ("metadata.jsonl", b'{"file_name": "dog/a.jpg"}\n{"file_name": 3}', 2, "no file_name"),
        ("metadata.jsonl", b'{"file_name": "b.jpg", "a": NaN}', 1, "NaN is no JSON"),
        ("metadata.jsonl", b'{"file_name": "b.jpg", "a": 1e999}', 1, "a number that is none"),
        ("metadata.jsonl", b'{"file_name": "b.jpg", "a": "\\ud800"}', 1, "text that is not"),
        ("metadata.jsonl", b"\xff", 1, "text that is not UTF-8"),
        ("metadata.jsonl", b"[" * 100_000, 1, "no JSON"),
    ],
)
def test_a_damaged_line_is_reported_and_left_out(
    name: str, data: bytes, line: int, found: str
) -> None:
    images, problems = read({name: data, "dog/a.jpg": b"x"})
    assert classes(images) == {"dog/a.jpg": ("dog",)}
    assert problems.counts == {"bad-metadata": 1}
    assert problems.first[0].place == f"memory://folder/{name} line {line}"
    assert found in problems.first[0].found
    assert problems.first[0].expected
    assert problems.first[0].cure


def test_a_described_picture_that_is_not_there_is_reported() -> None:
    table = b"file_name,a\ngone.jpg,1\ndog/a.jpg,2"
    images, problems = read({"metadata.csv": table, "dog/a.jpg": b"x"})
    assert images["dog/a.jpg"].attributes == {"a": "2"}
    assert problems.counts == {"no-picture": 1}
    assert problems.first[0].place == "memory://folder/metadata.csv line 2"


def test_metadata_elsewhere_is_reported_and_not_read() -> None:
    files = {"dog/metadata.csv": b"file_name", "metadata.parquet": b"PAR1", "dog/a.jpg": b"x"}
    images, problems = read(files)
    assert list(images) == ["dog/a.jpg"]
    assert problems.counts == {"bad-metadata": 2}


def test_a_folder_without_pictures_is_an_error() -> None:
    with pytest.raises(FormatError, match="memory://folder: no pictures"):
        read({"dog/a.txt": b"x"})


def test_real_pictures_read_from_a_folder(shared_data: Path) -> None:
    problems = Problems()
    images = list(ImageFolderFormat().read(str(shared_data / "coco" / "images"), problems))
    # Folders named train, val and unlabelled: not all are splits, so they are classes.
    assert {image.classes for image in images} == {("train",), ("val",), ("unlabelled",)}
    assert not problems.counts


def picture(name: str, *names: str, **attributes: Json) -> AnnotatedImage:
    return AnnotatedImage(file_name=name, place="", classes=names, attributes=attributes)


def test_a_set_written_again_keeps_its_names() -> None:
    image = picture("val/dog/a.jpg", "dog", split="val")
    assert ImageFolderFormat().picture_path(image) == "val/dog/a.jpg"


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (picture("../a.jpg", "dog"), "can't be a file below a folder"),
        (picture("photo", "dog"), "no picture's extension"),
        (picture("a.jpg"), "has no class of the whole image"),
        (picture("a.jpg", "a/b"), "the class 'a/b' can't be the name of a folder"),
        (picture("a.jpg", ".."), r"the class '\.\.' can't be the name of a folder"),
        (picture("a.jpg", "dog", split="later"), "split 'later'"),
        (picture("a.jpg", "dog", x=float("nan")), "can't be written as JSON"),
        (picture("a.jpg", "dog", x="\ud800"), "surrogates not allowed"),
    ],
)
def test_what_can_not_be_written_is_an_error(
    image: AnnotatedImage, why: str, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match=why):
        ImageFolderFormat().write(tmp_path / "out", [image], ("dog",), About())


def test_two_pictures_of_one_name_are_an_error(tmp_path: Path) -> None:
    images = [picture("a.jpg", "dog"), picture("train/dog/a.jpg", "dog")]
    with pytest.raises(FormatError, match=r"train/dog/a\.jpg: two pictures would have this name"):
        ImageFolderFormat().write(tmp_path / "out", images, ("dog",), About())


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | NAME,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAME, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def annotated(draw: st.DrawFn) -> list[AnnotatedImage]:
    stems = draw(st.lists(st.lists(NAME, min_size=1, max_size=3), min_size=1, max_size=4))
    images = []
    for stem in sorted({"/".join(parts) for parts in stems}):
        attributes: dict[str, Json] = draw(st.dictionaries(NAME, _VALUES, max_size=2))
        for reserved in ("label", "labels", "file_name"):
            attributes.pop(reserved, None)
        attributes["split"] = draw(st.sampled_from(["train", "val", "test"]))
        names = tuple(draw(st.lists(NAME, min_size=1, max_size=3, unique=True)))
        images.append(picture(f"{stem}.jpg", *names, **attributes))
    return images


@given(annotated())
@settings(max_examples=60, deadline=None)
def test_what_is_written_reads_the_same(images: list[AnnotatedImage]) -> None:
    form = ImageFolderFormat()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        form.write(out, images, (), About())
        for image in images:
            path = out / form.picture_path(image)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        problems = Problems()
        again = {image.file_name: image for image in form.read(str(out), problems)}
    assert problems.counts == {}
    assert set(again) == {form.picture_path(image) for image in images}
    for image in images:
        found = again[form.picture_path(image)]
        assert (found.classes, found.attributes) == (image.classes, image.attributes)


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=str(tmp_path / "none")):
        list(ImageFolderFormat().read(str(tmp_path / "none"), Problems()))
