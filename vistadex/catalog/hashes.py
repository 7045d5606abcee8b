"""Hashes of images, and which images are copies of a better one: by bytes, or by looks.

Shape letters: N images, M images that have copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vistadex.catalog import tables
from vistadex.catalog.counting import slices
from vistadex.duplicates import HashArray, hamming, merged_groups, near_groups
from vistadex.records import IntArray, image_address

NEAR_DISTANCE = 6
"""Bits that may differ where nobody says how many: see docs/duplicates.md."""
UNKNOWN = -1
"""The distance of an image that has no perceptual hash."""
_THERE = ("ok", "failed")
_ROWS = 50_000
_FEW = 20_000
"""Images whose rows are asked for by id; for more, all are read."""


@dataclass(frozen=True, slots=True)
class Hashes:
    """The hashes of many images, by rising id."""

    ids: IntArray
    """(N,)"""
    content: HashArray
    """(N, 2) halves of the hash of the bytes."""
    perceptual: HashArray
    """(N,) 0 where there is none."""
    has_looks: NDArray[np.bool_]
    """(N,) whether there is a perceptual hash."""


class Unhashed(NamedTuple):
    """Images whose copies can't be found, and why."""

    older: int
    """Indexed before Vistadex took hashes."""
    unseen: int
    """Known from annotations alone."""


@dataclass(frozen=True, slots=True)
class CopyGroups:
    """Images that have copies, group by group, in each the best copy first.

    The best has the most pixels, then the most bytes, then the lowest id.
    """

    ids: IntArray
    """(M,)"""
    starts: IntArray
    """Where each group begins; groups with more images first, then by the best one's id."""
    distances: IntArray
    """(M,) bits that differ from the best one's looks; 0 for the same bytes; else UNKNOWN."""
    same_bytes: NDArray[np.bool_]
    """(M,) whether an image has the bytes of the best one."""
    sizes_bytes: IntArray
    """(M,)"""

    @property
    def is_best(self) -> NDArray[np.bool_]:
        """(M,) whether an image is the best of its group."""
        best = np.zeros(len(self.ids), np.bool_)
        best[self.starts] = True
        return best


def hashes(connection: sa.Connection, ids: IntArray | None = None) -> Hashes:
    """Hashes of all images that have some, or of those among these ids.

    Vanished images and empty files are left out.
    """
    parts = [_columns(rows) for rows in _hash_rows(connection, ids)]
    if not parts:
        none = np.zeros(0, np.uint64)
        return Hashes(none.astype(np.int64), none.reshape(0, 2), none, none.astype(np.bool_))
    columns = [np.concatenate(some) for some in zip(*parts, strict=True)]
    if ids is not None and len(ids) > _FEW:
        wanted = np.isin(columns[0], ids)
        columns = [column[wanted] for column in columns]
    return Hashes(*columns)


def _hash_rows(connection: sa.Connection, ids: IntArray | None) -> Iterator[Sequence[Any]]:
    """Rows of id and both hashes, by rising id."""
    image = tables.image
    query = sa.select(image.c.id, image.c.content_hash, image.c.perceptual_hash).order_by(
        image.c.id
    )
    query = query.where(
        image.c.content_hash.is_not(None), image.c.status.in_(_THERE), image.c.size_bytes > 0
    )
    if ids is not None and len(ids) <= _FEW:
        for part in slices(np.unique(ids).tolist()):
            if rows := connection.execute(query.where(image.c.id.in_(part))).all():
                yield rows
        return
    last = -1
    page = query.where(image.c.id > sa.bindparam("last")).limit(_ROWS)
    while rows := connection.execute(page, {"last": last}).all():
        last = rows[-1][0]
        yield rows


def _columns(rows: Sequence[Any]) -> tuple[IntArray, HashArray, HashArray, NDArray[np.bool_]]:
    ids, contents, looks = zip(*rows, strict=True)
    content = np.frombuffer(b"".join(contents), np.uint64).reshape(-1, 2)
    has_looks = np.fromiter((one is not None for one in looks), np.bool_, len(rows))
    perceptual = np.fromiter((one or 0 for one in looks), np.int64, len(rows))
    return np.array(ids, np.int64), content, perceptual.view(np.uint64), has_looks


def unhashed(connection: sa.Connection, ids: IntArray | None = None) -> Unhashed:
    """How many images, of all or of these ids, have no hashes though nothing is wrong with them."""
    image = tables.image
    query = sa.select(image.c.status, sa.func.count()).group_by(image.c.status)
    query = query.where(image.c.content_hash.is_(None), image.c.status.in_(("ok", "unseen")))
    found = {"ok": 0, "unseen": 0}
    parts = [None] if ids is None else slices(np.unique(ids).tolist())
    for part in parts:
        some = query if part is None else query.where(image.c.id.in_(part))
        for status, number in connection.execute(some):
            found[status] += number
    return Unhashed(found["ok"], found["unseen"])


