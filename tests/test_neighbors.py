"""Nearest neighbors: exact search equals brute force in float64; lists are a promise about most."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistadex import neighbors
from vistadex.neighbors import Found, Lists, Vectors, nearest, unit
from vistadex.records import FloatArray, IntArray


def clustered(number: int, length: int, seed: int = 0) -> FloatArray:
    random = np.random.default_rng(seed)
    centers = random.standard_normal((max(1, number // 50), length))
    picked = centers[random.integers(0, len(centers), number)]
    return unit(picked + 0.5 * random.standard_normal((number, length)))


def brute(vectors: Vectors, query: FloatArray, limit: int, allowed: IntArray | None) -> Found:
    """Every score in float64, ranked by a full sort."""
    rows = np.asarray(vectors.rows, np.float64)
    scores = np.array([float(np.vecdot(row, query.astype(np.float64))) for row in rows])
    ids = vectors.ids_of(np.arange(len(rows)))
    keep = np.ones(len(rows), np.bool_) if allowed is None else np.isin(ids, allowed)
    order = np.lexsort((ids[keep], -scores[keep]))[:limit]
    return Found(ids[keep][order], scores[keep][order])


def assert_same(found: Found, expected: Found) -> None:
    assert found.ids.tolist() == expected.ids.tolist()
    np.testing.assert_array_equal(found.similarity, expected.similarity)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "ROWS_AT_A_TIME", 64)
    monkeypatch.setattr(neighbors, "ROWS_FOR_A_THREAD", 100)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("limit", [1, 10, 999, 1000, 5000])
def test_exact_search_equals_brute_force(threads: int, limit: int) -> None:
    vectors = Vectors(np.arange(1000) * 7 + 3, clustered(1000, 32))
    query = unit(np.random.default_rng(1).standard_normal(32))
    found = nearest(vectors, query, limit, threads=threads)
    assert_same(found, brute(vectors, query, limit, None))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 20),
    st.integers(1, 40),
    st.integers(0, 10**6),
    st.floats(0, 1),
    st.sampled_from([1.0, 1e-3, 1e-7, 0.0]),
)
def test_exact_search_equals_brute_force_whatever_the_vectors(
    number: int, length: int, limit: int, seed: int, share: float, spread: float
) -> None:
    """Also where all rows are equal, or differ by less than float32 can add up."""
    random = np.random.default_rng(seed)
    rows = unit(random.standard_normal(length) + spread * random.standard_normal((number, length)))
    ids = np.sort(random.choice(10**6, number, replace=False))
    allowed = None if share > 0.9 else np.sort(random.choice(10**6, int(share * 1000)))
    if allowed is not None:
        allowed = np.unique(np.append(allowed, ids[random.random(number) < share]))
    vectors = Vectors(ids, rows)
    query = unit(random.standard_normal(length))
    found = nearest(vectors, query, limit, allowed=allowed, threads=2)
    assert_same(found, brute(vectors, query, limit, allowed))


def test_equal_vectors_come_by_rising_id() -> None:
    rows = np.repeat(clustered(1, 16), 500, axis=0)
    vectors = Vectors(np.arange(500) * 2, rows)
    found = nearest(vectors, rows[0], 7, threads=3)
    assert found.ids.tolist() == [0, 2, 4, 6, 8, 10, 12]


def test_rows_whose_scores_float32_confuses_are_ranked_rightly() -> None:
    """Each row is a little less like the query than the one before it, far below float32's sums."""
    query = unit(np.ones(256))
    rows = np.tile(query, (300, 1))
    for i in range(300):
        rows[i, i % 256] -= np.float32(i) * np.float32(1e-8)
    vectors = Vectors(np.arange(300), rows)
    assert_same(nearest(vectors, query, 20), brute(vectors, query, 20, None))


@pytest.mark.parametrize("allowed", [[], [5], list(range(0, 2000, 3)), [10**9]])
def test_only_allowed_ids_are_found(allowed: list[int]) -> None:
    vectors = Vectors(np.arange(1000) * 2 + 1, clustered(1000, 8))
    query = clustered(1, 8, 9)[0]
    ids = np.array(allowed, np.int64)
    assert_same(nearest(vectors, query, 10, allowed=ids), brute(vectors, query, 10, ids))


@pytest.mark.parametrize("allowed", [None, [0, 4, 6, 8], list(range(0, 400, 2))])
def test_dead_rows_are_not_found(allowed: list[int] | None) -> None:
    vectors = Vectors(np.arange(200) * 2, clustered(200, 8))
    dead = np.zeros(200, np.bool_)
    dead[:100] = True
    ids = None if allowed is None else np.array(allowed, np.int64)
    found = nearest(vectors, vectors.rows[1], 300, allowed=ids, dead=dead)
    alive = {2 * i for i in range(100, 200)}
    assert set(found.ids.tolist()) == (alive if allowed is None else alive & set(allowed))


def test_no_vectors_give_no_results() -> None:
    none = Vectors(np.empty(0, np.int64), np.empty((0, 4), np.float32))
    assert nearest(none, unit(np.ones(4)), 5).ids.size == 0
    assert nearest(none, unit(np.ones(4)), 5, allowed=np.array([1])).ids.size == 0


