"""Posting lists: which images have what, in arrays beside the catalog, mapped into memory.

Everything here is derived: the folder may be deleted at any time. A snapshot is a folder with one
raw little-endian file for each array, and a header that says which state of which catalog it is.

Images stand in it by their position among all images by rising id, 0 to N - 1; classes, relation
types, predicates and analyzers by slots, 0 to K - 1. Shape letters: N images, K slots, R rows.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vistadex.catalog.scope import BINS, STATUSES

Array: TypeAlias = NDArray[Any]
FORMAT = 2
HEADER = "header.json"
MAKING = ".making-"
"""Folders that begin so are of a builder at work, or of one that was killed."""
MOST_IMAGE_ID = (1 << 32) - 1
MOST_NUMBER = 255
"""Numbers of boxes or relations beyond it stand as this."""
NOT_BEST = np.uint32(1 << 31)
"""In scores of a Forward: another analyzer gives the image a better row of this slot."""


DENSE = 32
"""Slots that at least one image in so many has also stand as bits."""


def words(images: int) -> int:
    """How many uint64 hold a bit for each image."""
    return -(-images // 64)


def as_bits(mask: Array) -> Array:
    """(N,) bool as (words(N),) uint64."""
    packed = np.zeros(words(mask.size) * 8, np.uint8)
    packed[: -(-mask.size // 8)] = np.packbits(mask, bitorder="little")
    return packed.view("<u8")


def distinct(numbers: Array) -> Array:
    """Each number once, rising; NumPy's unique() hashes, which takes ten times as long."""
    found = np.sort(numbers)
    first = np.append(True, found[1:] != found[:-1])[: found.size]
    return found.compress(first)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which state of which catalog something was derived from."""

    uuid: str
    revision: int
    token: str
    """Of the change with this revision; "" for revision 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """What has which images: for each slot rows by rising position, one for each image.

    Where several analyzers say the same of an image, the row with the best score is here, and the
    others are in `more`, by rising position and falling score.
    """

    keys: Array
    """(K,) int64 ids, rising."""
    slots: Array
    """(K,) the slot of each id."""
    starts: Array
    """(K + 1,) where the rows of each slot begin."""
    pos: Array
    """(R,) uint32 positions of images."""
    score: Array
    """(R,) uint32 millionths."""
    analyzer: Array
    """(R,) slots of analyzers."""
    number: Array
    """(R,) uint8: boxes or relations, at most MOST_NUMBER; of a box the bin of its size."""
    more: Lists | None = None
    ahead: Array | None = None
    """(R,) of `more`: the analyzer of the best row."""
    dense: Array | None = None
    """Rising slots that at least every DENSE-th image has."""
    bits: Array | None = None
    """(dense slots, words() of N) uint64: the images of each, the first in the lowest bit."""


@dataclass(frozen=True, slots=True, eq=False)
class Forward:
    """Which images have what: the rows of all analyzers by rising position."""

    starts: Array
    """(N + 1,)."""
    slot: Array
    score: Array
    """(R,) uint32 millionths, with NOT_BEST."""
    analyzer: Array
    number: Array


@dataclass(frozen=True, slots=True, eq=False)
class Postings:
    """A snapshot of a catalog, or of some of its images."""

    identity: Identity
    ids: Array
    """(N,) int64, rising."""
    source: Array
    """(N,) slots of sources."""
    shown: Array
    """(N,) bool: a search for nothing finds it."""
    sources: tuple[int, ...]
    """Ids by slot."""
    analyzers: tuple[int, ...]
    """Ids by slot."""
    lists: Mapping[str, Lists]
    """class, relation (by type), predicate, box (by class), analyzer (its best of any class)."""
    forwards: Mapping[str, Forward]
    """class, predicate and box."""
    types_of: Array
    """(predicates + 1,) where the slots of each predicate's relation types begin."""
    status: Array
    """(N,) uint8: the place in STATUSES."""
    facets_of: Array
    """Queries of which it has the facets, see ranking_facets.to_store()."""
    facets: Array
    """The same number of int64 for each of these queries."""

    @property
    def images(self) -> int:
        """N."""
        return int(self.ids.size)


LISTS = ("class", "relation", "predicate", "box", "analyzer")
FORWARDS = ("class", "predicate", "box")
_COLUMNS = ("starts", "pos", "score", "analyzer", "number")


