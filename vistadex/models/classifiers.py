"""Classifier heads and the classifier that runs one. Shape letter: C classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vistadex.models.heads import Shape, VectorHead
from vistadex.models.network import Network, check_finite
from vistadex.records import Classification, DecodedImage, FloatArray, Result


class ProbabilitiesHead:
    """[N, C] scores in [0, 1], as after a softmax or sigmoid in the graph."""

    preset: ClassVar[str | None] = None

    def class_count(self, shape: Shape) -> int | None:
        """C of [N, C]."""
        return vector_length(shape)

    def decode(self, output: FloatArray) -> FloatArray:
        """(C,) scores as they are."""
        return output


class LogitsHead:
    """[N, C] numbers of any size, for a softmax."""

    preset: ClassVar[str | None] = None

    def class_count(self, shape: Shape) -> int | None:
        """C of [N, C]."""
        return vector_length(shape)

    def decode(self, output: FloatArray) -> FloatArray:
        """(C,) scores that add up to 1."""
        powers = np.exp(output - output.max())
        scores: FloatArray = powers / powers.sum()
        return scores


class Classifier:
    """A network that scores classes. Implements records.Model; safe to share between threads."""

    def __init__(self, network: Network, head: VectorHead, *, max_classes: int) -> None:
        self.min_long_side, self.min_short_side = network.preprocessor.min_sides
        self.batch_size = network.batch_size
        self._network, self._head, self._max_classes = network, head, max_classes

    def analyze(self, images: Sequence[DecodedImage]) -> list[Result]:
        """The best classes of each image, in the order of the images.

        Raises: ModelError if a score is not finite.
        """
        found: dict[int, Result] = {}
        for index, _, tensors in self._network.run(images):
            scores = self._head.decode(tensors[0].reshape(-1))
            check_finite("scores", scores)
            best = np.argsort(-scores, kind="stable")[: self._max_classes]
            found[index] = Classification(np.clip(scores[best], 0, 1), best)
        return [found[i] for i in range(len(images))]


def vector_length(shape: Shape) -> int | None:
    """Length of a vector output [N, C], also [N, C, 1, 1].

    Raises: ValueError if an output of that shape is no vector.
    """
    if len(shape) < 2 or any(size != 1 for size in shape[2:]):
        raise ValueError(f"output {list(shape)}, expected one vector for each picture [N, C]")
    return shape[1]
