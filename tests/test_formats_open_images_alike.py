"""Open Images read by row and by column: the same rows, the same problems, the same losses."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from tests.open_images_sets import CLASSES, contents, write_set
from vistadex import importing
from vistadex.catalog import Catalog, tables
from vistadex.cli import app
from vistadex.formats.open_images import OpenImagesFormat
from vistadex.importing import ImportSummary, import_annotations
from vistadex.loading import load_open_images

CORNERS = "0.1,0.4,0.2,0.5"
ROWS = {
    "train-annotations-bbox.csv": [
        "{id},xclick,/m/01,1,-0.1,0.5,0,1.2,0,0,0,0,0",
        "{id},xclick,/m/01,1,-0.0000001,0.5,0,1,0,0,0,0,0",
        "{id},xclick,/m/01,1,-0.0000015,0.5,0,1,0,0,0,0,0",
        "{id},xclick,/m/01,1,0.5,0.5,0,1,0,0,0,0,0",
        "{id},xclick,/m/01,1,1.5,2,0,1,0,0,0,0,0",
        "{id},xclick,/m/01,1,0.1,0.5,0,1,0,2,0,0,0",
        "{id},xclick,/m/01,1,0.1,0.5,0,1,0,200,0,0,0",
        "{id},xclick,/m/01,1,0.1,0.5,0,1,0,yes,0,0,0",
        "{id},xclick,/m/01,1,0.1,0.5,0,1,,0,0,0,0",
        "{id},xclick,/m/01,1,,0.5,0,1,0,0,0,0,0",
        "{id},xclick,/m/01,1,nan,0.5,0,inf,0,0,0,0,0",
        "{id},xclick,/m/01,1,left,0.5,0,1,0,0,0,0,0",
        "{id},xclick,/m/0x,1,-0.5,0.5,0,1,0,7,0,0,0",
        "{id},xclick,,1,0.1,0.5,0,1,0,0,0,0,0",
        "nobody,xclick,/m/01,1,-0.5,0.5,0,1,0,0,0,0,0",
        "nobody,xclick,/m/0x,1,0.1,0.5,0,1,0,0,0,0,0",
        " ,xclick,/m/01,1,0.1,0.5,0,1,0,0,0,0,0",
        "{id},,/m/01,,0.1,0.5,0,1,0,0,0,0,0",
        "{id},,/m/01,-1,0.1,0.5,0,1,0,0,0,0,0",
    ],
    "oidv6-train-annotations-vrd.csv": [
        "{id},/m/01,/m/02,,,,,,,,,at",
        f"{{id}},/m/01,/m/02,{CORNERS},,,,,at",
        f"{{id}},/m/01,/m/02,{CORNERS},{CORNERS}, ",
        f"{{id}},/m/01,/m/02,{CORNERS},0.1,,0.2,0.3,at",
        "{id},/m/01,/m/02,-0.1,0.4,0.2,0.5,0.4,0.1,0.2,0.3,at",
        f"{{id}},/m/01,/m/02,-0.1,0.4,0.2,0.5,{CORNERS},under",
        f"{{id}},/m/0x,/m/0y,{CORNERS},{CORNERS},at",
        f"{{id}},/m/01,/m/0y,{CORNERS},{CORNERS},at",
        f"nobody,/m/01,/m/02,{CORNERS},{CORNERS},at",
        "{id},/m/01",
    ],
    "oidv7-train-annotations-human-imagelabels.csv": [
        "{id},verification,/m/05,0",
        "{id},crowdsource-verification,/m/05,1",
        "{id},verification,/m/05,0.5",
        "{id},verification,/m/05,0.5",
        "{id},verification,/m/06,",
        "{id},verification,/m/06,much",
        "{id},verification,/m/06,1_0",
        "{id},verification,/m/06,1.5",
        "{id},verification,/m/0x,much",
        "ab\0c,verification,/m/06,1",
        '"{id},verification,/m/06,1',
        "\udcff\udcfe,verification,/m/06,1",
        '"two\nlines",verification,/m/06,1',
        "",
        "ffffffffffffffff,verification,/m/05,1",
        ",verification,/m/05,1",
    ],
    "train-images-with-rotation.csv": [
        ",train,,,,,,,,,,",
        "photo,train,https://x/\udcff,,,,,,,,,",
        'other,train,"https://x/""1""",,,,,,007,,,12.50',
        "picture.PNG,train,,,,,,,1e3,,,nan",
    ],
}


