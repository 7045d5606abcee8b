"""Loading Open Images by column gives what writing it image by image gives."""

from __future__ import annotations

import csv
import gzip
import json
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import sqlalchemy as sa

import vistadex
from tests.open_images_sets import CLASSES, contents, write_set
from vistadex.catalog import Catalog, registering, tables, writing
from vistadex.errors import FormatError, UsageError
from vistadex.formats import Problems
from vistadex.formats.open_images import OpenImagesFormat
from vistadex.loading import load_open_images
from vistadex.origins import AnnotationOrigin
from vistadex.records import (
    NOMINAL_SIDE,
    AnnotatedImage,
    Classification,
    Detections,
    ImageEntry,
    Outcome,
    Relation,
    Relations,
    Task,
)
from vistadex.testing import scene_jpeg

Corners: TypeAlias = tuple[float, float, float, float]
FLAGS = {
    "IsOccluded": "occluded",
    "IsTruncated": "truncated",
    "IsGroupOf": "crowd",
    "IsDepiction": "depiction",
    "IsInside": "inside",
}
ATTRIBUTES = {
    "Subset": "split",
    "OriginalURL": "original_url",
    "License": "license",
    "Author": "author",
    "Title": "title",
    "OriginalSize": "original_size",
    "Rotation": "rotation",
}


def rows_of(folder: Path, pattern: str) -> list[dict[str, str]]:
    """The rows of all files of a kind."""
    found: list[dict[str, str]] = []
    for path in sorted(folder.glob(pattern)):
        data = path.read_bytes()
        text = gzip.decompress(data).decode() if path.suffix == ".gz" else data.decode()
        found += csv.DictReader(text.splitlines(keepends=True))
    return found


def written_by_row(folder: Path, place: Path, *, by_format: bool = False) -> Catalog:
    """A catalog of the set, written image by image through write_annotations.

    Args:
        by_format: the set is read by OpenImagesFormat, instead of by this test.
    """
    catalog = Catalog(place, create=True)
    names = list(CLASSES.values())
    index = {mid: i for i, mid in enumerate(CLASSES)}
    tasks: list[tuple[str, Task]] = [
        ("machine", "classifier"),
        ("human", "classifier"),
        ("human", "detector"),
        ("human", "relater"),
    ]
    read = format_outcomes if by_format else reference_outcomes
    outcomes = read(folder, index)
    with catalog.writing() as connection:
        source = registering.register_source(connection, str(folder))
        registered = []
        for name, task in tasks:
            origin = AnnotationOrigin(name, task, tuple(names), {})
            registered.append(registering.register_analyzer(connection, origin))
        parents = [(f"Class {i}", "Class 0") for i in range(1, 5)]
        mids = {name: mid for mid, name in CLASSES.items()}
        registering.describe_classes(connection, mids, {}, parents)
        writing.write_annotations(connection, source, registered, outcomes)
    return catalog


def reference_outcomes(folder: Path, index: dict[str, int]) -> list[Outcome]:
    """What the set says, read by the csv module."""
    said: defaultdict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    kinds = {
        "machine": "*machine-imagelabels*",
        "human": "*human-imagelabels*",
        "boxes": "*bbox.csv*",
        "relations": "*vrd.csv*",
    }
    for kind, pattern in kinds.items():
        for row in rows_of(folder, pattern):
            said[kind, row["ImageID"]].append(row)
    outcomes = []
    for row in rows_of(folder, "*images-with-rotation.csv*"):
        one = row["ImageID"]
        results = (
            labels(said["machine", one], index),
            labels(said["human", one], index),
            boxes(said["boxes", one], index),
            relations(said["relations", one]),
        )
        entry = ImageEntry(f"{one}.jpg", None, "", attributes=attributes(row))
        outcomes.append(Outcome(entry, NOMINAL_SIDE, NOMINAL_SIDE, results, seen=False))
    return outcomes


