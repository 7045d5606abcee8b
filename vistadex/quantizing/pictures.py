"""Pictures to calibrate with: chosen by chance from a source, read, decoded, fitted to a model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from vistadex.decoding import decode
from vistadex.errors import DecodingError, SourceError
from vistadex.models import ModelFile, analyzer
from vistadex.models.heads import HEADS
from vistadex.models.network import wire
from vistadex.models.preprocessing import Preprocessor
from vistadex.models.sessions import open_session
from vistadex.quantizing.ranges import Feed
from vistadex.records import DecodedImage, Failure, ImageEntry
from vistadex.registry import lookup
from vistadex.sources import open_source, read_images

_SPARE = 2
"""For each picture wanted, so many are chosen: those that are bad are replaced."""


@dataclass(slots=True)
class Pictures:
    """Decoded pictures and what could not be used."""

    images: list[DecodedImage]
    source: str
    listed: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """Files that could not be used, by reason; those that are no pictures are not counted."""


def choose(source: str, count: int, file: ModelFile, *, seed: int = 0) -> Pictures:
    """That many pictures of a folder, bucket or archive, decoded at the size the model needs.

    The same seed and the same files give the same pictures, in a random order. In memory are only
    the chosen ones, reduced.

    Raises: SourceError if it can't be listed or no picture in it can be used.
    """
    how = Preprocessor(file.card.input, _size_wh(file), rectangular=_rectangular(file))
    return read(source, count, seed=seed, min_sides=how.min_sides)


def read(
    source: str, count: int, *, seed: int = 0, min_sides: tuple[int, int] = (0, 0)
) -> Pictures:
    """That many pictures by chance, as choose does, for any model.

    Args:
        min_sides: pixels that the long and the short side must keep; 0 for no need.
    """
    opened = open_source(source)
    entries, listed = _sample((e for page in opened.pages() for e in page), _SPARE * count, seed)
    found = Pictures([], opened.uri, listed)
    long, short = min_sides
    for entry, data in read_images(opened, entries):
        if len(found.images) == count:
            break
        try:
            if isinstance(data, Failure):
                raise DecodingError(data.reason, f"{entry.key}: {data.message}")
            found.images.append(decode(data, min_long_side=long, min_short_side=short))
        except DecodingError as error:
            if error.reason != "not_an_image":
                found.failures[error.reason] += 1
    if not found.images:
        raise SourceError(f"{opened.uri}: no picture in it can be used, expected some; give others")
    return found


def _sample(entries: Iterator[ImageEntry], count: int, seed: int) -> tuple[list[ImageEntry], int]:
    """So many entries by chance, in one pass and in memory for these only; and how many there are.

    Source: Vitter, Random sampling with a reservoir (1985), algorithm R.
    """
    chance = random.Random(seed)
    kept: list[ImageEntry] = []
    listed = 0
    for entry in entries:
        listed += 1
        if len(kept) < count:
            kept.append(entry)
        elif (place := chance.randrange(listed)) < count:
            kept[place] = entry
    chance.shuffle(kept)
    return kept, listed


class Feeds:
    """What a network's inputs are given for pictures, made anew each time they are gone over."""

    def __init__(self, file: ModelFile, images: Sequence[DecodedImage]) -> None:
        """Raises: ModelError if file and card disagree."""
        head = lookup(HEADS, file.card.head, "model head")()
        self._wiring = wire(open_session(file.path), file.card, head, str(file.path))
        self._prepared = Preprocessor(
            file.card.input, _size_wh(file), rectangular=_rectangular(file)
        )
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Feed]:
        return map(self.feed, self._images)

    def feed(self, image: DecodedImage) -> Feed:
        """The inputs for one picture."""
        placement = self._prepared.place(image.width, image.height)
        width, height = placement.canvas_wh
        blob = np.empty((1, 3, height, width), np.float32)
        self._prepared.write(self._prepared.reduced(image), placement, blob[0])
        picture = self._wiring.picture
        pixels = blob.transpose(0, 2, 3, 1) if picture.channels_last else blob
        pixels = pixels if picture.batched else pixels[0]
        feed: Feed = {picture.port.name: np.ascontiguousarray(pixels, picture.port.type)}
        for extra in self._wiring.extras:
            feed[extra.port.name] = extra.values(1, (width, height))
        return feed


def _size_wh(file: ModelFile) -> tuple[int, int]:
    return analyzer(file).size_wh


def _rectangular(file: ModelFile) -> bool:
    return analyzer(file).rectangular
