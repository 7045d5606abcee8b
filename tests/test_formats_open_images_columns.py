"""Open Images' CSV files by column: ids, lines of what is damaged, and attributes."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vistadex.errors import FormatError
from vistadex.formats import Problems
from vistadex.formats.columns import NO_SET
from vistadex.formats.csv_blocks import BLOCK_BYTES, Type, read_blocks
from vistadex.formats.open_images_columns import MOST_SETS, Files, OpenImagesColumns
from vistadex.formats.open_images_ids import ImageIds, hex_numbers

COLUMNS: dict[str, Type] = {"ImageID": "text", "Label": "name", "Score": "number"}


def read(path: Path, problems: Problems) -> list[tuple[str, str, str, float]]:
    """Place, id, label and score of every row."""
    found = []
    for block in read_blocks(str(path), COLUMNS, problems):
        ids, names = block.columns["ImageID"].to_pylist(), block.columns["Label"].to_pylist()
        scores = block.numbers("Score").tolist()
        for row, values in enumerate(zip(ids, names, scores, strict=True)):
            found.append((block.place(row), *values))
    return found


def test_hexadecimal_ids_are_their_numbers() -> None:
    rng = random.Random(1)
    texts = [f"{rng.getrandbits(64):016x}" for _ in range(1000)]
    numbers, is_hex = hex_numbers(pa.array(texts))
    assert is_hex.all()
    assert numbers.tolist() == [int(one, 16) for one in texts]


@pytest.mark.parametrize("text", ["", "123", "000000000000000G", "000000000000000A", "0" * 17])
def test_other_ids_are_not_taken_for_numbers(text: str) -> None:
    _, is_hex = hex_numbers(pa.array([text, "0123456789abcdef"]))
    assert is_hex.tolist() == [False, True]


def test_an_id_is_found_where_it_was_added_first(tmp_path: Path) -> None:
    names = ["ffffffffffffffff", "b", "0000000000000001", "a\0", "a", "b", "0000000000000001"]
    ids = ImageIds()
    ids.add(pa.array(names[:3]))
    ids.add(pa.array(names[3:]))
    ids.finish()
    wanted = pa.array([*names, "c", "0000000000000002"])
    assert ids.find(wanted).tolist() == [0, 1, 2, 3, 4, 1, 2, -1, -1]
    assert sorted(ids.repeated.tolist()) == [[5, 1], [6, 2]]
    ids.save(tmp_path)
    again = ImageIds()
    again.restore(tmp_path)
    assert again.find(wanted).tolist() == ids.find(wanted).tolist()
    assert again.repeated.tolist() == ids.repeated.tolist()


def test_a_slice_of_ids_is_read_from_its_beginning() -> None:
    ids = pa.array(["0000000000000001", "0000000000000002", "0000000000000003"])
    assert hex_numbers(ids.slice(1))[0].tolist() == [2, 3]


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_rows_have_their_lines_and_do_not_take_others_with_them(
    tmp_path: Path, packed: bool
) -> None:
    data = (
        b'ImageID,Label,Score\na,x,0.5\n\nb,"y",1\nc,z,much\nd,z\n"two\nlines",x,0.25\n'
        b'"open,x,1\n\xff\xfe,x,1\r\ne,x,0.1'
    )
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    problems = Problems()
    assert read(path, problems) == [
        (f"{path} line 2", "a", "x", 0.5),
        (f"{path} line 4", "b", "y", 1.0),
        (f"{path} line 7", "two\nlines", "x", 0.25),
        (f"{path} line 11", "e", "x", 0.1),
    ]
    assert [one.place for one in problems.first] == [f"{path} line {n}" for n in (5, 6, 9, 10)]


def test_rows_across_blocks_are_read_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    filler = "x" * 1000
    number = 2 * BLOCK_BYTES // 1000
    with path.open("w") as file:
        file.write("ImageID,Label,Score,More\n")
        for i in range(number):
            if i == number - 5:
                file.write(f"{i},bad\n")
            file.write(f'{i},a,0.5,"{filler}\n"\n' if i % 1000 == 0 else f"{i},a,0.5,{filler}\n")
    problems = Problems()
    found = read(path, problems)
    assert [int(one[1]) for one in found] == list(range(number))
    lines = path.read_text().split("\n")
    wrong = [n for n, line in enumerate(lines, 1) if line.endswith(",bad")]
    assert [one.place for one in problems.first] == [f"{path} line {n}" for n in wrong]
    place, *values = found[-1]
    assert lines[int(place.rpartition(" ")[2]) - 1].startswith(f"{values[0]},")


def test_a_row_without_end_is_damage_and_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"ImageID,Label,Score\na,x,1\n")
        for _ in range(40):
            file.write(b"x" * BLOCK_BYTES)
        file.write(b"\nb,y,1\n")
    problems = Problems()
    tracemalloc.start()
    found = read(path, problems)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [one[1] for one in found] == ["a", "b"]
    assert [one.place for one in problems.first] == [f"{path} line 3"]
    assert peak < 12 * BLOCK_BYTES


def test_a_file_without_a_needed_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("ImageID,Label\na,b\n")
    with pytest.raises(FormatError, match="no column Score"):
        read(path, Problems())


def columns_of(tmp_path: Path, **files: str) -> OpenImagesColumns:
    """A set of such files, whose images are read."""
    paths = {}
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
        paths[name] = str(tmp_path / f"{name}.csv")
    found = Files(
        [(paths["images"], "train")],
        [(paths["labels"], None)] if "labels" in paths else [],
        [paths["boxes"]] if "boxes" in paths else [],
        [],
        {"/m/1": "One", "/m/2": "Two"},
    )
    return OpenImagesColumns(found)


def test_attributes_of_images_are_json_whatever_is_in_them(tmp_path: Path) -> None:
    text = (
        "ImageID,Subset,OriginalURL,Title,OriginalSize,Rotation\n"
        'a,test,https://x/1,"say ""ah""",12,90.0\nb,,,back\\slash,,\nc,,,,1.5,nan\n'
    )
    [images] = columns_of(tmp_path, images=text).images(Problems())
    assert list(images.keys) == ["a.jpg", "b.jpg", "c.jpg"]
    assert [json.loads(one or "{}") for one in images.attributes] == [
        {"original_url": "https://x/1", "title": 'say "ah"', "original_size": 12},
        {"title": "back\\slash"},
        {"original_size": 1.5},
    ]
    assert [json.loads(images.sets[i]) for i in images.set_of.tolist()] == [
        {"split": "train", "rotation": 90},
        {"split": "train"},
        {"split": "train", "rotation": "nan"},
    ]


