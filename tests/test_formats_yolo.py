"""YOLO data sets: layouts as they are published, damage with its line, and round trips."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistadex.errors import FormatError, SourceError
from vistadex.formats import About, Problems
from vistadex.formats.yolo import YoloFormat, label_key, numbered
from vistadex.records import AnnotatedImage, Annotation, Failure, ImageEntry
from vistadex.sources import SCHEMES
from vistadex.testing import MemorySource

YAML = b"train: images/train\nval: images/val\nnames: [cat, dog]\n"
NAME = st.text(
    st.characters(blacklist_categories=("Cc", "Cs", "Cn"), blacklist_characters="/."),
    min_size=1,
    max_size=12,
)


def read(files: dict[str, bytes], path: str = "") -> tuple[list[AnnotatedImage], Problems]:
    MemorySource.create("yolo", files)
    problems = Problems()
    return list(YoloFormat().read(f"memory://yolo{path}", problems)), problems


def tree(labels: bytes | None, data: bytes = YAML) -> dict[str, bytes]:
    files = {"data.yaml": data, "images/train/a.jpg": b"x", "images/val/b.jpg": b"x"}
    return files if labels is None else {**files, "labels/train/a.txt": labels}


def boxes_of(labels: bytes, data: bytes = YAML) -> tuple[tuple[Annotation, ...] | None, Problems]:
    images, problems = read(tree(labels, data))
    assert [image.file_name for image in images] == ["images/train/a.jpg", "images/val/b.jpg"]
    assert all(image.relative for image in images)
    return images[0].boxes, problems


def test_a_box_is_a_center_and_a_size_as_fractions() -> None:
    boxes, problems = boxes_of(b"1 0.5 0.5 0.5 0.25\r\n0 .25 0.5 5e-1 1 0.75")
    assert boxes == (
        Annotation("dog", (0.25, 0.375, 0.75, 0.625)),
        Annotation("cat", (0, 0, 0.5, 1), score=0.75),
    )
    assert not problems.counts


def test_no_labels_and_an_empty_file_mean_no_boxes() -> None:
    images, problems = read({**tree(b"\n \n")})
    assert [image.boxes for image in images] == [(), ()]
    assert [image.attributes for image in images] == [{"split": "train"}, {"split": "val"}]
    assert not problems.counts


def test_a_polygon_becomes_its_box_and_is_counted() -> None:
    boxes, problems = boxes_of(b"0 0.1 0.2 0.5 0.3 0.4 0.9\n0 0 0 1 0 1 1 0 1")
    assert boxes is not None
    assert [box.box_xyxy for box in boxes] == [(0.1, 0.2, 0.5, 0.9), (0, 0, 1, 1)]
    assert problems.losses == {"polygons: kept as their boxes": 2}


def test_keypoints_are_told_from_polygons_by_kpt_shape() -> None:
    data = YAML + b"kpt_shape: [2, 3]\n"
    boxes, problems = boxes_of(b"0 0.5 0.5 1 1 0 0 2 9 9 0\n0 0.5 0.5 1 1\n", data)
    assert boxes == (Annotation("cat", (0, 0, 1, 1)),)
    assert problems.losses == {"keypoints": 1}
    assert problems.first[0].expected.startswith("11 (class")


@pytest.mark.parametrize(
    ("line", "kind", "found"),
    [
        (b"0 0.5 0.5 0.5", "bad-line", "4 fields"),
        (b"0 0.5 0.5 0.5 0.5 0.5 0.5 0.5", "bad-line", "8 fields"),
        (b"0,0.5,0.5,0.5,0.5", "bad-line", "1 fields"),
        (b"0 0.5 0.5 0.5 nan", "bad-line", "'nan'"),
        (b"0 0.5 0.5 0.5 inf", "bad-line", "'inf'"),
        (b"0 0.5 0.5 0.5 0_1", "bad-line", "'0_1'"),
        (b"dog 0.5 0.5 0.5 0.5", "bad-line", "'dog'"),
        (b"\xff\xfe 0.5 0.5 0.5 0.5", "bad-line", r"\\xff\\xfe"),
        (b"2 0.5 0.5 0.5 0.5", "unknown-class", "the class 2"),
        (b"-1 0.5 0.5 0.5 0.5", "unknown-class", "the class -1"),
        (b"0.5 0.5 0.5 0.5 0.5", "unknown-class", "the class 0.5"),
        (b"0 320 240 50 50", "bad-box", "320 in"),
        (b"0 0.5 0.5 1.01 0.5", "bad-box", "1.01 in"),
        (b"0 -0.5 0.5 0.5 0.5", "bad-box", "-0.5 in"),
        (b"0 0.5 0.5 0.5 0.5 1.5", "bad-box", "1.5 in"),
        (b"0 0.5 0.5 0 0.5", "bad-box", "0 0.5 0.5 0 0.5"),
        (b"0 0.1 0.1 0.1 0.2 0.1 0.3", "bad-box", "0.1 0.1 0.1"),
    ],
)
def test_a_damaged_line_is_reported_and_left_out(line: bytes, kind: str, found: str) -> None:
    boxes, problems = boxes_of(b"0 0.5 0.5 0.5 0.5\n\n" + line + b"\n")
    assert boxes is not None
    assert len(boxes) == 1
    assert problems.counts == {kind: 1}
    assert problems.first[0].place == "memory://yolo/labels/train/a.txt line 3"
    assert found in problems.first[0].found
    assert problems.first[0].expected
    assert problems.first[0].cure


def test_where_no_line_could_be_used_it_is_not_said_that_there_are_no_boxes() -> None:
    boxes, problems = boxes_of(b"5 0.5 0.5 0.5 0.5\n")
    assert boxes is None
    assert problems.counts == {"unknown-class": 1}


def test_rounding_beyond_the_edge_counts_as_the_edge() -> None:
    boxes, problems = boxes_of(b"0 0.5 0.5 1.00005 1\n")
    assert boxes is not None
    assert boxes[0].box_xyxy == (0, 0, 1, 1)
    assert not problems.counts


def test_labels_without_a_picture_are_reported() -> None:
    files = tree(b"") | {
        "labels/train/gone.txt": b"0 0.5 0.5 0.5 0.5",
        "labels/train/classes.txt": b"cat\ndog",
        "labels/other/c.txt": b"",
    }
    _, problems = read(files)
    assert problems.counts == {"no-picture": 1}
    assert problems.first[0].place == "memory://yolo/labels/train/gone.txt"


@pytest.mark.parametrize(
    "data",
    [
        b"names: {0: cat, 1: dog}\ntrain: images/train\nval: images/val",
        b"\xef\xbb\xbfnc: 2\nnames:\n- cat\n- dog\ntrain: ['images/train']\nvalidation: images/val",
        b"path: ../elsewhere/coco\ntrain: images/train\nval: images/val\ntest:\nnames: [cat, dog]",
        b"path: /home/me/set\ntrain: ./images/train/\nvalid: images/val\nnames: [cat, dog]",
        b"train: ../images/train\nval: ../images/val\nnames: [cat, dog]",
        b"path: images\ntrain: train\nval: val\nnames: [cat, dog]",
    ],
)
def test_published_ways_to_write_data_yaml_read_alike(data: bytes) -> None:
    images, problems = read(tree(b"1 0.5 0.5 1 1", data))
    assert [(image.file_name, image.attributes["split"]) for image in images] == [
        ("images/train/a.jpg", "train"),
        ("images/val/b.jpg", "val"),
    ]
    assert images[0].boxes == (Annotation("dog", (0, 0, 1, 1)),)
    assert not problems.counts


def test_names_that_look_like_other_values_stay_text() -> None:
    data = YAML.replace(b"[cat, dog]", b"[no, 007, null]")
    boxes, _ = boxes_of(b"0 .5 .5 1 1\n1 .5 .5 1 1\n2 .5 .5 1 1", data)
    assert boxes is not None
    assert [box.class_name for box in boxes] == ["no", "007", "null"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty, expected `names:`"),
        (b"- a\n- b", "line 1: a sequence, expected keys"),
        (b"train: images/train\n", "no `names:`"),
        (b"names: [a]\n", "names no train, val or test"),
        (b"nc: 3\nnames: [a]\ntrain: images", "line 1: nc 3 and 1 names, expected as many"),
        (b"names: [a, [b]]\ntrain: images", "line 1: a sequence, expected a class name"),
        (b"names: {a: b}\ntrain: images", "line 1: 'a', expected a whole number"),
        (b"names: {0: b, 0: c}\ntrain: images", "line 1: the number 0 again"),
        (b"names: a\ntrain: images", "line 1: a scalar, expected class names"),
        (b"names: ['']\ntrain: images", "line 1: '', expected a class name"),
        (b'names: ["\\ud800"]\ntrain: images', "expected a class name"),
        (b"names: [a]\n? [x]\n: y", "line 2: a sequence, expected a plain key"),
        (b"names: [a]\n\ntrain: [images\n", "line 4: "),
        (b"names: [a]\ntrain: \xff\xfe\xff", "expected YAML"),
        (b"names: [a]\nval: photos", "line 2: 'photos' is not below memory://yolo"),
        (b"names: [a]\nval: ../../etc", "line 2: '../../etc' is not below"),
        (b"names: [a]\nkpt_shape: 17\ntrain: images", "line 2: a kpt_shape, expected two"),
        (b"[" * 5000, "expected YAML"),
        (b"names: *x", "line 1: found undefined alias"),
        (b"--- a\n--- b\n", "line 2: but found another document"),
        (b"names: !!python/object/apply:os.system [ls]\n", "names no train"),
    ],
)
def test_a_data_yaml_that_can_not_be_used_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(FormatError) as raised:
        read(tree(None, data))
    assert "memory://yolo/data.yaml" in str(raised.value)
    assert message in str(raised.value)


def test_the_yaml_file_may_have_any_name_if_it_is_the_only_one() -> None:
    files = tree(b"")
    files["set.yml"] = files.pop("data.yaml")
    assert len(read(files)[0]) == 2
    assert len(read(files, "/set.yml")[0]) == 2
    assert YoloFormat().root("memory://yolo/set.yml") == "memory://yolo"
    with pytest.raises(FormatError, match="2 YAML files"):
        read({**files, "b.yaml": b""})


def test_a_list_of_classes_stands_in_for_data_yaml() -> None:
    files = {
        "classes.txt": b"cat\r\ndog\r\n\r\n",
        "images/a.jpg": b"x",
        "labels/a.txt": b"1 .5 .5 1 1",
    }
    images, problems = read(files)
    assert [image.boxes for image in images] == [(Annotation("dog", (0, 0, 1, 1)),)]
    assert images[0].attributes == {}
    assert not problems.counts
    files["labels/classes.txt"] = files.pop("classes.txt")
    assert read(files)[0] == images
    beside = {"classes.txt": b"cat", "a.jpg": b"x", "a.txt": b"0 .5 .5 1 1"}
    assert read(beside)[0][0].boxes == (Annotation("cat", (0, 0, 1, 1)),)
    with pytest.raises(FormatError, match=r"classes\.txt line 2: is empty"):
        read({**files, "classes.txt": b"cat\n\ndog"})
    with pytest.raises(FormatError, match=r"classes\.txt: is not UTF-8"):
        read({**files, "classes.txt": b"\xff"})
    with pytest.raises(FormatError, match=r"memory://yolo: neither data\.yaml nor classes\.txt"):
        read({"images/a.jpg": b"x"})


def test_splits_may_be_lists_of_pictures() -> None:
    files = {
        "data.yaml": b"train: [lists/train.txt]\nval: lists/val.txt\nnames: [cat]",
        "lists/train.txt": b"./images/a.jpg\n\nimages/b.jpg\nmemory://yolo/images/c.jpg\n/x/d.jpg\n",
        "lists/val.txt": b"../images/d.jpg\nimages/b.jpg\n\xff",
        "labels/b.txt": b"0 .5 .5 1 1",
        **{f"images/{name}.jpg": b"x" for name in "abcd"},
    }
    images, problems = read(files)
    found = [(image.file_name[7], image.attributes["split"]) for image in images]
    assert found == [("a", "train"), ("b", "train"), ("c", "train"), ("d", "val")]
    assert images[1].boxes == (Annotation("cat", (0, 0, 1, 1)),)
    assert problems.counts == {"no-picture": 2, "split-twice": 1}
    places = [problem.place.removeprefix("memory://yolo/lists/") for problem in problems.first]
    assert places == ["train.txt line 5", "val.txt line 2", "val.txt line 3"]


def test_a_picture_of_two_splits_counts_for_the_first() -> None:
    data = b"train: images/train\nval: images/train\nnames: [cat]"
    images, problems = read(tree(None, data))
    assert [image.attributes for image in images] == [{"split": "train"}]
    assert problems.counts == {"split-twice": 1}
    assert problems.first[0].place == "memory://yolo/data.yaml line 2"


def test_one_name_of_two_numbers_is_reported() -> None:
    _, problems = boxes_of(b"1 .5 .5 1 1", YAML.replace(b"cat", b"dog"))
    assert problems.counts == {"same-class": 1}
    MemorySource.create("yolo", tree(None))
    assert YoloFormat().about("memory://yolo").category_ids == {"cat": 1, "dog": 2}


class BrokenSource(MemorySource):
    """An archive that breaks off, and a folder that can't be listed."""

    def pages(self, after: str | None = None):
        self.partial = True
        yield from super().pages(after)