def format_outcomes(folder: Path, index: dict[str, int]) -> list[Outcome]:
    """What the set says, read image by image; boxes without who has drawn them."""
    places = {name: index[mid] for mid, name in CLASSES.items()}
    by_image: defaultdict[str, dict[str, AnnotatedImage]] = defaultdict(dict)
    for image in OpenImagesFormat().read(str(folder), Problems()):
        by_image[image.file_name][image.origin] = image
    outcomes = []
    for name, said in by_image.items():
        human, machine = said[""], said.get("machine")
        scaled = [
            replace(
                one,
                subject_xyxy=in_frame(one.subject_xyxy),
                object_xyxy=in_frame(one.object_xyxy),
            )
            for one in human.relations or ()
        ]
        results = (
            classified(machine, places),
            classified(human, places),
            detected(human, places),
            Relations(tuple(scaled)) if scaled else None,
        )
        entry = ImageEntry(name, None, "", attributes=human.attributes)
        outcomes.append(Outcome(entry, NOMINAL_SIDE, NOMINAL_SIDE, results, seen=False))
    return outcomes


def in_frame(box: Corners | None) -> Corners | None:
    """Fractions in millionths."""
    if box is None:
        return None
    x0, y0, x1, y1 = (float(round(one * 1e6)) for one in box)
    return x0, y0, x1, y1


def classified(image: AnnotatedImage | None, places: dict[str, int]) -> Classification | None:
    """Labels of an image."""
    if image is None or image.classes is None:
        return None
    scores = image.class_scores or (1.0,) * len(image.classes)
    return Classification(
        np.array(scores), np.array([places[one] for one in image.classes], np.int64)
    )


def detected(image: AnnotatedImage, places: dict[str, int]) -> Detections | None:
    """Boxes of an image, by falling score."""
    if image.boxes is None:
        return None
    ordered = sorted(image.boxes, key=lambda box: -box.score)
    return Detections(
        np.array([in_frame(box.box_xyxy) for box in ordered], np.float64),
        np.array([box.score for box in ordered]),
        np.array([places[box.class_name] for box in ordered], np.int64),
        [box.flags for box in ordered],
    )


def attributes(row: dict[str, str]) -> dict[str, Any]:
    """What a row of an image list says beside the id."""
    found: dict[str, Any] = {ATTRIBUTES[n]: v for n, v in row.items() if n in ATTRIBUTES and v}
    for name in ("rotation", "original_size"):
        if name in found:
            found[name] = int(float(found[name]))
    return found


def labels(rows: list[dict[str, str]], index: dict[str, int]) -> Classification | None:
    """The best score of each class."""
    best: dict[int, float] = {}
    for row in rows:
        class_id = index[row["LabelName"]]
        best[class_id] = max(float(row["Confidence"]), best.get(class_id, 0.0))
    if not best:
        return None
    return Classification(np.array(list(best.values())), np.array(list(best), np.int64))


def in_millionths(row: dict[str, str], suffix: str = "") -> tuple[float, float, float, float]:
    """x0, y0, x1, y1."""
    x0, y0, x1, y1 = (
        round(float(row[f"{one}{suffix}"]) * 1e6) for one in ("XMin", "YMin", "XMax", "YMax")
    )
    return x0, y0, x1, y1


def boxes(rows: list[dict[str, str]], index: dict[str, int]) -> Detections | None:
    """By falling score, then as they come."""
    if not rows:
        return None
    rows = sorted(rows, key=lambda row: -float(row["Confidence"]))
    flags = [
        {flag: row[name] == "1" for name, flag in FLAGS.items() if row[name] != "-1"}
        for row in rows
    ]
    return Detections(
        np.array([in_millionths(row) for row in rows], np.float64),
        np.array([float(row["Confidence"]) for row in rows]),
        np.array([index[row["LabelName"]] for row in rows], np.int64),
        flags,
    )


def relations(rows: list[dict[str, str]]) -> Relations | None:
    """As they come."""
    found = tuple(
        Relation(
            CLASSES[row["LabelName1"]],
            row["RelationshipLabel"],
            CLASSES[row["LabelName2"]],
            in_millionths(row, "1"),
            in_millionths(row, "2"),
        )
        for row in rows
    )
    return Relations(found) if found else None