def copy_groups(
    connection: sa.Connection, *, exact: bool, near: int | None, ids: IntArray | None = None
) -> CopyGroups:
    """Images with the same bytes, or with hashes within a distance, of all or among these ids.

    Args:
        exact: images with the same bytes are copies.
        near: bits in which the looks of copies differ at most; None: looks do not count.
    Raises: UsageError for a distance that near_groups() refuses.
    """
    known = hashes(connection, ids)
    groups = np.arange(len(known.ids))
    if exact:
        groups = _same_bytes(known.content)
    if near is not None:
        groups = merged_groups(groups, _alike(known, near))
    counts = np.bincount(groups, minlength=len(groups))
    members = np.flatnonzero(counts[groups] > 1)
    return _ranked(connection, known, members, groups[members], counts)


def _same_bytes(content: HashArray) -> IntArray:
    """(N,) the first image with the same content hash."""
    order = np.lexsort((content[:, 1], content[:, 0]))
    ordered = content[order]
    new = np.concatenate([[True], np.any(ordered[1:] != ordered[:-1], axis=1)])[: len(order)]
    groups = np.empty(len(order), np.int64)
    groups[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    return groups


def _alike(known: Hashes, distance: int) -> IntArray:
    """(N,) the first image of those that look alike; images without looks are alone."""
    groups = np.arange(len(known.ids))
    places = np.flatnonzero(known.has_looks)
    groups[places] = places[near_groups(known.perceptual[places], distance)]
    return groups


def _ranked(
    connection: sa.Connection, known: Hashes, members: IntArray, groups: IntArray, counts: IntArray
) -> CopyGroups:
    """The members in the order of CopyGroups."""
    ids = known.ids[members]
    pixels, sizes = _measures(connection, ids)
    by_rank = np.lexsort((ids, -sizes, -pixels, groups))
    in_order = groups[by_rank]
    starts = np.flatnonzero(np.concatenate([[True], in_order[1:] != in_order[:-1]])[: len(ids)])
    best = np.repeat(ids[by_rank][starts], np.diff(np.append(starts, len(ids))))
    order = by_rank[np.lexsort((np.arange(len(ids)), best, -counts[in_order]))]
    in_order, members = groups[order], members[order]
    starts = np.flatnonzero(np.concatenate([[True], in_order[1:] != in_order[:-1]])[: len(ids)])
    firsts = np.repeat(members[starts], np.diff(np.append(starts, len(ids))))
    same = np.all(known.content[members] == known.content[firsts], axis=1)
    distances = hamming(known.perceptual[members], known.perceptual[firsts])
    distances[~(known.has_looks[members] & known.has_looks[firsts])] = UNKNOWN
    distances[same] = 0
    return CopyGroups(ids[order], starts, distances, same, sizes[order])


def _measures(connection: sa.Connection, ids: IntArray) -> tuple[IntArray, IntArray]:
    """Pixels and bytes of images, in the order of ids, which rise."""
    image = tables.image
    pixels, sizes = np.zeros(len(ids), np.int64), np.zeros(len(ids), np.int64)
    query = sa.select(image.c.id, image.c.width, image.c.height, image.c.size_bytes)
    for part in slices(ids.tolist()):
        rows = connection.execute(query.where(image.c.id.in_(part))).all()
        id_, width, height, size = np.array([tuple(row) for row in rows], np.int64).T
        places = np.searchsorted(ids, id_)
        pixels[places], sizes[places] = width * height, size
    return pixels, sizes


class Place(NamedTuple):
    """Where an image is, and how large."""

    uri: str
    width: int
    height: int
    size_bytes: int


def places(connection: sa.Connection, ids: Sequence[int]) -> dict[int, Place]:
    """Places of images by id; unknown ids are left out."""
    image, source = tables.image, tables.source
    query = sa.select(
        image.c.id, source.c.uri, image.c.key, image.c.width, image.c.height, image.c.size_bytes
    ).join_from(image, source)
    found: dict[int, Place] = {}
    for part in slices(ids):
        for id_, uri, key, *size in connection.execute(query.where(image.c.id.in_(part))):
            found[id_] = Place(image_address(uri, key), *size)
    return found


def duplicate_ids(
    connection: sa.Connection,
    kind: Literal["exact", "near"],
    distance: int = NEAR_DISTANCE,
) -> IntArray:
    """Rising ids of the images of the whole catalog that are copies of a better one.

    Args:
        kind: exact: the same bytes; near: the same bytes, or looks within the distance.
        distance: in bits; not used where kind is exact.
    """
    found = copy_groups(connection, exact=True, near=distance if kind == "near" else None)
    return np.sort(found.ids[~found.is_best])