class LockedSource(MemorySource):
    """A source with a folder of labels that can't be listed."""

    def pages(self, after: str | None = None):
        for page in super().pages(after):
            locked = ImageEntry("labels/train/", 0, "", Failure("unreadable", "permission denied"))
            yield [*page, locked]


@pytest.mark.parametrize(
    ("source", "kind"), [(BrokenSource, "partial"), (LockedSource, "unreadable")]
)
def test_labels_that_may_only_be_unlisted_do_not_mean_no_boxes(
    source: type[MemorySource], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCHEMES, "memory", f"{__name__}:{source.__name__}")
    images, problems = read(tree(None))
    assert images[0].boxes is None
    assert problems.counts == {kind: 1}


def test_labels_lie_where_the_last_images_of_a_path_is() -> None:
    assert label_key("images/train/a.b.jpg") == "labels/train/a.b.txt"
    assert label_key("images/x/images/a.jpg") == "images/x/labels/a.txt"
    assert label_key("myimages/a.jpg") == "myimages/a.txt"
    assert label_key("a.jpg") == "a.txt"


def test_classes_keep_their_numbers() -> None:
    assert numbered(("b", "a"), {}) == ["a", "b"]
    assert numbered(("a",), {"b": 1, "a": 2, "c": 3}) == ["b", "a", "c"]
    assert numbered(("a", "b", "new"), {"b": 3, "a": 90, "unused": 1}) == ["b", "a", "new"]
    assert numbered(("a", "new"), {"b": 1, "a": 2}) == ["b", "a", "new"]