def damaged(folder: Path) -> Path:
    """A set in which much is wrong."""
    write_set(folder, 60)
    image = (folder / "train-images-with-rotation.csv").read_text().splitlines()[1].split(",")[0]
    for name, rows in ROWS.items():
        path = folder / name
        lines = path.read_text().splitlines(keepends=True)
        for i, row in enumerate(rows):
            lines.insert(2 + 2 * i, row.replace("{id}", image) + "\n")
        if name.startswith("train-images"):  # a title may be longer than a line
            lines = [*path.read_text().splitlines(keepends=True), *(f"{row}\n" for row in rows)]
        path.write_bytes("".join(lines).encode("utf-8", "surrogateescape"))
    box = folder / "validation-annotations-bbox.csv"
    box.write_text(
        "ImageID,LabelName,XMin,XMax,YMin,YMax,XClick1X\n"
        f"{image},/m/03,0.1,0.2,0.3,0.4,0.5\n{image},/m/03,0.2,0.4,0.3,0.4,-1\n"
    )
    labels = folder / "more-labels.csv"
    labels.write_text(
        f"ImageID,Source,LabelName,Confidence\n{image},machine,/m/07,0.3\n{image},human,/m/08,1\n"
    )
    (folder / "oidv6-validation-annotations-vrd.csv").write_text(
        f"ImageID,LabelName1,LabelName2,RelationLabel\n{image},/m/01,/m/02,beside\n"
    )
    (folder / "train-images-boxable.csv").write_text(
        f"ImageID,Subset,Rotation,Note\n{image},test,270.0,seen\nphoto,train,,\n"
    )
    (folder / "oidv6-attributes-description.csv").write_text("id,name\n/m/0wood,Wooden\n")
    (folder / "oidv6-relationships-description.csv").write_text("is,is\n")
    (folder / "train-masks.csv").write_text("MaskPath,BoxID\nx,y\n")
    return folder


def by_row(folder: Path, catalog: Path, monkeypatch: pytest.MonkeyPatch) -> ImportSummary:
    """Imports as if the set could not be read by column."""
    with monkeypatch.context() as patch:
        patch.setattr(importing, "can_load", lambda _: False)
        report = catalog.with_suffix(".jsonl")
        return import_annotations("open-images", folder, catalog=catalog, report=report)


def problems_in(report: Path) -> Counter[tuple[str, ...]]:
    """Problems of a report; contradictions without their place, which by column is the image's."""
    found: Counter[tuple[str, ...]] = Counter()
    for one in map(json.loads, report.read_text().splitlines()):
        place = "" if one["kind"] == "contradiction" else one["place"]
        found[one["kind"], place, one["found"], one["expected"], one["cure"]] += 1
    return found


def test_both_ways_give_the_same_rows_problems_and_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = damaged(tmp_path / "oi")
    report = tmp_path / "column.jsonl"
    column = import_annotations("open-images", folder, catalog=tmp_path / "c.db", report=report)
    row = by_row(folder, tmp_path / "row.db", monkeypatch)
    assert problems_in(report) == problems_in(tmp_path / "row.jsonl")
    kinds = {"bad-row", "unknown-image", "unknown-class", "outside", "cut-off", "contradiction"}
    assert {*column.problems} == {*kinds, "unknown-file"}
    drawn = "how a box was drawn (Source)"
    assert column.losses.pop(drawn) > 0
    assert column.losses == row.losses
    assert row.losses["the column XClick1X"] == 1
    numbers = [(s.images, s.imported, s.boxes, s.relations) for s in (column, row)]
    assert numbers[0] == numbers[1]
    with Catalog(tmp_path / "c.db") as one, Catalog(tmp_path / "row.db") as other:
        assert same_rows(one) == same_rows(other)


def same_rows(catalog: Catalog) -> dict[str, list[str]]:
    """All rows but for who has drawn a box."""
    found = contents(catalog)
    found["box"] = [re.sub(r"'attributes': .*", "", one) for one in found["box"]]
    return found


def test_a_contradiction_names_the_image_where_lines_are_not_known(tmp_path: Path) -> None:
    folder = damaged(tmp_path / "oi")
    summary = load_open_images(folder, catalog=tmp_path / "c.db", report=tmp_path / "r.jsonl")
    said = [json.loads(one) for one in (tmp_path / "r.jsonl").read_text().splitlines()]
    found = sorted(one["found"] for one in said if one["kind"] == "contradiction")
    assert found[0] == "Confidence 0 and 0.5 and 1 of 'Class 5'"
    assert "split 'train', and 'test' before" in found
    assert all(
        one["place"].startswith(str(folder)) and ".jpg'" in one["place"]
        for one in said
        if one["kind"] == "contradiction"
    )
    assert summary.repeated_labels >= 3


def test_loading_leaves_what_is_known_of_an_origin(tmp_path: Path, shared_data: Path) -> None:
    coco = shared_data / "coco"
    place = tmp_path / "c.db"
    import_annotations("coco", coco / "instances_val.json", images=coco / "images" / "val",
                       catalog=place)  # fmt: skip
    with Catalog(place) as catalog:
        before = contents_of_cards(catalog)
        write_set(tmp_path / "oi", 20)
        load_open_images(tmp_path / "oi", catalog=catalog)
        after = contents_of_cards(catalog)
    assert before["human/detector"]["category_ids"]
    assert after["human/detector"] == before["human/detector"]


