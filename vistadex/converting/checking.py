"""An exported model beside the model that it was made from, on the same pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vistadex.errors import ModelError
from vistadex.models import ModelFile, RunOptions, runtimes
from vistadex.models.analyzers import load_once
from vistadex.models.heads import HEADS
from vistadex.models.network import Network, wire
from vistadex.models.preprocessing import Preprocessor
from vistadex.quantizing.agreement import agreement
from vistadex.quantizing.pictures import choose
from vistadex.records import DecodedImage, FloatArray
from vistadex.registry import lookup

TOLERANCE = 1e-3
"""How far raw outputs may differ, by their largest number, where no weights are rounded."""
_SEED = 0


def check(
    before: ModelFile, after: ModelFile, source: str | None, count: int, *, rounded: bool
) -> dict[str, Any]:
    """The fields of ExportedModel that say how far two models are the same.

    Args:
        source: of pictures; None: random pixels.
        rounded: the weights were, so that outputs may differ.
    Raises: ModelError if the outputs differ by more than rounding of float32, or have other shapes.
    """
    chosen = None if source is None else choose(source, count, after, seed=_SEED)
    images = chosen.images if chosen else _random(after, count)
    ours, theirs = _outputs(before, after, images), _outputs(after, after, images)
    largest, difference = 0.0, 0.0
    for one, other in zip(ours, theirs, strict=True):
        if one.shape != other.shape:
            raise ModelError(
                f"{before.path}: can't be exported, an output becomes {other.shape}, was "
                f"{one.shape}"
            )
        largest = max(largest, float(np.abs(one).max(initial=0)))
        difference = max(difference, float(np.abs(one - other).max(initial=0)))
    if not rounded and not difference <= TOLERANCE * max(1.0, largest):
        raise ModelError(
            f"{before.path}: can't be exported, its output changes by {difference:.2g}"
        )
    return {
        "max_difference": difference,
        "agreement": 1.0 if _embeds(before) else _agreement(before, after, images),
        "pictures": len(images),
        "source": chosen.source if chosen else "",
        "failures": dict(chosen.failures) if chosen else {},
    }


def _outputs(file: ModelFile, like: ModelFile, images: Sequence[DecodedImage]) -> list[FloatArray]:
    """Every raw output for every picture, fitted to the input of another model's card."""
    choice = runtimes.choose(file.path, "auto", "auto", file.card.name)
    session = runtimes.open_file(file, choice, "cpu")
    head = lookup(HEADS, file.card.head, "model head")()
    preprocessor = Preprocessor(like.card.input, like.card.input.size_wh, rectangular=False)
    wiring = wire(session, file.card, head, str(file.path))
    network = Network(session, preprocessor, wiring, 1, str(file.path))
    found = [output for image in images for output in network.run([image])]
    return [np.asarray(tensor) for output in found for tensor in output.tensors]


def _agreement(before: ModelFile, after: ModelFile, images: Sequence[DecodedImage]) -> float:
    options = RunOptions(device="cpu", rectangular=False)
    both = [load_once(file, str(file.path), options) for file in (before, after)]
    ours, theirs = ([model.analyze([i])[0] for i in images] for model in both)
    return round(agreement(ours, theirs), 6)


def _embeds(file: ModelFile) -> bool:
    return file.card.task == "embedder"


def _random(file: ModelFile, count: int) -> list[DecodedImage]:
    width, height = file.card.input.size_wh
    chance = np.random.default_rng(_SEED)
    pixels = (chance.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count))
    return [DecodedImage(one, width, height) for one in pixels]