@pytest.mark.parametrize("packed", [False, True])
def test_loading_gives_every_row_that_writing_image_by_image_gives(
    tmp_path: Path, packed: bool
) -> None:
    write_set(tmp_path / "oi", packed=packed)
    summary = load_open_images(tmp_path / "oi", catalog=tmp_path / "loaded.db")
    assert (summary.images, summary.changed) == (500, 500)
    assert {*summary.problems} == {"contradiction"}
    with (
        Catalog(tmp_path / "loaded.db") as loaded,
        written_by_row(tmp_path / "oi", tmp_path / "written.db") as written,
    ):
        found, expected = contents(loaded), contents(written)
    assert found == expected
    assert all(found[name] for name in ("image", "box", "relation_count", "predicate_count"))
    assert not (tmp_path / "loaded.db.loading").exists()


def test_loading_gives_what_the_format_reads_image_by_image(tmp_path: Path) -> None:
    write_set(tmp_path / "oi", 300)
    lists = tmp_path / "oi" / "train-images-boxable.csv"
    ids = [row["ImageID"] for row in rows_of(tmp_path / "oi", "train-images-with-rotation.csv")]
    lists.write_text("ImageID,OriginalMD5\n" + "".join(f"{one},md5 {one}\n" for one in ids[::3]))
    damage(tmp_path / "oi", ids[0])
    load_open_images(tmp_path / "oi", catalog=tmp_path / "loaded.db")
    with (
        Catalog(tmp_path / "loaded.db") as loaded,
        written_by_row(tmp_path / "oi", tmp_path / "written.db", by_format=True) as written,
    ):
        assert contents(loaded) == contents(written)


def damage(folder: Path, image: str) -> None:
    """Adds rows that are odd, and rows that can't be used."""
    corners = "0.1,0.4,0.2,0.5"
    odd: dict[str, list[str]] = {
        "train-annotations-bbox.csv": [
            f"{image},xclick,/m/01,1,-0.1,0.5,0,1.2,0,0,0,0,0",
            f"{image},xclick,/m/01,1,0.5,0.5,0,1,0,0,0,0,0",
            f"{image},xclick,/m/01,1,0.1,0.5,0,1,0,2,0,0,0",
            f"{image},xclick,/m/01,1,,0.5,0,1,0,0,0,0,0",
            f"{image},xclick,/m/01,1,0.1,0.5,0,1,,0,0,0,0",
        ],
        "oidv6-train-annotations-vrd.csv": [
            f"{image},/m/01,/m/02,,,,,,,,,at",
            f"{image},/m/01,/m/02,{corners},{corners},",
            f"{image},/m/01,/m/02,{corners},0.1,,0.2,0.3,at",
            f"{image},/m/01,/m/0unknown,{corners},{corners},at",
            f"{image},/m/01,/m/02,{corners},{corners},under",
        ],
        "oidv7-train-annotations-human-imagelabels.csv": [
            f"{image},verification,/m/05,0",
            f"{image},verification,/m/05,1",
            f"{image},verification,/m/06,",
            "ffffffffffffffff,verification,/m/05,1",
        ],
    }
    for name, rows in odd.items():
        with (folder / name).open("a") as file:
            file.writelines(f"{row}\n" for row in rows)


def test_boxes_stand_in_the_file_as_whole_numbers(tmp_path: Path) -> None:
    write_set(tmp_path / "oi", 50)
    load_open_images(tmp_path / "oi", catalog=tmp_path / "c.db")
    with Catalog(tmp_path / "c.db") as catalog, catalog.reading() as connection:
        box = connection.execute(sa.select(tables.box)).first()
        assert box is not None
        assert all(isinstance(box[i], float) and box[i].is_integer() for i in range(5, 9))