@st.composite
def annotated(draw: st.DrawFn) -> list[AnnotatedImage]:
    stems = draw(st.lists(st.lists(NAME, min_size=1, max_size=3), min_size=1, max_size=4))
    images = []
    for stem in sorted({"/".join(parts) for parts in stems}):
        width, height = draw(st.integers(1, 20_000)), draw(st.integers(1, 20_000))
        boxes = []
        for _ in range(draw(st.integers(0, 3))):
            fractions = [draw(st.floats(0, 1)) for _ in range(4)]
            x0, x1 = sorted(width * one for one in fractions[:2])
            y0, y1 = sorted(height * one for one in fractions[2:])
            if x1 - x0 > 0.001 and y1 - y0 > 0.001:
                boxes.append(Annotation(draw(NAME), (x0, y0, x1, y1)))
        split = draw(st.sampled_from(["train", "val", "test"]))
        images.append(
            AnnotatedImage(
                file_name=f"{stem}.jpg",
                place="",
                width=width,
                height=height,
                boxes=tuple(boxes),
                attributes={"split": split},
            )
        )
    return images


def put(out: Path, name: str) -> None:
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_bytes(b"x")


@given(annotated())
@settings(max_examples=60, deadline=None)
def test_what_is_written_reads_the_same(images: list[AnnotatedImage]) -> None:
    yolo = YoloFormat()
    names = sorted({box.class_name for image in images for box in image.boxes or ()}) or ["a"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        yolo.write(out, images, tuple(names), About())
        for image in images:
            put(out, yolo.picture_path(image))
        problems = Problems()
        again = {image.file_name: image for image in yolo.read(str(out), problems)}
    assert problems.counts == {}
    assert set(again) == {yolo.picture_path(image) for image in images}
    for image in images:
        found = again[yolo.picture_path(image)]
        assert found.attributes == image.attributes
        assert found.boxes is not None
        assert image.boxes is not None
        assert image.width is not None
        assert image.height is not None
        for box, other in zip(image.boxes, found.boxes, strict=True):
            sides = (image.width, image.height) * 2
            pixels = [one * side for one, side in zip(other.box_xyxy, sides, strict=True)]
            assert pixels == pytest.approx(box.box_xyxy, abs=1e-6)
            assert other.class_name == box.class_name


def picture(name: str, **more: object) -> AnnotatedImage:
    values: dict[str, object] = {"boxes": (), "width": 10, "height": 10, **more}
    return AnnotatedImage(file_name=name, place="", **values)


def test_a_set_written_again_keeps_its_names_and_numbers(tmp_path: Path) -> None:
    yolo = YoloFormat()
    boxes = (Annotation("dog", (0, 0, 5, 5)),)
    image = picture("images/val/a.jpg", boxes=boxes, attributes={"split": "val"})
    assert yolo.picture_path(image) == "images/val/a.jpg"
    yolo.write(tmp_path / "out", [image], ("dog",), About(category_ids={"zebra": 1, "dog": 2}))
    text = (tmp_path / "out" / "labels" / "val" / "a.txt").read_text()
    assert text == "1 0.25 0.25 0.5 0.5\n"
    data = (tmp_path / "out" / "data.yaml").read_text()
    assert data == "val: images/val\nnc: 2\nnames:\n  0: zebra\n  1: dog\n"


def test_folders_named_images_are_read_back(tmp_path: Path) -> None:
    yolo = YoloFormat()
    boxes = (Annotation("dog", (0, 0, 5, 5)),)
    yolo.write(tmp_path / "out", [picture("b/images/a.jpg", boxes=boxes)], ("dog",), About())
    put(tmp_path / "out", "images/train/b/images/a.jpg")
    (image,) = yolo.read(str(tmp_path / "out" / "data.yaml"), Problems())
    assert image.boxes == (Annotation("dog", (0, 0, 0.5, 0.5)),)


def test_boxes_are_cut_off_at_the_edges_when_written(tmp_path: Path) -> None:
    boxes = (Annotation("a", (-3, 5, 20, 9)), Annotation("a", (20, 20, 30, 30)))
    YoloFormat().write(tmp_path / "out", [picture("a.jpg", boxes=boxes)], ("a",), About())
    label = tmp_path / "out" / "labels" / "train" / "a.txt"
    assert label.read_text() == "0 0.5 0.7 1 0.4\n"


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (picture("../a.jpg"), "can't be a file below a folder"),
        (picture("photo"), "no picture's extension"),
        (picture("a.jpg", boxes=None), "nothing is said of boxes"),
        (picture("a.jpg", attributes={"split": "trainval"}), "split 'trainval'"),
        (picture("a.jpg", width=None, boxes=(Annotation("a", (0, 0, 5, 5)),)), "size is unknown"),
    ],
)
def test_what_can_not_be_written_is_an_error(
    image: AnnotatedImage, why: str, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match=why):
        YoloFormat().write(tmp_path / "out", [image], ("a",), About())


def test_two_pictures_for_one_file_are_an_error(tmp_path: Path) -> None:
    images = [picture("a.jpg"), picture("a.png")]
    with pytest.raises(FormatError, match=r"a\.txt: two pictures would share this file"):
        YoloFormat().write(tmp_path / "out", images, ("a",), About())


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "data.yaml"):
        with pytest.raises((SourceError, FormatError), match=str(path)):
            list(YoloFormat().read(str(path), Problems()))
