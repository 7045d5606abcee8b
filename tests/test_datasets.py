"""vistadex.datasets: random images of some classes, in splits, as other tools want them."""

import csv
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import vistadex
from vistadex.catalog import Catalog
from vistadex.datasets import DatasetSummary, build_dataset, class_list
from vistadex.decoding import encode_jpeg
from vistadex.errors import FormatError, QueryError, SourceError, UsageError
from vistadex.sources import open_source
from vistadex.testing import MemorySource, RedSquareDetector, scene_jpeg

NUMBER = 60
CLASSES = ("apple", "boat", "cat")
WHERE = "/red/{}.jpg"


def picture(seed: int, size_wh: tuple[int, int] = (96, 64), quality: int = 90) -> bytes:
    """A picture that looks like no other one."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return encode_jpeg(cv2.resize(coarse, size_wh, interpolation=cv2.INTER_CUBIC), quality=quality)


def classes_of(at: int) -> list[str]:
    """apple in every image, boat in every third, cat in every tenth; three have none of these."""
    if at >= NUMBER - 3:
        return ["dog"]
    return ["apple"] + ["boat"] * (at % 3 == 0) + ["cat"] * (at % 10 == 0)


def name_of(at: int) -> str:
    return f"sub {at % 4}/{at:03}.jpg"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for at in range(NUMBER):
        path = folder / name_of(at)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(at))
    return folder


def make_catalog(
    place: Path, photos: Path | str, order: list[int], url: str | None = None
) -> Catalog:
    catalog = Catalog(url or place, create=True)
    images, rows = [], []
    for at in order:
        images.append({"id": at + 1, "file_name": name_of(at), "width": 96, "height": 64})
        images[-1] |= {"video": f"v{at // 5}"}
        for name in classes_of(at):
            number = [*CLASSES, "dog"].index(name) + 10
            box = {"image_id": at + 1, "category_id": number, "bbox": [8, 8, 16, 16]}
            rows.append({"id": 100 * at + number, "iscrowd": 0, "area": 256, **box})
    categories = [{"id": i + 10, "name": name} for i, name in enumerate([*CLASSES, "dog"])]
    said = place.with_suffix(".json")
    said.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    vistadex.import_annotations("coco", said, images=photos, catalog=catalog)
    return catalog


@pytest.fixture
def catalog(tmp_path: Path, photos: Path) -> Catalog:
    return make_catalog(tmp_path / "catalog.db", photos, list(range(NUMBER)))


def files(folder: Path) -> set[str]:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


def rows_of(path: Path) -> list[list[str]]:
    return list(csv.reader(path.read_text().splitlines()))


def coco(folder: Path) -> dict[str, dict[str, Any]]:
    """What each split's file says."""
    return {
        path.stem.removeprefix("instances_"): json.loads(path.read_text())
        for path in sorted((folder / "annotations").iterdir())
    }


def build(out: Path | str, catalog: Catalog, **more: Any) -> DatasetSummary:
    wanted = {"classes": CLASSES, "per_class": 5, "split": "60/20/20", "seed": 7}
    return build_dataset(out, catalog=catalog, **{**wanted, **more})


def test_a_coco_set_has_a_file_and_a_folder_for_each_split(
    catalog: Catalog, tmp_path: Path
) -> None:
    done = build(tmp_path / "set", catalog, per_class=10)
    splits = coco(tmp_path / "set")
    assert set(splits) == {"train", "val", "test"}
    counts: Counter[tuple[str, str]] = Counter()
    names: list[str] = []
    for split, said in splits.items():
        assert [one["name"] for one in said["categories"]] == list(CLASSES)
        pictures = {path.name for path in (tmp_path / "set" / split).iterdir()}
        assert pictures == {one["file_name"] for one in said["images"]}
        assert {one["width"] for one in said["images"]} == {96}
        names += pictures
        by_id = {one["id"]: one["name"] for one in said["categories"]}
        pairs = {(one["image_id"], by_id[one["category_id"]]) for one in said["annotations"]}
        counts.update((name, split) for _, name in pairs)
    assert len(set(names)) == len(names) == done.images == done.pictures
    shown = {(c, s): n for c, row in done.counts.items() for s, n in row.items() if n}
    assert shown == dict(counts)
    assert done.missing == {"cat": 4}
    assert sum(done.counts["cat"].values()) == 6
    assert sum(done.counts["boat"].values()) >= 10
    assert sum(done.splits.values()) == done.images


