"""How many images a query finds when only some analyzers count, without looking at every image.

Of one class, or of nothing wanted, posting lists say it by the analyzers of their rows; the rest is
counted by vistadex.catalog.ranking. Shape letters as there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from vistadex.catalog import ranking
from vistadex.catalog.postings import Array, Lists, as_bits, distinct, words
from vistadex.catalog.ranking import Limits, Search
from vistadex.catalog.scope import Scope, Wanted


def count(search: Search) -> int:
    """How many images there are in all."""
    scope = search.scope
    plain = Scope(scope.wanted, scope.mode, analyzer_ids=scope.analyzer_ids)
    given = search.limits.analyzers
    if given is None or search.only is not None:
        return ranking.count(search)
    free = replace(scope, one_analyzer=False, status=None, source_ids=None)
    if free == plain and not scope.wanted and scope.status != "failed":
        return _of_nothing(search, given)
    if replace(scope, one_analyzer=False) != plain:
        return ranking.count(search)
    if scope.is_simple and not scope.wanted[0].min_boxes:
        lists = search.postings.lists[scope.wanted[0].kind]
        slots = ranking.slots(lists, scope.wanted[0].ids)
        return _of_slot(lists, int(slots[0]), given, search.dead) if slots.size else 0
    return ranking.count(search)


def counts(search: Search, groups: Sequence[Collection[int]]) -> list[int]:
    """How many images there are when only the analyzers of each group count, group by group."""
    scope = search.scope
    plain = Scope(scope.wanted, scope.mode, min_score=scope.min_score)
    free = replace(scope, analyzer_ids=None, one_analyzer=False)
    as_plain = replace(free, status=None, source_ids=None)
    if search.only is not None or not scope.wanted or as_plain != plain or len(groups) < 2:
        return [count(replace(search, scope=of_analyzers(scope, one))) for one in groups]
    found: list[int] = []
    for start in range(0, len(groups), 8):
        found += _of_groups(search, groups[start : start + 8])
    return found


def of_analyzers(scope: Scope, analyzer_ids: Collection[int]) -> Scope:
    """The same when only these analyzers count."""
    one = len(analyzer_ids) == 1
    return replace(scope, analyzer_ids=tuple(analyzer_ids), one_analyzer=one)


def _of_groups(search: Search, groups: Sequence[Collection[int]]) -> list[int]:
    """Likewise of at most eight groups, each a bit of a byte for every image."""
    postings, scope = search.postings, search.scope
    masks = [
        sum(1 << i for i, ids in enumerate(groups) if one in ids) for one in postings.analyzers
    ]
    group_of = np.array(masks, np.uint8)
    if scope.mode == "all" and len(scope.wanted) > 1:
        there = _groups_of_all(search, group_of)
    else:
        there = reduce(np.bitwise_or, (_groups_of(search, one, group_of) for one in scope.wanted))
        there[search.dead] = 0
        if search.of_source is not None:
            there *= search.of_source[postings.source]
        if search.status is not None:
            there *= postings.status == search.status
    numbers = [0] * len(groups)
    for a in range(0, there.size, ranking.BLOCK):
        block = there[a : a + ranking.BLOCK]
        for i in range(len(groups)):  # bincount would make eight bytes of each first
            bits: Array = block >> np.uint8(i) & np.uint8(1)
            numbers[i] += int(np.count_nonzero(bits.view(bool)))
    return numbers


def _groups_of_all(search: Search, group_of: Array) -> Array:
    """(R,) uint8: the groups by which each of the images that have all of them has them."""
    free = replace(search.scope, analyzer_ids=None, one_analyzer=False)
    parts = [
        one.positions(np.flatnonzero(one.keys >= np.uint32(search.floor)))
        for one in replace(search, scope=free).parts()
    ]
    pos = np.concatenate(parts)
    there = np.full(pos.size, 255, np.uint8)
    for wanted in search.scope.wanted:
        there &= _groups_of(search, wanted, group_of)[pos]
    return there


def _groups_of(search: Search, wanted: Wanted, group_of: Array) -> Array:
    """(N,) uint8: the groups by which each image has what is wanted.

    Args:
        group_of: (slots of analyzers,) uint8, the groups of each.
    """
    there = np.zeros(search.postings.images, np.uint8)
    limits = Limits(search.scope.min_score, None)
    for lists, first, last in ranking.pieces(search.postings, wanted):
        for slot in range(first, last):  # in which no image is twice, but among `more`
            a, b = int(lists.starts[slot]), int(lists.starts[slot + 1])
            groups = group_of[lists.analyzer[a:b]]
            if not limits.is_none or wanted.min_boxes:
                groups *= limits.keep(lists, a, b, wanted.min_boxes)
            there[lists.pos[a:b]] |= groups
        if lists.more is None:
            continue
        a, b = int(lists.more.starts[first]), int(lists.more.starts[last])
        groups = group_of[lists.more.analyzer[a:b]]
        groups = groups * limits.keep(lists.more, a, b, wanted.min_boxes)
        for one in np.unique(groups).tolist():
            there[lists.more.pos[a:b].compress(groups == one)] |= np.uint8(one)
    return there


def _of_nothing(search: Search, given: Array) -> int:
    """The images of the wanted status and sources with any row of these analyzers.

    Args:
        given: (slots of analyzers,) bool.
    """
    lists = search.postings.lists["analyzer"]
    there = np.zeros(words(search.postings.images), np.uint64)
    dense = np.empty(0, np.int64) if lists.dense is None else lists.dense
    for slot in np.flatnonzero(given).tolist():
        at = np.flatnonzero(dense == slot)
        if at.size and lists.bits is not None:
            there |= lists.bits[at[0]]
            continue
        mask = np.zeros(search.postings.images, bool)
        mask[lists.pos[lists.starts[slot] : lists.starts[slot + 1]]] = True
        there |= as_bits(mask)
    shown = search.postings.shown
    if search.of_source is not None:
        shown = shown & search.of_source[search.postings.source]
    if search.status is not None:
        shown = shown & (search.postings.status == search.status)
    if search.dead.size:
        shown = shown.copy()
        shown[search.dead] = False
    return int(np.bitwise_count(there & as_bits(shown)).sum(dtype=np.int64))


def _of_slot(lists: Lists, slot: int, given: Array, dead: Array) -> int:
    """The images with a row of one slot by these analyzers."""
    a, b = int(lists.starts[slot]), int(lists.starts[slot + 1])
    analyzer = lists.analyzer[a:b]
    found = sum(int(np.count_nonzero(analyzer == one)) for one in np.flatnonzero(given).tolist())
    found -= int(np.count_nonzero(given[analyzer[_places(lists.pos[a:b], dead)]]))
    if lists.more is None or lists.ahead is None:
        return found
    more, ahead = lists.more, lists.ahead
    a, b = int(more.starts[slot]), int(more.starts[slot + 1])
    kept = given[more.analyzer[a:b]] & ~given[ahead[a:b]]
    others = distinct(more.pos[a:b].compress(kept))
    return found + others.size - _places(others, dead).size


def _places(pos: Array, of: Array) -> Array:
    """Where those of some rising positions stand among others, which are rising too."""
    if not pos.size or not of.size:
        return np.empty(0, np.intp)
    at = np.minimum(np.searchsorted(pos, of.astype(pos.dtype)), pos.size - 1)
    found: Array = at[pos[at] == of]
    return found
