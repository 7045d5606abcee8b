"""Groups of near hashes: no pair is missed, whatever is crowded."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistadex.duplicates import MAX_DISTANCE, HashArray, hamming, merged_groups, near_groups
from vistadex.errors import UsageError
from vistadex.records import IntArray


def by_comparing_all(hashes: HashArray, distance: int) -> list[int]:
    """near_groups() by its definition."""
    groups = np.full(len(hashes), -1)
    near = hamming(hashes[:, None], hashes[None]) <= distance
    for first in range(len(hashes)):
        waiting = [first] if groups[first] < 0 else []
        while waiting:
            found = near[waiting.pop()] & (groups < 0)
            groups[found] = first
            waiting += np.flatnonzero(found).tolist()
    return [int(group) for group in groups]


def bits(rng: np.random.Generator, number: int, share: float) -> HashArray:
    """Hashes whose bits are set as often as this."""
    set_ones = rng.random((number, 64)) < share
    packed = np.packbits(set_ones, axis=1).view(np.uint64).ravel()
    return np.ascontiguousarray(packed)


@given(
    hashes=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 4095), max_size=40),
    distance=st.integers(0, MAX_DISTANCE),
)
@settings(deadline=None, max_examples=200)
def test_groups_of_few_hashes_are_those_of_comparing_all(hashes: list[int], distance: int) -> None:
    array = np.array(hashes, np.uint64)
    assert near_groups(array, distance).tolist() == by_comparing_all(array, distance)


@given(
    seed=st.integers(0, 2**32),
    share=st.sampled_from([0.02, 0.08, 0.2, 0.5]),
    flips=st.integers(1, 8),
    distance=st.integers(0, MAX_DISTANCE),
)
@settings(deadline=None, max_examples=40)
def test_groups_of_many_hashes_are_those_of_comparing_all(
    seed: int, share: float, flips: int, distance: int
) -> None:
    rng = np.random.default_rng(seed)
    hashes = bits(rng, 1500, share)
    copies = hashes[rng.integers(0, 1500, 300)]
    for _ in range(flips):
        copies ^= np.uint64(1) << rng.integers(0, 64, 300, dtype=np.uint64)
    hashes[rng.permutation(1500)[:300]] = copies
    assert near_groups(hashes, distance).tolist() == by_comparing_all(hashes, distance)


def test_distance_is_met_exactly() -> None:
    rng = np.random.default_rng(5)
    for distance in range(MAX_DISTANCE + 1):
        far = rng.integers(0, 2**64, 3000, dtype=np.uint64)
        flipped = sum(1 << int(i) for i in rng.permutation(64)[:distance])
        more = flipped | 1 << next(i for i in range(64) if not flipped >> i & 1)
        far[1000], far[2000] = far[0] ^ np.uint64(flipped), far[1] ^ np.uint64(more)
        groups = near_groups(far, distance)
        assert groups[1000] == 0
        assert groups[2000] == 2000


def test_a_chain_is_one_group() -> None:
    chain = np.array([(1 << i) - 1 for i in range(0, 60, 4)], np.uint64)
    assert near_groups(chain, 4).tolist() == [0] * len(chain)
    assert near_groups(chain, 3).tolist() == list(range(len(chain)))


@pytest.mark.parametrize("distance", [2, 5, 8])
def test_a_crowd_that_shares_most_bits_is_grouped_right(distance: int) -> None:
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 2**64, 6000, dtype=np.uint64)
    hashes[:3000] &= np.uint64((1 << 20) - 1)
    assert near_groups(hashes, distance).tolist() == by_comparing_all(hashes, distance)


def test_a_crowd_so_large_that_it_is_cut_again_is_grouped_right() -> None:
    rng = np.random.default_rng(4)
    crowd = rng.integers(0, 2**64, 30_000, dtype=np.uint64) & np.uint64((1 << 34) - 1)
    crowd = np.unique(crowd)
    hashes = np.concatenate([crowd, rng.integers(0, 2**64, 400_000, dtype=np.uint64)])
    groups = near_groups(hashes, 4)
    for i in range(0, 30_000, 500):
        near = np.flatnonzero(hamming(hashes, hashes[i]) <= 4)
        assert set(groups[near].tolist()) == {groups[i]}
    of_group = np.argsort(groups, kind="stable")
    borders = np.flatnonzero(np.diff(groups[of_group])) + 1
    for start, end in pairwise([0, *borders.tolist(), len(hashes)]):
        members = hashes[of_group[start:end]]
        if len(members) > 1:
            distances = hamming(members[:, None], members[None]) + 99 * np.eye(
                len(members), dtype=int
            )
            assert distances.min(axis=1).max() <= 4


def test_equal_hashes_and_a_crowd_of_near_ones_take_little_memory() -> None:
    rng = np.random.default_rng(6)
    near = np.full(60_000, 7, np.uint64)
    for _ in range(3):
        near ^= np.uint64(1) << rng.integers(0, 64, len(near), dtype=np.uint64)
    hashes = np.concatenate([np.full(100_000, 7, np.uint64), near])
    tracemalloc.start()
    groups = near_groups(hashes, 6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not groups.any()
    assert peak < 150e6


def test_no_hashes_are_no_groups() -> None:
    assert near_groups(np.zeros(0, np.uint64), 6).tolist() == []


@pytest.mark.parametrize("distance", [-1, MAX_DISTANCE + 1])
def test_other_distances_are_refused(distance: int) -> None:
    with pytest.raises(UsageError, match="expected 0 to 12 bits"):
        near_groups(np.zeros(2, np.uint64), distance)


def test_merged_groups_chain_both_groupings() -> None:
    def groups(*values: int) -> IntArray:
        return np.array(values, np.int64)

    assert merged_groups(groups(0, 0, 2, 3, 4), groups(0, 1, 1, 3, 3)).tolist() == [0, 0, 0, 3, 3]
    assert merged_groups(groups(), groups()).tolist() == []
