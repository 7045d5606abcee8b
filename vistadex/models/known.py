"""Public model files that are recognized by their SHA-256."""

from __future__ import annotations

from collections.abc import Mapping

from vistadex.models.cards import ModelCard, Preprocessing
from vistadex.models.coco import COCO_CLASSES

KNOWN: Mapping[str, ModelCard] = {
    "695e750a5d5754bb5a8d5325643b59282191a7e7a564e435a415fd3c578eab14": ModelCard(
        name="yolox_nano",
        task="detector",
        head="yolox",
        classes=COCO_CLASSES,
        input=Preprocessing(
            size_wh=(416, 416), color="BGR", resize="letterbox-top-left", stride=32
        ),
        license="Apache-2.0",
        source="https://github.com/Megvii-BaseDetection/YOLOX (release 0.1.1)",
    ),
}
"""Card by SHA-256 of the file."""
