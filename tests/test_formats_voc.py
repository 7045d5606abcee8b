"""Pascal VOC: read as published, written so that it reads the same, and damage reported."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistadex.errors import FormatError, SourceError
from vistadex.formats import About, Problems
from vistadex.formats.voc import VocFormat
from vistadex.records import AnnotatedImage, Annotation
from vistadex.testing import MemorySource

NAME = st.text(
    st.characters(blacklist_categories=("Cc", "Cs", "Cn"), blacklist_characters="/."),
    min_size=1,
    max_size=12,
)


def xml(*objects: str, filename: str = "<filename>a.jpg</filename>", size: str = "") -> bytes:
    size = size or "<size><width>200</width><height>100</height><depth>3</depth></size>"
    return f"<annotation>\n{filename}\n{size}\n{''.join(objects)}</annotation>".encode()


def one(box: str, more: str = "", name: str = "<name>dog</name>") -> str:
    return f"<object>{name}{more}<bndbox>{box}</bndbox></object>\n"


def corners(*values: object) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    return "".join(f"<{k}>{v}</{k}>" for k, v in zip(names, values, strict=True))


def read(files: dict[str, bytes]) -> tuple[list[AnnotatedImage], Problems]:
    MemorySource.create("voc", files)
    problems = Problems()
    return list(VocFormat().read("memory://voc", problems)), problems


def only(data: bytes) -> tuple[AnnotatedImage, Problems]:
    images, problems = read({"Annotations/a.xml": data})
    assert len(images) == 1
    return images[0], problems


def test_blood_cells_are_read_but_for_two_boxes_of_one_pixel(shared_data: Path) -> None:
    problems = Problems()
    images = list(VocFormat().read(str(shared_data / "bccd" / "BCCD"), problems))
    counts = Counter(box.class_name for image in images for box in image.boxes or ())
    # Published are 4155 RBC. Two of them are points: xmin = xmax and ymin = ymax.
    assert counts == {"RBC": 4155 - 2, "WBC": 372, "Platelets": 361}
    assert len(images) == 364
    splits = Counter(image.attributes["split"] for image in images)
    assert splits == {"train": 205, "val": 87, "test": 72}
    assert problems.counts == {"bad-box": 2}
    first, second = map(str, problems.first)
    assert "Annotations/BloodImage_00338.xml line 158: 'RBC' at xmin 504 ymin 337" in first
    assert "Annotations/BloodImage_00343.xml line 50: 'RBC' at xmin 181 ymin 329" in second
    first_image = next(image for image in images if image.file_name == "BloodImage_00000.jpg")
    assert (first_image.width, first_image.height) == (640, 480)
    assert first_image.boxes is not None
    assert first_image.boxes[0].box_xyxy == (259, 176, 491, 376)
    assert first_image.boxes[0].flags == {"truncated": False, "difficult": False}
    assert first_image.boxes[0].attributes == {"pose": "Unspecified"}


def test_a_folder_of_files_and_a_single_file_read_alike(shared_data: Path) -> None:
    folder = shared_data / "bccd" / "BCCD" / "Annotations"
    problems = Problems()
    single = list(VocFormat().read(str(folder / "BloodImage_00007.xml"), problems))
    assert [image.file_name for image in single] == ["BloodImage_00007.jpg"]
    whole = list(VocFormat().read(str(folder), problems))
    assert len(whole) == 364
    alike = next(image for image in whole if image.file_name == "BloodImage_00007.jpg")
    assert alike.boxes == single[0].boxes
    assert VocFormat().root(str(folder)) == VocFormat().root(str(folder / "BloodImage_00007.xml"))
    assert VocFormat().root(str(folder)) == str(folder.parent)


def test_a_box_counts_from_one_and_includes_its_last_pixel() -> None:
    image, problems = only(xml(one(corners(1, 1, 200, 100)), one(corners("2.5", 3, "10.5", 4))))
    assert image.boxes is not None
    assert [box.box_xyxy for box in image.boxes] == [(0, 0, 200, 100), (1.5, 2, 10.5, 4)]
    assert not problems.counts


def test_flags_are_kept_where_they_are_stated() -> None:
    flags = "<difficult>1</difficult><occluded>0</occluded><truncated>Unspecified</truncated>"
    image, problems = only(xml(one(corners(1, 1, 5, 5), flags), one(corners(1, 1, 5, 5))))
    assert image.boxes is not None
    assert [box.flags for box in image.boxes] == [{"difficult": True, "occluded": False}, {}]
    image, problems = only(xml(one(corners(1, 1, 5, 5), "<difficult>yes</difficult>")))
    assert image.boxes is not None
    assert image.boxes[0].flags == {}
    assert problems.counts == {"bad-flag": 1}


def test_a_set_that_counts_from_zero_is_clipped_and_said() -> None:
    image, problems = only(xml(one(corners(0, 0, 10, 10)), one(corners(5, 5, 10, 10))))
    assert image.boxes is not None
    assert [box.box_xyxy for box in image.boxes] == [(0, 0, 10, 10), (4, 4, 10, 10)]
    assert problems.counts == {"cut-off": 1}
    assert "if the set counts from 0" in problems.first[0].cure


@pytest.mark.parametrize(
    ("damaged", "kind"),
    [
        (one(corners(10, 10, 5, 20)), "bad-box"),
        (one(corners(10, 20, 15, 10)), "bad-box"),
        (one(corners(-20, 5, 0, 10)), "bad-box"),
        (one(corners(7, 7, 7, 7)), "bad-box"),
        (one(corners("ten", 1, 2, 3)), "bad-box"),
        (one(corners("nan", 1, 2, 3)), "bad-box"),
        (one(corners("1e999", 1, 2, 3)), "bad-box"),
        (one("<xmin>3</xmin>"), "bad-box"),
        ("<object><name>dog</name></object>", "bad-box"),
        (one(corners(1, 1, 5, 5), name=""), "no-class"),
        (one(corners(1, 1, 5, 5), name="<name/>"), "no-class"),
    ],
)
def test_a_damaged_box_is_reported_with_its_line_and_left_out(damaged: str, kind: str) -> None:
    image, problems = only(xml(one(corners(1, 1, 5, 5)), damaged))
    assert image.boxes is not None
    assert len(image.boxes) == 1
    assert problems.counts == {kind: 1}
    assert problems.first[0].place == "memory://voc/Annotations/a.xml line 5"


def test_where_no_box_could_be_used_it_is_not_said_that_there_are_none() -> None:
    assert only(xml(one(corners(7, 7, 7, 7))))[0].boxes is None
    assert only(xml())[0].boxes == ()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "no element found"),
        (b"<annotation><object>", "no element found"),
        (b"<annotation>\n\n<a></b></annotation>", "line 3"),
        (b"<coco/>", "<coco>"),
        (b'<?xml version="1.0" encoding="big5"?><annotation/>', "an encoding"),
        (b'<?xml version="1.0" encoding="none-such"?><annotation/>', "an encoding"),
        (b"<annotation>\xff</annotation>", "not well-formed"),
    ],
)
def test_damaged_xml_is_reported_with_its_line(data: bytes, found: str) -> None:
    images, problems = read({"Annotations/a.xml": data, "Annotations/b.xml": xml()})
    assert len(images) == 1
    assert problems.counts == {"bad-xml": 1}
    assert "memory://voc/Annotations/a.xml line " in problems.first[0].place
    assert found in str(problems.first[0])


def test_document_types_are_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    bomb = b'<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + xml(one("&b;"))
    outside = f'<!DOCTYPE a [<!ENTITY a SYSTEM "file://{tmp_path}/secret">]>'.encode() + xml()
    images, problems = read({"a.xml": bomb, "b.xml": outside})
    assert images == []
    assert problems.counts == {"bad-xml": 2}
    assert all("a document type" in problem.found for problem in problems.first)


@pytest.mark.parametrize(
    "filename",
    [
        "",
        "<filename/>",
        "<filename>a</filename>",
        "<filename>../a.jpg</filename>",
        "<filename>/home/a.jpg</filename>",
    ],
)
def test_a_file_that_names_no_picture_is_reported(filename: str) -> None:
    images, problems = read({"Annotations/a.xml": xml(filename=filename)})
    assert images == []
    assert problems.counts == {"bad-name": 1}


def test_the_stated_file_name_counts_and_subfolders_mirror_each_other() -> None:
    images, _ = read(
        {
            "Annotations/a.xml": xml(filename="<filename>other.png</filename>"),
            "Annotations/sub/b.xml": xml(filename="<filename>b.jpg</filename>"),
            "Annotations/sub/c.xml": xml(filename="<filename>top/c.jpg</filename>"),
            "Annotations/readme.txt": b"",
        }
    )
    assert [image.file_name for image in images] == ["other.png", "sub/b.jpg", "top/c.jpg"]


def test_lists_give_splits_and_their_damage_is_reported() -> None:
    images, problems = read(
        {
            **{f"Annotations/{name}.xml": xml() for name in "abcd"},
            "ImageSets/Main/train.txt": b"a\r\n\ngone\n\xff\n",
            "ImageSets/Main/val.txt": b"b\na\n",
            "ImageSets/Main/trainval.txt": b"a\nb\nc",
            "ImageSets/Main/dog_train.txt": b"d 1\n",
        }
    )
    assert [image.attributes.get("split") for image in images] == ["train", "val", "trainval", None]
    assert problems.counts == {"split-twice": 1, "no-annotations": 1, "bad-line": 1}
    places = {problem.kind: problem.place.rpartition("/")[2] for problem in problems.first}
    assert places["split-twice"] == "val.txt line 2"
    assert places["no-annotations"] == "train.txt line 3"
    assert places["bad-line"] == "train.txt line 4"


def test_an_unknown_size_is_none_and_a_bad_one_is_reported() -> None:
    image, problems = only(xml(size="<size><width>0</width><height></height></size>"))
    assert (image.width, image.height, problems.counts) == (None, None, {})
    image, problems = only(xml(size="<size><width>-4</width><height>ten</height></size>"))
    assert (image.width, image.height) == (None, None)
    assert problems.counts == {"bad-size": 2}


def test_what_is_not_kept_is_counted() -> None:
    part = "<part><name>head</name></part><actions/><score>3</score>"
    _, problems = only(xml(one(corners(1, 1, 5, 5), part), one(corners(1, 1, 5, 5), part)))
    assert problems.losses == {"parts of objects": 2, "actions": 2, "other elements of objects": 2}


def test_a_set_without_files_is_an_error() -> None:
    with pytest.raises(FormatError, match=r"memory://voc: no \.xml files"):
        read({"JPEGImages/a.jpg": b"x"})


def test_every_problem_is_in_the_report(tmp_path: Path) -> None:
    MemorySource.create("voc", {f"{i:02}.xml": b"<" for i in range(30)})
    report = tmp_path / "report.jsonl"
    with Problems(report) as problems:
        assert list(VocFormat().read("memory://voc", problems)) == []
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert len(rows) == problems.counts["bad-xml"] == 30
    assert rows[29]["place"] == "memory://voc/29.xml line 1"
    assert all(row["found"] and row["expected"] and row["cure"] for row in rows)


@st.composite
def annotated(draw: st.DrawFn) -> list[AnnotatedImage]:
    names = draw(st.lists(st.lists(NAME, min_size=1, max_size=3), min_size=1, max_size=4))
    stems = {"/".join(parts) for parts in names}
    images = []
    for stem in sorted(stems):
        width, height = draw(st.integers(1, 20_000)), draw(st.integers(1, 20_000))
        boxes = []
        for _ in range(draw(st.integers(0, 3))):
            fractions = [draw(st.floats(0, 1)) for _ in range(4)]
            x0, x1 = sorted(round(width * one, 3) for one in fractions[:2])
            y0, y1 = sorted(round(height * one, 3) for one in fractions[2:])
            if x1 - x0 > 0.001 and y1 - y0 > 0.001 and (x1 - x0 != 1 or y1 - y0 != 1):
                flags = draw(st.dictionaries(st.sampled_from(["difficult", "occluded"]), _BOOL))
                pose = draw(st.sampled_from([{}, {"pose": "Left & <up>"}]))
                boxes.append(Annotation(draw(NAME), (x0, y0, x1, y1), flags=flags, attributes=pose))
        split = draw(st.sampled_from([{}, {"split": "train"}, {"split": "test"}]))
        images.append(
            AnnotatedImage(
                file_name=f"{stem}.jpg",
                place="",
                width=width,
                height=height,
                boxes=tuple(boxes),
                attributes=split,
            )
        )
    return images


_BOOL = st.booleans()


@given(annotated())
@settings(max_examples=60, deadline=None)
def test_what_is_written_reads_the_same(images: list[AnnotatedImage]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        VocFormat().write(out, images, (), About())
        problems = Problems()
        again = {image.file_name: image for image in VocFormat().read(str(out), problems)}
    assert problems.counts == {}
    assert set(again) == {image.file_name for image in images}
    for image in images:
        found = again[image.file_name]
        assert (found.width, found.height) == (image.width, image.height)
        assert found.attributes == image.attributes
        assert found.boxes is not None
        assert image.boxes is not None
        for box, other in zip(image.boxes, found.boxes, strict=True):
            assert other.box_xyxy == pytest.approx(box.box_xyxy, abs=1e-6)
            assert (other.class_name, other.flags) == (box.class_name, box.flags)
            assert other.attributes == box.attributes


def test_blood_cells_come_back_as_they_were(shared_data: Path, tmp_path: Path) -> None:
    def rows(path: Path) -> list[object]:
        images = VocFormat().read(str(path), Problems())
        return [(i.file_name, i.width, i.height, i.boxes, i.attributes) for i in images]

    published = shared_data / "bccd" / "BCCD"
    images = VocFormat().read(str(published), Problems())
    VocFormat().write(tmp_path / "out", images, ("Platelets", "RBC", "WBC"), About())
    assert rows(tmp_path / "out") == rows(published)


def picture(name: str, **more: object) -> AnnotatedImage:
    values: dict[str, object] = {"boxes": (), "width": 10, "height": 10, **more}
    return AnnotatedImage(file_name=name, place="", **values)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (picture("../a.jpg"), "can't be a file below a folder"),
        (picture("a//b.jpg"), "can't be a file below a folder"),
        (picture("a\nb.jpg"), "can't be a file below a folder"),
        (picture("photo"), "no picture's extension"),
        (picture("a.jpg", boxes=None), "nothing is said of boxes"),
        (picture("a.jpg", attributes={"split": "later"}), "split 'later'"),
        (picture("a.jpg", attributes={"split": 3}), "split '3'"),
        (picture("a.jpg", boxes=(Annotation("\x01", (0, 0, 5, 5)),)), "which XML can't hold"),
        (picture("a.jpg", width=None, boxes=(Annotation("a", (0, 0, 5, 5)),)), "size is unknown"),
    ],
)
def test_what_can_not_be_written_is_an_error(
    image: AnnotatedImage, why: str, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match=why):
        VocFormat().write(tmp_path / "out", [image], (), About())


def test_two_pictures_for_one_file_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"Annotations/a.xml: two pictures would share this file"):
        VocFormat().write(tmp_path / "out", [picture("a.jpg"), picture("a.png")], (), About())


def test_boxes_are_cut_off_at_the_edges_when_written(tmp_path: Path) -> None:
    boxes = (Annotation("a", (-3, 5, 20, 9)), Annotation("b", (20, 20, 30, 30)))
    VocFormat().write(tmp_path / "out", [picture("a.jpg", boxes=boxes)], (), About())
    (image,) = VocFormat().read(str(tmp_path / "out"), Problems())
    assert image.boxes == (Annotation("a", (0, 5, 10, 9)),)


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "none.xml"):
        with pytest.raises(SourceError, match=str(path)):
            list(VocFormat().read(str(path), Problems()))
