"""The pictures of a data set: copied, linked, or left where they are."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from vistadex.assembling import Pictures, Refusal
from vistadex.catalog import IndexedImage
from vistadex.decoding import content_hash, decode, perceptual_hash
from vistadex.errors import DecodingError, UsageError

_SIDE = 256
"""Pixels that each side keeps for the perceptual hash."""


class Looks(NamedTuple):
    """What splitting needs to know of a picture."""

    content: bytes | None
    perceptual: int | None
    width: int = 0
    """Of the upright picture, where it was looked at for that; else 0."""
    height: int = 0


class Gathering(ABC):
    """How pictures come into a data set."""

    places: bool = True
    """Whether there are pictures in the set."""
    reads: bool = False
    """Whether pictures that nobody has read are, so that their sizes are known."""

    def __init__(self, folder: Path) -> None:
        """Args:
        folder: for what is kept until the set is written.
        """
        self.folder = folder
        self.pictures = Pictures()

    @abstractmethod
    def take(self, found: IndexedImage) -> Looks | Refusal:
        """Makes sure of a picture; called in threads."""

    @abstractmethod
    def put(self, found: IndexedImage, path: Path) -> None:
        """Puts a picture that was taken where it belongs. Raises: OSError."""


class Copying(Gathering):
    """The bytes, read once: first into a folder of their own, as splits come later."""

    reads = True

    def take(self, found: IndexedImage) -> Looks | Refusal:
        """See Gathering."""
        data = self.pictures.read(found)
        looks = data if isinstance(data, Refusal) else _looks(found, data)
        if isinstance(data, Refusal) or isinstance(looks, Refusal):
            return looks
        path = self._kept(found)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return looks

    def put(self, found: IndexedImage, path: Path) -> None:
        """See Gathering."""
        os.replace(self._kept(found), path)

    def _kept(self, found: IndexedImage) -> Path:
        return self.folder / str(found.id // 1000) / str(found.id)


class Linking(Gathering):
    """Symbolic links to files of this machine."""

    reads = True

    def take(self, found: IndexedImage) -> Looks | Refusal:
        """See Gathering.

        Raises: UsageError where the picture is no file of this machine by itself.
        """
        place = found.uri
        if "://" in place or any(parent.is_file() for parent in Path(place).parents):
            what = "is no file of this machine that can be linked"
            raise UsageError(f"{place}: {what}; use --pictures copy or reference")
        if _is_known(found):
            refusal = self.pictures.check(found)
            return refusal or Looks(found.content_hash, found.perceptual_hash)
        data = self.pictures.read(found)
        return data if isinstance(data, Refusal) else _looks(found, data)

    def put(self, found: IndexedImage, path: Path) -> None:
        """See Gathering."""
        path.symlink_to(found.uri)


class Referring(Gathering):
    """Nothing but addresses; pictures may be absent."""

    places = False

    def take(self, found: IndexedImage) -> Looks | Refusal:
        """See Gathering."""
        return Looks(found.content_hash, found.perceptual_hash)

    def put(self, found: IndexedImage, path: Path) -> None:
        """See Gathering: there is nothing to put."""


def _is_known(found: IndexedImage) -> bool:
    """Whether somebody has read the picture before, and hashed it."""
    return found.perceptual_hash is not None and found.status != "unseen"


def _looks(found: IndexedImage, data: bytes) -> Looks | Refusal:
    """What is known of a picture, or is to be seen in its bytes."""
    if _is_known(found):
        return Looks(found.content_hash or content_hash(data), found.perceptual_hash)
    try:
        decoded = decode(data, min_long_side=_SIDE, min_short_side=_SIDE)
    except DecodingError as error:
        return Refusal("unreadable", f"the picture can't be decoded: {error}")
    hash_ = perceptual_hash(decoded.pixels)
    return Looks(content_hash(data), hash_, decoded.width, decoded.height)


GATHERINGS: Mapping[str, Callable[[Path], Gathering]] = {
    "copy": Copying,
    "link": Linking,
    "reference": Referring,
}
"""What a user writes, and how pictures come into the set."""
