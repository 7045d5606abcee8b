"""AutoML CSV: what each line says, what is damaged, and that what is written is read again."""

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vistadex.errors import FormatError
from vistadex.formats.automl_csv import AutomlCsvFormat
from vistadex.formats.automl_lines import MAX_LINE_BYTES
from vistadex.formats.contract import About, Problems
from vistadex.records import AnnotatedImage, Annotation


def read(folder: Path, text: str | bytes) -> tuple[dict[str, AnnotatedImage], Problems]:
    path = folder / "a.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    problems = Problems()
    images = list(AutomlCsvFormat().read(str(path), problems))
    assert len({image.file_name for image in images}) == len(images)
    assert all(image.relative for image in images)
    return {image.file_name: image for image in images}, problems


def only(folder: Path, line: str) -> AnnotatedImage:
    images, problems = read(folder, line + "\n")
    assert not problems.counts
    (image,) = images.values()
    return image


def write(out: Path, *images: AnnotatedImage) -> str:
    AutomlCsvFormat().write(out, iter(images), (), About())
    return out.read_bytes().decode()


def test_the_rows_of_the_documentation_mean_what_it_says(tmp_path: Path) -> None:
    text = (
        "TRAIN,gs://folder/image1.png,car,0.1,0.1,,,0.3,0.3,,\n"
        "TRAIN,gs://folder/image1.png,bike,.7,.6,,,.8,.9,,\n"
        "UNASSIGNED,gs://folder/im2.png,car,0.1,0.1,0.2,0.1,0.2,0.3,0.1,0.3\n"
        "TEST,gs://folder/im3.png,,,,,,,,,\n"
    )
    images, problems = read(tmp_path, text)
    assert not problems.counts
    first, second, third = (images[f"gs://folder/{name}.png"] for name in ("image1", "im2", "im3"))
    assert first.file_name == "gs://folder/image1.png"
    assert first.place == f"{tmp_path}/a.csv line 1"
    assert first.attributes == {"split": "train"}
    assert first.boxes == (
        Annotation("car", (0.1, 0.1, 0.3, 0.3)),
        Annotation("bike", (0.7, 0.6, 0.8, 0.9)),
    )
    assert second.boxes == (Annotation("car", (0.1, 0.1, 0.2, 0.3)),)
    assert second.attributes == {}
    assert third.boxes == ()
    assert third.classes is None


def test_lines_of_one_image_may_be_anywhere(tmp_path: Path) -> None:
    images, _ = read(
        tmp_path,
        "TRAIN,b,car,0,0,,,1,1,,\nTRAIN,a,car,0,0,,,1,1,,\nTRAIN,b,dog,0,0,,,0.5,0.5,,\n",
    )
    assert list(images) == ["a", "b"]
    assert [box.class_name for box in images["b"].boxes or ()] == ["car", "dog"]
    assert images["b"].place.endswith("line 1")


@pytest.mark.parametrize(
    ("line", "classes"),
    [
        ("TRAIN,a.jpg,cat", ("cat",)),
        ("TRAIN,a.jpg,cat,dog,cat", ("cat", "dog")),
        ('TRAIN,a.jpg,"cat, black",7', ("cat, black", "7")),
        ("TRAIN,a.jpg,cat,dog,,", ("cat", "dog")),
        ("TRAIN,a.jpg,a,b,c,d,e,f,g,h,i", tuple("abcdefghi")),
        ("TRAIN,a.jpg", None),
        ("TRAIN,a.jpg,", None),
    ],
)
def test_labels_without_corners_are_of_the_whole_image(
    tmp_path: Path, line: str, classes: tuple[str, ...] | None
) -> None:
    image = only(tmp_path, line)
    assert (image.classes, image.boxes) == (classes, None)


@pytest.mark.parametrize(
    ("line", "split"),
    [
        ("TRAINING,a,x", "train"),
        ("validation,a,x", "val"),
        (" TEST ,a,x", "test"),
        ("UNASSIGNED,a,x", None),
        (",a,x", None),
        ("gs://bucket/a.jpg,x", None),
    ],
)
def test_the_first_column_is_the_split(tmp_path: Path, line: str, split: str | None) -> None:
    image = only(tmp_path, line)
    assert image.attributes.get("split") == split
    assert image.classes == ("x",)


