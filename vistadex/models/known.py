"""Public model files that are recognized by their SHA-256."""

from __future__ import annotations

from collections.abc import Mapping

from vistadex.models.cards import ModelCard, Preprocessing
from vistadex.models.coco import COCO_CLASSES

_YOLOX = "https://github.com/Megvii-BaseDetection/YOLOX"


def _yolox(name: str, side: int, source: str) -> ModelCard:
    return ModelCard(
        name=name,
        task="detector",
        head="yolox",
        classes=COCO_CLASSES,
        input=Preprocessing(
            size_wh=(side, side), color="BGR", resize="letterbox-top-left", stride=32
        ),
        license="Apache-2.0",
        source=source,
    )


KNOWN: Mapping[str, ModelCard] = {
    "695e750a5d5754bb5a8d5325643b59282191a7e7a564e435a415fd3c578eab14": _yolox(
        "yolox_nano", 416, f"{_YOLOX} (an export of its YOLOX-nano)"
    ),
    "c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d": _yolox(
        "yolox_nano", 416, f"{_YOLOX} (release 0.1.1rc0)"
    ),
    "427cc366d34e27ff7a03e2899b5e3671425c262ea2291f88bb942bc1cc70b0f7": _yolox(
        "yolox_tiny", 416, f"{_YOLOX} (release 0.1.1rc0)"
    ),
    "c5c2d13e59ae883e6af3b45daea64af4833a4951c92d116ec270d9ddbe998063": _yolox(
        "yolox_s", 640, f"{_YOLOX} (release 0.1.1rc0)"
    ),
    "08b62b9ee4a7878e7a64d6ef4faf3074322c033a0252c83a20f41b86c76e8146": ModelCard(
        name="nanodet_m_416",
        task="detector",
        head="nanodet",
        classes=COCO_CLASSES,
        input=Preprocessing(
            size_wh=(416, 416),
            color="BGR",
            mean=(103.53, 116.28, 123.675),
            std=(57.375, 57.12, 58.395),
            resize="letterbox-top-left",
            stride=32,
        ),
        license="Apache-2.0",
        source="https://github.com/RangiLyu/nanodet (NanoDet-m at 416 pixels)",
    ),
}
"""Card by SHA-256 of the file."""
