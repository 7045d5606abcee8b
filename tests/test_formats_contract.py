"""What every annotation format promises: each name of FORMATS goes through all of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vistadex.errors import FormatError, SourceError
from vistadex.formats import FORMATS, About, Problems, open_format
from vistadex.formats.coco import CocoFormat
from vistadex.records import FLAGS, AnnotatedImage, Annotation, Relation

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
HEADINGS = ["What it is", "Read it", "Write it", "What is lost", "Damaged lines"]
CLASSES = ("Käse & <Brot>", "dog", "traffic light, red")
ABOUT = About(category_ids={name: number for number, name in enumerate(CLASSES, 1)})

each_format = pytest.mark.parametrize("name", sorted(FORMATS))


def sample() -> list[AnnotatedImage]:
    """Names with spaces, %, other scripts and folders; boxes with fractions, flags and none.

    Each image has a class and lacks another; its boxes are next to each other, one to itself.
    """
    names = ["a.jpg", "süß ü/b %20 c.jpg", "日本/深い/d#1?.jpeg", "plus+&'=.png", "none.jpg"]
    boxes = (
        Annotation(CLASSES[0], (0, 0, 640, 480), flags={"crowd": False, "difficult": True}),
        Annotation(CLASSES[1], (10.25, 20.5, 30.125, 40.75), flags={"truncated": False}),
        Annotation(CLASSES[1], (10.25, 20.5, 30.125, 40.75), attributes={"pose": "Left"}),
        Annotation(CLASSES[2], (639, 100, 640, 300), score=0.625),
    )
    return [
        AnnotatedImage(
            file_name=name,
            place=name,
            width=640,
            height=480,
            boxes=() if name == "none.jpg" else boxes[: number + 1],
            classes=(CLASSES[number % 3], CLASSES[(number + 1) % 3]),
            class_scores=(1.0, 0.0),
            relations=() if name == "none.jpg" else around(boxes[: number + 1]),
            attributes={"id": number + 1, "split": ("train", "val", "test")[number % 3]},
        )
        for number, name in enumerate(names)
    ]


def around(boxes: tuple[Annotation, ...]) -> tuple[Relation, ...]:
    """Each box next to the one behind it."""
    return tuple(
        Relation(box.class_name, "nächst & zu", other.class_name, box.box_xyxy, other.box_xyxy)
        for box, other in zip(boxes, boxes[1:] + boxes[:1], strict=True)
    )


def write(name: str, folder: Path) -> tuple[str, str]:
    """Writes the sample with its pictures; its path, and that of a file to refer to."""
    chosen, out = open_format(name), folder / "out"
    chosen.write(out, sample(), CLASSES, ABOUT)
    for image in sample():
        if (place := chosen.picture_path(image)) is not None:
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            (out / place).write_bytes(b"x")
    CocoFormat().write(folder / "reference.json", sample(), CLASSES, ABOUT)
    return str(out), str(folder / "reference.json")


@cache
def files_of(name: str) -> dict[str, bytes]:
    """What write() makes, without pictures, as bytes by name; the names of pictures with b"x"."""
    with tempfile.TemporaryDirectory() as folder:
        write(name, Path(folder))
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def assert_explained(problems: Problems) -> None:
    for problem in problems.first:
        assert problem.kind
        assert problem.place
        assert problem.found
        assert problem.expected
        assert problem.cure


@each_format
def test_a_page_says_what_it_is_and_what_is_lost(name: str) -> None:
    page = (DOCS / "formats" / f"{name}.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == HEADINGS
    plain = " ".join(page.split())
    missing = [loss for loss in open_format(name).losses if loss not in plain]
    assert missing == []
    assert f"formats/{name}.md" in (DOCS / "formats.md").read_text(encoding="utf-8")


@each_format
def test_a_missing_path_is_an_error_that_names_it(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "nöt there")
    with pytest.raises((FormatError, SourceError)) as raised:
        list(open_format(name).read(path, Problems(), path))
    assert path in str(raised.value)


def read(name: str, path: str, problems: Problems, reference: str) -> list[AnnotatedImage] | str:
    """What a format reads, and says of the set beside; the message where it can't be read."""
    try:
        images = list(open_format(name).read(path, problems, reference))
        open_format(name).about(path)
    except (FormatError, SourceError) as error:
        return str(error)
    return images


