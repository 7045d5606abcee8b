"""Which of many 64-bit hashes are near to each other: every pair, without looking at every pair.

A group is a chain: a is near to b, b near to c, so the three are one group although a and c may
differ in twice as many bits.

Multi-index hashing: the bits are cut into blocks. Two hashes that differ in at most d bits agree in
all but d of the blocks, so for some choice of all but d blocks they are equal there. For each
choice the hashes are sorted by those blocks, and only what is equal there is compared. How many
blocks are best follows from the number of hashes. Nothing is estimated: no pair is missed.

Shape letters: N hashes, U distinct ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from vistadex.errors import UsageError
from vistadex.records import IntArray

HashArray = NDArray[np.uint64]

MAX_DISTANCE = 12
"""Above that, photographs that have nothing to do with each other are near."""
HASH_BITS = 64
_KEY_BITS = 32
"""Of what hashes are sorted by; the other half of the number is the hash's place."""
_LIGHT = 256
"""Hashes that share a key: more of them are compared apart."""
_DEEP = 20_000
"""Hashes that share a key: more of them are cut into blocks again, by their other bits."""
_CACHED = 1 << 16
"""Hashes whose pairs are compared while the processor has them at hand."""
_PAIRS_AT_ONCE = 1 << 20
_EDGES_AT_ONCE = 1 << 20
_SORT_NS, _PAIR_NS = 50.0, 3.0
"""Measured: what a hash costs in each sorting, and what each comparison costs."""


def hamming(a: HashArray, b: HashArray) -> IntArray:
    """In how many bits hashes differ, each from each by NumPy's rules for shapes."""
    differing: IntArray = np.bitwise_count(a ^ b).astype(np.int64)
    return differing


def near_groups(hashes: HashArray, max_distance: int) -> IntArray:
    """(N,) the group of each hash: the index of the first hash in it.

    Two hashes are in one group if they differ in at most so many bits, or if a chain of such pairs
    leads from one to the other.

    Args:
        hashes: (N,) in any order, equal ones as often as they come.
        max_distance: 0 to MAX_DISTANCE bits.
    Raises: UsageError for another distance.
    """
    if not 0 <= max_distance <= MAX_DISTANCE:
        raise UsageError(f"distance {max_distance}: expected 0 to {MAX_DISTANCE} bits")
    distinct, first, place = np.unique(hashes, return_index=True, return_inverse=True)
    forest = Forest(len(distinct))
    if max_distance and len(distinct) > 1:
        _connect(distinct, np.arange(len(distinct)), max_distance, forest)
    return _first_of_each(forest.roots(), first)[place]


def merged_groups(a: IntArray, b: IntArray) -> IntArray:
    """(N,) groups of two groupings together, each named like near_groups()'s."""
    forest = Forest(len(a))
    everyone = np.arange(len(a))
    forest.join(everyone, a)
    forest.join(everyone, b)
    return _first_of_each(forest.roots(), everyone)


def _first_of_each(roots: IntArray, positions: IntArray) -> IntArray:
    """The lowest of the positions that share a root."""
    lowest = np.full(len(roots), np.iinfo(np.int64).max)
    np.minimum.at(lowest, roots, positions)
    return lowest[roots]


class Forest:
    """Groups that grow together, as trees whose nodes point to a lower one; memory for N numbers
    and for as many pairs as wait to be joined."""

    def __init__(self, number: int) -> None:
        self._parents = np.arange(number)
        self._waiting: list[tuple[IntArray, IntArray]] = []
        self._waits = 0

    def join(self, a: IntArray, b: IntArray) -> None:
        """Puts each of a into one group with that of b in the same place."""
        apart = self._parents[a] != self._parents[b]
        a, b = a[apart], b[apart]
        if len(a):
            self._waiting.append((a, b))
            self._waits += len(a)
        if self._waits > _EDGES_AT_ONCE:
            self.roots()

    def roots(self) -> IntArray:
        """(N,) the lowest member of each one's group; not to be written to."""
        if self._waiting:
            a, b = (np.concatenate(some) for some in zip(*self._waiting, strict=True))
            self._waiting, self._waits = [], 0
            self._link(a, b)
        return self._parents

    def _link(self, a: IntArray, b: IntArray) -> None:
        parents = self._parents
        while len(a):
            a, b = parents[a], parents[b]
            apart = a != b
            a, b = a[apart], b[apart]
            np.minimum.at(parents, np.maximum(a, b), np.minimum(a, b))
            while not np.array_equal(higher := parents[parents], parents):
                parents = higher
        self._parents = parents


def _connect(
    hashes: HashArray, members: IntArray, distance: int, forest: Forest, *, deep: bool = False
) -> None:
    """Joins every near pair of the members, distinct hashes by their places in the forest.

    Args:
        deep: the members are what shared a key already: whoever shares another one is compared.
    """
    bits = _without_constant_bits(hashes[members])
    blocks = _best_blocks(len(members), int(bits.max()).bit_length(), distance)
    if blocks is None:
        _compare_all(hashes, members, distance, forest)
        return
    for key in _keys(bits, blocks, distance):
        key <<= np.uint64(_KEY_BITS)
        key |= np.arange(len(members), dtype=np.uint64)
        key.sort()
        order = members[(key & np.uint64((1 << _KEY_BITS) - 1)).astype(np.int64)]
        for shared in _compare_buckets(
            hashes, key >> np.uint64(_KEY_BITS), order, distance, forest
        ):
            if deep or len(shared) <= _DEEP:
                _compare_all(hashes, shared, distance, forest)
            else:
                _connect(hashes, shared, distance, forest, deep=True)


