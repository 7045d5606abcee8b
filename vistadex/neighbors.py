"""The vectors most like a given one: exact, or by lists of vectors that lie near each other.

Exact search looks at every row in float32, keeps all that rounding could have put below the best,
and ranks those in float64: it equals a search in float64 throughout, and equal vectors come by
rising id. A row's score depends on nothing but the row, so that threads and chunks change nothing.

Shape letters: N vectors, D values, L lists, K results.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vistadex.records import DoubleArray, FloatArray, IntArray

Mask: TypeAlias = NDArray[np.bool_]

EXACT_ROWS = 1_000_000
"""Up to so many vectors, all are looked at; with more, lists are made."""
ROWS_AT_A_TIME = 8192
ROWS_FOR_A_THREAD = 100_000
GATHERED_SHARE = 0.05
"""Of fewer allowed vectors than this share, only those are read."""
LOOKED_AT = 1 / 12
"""Share of the lists that is looked at: see benchmarks/neighbors_speed.py for the recall."""
FEWEST_LISTS = 16
"""That are looked at."""
SAMPLE_PER_LIST = 64
ROUNDS = 8
"""Of k-means."""


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """Which vectors lie near each other: rows stand list by list."""

    centers: FloatArray
    """(L, D) of unit length."""
    starts: IntArray
    """(L + 1,) rows at which lists begin."""


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Vectors of unit length, or zero, with ids."""

    ids: IntArray
    """(N,) rising."""
    rows: FloatArray
    """(N, D), may be mapped from a file."""
    row_of: IntArray | None = None
    """(N,) the row of each id; None: the same order."""
    id_of: IntArray | None = None
    """(N,) the id of each row; None: the same order."""
    lists: Lists | None = None

    def rows_of(self, ids: IntArray) -> IntArray:
        """The rows of ids, in their order; of unknown ids none."""
        if not self.ids.size:
            return np.empty(0, np.int64)
        at = np.minimum(np.searchsorted(self.ids, ids), self.ids.size - 1)
        at = at[self.ids[at] == ids]
        return at if self.row_of is None else np.asarray(self.row_of[at])

    def ids_of(self, rows: IntArray) -> IntArray:
        """The ids of rows."""
        return np.asarray((self.ids if self.id_of is None else self.id_of)[rows])


class Found(NamedTuple):
    """What is most like a vector, most similar first, equally similar by rising id."""

    ids: IntArray
    """(K,)."""
    similarity: DoubleArray
    """(K,) cosines."""


NOTHING = Found(np.empty(0, np.int64), np.empty(0, np.float64))


def unit(vectors: NDArray[np.floating]) -> FloatArray:
    """Vectors in float32 of unit length along the last axis; zero stays zero."""
    found = np.asarray(vectors, np.float64)
    length = np.linalg.norm(found, axis=-1, keepdims=True)
    scaled: FloatArray = (found / np.where(length > 0, length, 1.0)).astype(np.float32)
    return scaled


def nearest(
    vectors: Vectors,
    query: FloatArray,
    limit: int,
    *,
    allowed: IntArray | None = None,
    dead: Mask | None = None,
    exact: bool = False,
    threads: int | None = None,
) -> Found:
    """The vectors with the greatest cosine to a query.

    Args:
        query: (D,) of unit length.
        limit: how many at most, 1 or more.
        allowed: rising ids; no others are found. None: all.
        dead: (N,) rows that do not count.
        exact: look at all vectors also where there are lists.
        threads: None: one per core, for large numbers of vectors.
    """
    query = np.ascontiguousarray(query, np.float32)
    search = _Search(vectors, query, limit, _live(vectors, allowed, dead))
    if allowed is not None and allowed.size <= GATHERED_SHARE * vectors.ids.size:
        rows = np.sort(vectors.rows_of(allowed))
        return search.ranked(search.among(rows[~dead[rows]] if dead is not None else rows))
    spans = everything = [(0, len(vectors.rows))]
    if vectors.lists is not None and not exact:
        share = 1.0 if allowed is None else allowed.size / vectors.ids.size
        spans = _near_spans(vectors.lists, query, LOOKED_AT / max(share, 1e-9))
    found = search.ranked(search.over(spans, threads))
    if found.ids.size < limit and spans != everything:  # what is allowed lies in other lists
        found = search.ranked(search.over(everything, threads))
    return found


