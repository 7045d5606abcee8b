"""NanoDet heads: distances to the four sides as distributions over bins (GFL).

A distance is the mean of its bins 0, 1, … in strides. Scores are in [0, 1] already.
Shape letters: A cells, C classes, B bins for a distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from vistadex.models.grids import cells, need_rows
from vistadex.models.heads import Candidates, DetectorHead, Fit
from vistadex.models.ports import Signature, named, only, shape_text
from vistadex.records import FloatArray

_BINS = 8
"""Of every published NanoDet (reg_max 7)."""
_STRIDES = (8, 16, 32)
_PLUS_STRIDES = (8, 16, 32, 64)


class NanodetHead(DetectorHead):
    """NanoDet before Plus: a map of scores [N, A, C] and one of distances [N, A, 4 * B] per stride.

    They are told apart by their names, cls_pred_stride_8, dis_pred_stride_8, and so on.
    """

    preset: ClassVar[str | None] = "nanodet"
    certain: ClassVar[bool] = True

    def fit(self, signature: Signature) -> Fit:
        """C of the maps of scores."""
        outputs = signature.outputs
        names = [f"{kind}_pred_stride_{s}" for kind in ("cls", "dis") for s in _STRIDES]
        found = [i for name in names if (i := named(outputs, name)) is not None]
        shapes = [outputs[i].shape for i in found]
        if len(found) != 6 or any(len(shape) != 3 for shape in shapes):
            texts = "; ".join(map(str, outputs))
            raise ValueError(f"outputs {texts}; expected maps named {', '.join(names)}")
        counts, bins = {s[2] for s in shapes[:3]}, {s[2] for s in shapes[3:]}
        count, size = counts.pop(), bins.pop()
        if counts or bins or (size or 8) % 4 or (size or 8) < 8:
            texts = "; ".join(map(shape_text, shapes))
            raise ValueError(f"maps {texts}; expected 3 of [N, A, C] and 3 of [N, A, 4 * bins]")
        return Fit(order=tuple(found), class_count=count)

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        scores, distances = np.concatenate(outputs[:3]), np.concatenate(outputs[3:])
        best = scores.max(axis=1)
        grid = cells(*canvas_wh, _STRIDES)
        need_rows("nanodet", len(best), len(grid))
        kept = np.flatnonzero(best >= min_score)
        boxes = _boxes(grid[kept], distances[kept], 0.5)
        return Candidates(boxes, best[kept], scores[kept].argmax(axis=1))


class NanodetPlusHead(DetectorHead):
    """NanoDet-Plus: [N, A, C + 32], scores then distances; strides 8 to 64, cells' corners."""

    preset: ClassVar[str | None] = "nanodet"

    def fit(self, signature: Signature) -> Fit:
        """C of [N, A, C + 32]."""
        expected = "[N, A, classes + 32]"
        least = 4 * _BINS
        index = only(
            signature.outputs,
            f"one of {expected}",
            lambda port: len(port.shape) == 3 and (port.shape[2] or least + 1) > least,
        )
        _, rows, size = signature.outputs[index].shape
        width, height = signature.size_wh
        if rows and width and height:
            cell_count = len(cells(width, height, _PLUS_STRIDES))
            if rows != cell_count:
                raise ValueError(f"{rows} rows of output, expected {cell_count}")
        return Fit(order=(index,), class_count=None if size is None else size - least)

    def decode(
        self, outputs: Sequence[FloatArray], canvas_wh: tuple[int, int], min_score: float
    ) -> Candidates:
        """The boxes of one picture with at least that score."""
        output = outputs[0]
        grid = cells(*canvas_wh, _PLUS_STRIDES)
        need_rows("nanodet-plus", len(output), len(grid))
        scores = output[:, : -4 * _BINS]
        best = scores.max(axis=1)
        kept = np.flatnonzero(best >= min_score)
        boxes = _boxes(grid[kept], output[kept, -4 * _BINS :], 0.0)
        return Candidates(boxes, best[kept], scores[kept].argmax(axis=1))


def _boxes(grid: FloatArray, distances: FloatArray, center: float) -> FloatArray:
    """(K, 4) corners from (K, 4 * B) logits of the distances from points in cells.

    Args:
        center: where in its cell a point lies, from 0 to 1.
    """
    bins = distances.reshape(len(grid), 4, distances.shape[1] // 4)
    powers = np.exp(bins - bins.max(axis=2, keepdims=True))
    means = (powers * np.arange(bins.shape[2])).sum(axis=2) / powers.sum(axis=2)
    points = np.tile(grid[:, :2] + np.float32(center), 2)
    signs = np.array([-1, -1, 1, 1], np.float32)
    corners: FloatArray = (points + signs * means) * grid[:, 2:]
    return corners.astype(np.float32)
