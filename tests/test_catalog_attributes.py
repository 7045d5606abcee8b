"""vistadex.catalog.attributes: an image has what its set says and what it has alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.open_images_sets import write_set
from tests.test_catalog import commit, outcome
from tests.test_loading import rows_of
from vistadex.catalog import Catalog, attributes, reading, registering, tables, writing
from vistadex.catalog.checking import check_catalog
from vistadex.loading import load_open_images
from vistadex.origins import AnnotationOrigin
from vistadex.records import ImageEntry, Json, Outcome

SHARED: list[str] = ['{"split":"train","n":7.0}', '{"split":"val","good":true}']


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    """Images 1 to 3 of /photos: of the first set, of the second, and without one."""
    with Catalog(catalog_url) as opened:
        commit(opened, [outcome(f"{i}.jpg", [(0, 0.5)]) for i in (1, 2, 3)])
        with opened.writing() as connection:
            for id_, set_id in enumerate(attributes.set_ids(connection, SHARED), 1):
                share(connection, id_, set_id)
        yield opened


def share(
    connection: sa.Connection, image_id: int, set_id: int, own: Mapping[str, Json] | None = None
) -> None:
    statement = sa.update(tables.image).where(tables.image.c.id == image_id)
    connection.execute(statement.values(attribute_set_id=set_id, attributes=own))


def stored(catalog: Catalog) -> list[tuple[int, object, int | None]]:
    image = tables.image
    query = sa.select(image.c.id, image.c.attributes, image.c.attribute_set_id)
    with catalog.reading() as connection:
        return [tuple(row) for row in connection.execute(query.order_by(image.c.id))]


def known(catalog: Catalog) -> list[Mapping[str, Json] | None]:
    """Attributes as planning sees them."""
    with catalog.reading() as connection:
        return [one.attributes for one in reading.known_images(connection, 1, [1], None, None)]


def test_a_set_is_entered_once(catalog: Catalog) -> None:
    with catalog.writing() as connection:
        first = attributes.set_ids(connection, SHARED)
        spaced = '{"split": "train", "n": 7.0}'
        assert attributes.set_ids(connection, [SHARED[1], spaced, SHARED[1]]) == [
            first[1],
            first[0],
            first[1],
        ]
        whole, number = attributes.set_ids(connection, ['{"n":7}', '{"n":7.0}'])
        assert whole != number
        assert len(connection.execute(sa.select(tables.attribute_set)).all()) == 4


def test_an_image_has_its_set_s_attributes_and_its_own_win(catalog: Catalog) -> None:
    with catalog.writing() as connection:
        share(connection, 1, 1, {"split": "test", "url": "u"})
    assert known(catalog) == [
        {"split": "test", "n": 7.0, "url": "u"},
        {"split": "val", "good": True},
        None,
    ]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("split:train", [1]),
        ("split:val", [2]),
        ("n:7.0", [1]),
        ("n:7", []),
        ("good:true", [2]),
        ("good:TRUE", [2]),
        ("split:train n:7.0", [1]),
        ("split:train good:true", []),
        ("url:u", []),
    ],
)
def test_attributes_of_sets_are_searched(catalog: Catalog, query: str, ids: list[int]) -> None:
    assert found(catalog, query) == ids


def found(catalog: Catalog, query: str) -> list[int]:
    alone = sorted(one.image.id for one in catalog.search(query).results)
    # With a class, the same is asked in the other way.
    assert sorted(one.image.id for one in catalog.search(f"red square {query}").results) == alone
    return alone


@pytest.mark.parametrize(
    ("own", "query", "is_found"),
    [
        ({"split": "test"}, "split:train", False),
        ({"split": "test"}, "split:test", True),
        ({"split": None}, "split:train", False),
        ({"split": ["x"]}, "split:train", False),
        ({"other": "train"}, "split:train", True),
        ({"split": "test"}, "n:7.0", True),
    ],
)
def test_search_finds_own_attributes_before_those_of_the_set(
    catalog: Catalog, own: dict[str, Json], query: str, is_found: bool
) -> None:
    with catalog.writing() as connection:
        share(connection, 1, 1, own)
    assert (1 in found(catalog, query)) is is_found


def test_new_attributes_leave_the_set_and_keep_only_what_it_does_not_say(catalog: Catalog) -> None:
    with catalog.writing() as connection:
        new = {
            1: {"split": "train", "n": 7, "url": "u"},
            2: {"split": "val", "good": True},
            3: {"split": "val"},
        }
        attributes.replace_attributes(connection, new)
    assert stored(catalog) == [
        (1, {"n": 7, "url": "u"}, 1),
        (2, None, 2),
        (3, {"split": "val"}, None),
    ]


def test_an_attribute_that_is_taken_away_takes_the_image_out_of_its_set(catalog: Catalog) -> None:
    with catalog.writing() as connection:
        attributes.replace_attributes(connection, {1: {"n": 7.0}, 2: None})
    assert stored(catalog) == [(1, {"n": 7.0}, None), (2, None, None), (3, None, None)]


def test_truth_is_not_the_number_one() -> None:
    shared = {"good": True, "n": 1, "x": None}
    same = {"good": 1, "n": 1.0, "x": None}
    assert attributes.own_part(same, shared) == {"good": 1, "n": 1.0}
    assert attributes.whole(attributes.own_part(same, shared), shared) == same


def test_reading_a_picture_again_adds_to_what_its_set_says(catalog: Catalog) -> None:
    write(catalog, [entry("1.jpg", split="train", url="u"), entry("2.jpg"), entry("3.jpg", a=1)])
    assert stored(catalog) == [(1, {"url": "u"}, 1), (2, None, 2), (3, {"a": 1}, None)]
    write(catalog, [entry("1.jpg", split="test"), entry("3.jpg", b=2)])
    assert stored(catalog)[0] == (1, {"split": "test", "url": "u"}, 1)
    assert stored(catalog)[2] == (3, {"a": 1, "b": 2}, None)
    write(catalog, [entry("1.jpg", split="train")])
    assert stored(catalog)[0] == (1, {"url": "u"}, 1)


def entry(key: str, **said: Json) -> ImageEntry:
    return ImageEntry(key, 10, "v2", attributes=said)


def write(catalog: Catalog, entries: Sequence[ImageEntry]) -> None:
    commit(catalog, [Outcome(one, 640, 480, (None,)) for one in entries])


def test_annotations_add_to_what_the_set_of_an_image_says(catalog: Catalog) -> None:
    said = [
        Outcome(
            ImageEntry("1.jpg", None, "", attributes={"split": "train", "url": "u"}), seen=False
        ),
        Outcome(ImageEntry("2.jpg", None, "", attributes={"good": False}), seen=False),
    ]
    with catalog.writing() as connection:
        origin = AnnotationOrigin("human", "detector", (), {})
        analyzer = registering.register_analyzer(connection, origin)
        writing.write_annotations(connection, 1, [analyzer], said)
    assert stored(catalog) == [(1, {"url": "u"}, 1), (2, {"good": False}, 2), (3, None, None)]


def test_a_set_that_is_missing_is_found_and_one_without_images_is_none_of_the_damages(
    catalog: Catalog, catalog_url: str
) -> None:
    with catalog.writing() as connection:
        attributes.set_ids(connection, ['{"license":"by"}'])
    assert check_catalog(catalog_url) == []
    with catalog.writing() as connection:
        connection.execute(sa.delete(tables.attribute_set).where(tables.attribute_set.c.id == 2))
    (found_,) = check_catalog(catalog_url)
    assert str(found_) == "image: 1 rows whose attribute_set_id is no attribute_set: 2"


def test_deleted_images_leave_their_collections(catalog: Catalog, catalog_url: str) -> None:
    collection, collected = tables.collection, tables.collection_image
    with catalog.writing() as connection:
        for name in ("a", "b"):
            connection.execute(sa.insert(collection).values(name=name, made_at=0))
        pairs = [(1, 1), (1, 2), (1, 3), (2, 2)]
        rows = [{"collection_id": one, "image_id": image} for one, image in pairs]
        connection.execute(sa.insert(collected), rows)
    with catalog.writing() as connection:
        writing.delete_images(connection, [2, 3])
    with catalog.reading() as connection:
        assert connection.execute(sa.select(collected)).all() == [(1, 1)]
        assert len(connection.execute(sa.select(collection)).all()) == 2
    assert check_catalog(catalog_url) == []


def test_an_image_of_two_lists_has_what_both_say_of_it(tmp_path: Path) -> None:
    write_set(tmp_path / "oi", 80)
    place = tmp_path / "oi" / "train-images-with-rotation.csv"
    first, second = (
        row["ImageID"] for row in itertools.islice(rows_of(place.parent, place.name), 2)
    )
    more = f"ImageID,License,Title,Thumbnail300KURL\n{first},other,A title,\n{second},,,t\n"
    (tmp_path / "oi" / "train-images-boxable.csv").write_text(more)
    summary = load_open_images(tmp_path / "oi", catalog=tmp_path / "c.db")
    with Catalog(tmp_path / "c.db") as catalog:
        one, two = (
            catalog.image(f"{place.parent}/{name}.jpg").attributes for name in (first, second)
        )
    assert summary.repeated_images == 2
    assert one == {
        "split": "train",
        "license": "other",
        "title": "A title",
        "rotation": one["rotation"],
        "original_url": f"https://x.org/{first}_o.jpg",
        "author": "A, B",
        "original_size": 9,
    }
    assert (two["license"], two["title"], two["thumbnail_300k_url"]) == ("L", "plain", "t")
    told = [text.split(": ")[1] for text in summary.first_problems if first in text]
    assert [text.split(", expected")[0] for text in told if "before" in text] == [
        "license 'L', and 'other' before",
        "title 'plain', and 'A title' before",
    ]
