"""vistadex.evaluate measures models on annotated pictures, and says what it left out."""

from __future__ import annotations

import contextlib
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vistadex
from tests.detection_cases import results
from tests.test_annotated import BLUE_BOX, RED_BOX, Rows, write_coco
from vistadex.annotated import open_annotated
from vistadex.errors import ModelError, UsageError
from vistadex.evaluating import Evaluation
from vistadex.evaluating.carding import write_card
from vistadex.evaluating.naming import name_classes
from vistadex.evaluating.pictures import worst
from vistadex.models import ModelStore, resolve
from vistadex.models.cards import ModelCard
from vistadex.testing import RedSquareDetector, scene_jpeg

MODEL = RedSquareDetector(min_score=0.0)
BOTH: Rows = [(7, RED_BOX, {}), (3, BLUE_BOX, {})]


def evaluated(path: Path, **more: Any) -> Evaluation:
    return vistadex.evaluate(MODEL, path, images=path.parent / "photos", **more)


def test_a_detector_that_finds_everything_is_perfect(tmp_path: Path) -> None:
    done = evaluated(write_coco(tmp_path, {"a.jpg": BOTH, "b.jpg": BOTH}))
    assert (done.model, done.task, done.images) == ("red-squares", "detection", 2)
    assert done.headline == ("AP", pytest.approx(done.metrics["AP"]))
    assert done.metrics["AP50"] == pytest.approx(1)
    assert sum(one.count for one in done.errors) == 0
    row = next(one for one in done.per_class if one.name == "red square")
    assert (row.truth, row.found, row.precision, row.recall) == (2, 2, 1, 1)
    assert row.measures["AP50"] == pytest.approx(1)
    zebra = next(one for one in done.per_class if one.name == "zebra")
    assert (zebra.truth, zebra.recall, zebra.measures["AP"]) == (0, None, -1)
    assert done.confusion_classes == ["blue square", "red square", "zebra", "background"]
    assert np.array(done.confusion).diagonal().tolist() == [2, 2, 0, 0]


