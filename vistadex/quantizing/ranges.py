"""Ranges of activations, from histograms of fixed size that grow over any number of pictures.

Shape letter: B bins, an even number; the middle of the histogram is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistadex.errors import ModelError
from vistadex.models.sessions import open_session
from vistadex.quantizing.graphs import Model
from vistadex.records import FloatArray, IntArray

BINS = 4096
MOST_VALUES = 1 << 16
"""Of each tensor and picture, evenly spread values that enter the histogram; extremes all do."""
PERCENTILE = 0.9999
_LEVELS = 256
_NARROWEST = 1e-30
"""Of a histogram: a narrower one has more bins to a unit than float32 can say."""
_CUTS = 48
"""Ranges that entropy tries."""

Range = tuple[float, float]
Feed = dict[str, NDArray[Any]]


class Histogram:
    """How often values occur, in bins that double their width when a value does not fit."""

    def __init__(self) -> None:
        self.counts: IntArray = np.zeros(BINS, np.int64)
        self.limit = 0.0
        """The bins go from -limit to limit."""
        self.low, self.high = 0.0, 0.0
        """Extremes of all values and 0, which must stay exact when quantized."""

    def add(self, values: FloatArray) -> None:
        """Counts the values of one tensor.

        Raises: ModelError if one is not finite.
        """
        flat = values.reshape(-1)
        if not len(flat):
            return
        low, high = float(flat.min()), float(flat.max())
        if not np.isfinite([low, high]).all():
            raise ModelError("an activation is not finite; the model or its card is bad")
        self.low, self.high = min(low, self.low), max(high, self.high)
        self._fit(max(-low, high))
        if self.limit:
            some = flat[:: max(1, len(flat) // MOST_VALUES)]
            places = ((some + self.limit) * (BINS / 2 / self.limit)).astype(np.int64)
            self.counts += np.bincount(np.minimum(places, BINS - 1), minlength=BINS)

    def _fit(self, largest: float) -> None:
        if self.limit == 0 and largest:
            self.limit = max(largest, _NARROWEST)
        while largest > self.limit:
            pairs = self.counts.reshape(-1, 2).sum(1)
            self.counts[:] = 0
            self.counts[BINS // 4 : -BINS // 4] = pairs
            self.limit *= 2

    @property
    def edges(self) -> NDArray[np.float64]:
        """(B + 1,) where bins begin and the last one ends."""
        return np.linspace(-self.limit, self.limit, BINS + 1)


def min_max(found: Histogram) -> Range:
    """All values that occurred."""
    return found.low, found.high


def percentile(found: Histogram, share: float = PERCENTILE) -> Range:
    """All values but the outermost at either end, of which there are 1 - share."""
    total = np.cumsum(found.counts)
    if not total[-1]:
        return min_max(found)
    first = int(np.searchsorted(total, (1 - share) * total[-1], side="right"))
    last = int(np.searchsorted(total, share * total[-1]))
    low, high = found.edges[first], found.edges[min(last, BINS - 1) + 1]
    return max(found.low, min(low, 0.0)), min(found.high, max(high, 0.0))


def entropy(found: Histogram) -> Range:
    """The share of the largest, then of the smallest value that loses least information when what
    lies between is cut into 256 levels.

    Source: NVIDIA, 8-bit inference with TensorRT (GTC 2017): least Kullback-Leibler divergence
    between the values, those outside put at the ends, and their quantized form. Zeros are left
    out: after a ReLU they would outweigh everything.
    """
    counts = found.counts.astype(np.float64)
    counts[BINS // 2 - 1 : BINS // 2 + 1] = 0
    if not counts.any():
        return min_max(found)
    cuts = np.linspace(1, 0.05, _CUTS)
    edges, low, high = found.edges, found.low, found.high
    high *= cuts[np.argmin([_divergence(counts, edges, low, found.high * c) for c in cuts])]
    low *= cuts[np.argmin([_divergence(counts, edges, found.low * c, high) for c in cuts])]
    return low, high


RANGES: Mapping[str, Callable[[Histogram], Range]] = {
    "percentile": percentile,
    "entropy": entropy,
    "min-max": min_max,
}
"""How a range is chosen, by name."""


def _divergence(
    counts: NDArray[np.float64], edges: NDArray[np.float64], low: float, high: float
) -> float:
    """Kullback-Leibler divergence of the quantized values from the values."""
    centers = (edges[:-1] + edges[1:]) / 2
    step = (high - low) / (_LEVELS - 1)
    if step <= 0:
        return float("inf")
    inside = np.clip(np.rint((np.clip(centers, low, high) - low) / step), 0, _LEVELS - 1)
    level = inside.astype(np.int64)
    kept = (centers >= low) & (centers <= high)
    reference = np.where(kept, counts, 0.0)
    # What is cut off lands in the outermost bins that are kept.
    where = np.flatnonzero(kept)
    if not len(where):
        return float("inf")
    reference[where[0]] += counts[: where[0]].sum()
    reference[where[-1]] += counts[where[-1] + 1 :].sum()
    used = kept & (counts > 0)
    sums = np.bincount(level[used], counts[used], minlength=_LEVELS)
    sizes = np.bincount(level[used], minlength=_LEVELS)
    quantized = np.where(used, sums[level] / np.maximum(sizes[level], 1), 0.0)
    p, q = reference / reference.sum(), quantized / max(quantized.sum(), 1e-12)
    both = p > 0
    return float((p[both] * np.log(p[both] / np.maximum(q[both], 1e-9))).sum())


def observe(model: Model, names: Sequence[str], feeds: Iterable[Feed]) -> dict[str, Histogram]:
    """A histogram of each tensor over all inputs; one input's activations are in memory at a time.

    Raises: ModelError if an activation is not finite.
    """
    import onnx

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    outputs = {output.name for output in shown.graph.output}
    inputs = {one.name for one in shown.graph.input}
    for name in names:
        if name not in outputs | inputs:
            shown.graph.output.add(name=name)
    session = open_session(shown.SerializeToString())
    computed = [name for name in names if name not in inputs]
    found = {name: Histogram() for name in names}
    for feed in feeds:
        for name in inputs & set(names):
            found[name].add(feed[name].astype(np.float32))
        for name, values in zip(computed, session.run(computed, feed), strict=True):
            found[name].add(values)
    return found
