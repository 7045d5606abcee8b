"""The embedder head and the embedder that runs it. Shape letter: D values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vistadex.models.classifiers import vector_length
from vistadex.models.heads import Fit, VectorHead
from vistadex.models.network import Network, check_finite
from vistadex.models.ports import Signature
from vistadex.records import DecodedImage, Embedding, FloatArray, Result


class EmbeddingHead(VectorHead):
    """[N, D] or [N, D, 1, 1] values of any size."""

    def fit(self, signature: Signature) -> Fit:
        """An embedding has no classes."""
        vector_length(signature)
        return Fit(order=(0,))

    def decode(self, output: FloatArray) -> FloatArray:
        """(D,) of unit length; zero where the network gives zero."""
        length = np.linalg.norm(output)
        return output / length if length > 0 else output


class Embedder:
    """A network that gives vectors. Implements records.Model; safe to share between threads."""

    def __init__(self, network: Network, head: VectorHead) -> None:
        self.min_long_side, self.min_short_side = network.preprocessor.min_sides
        self.batch_size = network.batch_size
        self._network, self._head = network, head

    def analyze(self, images: Sequence[DecodedImage]) -> list[Result]:
        """The vector of each image, in the order of the images.

        Raises: ModelError if one is not finite.
        """
        found: dict[int, Result] = {}
        for index, _, tensors in self._network.run(images):
            vector = self._head.decode(tensors[0].reshape(-1))
            check_finite("values", vector)
            found[index] = Embedding(vector)
        return [found[i] for i in range(len(images))]