def test_opposite_corners_may_be_any_two(tmp_path: Path) -> None:
    image = only(tmp_path, "TEST,a,x,0.8,0.2,,,0.1,0.6,,")
    assert image.boxes == (Annotation("x", (0.1, 0.2, 0.8, 0.6)),)


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("set,path,label", "unknown-set", "'set'"),
        ("TRIAN,a.jpg,x", "unknown-set", "expected TRAIN, VALIDATION"),
        ("TRAIN", "no-address", "address"),
        ("TRAIN,,x", "no-address", "address"),
        ("TRAIN,a,x,0.1,0.1,,,0.3,1.3,,", "bad-box", "'1.3', expected a number from 0 to 1"),
        ("TRAIN,a,x,10,10,,,200,300,,", "bad-box", "divide pixels by"),
        ("TRAIN,a,x,-0.1,0.1,,,0.3,0.3,,", "bad-box", "'-0.1'"),
        ("TRAIN,a,x,0.1,nan,,,0.3,0.3,,", "bad-box", "'nan'"),
        ("TRAIN,a,x,0.1,,,,0.3,0.3,,", "bad-box", "''"),
        ("TRAIN,a,x,0.1,0.1,,,,,,", "bad-box", "1 corners, expected two opposite"),
        ("TRAIN,a,x,0.1,0.1,0.2,0.2,,,,", "bad-box", "2 corners"),
        ("TRAIN,a,x,0.1,0.1,,,0.1,0.3,,", "bad-box", "without area"),
        ("TRAIN,a,x,0.1,0.2,0.3,0.1,0.4,0.3,0.2,0.4", "bad-box", "slanted"),
        ("TRAIN,a,x,0.1,0.1,0.3,0.3,0.3,0.1,0.1,0.3", "bad-box", "slanted"),
        ("TRAIN,a,x,,,,,,,,", "bad-box", "no box for 'x'"),
        ("TRAIN,a,,0.1,0.1,,,0.3,0.3,,", "no-label", "box without label"),
        ("TRAIN,a,x,0.1,0.1,0.3,0.3", "bad-line", "a box has 11 columns"),
        ("TRAIN,a,x,0.1,0.1,,,0.3,0.3", "bad-line", "a box has 11 columns"),
        ('TRAIN,a,"x', "bad-line", "no CSV"),
        ('TRAIN,a,"x"y', "bad-line", "no CSV"),
        ("TRAIN,a,x\0", "bad-text", "NUL"),
        ("TRAIN,a," + "x" * 200_000, "bad-line", "no CSV"),
        ("TRAIN,a," + "x" * MAX_LINE_BYTES, "bad-line", "lines of less than 1,048,576 bytes"),
        (b"TRAIN,a,\xff", "bad-text", "expected UTF-8"),
    ],
)
def test_a_damaged_line_is_reported_with_its_number_and_the_rest_goes_on(
    tmp_path: Path, line: str | bytes, kind: str, words: str
) -> None:
    bad = line.encode() if isinstance(line, str) else line
    images, problems = read(tmp_path, b"TEST,b,y\n" + bad + b"\r\nTEST,c,z\r\n")
    assert problems.counts == {kind: 1}
    problem = problems.first[0]
    assert problem.place == f"{tmp_path}/a.csv line 2"
    assert words in str(problem)
    assert problem.cure
    assert [(name, image.classes) for name, image in images.items()] == [
        ("b", ("y",)),
        ("c", ("z",)),
    ]


def test_a_picture_in_two_sets_is_reported_and_in_none(tmp_path: Path) -> None:
    images, problems = read(tmp_path, "TRAIN,a,x\nTRAIN,a,y\nTEST,a,z\n")
    assert problems.counts == {"several-sets": 1}
    assert problems.first[0].place.endswith("a.csv line 3")
    assert images["a"].attributes == {}
    assert images["a"].classes == ("x", "y", "z")


def test_no_boxes_beside_boxes_is_a_contradiction(tmp_path: Path) -> None:
    images, problems = read(tmp_path, "TEST,a,x,0,0,,,1,1,,\nTEST,a,,,,,,,,,\n")
    assert problems.counts == {"contradiction": 1}
    assert problems.first[0].place.endswith("a.csv line 2")
    assert len(images["a"].boxes or ()) == 1


def test_a_file_of_another_kind_is_an_error_with_its_first_line(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"a.csv: none of its 2 lines .*line 1: the set '\{"):
        read(tmp_path, '{"images": [],\n"annotations": []}\n')


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "")[0] == read(tmp_path, "\n\r\n,,,\n")[0] == {}


def test_a_byte_order_mark_and_a_last_line_without_end_are_no_damage(tmp_path: Path) -> None:
    images, problems = read(tmp_path, b"\xef\xbb\xbfTEST,a,x\r\nTEST,b,y")
    assert not problems.counts
    assert list(images) == ["a", "b"]


def test_gzipped_files_are_read_and_written(tmp_path: Path) -> None:
    image = AnnotatedImage(file_name="a", place="p", classes=("x",))
    AutomlCsvFormat().write(tmp_path / "a.csv.gz", [image], ("x",), About())
    data = (tmp_path / "a.csv.gz").read_bytes()
    assert gzip.decompress(data) == b"UNASSIGNED,a,x\n"
    assert list(read(tmp_path, data)[0]) == ["a"]


