"""Collections: named sets of images, and searches in them, by plain SQL and by posting lists."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from vistadex.catalog import Catalog, collections, registering, tables, writing
from vistadex.catalog.following import Following
from vistadex.errors import NotFoundError, QueryError, UsageError
from vistadex.records import Detections, ImageEntry, Outcome
from vistadex.testing import RedSquareDetector

CLASSES = ("dog", "cat", "person")


class _Detector(RedSquareDetector):
    classes = CLASSES


def outcome(key: str, *class_ids: int, score: float = 0.5) -> Outcome:
    boxes = np.tile(np.array([1, 2, 30, 40], np.float32), (len(class_ids), 1))
    scores = np.full(len(class_ids), score, np.float32)
    found = Detections(boxes, scores, np.array(class_ids, np.int64))
    return Outcome(ImageEntry(key, 1, "v1"), 100, 100, (found,))


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    """Images 1 to 6: dog, dog, dog and cat, cat, person, nothing; scores fall."""
    with Catalog(catalog_url, create=True) as opened:
        with opened.writing() as connection:
            source = registering.register_source(connection, "/photos")
            analyzer = registering.register_analyzer(connection, _Detector())
            found = [(0,), (0,), (0, 1), (1,), (2,), ()]
            outcomes = [
                outcome(f"{i}.jpg", *ids, score=0.9 - i / 10) for i, ids in enumerate(found)
            ]
            writing.write_outcomes(connection, source, [analyzer], outcomes)
        yield opened


def ids(catalog: Catalog, query: str) -> list[int]:
    found = [result.image.id for result in catalog.search(query).results]
    assert catalog.count(query) == len(found)
    assert list(catalog.ids(query)) == found
    assert [image.id for image in catalog.walk(query)] == found
    assert catalog.facets(query).images == len(found)
    return found


def as_pairs(catalog: Catalog) -> list[tuple[str, int]]:
    return [(one.name, one.images) for one in catalog.collections()]


def test_images_are_collected_once_however_often_it_is_said(catalog: Catalog) -> None:
    first = catalog.collect("best", [1, 3, 3])
    again = catalog.collect("best", [3, 4])
    assert (first.changed, first.collection.images) == (2, 2)
    assert (again.changed, again.collection.images) == (1, 3)
    assert first.collection.id == again.collection.id
    assert as_pairs(catalog) == [("best", 3)]
    assert ids(catalog, "collection:best") == [4, 3, 1]


def test_taking_out_leaves_the_rest(catalog: Catalog) -> None:
    catalog.collect("best", [1, 2, 3])
    done = catalog.uncollect("best", [2, 5])
    assert (done.changed, done.collection.images) == (1, 2)
    assert ids(catalog, "collection:best") == [3, 1]


def test_a_whole_query_is_collected_and_taken_out(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collections, "AT_A_TIME", 2)
    assert catalog.collect("animals", query="dog | cat").changed == 4
    assert catalog.collect("animals", query="").changed == 2
    assert catalog.uncollect("animals", query="cat").changed == 2
    assert ids(catalog, "collection:animals") == [6, 5, 2, 1]


def test_an_empty_collection_is_one(catalog: Catalog) -> None:
    assert catalog.collect("later").collection.images == 0
    assert as_pairs(catalog) == [("later", 0)]
    assert ids(catalog, "collection:later") == []
    assert ids(catalog, "dog -collection:later") == [1, 2, 3]


def test_unknown_ids_are_named_and_nothing_is_done(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError, match=r"no image has the id 77; `vistadex search --json`"):
        catalog.collect("best", [1, 77])
    with pytest.raises(NotFoundError, match=r"have the ids 0, 70, 71, 72, 73, …;"):
        catalog.collect("best", [0, *range(70, 90)])
    assert catalog.collections() == []
    catalog.collect("best", [1])
    with pytest.raises(NotFoundError, match="the id 77"):
        catalog.uncollect("best", [1, 77])
    assert as_pairs(catalog) == [("best", 1)]


def test_ids_and_a_query_are_too_much(catalog: Catalog) -> None:
    with pytest.raises(UsageError, match="expected one of them"):
        catalog.collect("best", [1], query="dog")


def test_a_bad_query_collects_nothing(catalog: Catalog) -> None:
    with pytest.raises(QueryError, match="unknown class 'unicorn'"):
        catalog.collect("best", query="unicorn")
    assert catalog.collections() == []


@pytest.mark.parametrize("name", ["", "  ", "x" * 256, 'a"b', "a\nb", "a\0b", "a\x7fb", "\ud800"])
def test_names_that_no_query_could_write_are_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises(UsageError, match="collection name"):
        catalog.collect(name, [1])
    catalog.collect("best", [1])
    with pytest.raises(UsageError, match="collection name"):
        catalog.rename_collection("best", name)
    assert as_pairs(catalog) == [("best", 1)]


@pytest.mark.parametrize("name", ["Best", "été 🐕", "x" * 255, "犬" * 255, "a & b | -c", "2026's"])
def test_any_other_name_is_found_byte_for_byte(catalog: Catalog, name: str) -> None:
    catalog.collect("best", [1])
    catalog.collect(f" {name} ", [2])
    assert ids(catalog, f'collection:"{name}"') == [2]


def test_a_renamed_collection_keeps_its_images(catalog: Catalog) -> None:
    catalog.collect("best", [1, 2])
    catalog.collect("worst", [3])
    renamed = catalog.rename_collection("best", "very best")
    assert (renamed.name, renamed.images) == ("very best", 2)
    assert as_pairs(catalog) == [("very best", 2), ("worst", 1)]
    assert catalog.rename_collection(renamed.id, "very best") == renamed
    with pytest.raises(UsageError, match="'worst': there is one already"):
        catalog.rename_collection("very best", "worst")
    with pytest.raises(NotFoundError, match="unknown collection 'best'"):
        catalog.rename_collection("best", "other")


def test_a_deleted_collection_leaves_its_images(catalog: Catalog) -> None:
    kept = catalog.collect("kept", [1]).collection
    gone = catalog.collect("gone", [1, 2]).collection
    assert catalog.delete_collection("gone") == gone
    assert as_pairs(catalog) == [("kept", 1)]
    assert catalog.stats().images == 6
    with pytest.raises(NotFoundError, match=f"collection {gone.id + 7}: no such id"):
        catalog.delete_collection(gone.id + 7)
    with pytest.raises(NotFoundError, match="unknown collection 'gone'"):
        catalog.uncollect("gone", [1])
    assert catalog.delete_collection(kept.id) == kept
    with catalog.reading() as connection:
        assert not connection.execute(sa.select(tables.collection_image)).all()


def test_deleted_images_leave_their_collections(catalog: Catalog) -> None:
    catalog.collect("best", [1, 2, 3])
    with catalog.writing() as connection:
        writing.delete_images(connection, [2])
    assert as_pairs(catalog) == [("best", 2)]


def test_an_image_says_its_collections(catalog: Catalog) -> None:
    catalog.collect("b", [1, 2])
    catalog.collect("a", [1])
    assert catalog.collections_of(1) == ["a", "b"]
    assert catalog.collections_of(2) == ["b"]
    assert catalog.collections_of(3) == []


def test_an_unknown_collection_in_a_query_names_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(QueryError, match="there is none yet; `vistadex collect"):
        catalog.search("collection:best")
    catalog.collect("Holidays 2026", [1])
    with pytest.raises(QueryError, match="did you mean Holidays 2026") as caught:
        catalog.search('dog collection:"holidays 2025"')
    assert caught.value.suggestions == ("Holidays 2026",)
    with pytest.raises(QueryError, match="`vistadex collections` lists all"):
        catalog.count("-collection:zzzzzz")


def test_searches_in_a_collection_rank_as_usual(catalog: Catalog) -> None:
    catalog.collect("best", [1, 3, 4, 6])
    catalog.collect("more", [3, 4, 5])
    assert ids(catalog, "dog collection:best") == [1, 3]
    assert ids(catalog, "dog | cat collection:best") == [3, 1, 4]
    assert ids(catalog, "collection:best collection:more") == [4, 3]
    assert ids(catalog, "dog -collection:best") == [2]
    assert ids(catalog, "-collection:best") == [5, 2]
    assert ids(catalog, "collection:best -collection:more -dog") == [6]
    assert ids(catalog, "cat sort:newest collection:more") == [4, 3]


def test_facets_follow_a_collection(catalog: Catalog) -> None:
    catalog.collect("best", [1, 3])
    assert catalog.facets("collection:best").classes == (("dog", 2), ("cat", 1))
    catalog.collect("best", [4])
    assert catalog.facets("collection:best").classes == (("dog", 2), ("cat", 2))


def test_pages_of_a_collection_have_no_gaps(catalog: Catalog) -> None:
    catalog.collect("best", query="")
    found, after = [], None
    while True:
        page = catalog.search("collection:best", limit=2, after=after)
        found += [one.image.id for one in page.results]
        if (after := page.next) is None:
            break
    assert found == [6, 5, 4, 3, 2, 1]


QUERIES = (
    "collection:some",
    "-collection:some",
    "collection:some -collection:others",
    "dog collection:some",
    "dog | cat collection:others",
    "dog & person -collection:some",
    "dog -cat collection:some",
    "dog>=2 collection:some",
    "score>0.4 collection:some",
    "size>=0.2 collection:others",
    "cat sort:newest collection:some",
    "duplicate:exact collection:some",
    "duplicate:exact -collection:some",
    "status:ok -collection:others",
    "split:train collection:some",
    "split:train dog -collection:some",
)


@pytest.mark.parametrize("seed", range(4))
def test_posting_lists_and_plain_sql_find_the_same_in_collections(
    catalog_url: str, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    with (
        Catalog(catalog_url, create=True) as listed,
        Catalog(catalog_url, postings=False) as plain,
    ):
        write_some(listed, rng, 80)
        listed.postings = Following(listed.reading, tmp_path / "postings")
        assert listed.postings.rebuild()
        for _ in range(3):
            known = list(plain.ids())
            for name in ("some", "others"):
                listed.collect(name, rng.sample(known, rng.randint(0, len(known))))
                listed.uncollect(name, rng.sample(known, rng.randint(0, 20)))
            for query in QUERIES:
                assert_alike(listed, plain, query, rng.choice([1, 7, 1000]))
            with listed.writing() as connection:
                writing.delete_images(connection, rng.sample(known, 5))
            write_some(listed, rng, 20)


def write_some(catalog: Catalog, rng: random.Random, number: int) -> None:
    with catalog.writing() as connection:
        source = registering.register_source(connection, "/photos")
        analyzer = registering.register_analyzer(connection, _Detector())
        outcomes = []
        for key in rng.sample(range(100), number):
            found = rng.choices(range(3), k=rng.randint(0, 3))
            one = outcome(f"{key}.jpg", *found, score=rng.choice([0.25, 0.5, 0.75]))
            split = {"split": rng.choice(["train", "test"])}
            entry = ImageEntry(one.entry.key, 1, f"v{rng.random()}", attributes=split)
            content = bytes([rng.randint(0, 30)] * 16)
            outcomes.append(
                Outcome(entry, one.width, one.height, one.results, content_hash=content)
            )
        writing.write_outcomes(connection, source, [analyzer], outcomes)


def assert_alike(listed: Catalog, plain: Catalog, query: str, limit: int) -> None:
    assert list(listed.ids(query)) == list(plain.ids(query)), query
    assert listed.count(query) == plain.count(query), query
    assert listed.facets(query) == plain.facets(query), query
    after = None
    while True:
        one = listed.search(query, limit=limit, after=after)
        assert one == plain.search(query, limit=limit, after=after), query
        if (after := one.next) is None:
            break
