"""How good a classifier of whole images is.

Shape letters: I images, L their true labels, B best classes of each, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vistadex.records import DoubleArray, IntArray

_BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierMeasures:
    """Accuracy of a classifier, in all and by class."""

    accuracy: float
    """Share of images whose best class is right."""
    top5: float
    """Share of images with a right class among the best five."""
    balanced_accuracy: float
    """Mean over classes of the share of their images that are right."""
    macro_f1: float
    """Mean over classes of F1, the harmonic mean of precision and recall."""
    calibration_error: float
    """Mean distance of scores from the share that is right, in 15 equal ranges of scores."""
    precision: DoubleArray
    """(K,) -1 for a class that is never said."""
    recall: DoubleArray
    """(K,) -1 for a class without images."""
    counts: IntArray
    """(K, K + 1) a row for each class that it is, a column for each that the model says; the last
    for images in which it says none of them."""


def classifier_measures(
    images: IntArray,
    labels: IntArray,
    best: IntArray,
    scores: DoubleArray,
    *,
    class_count: int,
) -> ClassifierMeasures:
    """The measures of a classifier's best classes; any of an image's labels is right.

    Args:
        images: (L,) the image of each label; every image has one at least.
        labels: (L,) positions of class names.
        best: (I, B) classes by falling score; -1 for a class that is none of these, or for none.
        scores: (I, B) in [0, 1].
    """
    order = np.argsort(images, kind="stable")
    first = order[np.diff(images[order], prepend=-1) > 0]
    said = np.arange(len(best))[:, None] * class_count + best
    right = np.isin(said, images * class_count + labels) & (best >= 0)
    top = right[:, 0] if right.shape[1] else np.zeros(len(best), np.bool_)
    true = np.where(top, best[:, 0], labels[first]) if right.shape[1] else labels[first]
    guess = np.where(best[:, 0] < 0, class_count, best[:, 0]) if right.shape[1] else true * 0
    counts = np.zeros((class_count, class_count + 1), np.int64)
    np.add.at(counts, (true, guess), 1)
    hits = counts.diagonal().astype(np.float64)
    precision, recall = _share(hits, counts[:, :-1].sum(0)), _share(hits, counts.sum(1))
    f1 = 2 * hits / np.maximum(counts[:, :-1].sum(0) + counts.sum(1), 1)
    there = recall >= 0
    return ClassifierMeasures(
        accuracy=float(top.mean()),
        top5=float(right[:, :5].any(axis=1).mean()),
        balanced_accuracy=float(recall[there].mean()),
        macro_f1=float(f1[there].mean()),
        calibration_error=_calibration_error(scores[:, 0], top.astype(np.float64)),
        precision=precision,
        recall=recall,
        counts=counts,
    )


def _share(hits: DoubleArray, of: IntArray) -> DoubleArray:
    share: DoubleArray = np.where(of > 0, hits / np.maximum(of, 1), -1.0)
    return share


def _calibration_error(scores: DoubleArray, right: DoubleArray) -> float:
    """Expected calibration error.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017.
    """
    bins = np.clip((scores * _BINS).astype(np.int64), 0, _BINS - 1)
    off = np.bincount(bins, scores - right, _BINS)
    return float(np.abs(off).sum() / max(len(scores), 1))