def test_zero_vectors_stay_zero_and_come_last_of_what_is_alike() -> None:
    rows = unit(np.array([[1.0, 0], [0, 0], [-1, 0]]))
    assert rows[1].tolist() == [0, 0]
    found = nearest(Vectors(np.arange(3), rows), unit(np.array([2.0, 0])), 3)
    assert found.ids.tolist() == [0, 1, 2]
    assert found.similarity.tolist() == [1, 0, -1]


def in_lists(vectors: Vectors, lists: int) -> Vectors:
    parts: list[FloatArray] = []
    made, order = neighbors.grouped(vectors, lambda rows: parts.append(rows.copy()), lists=lists)
    row_of = np.empty(order.size, np.int64)
    row_of[order] = np.arange(order.size)
    return Vectors(vectors.ids, np.concatenate(parts), row_of, vectors.ids[order], made)


def test_lists_hold_every_vector_once_beside_its_nearest_center() -> None:
    vectors = Vectors(np.arange(2000) * 3, clustered(2000, 16))
    found = in_lists(vectors, 30)
    assert found.lists is not None
    assert found.lists.starts[-1] == 2000
    every = np.arange(2000)
    assert np.array_equal(np.sort(found.ids_of(every)), vectors.ids)
    assert np.array_equal(found.rows[found.rows_of(vectors.ids)], vectors.rows)
    list_of = np.repeat(np.arange(30), np.diff(found.lists.starts))
    assert np.array_equal(list_of, neighbors.assign(found.rows, found.lists.centers))


def test_exact_search_is_the_same_with_lists_and_without() -> None:
    vectors = Vectors(np.arange(2000) * 3, clustered(2000, 16))
    grouped = in_lists(vectors, 40)
    for query in clustered(10, 16, 5):
        for allowed in (None, np.arange(0, 6000, 5), np.array([3, 6, 9])):
            plain = nearest(vectors, query, 25, allowed=allowed)
            assert_same(nearest(grouped, query, 25, allowed=allowed, exact=True), plain)


def test_lists_find_nearly_all_that_exact_search_finds() -> None:
    vectors = Vectors(np.arange(6000), clustered(6000, 24))
    grouped = in_lists(vectors, 60)
    shared = []
    for query in vectors.rows[:200:4]:
        exact = set(nearest(vectors, query, 10).ids.tolist())
        shared.append(len(exact & set(nearest(grouped, query, 10).ids.tolist())) / 10)
    assert np.mean(shared) > 0.8


def test_lists_with_few_allowed_ids_are_exact() -> None:
    vectors = Vectors(np.arange(2000), clustered(2000, 16))
    allowed = np.arange(0, 2000, 40)
    query = clustered(1, 16, 3)[0]
    grouped = in_lists(vectors, 40)
    assert_same(nearest(grouped, query, 10, allowed=allowed), brute(vectors, query, 10, allowed))


def test_lists_far_from_the_query_are_looked_at_where_only_they_have_what_is_allowed() -> None:
    toward = np.eye(16)[0]
    random = np.random.default_rng(0)
    rows = unit(
        np.repeat([toward, -toward], [1600, 400], 0) + 0.05 * random.normal(size=(2000, 16))
    )
    vectors = Vectors(np.arange(2000), rows)
    grouped, allowed, query = in_lists(vectors, 100), np.arange(1600, 2000), unit(toward)
    assert_same(nearest(grouped, query, 10, allowed=allowed), brute(vectors, query, 10, allowed))


def test_candidates_are_sorted_out_again_only_when_they_have_doubled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else equal vectors, all of which stay candidates, would take time as the square of them."""
    seen: list[int] = []
    sort_out = neighbors._Search._best

    def counted(self: neighbors._Search, rows: IntArray, scores: FloatArray) -> object:
        seen.append(rows.size)
        return sort_out(self, rows, scores)

    monkeypatch.setattr(neighbors._Search, "_best", counted)
    vectors = Vectors(np.arange(64 * 64), np.repeat(clustered(1, 8), 64 * 64, axis=0))
    assert nearest(vectors, vectors.rows[0], 5, threads=1).ids.tolist() == [0, 1, 2, 3, 4]
    assert sum(seen) <= 4 * 64 * 64


def test_lists_look_at_more_where_a_query_allows_less() -> None:
    lists = Lists(clustered(100, 8), np.arange(0, 1010, 10))
    query = clustered(1, 8, 2)[0]
    few, some, all_ = (neighbors._near_spans(lists, query, share) for share in (0.05, 0.3, 50.0))
    assert sum(stop - start for start, stop in few) == 10 * neighbors.FEWEST_LISTS
    assert sum(stop - start for start, stop in some) == 300
    assert all_ == [(0, 1000)]


def test_training_gives_the_same_centers_again_and_survives_equal_vectors() -> None:
    rows = np.repeat(clustered(3, 8), 40, axis=0)
    first, second = (neighbors.train(rows, 10, seed=4) for _ in range(2))
    assert np.array_equal(first, second)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-6)


def test_merged_results_are_ranked_together() -> None:
    a = Found(np.array([5, 9]), np.array([0.9, 0.1]))
    b = Found(np.array([2, 7]), np.array([0.9, 0.5]))
    assert neighbors.merged([a, b], 3).ids.tolist() == [2, 5, 7]