def test_errors_are_counted_by_kind_and_class(tmp_path: Path) -> None:
    wrong: Rows = [(3, RED_BOX, {}), (7, [100, 2, 20, 20], {})]
    done = evaluated(write_coco(tmp_path, {"a.jpg": wrong, "b.jpg": BOTH}))
    counts = {one.name: one.count for one in done.errors}
    assert counts["classification"] == 1
    assert counts["missed"] == 1
    assert counts["background"] == 1
    assert done.errors[0].count >= done.errors[-1].count
    # Blue said for nothing; red said for what is blue; a red one not seen.
    assert done.confusion == [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
    (first,) = worst(done, 5)
    assert (first.image, first.number) == (0, 3)
    assert "1 wrongly called red square" in first.words
    assert "1 missed red square" in first.words


@pytest.mark.parametrize("metric", ["voc2007", "voc2010", "open-images"])
def test_other_measures_can_be_chosen(metric: str, tmp_path: Path) -> None:
    path = write_coco(tmp_path, {"a.jpg": BOTH, "b.jpg": BOTH})
    done = evaluated(path, metric=metric)
    name, value = done.headline
    assert (name, value) == (f"mAP_{metric.replace('-', '_')}", 1)
    assert [list(one.measures) for one in done.per_class] == [["AP50"]] * 3
    assert [one.name for one in done.curves] == ["blue square", "red square"]


def test_pictures_of_one_object_are_measured_as_tutorials_do(shared_data: Path) -> None:
    data = open_annotated(
        shared_data / "coco" / "instances_val.json", images=shared_data / "coco" / "images" / "val"
    )
    single = [i for i, one in enumerate(data.images) if len(one.labels) == 1][:12]
    done = vistadex.evaluate(shared_data / "weights" / "yolox_nano.onnx", data.subset(single))
    assert 0.5 < done.metrics["accuracy"] <= 1
    assert 0.5 < done.metrics["mean_iou"] <= 1
    assert done.metrics["box_mse"] < 416**2 / 10


def test_sets_of_several_objects_have_no_such_measures(tmp_path: Path) -> None:
    assert "accuracy" not in evaluated(write_coco(tmp_path, {"a.jpg": BOTH})).metrics


def test_bad_pictures_are_listed_and_not_asked_for(tmp_path: Path) -> None:
    path = write_coco(tmp_path, {"a.jpg": BOTH, "b.jpg": BOTH})
    whole = scene_jpeg([("red square", 10, 20, 40)])
    (tmp_path / "photos" / "b.jpg").write_bytes(whole[: len(whole) // 2])
    done = evaluated(path)
    assert done.images == 1
    ((uri, why),) = done.failed
    assert uri.endswith("b.jpg")
    assert "breaks off" in why or "truncated" in why
    assert done.metrics["AR100"] == pytest.approx(done.metrics["AP"], abs=0.2)
    assert sum(one.truth for one in done.per_class) == 2


def test_a_model_that_fails_on_every_picture_is_an_error(tmp_path: Path) -> None:
    path = write_coco(tmp_path, {"a.jpg": BOTH})
    broken = RedSquareDetector(fail_on_width=160)
    with pytest.raises(ModelError, match=r"no picture could be judged.*the model broke"):
        vistadex.evaluate(broken, path, images=tmp_path / "photos")


def test_classes_are_matched_by_name_and_never_by_number(tmp_path: Path) -> None:
    path = write_coco(tmp_path, {"a.jpg": [*BOTH, (9, [100, 2, 20, 20], {})]})
    with pytest.raises(UsageError, match=r"does not know 1 of its classes \(zebra\).*--names"):
        evaluated(path)
    with pytest.raises(UsageError, match="both 'red square'"):
        evaluated(path, names={"zebra": "red square"})
    with pytest.raises(UsageError, match="has no class 'lion'"):
        evaluated(path, only=["lion"])
    done = evaluated(path, only=["red square"])
    assert [one.name for one in done.per_class] == ["red square"]
    assert done.not_in_data == {"blue square": 1}
    swapped = evaluated(path, names={"zebra": "RED Square"}, only=["zebra", "blue square"])
    assert swapped.metrics["AP50"] == pytest.approx(0.5)


def test_synonyms_are_found_where_they_are_of_one_class(tmp_path: Path) -> None:
    for name in ("Tench", "crane", "ball"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jpg").write_bytes(scene_jpeg([]))
    data = open_annotated(tmp_path)
    known = ("tench, Tinca tinca", "crane", "golf ball, ball", "crane", "red, ball")
    with pytest.raises(UsageError, match=r"does not know 1 of its classes \(ball\)"):
        name_classes(data, "m", known)
    naming = name_classes(data, "m", known, names={"ball": "golf ball"})
    assert naming.classes == ("Tench", "ball", "crane")
    assert naming.of_model.tolist() == [0, 2, 1, 2, -1]


def test_low_scores_are_measured_and_do_not_count(tmp_path: Path) -> None:
    path = write_coco(tmp_path, {"a.jpg": BOTH})
    done = evaluated(path, count_score=1.0)
    assert done.metrics["AP50"] == pytest.approx(1)
    assert sum(one.found for one in done.per_class) <= 2
    assert done.counting.min_score == 1


def test_speed_size_and_memory_are_stated(tmp_path: Path) -> None:
    path = write_coco(tmp_path, {f"{i}.jpg": BOTH for i in range(9)})
    done = evaluated(path, timed=4, threads=2)
    assert done.speed is not None
    assert (done.speed.timed, done.speed.threads) == (4, 2)
    assert 0 < done.speed.p50_ms <= done.speed.p95_ms
    assert done.speed.images_per_s > 0
    assert done.peak_mib > 20
    assert evaluated(path, timed=0).speed is None


def test_only_the_first_images_are_judged(tmp_path: Path) -> None:
    path = write_coco(tmp_path, {f"{i}.jpg": BOTH for i in range(9)})
    assert evaluated(path, limit=3).images == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"metric": "best"}, "metric 'best' is unknown, expected one of coco"),
        ({"limit": 0}, "limit=0"),
        ({"timed": -1}, "timed=-1"),
        ({"count_score": 2}, "count_score=2"),
        ({"iou": 0}, "iou=0"),
    ],
)
def test_bad_settings_stop_before_the_first_image(
    given: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        evaluated(write_coco(tmp_path, {"a.jpg": BOTH}), **given)


def test_an_open_set_takes_no_more_words(tmp_path: Path) -> None:
    path = write_coco(tmp_path, {"a.jpg": BOTH})
    data = open_annotated(path, images=tmp_path / "photos")
    assert vistadex.evaluate(MODEL, data).images == 1
    with pytest.raises(UsageError, match="is an open set"):
        vistadex.evaluate(MODEL, data, split="val")


def test_a_detector_is_no_classifier(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.jpg").write_bytes(scene_jpeg([]))
    with pytest.raises(UsageError, match=r"expected a classifier; choose another model"):
        vistadex.evaluate(MODEL, tmp_path)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    done = evaluated(write_coco(tmp_path, {"a.jpg": BOTH}))
    values = json.loads(done.to_json())
    assert values["headline"] == "AP"
    assert values["metrics"]["AP50"] == pytest.approx(1)
    assert values["per_class"][0]["name"] == "blue square"
    assert values["curves"][0]["name"] == "mean of all classes"
    assert "judged" not in values
    assert "NaN" not in done.to_json()


class _Checking(HTMLParser):
    """What a page refers to, and its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.files: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.files += [str(value) for name, value in attrs if name in ("src", "href")]


def test_a_report_is_one_page_with_pictures_beside_it(tmp_path: Path) -> None:
    wrong: Rows = [(3, RED_BOX, {})]
    path = write_coco(tmp_path, {"a.jpg": wrong, "<b>&.jpg": wrong, "c.jpg": BOTH})
    page = evaluated(path).write_report(tmp_path / "out" / "report")
    text = page.read_text(encoding="utf-8")
    checking = _Checking()
    checking.feed(text)
    assert "script" not in checking.tags
    assert checking.tags.count("polyline") == 3
    assert checking.files == ["pictures/001.jpg", "pictures/002.jpg"]
    for name in checking.files:
        with Image.open(page.parent / name) as picture:
            assert picture.width > picture.height
    assert "&lt;b&gt;&amp;.jpg" in text
    assert "<b>&.jpg" not in text
    assert json.loads((page.parent / "evaluation.json").read_text())["images"] == 3


def test_a_report_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    done = evaluated(write_coco(tmp_path, {"a.jpg": BOTH}))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="give another with --out"):
        done.write_report(tmp_path / "file")
    with pytest.raises(UsageError, match="name another"):
        done.write_grid(tmp_path / "grid.nothing", 1)


def test_a_grid_shows_truth_and_predictions_side_by_side(tmp_path: Path) -> None:
    path = write_coco(tmp_path, {"a.jpg": BOTH, "b.jpg": [], "c.jpg": BOTH})
    done = evaluated(path)
    one = done.draw(1)
    assert one.shape == (120, 2 * 160 + 8, 3)
    left, right = one[:, :160].astype(int), one[:, 168:].astype(int)
    assert np.abs(left - right).max() > 100, "the truth says that nothing is there"
    done.write_grid(tmp_path / "grid.png", 3)
    with Image.open(tmp_path / "grid.png") as grid:
        assert (grid.format, grid.size) == ("PNG", (4 * 160 + 3 * 8, 2 * 120 + 8))


def test_the_measures_go_into_the_card(tmp_path: Path, shared_data: Path) -> None:
    store = ModelStore(tmp_path / "models")
    file = store.add(shared_data / "weights" / "yolox_nano.onnx")
    path = write_coco(tmp_path, {"a.jpg": BOTH})
    data = open_annotated(path, images=tmp_path / "photos")
    names = {"red square": "stop sign", "blue square": "tv"}
    done = vistadex.evaluate("yolox_nano", data, names=names, models=store.folder)
    write_card(done, file, store.folder)
    card = store.get("yolox_nano").card
    assert card.metrics == {name: value for name, value in done.metrics.items() if value >= 0}
    assert card.evaluation["data"] == "said.json, 1 images"
    assert card.evaluation["confusion"]["classes"][-1] == "background"
    assert (card.classes, card.license) == (file.card.classes, file.card.license)
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(file.path.read_bytes())
    outside = resolve(str(copy), task="detector", store=store)
    beside = write_card(done, outside, store.folder)
    assert beside == tmp_path / "copy.onnx.json"
    assert ModelCard.from_json(beside.read_text(), "card").metrics == card.metrics


def test_a_classifier_is_measured_on_a_folder_for_each_class(
    tmp_path: Path, shared_data: Path
) -> None:
    lists = (shared_data / "weights" / "coral_imagenet_labels.txt").read_text().splitlines()
    names = {"n01440764": "tench", "n03445777": "golf ball", "n03888257": "parachute"}
    for wnid, name in names.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for path in sorted((shared_data / "imagenette").glob(f"{wnid}_*"))[:6]:
            (tmp_path / "data" / name / path.name).write_bytes(path.read_bytes())
    store = ModelStore(tmp_path / "models")
    store.add(
        shared_data / "weights" / "coral_mobilenet_v2_1.0_224_quant.tflite",
        name="mobilenet",
        head="probabilities",
        preset="tensorflow",
        classes=lists,
    )
    # The model calls them "tench, Tinca tinca", "golf ball" and "parachute, chute".
    done = vistadex.evaluate("mobilenet", tmp_path / "data", models=store.folder)
    assert (done.task, done.metric, done.images) == ("classification", "accuracy", 18)
    assert done.headline[0] == "accuracy"
    assert 0.6 < done.metrics["accuracy"] <= done.metrics["top5"] <= 1
    assert [one.truth for one in done.per_class] == [6, 6, 6]
    assert done.judged is None
    text = done.write_report(tmp_path / "report").read_text().split("<h1>")[1]
    assert "polyline" not in text
    assert text.count("<figure>") == len(done.mistaken) == 18 - round(18 * done.metrics["accuracy"])
    first = done.mistaken[0]
    assert first.score == max(one.score for one in done.mistaken)
    assert f"{first.truth}, said to be" in text
    with pytest.raises(UsageError, match="expected a detector's boxes"):
        done.write_grid(tmp_path / "grid.png", 1)


@pytest.mark.slow
def test_yolox_nano_has_the_map_that_pycocotools_gives(shared_data: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth_file = shared_data / "coco" / "instances_val.json"
    done = vistadex.evaluate(
        shared_data / "weights" / "yolox_nano.onnx",
        truth_file,
        images=shared_data / "coco" / "images" / "val",
        min_score=0.01,
    )
    assert done.metrics["AP"] == pytest.approx(0.281, abs=0.003)
    assert done.judged is not None
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(truth_file))
        ids = {entry["file_name"]: number for number, entry in truth.imgs.items()}
        categories = sorted(truth.cats)
        rows = results(done.judged.found)
        for row in rows:
            row["image_id"] = ids[done.pictures.images[row["image_id"] - 1].key]
            row["category_id"] = categories[row["category_id"] - 1]
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert list(done.metrics.values()) == pytest.approx(evaluation.stats.tolist(), abs=1e-6)


def write_open_images(folder: Path) -> None:
    """Three pictures with a red and a blue square: boxes, a group, and what was looked for."""
    (folder / "photos").mkdir(parents=True)
    squares = [("red square", 10, 20, 40), ("blue square", 90, 60, 30)]
    for name in ("aa", "bb", "cc"):
        (folder / "photos" / f"{name}.jpg").write_bytes(scene_jpeg(squares))
    files = {
        "class-descriptions.csv": "/m/01,red square\n/m/02,blue square\n/m/03,shape\n",
        "bbox_labels_600_hierarchy.json": json.dumps(
            {
                "LabelName": "/m/0bl9f",
                "Subcategory": [
                    {
                        "LabelName": "/m/03",
                        "Subcategory": [{"LabelName": "/m/01"}, {"LabelName": "/m/02"}],
                    }
                ],
            }
        ),
        "train-annotations-bbox.csv": "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
        "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
        "cc,x,/m/01,1,0.0625,0.3125,0.166667,0.5,0,0,0,0,0\n"
        "bb,x,/m/02,1,0.5,1,0.4,0.9,0,0,1,0,0\n",
        "train-annotations-human-imagelabels.csv": "ImageID,Source,LabelName,Confidence\n"
        "aa,verification,/m/02,0\ncc,verification,/m/01,1\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)


def test_open_images_are_judged_as_its_challenge_does(tmp_path: Path) -> None:
    write_open_images(tmp_path)
    data = open_annotated(tmp_path, images=tmp_path / "photos")
    place = {name: i for i, name in enumerate(data.classes)}
    first, second, third = data.images
    assert third.classes_of_image.tolist() == [place["red square"]]
    assert first.classes_absent.tolist() == [place["blue square"]]
    assert second.group_of.tolist() == [True]
    only = ["red square", "blue square"]
    done = vistadex.evaluate(MODEL, data, metric="open-images", only=only)
    by_name = {one.name: one.measures["AP50"] for one in done.per_class}
    # Both are said in all three, with one score; red was looked for in one, blue in two.
    assert by_name == pytest.approx({"red square": 1, "blue square": 0.5})
    assert ("red square", "shape") in data.parents
    plain = vistadex.evaluate(MODEL, data, metric="voc2010", only=only)
    by_name = {one.name: one.measures["AP50"] for one in plain.per_class}
    assert by_name["red square"] == pytest.approx(1 / 3)
