"""Trying out: a graph on random pictures before it is trusted, a model on one of yours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistadex.errors import ModelError
from vistadex.models.cards import ModelCard
from vistadex.models.sessions import open_session
from vistadex.records import FloatArray


class Trial:
    """A graph that turns an array of pictures into its outputs."""

    def __init__(self, model: Path | bytes) -> None:
        """Raises: ModelError if the graph does not run here or takes other than [N, 3, H, W]."""
        self._session = open_session(model)
        self._input = self._session.get_inputs()[0]
        shape = self._input.shape
        if len(self._session.get_inputs()) != 1 or len(shape) != 4 or shape[3] == 3 != shape[1]:
            place = model if isinstance(model, Path) else "rewritten model"
            raise ModelError(
                f"{place}: --dynamic-size and --optimize are for graphs with one input "
                "[N, 3, height, width]; leave them out"
            )

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
