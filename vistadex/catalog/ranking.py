"""Queries over posting lists: which images have what is wanted, and in which order.

Long lists are added up a block of images at a time, in accumulators that stay in the processor's
cache; short ones are sorted or looked up. An image's key is `matched << SUM_BITS | sum of scores`.
Shape letters: R images that have something, B images of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from vistadex.catalog.postings import MOST_NUMBER, Array, Lists, Postings, distinct
from vistadex.catalog.scope import STATUSES, Position, Scope, Wanted

BLOCK = 1 << 18
"""Images that are added up at a time: 1 MB of accumulators."""
SHORT = 1 << 16
"""Rows up to which lists are sorted instead of added up."""
SUM_BITS = 26
MOST_WANTED = 63
"""So that a key fits into 32 bits."""


class Limits(NamedTuple):
    """Which rows count."""

    min_score: int
    analyzers: Array | None
    """(slots of analyzers,) bool; None: all count."""

    @property
    def is_none(self) -> bool:
        """Whether every row counts."""
        return not self.min_score and self.analyzers is None

    def keep(self, lists: Lists, a: int, b: int, least: int = 0) -> Array:
        """(b - a,) bool: which of these rows count, and say at least such a number."""
        kept = lists.score[a:b] >= np.uint32(self.min_score)
        if self.analyzers is not None:
            kept &= self.analyzers[lists.analyzer[a:b]]
        if least:
            kept &= lists.number[a:b] >= least
        return kept


class Having(NamedTuple):
    """The images that have something, by rising position, each with its best score."""

    pos: Array
    """(R,) uint32."""
    score: Array
    """(R,) uint32."""


class Part(NamedTuple):
    """Some images of a result with their keys; 0: not in the result."""

    pos: Array | None
    """(B,); None: `first` and those behind it."""
    first: int
    keys: Array
    """(B,) uint32."""

    def positions(self, index: Array) -> Array:
        """The positions of these of the images."""
        return index + self.first if self.pos is None else self.pos[index]


def can_answer(scope: Scope) -> bool:
    """Whether the lists say all that a query needs, but for attributes, duplicates, collections.

    Images that could not be read are in no list of what is shown.
    """
    if len(scope.wanted) > MOST_WANTED or (scope.status == "failed" and not scope.wanted):
        return False
    return all(
        one.min_boxes <= MOST_NUMBER and not (one.min_boxes and scope.min_score)
        for one in scope.wanted + scope.without
    )


@dataclass(frozen=True, eq=False)
class Search:
    """One query over one snapshot."""

    postings: Postings
    dead: Array
    """Rising positions of images that are not as the snapshot says."""
    scope: Scope
    only: Array | None = None
    """Rising ids of images: no others are found."""

    @cached_property
    def limits(self) -> Limits:
        """Which rows count for this query."""
        analyzers, ids = self.postings.analyzers, self.scope.analyzer_ids
        if ids is None or set(analyzers) <= set(ids):
            return Limits(self.scope.min_score, None)
        return Limits(self.scope.min_score, np.array([one in ids for one in analyzers], bool))

    @cached_property
    def allowed(self) -> Array | None:
        """Rising positions of the images that may be found; None: all."""
        if self.only is None:
            return self.large
        only = self.only[_member(self.only, self.postings.ids)]
        pos = np.searchsorted(self.postings.ids, only)
        return pos if self.large is None else pos[_member(pos, self.large)]

    @cached_property
    def large(self) -> Array | None:
        """Rising positions of images with a box as large as wanted; None: all will do."""
        if not self.scope.min_size:
            return None
        lists = self.postings.lists["box"]
        ids = self.scope.box_classes
        wanted = slots(lists, ids) if ids else np.arange(lists.keys.size)
        found = np.zeros(self.postings.images, bool)
        for first, last in ranges(wanted):
            a, b = int(lists.starts[first]), int(lists.starts[last])
            kept = self.limits.keep(lists, a, b, self.scope.min_size)
            found[lists.pos[a:b].compress(kept)] = True
        return np.flatnonzero(found)

    @cached_property
    def of_source(self) -> Array | None:
        """(slots of sources,) bool."""
        ids = self.scope.source_ids
        if ids is None:
            return None
        return np.array([one in ids for one in self.postings.sources], bool)

    @property
    def status(self) -> int | None:
        """The place of the wanted status in STATUSES."""
        return None if self.scope.status is None else STATUSES.index(self.scope.status)

    @property
    def floor(self) -> int:
        """The least key of a result."""
        every = self.scope.mode == "all" or not self.scope.wanted
        return (len(self.scope.wanted) if every else 1) << SUM_BITS

    @property
    def is_limited(self) -> bool:
        """Whether something else than what images have narrows the result."""
        given = (self.scope.source_ids, self.scope.status, self.allowed)
        return bool(self.dead.size or self.scope.without) or any(one is not None for one in given)

    @cached_property
    def having(self) -> list[Having]:
        """Images of each of the wanted; where nothing is wanted, of any row within the limits."""
        if self.scope.wanted:
            return [having(self.postings, one, self.limits) for one in self.scope.wanted]
        free = not self.scope.min_score and self.scope.analyzer_ids is None
        return [] if free else [_any_row(self.postings, self.limits)]

    @cached_property
    def unwanted(self) -> list[Having]:
        """Images of each that is not wanted."""
        return [having(self.postings, one, self.limits) for one in self.scope.without]

    def parts(self) -> Iterator[Part]:
        """The result, by falling position of the parts."""
        if self.allowed is not None and self.allowed.size <= SHORT:
            yield self._short([_within(one, self.allowed) for one in self.having], self.allowed)
            return
        sizes = [one.pos.size for one in self.having]
        together = self.scope.mode == "all" or len(sizes) < 2
        if sizes and (sum(sizes) <= SHORT or (together and min(sizes) * 30 < sum(sizes))):
            yield self._short(self.having, None)
            return
        yield from self._blocks()

    def _short(self, lists: Sequence[Having], among: Array | None) -> Part:
        """The whole result of short lists, or of lists of which one is short."""
        if not self.scope.wanted:
            pos = lists[0].pos if lists else among
            assert pos is not None
            keys = self.postings.shown[pos].astype(np.uint32)
        elif self.scope.mode == "all":
            pos, keys = _intersected(lists)
        else:
            pos, keys = _united(lists)
        if not self.is_limited or not pos.size:
            return Part(pos, 0, keys)
        good = ~_member(pos, self.dead)
        if self.of_source is not None:
            good &= self.of_source[self.postings.source[pos]]
        if self.status is not None:
            good &= self.postings.status[pos] == self.status
        if self.allowed is not None:
            good &= _member(pos, self.allowed)
        for one in self.unwanted:
            good &= ~_member(pos, one.pos)
        return Part(pos[good], 0, keys[good])

    def _blocks(self) -> Iterator[Part]:
        """The result a block at a time; the arrays are used again for the next."""
        images = self.postings.images
        edges = np.arange(0, images + BLOCK, BLOCK)
        # The longest first: what is put down first need not be added to what is there.
        longest = sorted(self.having, key=lambda one: one.pos.size, reverse=True)
        cuts = [np.searchsorted(one.pos, edges).tolist() for one in longest]
        all_keys, first_index = np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.intp)
        one_more = np.uint32(1 << SUM_BITS)
        for block in range(len(edges) - 2, -1, -1):
            base = int(edges[block])
            keys = all_keys[: min(BLOCK, images - base)]
            if self.scope.wanted:
                keys.fill(0)
            else:
                keys[:] = self.postings.shown[base : base + keys.size]
            for one, cut in zip(longest, cuts, strict=True):
                a, b = cut[block], cut[block + 1]
                index = np.subtract(one.pos[a:b], base, out=first_index[: b - a], casting="unsafe")
                if not self.scope.wanted:
                    _keep_only(keys, index)
                elif one is longest[0]:
                    keys[index] = one.score[a:b] + one_more
                else:
                    keys[index] += one.score[a:b] + one_more
            if self.is_limited:
                self._limit(keys, base)
            yield Part(None, base, keys)

    def _limit(self, keys: Array, base: int) -> None:
        """Takes images out of a block."""
        until = base + keys.size
        for out in (self.dead, *(one.pos for one in self.unwanted)):
            a, b = np.searchsorted(out, (base, until))
            keys[out[a:b].astype(np.intp) - base] = 0
        if self.of_source is not None:
            keys[~self.of_source[self.postings.source[base:until]]] = 0
        if self.status is not None:
            keys[self.postings.status[base:until] != self.status] = 0
        if self.allowed is not None:
            a, b = np.searchsorted(self.allowed, (base, until))
            _keep_only(keys, self.allowed[a:b] - base)


def _keep_only(keys: Array, index: Array) -> None:
    kept = keys[index]
    keys.fill(0)
    keys[index] = kept


def _member(pos: Array, of: Array) -> Array:
    """(R,) bool: whether positions are among others, which are rising."""
    if not of.size:
        return np.zeros(pos.size, bool)
    at = np.searchsorted(of, pos)
    at[at == of.size] = 0
    found: Array = of[at] == pos
    return found


def _within(one: Having, allowed: Array) -> Having:
    """Those of the images that are among a few positions."""
    at = np.searchsorted(one.pos, allowed.astype(np.uint32))
    at = distinct(at[at < one.pos.size])
    at = at[_member(one.pos[at], allowed)]
    return Having(one.pos[at], one.score[at])


def _intersected(lists: Sequence[Having]) -> tuple[Array, Array]:
    """Positions and keys of what all lists have, beginning with the shortest."""
    first, *others = sorted(lists, key=lambda one: one.pos.size)
    pos, total = first.pos, first.score
    for one in others:
        at = np.searchsorted(one.pos, pos)
        at[at == one.pos.size] = 0
        both = one.pos[at] == pos if one.pos.size else np.zeros(pos.size, bool)
        pos, total = pos[both], total[both] + (one.score[at[both]])
    return pos, total + np.uint32(len(lists) << SUM_BITS)


def _united(lists: Sequence[Having]) -> tuple[Array, Array]:
    """Positions and keys of what any list has."""
    one_more = np.uint32(1 << SUM_BITS)
    if len(lists) == 1:
        return lists[0].pos, lists[0].score + one_more
    pos = np.concatenate([one.pos for one in lists])
    keys = np.concatenate([one.score for one in lists]) + one_more
    order = np.argsort(pos, kind="stable")
    pos, keys = pos[order], keys[order]
    starts = np.flatnonzero(np.diff(pos, prepend=-1)) if pos.size else np.empty(0, np.intp)
    return pos[starts], np.add.reduceat(keys, starts) if pos.size else keys


def having(postings: Postings, wanted: Wanted, limits: Limits) -> Having:
    """The images that have any of what is wanted, by rows within the limits."""
    found: list[Having] = []
    slots_ = 0
    for lists, first, last in pieces(postings, wanted):
        found += _of_slots(lists, first, last, limits, wanted.min_boxes)
        slots_ += last - first
    if not found:
        return Having(np.empty(0, np.uint32), np.empty(0, np.uint32))
    return found[0] if slots_ == len(found) == 1 else _best_of(found)


def pieces(postings: Postings, wanted: Wanted) -> Iterator[tuple[Lists, int, int]]:
    """Lists and ranges of slots of what is wanted; all types of a predicate are one slot."""
    lists = postings.lists[wanted.kind]
    for first, last in ranges(slots(lists, wanted.ids)):
        a, b = first, first
        if wanted.kind == "relation" and not wanted.min_boxes:
            begin = int(np.searchsorted(postings.types_of, first))
            end = int(np.searchsorted(postings.types_of, last, "right")) - 1
            if begin < end:
                a, b = int(postings.types_of[begin]), int(postings.types_of[end])
                yield postings.lists["predicate"], begin, end
        if first < a:
            yield lists, first, a
        if b < last:
            yield lists, b, last


def _any_row(postings: Postings, limits: Limits) -> Having:
    """The images of which some row of any class is within the limits; their scores are 0."""
    lists = postings.lists["analyzer"]
    found = np.zeros(postings.images, bool)
    for slot in range(lists.keys.size):
        if limits.analyzers is None or limits.analyzers[slot]:
            a, b = int(lists.starts[slot]), int(lists.starts[slot + 1])
            pos = lists.pos[a:b]
            if limits.min_score:
                pos = pos.compress(lists.score[a:b] >= np.uint32(limits.min_score))
            found[pos.astype(np.intp)] = True
    there = np.flatnonzero(found).astype(np.uint32)
    return Having(there, np.zeros(there.size, np.uint32))


def slots(lists: Lists, ids: Sequence[int]) -> Array:
    """The rising slots of those ids that there are."""
    wanted = np.unique(np.array(ids, np.int64))
    at = np.searchsorted(lists.keys, wanted)
    at, wanted = at[at < lists.keys.size], wanted[at < lists.keys.size]
    return np.sort(lists.slots[at[lists.keys[at] == wanted]])


def ranges(found: Array) -> list[tuple[int, int]]:
    """Slots as ranges from first to last - 1."""
    if not found.size:
        return []
    breaks = np.flatnonzero(np.diff(found.astype(np.int64)) != 1) + 1
    firsts, lasts = found[np.append(0, breaks)], found[np.append(breaks - 1, -1)]
    return list(zip(firsts.tolist(), (lasts.astype(np.int64) + 1).tolist(), strict=True))


def _of_slots(lists: Lists, first: int, last: int, limits: Limits, least: int) -> list[Having]:
    """Rows of slots; a position may be in several."""
    a, b = int(lists.starts[first]), int(lists.starts[last])
    if limits.is_none and not least:
        return [Having(lists.pos[a:b], lists.score[a:b])]
    kept = limits.keep(lists, a, b, least)
    found = [Having(lists.pos[a:b].compress(kept), lists.score[a:b].compress(kept))]
    more = lists.more
    if more is not None and (limits.analyzers is not None or least):
        a, b = int(more.starts[first]), int(more.starts[last])
        if a < b:
            kept = limits.keep(more, a, b, least)
            found.append(Having(more.pos[a:b].compress(kept), more.score[a:b].compress(kept)))
    return found


def _best_of(found: Sequence[Having]) -> Having:
    """Each image once, with its best score."""
    shift = np.uint64(32)
    both = np.concatenate([one.pos for one in found]).astype(np.uint64) << shift
    both |= np.concatenate([one.score for one in found])
    both.sort()
    pos = (both >> shift).astype(np.uint32)
    last = np.append(pos[1:] != pos[:-1], True)[: pos.size]
    return Having(pos.compress(last), both.compress(last).astype(np.uint32))


def ordered(search: Search, limit: int | None, after: Position | None) -> Array:
    """`key << 32 | image id` of the best images, best first, uint64.

    Args:
        limit: how many; None: all.
        after: only what stands behind it.
    """
    bound = _bound(search, after)
    best = np.empty(0, np.uint64)
    above, below = search.floor - 1 if search.scope.wanted else 0, bound >> 32
    every: list[Array] = []
    for part in search.parts():
        keep = part.keys > np.uint32(above)
        if after is not None:
            keep &= part.keys <= np.uint32(below)
        index = np.flatnonzero(keep)
        if not index.size:
            continue
        found = part.keys[index].astype(np.uint64) << np.uint64(32)
        found |= search.postings.ids[part.positions(index)].astype(np.uint64)
        if after is not None:
            found = found[found < np.uint64(bound)]
        if limit is None:
            every.append(found)
            continue
        best = _best(np.concatenate((best, found)), limit)
        if best.size == limit:  # older images come later: they must have a better key
            above = max(above, int(best[0] >> np.uint64(32)))
            if not search.scope.wanted:
                break
    if limit is None:
        best = np.concatenate([best, *every])
    best.sort()
    return best[::-1]


def newest(search: Search, limit: int | None, after: Position | None) -> Array:
    """`image id << 32 | key` of the newest images, newest first, uint64; arguments as ordered()."""
    least = np.uint32(search.floor if search.scope.wanted else 1)
    every, number = [np.empty(0, np.uint64)], 0
    for part in search.parts():
        index = np.flatnonzero(part.keys >= least)
        found = search.postings.ids[part.positions(index)].astype(np.uint64) << np.uint64(32)
        found |= part.keys[index].astype(np.uint64)
        if after is not None:
            found = found[found < np.uint64(min(after.image_id, (1 << 32) - 1) << 32)]
        every.append(found)
        number += found.size
        if limit is not None and number >= limit:
            break
    return np.sort(np.concatenate(every))[::-1][:limit]


def _best(found: Array, limit: int) -> Array:
    """The largest, the least of them first."""
    if found.size <= limit:
        return np.sort(found)
    return np.sort(np.partition(found, found.size - limit)[found.size - limit :])


def _bound(search: Search, after: Position | None) -> int:
    """What results have to be below, as ordered() has them."""
    most = (1 << 64) - 1
    if after is None:
        return most
    wanted = len(search.scope.wanted)
    if not wanted:
        return min((1 << 32) + min(after.image_id, 1 << 32), most)
    matched = wanted if search.scope.mode == "all" else min(after.matched, wanted + 1)
    score = min(after.score, 1 << SUM_BITS)
    key = (matched << SUM_BITS) + score
    return min((key << 32) + (min(after.image_id, 1 << 32) if score == after.score else 0), most)


def position(search: Search, found: int) -> Position:
    """A number of ordered() as a position."""
    key, image_id = found >> 32, found & 0xFFFFFFFF
    if not search.scope.wanted:
        return Position(image_id, 0, 0)
    return Position(image_id, key >> SUM_BITS, key & (1 << SUM_BITS) - 1)


def count(search: Search) -> int:
    """How many images there are."""
    if len(search.having) == 1 and search.scope.wanted and not search.is_limited:
        return int(search.having[0].pos.size)
    least = np.uint32(search.floor if search.scope.wanted else 1)
    return sum(int(np.count_nonzero(part.keys >= least)) for part in search.parts())
