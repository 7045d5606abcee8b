"""Facets with names, and counts of classes: exact after any change, and counted once."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from tests.test_catalog_postings_equal import ANALYZERS, change, random_scope
from vistadex import jsonable
from vistadex.catalog import (
    Catalog,
    ClassCount,
    QueryFacets,
    changes,
    query_facets,
    ranking,
    ranking_facets,
    registering,
    tables,
    writing,
)
from vistadex.catalog.answering import Answers
from vistadex.catalog.following import Following, Tier
from vistadex.catalog.query_facets import KnownFacets, Question
from vistadex.catalog.ranking import Search
from vistadex.catalog.scope import Scope, Wanted
from vistadex.errors import CatalogError, QueryError, UsageError
from vistadex.origins import AnnotationOrigin
from vistadex.records import Classification, ImageEntry, Outcome

QUERIES = (
    "",
    "dog",
    "cat",
    "dog & cat",
    "dog | cat | car",
    "dog -cat",
    "-dog",
    "-dog -cat>=2",
    "dog>=2",
    'relation:"dog//"',
    'relation:"dog/on/cat" | person',
)


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    with Catalog(catalog_url, create=True) as opened:
        yield opened


def filled(catalog: Catalog, rng: random.Random) -> None:
    """Images of three sources that are ok, failed, vanished and unseen, by every analyzer."""
    with catalog.writing() as connection:
        for one in ANALYZERS:
            registering.register_analyzer(connection, one)
        registering.ids_by_name(connection, tables.predicate, ["on"])
    for _ in range(6):
        change(catalog, rng, 40)
    with catalog.writing() as connection:
        ids = connection.execute(sa.select(tables.image.c.id)).scalars().all()
        writing.set_status(connection, ids[: len(ids) // 5], "vanished")
        source_id = registering.register_source(connection, "/a")
        whole = registering.register_analyzer(connection, ANALYZERS[2])
        said = Classification(np.array([0.5]), np.array([0]))
        never_read = Outcome(ImageEntry("never", None, ""), 0, 0, (said,), seen=False)
        writing.write_annotations(connection, source_id, [whole], [never_read])


def facets_of(catalog: Catalog, query: str, **options: object) -> QueryFacets | str:
    """The facets, or what is wrong with the query."""
    try:
        return catalog.facets(query, **options)
    except QueryError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(2))
def test_facets_by_posting_lists_and_by_plain_sql_are_equal(
    catalog: Catalog, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed:
        monkeypatch.setattr(ranking_facets, "FEW_ROWS", 0)
        monkeypatch.setattr(ranking_facets, "CHUNK", 64)
    rng = random.Random(seed)
    filled(catalog, rng)
    assert catalog.postings is not None
    assert catalog.postings.rebuild()
    url = catalog.engine.url.render_as_string(hide_password=False)
    with Catalog(url, postings=False) as plain:
        for _ in range(2):
            for query in QUERIES:
                for options in ({}, {"min_score": 0.5}, {"source": "b"}, {"model": "second"}):
                    found = facets_of(catalog, query, **options)
                    assert found == facets_of(plain, query, **options)
                    assert found == facets_of(catalog, query, **options)
            change(catalog, rng, 9)


def test_every_number_beside_a_facet_is_what_its_query_finds(catalog: Catalog) -> None:
    filled(catalog, random.Random(5))
    for postings in (False, True):
        if postings:
            assert catalog.postings is not None
            catalog.postings.rebuild()
            change(catalog, random.Random(6), 9)
        for query in ("", "dog", "dog & cat", "dog | cat", "-dog"):
            found = catalog.facets(query)
            assert found.images == catalog.count(query) > 0
            for field in (found.sources, found.statuses):
                assert sum(number for _, number in field) == found.images
            assert dict(found.sources) == {
                uri: number for uri in "/a /b /c".split() if (number := of(catalog, query, uri))
            }
            assert {one.name: one.images for one in found.origins} == {
                name: number
                for name in {one.name for one in ANALYZERS}
                if (number := catalog.count(query, model=name))
            }
            by_class = dict(found.classes)
            if query == "dog":
                assert all(catalog.count(f"dog & {name}") == n for name, n in by_class.items())
    assert {"ok", "vanished", "unseen"} <= dict(catalog.facets().statuses).keys()


def of(catalog: Catalog, query: str, uri: str) -> int:
    return catalog.count(query, source=uri)


def test_models_of_one_name_are_one_origin_and_people_are_told_apart(catalog: Catalog) -> None:
    said = Classification(np.array([0.5]), np.array([0]))
    with catalog.writing() as connection:
        source = registering.register_source(connection, "/a")
        human = AnnotationOrigin("human", "classifier", ("dog", "cat"), {})
        boxes = AnnotationOrigin("human", "classifier", ("dog", "cat"), {}, {"part": 2})
        people = [registering.register_analyzer(connection, one) for one in (human, boxes)]
        model = registering.register_analyzer(connection, ANALYZERS[2])
        outcomes = [Outcome(ImageEntry(f"{i}", 1, "v"), 9, 9, (said, said)) for i in range(3)]
        writing.write_annotations(connection, source, people, outcomes)
        looked = [Outcome(ImageEntry("0", 1, "v"), 9, 9, (said,))]
        writing.write_outcomes(connection, source, [model], looked)
    expected = [("human", True, 3), ("whole", False, 1)]
    assert [tuple(one) for one in catalog.facets("dog").origins] == expected
    assert [tuple(one) for one in catalog.facets(model="whole").origins] == expected[1:]
    assert jsonable.facets(catalog.facets("dog"))["origins"][0] == {
        "model": "human",
        "by_people": True,
        "images": 3,
    }


def snapshot(catalog: Catalog, folder: Path) -> Tier:
    """The posting lists of a catalog as it is."""
    following = Following(catalog.reading, folder / "postings")
    assert following.rebuild()
    with catalog.reading() as connection:
        view = following.current(connection)
    assert view is not None
    return view.tiers[0]


def test_a_snapshot_has_the_facets_of_its_largest_classes(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(8)
    filled(catalog, rng)
    monkeypatch.setattr(ranking_facets, "FEW_STORED", 20)
    tier = snapshot(catalog, tmp_path)
    rows = np.diff(tier.postings.lists["class"].starts)
    assert tier.postings.facets_of.size == np.count_nonzero(rows >= 20) + 1 > 2
    for key in tier.postings.facets_of.tolist():
        search = Search(tier.postings, tier.dead, ranking_facets._stored_scope(key))
        for one in (search, replace(search, scope=replace(search.scope, one_analyzer=True))):
            kept, counted = ranking_facets.stored(one), ranking_facets.facets(one)
            assert kept is not None
            assert repr(kept) == repr(counted)
    for _ in range(200):
        scope = random_scope(rng)
        known = ranking_facets.stored(Search(tier.postings, tier.dead, scope))
        is_stored = any(
            replace(scope, one_analyzer=False) == ranking_facets._stored_scope(key)
            for key in tier.postings.facets_of.tolist()
        )
        assert (known is not None) == is_stored


@pytest.mark.parametrize("few", [0, 3, 1000])
def test_facets_by_what_is_left_out_equal_those_that_are_counted(
    catalog: Catalog, tmp_path: Path, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(11)
    filled(catalog, rng)
    monkeypatch.setattr(ranking_facets, "FEW_STORED", 1)
    postings = snapshot(catalog, tmp_path).postings
    monkeypatch.setattr(ranking, "SHORT", 0)
    monkeypatch.setattr(ranking_facets, "FEW_ROWS", few)
    narrowed: list[dict[str, Any]] = [{"status": one} for one in ("ok", "vanished", "unseen")]
    narrowed += [{"source_ids": ids} for ids in ((1,), (1, 2), (2, 3))]
    narrowed += [{"without": (Wanted("class", (i,)),)} for i in range(1, 8)]
    for key in postings.facets_of.tolist():
        for more in narrowed:
            scope = replace(ranking_facets._stored_scope(key), **more)
            search = Search(postings, np.empty(0, np.int64), scope)
            found, counted = ranking_facets.of_most(search), ranking_facets.facets(search)
            assert found is not None
            assert repr(found) == repr(counted)
    assert ranking_facets.of_most(Search(postings, np.empty(0, np.int64), Scope())) is None


@pytest.mark.parametrize("few", [0, 3, 1000])
def test_facets_of_any_by_what_others_add_equal_those_that_are_counted(
    catalog: Catalog, tmp_path: Path, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(12)
    filled(catalog, rng)
    monkeypatch.setattr(ranking_facets, "FEW_STORED", 11)
    postings = snapshot(catalog, tmp_path).postings
    monkeypatch.setattr(ranking, "SHORT", 0)
    monkeypatch.setattr(ranking_facets, "FEW_ROWS", few)
    stored = {key for key in postings.facets_of.tolist() if key != ranking_facets.NOTHING}
    reached = 0
    for number in (2, 3):
        for ids in combinations(range(1, 9), number):
            scope = Scope(tuple(Wanted("class", (one,)) for one in ids), "any")
            search = Search(postings, np.empty(0, np.int64), scope)
            found, counted = ranking_facets.of_any(search), ranking_facets.facets(search)
            assert found is None or as_sets(found) == as_sets(counted)
            assert stored & {*ids} or found is None
            reached += found is not None
            none = ranking_facets.of_any(replace(search, scope=replace(scope, min_score=0.5)))
            assert none is None
    assert reached > 5


def as_sets(found: ranking_facets.PartialFacets) -> list[object]:
    """The same for the same numbers, whatever their order and types."""
    return [
        dict(zip(one.ids.tolist(), one.counts.tolist(), strict=True))
        if isinstance(one, ranking_facets.Numbers)
        else np.asarray(one).tolist()
        for one in found
    ]


def test_origins_are_counted_alike_with_and_without_posting_lists(
    catalog: Catalog, tmp_path: Path
) -> None:
    filled(catalog, random.Random(12))
    following = Following(catalog.reading, tmp_path / "postings")
    assert following.rebuild()
    groups = [(1,), (2,), (3, 4)]
    two = (Wanted("class", (1,)), Wanted("class", (2, 3)))
    asked = (((), "all"), (two[:1], "all"), (two, "any"), (two, "all"))
    within = (("unseen", None), ("ok", (1, 2)), ("failed", None), (None, (2,)))
    with catalog.reading() as connection:
        plain, listed = Answers(connection), Answers(connection, following)
        for (wanted, mode), (status, sources) in product(asked, within):
            scope = Scope(wanted, mode, status=status, source_ids=sources)
            assert listed.counts(scope, groups) == plain.counts(scope, groups)
            assert listed.page(scope, 99, None) == plain.page(scope, 99, None)


def test_facets_are_known_once_counted_until_something_changes(catalog: Catalog) -> None:
    rng = random.Random(1)
    filled(catalog, rng)
    assert catalog.known_facets("dog") is None
    found = catalog.facets("dog")
    assert catalog.known_facets("dog") is found
    assert catalog.known_facets(" DOG ") is found
    assert catalog.facets("dog") is found
    assert catalog.known_facets("dog", min_score=0.5) is None
    change(catalog, rng, 9)
    assert catalog.known_facets("dog") is None


def test_a_new_parent_or_name_changes_kept_facets_too(catalog: Catalog) -> None:
    filled(catalog, random.Random(2))
    before = catalog.facets("dog", subclasses=True)
    with catalog.writing() as connection:
        registering.describe_classes(connection, {}, {}, [("cat", "dog")])
        model = tables.model
        renamed = sa.update(model).where(model.c.name == "first").values(name="renamed")
        connection.execute(renamed)
    after = catalog.facets("dog", subclasses=True)
    assert after.images == catalog.count("dog | cat") > before.images
    assert "renamed" in {one.name for one in after.origins}


@pytest.mark.parametrize("listed", [False, True])
def test_a_limit_names_the_first_of_all(catalog: Catalog, tmp_path: Path, listed: bool) -> None:
    filled(catalog, random.Random(5))
    catalog.postings = Following(catalog.reading, tmp_path / "postings") if listed else None
    assert catalog.postings is None or catalog.postings.rebuild()
    for query in ("", "dog", "dog | cat", "dog & cat"):
        whole = catalog.facets(query)
        for limit in range(1, len(whole.classes) + 2):
            found = catalog.facets(query, limit=limit)
            shown = whole.classes[:limit], whole.predicates[:limit]
            assert found == replace(whole, classes=shown[0], predicates=shown[1])
            assert catalog.known_facets(query, limit=limit) is found
    with pytest.raises(UsageError, match="limit=0: expected 1 or more"):
        catalog.facets("dog", limit=0)


def test_what_the_log_does_not_tell_is_counted_each_time(catalog: Catalog) -> None:
    filled(catalog, random.Random(3))
    for query in ("attribute:split=train", "is:duplicate", "dog attribute:split=train"):
        assert catalog.facets(query).images == catalog.count(query)
        assert catalog.known_facets(query) is None


def asked(number: int) -> Question:
    with Catalog(":memory:", create=True) as one, one.reading() as connection:
        return query_facets.question(connection, Scope(min_score=number), [])


def counted(names: int) -> QueryFacets:
    return QueryFacets(1, tuple((str(i), 1) for i in range(names)), (), (), ())


def test_of_those_who_ask_at_once_one_counts() -> None:
    known, question = KnownFacets(), Question(asked(0).state, Scope(), (), ())
    started, go_on, calls = threading.Event(), threading.Event(), []

    def count() -> QueryFacets:
        calls.append(1)
        started.set()
        assert go_on.wait(30)
        return counted(1)

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(known.once, question, count)
        assert started.wait(30)
        others = [pool.submit(known.once, question, count) for _ in range(7)]
        assert known.get(question) is None
        go_on.set()
        found = {id(one.result(30).result(30)) for one in (first, *others)}
    assert len(calls) == len(found) == 1
    assert known.get(question) is not None


def test_those_who_wait_for_facets_leave_connections_to_others(tmp_path: Path) -> None:
    counts, go_on, asking = threading.Event(), threading.Event(), threading.Semaphore(0)

    def follow(*given: Any) -> None:
        if "FROM state" in given[2]:
            asking.release()
        if "FROM box" in given[2]:
            counts.set()
            assert go_on.wait(60)

    with Catalog(tmp_path / "c.db", create=True) as catalog, ThreadPoolExecutor(40) as pool:
        filled(catalog, random.Random(9))
        sa.event.listen(catalog.engine, "before_cursor_execute", follow)
        first = pool.submit(catalog.facets)
        assert counts.wait(20)
        others = [pool.submit(catalog.facets) for _ in range(30)]
        try:
            assert all(asking.acquire(timeout=20) for _ in range(31))
            assert catalog.count() > 0
        finally:
            go_on.set()
        assert {id(one.result(30)) for one in others} == {id(first.result(30))}


def test_who_can_not_count_leaves_no_trace() -> None:
    known, question = KnownFacets(), Question(asked(0).state, Scope(), (), ())

    def fail() -> QueryFacets:
        raise CatalogError("the disk is gone")

    for _ in range(2):
        with pytest.raises(CatalogError, match="the disk is gone"):
            known.once(question, fail)
    assert known.get(question) is None
    assert known.once(question, lambda: counted(2)).result(0) == counted(2)


def test_kept_facets_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    known, first = KnownFacets(), asked(0)
    questions = [first._replace(scope=Scope(min_score=i)) for i in range(9)]
    monkeypatch.setattr(query_facets, "MOST_NAMES", 10)
    for question in questions[:5]:
        known.once(question, lambda: counted(4))
    assert [known.get(one) is not None for one in questions[:5]] == [0, 0, 0, 1, 1]
    known.once(questions[5], lambda: counted(100))
    assert [known.get(one) is not None for one in questions[:6]] == [0, 0, 0, 0, 0, 1]
    monkeypatch.setattr(query_facets, "MOST_KEPT", 2)
    for question in questions[6:]:
        known.once(question, lambda: counted(0))
    assert [known.get(one) is not None for one in questions[5:]] == [0, 0, 1, 1]


def class_counts(connection: sa.Connection) -> list[ClassCount]:
    """Every class that some image has, most images first, then by name."""
    count, klass = tables.class_count, tables.klass
    query = sa.select(klass.c.name, count.c.images, count.c.boxes).join_from(count, klass)
    query = query.where(count.c.analyzer_id == tables.ANY_ANALYZER, count.c.images > 0)
    found = [ClassCount(*row) for row in connection.execute(query)]
    return sorted(found, key=lambda one: (-one.images, one.class_name))


def test_counts_of_classes_follow_every_change(catalog: Catalog) -> None:
    rng = random.Random(4)
    assert catalog.classes() == []
    for step in range(12):
        change(catalog, rng, rng.choice([3, 30]))
        with catalog.reading() as connection:
            expected = class_counts(connection)
        assert catalog.classes() == expected
        assert all(type(one.images) is int for one in expected)
        if step == 6:  # nothing is left, and what comes is new
            with catalog.writing() as connection:
                ids = connection.execute(sa.select(tables.image.c.id)).scalars().all()
                writing.delete_images(connection, ids)
            assert catalog.classes() == []
        if step % 4 == 0:
            with catalog.writing() as connection:
                registering.class_ids(connection, [f"a{step}", f"z{step}"])


def test_names_of_classes_are_those_of_a_catalog_that_went_back_and_on(catalog: Catalog) -> None:
    filled(catalog, random.Random(9))
    before = catalog.classes()
    klass, state, change_ = tables.klass, tables.state, tables.change
    with catalog.writing() as connection:  # as where an older copy of it is restored
        last = connection.execute(sa.select(state.c.revision)).scalar_one()
        connection.execute(sa.delete(change_).where(change_.c.revision == last))
        connection.execute(sa.update(state).values(revision=last - 1))
        named = klass.c.name == before[0].class_name
        connection.execute(sa.update(klass).where(named).values(name="another"))
        changes.note(connection, None)
    assert catalog.classes()[0] == before[0]._replace(class_name="another")


def test_a_list_of_classes_is_the_callers_own(catalog: Catalog) -> None:
    filled(catalog, random.Random(9))
    catalog.warm()
    found = catalog.classes()
    found.clear()
    assert catalog.classes()
    assert catalog.known_facets(limit=query_facets.FIRST) is not None


def test_facets_of_many_images_without_posting_lists_are_not_counted_ahead(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(catalog, random.Random(9))
    monkeypatch.setattr("vistadex.catalog.WORTH_LISTING", 1)
    catalog.warm()
    assert catalog.known_facets(limit=query_facets.FIRST) is None
    assert catalog.postings is not None
    catalog.postings.rebuild()
    catalog.warm()
    assert catalog.known_facets(limit=query_facets.FIRST) is not None


def test_what_was_counted_can_be_forgotten(catalog: Catalog) -> None:
    filled(catalog, random.Random(9))
    assert catalog.postings is not None
    catalog.postings.rebuild()
    before = catalog.facets(), catalog.stats(), catalog.classes()
    catalog.forget()
    assert catalog.known_facets(limit=query_facets.FIRST) is None
    assert (catalog.facets(), catalog.stats(), catalog.classes()) == before


def test_an_empty_catalog_is_warm(catalog: Catalog) -> None:
    catalog.warm()
    assert catalog.facets() == QueryFacets(0, (), (), (), (0,) * 20)
