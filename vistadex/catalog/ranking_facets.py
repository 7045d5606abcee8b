"""Facets over posting lists: what is in the images that a query finds.

Of few images the rows are looked up one by one; of many, all lists are read in their order, with a
truth value for each image that says whether the query finds it. Facets of many images are kept.
Shape letters as in vistadex.catalog.ranking.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from vistadex.catalog.postings import NOT_BEST, Array, Lists, Postings, as_bits, distinct
from vistadex.catalog.ranking import SUM_BITS, Limits, Search, ranges, slots
from vistadex.catalog.scope import BINS, STATUSES, Scope, Wanted
from vistadex.records import SCORE_SCALE

CHUNK = 1 << 16
"""Rows that are looked at in one go."""
FEW_ROWS = 4_000_000
"""Up to which the rows of a result are looked up one by one."""
MANY_IMAGES = 1 << 16
"""From which they are chunked."""
KEPT = 32
"""Facets that are kept of a snapshot: up to 10 MB with 20,000 classes."""
FEW_IMAGES = 1 << 16
"""Of fewer, facets are made anew rather than mended when some of them have changed."""


MOST_STORED = 64
"""Queries of which a snapshot has the facets: for nothing, and for single classes."""
FEW_STORED = 1 << 14
"""Classes with fewer images are counted quickly without."""
NOTHING = -1
"""Stands in a snapshot for a query that wants nothing, as the id of a class for one that does."""


class Numbers(NamedTuple):
    """Ids and how many images have each."""

    ids: Array
    counts: Array


class PartialFacets(NamedTuple):
    """Facets of one snapshot, in arrays that can be added."""

    images: int
    classes: Numbers
    predicates: Numbers
    scores: Array
    """(BINS,)."""
    sizes: Array
    """(BINS,)."""
    sources: Numbers
    statuses: Array
    """(len(STATUSES),)."""


class _Result(NamedTuple):
    """The images that a query finds, in one of two ways."""

    images: int
    pos: Array | None
    """Rising positions, where they are few."""
    mask: Array
    """(N,) bool; empty where pos is given."""


def facets(search: Search) -> PartialFacets:
    """The facets of all that a query finds in a snapshot."""
    scores = np.zeros(BINS, np.int64)
    return _facets_of(search, _result(search, scores), scores)


def _facets_of(search: Search, result: _Result, scores: Array) -> PartialFacets:
    return PartialFacets(
        result.images,
        _numbers(search, "class", result),
        _numbers(search, "predicate", result),
        scores,
        _sizes(search, result),
        _sources(search, result),
        _statuses(search, result),
    )


def to_store(postings: Postings) -> tuple[Array, Array]:
    """What a snapshot keeps of facets: of which queries, and a row of numbers for each.

    The queries are that for nothing, and those for one of the classes that most images have.
    """
    lists = postings.lists["class"]
    rows = np.diff(lists.starts)
    order = np.argsort(-rows, kind="stable")[: MOST_STORED - 1]
    by_slot = np.empty(lists.keys.size, np.int64)
    by_slot[lists.slots] = lists.keys
    of = np.append(NOTHING, by_slot[order[rows[order] >= FEW_STORED]]).astype(np.int64)
    found = [
        _row(postings, facets(Search(postings, _NONE, _stored_scope(key)))) for key in of.tolist()
    ]
    return of, np.concatenate(found)


_NONE = np.empty(0, np.int64)


def _stored_scope(key: int) -> Scope:
    return Scope() if key == NOTHING else Scope((Wanted("class", (key,)),))


def _row(postings: Postings, found: PartialFacets) -> Array:
    """Facets as numbers side by side, those of ids by all that there are."""
    parts = [np.array([found.images]), found.scores, found.sizes, found.statuses]
    all_ids = _ids(postings)
    for ids, numbers in zip(all_ids, (found.classes, found.predicates, found.sources), strict=True):
        counts = np.zeros(ids.size, np.int64)
        counts[np.searchsorted(ids, numbers.ids)] = numbers.counts
        parts.append(counts)
    return np.concatenate(parts).astype(np.int64)


def _ids(postings: Postings) -> tuple[Array, Array, Array]:
    """Rising ids of all classes, predicates and sources."""
    kinds = postings.lists["class"].keys, postings.lists["predicate"].keys
    return *kinds, np.array(postings.sources, np.int64)


def stored(search: Search) -> PartialFacets | None:
    """The facets of a query as the snapshot has them; None: it has not."""
    scope, postings = search.scope, search.postings
    key = scope.wanted[0].ids[0] if scope.is_simple else NOTHING
    there = np.flatnonzero(postings.facets_of == key)
    if replace(scope, one_analyzer=False) != _stored_scope(key) or not there.size:
        return None
    row = postings.facets.reshape(postings.facets_of.size, -1)[there[0]]
    all_ids = _ids(postings)
    lengths = (1, BINS, BINS, len(STATUSES), *(ids.size for ids in all_ids))
    images, scores, sizes, statuses, *counts = np.split(row, np.cumsum(lengths[:-1]))
    classes, predicates, sources = (
        Numbers(ids[number > 0], number[number > 0])
        for ids, number in zip(all_ids, counts, strict=True)
    )
    return PartialFacets(int(images[0]), classes, predicates, scores, sizes, sources, statuses)


def of_most(search: Search) -> PartialFacets | None:
    """The facets of a query that leaves few images out of those of one that the snapshot has.

    None: the snapshot has no such query.
    """
    free = replace(search.scope, without=(), source_ids=None, status=None)
    every = replace(search, scope=free)
    found = None if free == search.scope else stored(every)
    if found is None:
        return None
    scores = np.zeros(BINS, np.int64)
    result = _result(search, scores)
    if result.pos is not None:
        return _facets_of(search, result, scores)
    gone = ~result.mask
    if free.wanted:
        there = np.zeros(gone.size, bool)
        there[every.having[0].pos] = True
        gone &= there
    else:
        gone &= search.postings.shown
    left_out = _masked(every, gone)
    if left_out.pos is None:
        return _facets_of(search, result, scores)
    return _less(found, _facets_of(every, left_out, found.scores - scores))


def of_any(search: Search) -> PartialFacets | None:
    """The facets of a query for any of several classes: of the one that most images have as the
    snapshot has them, and of what the others add to it.

    None: the snapshot does not have it, or the others add many images.
    """
    scope = search.scope
    if scope.mode != "any" or scope != Scope(scope.wanted, "any"):
        return None
    every = [replace(search, scope=Scope((one,))) for one in scope.wanted]
    there = [(one, found) for one in every if (found := stored(one)) is not None]
    if not there:
        return None
    most, found = max(there, key=lambda one: one[1].images)
    scores = np.zeros(BINS, np.int64)
    result = _result(search, scores)
    if result.pos is not None:
        return _facets_of(search, result, scores)
    added = result.mask.copy()
    added[most.having[0].pos] = False
    others = _masked(search, added)
    if others.pos is None:
        return None
    return PartialFacets(
        result.images,
        _more(found.classes, _numbers(search, "class", others)),
        _more(found.predicates, _numbers(search, "predicate", others)),
        scores,
        _sizes(search, result),
        _sources(search, result),
        _statuses(search, result),
    )


def _more(found: Numbers, others: Numbers) -> Numbers:
    """The numbers of images, and of others that are not among these."""
    ids, where = np.unique(np.concatenate([found.ids, others.ids]), return_inverse=True)
    counts = np.bincount(where, np.concatenate([found.counts, others.counts]), ids.size)
    return Numbers(ids, counts.astype(np.int64))


class KeptFacets:
    """Facets of the same snapshot that were asked for last. Safe to use from several threads.

    They are kept as the snapshot is, whatever has changed since: what its images that no longer
    count add to them is taken away each time.
    """

    def __init__(self) -> None:
        self._found: OrderedDict[Scope, PartialFacets] = OrderedDict()
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Drops them all."""
        with self._lock:
            self._found.clear()

    def facets(self, search: Search) -> PartialFacets:
        """The facets of all that a query finds in the snapshot."""
        if search.only is not None:
            return facets(search)
        with self._lock:
            found = self._found.get(search.scope)
            if found is not None:
                self._found.move_to_end(search.scope)
        if found is None:
            whole = replace(search, dead=search.dead[:0])
            found = stored(whole) or of_most(whole) or of_any(whole) or facets(whole)
            with self._lock:
                self._found[search.scope] = found
                while len(self._found) > KEPT:
                    self._found.popitem(last=False)
        if not search.dead.size:
            return found
        if found.images < FEW_IMAGES:
            return facets(search)
        gone = search.postings.ids[search.dead]
        return _less(found, facets(replace(search, dead=search.dead[:0], only=gone)))