def contents_of_cards(catalog: Catalog) -> dict[str, dict[str, object]]:
    """What is known of each model."""
    with catalog.reading() as connection:
        rows = connection.execute(sa.select(tables.model)).all()
    return {f"{row.name}/{row.task}": json.loads(row.card) for row in rows}


def test_the_first_rows_of_descriptions_are_no_classes(tmp_path: Path) -> None:
    about = OpenImagesFormat().about(str(damaged(tmp_path / "oi")))
    assert {*about.external_ids} == {*CLASSES.values(), "Wooden"}


def published(shared_data: Path, folder: Path) -> Path:
    """The real boxes with a list of their images, as the whole set has it."""
    folder.mkdir()
    for name in ("class-descriptions-boxable.csv", "test-annotations-bbox.csv"):
        (folder / name).write_bytes((shared_data / "openimages" / name).read_bytes())
    lines = (folder / "test-annotations-bbox.csv").read_text().splitlines()[1:]
    ids = sorted({line.split(",")[0] for line in lines})
    rows = [f"{one},test,https://x/{one}_o.jpg,{i % 4 * 90}.0" for i, one in enumerate(ids)]
    (folder / "test-images-with-rotation.csv").write_text(
        "\n".join(["ImageID,Subset,OriginalURL,Rotation", *rows, ""])
    )
    return folder


def test_published_boxes_are_the_same_both_ways(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = published(shared_data, tmp_path / "oi")
    column = import_annotations("open-images", folder, catalog=tmp_path / "c.db")
    row = by_row(folder, tmp_path / "row.db", monkeypatch)
    assert column.boxes == row.boxes == 2784
    assert column.problems == row.problems == {"no-name": 1}
    with Catalog(tmp_path / "c.db") as one, Catalog(tmp_path / "row.db") as other:
        assert same_rows(one) == same_rows(other)


def test_pictures_are_found_by_their_names_without_folder_and_ending(
    shared_data: Path, tmp_path: Path
) -> None:
    folder = published(shared_data, tmp_path / "oi")
    boxes = (folder / "test-annotations-bbox.csv").read_text().splitlines()[1:]
    ids = sorted({line.split(",")[0] for line in boxes})
    pictures = tmp_path / "pictures"
    for name, size in ((f"a/{ids[0]}.jpg", 100), (f"b/{ids[1]}.png", 50), ("other.jpg", 10)):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(pictures / name), np.zeros((size, 2 * size, 3), np.uint8))
    load_open_images(folder, catalog=tmp_path / "c.db")
    summary = import_annotations("open-images", folder, images=pictures, catalog=tmp_path / "c.db")
    assert (summary.imported, summary.without_annotation) == (2, 1)
    assert summary.problems == {"no-name": 1, "no-picture": len(ids) - 2}
    with Catalog(tmp_path / "c.db") as catalog, catalog.reading() as connection:
        found = connection.execute(
            sa.select(tables.image).where(tables.image.c.width < 1000).order_by("key")
        ).all()
        assert [(row.key, row.width, row.height) for row in found] == [
            (f"a/{ids[0]}.jpg", 200, 100),
            (f"b/{ids[1]}.png", 100, 50),
        ]
        wanted = [line.split(",") for line in boxes if line.startswith(ids[0])]
        stated = sorted((float(one[4]) * 200, float(one[6]) * 100) for one in wanted)
        box = tables.box
        rows = connection.execute(sa.select(box).where(box.c.image_id == found[0].id)).all()
        np.testing.assert_allclose(sorted((row.x0, row.y0) for row in rows), stated)


def test_the_command_says_what_it_did_whichever_way(shared_data: Path, tmp_path: Path) -> None:
    folder = published(shared_data, tmp_path / "oi")
    place = ["--catalog", str(tmp_path / "c.db")]
    whole = CliRunner().invoke(app, ["import", "open-images", str(folder), *place])
    assert whole.exit_code == 0, whole.output
    assert "2,281 imported with 2,784 boxes of 601 classes" in whole.stdout
    assert "not kept: 2,784 how a box was drawn (Source)" in whole.stdout
    again = CliRunner().invoke(app, ["import", "open-images", str(folder), *place])
    assert again.exit_code == 0
    (folder / "test-images-with-rotation.csv").unlink()
    rows = CliRunner().invoke(app, ["import", "open-images", str(folder), *place])
    assert rows.exit_code == 0
    assert "2,281 imported with 2,784 boxes of 6 classes" in rows.stdout
    assert "1 no-image-list" in rows.stdout
    (folder / "test-annotations-bbox.csv").write_text("ImageID,XMin\na,1\n")
    broken = CliRunner().invoke(app, ["import", "open-images", str(folder), *place])
    assert broken.exit_code != 0
    assert "line 1: no column LabelName, YMin, XMax, YMax" in str(broken.exception)