@pytest.mark.parametrize("format", ["coco", "voc", "yolo", "imagefolder", "automl-csv"])
def test_the_same_seed_gives_the_same_bytes_whatever_the_order_of_rows(
    format: str, catalog: Catalog, photos: Path, tmp_path: Path
) -> None:
    order = np.random.default_rng(0).permutation(NUMBER).tolist()
    other = make_catalog(tmp_path / "other.db", photos, order)
    for name, store in (("a", catalog), ("b", other)):
        build(tmp_path / name, store, format=format, stratify=True)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    build(tmp_path / "c", catalog, format=format, stratify=True, seed=8)
    assert files(tmp_path / "c") != files(tmp_path / "a")


def test_every_database_gives_the_same_set(
    catalog_url: str, catalog: Catalog, photos: Path, tmp_path: Path
) -> None:
    order = np.random.default_rng(1).permutation(NUMBER).tolist()
    wanted: dict[str, Any] = {"query": "-dog", "group_by": "video", "stratify": True}
    build(tmp_path / "here", catalog, format="open-images", **wanted)
    with make_catalog(tmp_path / "other.db", photos, order, catalog_url) as other:
        build(tmp_path / "there", other, format="open-images", **wanted)
    assert content(tmp_path / "there") == content(tmp_path / "here")


@pytest.mark.parametrize("format", ["voc", "yolo", "imagefolder"])
def test_a_set_can_be_imported_again_with_its_splits(
    format: str, catalog: Catalog, tmp_path: Path
) -> None:
    done = build(tmp_path / "set", catalog, format=format)
    second = Catalog(tmp_path / "second.db", create=True)
    back = vistadex.import_annotations(format, tmp_path / "set", catalog=second)
    assert (back.imported, back.problems) == (done.images, {})
    splits = Counter(str(one.attributes["split"]) for one in second.walk())
    assert splits == Counter(done.splits)
    for name in CLASSES:
        assert second.count(f'"{name}"') == sum(done.counts[name].values())


def test_a_voc_set_lists_its_splits(catalog: Catalog, tmp_path: Path) -> None:
    done = build(tmp_path / "set", catalog, format="voc")
    for split, number in done.splits.items():
        stems = (tmp_path / "set/ImageSets/Main" / f"{split}.txt").read_text().split()
        assert len(stems) == number
        assert all((tmp_path / "set/JPEGImages" / f"{stem}.jpg").exists() for stem in stems)


def test_automl_lines_are_set_address_and_labels(catalog: Catalog, tmp_path: Path) -> None:
    done = build(tmp_path / "set", catalog, format="automl-csv")
    rows = rows_of(tmp_path / "set/automl.csv")
    assert len(rows) == done.images
    words = {"TRAIN": "train", "VALIDATION": "val", "TEST": "test"}
    for word, address, *names in rows:
        assert address.startswith(f"images/{words[word]}/")
        assert (tmp_path / "set" / address).is_file()
        at = int(Path(address).stem)
        assert names == [one for one in CLASSES if one in classes_of(at)]
    second = Catalog(tmp_path / "second.db", create=True)
    back = vistadex.import_annotations(
        "automl-csv", tmp_path / "set/automl.csv", images=tmp_path / "set", catalog=second
    )
    assert (back.imported, back.problems) == (done.images, {})


def test_only_the_classes_asked_for_are_in_the_annotations(
    catalog: Catalog, tmp_path: Path
) -> None:
    done = build(tmp_path / "set", catalog, classes=["CAT"], per_class=100)
    assert done.counts.keys() == {"cat"}
    assert (done.images, done.missing) == (6, {"cat": 94})
    assert {len(one["categories"]) for one in coco(tmp_path / "set").values()} == {1}
    assert done.boxes == 6


def test_a_query_narrows_it(catalog: Catalog, tmp_path: Path) -> None:
    done = build(tmp_path / "set", catalog, query="boat", classes=["apple"], per_class=100)
    assert done.images == 19
    one = build(tmp_path / "one", catalog, query='video:v0 -"boat"', classes=["apple"])
    assert one.images == 3


def test_images_of_one_group_are_in_one_split(catalog: Catalog, tmp_path: Path) -> None:
    done = build(tmp_path / "set", catalog, per_class=40, group_by="video")
    seen: dict[str, set[str]] = {}
    for split, said in coco(tmp_path / "set").items():
        for image in said["images"]:
            seen.setdefault(image["video"], set()).add(split)
    assert len(seen) == done.groups > 3
    assert all(len(splits) == 1 for splits in seen.values())
    assert (done.ungrouped, done.largest_group) == (0, 5)


