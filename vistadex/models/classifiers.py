"""Classifier heads and the classifier that runs one. Shape letter: C classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vistadex.errors import ModelError
from vistadex.models.heads import Fit, VectorHead
from vistadex.models.network import Network, check_finite
from vistadex.models.ports import Signature, shape_text
from vistadex.records import Classification, DecodedImage, FloatArray, Result


class ProbabilitiesHead(VectorHead):
    """[N, C] scores in [0, 1], as after a softmax or sigmoid in the graph."""

    def fit(self, signature: Signature) -> Fit:
        """C of [N, C]."""
        return Fit(order=(0,), class_count=vector_length(signature))

    def decode(self, output: FloatArray) -> FloatArray:
        """(C,) scores as they are."""
        return output


class LogitsHead(VectorHead):
    """[N, C] numbers of any size, for a softmax."""

    def fit(self, signature: Signature) -> Fit:
        """C of [N, C]."""
        return Fit(order=(0,), class_count=vector_length(signature))

    def decode(self, output: FloatArray) -> FloatArray:
        """(C,) scores that add up to 1."""
        powers = np.exp(output - output.max())
        scores: FloatArray = powers / powers.sum()
        return scores


class Classifier:
    """A network that scores classes. Implements records.Model; safe to share between threads."""

    def __init__(
        self, network: Network, head: VectorHead, class_count: int, *, max_classes: int
    ) -> None:
        self.min_long_side, self.min_short_side = network.preprocessor.min_sides
        self.batch_size = network.batch_size
        self._network, self._head = network, head
        self._class_count, self._max_classes = class_count, max_classes

    def analyze(self, images: Sequence[DecodedImage]) -> list[Result]:
        """The best classes of each image, in the order of the images.

        Raises: ModelError if a score is not finite, or their number is not that of the classes.
        """
        found: dict[int, Result] = {}
        for index, _, tensors in self._network.run(images):
            if tensors[0].size != self._class_count:
                raise ModelError(
                    f"{tensors[0].size} scores in the output, the card names {self._class_count}"
                )
            scores = self._head.decode(tensors[0].reshape(-1))
            check_finite("scores", scores)
            best = np.argsort(-scores, kind="stable")[: self._max_classes]
            best = best[scores[best] > 0]  # 0 of a quantized network says nothing
            found[index] = Classification(np.clip(scores[best], 0, 1), best)
        return [found[i] for i in range(len(images))]


def vector_length(signature: Signature) -> int | None:
    """Length of the vector [N, C], also [N, C, 1, 1], that is the first output.

    Raises: ValueError if the first output is no vector.
    """
    shape = signature.outputs[0].shape
    if len(shape) < 2 or any(size != 1 for size in shape[2:]):
        found = shape_text(shape)
        raise ValueError(f"output {found}, expected one vector for each picture [N, C]")
    return shape[1]
