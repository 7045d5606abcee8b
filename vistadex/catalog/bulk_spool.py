"""What a bulk load keeps on disk between its steps: a folder with marks, and rows by chunk.

A chunk is so many images that follow each other by key.
"""

from __future__ import annotations

import fcntl
import json
import marshal
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vistadex.errors import CatalogError
from vistadex.formats.columns import NO_SET, Contradiction, ImageColumns
from vistadex.records import Json

CHUNK = 100_000
"""Images that enter the catalog together, unless fewer are asked for."""
PAGE = 4096
"""Images whose texts are read together."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Work:
    """The folder of an unfinished load: what it has done so far, for the next try."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        """Takes up what the last try left if that was the same load since this machine's start.

        Raises: CatalogError where another process is at it.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise CatalogError(
                f"{folder}: another process loads the same; wait for it to end"
            ) from error
        # Nothing here is written through to the disk: after a crash of the machine it is worthless.
        boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
        identity = {**identity, "boot": boot}
        self.marks: dict[str, Any] = self._known("marks.json")
        if self._known("identity.json") != identity:
            for entry in folder.iterdir():
                if entry.name != "lock":
                    _remove(entry)
            self.marks = {}
            self._write("identity.json", identity)

    def mark(self, **values: Any) -> None:
        """Notes what is done now."""
        self.marks.update(values)
        self._write("marks.json", self.marks)

    def remove(self) -> None:
        """Removes the folder: the load is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Lets others take it up."""
        self._lock.close()

    def _known(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads((self.folder / name).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, name: str, values: dict[str, Any]) -> None:
        part = self.folder / f"{name}.part"
        part.write_text(json.dumps(values))
        os.replace(part, self.folder / name)


def _remove(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry)
    else:
        entry.unlink()


class Runs:
    """Records of images in a file, given back chunk by chunk in the order in which they came."""

    def __init__(self, path: Path, dtype: np.dtype[Any], images: int, chunk: int) -> None:
        self.dtype, self.size = dtype, chunk
        self.chunks = -(-images // chunk)
        self._file = path.open("a+b", buffering=0)
        self._starts: list[list[int]] = []
        """Of each run: where each chunk begins in the file, in records; and where the last ends."""

    def add(self, ranks: NDArray[np.int64], records: NDArray[Any]) -> None:
        """Takes records of images by rank."""
        if not len(ranks):
            return
        chunks = ranks // self.size
        if (chunks[1:] < chunks[:-1]).any():
            narrow = chunks.astype(np.uint16 if self.chunks < 1 << 16 else np.int64)
            order = np.argsort(narrow, kind="stable")
            chunks, records = chunks[order], records[order]
        start = self.length
        self._starts.append((start + np.searchsorted(chunks, np.arange(self.chunks + 1))).tolist())
        self._file.write(np.ascontiguousarray(records).data)

    @property
    def length(self) -> int:
        """Records so far."""
        return self._starts[-1][-1] if self._starts else 0

    def chunk(self, number: int) -> NDArray[Any]:
        """The records of a chunk."""
        parts = [np.empty(0, self.dtype)]
        for starts in self._starts:
            count = starts[number + 1] - starts[number]
            if count:
                size = self.dtype.itemsize
                data = os.pread(self._file.fileno(), count * size, starts[number] * size)
                parts.append(np.frombuffer(data, self.dtype))
        return np.concatenate(parts)

    def state(self) -> list[list[int]]:
        """What restore() needs."""
        return self._starts

    def restore(self, state: Sequence[Sequence[int]]) -> None:
        """Goes back to where state() was taken."""
        self._starts = [list(one) for one in state]
        self._file.truncate(self.length * self.dtype.itemsize)
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Lets the file go."""
        self._file.close()


class TextRows(NamedTuple):
    """What is known of images beside what is said of them, N of them."""

    keys: list[str]
    attributes: list[str | None]
    """JSON objects: of each image alone."""
    set_of: NDArray[np.int32]
    """(N,) positions in Texts.sets; NO_SET: none."""


class Texts:
    """Keys and attributes of images, spooled as they come and given back by rank: see TextRows."""

    def __init__(self, folder: Path, chunk: int) -> None:
        self.folder, self.size = folder, chunk
        self._file = (folder / "texts").open("a+b", buffering=0)
        self._keys: list[str] = []
        self._attributes: list[str | None] = []
        self._set_of: list[NDArray[np.int32]] = []
        self._sets: dict[str, int] = {}
        """Positions of JSON objects that images share."""
        self._waiting: list[NDArray[np.uint64]] = []
        self._orders: list[NDArray[np.uint64]] = []
        self._positions: list[NDArray[np.int32]] = []
        self._offsets: list[int] = [0]
        self._added = 0
        self.by_rank: NDArray[np.int32] = np.empty(0, np.int32)
        """The slot of each image: where its texts stand."""
        self.ranks: NDArray[np.int32] = np.empty(0, np.int32)
        """The rank of each image by its position in the order in which they came."""
        self._more: NDArray[np.int32] = np.empty((0, 2), np.int32)
        """(M, 2) ranks, rising, and slots of texts that add to those of the image."""

    def clear(self) -> None:
        """Begins anew."""
        self._file.truncate(0)

    @property
    def sets(self) -> list[str]:
        """JSON objects that images share, in their order."""
        return list(self._sets)

    def add(self, images: ImageColumns) -> None:
        """Takes images."""
        numbers = [self._sets.setdefault(one, len(self._sets)) for one in images.sets]
        self._set_of.append(np.array([*numbers, NO_SET], np.int32)[images.set_of])
        self._keys += images.keys
        self._attributes += images.attributes
        self._waiting.append(images.order)
        if len(self._keys) >= 64 * PAGE:
            self._flush(len(self._keys) // PAGE * PAGE)

    def _flush(self, number: int) -> None:
        """Writes some of those that wait, by rising order, in pages."""
        order = np.concatenate([np.empty(0, np.uint64), *self._waiting])
        set_of = np.concatenate([np.empty(0, np.int32), *self._set_of])
        keys, attributes = self._keys[:number], self._attributes[:number]
        self._keys, self._attributes = self._keys[number:], self._attributes[number:]
        self._waiting, order = [order[number:]], order[:number]
        self._set_of, set_of = [set_of[number:]], set_of[:number]
        positions = np.arange(self._added, self._added + number, dtype=np.int32)
        if (order[1:] < order[:-1]).any():
            sorted_ = np.argsort(order, kind="stable")
            order, positions = order[sorted_], positions[sorted_]
            keys = [keys[i] for i in sorted_.tolist()]
            attributes = [attributes[i] for i in sorted_.tolist()]
            set_of = set_of[sorted_]
        self._added += number
        self._orders.append(order)
        self._positions.append(positions)
        for start in range(0, number, PAGE):
            part = slice(start, start + PAGE)
            data = marshal.dumps((keys[part], attributes[part], set_of[part].tobytes()))
            self._file.write(data)
            self._offsets.append(self._offsets[-1] + len(data))

    def finish(self, repeated: NDArray[np.int64]) -> None:
        """Ranks the images by key.

        Args:
            repeated: (M, 2) positions of images that are there already, and of the first of each,
                whose attributes they add to.
        """
        self._flush(len(self._keys))
        order = np.concatenate([np.empty(0, np.uint64), *self._orders])
        positions = np.concatenate([np.empty(0, np.int32), *self._positions])
        self._orders.clear()
        self._positions.clear()
        self.by_rank = np.argsort(order, kind="stable").astype(np.int32)
        del order
        if len(repeated):
            gone = np.zeros(len(positions), bool)
            gone[repeated[:, 0]] = True
            self.by_rank = self.by_rank[~gone[positions[self.by_rank]]]
        self.ranks = np.full(len(positions), -1, np.int32)
        self.ranks[positions[self.by_rank]] = np.arange(len(self.by_rank), dtype=np.int32)
        slots = np.empty(len(positions), np.int32)
        slots[positions] = np.arange(len(positions), dtype=np.int32)
        more = np.stack([self.ranks[repeated[:, 1]], slots[repeated[:, 0]]], axis=1)
        self._more = more[np.lexsort((repeated[:, 0], more[:, 0]))]
        np.save(self.folder / "more.npy", self._more)
        np.save(self.folder / "by-rank.npy", self.by_rank)
        np.save(self.folder / "ranks.npy", self.ranks)
        np.save(self.folder / "offsets.npy", np.array(self._offsets))
        (self.folder / "sets.json").write_text(json.dumps(self.sets))

    def restore(self) -> None:
        """Takes up what finish() has kept."""
        self.by_rank = np.load(self.folder / "by-rank.npy")
        self.ranks = np.load(self.folder / "ranks.npy")
        self._more = np.load(self.folder / "more.npy")
        self._offsets = np.load(self.folder / "offsets.npy").tolist()
        sets = json.loads((self.folder / "sets.json").read_text())
        self._sets = {one: i for i, one in enumerate(sets)}

    def chunk(self, number: int) -> tuple[TextRows, list[Contradiction]]:
        """What is known of a chunk, by rank, and where lists contradict each other."""
        first = number * self.size
        rows = self._texts(self.by_rank[first : first + self.size])
        start, end = np.searchsorted(self._more[:, 0], (first, first + self.size)).tolist()
        more = self._texts(self._more[start:end, 1])
        sets = [*self._sets, None]  # so that NO_SET is the last
        contradictions: list[Contradiction] = []
        for i, text, other in zip(
            (self._more[start:end, 0] - first).tolist(), more.attributes, more.set_of, strict=True
        ):
            shared = sets[rows.set_of[i]], sets[other]
            rows.attributes[i], differing = _joined(rows.attributes[i], text, *shared)
            contradictions += [Contradiction(rows.keys[i], *one) for one in differing]
        return rows, contradictions

    def _texts(self, slots: NDArray[np.int32]) -> TextRows:
        """What is known at slots."""
        keys: list[str] = []
        attributes: list[str | None] = []
        set_of = b""
        bases: dict[int, int] = {}
        for page in np.unique(slots // PAGE).tolist():
            start, end = self._offsets[page], self._offsets[page + 1]
            more = marshal.loads(os.pread(self._file.fileno(), end - start, start))
            bases[page] = len(keys)
            keys += more[0]
            attributes += more[1]
            set_of += more[2]
        table = np.zeros(max(bases, default=0) + 1, np.int64)
        table[list(bases)] = list(bases.values())
        at = (table[slots // PAGE] + slots % PAGE).tolist()
        return TextRows(
            [keys[i] for i in at],
            [attributes[i] for i in at],
            np.frombuffer(set_of, np.int32)[at],
        )

    def close(self) -> None:
        """Lets the file go."""
        self._file.close()


def _joined(
    first: str | None, more: str | None, shared: str | None, other: str | None
) -> tuple[str | None, list[tuple[str, list[Json]]]]:
    """Attributes of an image alone that two lists name, and those in which they differ.

    The first value stays; the other one and then the first are given with the name.

    Args:
        shared, other: what the sets say that it has in the one and the other list; the first stays.
    """
    if first == more and shared == other:
        return first, []
    own, known = json.loads(first or "{}"), json.loads(shared or "{}")
    known |= own
    new = json.loads(other or "{}") | json.loads(more or "{}")
    differing = [(n, [one, known[n]]) for n, one in new.items() if known.get(n, one) != one]
    own |= {n: one for n, one in new.items() if n not in known}
    return (json.dumps(own, ensure_ascii=False, separators=(",", ":")) if own else None), differing
