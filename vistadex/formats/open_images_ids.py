"""Image ids as positions: 16 hexadecimal digits by their number, all others by their bytes.

Shape letter: N ids of a batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Id = TypeVar("Id", np.uint64, np.bytes_)
DIGITS = 16
_LOWER_HEX = np.zeros(256, bool)
_LOWER_HEX[list(b"0123456789abcdef")] = True


class ImageIds:
    """The ids of a set, and the position of each in the order in which they were added."""

    def __init__(self) -> None:
        self.count = 0
        """How many were added, repeated ones included."""
        self._hex: list[NDArray[np.uint64]] = []
        self._hex_at: list[NDArray[np.int64]] = []
        self._other: list[NDArray[np.bytes_]] = []
        self._other_at: list[NDArray[np.int64]] = []
        self._sorted_hex = np.empty(0, np.uint64)
        self._hex_position = np.empty(0, np.int32)
        self._sorted_other = np.empty(0, "S1")
        self._other_position = np.empty(0, np.int32)
        self.repeated: NDArray[np.int64] = np.empty((0, 2), np.int64)
        """(M, 2) positions of ids that had been added before, and of the first of each."""

    def add(self, ids: pa.StringArray) -> NDArray[np.uint64]:
        """Takes ids; numbers that rise as they do."""
        numbers, is_hex = hex_numbers(ids)
        at = np.arange(self.count, self.count + len(ids), dtype=np.int64)
        self.count += len(ids)
        self._hex.append(numbers[is_hex])
        self._hex_at.append(at[is_hex])
        if is_hex.all():
            return numbers
        other = _as_bytes(ids.filter(pa.array(~is_hex)))
        self._other.append(other)
        self._other_at.append(at[~is_hex])
        numbers[~is_hex] = np.frombuffer(other.astype("S8").tobytes(), ">u8")
        return numbers

    def finish(self) -> None:
        """Makes ready for find(), after the last one was added."""
        hex_ = np.concatenate([np.empty(0, np.uint64), *self._hex])
        other = np.concatenate([np.empty(0, "S1"), *self._other])
        self._hex.clear()
        self._other.clear()
        self._sorted_hex, self._hex_position, again = _first_of_each(hex_, self._hex_at)
        self._sorted_other, self._other_position, more = _first_of_each(other, self._other_at)
        self.repeated = np.concatenate([again, more])
        self._hex_at.clear()
        self._other_at.clear()

    def find(self, ids: pa.StringArray) -> NDArray[np.int64]:
        """The positions of ids, -1 where an id is unknown."""
        numbers, is_hex = hex_numbers(ids)
        found = np.full(len(ids), -1, np.int64)
        if is_hex.all():
            return _look_up(numbers, self._sorted_hex, self._hex_position)
        found[is_hex] = _look_up(numbers[is_hex], self._sorted_hex, self._hex_position)
        other = _as_bytes(ids.filter(pa.array(~is_hex)))
        found[~is_hex] = _look_up(other, self._sorted_other, self._other_position)
        return found

    def save(self, folder: Path) -> None:
        """Keeps what finish() has made."""
        for name in _KEPT:
            np.save(folder / f"ids{name}.npy", getattr(self, name))

    def restore(self, folder: Path) -> None:
        """Takes up what save() has kept."""
        for name in _KEPT:
            setattr(self, name, np.load(folder / f"ids{name}.npy"))
        self.count = len(self._sorted_hex) + len(self._sorted_other) + len(self.repeated)


_KEPT = ("_sorted_hex", "_hex_position", "_sorted_other", "_other_position", "repeated")


def hex_numbers(ids: pa.StringArray) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """(N,) numbers that 16 lower-case hexadecimal digits stand for, and (N,) which ids are such."""
    lengths = pc.binary_length(ids).to_numpy(zero_copy_only=False)
    right = np.asarray(lengths == DIGITS)
    numbers = np.zeros(len(ids), np.uint64)
    if not right.any():
        return numbers, right
    chosen = ids if right.all() else ids.filter(pa.array(right))
    start = np.frombuffer(chosen.buffers()[1], np.int32)[chosen.offset]
    data = np.frombuffer(chosen.buffers()[2], np.uint8, len(chosen) * DIGITS, int(start))
    digits = data.reshape(-1, DIGITS)
    valid = _LOWER_HEX[data].reshape(-1, DIGITS).all(1)
    halves = _hex_words(digits.view(">u8").astype(np.uint64))
    joined = halves[:, 0] << np.uint64(32) | halves[:, 1]
    numbers[right] = np.where(valid, joined, 0)
    right[right] = valid
    return numbers, right


def _hex_words(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Eight digits in each word -> the 32 bits that they stand for."""
    letters = words >> np.uint64(6) & np.uint64(0x0101010101010101)
    four = (words & np.uint64(0x0F0F0F0F0F0F0F0F)) + letters * np.uint64(9)
    eight = (four >> np.uint64(4) | four) & np.uint64(0x00FF00FF00FF00FF)
    sixteen = (eight >> np.uint64(8) | eight) & np.uint64(0x0000FFFF0000FFFF)
    return (sixteen >> np.uint64(16) | sixteen) & np.uint64(0xFFFFFFFF)


def _as_bytes(ids: pa.StringArray) -> NDArray[np.bytes_]:
    """Ids as fixed-width bytes, with a mark at the end as trailing zeros would be lost."""
    return np.array([f"{one}\n".encode() for one in ids.to_pylist()], "S")


def _first_of_each(
    values: NDArray[Id], parts: list[NDArray[np.int64]]
) -> tuple[NDArray[Id], NDArray[np.int32], NDArray[np.int64]]:
    """Values sorted, where each came first, and where the others did, beside the first of each."""
    at = np.concatenate([np.empty(0, np.int64), *parts])
    if not (values[1:] > values[:-1]).all():
        order = np.argsort(values, kind="stable")
        values, at = values[order], at[order]
    is_first = np.ones(len(values), bool)
    is_first[1:] = values[1:] != values[:-1]
    if is_first.all():
        return values, at.astype(np.int32), np.empty((0, 2), np.int64)
    firsts = at[is_first]
    others = np.stack([at, firsts[np.cumsum(is_first) - 1]], axis=1)[~is_first]
    return values[is_first], firsts.astype(np.int32), others


def _look_up(
    values: NDArray[Id],
    known: NDArray[Id],
    positions: NDArray[np.int32],
) -> NDArray[np.int64]:
    """The position of each value, -1 for an unknown one; quick where like ones stand together."""
    if not len(values) or not len(known):
        return np.full(len(values), -1, np.int64)
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    wanted = values[starts]
    at = np.searchsorted(known, wanted)
    at[at == len(known)] = 0
    found = np.where(known[at] == wanted, positions[at], -1).astype(np.int64)
    return np.repeat(found, np.diff(np.append(starts, len(values))))