@pytest.mark.parametrize("chunk", [7, 100, 100_000])
def test_the_size_of_chunks_changes_nothing(tmp_path: Path, chunk: int) -> None:
    from vistadex.catalog import bulk
    from vistadex.formats.open_images_columns import OpenImagesColumns
    from vistadex.formats.open_images_files import find_files
    from vistadex.progress import Silent

    write_set(tmp_path / "oi", 300)
    load_open_images(tmp_path / "oi", catalog=tmp_path / "a.db")
    with Problems() as problems, Catalog(tmp_path / "b.db", create=True) as catalog:
        columns = OpenImagesColumns(find_files(str(tmp_path / "oi"), problems))
        tasks: dict[str, Task] = {
            "labels": "classifier",
            "boxes": "detector",
            "relations": "relater",
        }
        who = {
            (name, kind): AnnotationOrigin(name or "human", tasks[kind], (), {})
            for name, kind in columns.origins
        }
        loading = bulk.Loading(source_uri=str(tmp_path / "oi"), analyzers=who)
        bulk.load(catalog, columns, loading, problems, Silent(), chunk=chunk)
        with Catalog(tmp_path / "a.db") as whole:
            assert contents(catalog) == contents(whole)


def test_loading_again_changes_nothing(tmp_path: Path) -> None:
    write_set(tmp_path / "oi", 200)
    load_open_images(tmp_path / "oi", catalog=tmp_path / "c.db")
    with Catalog(tmp_path / "c.db") as catalog:
        before, revision = contents(catalog), last_change(catalog)
        summary = load_open_images(tmp_path / "oi", catalog=catalog)
        assert (summary.images, summary.changed) == (200, 0)
        assert contents(catalog) == before
        assert last_change(catalog) == revision


def last_change(catalog: Catalog) -> int:
    """The number of the last change."""
    with catalog.reading() as connection:
        return int(connection.execute(sa.select(tables.state.c.revision)).scalar_one())


def test_a_catalog_with_other_images_gets_the_same_rows_beside_them(tmp_path: Path) -> None:
    write_set(tmp_path / "other", 60, seed=9)
    write_set(tmp_path / "oi", 200)
    with (
        Catalog(tmp_path / "both.db", create=True) as both,
        written_by_row(tmp_path / "oi", tmp_path / "oi.db") as alone,
    ):
        load_open_images(tmp_path / "other", catalog=both)
        others = len(contents(both)["image"])
        load_open_images(tmp_path / "oi", catalog=both)
        found, expected = contents(both), contents(alone)
        for name in ("image", "analysis", "box", "image_class", "relation", "image_relation"):
            assert set(expected[name]) <= set(found[name])
        assert len(found["image"]) == others + 200
        assert_counts_are_true(both)


def assert_counts_are_true(catalog: Catalog) -> None:
    """Compares the counts with what they count."""
    counts = {
        "class_count": "SELECT class_id, analyzer_id, count(*), sum(boxes) FROM image_class",
        "relation_count": "SELECT type_id, analyzer_id, count(*), sum(relations) "
        "FROM image_relation",
        "predicate_count": "SELECT predicate_id, analyzer_id, count(DISTINCT image_id), "
        "sum(relations) FROM image_relation JOIN relation_type ON id = type_id",
    }
    with catalog.reading() as connection:
        for table, query in counts.items():
            for rows, group in ((query, "1, 2"), (without_analyzer(query), "1")):
                expected = connection.execute(sa.text(f"{rows} GROUP BY {group}")).all()
                where = "= 0" if group == "1" else "> 0"
                stated = connection.execute(
                    sa.text(f"SELECT * FROM {table} WHERE analyzer_id {where}")
                ).all()
                assert sorted(map(tuple, stated)) == sorted(map(tuple, expected))


def without_analyzer(query: str) -> str:
    """The same query for any analyzer."""
    query = query.replace("analyzer_id", "0", 1)
    return query.replace("count(*)", "count(DISTINCT image_id)")


def test_what_changed_at_its_source_is_replaced(tmp_path: Path) -> None:
    write_set(tmp_path / "oi", 200)
    load_open_images(tmp_path / "oi", catalog=tmp_path / "c.db")
    human = next((tmp_path / "oi").glob("*train*human*"))
    lines = human.read_text().splitlines(keepends=True)
    human.write_text("".join([*lines[:50], *lines[60:]]))
    bbox = tmp_path / "oi" / "train-annotations-bbox.csv"
    bbox.write_text(bbox.read_text().replace(",0.5,", ",0.75,"))
    with Catalog(tmp_path / "c.db") as catalog:
        summary = load_open_images(tmp_path / "oi", catalog=catalog)
        assert 0 < summary.changed < 200
        with written_by_row(tmp_path / "oi", tmp_path / "written.db") as written:
            assert contents(catalog) == contents(written)


