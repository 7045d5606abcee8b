"""Boxes as arrays: conversions, clipping, overlap and non-maximum suppression, in pure NumPy.

Shape letters: N and M boxes.
"""

from __future__ import annotations

import numpy as np

from vistadex.records import DoubleArray, FloatArray, IntArray


def xyxy_to_xywh(boxes_xyxy: FloatArray) -> FloatArray:
    """(N, 4) corners as (N, 4) left, top, width, height."""
    out = boxes_xyxy.copy()
    out[:, 2:] -= boxes_xyxy[:, :2]
    return out


def xywh_to_xyxy(boxes_xywh: FloatArray) -> FloatArray:
    """(N, 4) left, top, width, height as (N, 4) corners."""
    out = boxes_xywh.copy()
    out[:, 2:] += boxes_xywh[:, :2]
    return out


def cxcywh_to_xyxy(boxes_cxcywh: FloatArray) -> FloatArray:
    """(N, 4) center, width, height as (N, 4) corners."""
    half = boxes_cxcywh[:, 2:] / 2
    centers = boxes_cxcywh[:, :2]
    return np.concatenate([centers - half, centers + half], axis=1)


def xyxy_to_cxcywh(boxes_xyxy: FloatArray) -> FloatArray:
    """(N, 4) corners as (N, 4) center, width, height."""
    sizes = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    return np.concatenate([boxes_xyxy[:, :2] + sizes / 2, sizes], axis=1)


def clip(boxes_xyxy: FloatArray, width: int, height: int) -> FloatArray:
    """The part of each box that lies inside an image of that size."""
    limits = np.array([width, height, width, height], np.float32)
    return np.clip(boxes_xyxy, np.float32(0), limits)


def turn(boxes_xyxy: DoubleArray, orientation: int, width: int, height: int) -> DoubleArray:
    """(N, 4) boxes of a picture as stored in the picture turned upright.

    Args:
        orientation: 1 to 8, as EXIF says it.
        width: of the picture as stored.
    Source: EXIF 2.32, tag 0x0112.
    """
    x, y = boxes_xyxy[:, 0::2], boxes_xyxy[:, 1::2]
    right, low = width - x, height - y
    turned_xy = {
        1: (x, y),
        2: (right, y),
        3: (right, low),
        4: (x, low),
        5: (y, x),
        6: (low, x),
        7: (low, right),
        8: (y, right),
    }
    xs, ys = (np.sort(one, axis=1) for one in turned_xy[orientation])
    return np.stack([xs[:, 0], ys[:, 0], xs[:, 1], ys[:, 1]], axis=1)


def box_iou(a_xyxy: FloatArray, b_xyxy: FloatArray) -> FloatArray:
    """Intersection over union of every box in a with every box in b.

    Args:
        a_xyxy: (N, 4) pixels, x0 <= x1 and y0 <= y1.
        b_xyxy: (M, 4) likewise.
    Returns: (N, M) in [0, 1]; 0 where the union is empty.
    Source: COCO maskUtils.iou with iscrowd = 0.
    """
    low = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    high = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=2)
    area_a = np.prod(a_xyxy[:, 2:] - a_xyxy[:, :2], axis=1)
    area_b = np.prod(b_xyxy[:, 2:] - b_xyxy[:, :2], axis=1)
    union = area_a[:, None] + area_b[None, :] - overlap
    iou: FloatArray = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return iou


def nms(boxes_xyxy: FloatArray, scores: FloatArray, iou_threshold: float) -> IntArray:
    """Indices of the boxes that greedy non-maximum suppression keeps, by falling score.

    A box goes when its IoU with a kept box of higher score is above the threshold.
    """
    order = np.argsort(-scores, kind="stable")
    iou = box_iou(boxes_xyxy[order], boxes_xyxy[order])
    kept: list[int] = []
    alive = np.ones(len(order), bool)
    for i in range(len(order)):
        if alive[i]:
            kept.append(i)
            alive[i + 1 :] &= iou[i, i + 1 :] <= iou_threshold
    return order[np.array(kept, np.int64)]
