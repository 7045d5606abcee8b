"""Copies in a catalog: which are found, which is the best, what is said about the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import sqlalchemy as sa
import typer
from typer.testing import CliRunner

from vistadex.catalog import Catalog, hashes, tables, writing
from vistadex.cli_duplicates import duplicates
from vistadex.decoding import decode, encode_jpeg, perceptual_hash
from vistadex.errors import DecodingError, QueryError, UsageError
from vistadex.finding_duplicates import DuplicateGroup, find_duplicates
from vistadex.indexing import index
from vistadex.records import Pixels
from vistadex.testing import MemorySource, RedSquareDetector, scene_jpeg

SCENE = [("red square", 20, 30, 40), ("blue square", 100, 60, 25), ("red square", 70, 5, 18)]
OTHER = [("blue square", 5, 5, 50), ("blue square", 90, 80, 30), ("red square", 120, 10, 21)]


def half(data: bytes) -> bytes:
    """The picture at half its size."""
    pixels = decode(data).pixels
    height, width = pixels.shape[:2]
    return encode_jpeg(cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA))


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """Two copies and a smaller one of a scene, another scene twice, blank pages, broken files."""
    scene, other = scene_jpeg(SCENE), scene_jpeg(OTHER)
    blank = encode_jpeg(np.full((90, 90, 3), 255, np.uint8))
    files = {
        "a-small.jpg": half(scene),
        "b.jpg": scene,
        "c-same.jpg": scene,
        "d-other.jpg": other,
        "e-other.jpg": other,
        "f-blank.jpg": blank,
        "g-blank.jpg": encode_jpeg(np.full((80, 80, 3), 0, np.uint8)),
        "h-broken.jpg": scene[:300],
        "i-broken.jpg": scene[:300],
        "j-empty.jpg": b"",
        "k-empty.jpg": b"",
    }
    MemorySource.create("duplicates", files)
    with Catalog(tmp_path / "catalog.db", create=True) as opened:
        # One thread: ids are in the order of the names.
        index("memory://duplicates", detector=RedSquareDetector(), catalog=opened, threads=1)
        yield opened


def names(group: DuplicateGroup) -> list[str]:
    return [Path(one.uri).name for one in group.images]


def test_same_bytes_are_found_whether_they_are_a_picture_or_not(catalog: Catalog) -> None:
    found = find_duplicates(catalog=catalog)
    assert [names(group) for group in found] == [
        ["b.jpg", "c-same.jpg"],
        ["d-other.jpg", "e-other.jpg"],
        ["h-broken.jpg", "i-broken.jpg"],
    ]
    assert {group.kind for group in found} == {"exact"}
    assert (found.groups, found.copies) == (3, 3)
    assert found.bytes == sum(one.size_bytes for group in found for one in group.images[1:])
    assert (found.older, found.unseen) == (0, 0)


def test_a_smaller_copy_is_near_and_stands_behind_the_best(catalog: Catalog) -> None:
    first, second, third = find_duplicates(near=4, catalog=catalog)
    assert names(first) == ["b.jpg", "c-same.jpg", "a-small.jpg"]
    assert first.kind == "near"
    assert [one.same_bytes for one in first.images] == [True, True, False]
    assert [one.distance for one in first.images][:2] == [0, 0]
    assert 0 <= (first.images[2].distance or 0) <= 4
    assert (second.kind, third.kind) == ("exact", "exact")


def test_looks_alone_leave_out_what_is_no_picture(catalog: Catalog) -> None:
    found = [names(group) for group in find_duplicates(exact=False, near=4, catalog=catalog)]
    assert found == [["b.jpg", "c-same.jpg", "a-small.jpg"], ["d-other.jpg", "e-other.jpg"]]


def test_blank_pages_are_not_copies_of_each_other(catalog: Catalog) -> None:
    found = find_duplicates(near=12, catalog=catalog)
    assert not any("blank" in name for group in found for name in names(group))


def test_a_query_narrows_what_is_compared(catalog: Catalog) -> None:
    found = find_duplicates(near=4, query="red square>=2", catalog=catalog)
    assert [names(group) for group in found] == [["b.jpg", "c-same.jpg", "a-small.jpg"]]
    with pytest.raises(QueryError, match="unknown class"):
        find_duplicates(query="unicorn", catalog=catalog)


def test_copies_of_a_better_one_are_named_by_rising_id(catalog: Catalog) -> None:
    groups = list(find_duplicates(near=hashes.NEAR_DISTANCE, catalog=catalog))
    worse = sorted(one.id for group in groups for one in group.images[1:])
    with catalog.reading() as connection:
        assert hashes.duplicate_ids(connection, "near").tolist() == worse
        exact = hashes.duplicate_ids(connection, "exact").tolist()
    assert len(exact) == 3
    assert set(exact) < set(worse)


def set_images(catalog: Catalog, **values: object) -> None:
    """Changes all images."""
    with catalog.writing() as connection:
        connection.execute(sa.update(tables.image).values(**values))


def test_images_without_hashes_are_counted(catalog: Catalog) -> None:
    set_images(catalog, content_hash=None, perceptual_hash=None)
    found = find_duplicates(near=6, catalog=catalog)
    assert list(found) == []
    assert (found.groups, found.copies, found.bytes) == (0, 0, 0)
    assert (found.older, found.unseen) == (7, 0)
    set_images(catalog, status="unseen")
    assert find_duplicates(catalog=catalog).unseen == 11


def test_copies_are_found_anew_in_a_catalog_that_went_back_and_on(catalog: Catalog) -> None:
    assert catalog.count("duplicate:exact") == 2
    gone = catalog.image("memory://duplicates/d-other.jpg").id
    state, change = tables.state, tables.change
    with catalog.writing() as connection:  # as where an older copy of it is restored
        last = connection.execute(sa.select(state.c.revision)).scalar_one()
        connection.execute(sa.delete(change).where(change.c.revision == last))
        connection.execute(sa.update(state).values(revision=last - 1))
        writing.delete_images(connection, [gone])
        assert connection.execute(sa.select(state.c.revision)).scalar_one() == last
    assert catalog.count("duplicate:exact") == 1


def test_vanished_images_are_no_copies(catalog: Catalog) -> None:
    set_images(catalog, status="vanished")
    assert list(find_duplicates(near=6, catalog=catalog)) == []


def test_images_removed_since_are_left_out_of_groups(catalog: Catalog) -> None:
    found = find_duplicates(near=4, catalog=catalog)
    gone = catalog.image("memory://duplicates/e-other.jpg").id
    with catalog.writing() as connection:
        writing.delete_images(connection, [gone])
    assert [names(group) for group in found] == [
        ["b.jpg", "c-same.jpg", "a-small.jpg"],
        ["h-broken.jpg", "i-broken.jpg"],
    ]


def test_an_empty_catalog_has_no_copies(tmp_path: Path) -> None:
    with Catalog(tmp_path / "new.db", create=True) as catalog:
        assert list(find_duplicates(near=6, catalog=catalog)) == []


@pytest.mark.parametrize(
    ("exact", "near", "message"),
    [(False, None, "neither exact nor near"), (True, 13, "expected 0 to 12 bits")],
)
def test_what_can_not_be_found_is_refused(
    catalog: Catalog, exact: bool, near: int | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        find_duplicates(exact=exact, near=near, catalog=catalog)


def test_many_rows_are_read_in_pages_and_by_id(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with catalog.reading() as connection:
        whole = hashes.hashes(connection)
        some = hashes.hashes(connection, whole.ids[2:5])
        monkeypatch.setattr(hashes, "_ROWS", 2)
        paged = hashes.hashes(connection)
        monkeypatch.setattr(hashes, "_FEW", 0)
        filtered = hashes.hashes(connection, whole.ids[2:5])
    for a, b in ((whole.perceptual, paged.perceptual), (whole.content, paged.content)):
        assert np.array_equal(a, b)
    for found in (some, filtered):
        assert found.ids.tolist() == whole.ids[2:5].tolist()
        assert np.array_equal(found.content, whole.content[2:5])


def run(catalog: Catalog, *options: str) -> tuple[list[str], str]:
    """Lines of stdout, and stderr."""
    app = typer.Typer()
    app.command()(duplicates)
    done = CliRunner().invoke(app, [*options, "--catalog", catalog.place])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines(), done.stderr


def test_the_command_prints_groups_and_totals(catalog: Catalog) -> None:
    lines, said = run(catalog, "--near", "4", "--limit", "1")
    assert [line.split()[:3] for line in lines] == [["160", "x", "120"]] * 2 + [["80", "x", "60"]]
    assert lines[0].endswith("/b.jpg")
    assert lines[1].endswith("/c-same.jpg  [same bytes]")
    assert "looks alike, " in lines[2]
    assert "1 of 3 groups; in all 4 images are copies of a better one" in said


def test_the_command_says_what_was_not_compared(catalog: Catalog) -> None:
    set_images(catalog, content_hash=None)
    assert "7 images were not compared" in run(catalog)[1]
    assert "--only all" in run(catalog)[1]


def test_the_command_prints_a_group_a_line_as_json(catalog: Catalog) -> None:
    groups = [json.loads(line) for line in run(catalog, "--near", "4", "--json")[0]]
    assert [group["kind"] for group in groups] == ["near", "exact", "exact"]
    assert set(groups[0]["images"][0]) == {
        *("id", "uri", "width", "height", "size_bytes", "distance", "same_bytes")
    }


def variants(data: bytes) -> dict[str, bytes]:
    """Copies as they are met."""
    pixels = decode(data).pixels
    height, width = pixels.shape[:2]
    y, x = round(height * 0.01), round(width * 0.01)
    brighter: Pixels = np.clip(pixels.astype(np.int16) + 25, 0, 255).astype(np.uint8)
    return {
        "half": half(data),
        "quality": encode_jpeg(pixels, quality=60),
        "crop": encode_jpeg(np.ascontiguousarray(pixels[y : height - y, x : width - x])),
        "bright": encode_jpeg(brighter),
    }


def test_real_copies_are_found_and_nothing_else(shared_data: Path, tmp_path: Path) -> None:
    paths = sorted((shared_data / "imagenette").glob("*.JPEG"))[::4]
    paths += sorted((shared_data / "coco/images").glob("*/*.jpg"))[::8]
    files, original, number = {}, {}, 0
    for path in paths:
        data = path.read_bytes()
        if perceptual_hash_of(data) is None:
            continue
        files[path.name] = data
        for kind, copy in variants(data).items() if number % 5 == 0 else ():
            files[f"{path.stem}-{kind}.jpg"] = copy
            original[f"{path.stem}-{kind}.jpg"] = path.name
        number += 1
    MemorySource.create("real", files)
    catalog = Catalog(tmp_path / "catalog.db", create=True)
    index("memory://real", detector=RedSquareDetector(), catalog=catalog)
    recalls = {}
    for distance in (4, 6, 8, 10, 12):
        right = wrong = 0
        for group in find_duplicates(near=distance, catalog=catalog):
            pictures = [original.get(name, name) for name in names(group)]
            right += len(pictures) - len(set(pictures))
            wrong += len(set(pictures)) - 1
        recalls[distance] = right / len(original)
        assert wrong == 0 or distance > 8
    catalog.close()
    assert recalls[4] > 0.95
    assert recalls[8] > 0.99


def perceptual_hash_of(data: bytes) -> int | None:
    """The hash of a file; None where it is no picture, too."""
    try:
        return perceptual_hash(decode(data).pixels)
    except DecodingError:
        return None