def _less(found: PartialFacets, gone: PartialFacets) -> PartialFacets:
    """Facets without those of some of the images."""
    return PartialFacets(
        found.images - gone.images,
        _fewer(found.classes, gone.classes),
        _fewer(found.predicates, gone.predicates),
        found.scores - gone.scores,
        found.sizes - gone.sizes,
        _fewer(found.sources, gone.sources),
        found.statuses - gone.statuses,
    )


def _fewer(found: Numbers, gone: Numbers) -> Numbers:
    """Numbers without others, whose ids are among theirs."""
    order = np.argsort(found.ids)
    counts = found.counts.copy()
    counts[order[np.searchsorted(found.ids, gone.ids, sorter=order)]] -= gone.counts
    return Numbers(found.ids[counts > 0], counts[counts > 0])


def _result(search: Search, scores: Array) -> _Result:
    """The images that a query finds; adds them to the histogram of scores."""
    least = np.uint32(search.floor if search.scope.wanted else 1)
    mask = np.empty(0, bool)
    for part in search.parts():
        found = part.keys >= least
        number = int(np.count_nonzero(found))
        if search.scope.wanted and number:
            scores += _score_bins(part.keys.compress(found) if number < found.size else part.keys)
        if part.pos is not None:
            return _Result(number, part.pos[found].astype(np.intp), mask)
        if not mask.size:
            mask = np.zeros(search.postings.images, bool)
        mask[part.first : part.first + found.size] = found
    return _masked(search, mask)


