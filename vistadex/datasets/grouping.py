"""Which images of a data set must stay together, and that none are apart that should not be."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vistadex.datasets.picking import Picked
from vistadex.duplicates import merged_groups, near_groups
from vistadex.records import IntArray


@dataclass(frozen=True, slots=True)
class Groups:
    """Images that stay together."""

    of: IntArray
    """(N,) a number for each image, the same for those of a group."""
    near: int
    """Images that are alike to another."""
    not_compared: int
    """Images of which nobody knows what they look like."""
    without_value: int
    """Images without the attribute to group by."""


def grouped(picked: Sequence[Picked], max_distance: int) -> Groups:
    """Groups by attribute, and images that look alike or are the same with them.

    Args:
        max_distance: bits of the perceptual hash in which pictures that look alike may differ.
    """
    by_value = _same(one.group for one in picked)
    alike = _alike(picked, max_distance)
    _, counts = np.unique(alike, return_counts=True)
    return Groups(
        merged_groups(by_value, alike),
        int(counts[counts > 1].sum()),
        sum(one.perceptual is None for one in picked),
        sum(one.group is None for one in picked),
    )


def alike_apart(picked: Sequence[Picked], splits: IntArray, max_distance: int) -> int:
    """How many groups of images that look alike are in more than one split."""
    alike = _alike(picked, max_distance)
    pairs = np.unique(np.stack([alike, splits], axis=1), axis=0)
    _, counts = np.unique(pairs[:, 0], return_counts=True)
    return int((counts > 1).sum())


def _alike(picked: Sequence[Picked], max_distance: int) -> IntArray:
    """(N,) the groups of images that look alike, or have the same bytes."""
    of = np.arange(len(picked))
    has = np.array([one.perceptual is not None for one in picked], np.bool_)
    hashes = _hashes(picked)
    if len(hashes):
        of[has] = np.flatnonzero(has)[near_groups(hashes, max_distance)]
    return merged_groups(of, _same(one.content for one in picked))


def _hashes(picked: Sequence[Picked]) -> NDArray[np.uint64]:
    known = [one.perceptual for one in picked if one.perceptual is not None]
    return np.array(known, np.int64).view(np.uint64)


def _same(values: Iterable[Hashable | None]) -> IntArray:
    """(N,) the first position of each value; its own where there is none."""
    first: dict[Hashable, int] = {}
    return np.array(
        [at if value is None else first.setdefault(value, at) for at, value in enumerate(values)],
        np.int64,
    )