def merged(parts: Sequence[Found], limit: int) -> Found:
    """The best of several results, which share no id."""
    ids = np.concatenate([part.ids for part in parts])
    similarity = np.concatenate([part.similarity for part in parts])
    order = np.lexsort((ids, -similarity))[:limit]
    return Found(ids[order], similarity[order])


def _live(vectors: Vectors, allowed: IntArray | None, dead: Mask | None) -> Mask | None:
    """(N,) which rows count; None: all, or the allowed are so few that they are gathered."""
    if allowed is None:
        return None if dead is None else ~dead
    if allowed.size <= GATHERED_SHARE * vectors.ids.size:
        return None
    live = np.zeros(vectors.ids.size, np.bool_)
    live[vectors.rows_of(allowed)] = True
    return live if dead is None else live & ~dead


def _near_spans(lists: Lists, query: FloatArray, share: float) -> list[tuple[int, int]]:
    """The lists whose centers are nearest, as ranges of rows, neighboring ones put together."""
    number = len(lists.centers)
    looked_at = min(number, max(FEWEST_LISTS, round(number * share)))
    scores = np.vecdot(lists.centers, query)
    nearest_ones = np.sort(np.argpartition(-scores, looked_at - 1)[:looked_at])
    spans: list[tuple[int, int]] = []
    for one in nearest_ones.tolist():
        start, stop = int(lists.starts[one]), int(lists.starts[one + 1])
        if spans and spans[-1][1] == start:
            start = spans.pop()[0]
        spans.append((start, stop))
    return spans