def test_pixels_are_written_as_parts_of_the_sides(tmp_path: Path) -> None:
    image = AnnotatedImage(
        file_name="gs://b/a.jpg",
        place="p",
        width=300,
        height=400,
        boxes=(Annotation("a, b", (100, 0, 300, 100), 0.5),),
        attributes={"split": "val"},
    )
    assert write(tmp_path / "a.csv", image) == (
        'VALIDATION,gs://b/a.jpg,"a, b",0.333333333333,0,,,1,0.25,,\n'
    )


def test_what_stands_out_of_the_picture_is_cut_off(tmp_path: Path) -> None:
    boxes = (Annotation("x", (-5, -5, 5, 50)),)
    image = AnnotatedImage(file_name="a", place="p", width=10, height=10, boxes=boxes)
    assert write(tmp_path / "a.csv", image) == "UNASSIGNED,a,x,0,0,,,0.5,1,,\n"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": None}, "p: no width and height"),
        ({"boxes": (Annotation("x", (20, 0, 30, 5)),)}, "has no area in the picture"),
        ({"boxes": (Annotation("x\ny", (0, 0, 3, 5)),)}, "line break"),
        ({"file_name": "a\r.jpg"}, "line break"),
        ({"file_name": "a\udcff.jpg"}, "no text"),
    ],
)
def test_what_no_line_can_say_is_an_error_and_leaves_no_file(
    tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    made: dict[str, Any] = {"file_name": "a", "place": "p", "width": 10, "height": 10}
    image = AnnotatedImage(**{**made, "boxes": (Annotation("x", (0, 0, 1, 1)),), **fields})
    with pytest.raises(FormatError, match=words):
        write(tmp_path / "a.csv", image)
    assert list(tmp_path.iterdir()) == []


NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1, max_size=12
)
CLASSES = st.sampled_from(["1", "2", "0.5", "nan", '"', "a,b", " ", "x"]) | NAMES
IMAGES = st.lists(
    st.builds(
        AnnotatedImage,
        file_name=NAMES,
        place=st.just("made"),
        width=st.integers(1, 100_000),
        height=st.integers(1, 100_000),
        boxes=st.none()
        | st.lists(
            st.builds(
                Annotation,
                class_name=CLASSES,
                box_xyxy=st.tuples(*[st.floats(0, 0.5)] * 2, *[st.floats(0.51, 1)] * 2),
            ),
            max_size=3,
        ).map(tuple),
        classes=st.none() | st.lists(CLASSES, min_size=1, max_size=10, unique=True).map(tuple),
        attributes=st.sampled_from([{}, *({"split": s} for s in ("train", "val", "test"))]),
    ),
    max_size=4,
    unique_by=lambda image: image.file_name,
)


def scaled(box: Annotation, image: AnnotatedImage) -> Annotation:
    width, height = image.width or 0, image.height or 0
    x0, y0, x1, y1 = box.box_xyxy
    return replace(box, box_xyxy=(x0 * width, y0 * height, x1 * width, y1 * height))


@given(data=st.binary(max_size=60) | st.text(alphabet='TRAIN,abgs:/"0.1\r\n', max_size=90))
def test_any_bytes_are_images_or_problems_or_an_error(
    data: str | bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    message = str(folder)
    try:
        read(folder, data)
    except FormatError as error:
        message = str(error)
    assert message.startswith(str(folder))


def in_pixels(image: AnnotatedImage) -> AnnotatedImage:
    if image.boxes is None:
        return image
    return replace(image, boxes=tuple(scaled(box, image) for box in image.boxes))


def nine(*names: str) -> list[AnnotatedImage]:
    return [AnnotatedImage(file_name="a", place="made", width=1, height=1, classes=names)]


@given(images=IMAGES)
@example(images=nine(*"abcdefghi"))
@example(images=nine("a", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8"))
def test_what_is_written_is_read_again(
    images: list[AnnotatedImage], tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("automl") / "a.csv"
    images = [in_pixels(image) for image in images]
    write(out, *images)
    problems = Problems()
    again = {image.file_name: image for image in AutomlCsvFormat().read(str(out), problems)}
    assert not problems.counts
    assert len(again) == len(images)
    for image in images:
        other = again[image.file_name]
        assert (other.classes, other.attributes) == (image.classes, image.attributes)
        assert (other.boxes is None) == (image.boxes is None)
        for box, found in zip(image.boxes or (), other.boxes or (), strict=True):
            assert found.class_name == box.class_name
            assert scaled(found, image).box_xyxy == pytest.approx(box.box_xyxy, abs=1e-6)
