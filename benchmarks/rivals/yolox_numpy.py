"""YOLOX-nano the way the textbooks do it: cv2 and NumPy around onnxruntime. Shared by the rivals.

After demo/ONNXRuntime of the YOLOX project, with its grid made once and not for every picture, and
with NMS by cv2: both make it faster than the original. Thresholds are those of Vistadex, and boxes
are scaled by what resizing did to each side, not by the ratio before it was cut to whole pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort

SIDE = 416
MIN_SCORE = 0.25
NMS_IOU = 0.65


class Yolox:
    """One session with its grid."""

    def __init__(self, weights: str | Path, threads: int = 0) -> None:
        """threads: intra_op_num_threads; 0: what onnxruntime chooses."""
        options = ort.SessionOptions()
        if threads:
            options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(
            str(weights), options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name
        grids, strides = [], []
        for stride in (8, 16, 32):
            cells = SIDE // stride
            x, y = np.meshgrid(np.arange(cells), np.arange(cells))
            grids.append(np.stack([x, y], 2).reshape(-1, 2))
            strides.append(np.full((cells * cells, 1), stride))
        self.grid = np.concatenate(grids).astype(np.float32)
        self.stride = np.concatenate(strides).astype(np.float32)

    def detect(self, path: str) -> list[list[float]]:
        """[x0, y0, x1, y1, score, class index] of each box of the picture in a file."""
        picture = cv2.imread(path)
        height, width = picture.shape[:2]
        ratio = min(SIDE / height, SIDE / width)
        resized = cv2.resize(
            picture, (int(width * ratio), int(height * ratio)), interpolation=cv2.INTER_LINEAR
        )
        padded = np.full((SIDE, SIDE, 3), 114, np.uint8)
        padded[: resized.shape[0], : resized.shape[1]] = resized
        blob = np.ascontiguousarray(padded.transpose(2, 0, 1), dtype=np.float32)[None]
        output = self.session.run(None, {self.input: blob})[0][0]
        factor = [width / resized.shape[1], height / resized.shape[0]] * 2
        return self.boxes(output, np.array(factor, np.float32), width, height)

    def boxes(self, output: Any, factor: Any, width: int, height: int) -> list[list[float]]:
        """Boxes in pixels of the picture from the network's output."""
        centers = (output[:, :2] + self.grid) * self.stride
        sizes = np.exp(output[:, 2:4]) * self.stride
        xyxy = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1) * factor
        scores = output[:, 4:5] * output[:, 5:]
        classes = scores.argmax(axis=1)
        best = scores.max(axis=1)
        keep = best >= MIN_SCORE
        xyxy, best, classes = xyxy[keep], best[keep], classes[keep]
        if not len(best):
            return []
        xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
        kept = cv2.dnn.NMSBoxesBatched(xywh.tolist(), best.tolist(), classes.tolist(), 0.0, NMS_IOU)
        xyxy = np.clip(xyxy, 0, [width, height, width, height])
        return [[*xyxy[i].tolist(), float(best[i]), int(classes[i])] for i in kept]
