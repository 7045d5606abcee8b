"""Running a graph on random pictures: how rewritten graphs are compared with what they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistadex.models.cards import ModelCard
from vistadex.models.sessions import open_session
from vistadex.records import FloatArray


class Trial:
    """A graph that turns an array of pictures into its outputs."""

    def __init__(self, model: Path | bytes) -> None:
        """Raises: ModelError if the graph does not run here."""
        self._session = open_session(model)
        self._input = self._session.get_inputs()[0]

    def __call__(self, images: FloatArray) -> list[NDArray[Any]]:
        """Every output for (N, 3, H, W) prepared pictures."""
        dtype = np.float16 if self._input.type == "tensor(float16)" else np.float32
        outputs: list[NDArray[Any]] = self._session.run(
            None, {self._input.name: images.astype(dtype)}
        )
        return outputs


def random_pictures(card: ModelCard, count: int, height: int, width: int) -> FloatArray:
    """(N, 3, H, W) random pixels as the network expects them."""
    how = card.input
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, height, width))
    mean, std = (np.array(x, np.float32)[:, None, None] for x in (how.mean, how.std))
    images: FloatArray = ((pixels * np.float32(how.scale) - mean) / std).astype(np.float32)
    return images