def _masked(search: Search, mask: Array) -> _Result:
    """The images of a mask, in the way that suits their number."""
    total = int(np.count_nonzero(mask))
    rows = search.postings.forwards["class"].slot.size
    if total * rows <= FEW_ROWS * search.postings.images:
        return _Result(total, np.flatnonzero(mask), np.empty(0, bool))
    return _Result(total, None, mask)


def _score_bins(keys: Array) -> Array:
    """(BINS,): images by the mean best score of what they match."""
    matched = keys >> np.uint32(SUM_BITS)
    scaled = (keys & np.uint32((1 << SUM_BITS) - 1)) * np.uint32(BINS)
    most = int(matched.max())
    divisor = (
        np.uint32(most * SCORE_SCALE)
        if most == int(matched.min())
        else matched * np.uint32(SCORE_SCALE)
    )
    return np.bincount(np.minimum(scaled // divisor, BINS - 1), minlength=BINS)


def _sources(search: Search, result: _Result) -> Numbers:
    ids = np.array(search.postings.sources, np.int64)
    if ids.size == 1:
        counts = np.array([result.images])
    else:
        counts = _counted(search.postings.source, result, ids.size)
    return Numbers(ids[counts > 0], counts[counts > 0])


def _statuses(search: Search, result: _Result) -> Array:
    """(len(STATUSES),)."""
    return _counted(search.postings.status, result, len(STATUSES))


def _counted(column: Array, result: _Result, kinds: int) -> Array:
    """(kinds,): how many of the images have each value of a column of all images."""
    if result.pos is not None:
        return np.bincount(column[result.pos], minlength=kinds)
    counts = np.zeros(kinds, np.int64)
    for a in range(0, column.size, CHUNK):
        found = column[a : a + CHUNK].compress(result.mask[a : a + CHUNK])
        counts += np.bincount(found, minlength=kinds)
    return counts


def _numbers(search: Search, kind: str, result: _Result) -> Numbers:
    lists = search.postings.lists[kind]
    if result.pos is not None:
        counts = _looked_up(search, kind, result.pos)
    else:
        counts = _in_order(lists, search.limits, result.mask)
    there = np.flatnonzero(counts)
    by_slot = np.empty(lists.keys.size, np.int64)
    by_slot[lists.slots] = lists.keys
    return Numbers(by_slot[there], counts[there])


def _looked_up(search: Search, kind: str, pos: Array) -> Array:
    """(K,): how many of few images have each, from their own rows."""
    lists, forward = search.postings.lists[kind], search.postings.forwards[kind]
    limits = search.limits
    counts = np.zeros(lists.keys.size, np.int64)
    for part, each, rows in _rows_of(forward.starts, pos):
        slot = forward.slot[rows]
        if limits.is_none and lists.more is None:
            counts += np.bincount(slot, minlength=counts.size)
            continue
        score = forward.score[rows]
        if limits.analyzers is None:
            kept = (score < NOT_BEST) & (score >= np.uint32(limits.min_score))
            counts += np.bincount(slot.compress(kept), minlength=counts.size)
            continue
        kept = (score & ~NOT_BEST) >= np.uint32(limits.min_score)
        kept &= limits.analyzers[forward.analyzer[rows]]
        of_image = np.repeat(part, each).compress(kept)
        pairs = distinct(of_image * counts.size + slot.compress(kept))
        counts += np.bincount(pairs % counts.size, minlength=counts.size)
    return counts


def _rows_of(starts: Array, pos: Array) -> Iterator[tuple[Array, Array, Array]]:
    """Some images at a time: how many rows each has, and where they all stand."""
    for i in range(0, pos.size, MANY_IMAGES):
        part = pos[i : i + MANY_IMAGES]
        first = starts[part]
        each = starts[part + 1] - first
        rows = int(each.sum())
        if rows:
            before = np.cumsum(each) - each
            at = np.repeat(first - before, each)
            at += np.arange(rows, dtype=at.dtype)
            yield part, each, at


def _in_order(lists: Lists, limits: Limits, mask: Array) -> Array:
    """(K,): how many of the images have each, from all lists in their order."""
    counts = np.zeros(lists.keys.size, np.int64)
    sparse = np.ones(lists.keys.size, bool)
    found = as_bits(mask)
    among = found.view(np.uint8)
    if limits.is_none and lists.bits is not None and lists.dense is not None:
        both = np.empty_like(found)
        for slot, bits in zip(lists.dense.tolist(), lists.bits, strict=True):
            np.bitwise_and(found, bits, out=both)
            counts[slot] = np.bitwise_count(both).sum(dtype=np.int64)
        sparse[lists.dense] = False
    filled = np.flatnonzero(np.diff(lists.starts))
    starts = lists.starts[filled]
    for first, last in ranges(np.flatnonzero(sparse)):
        end = int(lists.starts[last])
        for a in range(int(lists.starts[first]), end, CHUNK):
            b = min(a + CHUNK, end)
            there = _are_set(among, lists.pos[a:b])
            if not limits.is_none:
                there &= limits.keep(lists, a, b)
            i, j = int(np.searchsorted(starts, a, "right")) - 1, int(np.searchsorted(starts, b))
            counts[filled[i:j]] += _sums(there, np.maximum(starts[i:j] - a, 0))
    if limits.analyzers is not None and lists.more is not None:
        counts += _by_others(lists, limits, mask)
    return counts


def _are_set(bits: Array, pos: Array) -> Array:
    """(R,) bool: whether the bits at these positions are set: they stay in the processor's cache,
    which a byte for each image would not.

    Args:
        bits: uint8, the first in the lowest bit.
    """
    found: Array = bits.take(pos >> np.uint32(3))
    found >>= pos.astype(np.uint8) & np.uint8(7)
    found &= np.uint8(1)
    return found.view(bool)


def _sums(found: Array, starts: Array) -> Array:
    """How many are true from each start up to the next."""
    if starts.size == 1:
        return np.array([np.count_nonzero(found)])
    sums: Array = np.add.reduceat(found.view(np.uint8), starts, dtype=np.uint32)
    return sums


def _by_others(lists: Lists, limits: Limits, mask: Array) -> Array:
    """(K,): how many of the images have each by rows whose best row does not count."""
    more, ahead, analyzers = lists.more, lists.ahead, limits.analyzers
    assert more is not None
    assert ahead is not None
    assert analyzers is not None
    found = [np.empty(0, np.int64)]
    for a in range(0, more.pos.size, CHUNK):
        b = min(a + CHUNK, more.pos.size)
        kept = limits.keep(more, a, b) & ~analyzers[ahead[a:b]] & mask.take(more.pos[a:b])
        found.append(np.flatnonzero(kept) + a)
    rows = np.concatenate(found)
    slot, pos = np.searchsorted(more.starts, rows, "right") - 1, more.pos[rows]
    new = np.append(True, (slot[1:] != slot[:-1]) | (pos[1:] != pos[:-1]))[: rows.size]
    return np.bincount(slot[new], minlength=lists.keys.size)


def _sizes(search: Search, result: _Result) -> Array:
    """(BINS,): boxes of the wanted classes, else of all, in the images by their size."""
    lists, limits = search.postings.lists["box"], search.limits
    ids = [id_ for one in search.scope.wanted if one.kind == "class" for id_ in one.ids]
    wanted = slots(lists, ids) if ids else np.arange(lists.keys.size)
    sizes = np.zeros(BINS, np.int64)
    if result.pos is not None:
        return _sizes_of_few(search, result.pos, wanted)
    for first, last in ranges(wanted):
        start, end = int(lists.starts[first]), int(lists.starts[last])
        for a in range(start, end, CHUNK):
            b = min(a + CHUNK, end)
            found = result.mask.take(lists.pos[a:b])
            if not limits.is_none:
                found &= limits.keep(lists, a, b)
            sizes += np.bincount(lists.number[a:b].compress(found), minlength=BINS)
    return sizes


def _sizes_of_few(search: Search, pos: Array, wanted: Array) -> Array:
    forward, limits = search.postings.forwards["box"], search.limits
    of_wanted = np.zeros(search.postings.lists["box"].keys.size, bool)
    of_wanted[wanted] = True
    sizes = np.zeros(BINS, np.int64)
    for _, _, rows in _rows_of(forward.starts, pos):
        kept = of_wanted[forward.slot[rows]]
        if not limits.is_none:
            kept &= forward.score[rows] >= np.uint32(limits.min_score)
        if limits.analyzers is not None:
            kept &= limits.analyzers[forward.analyzer[rows]]
        sizes += np.bincount(forward.number[rows.compress(kept)], minlength=BINS)
    return sizes