def test_damaged_rows_are_reported_with_file_and_line_and_the_rest_is_loaded(
    tmp_path: Path,
) -> None:
    write_set(tmp_path / "oi", 100)
    human = next((tmp_path / "oi").glob("*train*human*"))
    lines = human.read_text().splitlines()
    image = lines[1].split(",")[0]
    bad = {
        5: f"{image},human,/m/01,one",
        9: f"{image},human",
        12: "ffffffffffffffff,human,/m/01,1",
        13: "no such image,human,/m/01,1",
        20: f"{image},human,/m/0unknown,1",
        21: f"{image},human,/m/01,1.5",
        22: f'{image},human,"/m/01,1',
    }
    good = [line for i, line in enumerate(lines, 1) if i not in bad]
    mixed = [bad.get(i, line) for i, line in enumerate(lines, 1)]
    human.write_text("\n".join(mixed) + "\n")
    report = tmp_path / "report.jsonl"
    summary = load_open_images(tmp_path / "oi", catalog=tmp_path / "c.db", report=report)
    said = list(map(json.loads, report.read_text().splitlines()))
    found = {one["place"] for one in said if one["kind"] != "contradiction"}
    assert found == {f"{human} line {line}" for line in bad}
    contradictions = summary.problems.pop("contradiction")
    assert contradictions == sum(one["kind"] == "contradiction" for one in said) > 0
    assert summary.problems == {"bad-row": 4, "unknown-image": 2, "unknown-class": 1}
    human.write_text("\n".join(good) + "\n")
    with (
        Catalog(tmp_path / "c.db") as loaded,
        written_by_row(tmp_path / "oi", tmp_path / "written.db") as written,
    ):
        assert contents(loaded) == contents(written)


def test_other_ids_than_hexadecimal_ones_are_loaded(tmp_path: Path) -> None:
    write_set(tmp_path / "oi", 60)
    ids = [row["ImageID"] for row in rows_of(tmp_path / "oi", "*images-with-rotation.csv")]
    new = {one: f"Photo {i} ü" for i, one in enumerate(ids[::2])}
    for path in (tmp_path / "oi").glob("*.csv"):
        text = path.read_text()
        for one, name in new.items():
            text = text.replace(f"{one},", f"{name},")
        path.write_text(text)
    load_open_images(tmp_path / "oi", catalog=tmp_path / "c.db")
    with (
        Catalog(tmp_path / "c.db") as loaded,
        written_by_row(tmp_path / "oi", tmp_path / "written.db") as written,
    ):
        assert contents(loaded) == contents(written)


def test_an_image_that_two_lists_name_is_there_once(tmp_path: Path) -> None:
    write_set(tmp_path / "oi", 80)
    twice = tmp_path / "oi" / "train-images-boxable.csv"
    whole = (tmp_path / "oi" / "train-images-with-rotation.csv").read_text()
    load_open_images(tmp_path / "oi", catalog=tmp_path / "once.db")
    twice.write_text(whole)
    summary = load_open_images(tmp_path / "oi", catalog=tmp_path / "twice.db")
    assert (summary.images, summary.repeated_images) == (80, 60)
    with Catalog(tmp_path / "once.db") as once, Catalog(tmp_path / "twice.db") as twice_:
        assert contents(once) == contents(twice_)


def test_lists_in_any_order_give_the_same(tmp_path: Path) -> None:
    write_set(tmp_path / "oi", 200)
    load_open_images(tmp_path / "oi", catalog=tmp_path / "sorted.db")
    rng = random.Random(3)
    for pattern in ("*human*", "*machine*", "*bbox.csv"):
        for path in (tmp_path / "oi").glob(pattern):
            header, *rows = path.read_text().splitlines(keepends=True)
            groups: defaultdict[str, list[str]] = defaultdict(list)
            for row in rows:
                groups[row.split(",")[0]].append(row)
            names = list(groups)
            rng.shuffle(names)
            path.write_text("".join([header, *(row for name in names for row in groups[name])]))
    load_open_images(tmp_path / "oi", catalog=tmp_path / "mixed.db")
    with Catalog(tmp_path / "sorted.db") as one, Catalog(tmp_path / "mixed.db") as other:
        assert contents(one) == contents(other)