def test_images_share_sets_of_what_columns_with_few_values_say(tmp_path: Path) -> None:
    rows = ["ImageID,OriginalURL,License,Rotation"]
    rows += [f"{i:016x},https://x/{i},by,{i % 4 * 90}.0" for i in range(400)]
    [images] = columns_of(tmp_path, images="\n".join(rows) + "\n").images(Problems())
    assert len(images.sets) == 4
    assert json.loads(images.sets[images.set_of[6]]) == {
        "split": "train",
        "license": "by",
        "rotation": 180,
    }
    assert json.loads(images.attributes[6] or "") == {"original_url": "https://x/6"}


def test_a_column_with_many_values_makes_no_sets(tmp_path: Path) -> None:
    rows = ["ImageID,License"] + [f"{i:016x},license {i}" for i in range(MOST_SETS + 1)]
    [images] = columns_of(tmp_path, images="\n".join(rows) + "\n").images(Problems())
    assert not images.sets
    assert set(images.set_of.tolist()) == {NO_SET}
    assert json.loads(images.attributes[7] or "") == {"split": "train", "license": "license 7"}


def test_images_of_which_nothing_is_said_have_no_set(tmp_path: Path) -> None:
    text = "ImageID,Rotation\na,\nb,90.0\n"
    (tmp_path / "images.csv").write_text(text)
    files = Files([(str(tmp_path / "images.csv"), "")], [], [], [], {"/m/1": "One"})
    [images] = OpenImagesColumns(files).images(Problems())
    assert list(images.attributes) == [None, None]
    assert images.set_of[0] == NO_SET
    assert json.loads(images.sets[images.set_of[1]]) == {"rotation": 90}


def test_labels_are_a_machine_s_where_their_source_says_so(tmp_path: Path) -> None:
    labels = "ImageID,Source,LabelName,Confidence\na,machine,/m/1,0.3\na,verification,/m/2,0\n"
    columns = columns_of(tmp_path, images="ImageID,Rotation\na,\n", labels=labels)
    list(columns.images(Problems()))
    assert columns.origins == [("machine", "labels"), ("", "labels")]
    found = list(columns.read("labels", columns.files["labels"][0], Problems()))
    assert [(one.origin, one.classes.tolist(), one.scores.tolist()) for one in found] == [
        ("machine", [0], [300_000]),
        ("", [1], [0]),
    ]


def test_boxes_out_of_the_picture_are_left_out_or_cut_off_and_said(tmp_path: Path) -> None:
    rows = ["0,0.5,0,0.5", "-0.0005,0.5,0,1", "-0.2,0.5,0,1", "0.5,0.5,0,1", "nan,1,0,1"]
    boxes = "ImageID,LabelName,XMin,XMax,YMin,YMax\n" + "".join(f"a,/m/1,{r}\n" for r in rows)
    columns = columns_of(tmp_path, images="ImageID,Rotation\na,\n", boxes=boxes)
    problems = Problems()
    list(columns.images(problems))
    [found] = columns.read("boxes", columns.files["boxes"][0], problems)
    assert problems.counts == {"cut-off": 2, "outside": 1, "bad-row": 1}
    corners = [[0, 0, 500_000, 500_000], [0, 0, 500_000, 1_000_000], [0, 0, 500_000, 1_000_000]]
    np.testing.assert_array_equal(found.corners, corners)
    assert found.scores.tolist() == [1_000_000] * 3
