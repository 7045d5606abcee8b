"""The 80 classes of COCO, with the category ids of its annotation files (1..90 with gaps)."""

from __future__ import annotations

from collections.abc import Mapping

COCO_CLASSES: tuple[str, ...] = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat"),
    *("dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack"),
    *("umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball"),
    *("kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket"),
    *("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair"),
    *("couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse"),
    *("remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
    *("refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier"),
    "toothbrush",
)
"""Names by class index."""

_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)

COCO_CATEGORY_IDS: tuple[int, ...] = tuple(i for i in range(1, 91) if i not in _GAPS)
"""Official category id by class index."""

_BY_CATEGORY_ID = dict(zip(COCO_CATEGORY_IDS, COCO_CLASSES, strict=True))

COCO_LISTS: Mapping[str, tuple[str, ...]] = {
    "coco": COCO_CLASSES,
    "coco-91": ("background", *(_BY_CATEGORY_ID.get(i, "N/A") for i in range(1, 91))),
    "coco-90": tuple(_BY_CATEGORY_ID.get(i, "N/A") for i in range(1, 91)),
}
"""Lists of names by index: the 80, the 91 by category id, and these without the background."""