def test_an_attribute_that_no_image_has_is_refused_with_those_there_are(
    catalog: Catalog, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"no image has the attribute; .* id, video"):
        build(tmp_path / "set", catalog, group_by="scene")
    assert not (tmp_path / "set").exists()


def test_near_duplicates_never_are_in_two_splits(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    # Each picture three times, at another quality.
    for at in range(NUMBER):
        path = photos / name_of(at)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(at // 3, quality=60 + 15 * (at % 3)))
    catalog = make_catalog(tmp_path / "catalog.db", photos, list(range(NUMBER)))
    done = build(tmp_path / "set", catalog, classes=["apple"], per_class=100)
    assert done.near_duplicates == done.images == 57
    assert (done.groups, done.near_duplicates_apart, done.not_compared) == (19, 0, 0)
    seen: dict[int, set[str]] = {}
    for split in done.splits:
        for path in (tmp_path / "set" / split).iterdir():
            seen.setdefault(int(path.stem) // 3, set()).add(split)
    assert all(len(splits) == 1 for splits in seen.values())


def test_unread_pictures_are_said_not_to_be_compared(catalog: Catalog, tmp_path: Path) -> None:
    from vistadex.cli_datasets import print_dataset

    done = build(tmp_path / "set", catalog, pictures="reference")
    assert done.not_compared == done.images
    assert done.pictures == 0
    said = f"  {done.images} images without a perceptual hash: not compared; `vistadex index` or"
    assert any(line.startswith(said) for line in cli_lines(done, print_dataset))


@pytest.mark.parametrize("pictures", ["copy", "link"])
def test_pictures_that_nobody_has_read_are_compared(pictures: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for at in range(NUMBER):
        path = photos / name_of(at)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(at // 3, quality=60 + 15 * (at % 3)))
    catalog = make_catalog(tmp_path / "catalog.db", photos, list(range(NUMBER)))
    assert all(one.perceptual_hash is None for one in catalog.walk())
    done = build(tmp_path / "set", catalog, classes=["apple"], per_class=99, pictures=pictures)
    assert (done.not_compared, done.groups, done.near_duplicates) == (0, 19, 57)


def test_stratified_every_class_is_in_every_split(catalog: Catalog, tmp_path: Path) -> None:
    for seed in range(5):
        done = build(tmp_path / str(seed), catalog, stratify=True, per_class=100, seed=seed)
        assert all(min(row.values()) >= 1 for row in done.counts.values())
        assert done.absent == {}
        assert done.splits == {"train": 34, "val": 11, "test": 12} or done.images == 57


def test_a_split_without_a_class_is_said(catalog: Catalog, tmp_path: Path) -> None:
    from vistadex.cli_datasets import print_dataset

    done = build(tmp_path / "set", catalog, classes=["cat"], per_class=2, split="50/25/25")
    assert done.absent["cat"]
    assert len(done.absent["cat"]) == 3 - len([n for n in done.counts["cat"].values() if n])
    said = f"  cat: none in {' and '.join(done.absent['cat'])}; try --stratify"
    assert said in cli_lines(done, print_dataset)


def test_a_picture_that_can_not_be_read_is_replaced_and_said(
    catalog: Catalog, photos: Path, tmp_path: Path
) -> None:
    first = build(tmp_path / "first", catalog, classes=["boat"], per_class=5)
    lost = sorted((tmp_path / "first/train").iterdir())[0].name
    (photos / name_of(int(lost[:3]))).unlink()
    broken = sorted((tmp_path / "first/train").iterdir())[1].name
    place = photos / name_of(int(broken[:3]))
    status = place.stat()
    place.write_bytes(b"x" * status.st_size)
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
    done = build(
        tmp_path / "set", catalog, classes=["boat"], per_class=5, report=tmp_path / "report.jsonl"
    )
    assert (done.images, done.replaced, done.problems) == (5, 2, {"unreadable": 2})
    assert done.missing == {}
    names = {path.name for split in done.splits for path in (tmp_path / "set" / split).iterdir()}
    before = {
        path.name for split in first.splits for path in (tmp_path / "first" / split).iterdir()
    }
    assert before - names == {lost, broken}
    assert len((tmp_path / "report.jsonl").read_text().splitlines()) == 2


def test_a_source_that_is_gone_stops_the_run(
    catalog: Catalog, photos: Path, tmp_path: Path
) -> None:
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises((SourceError, FormatError), match=r"can't be read|can be used"):
        build(tmp_path / "set", catalog)
    assert not (tmp_path / "set").exists()
    assert not list(tmp_path.glob(".writing*"))


def test_a_broken_picture_is_not_linked(catalog: Catalog, photos: Path, tmp_path: Path) -> None:
    place = photos / name_of(0)
    status = place.stat()
    place.write_bytes(b"x" * status.st_size)
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
    done = build(tmp_path / "set", catalog, classes=["cat"], per_class=9, pictures="link")
    assert (done.images, done.problems) == (5, {"unreadable": 1})


def test_pictures_are_linked(catalog: Catalog, photos: Path, tmp_path: Path) -> None:
    done = build(tmp_path / "set", catalog, format="yolo", pictures="link")
    links = [path for path in (tmp_path / "set/images").rglob("*.jpg")]
    assert len(links) == done.pictures == done.images
    for path in links:
        assert path.readlink() == photos / name_of(int(path.stem))


def test_what_lies_in_an_archive_can_not_be_linked(photos: Path, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        for path in sorted(photos.rglob("*.jpg")):
            file.write(path, path.relative_to(photos))
    catalog = make_catalog(tmp_path / "zip.db", str(tmp_path / "photos.zip"), list(range(NUMBER)))
    with pytest.raises(UsageError, match="linked; use --pictures copy"):
        build(tmp_path / "set", catalog, pictures="link")
    assert build(tmp_path / "set", catalog).pictures > 0


def test_references_say_where_pictures_are(catalog: Catalog, photos: Path, tmp_path: Path) -> None:
    done = build(tmp_path / "set", catalog, pictures="reference", format="automl-csv")
    assert files(tmp_path / "set") == {"automl.csv", "pictures.csv"}
    rows = rows_of(tmp_path / "set/automl.csv")
    assert len(rows) == done.images
    assert all(Path(row[1]).is_file() and Path(row[1]).is_relative_to(photos) for row in rows)
    again = build(tmp_path / "coco", catalog, pictures="reference")
    header, *table = rows_of(tmp_path / "coco/pictures.csv")
    assert header == ["url", "name", "split"]
    assert {row[0] for row in table} == {row[1] for row in rows}
    assert Counter(row[2] for row in table) == Counter(again.splits)


def test_pictures_of_one_name_in_two_folders_stay_apart(tmp_path: Path) -> None:
    root = tmp_path / "classes"
    for at, name in enumerate(("apple/a/1.jpg", "apple/b/1.jpg", "apple/b/1.PNG", "boat/1.jpg")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(at))
    catalog = Catalog(tmp_path / "catalog.db", create=True)
    vistadex.import_annotations("imagefolder", root, catalog=catalog)
    done = build(tmp_path / "set", catalog, classes=["apple", "boat"], format="imagefolder")
    written = [name for name in files(tmp_path / "set") if name.lower().endswith(("jpg", "png"))]
    assert len(written) == done.images == 4
    assert done.missing == {"apple": 2, "boat": 4}


def test_detections_of_a_model_make_a_set_too(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for at in range(8):
        squares = [("red square", 10 + 8 * at, 20, 40)] + [("blue square", 90, 70, 30)] * (at % 2)
        (photos / f"{at}.jpg").write_bytes(scene_jpeg(squares))
    catalog = Catalog(tmp_path / "catalog.db", create=True)
    vistadex.index(photos, detector=RedSquareDetector(), catalog=catalog)
    wanted = {"classes": ["blue square"], "model": "red-squares", "format": "yolo"}
    done = build(tmp_path / "set", catalog, per_class=3, **wanted)
    assert (done.images, done.boxes) == (3, 3)
    with pytest.raises(QueryError, match="no model is named 'human'; known are: red-squares"):
        build(tmp_path / "other", catalog, classes=["blue square"])


def test_a_format_of_boxes_takes_no_classes_of_whole_images(tmp_path: Path) -> None:
    (tmp_path / "classes/apple").mkdir(parents=True)
    (tmp_path / "classes/apple/1.jpg").write_bytes(picture(1))
    catalog = Catalog(tmp_path / "catalog.db", create=True)
    vistadex.import_annotations("imagefolder", tmp_path / "classes", catalog=catalog)
    with pytest.raises(FormatError, match=r"no image of apple .* some formats hold boxes alone"):
        build(tmp_path / "set", catalog, classes=["apple"])


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"classes": ["appel"]}, "unknown class 'appel': did you mean apple"),
        ({"classes": []}, "expected names"),
        ({"per_class": 0}, "per_class=0: expected 1 or more"),
        ({"split": "80/10"}, "makes 90, expected 100"),
        ({"format": "word"}, "expected one of coco"),
        ({"pictures": "steal"}, "expected one of copy, link, reference"),
        ({"max_distance": 20}, "max_distance=20: expected 0 to 12"),
        ({"min_score": 2}, "min_score=2: expected 0 to 1"),
        ({"query": "nothing-known"}, "unknown class"),
    ],
)
def test_what_can_not_be_meant_is_refused_and_nothing_is_left(
    wrong: dict[str, Any], why: str, catalog: Catalog, tmp_path: Path
) -> None:
    (tmp_path / "place").mkdir()
    with pytest.raises(UsageError, match=why):
        build(tmp_path / "place/set", catalog, **wrong)
    assert list((tmp_path / "place").iterdir()) == []


def test_what_is_there_is_not_overwritten(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        build(tmp_path / "set", catalog)


def test_a_set_goes_into_a_bucket(
    catalog: Catalog, tmp_path: Path, aws: pytest.MonkeyPatch
) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.create_bucket(Bucket="sets")
    done = build("s3://sets/one", catalog, format="automl-csv")
    source = open_source("s3://sets/one")
    keys = [entry.key for page in source.pages() for entry in page]
    assert len(keys) == done.images + 1
    for line in source.read("automl.csv").data.decode().splitlines():
        address = line.split(",")[1]
        at = int(Path(address).stem)
        key = address.removeprefix("s3://sets/one/")
        assert source.read(key).data == picture(at)
    with pytest.raises(UsageError, match="is not empty"):
        build("s3://sets/one", catalog)
    with pytest.raises(UsageError, match="can't hold links"):
        build("s3://sets/two", catalog, pictures="link")
    build("s3://sets/two", catalog)
    build(tmp_path / "two", catalog)
    stored = open_source("s3://sets/two")
    there = {entry.key: stored.read(entry.key).data for p in stored.pages() for entry in p}
    local = content(tmp_path / "two")
    assert there.keys() == local.keys()
    assert all(there[key] == local[key] for key in there if key.endswith(".jpg"))
    said = json.loads(there["annotations/instances_train.json"])["images"][0]
    assert said["coco_url"] == f"s3://sets/two/train/{said['file_name']}"


def test_a_bucket_that_breaks_off_has_no_annotations(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = MemorySource.create("breaks", {})
    written: list[str] = []

    def write(self: MemorySource, key: str, chunks: Any, size_bytes: int) -> None:
        written.append(key)
        if len(written) == 5:
            raise SourceError("the network is gone")

    monkeypatch.setattr(MemorySource, "write", write)
    with pytest.raises(SourceError, match="network is gone"):
        build(target.uri, catalog)
    assert not [key for key in written if key.startswith("annotations/")]


def test_the_command_prints_a_table(catalog: Catalog, tmp_path: Path) -> None:
    from vistadex.cli_datasets import print_dataset

    done = build(tmp_path / "set", catalog, per_class=10)
    lines = cli_lines(done, print_dataset)
    assert lines[0].split() == ["class", "train", "val", "test", "all"]
    assert lines[3].split() == ["cat", *map(str, done.counts["cat"].values()), "6"]
    assert lines[4].split()[0] == "images"
    assert "  cat: 4 too few" in lines
    assert any("0 groups in two splits" in line for line in lines)


def cli_lines(summary: DatasetSummary, show: Any) -> list[str]:
    import typer

    app = typer.Typer()
    app.command()(lambda: show(summary))
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_the_command_makes_the_set(catalog: Catalog, tmp_path: Path) -> None:
    import typer

    from vistadex import cli_datasets

    app = typer.Typer()
    app.command()(cli_datasets.dataset)
    place = str(tmp_path / "catalog.db")
    arguments = [str(tmp_path / "set"), "--classes", "apple,boat", "--per-class", "4"]
    more = ["--split", "50/50", "--seed", "7", "--format", "yolo", "--catalog", place, "--json"]
    result = CliRunner().invoke(app, [*arguments, *more])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["splits"].keys() == {"train", "val"}
    assert summary["images"] == len(list((tmp_path / "set/images").rglob("*.jpg")))


def test_class_lists_may_quote_commas() -> None:
    assert class_list('Apple, "Boat, sailing"') == ["Apple", "Boat, sailing"]
    with pytest.raises(UsageError, match="expected names"):
        class_list('"Apple')