def _without_constant_bits(hashes: HashArray) -> HashArray:
    """The hashes with only those bits that differ somewhere, moved together: distances stay."""
    varying = int(np.bitwise_or.reduce(hashes) & ~np.bitwise_and.reduce(hashes))
    if varying == (1 << HASH_BITS) - 1:
        return hashes
    packed = np.zeros_like(hashes)
    places = (place for place in range(HASH_BITS) if varying >> place & 1)
    for i, place in enumerate(places):
        packed |= (hashes >> np.uint64(place) & np.uint64(1)) << np.uint64(i)
    return packed


def _best_blocks(number: int, width: int, distance: int) -> tuple[tuple[int, int], ...] | None:
    """First bit and width of the blocks that cost the least; None where comparing all does."""
    best, least = None, number * number / 2 * _PAIR_NS
    for blocks in range(distance + 1, min(width, distance + 6) + 1):
        chosen = blocks - distance
        key_bits = min(_KEY_BITS, width * chosen / blocks)
        pairs = number * number / 2 / 2**key_bits
        cost = comb(blocks, chosen) * (number * _SORT_NS + pairs * _PAIR_NS)
        if -(-width // blocks) * chosen <= _KEY_BITS and cost < least:
            best, least = blocks, cost
    if best is None:
        return None
    borders = [width * i // best for i in range(best + 1)]
    return tuple((borders[i], borders[i + 1] - borders[i]) for i in range(best))


def _keys(
    hashes: HashArray, blocks: tuple[tuple[int, int], ...], distance: int
) -> Iterator[HashArray]:
    """For each choice of all blocks but `distance`, their bits of each hash as one number."""
    for chosen in combinations(blocks, len(blocks) - distance):
        key = np.zeros_like(hashes)
        for first, width in chosen:
            key <<= np.uint64(width)
            key |= hashes >> np.uint64(first) & np.uint64((1 << width) - 1)
        yield key


def _compare_buckets(
    hashes: HashArray, keys: HashArray, order: IntArray, distance: int, forest: Forest
) -> Iterator[IntArray]:
    """Joins near pairs among those that share a key, and yields the crowds that share one.

    Args:
        keys: rising.
        order: the members in the order of their keys.
    """
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    roots = forest.roots()[order]
    apart = np.minimum.reduceat(roots, starts) != np.maximum.reduceat(roots, starts)
    sizes = np.diff(np.append(starts, len(keys)))
    light = apart & (sizes <= _LIGHT)
    _compare_light(hashes, order, starts[light], sizes[light], distance, forest)
    for bucket in np.flatnonzero(apart & (sizes > _LIGHT)):
        yield order[starts[bucket] : starts[bucket] + sizes[bucket]]


def _compare_light(
    hashes: HashArray,
    order: IntArray,
    starts: IntArray,
    sizes: IntArray,
    distance: int,
    forest: Forest,
) -> None:
    """Joins near pairs of many small buckets: those of one size at once, as columns of a table,
    whose rows are compared with the next, the one after it …"""
    in_order = hashes[order]
    by_size = starts[np.argsort(sizes, kind="stable")]
    ends = np.cumsum(np.bincount(sizes, minlength=2))
    for size in range(2, len(ends)):
        of_size = by_size[ends[size - 1] : ends[size]]
        step = max(1, _CACHED // size)
        for first in range(0, len(of_size), step):
            places = np.arange(size)[:, None] + of_size[first : first + step]
            bits = in_order[places]
            for offset in range(1, size):
                near = np.bitwise_count(bits[:-offset] ^ bits[offset:]) <= distance
                found = np.flatnonzero(near)
                if len(found):
                    a = places.ravel()[found]
                    forest.join(order[a], order[a + offset])


def _compare_all(hashes: HashArray, members: IntArray, distance: int, forest: Forest) -> None:
    """Joins every near pair of the members, in pieces; what is joined already is not compared."""
    roots = forest.roots()[members]
    _, group, number = np.unique(roots, return_inverse=True, return_counts=True)
    order = np.lexsort((group, -number[group]))  # the largest group first
    members, group = members[order], group[order]
    ends = np.append(np.flatnonzero(group[1:] != group[:-1]) + 1, len(group))
    end_of = np.repeat(ends, np.diff(ends, prepend=0))
    own, start = hashes[members], 0
    while start < len(members):
        stop = min(start + max(1, _PAIRS_AT_ONCE // len(members)), len(members))
        after = start + 1
        if end_of[start] - start > 1:
            stop = min(stop, int(end_of[start]))
            after = int(end_of[start])
        near = np.bitwise_count(own[start:stop, None] ^ own[None, after:]) <= distance
        a, b = np.nonzero(near)
        forest.join(members[start + a], members[after + b])
        start = stop
