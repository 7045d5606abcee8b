"""Sorting what ranks: rows of image_class and image_relation, by class or type, score and image.

Each chunk of images leaves a sorted file; a range of keys is then gathered from all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistadex.catalog.bulk_chunks import Ints, Ranking
from vistadex.catalog.bulk_reading import Numbers, Spooled
from vistadex.catalog.bulk_spool import CHUNK
from vistadex.catalog.packing import CLASS_BITS, SCORE_BITS
from vistadex.catalog.tables import ANY_ANALYZER

ROWS_AT_A_TIME = 2_000_000
"""Of a range, where a single key has not more by itself."""
_IMAGE_BITS = (CHUNK - 1).bit_length()
_ANALYZER_BITS = 64 - CLASS_BITS - SCORE_BITS - _IMAGE_BITS
MOST_ANALYZERS = 1 << _ANALYZER_BITS


@dataclass(frozen=True, slots=True)
class Counted:
    """Images and boxes, or relations, of keys by analyzer, ANY_ANALYZER included; (N,) each."""

    keys: Ints
    analyzers: Ints
    images: Ints
    numbers: Ints


class RankSpool:
    """Rows that rank, of all chunks."""

    def __init__(
        self,
        spooled: Spooled,
        name: str,
        rows_by_key: Ints,
        analyzers: Sequence[int],
    ) -> None:
        """
        Args:
            rows_by_key: about how many rows each key has.
            analyzers: the catalog's ids of all that occur, rising.
        """
        self.folder, self.name = spooled.work.folder, name
        self.chunks, self.size = spooled.chunks, spooled.size
        self.analyzers = np.array(analyzers, np.int64)
        self.image_bits = spooled.images.bit_length()
        widest = 1 << 64 - SCORE_BITS - _ANALYZER_BITS - self.image_bits
        self.edges = _edges(rows_by_key, widest)

    @property
    def ranges(self) -> int:
        """How many parts rows() gives."""
        return len(self.edges) - 1

    def add(self, chunk: int, rows: Ranking) -> None:
        """Keeps the rows of a chunk, in place of those that it had."""
        analyzers = np.searchsorted(self.analyzers, rows.analyzers)
        words = rows.keys << SCORE_BITS + _IMAGE_BITS | rows.scores << _IMAGE_BITS | rows.images
        words = (words << _ANALYZER_BITS | analyzers).astype(np.uint64)
        counted = rows.numbers > 0
        plain = np.sort(words[~counted])
        words = words[counted]
        order = np.argsort(words)
        words, numbers = words[order], rows.numbers[counted][order].astype(np.uint32)
        shift = np.uint64(64 - CLASS_BITS)
        starts = [np.searchsorted(one >> shift, self.edges) for one in (plain, words)]
        with self._path(chunk).open("wb") as file:
            for part in (*starts, plain, words, numbers):
                file.write(np.ascontiguousarray(part).data)

    def rows(self, number: int) -> Ranking:
        """The rows of a range of keys, by key, score, image and analyzer; images are ranks."""
        plain = [np.empty(0, np.uint64)]
        counted = [np.empty(0, np.uint64)]
        numbers = [np.empty(0, np.uint32)]
        for chunk in range(self.chunks):
            one, two, three = self._slices(chunk, number)
            plain.append(self._wide(one, chunk, number))
            counted.append(self._wide(two, chunk, number))
            numbers.append(three)
        found = np.concatenate(counted)
        order = np.argsort(found)
        found, boxes = found[order], np.concatenate(numbers)[order]
        words = np.concatenate([*plain, found])
        del plain, counted
        words.sort()
        all_boxes = np.zeros(len(words), np.int64)
        all_boxes[np.searchsorted(words, found)] = boxes
        return self._columns(words, int(self.edges[number]), all_boxes)

    @property
    def length(self) -> int:
        """How many rows all chunks have."""
        return sum(int(self._starts(chunk)[:, -1].sum()) for chunk in range(self.chunks))

    def _path(self, chunk: int) -> Path:
        return self.folder / f"{self.name}-{chunk}"

    def _starts(self, chunk: int) -> Ints:
        """(2, E) where each range begins among the plain words of a chunk, and among the others."""
        data = np.fromfile(self._path(chunk), np.int64, 2 * len(self.edges))
        return data.reshape(2, len(self.edges))

    def _slices(
        self, chunk: int, number: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint32]]:
        """What a chunk has of a range: plain words, words with numbers, and these."""
        starts = self._starts(chunk)
        with self._path(chunk).open("rb") as file:
            base = starts.nbytes

            def part(begin: int, row: int, size: int) -> bytes:
                first, end = starts[row, number].item(), starts[row, number + 1].item()
                return os.pread(file.fileno(), (end - first) * size, begin + first * size)

            plain = part(base, 0, 8)
            base += starts[0, -1].item() * 8
            words = part(base, 1, 8)
            numbers = part(base + starts[1, -1].item() * 8, 1, 4)
        return (
            np.frombuffer(plain, np.uint64),
            np.frombuffer(words, np.uint64),
            np.frombuffer(numbers, np.uint32),
        )

    def _wide(self, words: NDArray[np.uint64], chunk: int, number: int) -> NDArray[np.uint64]:
        """Words with the image's rank among all, and the key's distance from the range's first."""
        low = np.uint64(_ANALYZER_BITS)
        image = words >> low & np.uint64((1 << _IMAGE_BITS) - 1)
        image += np.uint64(chunk * self.size)
        upper = words >> np.uint64(_ANALYZER_BITS + _IMAGE_BITS)
        upper -= np.uint64(int(self.edges[number]) << SCORE_BITS)
        wide = upper << np.uint64(self.image_bits) | image
        return wide << low | words & np.uint64(MOST_ANALYZERS - 1)

    def _columns(self, words: NDArray[np.uint64], first: int, numbers: Ints) -> Ranking:
        def field(shift: int, bits: int) -> Ints:
            return (words >> np.uint64(shift) & np.uint64((1 << bits) - 1)).astype(np.int64)

        shift = _ANALYZER_BITS + self.image_bits
        return Ranking(
            (words >> np.uint64(shift + SCORE_BITS)).astype(np.int64) + first,
            field(shift, SCORE_BITS),
            field(_ANALYZER_BITS, self.image_bits),
            self.analyzers[field(0, _ANALYZER_BITS)],
            numbers,
        )