def test_attributes_can_be_left_out_and_that_is_said(tmp_path: Path) -> None:
    write_set(tmp_path / "oi", 20)
    summary = load_open_images(
        tmp_path / "oi", catalog=tmp_path / "c.db", attributes=["split", "original_url"]
    )
    assert any("License" in name for name in summary.losses)
    with Catalog(tmp_path / "c.db") as catalog, catalog.reading() as connection:
        for found in connection.execute(sa.select(tables.image.c.attributes)).scalars():
            assert set(found) == {"original_url"}
        sets = connection.execute(sa.select(tables.attribute_set.c.attributes)).scalars().all()
        assert {frozenset(one) for one in sets} == {frozenset({"split"})}


def test_a_folder_without_image_lists_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    write_set(tmp_path / "oi", 20)
    for path in (tmp_path / "oi").glob("*images-with*"):
        path.unlink()
    with pytest.raises(FormatError, match="no list of images"):
        load_open_images(tmp_path / "oi", catalog=tmp_path / "c.db")
    with Catalog(tmp_path / "c.db") as catalog:
        assert contents(catalog)["source"] == []


def test_the_name_of_a_model_that_has_looked_is_refused(tmp_path: Path) -> None:
    from vistadex.testing import RedSquareDetector

    write_set(tmp_path / "oi", 20)
    with Catalog(tmp_path / "c.db", create=True) as catalog:
        with catalog.writing() as connection:
            registering.register_analyzer(connection, RedSquareDetector())
        with pytest.raises(UsageError, match="choose another"):
            load_open_images(tmp_path / "oi", catalog=catalog, model=RedSquareDetector().name)


KILLED = """
import sys
from vistadex.loading import load_open_images
load_open_images(sys.argv[1], catalog=sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("filled", [False, True])
def test_a_load_that_is_killed_again_and_again_ends_with_the_same(
    tmp_path: Path, filled: bool
) -> None:
    write_set(tmp_path / "oi", 3000)
    write_set(tmp_path / "other", 20, seed=4)
    places = [tmp_path / "calm.db", tmp_path / "killed.db"]
    if filled:
        for place in places:
            load_open_images(tmp_path / "other", catalog=place)
    load_open_images(tmp_path / "oi", catalog=places[0])
    rng = random.Random(5)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "oi"), str(places[1])]
    kills = 0
    for _ in range(8):
        process = subprocess.Popen(command)
        time.sleep(rng.uniform(0.5, 2.0))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills
    load_open_images(tmp_path / "oi", catalog=places[1])
    with Catalog(places[0]) as calm, Catalog(places[1]) as killed:
        assert contents(calm) == contents(killed)
        with killed.reading() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


def test_reading_by_row_keeps_the_attributes_that_are_wanted(tmp_path: Path) -> None:
    folder = tmp_path / "oi"
    folder.mkdir()
    (folder / "class-descriptions.csv").write_text("/m/01,Person\n")
    header = "ImageID,Subset,OriginalURL,License\n"
    (folder / "train-images-with-rotation.csv").write_text(header + "0123456789abcdef,train,u,l\n")
    labels = "ImageID,Source,LabelName,Confidence\n0123456789abcdef,verification,/m/01,1\n"
    (folder / "train-annotations-human-imagelabels.csv").write_text(labels)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "0123456789abcdef.jpg").write_bytes(scene_jpeg([]))
    for images in (None, pictures):
        place = tmp_path / f"{images is None}.db"
        done = vistadex.import_annotations(
            "open-images", folder, images=images, attributes=["split"], catalog=place
        )
        assert done.imported == 1
        assert sum("icense" in one for one in done.losses) == 1
        with vistadex.Catalog(place) as catalog:
            (found,) = catalog.search("Person").results
            assert found.image.attributes == {"split": "train"}
