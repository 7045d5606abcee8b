"""COCO results: boxes with scores whose ids an instances file explains."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vistadex.errors import FormatError
from vistadex.formats.coco import CocoFormat
from vistadex.formats.coco_results import CocoResultsFormat
from vistadex.formats.contract import About, Problems
from vistadex.records import AnnotatedImage, Annotation

INSTANCES = {
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80},
        {"id": 9, "file_name": "b.jpg", "width": 50, "height": 40},
    ],
    "annotations": [{"id": 1, "image_id": 7, "category_id": 18, "bbox": [1, 2, 3, 4]}],
    "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
}
ABOUT = About(category_ids={"person": 1, "dog": 18})
RESULT = {"image_id": 9, "category_id": 18, "bbox": [10.5, 20, 30, 5], "score": 0.25}


@pytest.fixture
def instances(tmp_path: Path) -> str:
    (tmp_path / "instances.json").write_text(json.dumps(INSTANCES))
    return str(tmp_path / "instances.json")


def read(
    folder: Path, results: object, instances: str | None
) -> tuple[list[AnnotatedImage], Problems]:
    (folder / "results.json").write_text(json.dumps(results))
    problems = Problems()
    path = str(folder / "results.json")
    return list(CocoResultsFormat().read(path, problems, instances)), problems


def test_results_are_boxes_with_scores_on_the_images_of_the_reference(
    tmp_path: Path, instances: str
) -> None:
    images, problems = read(tmp_path, [RESULT], instances)
    assert [(image.file_name, image.attributes) for image in images] == [
        ("a.jpg", {"id": 7}),
        ("b.jpg", {"id": 9}),
    ]
    assert images[0].boxes == ()
    assert images[1].boxes == (Annotation("dog", (10.5, 20, 40.5, 25), 0.25),)
    assert not problems.counts


def test_without_a_reference_the_error_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="name it with --reference"):
        read(tmp_path, [RESULT], None)


def test_an_instances_file_is_no_list_of_results(tmp_path: Path, instances: str) -> None:
    with pytest.raises(FormatError, match=r"results\.json: has images, annotations, categories at"):
        read(tmp_path, INSTANCES, instances)


def test_a_list_of_results_is_no_reference(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("[]")
    with pytest.raises(FormatError, match=r"other\.json: is a list"):
        read(tmp_path, [], str(other))


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"score": None}, "missing-field"),
        ({"score": 7.5}, "bad-score"),
        ({"score": -0.1}, "bad-score"),
        ({"image_id": 8}, "unknown-image"),
        ({"category_id": 2}, "unknown-category"),
        ({"bbox": [0, 0, 0, 0]}, "bad-box"),
        ({"bbox": None, "segmentation": {"counts": "abc", "size": [1, 2]}}, "missing-field"),
    ],
)
def test_a_damaged_result_is_reported_by_its_position(
    tmp_path: Path, instances: str, fields: dict[str, Any], kind: str
) -> None:
    images, problems = read(tmp_path, [RESULT, {**RESULT, **fields}, RESULT], instances)
    assert problems.counts == {kind: 1}
    assert problems.first[0].place == f"{tmp_path}/results.json[1]"
    assert len(images[1].boxes or ()) == 2


BOXES = st.builds(
    Annotation,
    class_name=st.sampled_from(["person", "dog"]),
    box_xyxy=st.tuples(*[st.floats(0, 50)] * 2, *[st.floats(51, 200)] * 2),
    score=st.floats(0, 1),
)


@given(boxes=st.lists(st.lists(BOXES, max_size=3).map(tuple), min_size=2, max_size=2))
def test_what_is_written_is_read_again(
    boxes: list[tuple[Annotation, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("results")
    (folder / "instances.json").write_text(json.dumps(INSTANCES))
    images = [
        AnnotatedImage(file_name=name, place="made", boxes=own, attributes={"id": number})
        for name, number, own in zip(("a.jpg", "b.jpg"), (7, 9), boxes, strict=True)
    ]
    out = folder / "out.json"
    CocoResultsFormat().write(out, iter(images), ("dog", "person"), ABOUT)
    problems = Problems()
    again = list(CocoResultsFormat().read(str(out), problems, str(folder / "instances.json")))
    assert not problems.counts
    for image, other in zip(images, again, strict=True):
        for box, found in zip(image.boxes or (), other.boxes or (), strict=True):
            assert (box.class_name, box.score) == (found.class_name, found.score)
            assert found.box_xyxy == pytest.approx(box.box_xyxy, abs=1e-9)


def test_pycocotools_scores_the_truth_as_perfect_results(shared_data: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = shared_data / "coco/instances_val.json"
    about = CocoFormat().about(str(path))
    out = tmp_path / "results.json"
    truth = CocoFormat().read(str(path), Problems())
    CocoResultsFormat().write(out, truth, tuple(about.category_ids), about)
    with redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
        evaluation = COCOeval(coco, coco.loadRes(str(out)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def image(**attributes: Any) -> AnnotatedImage:
    boxes = (Annotation("dog", (0, 0, 1, 1), 0.5),)
    return AnnotatedImage(file_name="a.jpg", place="a.jpg", boxes=boxes, attributes=attributes)


@pytest.mark.parametrize("own", [{}, {"id": "7"}, {"id": True}, {"id": None}])
def test_no_id_is_invented_for_an_image(tmp_path: Path, own: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=r"a.jpg: no id, .*import the instances file"):
        CocoResultsFormat().write(tmp_path / "out.json", [image(**own)], ("dog",), ABOUT)
    assert list(tmp_path.iterdir()) == []


def test_no_id_is_invented_for_a_class(tmp_path: Path) -> None:
    about = About(category_ids={"person": 1})
    with pytest.raises(FormatError, match=r"a\.jpg: the class 'dog' has no number"):
        CocoResultsFormat().write(tmp_path / "out.json", [image(id=1)], ("dog",), about)


def test_two_images_with_one_id_are_refused(tmp_path: Path) -> None:
    images = [image(id=1), image(id=1)]
    with pytest.raises(FormatError, match="the id 1, which another image has"):
        CocoResultsFormat().write(tmp_path / "out.json", images, ("dog",), ABOUT)


def test_an_image_without_boxes_needs_no_id(tmp_path: Path) -> None:
    empty = AnnotatedImage(file_name="b.jpg", place="b.jpg", boxes=())
    CocoResultsFormat().write(tmp_path / "out.json", [empty, image(id=1)], ("dog",), ABOUT)
    assert json.loads((tmp_path / "out.json").read_text()) == [
        {"image_id": 1, "category_id": 18, "bbox": [0, 0, 1.0, 1.0], "score": 0.5}
    ]
