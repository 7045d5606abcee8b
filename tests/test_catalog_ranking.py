"""vistadex.catalog.ranking: the same answers as plain SQL, in the same order."""

import random
from pathlib import Path

import numpy as np
import pytest

from tests.test_catalog_postings_equal import change, random_scope
from vistadex.catalog import Catalog, facets, ranking, search
from vistadex.catalog.following import Following, View
from vistadex.catalog.postings import Lists
from vistadex.catalog.scope import Position, Scope, Wanted


@pytest.mark.parametrize("seed", range(4))
def test_answers_equal_plain_sql_under_random_changes(
    catalog_url: str, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(1000 + seed)
    with Catalog(catalog_url, create=True) as catalog:
        change(catalog, rng, 60)
        following = Following(catalog.reading, tmp_path / "postings")
        assert following.rebuild()
        for _ in range(6):
            change(catalog, rng, rng.choice([3, 30]))
            with catalog.reading() as connection:
                view = following.current(connection)
                assert view is not None
                for _ in range(8):
                    scope = random_scope(rng)
                    found = list(search.every_position(connection, scope))
                    assert view.page(scope, 1000) == found
                    assert view.count(scope) == search.count(connection, scope)
                    assert view.every_id(scope) == search.every_id(connection, scope)
                    assert view.facets(scope) == facets.facets(connection, scope, found)
                    for after in found[:: max(1, len(found) // 5)]:
                        page = search.page(connection, scope, 7, after)
                        assert view.page(scope, 7, after) == page


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    """Many images, and some that changed later."""
    folder = tmp_path_factory.mktemp("ranking")
    rng = random.Random(7)
    with Catalog(str(folder / "c.db"), create=True) as catalog:
        for _ in range(4):
            change(catalog, rng, 60)
        following = Following(catalog.reading, folder / "postings")
        following.rebuild()
        change(catalog, rng, 20)
        with catalog.reading() as connection:
            found = following.current(connection)
    assert found is not None
    return found


ANY = Scope((Wanted("class", (1,)), Wanted("class", (2,))), "any")


@pytest.mark.parametrize("scope", [ANY, Scope(ANY.wanted), Scope(ANY.wanted[:1]), Scope()])
@pytest.mark.parametrize(
    "after",
    [
        Position(0, 0, 0),
        Position(10**18, 10**9, 10**18),
        Position(10**18, 2, 10**17),
        Position(1 << 32, 1, 1 << 26),
        Position(5, 1, 999_999_999),
    ],
)
def test_a_cursor_of_no_result_is_a_place_all_the_same(
    view: View, scope: Scope, after: Position
) -> None:
    everything = view.page(scope, 10_000)
    assert everything
    if not scope.wanted:
        expected = [one for one in everything if one.image_id < after.image_id]
    elif scope.mode == "all":  # every result has matched all
        place = (after.score, after.image_id)
        expected = [one for one in everything if (one.score, one.image_id) < place]
    else:
        here = (after.matched, after.score, after.image_id)
        expected = [one for one in everything if (one.matched, one.score, one.image_id) < here]
    assert view.page(scope, 10_000, after) == expected


def test_what_nothing_has_is_found_nowhere(view: View) -> None:
    for ids in ((), (999,)):
        for kind in ("class", "relation"):
            wanted = Wanted("class" if kind == "class" else "relation", ids)
            assert view.count(Scope((wanted,))) == 0
            assert view.count(Scope((wanted, ANY.wanted[0]))) == 0
            assert view.page(Scope((wanted, ANY.wanted[0]), "any"), 9) == view.page(
                Scope(ANY.wanted[:1]), 9
            )
            assert view.count(Scope(without=(wanted,))) == view.count(Scope())


def test_the_most_that_can_be_wanted_fits_into_a_key(view: View) -> None:
    wanted = tuple(Wanted("class", (1,)) for _ in range(ranking.MOST_WANTED))
    one = view.page(Scope(wanted[:1]), 10_000)
    for mode in ("all", "any"):
        many = view.page(Scope(wanted, "all" if mode == "all" else "any"), 10_000)
        assert [(p.image_id, p.matched, p.score) for p in many] == [
            (p.image_id, ranking.MOST_WANTED, ranking.MOST_WANTED * p.score) for p in one
        ]


def test_ids_that_no_image_has_narrow_to_nothing(view: View) -> None:
    for scope in (ANY, Scope(ANY.wanted), Scope()):
        assert view.count(scope, np.empty(0, np.int64)) == 0
        assert view.page(scope, 5, None, np.array([10**6, 1 << 40])) == []


def test_slots_side_by_side_are_one_range() -> None:
    found = np.array([0, 1, 2, 5, 7, 8], np.uint32)
    assert ranking.ranges(found) == [(0, 3), (5, 6), (7, 9)]
    assert ranking.ranges(found[:0]) == []


def test_slots_of_unknown_ids_are_left_out() -> None:
    nothing = np.empty(0, np.uint32)
    keys, slots = np.array([3, 5, 9]), np.array([2, 0, 1], np.uint32)
    lists = Lists(keys, slots, np.zeros(4, np.int64), nothing, nothing, nothing, nothing)
    assert ranking.slots(lists, (9, 4, 3, 3, 10)).tolist() == [1, 2]


def test_searches_in_blocks_of_any_size_leave_no_trace(
    view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = view.page(ANY, 10_000)
    monkeypatch.setattr(ranking, "SHORT", 0)
    for size in (4, 64, 16):
        monkeypatch.setattr(ranking, "BLOCK", size)
        assert view.page(ANY, 10_000) == expected