class Memory:
    """Arrays that are put together in memory."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Array]] = {}

    def append(self, name: str, rows: Array) -> None:
        """Adds rows to an array, which begins empty."""
        self._parts.setdefault(name, []).append(rows)

    def column(self, name: str) -> Array:
        """An array of which all rows have been added; it may be written to."""
        parts = self._parts[name]
        if len(parts) > 1:
            self._parts[name] = parts = [np.concatenate(parts)]
        return parts[0]

    def release(self, name: str) -> None:
        """Lets go of what a store on the disk holds in memory of an array."""

    def drop(self, name: str) -> None:
        """Forgets an array."""
        del self._parts[name]

    def names(self) -> list[str]:
        """Every array."""
        return list(self._parts)


class Folder:
    """Arrays that are put together in files of a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[str, tuple[BinaryIO, np.dtype[Any]]] = {}
        self._lengths: dict[str, int] = {}
        self._maps: dict[str, mmap.mmap] = {}

    def append(self, name: str, rows: Array) -> None:
        """Adds rows to an array, which begins empty."""
        if name not in self._files:
            self._files[name] = (self.path / name).open("wb", 1 << 20), rows.dtype
            self._lengths[name] = 0
        file, dtype = self._files[name]
        file.write(np.ascontiguousarray(rows, dtype).data.cast("B") if rows.size else b"")
        self._lengths[name] += rows.size

    def column(self, name: str) -> Array:
        """An array of which all rows have been added; it may be written to."""
        file, dtype = self._files[name]
        file.flush()
        if not self._lengths[name]:
            return np.empty(0, dtype)
        if name not in self._maps:
            with (self.path / name).open("r+b") as opened_:
                self._maps[name] = mmap.mmap(opened_.fileno(), 0)
        return np.frombuffer(self._maps[name], dtype)

    def release(self, name: str) -> None:
        """Lets the pages of an array go from memory; its rows stay as they are."""
        if name in self._maps:
            self._maps[name].madvise(mmap.MADV_DONTNEED)

    def drop(self, name: str) -> None:
        """Deletes an array."""
        self._files.pop(name)[0].close()
        self._maps.pop(name, None)
        del self._lengths[name]
        (self.path / name).unlink()

    def names(self) -> list[str]:
        """Every array."""
        return list(self._files)

    def finish(self, header: Mapping[str, Any]) -> None:
        """Brings everything to the disk, the header last."""
        arrays = {
            name: [dtype.newbyteorder("<").str, self._lengths[name]]
            for name, (_, dtype) in self._files.items()
        }
        for file, _ in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        with (self.path / HEADER).open("w", encoding="utf-8") as file_:
            json.dump({**header, "format": FORMAT, "arrays": arrays}, file_)
            file_.flush()
            os.fsync(file_.fileno())
        _sync(self.path)

    def close(self) -> None:
        """Closes the files of an unfinished snapshot; what a full disk refuses is not missed."""
        for file, _ in self._files.values():
            with suppress(OSError):
                file.close()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mapped(path: Path, dtype: np.dtype[Any], length: int) -> Array:
    """A file as an array; what is mapped stays readable when the file is deleted.

    Raises: ValueError if the file has another size.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        if size != length * dtype.itemsize:
            raise ValueError(f"{path}: {size} bytes, expected {length} x {dtype.itemsize}")
        if not size:
            return np.empty(0, dtype)
        return np.frombuffer(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ), dtype)
    finally:
        os.close(descriptor)


def assembled(arrays: Mapping[str, Array], header: Mapping[str, Any]) -> Postings:
    """A snapshot of its arrays.

    Raises: KeyError or TypeError if something is missing; ValueError if lengths contradict.
    """
    lists = {kind: _lists(arrays, kind) for kind in LISTS}
    columns = ("starts", "slot", "score", "analyzer", "number")
    forwards = {
        kind: Forward(*(arrays[f"{kind}.row.{name}"] for name in columns)) for kind in FORWARDS
    }
    found = Postings(
        Identity(**header["identity"]),
        arrays["image.ids"],
        arrays["image.source"],
        arrays["image.shown"],
        tuple(header["sources"]),
        tuple(header["analyzers"]),
        lists,
        forwards,
        arrays["predicate.types"],
        arrays["image.status"],
        arrays.get("facets.of", np.empty(0, np.int64)),
        arrays.get("facets.numbers", np.empty(0, np.int64)),
    )
    _check(found)
    return found


def _lists(arrays: Mapping[str, Array], kind: str) -> Lists:
    keys, slots, ahead = (arrays[f"{kind}.{name}"] for name in ("keys", "slots", "more.ahead"))
    best, others = (
        Lists(keys, slots, starts, pos, score, analyzer, number)
        for starts, pos, score, analyzer, number in (
            [arrays[f"{kind}.{part}{name}"] for name in _COLUMNS] for part in ("", "more.")
        )
    )
    dense = arrays[f"{kind}.dense"]
    bits = arrays[f"{kind}.bits"].reshape(dense.size, -1) if dense.size else None
    more = others if ahead.size else None
    return replace(best, more=more, ahead=ahead, dense=dense, bits=bits)


def _check(found: Postings) -> None:
    """Raises ValueError where the lengths of arrays contradict each other."""
    of_images = (found.source, found.shown, found.status)
    sizes = [(column.size, found.images) for column in of_images]
    numbers = 1 + 2 * BINS + len(STATUSES) + len(found.sources)
    numbers += sum(found.lists[kind].keys.size for kind in ("class", "predicate"))
    sizes.append((found.facets.size, found.facets_of.size * numbers))
    sizes.append((found.types_of.size, found.lists["predicate"].keys.size + 1))
    sizes.append((int(found.types_of[-1]), found.lists["relation"].keys.size))
    for lists in found.lists.values():
        sizes.append((lists.slots.size, lists.keys.size))
        if lists.bits is not None:
            sizes.append((lists.bits.shape[1], words(found.images)))
        for one in (lists, lists.more):
            if one is not None:
                rows = int(one.starts[-1])
                sizes.append((one.starts.size, one.keys.size + 1))
                sizes += [(c.size, rows) for c in (one.pos, one.score, one.analyzer, one.number)]
    for forward in found.forwards.values():
        sizes += [
            (forward.starts.size, found.images + 1),
            (forward.slot.size, int(forward.starts[-1])),
            (forward.score.size, forward.slot.size),
        ]
    if any(size != expected for size, expected in sizes):
        raise ValueError("the lengths of arrays contradict each other")


def described(identity: Identity, sources: list[int], analyzers: list[int]) -> dict[str, Any]:
    """The header of a snapshot, but for its arrays."""
    return {"identity": asdict(identity), "sources": sources, "analyzers": analyzers}


def opened(folder: Path) -> Postings:
    """The snapshot in a folder.

    Raises: OSError or ValueError where there is none that can be used.
    """
    try:
        header = json.loads((folder / HEADER).read_bytes())
        if header["format"] != FORMAT:
            raise ValueError(f"{folder}: format {header['format']}, expected {FORMAT}")
        arrays = {
            name: _mapped(folder / name, np.dtype(dtype), int(length))
            for name, (dtype, length) in header["arrays"].items()
        }
        return assembled(arrays, header)
    except (KeyError, TypeError, AttributeError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder}: not a snapshot: {error!r}") from error


def snapshots(folder: Path) -> list[Path]:
    """The snapshots below a folder, newest first."""
    try:
        names = [
            name for name in os.listdir(folder) if re.fullmatch(r"[0-9]{12}-[0-9a-f]{8}", name)
        ]
    except OSError:
        return []
    return [folder / name for name in sorted(names, reverse=True)]


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Whether this process may build below a folder: false while another one does.

    The lock goes with the process, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def making(folder: Path) -> Iterator[Folder]:
    """A folder for a new snapshot, which is gone if something fails; the caller has the lock."""
    for name in os.listdir(folder):
        if name.startswith(MAKING):
            shutil.rmtree(folder / name, ignore_errors=True)
    path = folder / f"{MAKING}{os.getpid()}-{secrets.token_hex(4)}"
    path.mkdir()
    store = Folder(path)
    try:
        yield store
    finally:
        store.close()
        shutil.rmtree(path, ignore_errors=True)


def publish(store: Folder, folder: Path) -> Path:
    """Puts a finished snapshot in place of all others; the caller has the lock."""
    others = snapshots(folder)
    number = 1 + max((int(path.name.split("-")[0]) for path in others), default=0)
    final = folder / f"{number:012}-{secrets.token_hex(4)}"
    store.path.rename(final)
    _sync(folder)
    for path in others:
        shutil.rmtree(path, ignore_errors=True)
    return final
