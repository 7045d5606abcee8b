"""From what was asked to what is trained: data, classes, network, weights at the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vistadex.annotated import AnnotatedSet, open_annotated
from vistadex.catalog import Catalog
from vistadex.errors import FormatError, UsageError
from vistadex.models import ModelFile, ModelStore, resolve
from vistadex.training.augmenting import fitted
from vistadex.training.folding import measure_moments
from vistadex.training.networks import ARCHITECTURES, Architecture, DetectorNetwork, build_network
from vistadex.training.pictures import UNREADABLE, Pictures
from vistadex.training.recipe import Recipe
from vistadex.training.starting import Loaded, architecture_of, load_weights

HELD_OUT = 0.1
MOST_HELD_OUT = 1000
_MOMENTS = 64
"""Pictures on which the moments of normalization are measured."""


@dataclass(frozen=True, slots=True)
class Sets:
    """What is learned, and what is measured on."""

    training: AnnotatedSet
    validation: AnnotatedSet
    validation_name: str


def open_sets(
    recipe: Recipe,
    data: str | Path | AnnotatedSet,
    validate: str | Path | AnnotatedSet | None,
    catalog: str | Path | Catalog | None,
) -> Sets:
    """The pictures to learn and those to measure on, which are others.

    Raises: as open_annotated does; UsageError where too few pictures are left.
    """

    def opened(what: str | Path, split: str | None, images: str | None) -> AnnotatedSet:
        at = catalog if str(what) == "catalog" else None
        return open_annotated(
            what, format=recipe.format, images=images, split=split, catalog=at, query=recipe.query
        )

    if isinstance(data, AnnotatedSet):
        training, splits = data, frozenset[str]()
    else:
        training = opened(data, recipe.split, recipe.images)
        splits = frozenset(training.splits)
        if recipe.split is None and "train" in splits:
            training = opened(data, "train", recipe.images)
    if validate is not None:
        if isinstance(validate, AnnotatedSet):
            return _checked(training, validate, validate.name)
        images = recipe.images if recipe.format != "auto" else None
        measured = opened(validate, recipe.validate_split, images)
        return _checked(training, measured, measured.name)
    split = recipe.validate_split or ("val" if "val" in splits else None)
    if split == recipe.split and split is not None:
        raise UsageError(
            f"--validate-split {split}: would be learned and measured on; choose another"
        )
    if split is not None and not isinstance(data, AnnotatedSet):
        if recipe.split == "trainval" and recipe.validate_split is None:
            return _held_out(training, recipe.seed)
        return _checked(training, opened(data, split, recipe.images), f"{recipe.data}, {split}")
    return _held_out(training, recipe.seed)


def _held_out(data: AnnotatedSet, seed: int) -> Sets:
    order = np.random.default_rng([seed, len(data.images)]).permutation(len(data.images))
    count = min(MOST_HELD_OUT, max(1, round(HELD_OUT * len(order))))
    name = f"{count:,} of its images that were held out"
    held, learned = np.sort(order[:count]), np.sort(order[count:])
    return _checked(data.subset(learned), data.subset(held), f"{data.name}: {name}")


def _checked(training: AnnotatedSet, validation: AnnotatedSet, name: str) -> Sets:
    boxes = sum(len(one.boxes) for one in training.images)
    if boxes == 0:
        raise FormatError(f"{training.name}: no image has a box, expected boxes; check the data")
    return Sets(training, validation, name)


@dataclass(frozen=True, slots=True)
class Start:
    """The network before its first step."""

    architecture: Architecture
    network: DetectorNetwork
    loaded: Loaded | None
    """What came from a file; None: all is random."""
    file: ModelFile | None


def start_of(
    recipe: Recipe, classes: Sequence[str], pictures: Pictures, store: ModelStore
) -> Start:
    """The network that is trained, with random weights or those of a file.

    Raises: UsageError for an unknown network; NotFoundError or ModelError for a file that does not
        fit, with its first convolution that does not.
    """
    if recipe.network is not None and recipe.network not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UsageError(f"network {recipe.network!r} is unknown; expected one of {known}")
    if recipe.fake_quantize and recipe.init is None:
        raise UsageError("fake_quantize rounds a network that is trained already; add --init FILE")
    torch.manual_seed(recipe.seed)
    if recipe.init is None:
        how = ARCHITECTURES[recipe.network or "nano"]
        return Start(how, build_network(how, len(classes)), None, None)
    file = resolve(recipe.init, task="detector", store=store)
    how = ARCHITECTURES[recipe.network] if recipe.network else architecture_of(file.path)
    network = build_network(how, len(classes))
    loaded = load_weights(network, file.path, classes, file.card.classes)
    measure_moments(network, _some_inputs(pictures, recipe.size))
    return Start(how, network, loaded, file)


def _some_inputs(pictures: Pictures, size: int) -> list[torch.Tensor]:
    """Inputs of pictures as they are, a few at a time."""
    inputs: list[np.ndarray] = []
    for i in np.linspace(0, len(pictures) - 1, min(_MOMENTS, len(pictures))).round().astype(int):
        try:
            pixels = fitted(pictures.get(int(i)), size).pixels
        except UNREADABLE:
            continue
        inputs.append(pixels[..., ::-1].transpose(2, 0, 1).astype(np.float32))
    stacks = [np.stack(inputs[at : at + 8]) for at in range(0, len(inputs), 8)]
    return [torch.from_numpy(np.ascontiguousarray(one)) for one in stacks]