def spools(spooled: Spooled, numbers: Numbers) -> tuple[RankSpool, RankSpool]:
    """For the rows of image_class and of image_relation."""
    analyzers = sorted(set(numbers.analyzers.values()))
    rows_by_class = np.zeros(int(numbers.classes.max(initial=0)) + 1, np.int64)
    rows_by_class[numbers.classes] = spooled.rows_by_class[: len(numbers.classes)]
    related = sum(run.length for (_, kind), run in spooled.runs.items() if kind == "relations")
    types = int(numbers.types.max(initial=0)) + 1
    return (
        RankSpool(spooled, "classes", rows_by_class, analyzers),
        RankSpool(spooled, "types", np.full(types, related // types), analyzers),
    )


def _edges(rows_by_key: Ints, widest: int) -> Ints:
    """Where ranges of keys begin, and where the last ends."""
    edges = [0]
    rows = 0
    for key, more in enumerate(rows_by_key.tolist()):
        if (rows and rows + more > ROWS_AT_A_TIME) or key - edges[-1] >= widest:
            edges.append(key)
            rows = 0
        rows += more
    return np.array([*edges, len(rows_by_key)], np.int64)


def count(rows: Ranking) -> Counted:
    """Counts of rows by rising key; all rows of a key must be there."""
    if not len(rows.keys):
        empty = np.empty(0, np.int64)
        return Counted(empty, empty, empty, empty)
    first = int(rows.keys[0])
    keys = rows.keys - first
    size = int(keys[-1]) + 1
    parts = list(_counted(keys, rows, size))
    found = np.concatenate([part[0] for part in parts])
    others = [np.concatenate([part[i] for part in parts]) for i in (1, 2, 3)]
    order = np.lexsort((others[0], found))
    return Counted(found[order] + first, *(one[order] for one in others))


def _counted(keys: Ints, rows: Ranking, size: int) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
    """Keys, analyzers, images and numbers, one analyzer after the other."""
    analyzers = np.unique(rows.analyzers).tolist()
    for analyzer in analyzers:
        chosen = rows.analyzers == analyzer
        images = np.bincount(keys[chosen], minlength=size)
        yield _nonzero(images, np.bincount(keys[chosen], rows.numbers[chosen], size), analyzer)
    if len(analyzers) > 1:
        bits = int(rows.images.max()).bit_length()
        pairs = keys << bits | rows.images
        pairs.sort()
        new = np.append(True, pairs[1:] != pairs[:-1])
        images = np.bincount(pairs[new] >> bits, minlength=size)
    numbers = np.bincount(keys, rows.numbers, size)
    yield _nonzero(images, numbers, ANY_ANALYZER)


def _nonzero(images: Ints, numbers: NDArray[Any], analyzer: int) -> tuple[Ints, Ints, Ints, Ints]:
    keys = np.flatnonzero(images)
    return keys, np.full(len(keys), analyzer), images[keys], numbers[keys].astype(np.int64)
