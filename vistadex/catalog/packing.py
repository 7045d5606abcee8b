"""What one analyzer says of one image, in eight bytes a class: the forward side of image_class."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vistadex.errors import CatalogError
from vistadex.records import SCORE_SCALE

CLASS_BITS, SCORE_BITS, BOXES_BITS = 24, 20, 20
"""A little-endian uint64 from the top: class id, score in millionths, number of boxes."""
CLASS_AT = SCORE_BITS + BOXES_BITS
MOST_CLASSES = 1 << CLASS_BITS
MOST_SCORE = (1 << SCORE_BITS) - 1
MOST_BOXES = (1 << BOXES_BITS) - 1
_SAID = (1 << CLASS_AT) - 1


class PackedClass(NamedTuple):
    """A row of image_class without its image and analyzer; score and boxes 0: it is not there."""

    class_id: int
    score: int
    """In millionths."""
    boxes: int

    @property
    def is_absent(self) -> bool:
        """Whether it was looked for and is not there; image_class has no such rows."""
        return not self.score and not self.boxes


def pack(classes: Iterable[PackedClass]) -> bytes | None:
    """The bytes of these classes, by rising class id; None for no classes.

    Raises: CatalogError beyond 16 million classes, and for a score that is none.
    """
    words = []
    for class_id, score, boxes in sorted(classes):
        if class_id >= MOST_CLASSES:
            raise CatalogError(f"class {class_id}: the catalog holds at most {MOST_CLASSES:,}")
        if not 0 <= score <= SCORE_SCALE:
            raise CatalogError(f"class {class_id}: its score is {score / SCORE_SCALE}, not 0 to 1")
        words.append(class_id << CLASS_AT | score << BOXES_BITS | min(boxes, MOST_BOXES))
    return np.array(words, "<u8").tobytes() if words else None


def unpack(packed: bytes | None) -> list[PackedClass]:
    """What pack() was given, by rising class id."""
    return [PackedClass(*one) for one in triplets(packed)]


def unpacked(packed: bytes | None) -> tuple[int, ...]:
    """The numbers that classes stand as, by rising class id."""
    return struct.unpack(f"<{len(packed) // 8}Q", packed) if packed else ()


def triplets(packed: bytes | None) -> list[tuple[int, int, int]]:
    """Class id, score and boxes of each, likewise: half the time where there are many images."""
    return [
        (word >> CLASS_AT, word >> BOXES_BITS & MOST_SCORE, word & MOST_BOXES)
        for word in unpacked(packed)
    ]


def of_class(packed: Sequence[bytes], class_id: int) -> list[tuple[int, int, int]]:
    """Where one class is said, of some images in a row, each with its score and boxes."""
    words = np.frombuffer(b"".join(packed), "<u8")
    ends = np.cumsum(np.fromiter(map(len, packed), np.int64, len(packed)) // 8)
    at = np.flatnonzero(words >> np.uint64(CLASS_AT) == class_id)
    which = np.searchsorted(ends, at, "right").tolist()
    return [
        (i, word >> BOXES_BITS & MOST_SCORE, word & MOST_BOXES)
        for i, word in zip(which, words[at].tolist(), strict=True)
        if word & _SAID
    ]


def columns(
    packed: bytes,
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]:
    """Class ids, scores and boxes, (N,) each, of the bytes of any number of images in a row."""
    words = np.frombuffer(packed, "<u8")
    class_ids = (words >> np.uint64(CLASS_AT)).astype(np.uint32)
    scores = (words >> np.uint64(BOXES_BITS)).astype(np.uint32) & np.uint32(MOST_SCORE)
    boxes = words.astype(np.uint32) & np.uint32(MOST_BOXES)
    return class_ids, scores, boxes