@each_format
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_empty_is_named_or_has_no_images(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.write_bytes(b"") if kind == "file" else path.mkdir()
    found = read(name, str(path), Problems(), str(path))
    assert found == [] or (isinstance(found, str) and str(path) in found)


@each_format
def test_what_is_written_reads_the_same_but_for_stated_losses(name: str, tmp_path: Path) -> None:
    chosen = open_format(name)
    path, reference = write(name, tmp_path)
    with Problems(tmp_path / "report.jsonl") as problems:
        found = {image.file_name: image for image in chosen.read(path, problems, reference)}
    assert problems.counts == {}
    assert (tmp_path / "report.jsonl").read_text() == ""
    expected = {_name_read(name, image): image for image in sample()}
    assert set(found) <= set(expected)
    assert all(expected[missing].boxes == () for missing in set(expected) - set(found))
    for key, image in found.items():
        assert image.place
        assert_same(expected[key], image, chosen.losses)


def _name_read(name: str, image: AnnotatedImage) -> str:
    """As a format names an image that it has written."""
    chosen = open_format(name)
    place = chosen.picture_path(image)
    return place if place is not None and chosen.below_path else image.file_name


def assert_same(image: AnnotatedImage, found: AnnotatedImage, losses: tuple[str, ...]) -> None:
    """Nothing is added or changed; what a format can't say may be missing."""
    assert not (found.boxes is None and found.classes is None and found.relations is None)
    if found.classes is not None:
        scores = dict(zip(image.classes, image.class_scores, strict=True))
        there = {name: score for name, score in scores.items() if score > 0}
        assert found.class_scores in ((), (1.0, 0.0))
        assert found.classes == tuple(scores if found.class_scores else there)
    if found.relations is not None:
        assert "relations" not in losses
        assert _triplets(found) == {
            triplet if any(one.subject_xyxy for one in found.relations) else (*triplet[:3], None)
            for triplet in _triplets(image)
        }
    assert found.width in (None, 640)
    assert found.height in (None, 480)
    assert {key: image.attributes[key] for key in found.attributes} == found.attributes
    if found.boxes is None:
        return
    boxes = _sorted(image)
    if any("how often a box is there" in loss for loss in losses):
        once = {(box.class_name, box.box_xyxy): box for box in reversed(boxes)}
        boxes = [box for box in boxes if box in once.values()]
    for box, other in zip(boxes, _sorted(found), strict=True):
        assert other.class_name == box.class_name
        assert other.box_xyxy == pytest.approx(box.box_xyxy, abs=1e-5)
        assert other.score in (box.score, 1.0)
        # COCO has no third value beside crowd and not.
        stated = {"crowd": False, **box.flags}
        assert all(stated.get(flag) == value for flag, value in other.flags.items())
        assert set(other.flags) <= set(FLAGS)


def _sides(image: AnnotatedImage) -> tuple[int, int, int, int]:
    return (640, 480, 640, 480) if image.relative else (1, 1, 1, 1)


def _triplets(image: AnnotatedImage) -> set[tuple[object, ...]]:
    """What relations say, with both boxes in pixels where they are drawn."""
    sides = _sides(image)
    return {
        (
            one.subject,
            one.predicate,
            one.object,
            None
            if one.subject_xyxy is None or one.object_xyxy is None
            else tuple(
                round(part * side, 4)
                for part, side in zip(one.subject_xyxy + one.object_xyxy, sides * 2, strict=True)
            ),
        )
        for one in image.relations or ()
    }


def _sorted(image: AnnotatedImage) -> list[Annotation]:
    """Boxes in pixels, in an order that does not hang on that of the file."""
    sides = _sides(image)
    boxes = [
        Annotation(
            box.class_name,
            tuple(one * side for one, side in zip(box.box_xyxy, sides, strict=True)),
            box.score,
            box.flags,
            box.attributes,
        )
        for box in image.boxes or ()
    ]
    return sorted(boxes, key=lambda box: (box.class_name, box.box_xyxy, sorted(box.flags)))


@each_format
def test_writing_where_nothing_can_be_written_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    out = tmp_path / "file" / "out"
    with pytest.raises(FormatError, match=re.escape(str(out))):
        open_format(name).write(out, sample(), CLASSES, ABOUT)


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Breaks a file off, changes bytes in it, or puts others in its place."""
    kind = draw(st.sampled_from(["cut", "change", "insert", "replace"]))
    at = draw(st.floats(0, 1))
    junk = draw(st.binary(min_size=1, max_size=20) | st.sampled_from(JUNK))

    def damaged(data: bytes) -> bytes:
        place = int(at * len(data))
        tail = {
            "cut": b"",
            "change": junk + data[place + len(junk) :],
            "insert": junk + data[place:],
            "replace": b"",
        }
        return junk if kind == "replace" else data[:place] + tail[kind]

    return damaged


JUNK = [b"\0", b"\xff\xfe", b"nan", b"1e999", b"-1", b"9" * 5000, b"[" * 2000, b"<!DOCTYPE a>"]
JUNK += [b"\n", b'"', b"\\ud800", b"\r", b"null", b"{}", b"\xef\xbb\xbf", b"../", b"//", b" "]


@each_format
@given(st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_files_are_problems_or_errors_and_never_crashes(
    name: str, data: st.DataObject
) -> None:
    files = files_of(name)
    victims = sorted(key for key in files if files[key] != b"x")
    victim = data.draw(st.sampled_from(victims))
    breaking = data.draw(damage())
    with tempfile.TemporaryDirectory() as folder:
        for key, content in files.items():
            path = Path(folder) / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(breaking(content) if key == victim else content)
        problems = Problems(Path(folder) / "report.jsonl")
        out, reference = f"{folder}/out", f"{folder}/reference.json"
        with problems:
            found = read(name, out, problems, reference)
        if isinstance(found, str):
            assert folder in found
        else:
            for image in found:
                assert_storable(image)
        assert_explained(problems)


def assert_storable(image: AnnotatedImage) -> None:
    """What is read is whole: finite boxes with an area, names that can be stored."""
    image.file_name.encode()
    assert len(image.class_scores) in (0, len(image.classes or ()))
    assert all(0 <= score <= 1 for score in image.class_scores)
    for box in image.boxes or ():
        assert_in_a_plane(box.box_xyxy)
        assert 0 <= box.score <= 1
    for relation in image.relations or ():
        for corners in (relation.subject_xyxy, relation.object_xyxy):
            if corners is not None:
                assert_in_a_plane(corners)
    names = [*(image.classes or ()), *(box.class_name for box in image.boxes or ())]
    names += [part for r in image.relations or () for part in (r.subject, r.predicate, r.object)]
    for name in names:
        assert name
        name.encode()


def assert_in_a_plane(box_xyxy: tuple[float, float, float, float]) -> None:
    x0, y0, x1, y1 = box_xyxy
    assert -1e12 < x0 < x1 < 1e12
    assert -1e12 < y0 < y1 < 1e12


@pytest.fixture
def bucket(aws: pytest.MonkeyPatch, s3_server: str) -> Iterator[str]:
    client = boto3.client("s3", endpoint_url=s3_server)
    client.create_bucket(Bucket="annotations")
    yield "annotations"
    listed = client.list_objects_v2(Bucket="annotations").get("Contents", [])
    for one in listed:
        client.delete_object(Bucket="annotations", Key=one["Key"])
    client.delete_bucket(Bucket="annotations")


@each_format
def test_a_bucket_reads_like_a_folder(
    name: str, bucket: str, s3_server: str, tmp_path: Path
) -> None:
    client = boto3.client("s3", endpoint_url=s3_server)
    for key, content in files_of(name).items():
        client.put_object(Bucket=bucket, Key=f"sets/{key}", Body=content)
    path, reference = write(name, tmp_path)
    problems = Problems()
    chosen = open_format(name)
    there = chosen.read(f"s3://{bucket}/sets/out", problems, f"s3://{bucket}/sets/reference.json")
    here = chosen.read(path, problems, reference)
    assert [(i.file_name, i.boxes, i.classes, i.relations) for i in there] == [
        (i.file_name, i.boxes, i.classes, i.relations) for i in here
    ]
    assert problems.counts == {}