class _Search:
    """One query: gathers candidates in float32, ranks them in float64."""

    def __init__(self, vectors: Vectors, query: FloatArray, limit: int, live: Mask | None) -> None:
        self.vectors, self.query, self.limit, self.live = vectors, query, limit, live
        # With u = 2^-24, a sum of D products in float32 is off by at most g = D u / (1 - D u) times
        # |row| |query|, in whatever order it is added (Higham, Accuracy and Stability, 3.1). K rows
        # that score t or more are truly t - g or better, so a row below t - 2 g is truly worse than
        # each of them. One u more is for that bound, which is compared as a float32, and 5 % for
        # the denominator, lengths that round above 1, and float64's own sums.
        self.margin = 2.1 * (query.size + 1) * 2.0**-24 * max(1.0, float(np.linalg.norm(query)))

    def over(self, spans: Sequence[tuple[int, int]], threads: int | None) -> IntArray:
        """Candidates among ranges of rows."""
        total = sum(stop - start for start, stop in spans)
        most = threads or len(os.sched_getaffinity(0))
        parts = min(most, max(1, total // ROWS_FOR_A_THREAD))
        if parts == 1:
            return self._candidates(_chunks(spans))[0]
        shares = _shares(spans, parts)
        with ThreadPoolExecutor(parts) as pool:
            found = list(pool.map(lambda one: self._candidates(_chunks(one)), shares))
        rows = np.concatenate([rows for rows, _ in found])
        return self._best(rows, np.concatenate([scores for _, scores in found]))[0]

    def among(self, rows: IntArray) -> IntArray:
        """Candidates among rising rows, which are read alone."""
        best = np.empty(0, np.int64), np.empty(0, np.float32)
        for start in range(0, rows.size, ROWS_AT_A_TIME):
            some = rows[start : start + ROWS_AT_A_TIME]
            scores = np.vecdot(self.vectors.rows[some], self.query)
            best = self._best(np.append(best[0], some), np.append(best[1], scores))
        return best[0]

    def _candidates(self, chunks: Iterator[tuple[int, int]]) -> tuple[IntArray, FloatArray]:
        rows, scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        least, added = -np.inf, 0
        for start, stop in chunks:
            some = np.vecdot(self.vectors.rows[start:stop], self.query)
            at = np.flatnonzero(some >= least)
            if self.live is not None:
                at = at[self.live[start + at]]
            rows.append(start + at)
            scores.append(some[at])
            added += at.size
            if added > rows[0].size:  # doubled: equal vectors, all kept, take no quadratic time
                best = self._best(np.concatenate(rows), np.concatenate(scores))
                rows, scores = [best[0]], [best[1]]
                least, added = self._least(best[1]), 0
        return self._best(np.concatenate(rows), np.concatenate(scores))

    def _least(self, scores: FloatArray) -> float:
        """A row with less can't be among the best any more."""
        if scores.size < self.limit:
            return -np.inf
        at = scores.size - self.limit
        return float(np.partition(scores, at)[at]) - self.margin

    def _best(self, rows: IntArray, scores: FloatArray) -> tuple[IntArray, FloatArray]:
        keep = scores >= self._least(scores)
        return rows[keep], scores[keep]

    def ranked(self, rows: IntArray) -> Found:
        """The best of the candidates by their exact scores."""
        if not rows.size:
            return NOTHING
        query = self.query.astype(np.float64)
        parts = [
            np.vecdot(self.vectors.rows[rows[at : at + ROWS_AT_A_TIME]].astype(np.float64), query)
            for at in range(0, rows.size, ROWS_AT_A_TIME)
        ]
        return merged([Found(self.vectors.ids_of(rows), np.concatenate(parts))], self.limit)


def _chunks(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, stop in spans:
        for at in range(start, stop, ROWS_AT_A_TIME):
            yield at, min(at + ROWS_AT_A_TIME, stop)


def _shares(spans: Sequence[tuple[int, int]], parts: int) -> list[list[tuple[int, int]]]:
    """Ranges cut into that many shares of nearly the same number of rows."""
    each = -(-sum(stop - start for start, stop in spans) // parts)
    shares: list[list[tuple[int, int]]] = [[]]
    room = each
    for start, stop in spans:
        while start < stop:
            if not room:
                shares.append([])
                room = each
            until = min(stop, start + room)
            shares[-1].append((start, until))
            room -= until - start
            start = until
    return shares


def number_of_lists(vectors: int) -> int:
    """How many lists so many vectors are parted into."""
    return max(1, math.isqrt(vectors))


def train(sample: FloatArray, lists: int, *, seed: int = 0) -> FloatArray:
    """(L, D) centers of unit length: spherical k-means over a sample of vectors.

    Args:
        sample: (S, D) of unit length, at least one for each list.
        seed: the same gives the same centers.
    """
    random = np.random.default_rng(seed)
    centers = sample[random.choice(len(sample), lists, replace=False)].copy()
    for _ in range(ROUNDS):
        nearest_ones = assign(sample, centers)
        order = np.argsort(nearest_ones, kind="stable")
        sizes = np.bincount(nearest_ones, minlength=lists)
        starts = np.append(0, np.cumsum(sizes))[:-1]
        full = sizes > 0
        centers[full] = unit(np.add.reduceat(sample[order], starts[full], axis=0))
        empty = np.flatnonzero(~full)
        centers[empty] = sample[random.choice(len(sample), empty.size, replace=False)]
    return centers


def assign(rows: FloatArray, centers: FloatArray) -> IntArray:
    """(N,) the nearest center of each row."""
    found = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        part = np.asarray(rows[start : start + ROWS_AT_A_TIME])
        found[start : start + len(part)] = np.argmax(part @ centers.T, axis=1)
    return found


def sampled(rows: FloatArray, lists: int, *, seed: int = 0) -> FloatArray:
    """A sample of rows to train so many lists on."""
    number = min(len(rows), lists * SAMPLE_PER_LIST)
    chosen = np.random.default_rng(seed).choice(len(rows), number, replace=False)
    return np.asarray(rows[np.sort(chosen)])


def grouped(
    vectors: Vectors,
    write: Callable[[FloatArray], None],
    *,
    lists: int | None = None,
    seed: int = 0,
) -> tuple[Lists, IntArray]:
    """Writes the rows list by list.

    Args:
        vectors: without lists.
        write: is given the rows, some at a time.
    Returns: the lists, and (N,) the old row of each new row.
    """
    wanted = min(lists or number_of_lists(len(vectors.rows)), len(vectors.rows))
    centers = train(sampled(vectors.rows, wanted, seed=seed), wanted, seed=seed)
    list_of = assign(vectors.rows, centers)
    order = np.argsort(list_of, kind="stable")
    starts = np.append(0, np.cumsum(np.bincount(list_of, minlength=wanted))).astype(np.int64)
    for at in range(0, order.size, ROWS_AT_A_TIME):
        write(np.asarray(vectors.rows[order[at : at + ROWS_AT_A_TIME]]))
    return Lists(centers, starts), order
