"""Which images of each class are taken, and which split they go to: by chance, but repeatable.

Chance is a hash of an image's source and key with the seed. So neither the order of rows nor the
catalog's numbers matter, and another database gives the same.

Shape letters: N images, G groups, L pairs of image and class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from vistadex.errors import UsageError
from vistadex.records import DoubleArray, IntArray

RankArray = NDArray[np.uint64]

SPLITS = ("train", "val", "test")
"""What shares are of, in their order; formats have their own words for them."""
_NONE_LEFT = 1e-6
"""Less than this of an image is none."""
_LOOKED_AT = 100
"""Groups of a class among which the smallest is looked for, to have the class in a split."""


def rank(source: str, key: str, seed: int) -> int:
    """Where chance puts an image: 64 bits that follow from its source, its key and the seed."""
    text = f"{seed}\0{source}\0{key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def ranks(names: Iterable[tuple[str, str]], seed: int) -> RankArray:
    """rank() of many images, given as source and key."""
    return np.fromiter((rank(*name, seed) for name in names), np.uint64)


def choose(ranks: RankArray, members: Sequence[IntArray], per_class: int) -> list[IntArray]:
    """The images of each class with the lowest ranks, lowest first; all where there are too few.

    Classes are chosen from by themselves: what is taken of one is a random sample of it. As the
    ranks are the same for all of them, images with several classes are mostly taken for each.

    Args:
        ranks: (N,).
        members: for each class the positions of its images, in any order.
        per_class: how many of each, 1 or more.
    """
    chosen = []
    for some in members:
        own = ranks[some]
        if len(own) > per_class:
            some = some[np.argpartition(own, per_class - 1)[:per_class]]
        chosen.append(some[np.argsort(ranks[some], kind="stable")])
    return chosen


def thrown_again(ranks: RankArray) -> RankArray:
    """(N,) other ranks that follow from these, and stand in no order with them.

    Whoever is chosen from many has a low rank: with the same ranks, all images of a class that has
    many would be in the first split.

    Source: the finalizer of SplitMix64 (Steele, Lea and Flood 2014), one to one on 64 bits.
    """
    mixed = ranks + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def read_shares(text: str) -> tuple[float, ...]:
    """The shares that a text such as `80/10/10` says, as fractions: train, val and test.

    Raises: UsageError unless it is one to three percentages that make a hundred.
    """
    try:
        percent = [float(part) for part in text.split("/")]
    except ValueError:
        percent = []
    if not 1 <= len(percent) <= len(SPLITS) or not all(0 <= one <= 100 for one in percent):
        expected = "one to three percentages for train, val and test, as 80/10/10"
        raise UsageError(f"split {text!r}: expected {expected}")
    if abs(sum(percent) - 100) > _NONE_LEFT:
        raise UsageError(f"split {text!r}: makes {sum(percent):g}, expected 100; correct the parts")
    return tuple(one / 100 for one in percent)


@dataclass(frozen=True, slots=True)
class Labels:
    """Which images have which classes, as pairs in any order."""

    images: IntArray
    """(L,) positions of images."""
    classes: IntArray
    """(L,) positions of classes."""


def split(
    ranks: RankArray,
    groups: IntArray,
    shares: Sequence[float],
    labels: Labels | None = None,
) -> IntArray:
    """(N,) the split of each image, as a position in shares; images of a group are in one.

    Every split has its share of the images but for less than the largest group.

    Args:
        ranks: (N,) from ranks(); chance is thrown again, so that who was chosen by them is no
            more likely in one split.
        groups: (N,) a number for each image, the same for those of a group.
        shares: fractions that make 1.
        labels: give each split its share of every class too, and every class to each split where
            it has as many groups as there are splits and sizes allow it.
    Source: with labels, iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011), with
        groups in the place of examples and splits that are full left out.
    """
    if not len(ranks):
        return np.zeros(0, np.int64)
    ranks = thrown_again(ranks)
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    lowest = np.full(len(sizes), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(lowest, group_of, ranks)
    order = np.argsort(lowest, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    sizes, group_of = sizes[order], place[group_of]
    wanted = np.array(shares, np.float64) * len(ranks)
    if labels is None:
        return _by_position(sizes, wanted)[group_of]
    pairs = group_of[labels.images], labels.classes
    return _Stratifying(sizes, wanted, *pairs).run()[group_of]


def _by_position(sizes: IntArray, wanted: DoubleArray) -> IntArray:
    """Groups in their order, cut where a split has its share: a group goes where its middle is."""
    middles = np.cumsum(sizes) - sizes / 2
    ends = np.cumsum(wanted)[:-1]
    found = np.searchsorted(ends, middles, side="left").astype(np.int64)
    return _existing(found, wanted)


def _existing(found: IntArray, wanted: DoubleArray) -> IntArray:
    """The splits, where none of them has the share 0: rounding could lead to one."""
    open_ = np.flatnonzero(wanted > 0)
    at: IntArray = open_[np.searchsorted(open_, found).clip(0, len(open_) - 1)]
    return at


class _Stratifying:
    """One stratified split of groups that stand in their random order."""

    def __init__(
        self, sizes: IntArray, wanted: DoubleArray, groups: IntArray, classes: IntArray
    ) -> None:
        number = int(classes.max()) + 1 if len(classes) else 0
        pairs, counts = np.unique(groups * max(1, number) + classes, return_counts=True)
        pair_groups, pair_classes = pairs // max(1, number), pairs % max(1, number)
        self.sizes: list[int] = sizes.tolist()
        self.open = [s for s, share in enumerate(wanted.tolist()) if share > 0]
        self.room: list[float] = wanted.tolist()
        """Images that each split still wants."""
        self.left = np.bincount(pair_classes, counts, number).astype(np.int64)
        """Images of each class that have no split yet."""
        shares = wanted / max(1.0, wanted.sum())
        self.wants: list[list[float]] = (self.left[:, None] * shares).tolist()
        """Images of each class that each split still wants."""
        starts = np.searchsorted(pair_groups, np.arange(len(sizes) + 1))
        self.starts: list[int] = starts.tolist()
        self.classes: list[int] = pair_classes.tolist()
        self.counts: list[int] = counts.tolist()
        by_class = np.argsort(pair_classes, kind="stable")
        ends = np.cumsum(np.bincount(pair_classes, minlength=number))
        self.groups_of = np.split(pair_groups[by_class], ends[:-1]) if number else []
        self.split = [-1] * len(sizes)
        self.has = [[0] * len(self.room) for _ in range(number)]
        """Groups with each class in each split."""
        self.unsettled: list[int] = []
        """Groups that left does not know to have a split."""

    def run(self) -> IntArray:
        """(G,) the split of each group."""
        for c in sorted(range(len(self.groups_of)), key=lambda c: len(self.groups_of[c])):
            if len(self.groups_of[c]) >= len(self.open):
                self._seed(c)
        self._settle()
        while self.left.any():
            c = int(np.where(self.left > 0, self.left, np.iinfo(np.int64).max).argmin())
            for group in self.groups_of[c].tolist():
                if self.split[group] < 0:
                    self._assign(group, self._wanting(self.wants[c]))
            self._settle()
        for group, at in enumerate(self.split):
            if at < 0:
                self._assign(group, self._wanting(self.room))
        self._level()
        return np.array(self.split, np.int64)

    def _seed(self, c: int) -> None:
        """Puts a class into every split that has room, the smallest split first."""
        for s in sorted(self.open, key=lambda s: (self.room[s], s)):
            if self.has[c][s] or self.room[s] <= _NONE_LEFT:
                continue
            free = (group for group in self.groups_of[c].tolist() if self.split[group] < 0)
            group = min(islice(free, _LOOKED_AT), key=lambda g: self.sizes[g], default=-1)
            if group >= 0:
                self._assign(group, s)

    def _wanting(self, wants: Sequence[float]) -> int:
        """The split that wants most, of those with room; with most room where they want the same.

        What is left over is more than the splits that are full have too much: one has room.
        """
        free = [s for s in self.open if self.room[s] > _NONE_LEFT]
        return max(free, key=lambda s: (wants[s], self.room[s], -s))

    def _assign(self, group: int, to: int) -> None:
        """Gives a group its split."""
        self.split[group] = to
        self.unsettled.append(group)
        self._count(group, to, 1)

    def _count(self, group: int, at: int, sign: int) -> None:
        """Counts a group into a split (sign 1) or out of it (-1)."""
        self.room[at] -= sign * self.sizes[group]
        for i in range(self.starts[group], self.starts[group + 1]):
            c = self.classes[i]
            self.wants[c][at] -= sign * self.counts[i]
            self.has[c][at] += sign

    def _settle(self) -> None:
        """Brings up to date how many images of each class are left."""
        for group in self.unsettled:
            for i in range(self.starts[group], self.starts[group + 1]):
                self.left[self.classes[i]] -= self.counts[i]
        self.unsettled = []

    def _level(self) -> None:
        """Moves groups to splits that want more than the largest group has: large groups may have
        filled two splits above their shares, at the cost of the third."""
        largest = max(self.sizes)
        while True:
            to = max(self.open, key=lambda s: self.room[s])
            if self.room[to] <= largest + _NONE_LEFT:
                return
            full = min(self.open, key=lambda s: self.room[s])
            own = [group for group, at in enumerate(self.split) if at == full]
            group = next((one for one in own if self._is_spare(one, full)), own[-1])
            self._count(group, full, -1)
            self.split[group] = to
            self._count(group, to, 1)

    def _is_spare(self, group: int, at: int) -> bool:
        """Whether each of its classes is in its split without it, too."""
        its = range(self.starts[group], self.starts[group + 1])
        return all(self.has[self.classes[i]][at] > 1 for i in its)
