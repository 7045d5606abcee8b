"""The embedder that is always there: colors and their layout, without a model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vistadex.records import DecodedImage, Embedding, Json, Model, Result, Task

NAME = "color-layout"
SHA256 = "built-in:color-layout:1"
"""Stands where models have the SHA-256 of their file; the number grows when its vectors change."""
_SIDE = 64
"""Pixels that each side needs at least."""


@dataclass(frozen=True, slots=True)
class ColorLayout:
    """Pictures of similar colors in similar places get similar vectors, whatever they show.

    Implements records.Analyzer; picklable.
    """

    sha256: str = SHA256
    name: str = NAME
    task: Task = "embedder"
    classes: tuple[str, ...] = ()

    @property
    def card(self) -> Mapping[str, Json]:
        """What it is."""
        about = "colors and their layout; it does not know what is in a picture"
        return {"name": self.name, "task": self.task, "about": about}

    @property
    def parameters(self) -> Mapping[str, Json]:
        """None."""
        return {}

    def load(self) -> Model:
        """Ready at once."""
        return _Describer()


class _Describer:
    """Implements records.Model; safe to share between threads."""

    min_long_side = 0
    min_short_side = _SIDE
    batch_size = 1

    def analyze(self, images: Sequence[DecodedImage]) -> list[Result]:
        """The vector of each image, in the order of the images."""
        from vistadex.decoding.color_layout import color_layout  # OpenCV

        return [Embedding(color_layout(one.pixels)) for one in images]
