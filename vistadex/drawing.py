"""Boxes drawn into pictures: one color per class, the same everywhere."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vistadex.catalog import FoundBox, IndexedImage
from vistadex.decoding import decode, encode_jpeg
from vistadex.errors import UsageError
from vistadex.records import Pixels
from vistadex.sources import open_source


def hue(class_name: str) -> int:
    """A class's hue in degrees, the same in every picture and page."""
    return zlib.crc32(class_name.encode()) * 137 % 360


def draw_boxes(pixels: Pixels, boxes: Iterable[FoundBox]) -> Pixels:
    """A copy of an RGB picture at full size with boxes, class names and scores."""
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    unit = max(1, round(max(picture.size) / 400))
    font = ImageFont.load_default(size=max(10, 6 * unit))
    for box in sorted(boxes, key=lambda one: one.score):
        red, green, blue = colorsys.hls_to_rgb(hue(box.class_name) / 360, 0.55, 0.85)
        color = (round(red * 255), round(green * 255), round(blue * 255))
        x0, y0, x1, y1 = box.box_xyxy
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=color, width=unit)
        text = f"{box.class_name} {box.score:.2f}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        width, height = right - left + 2 * unit, bottom - top + 2 * unit
        label_y = y0 - height if y0 >= height else y0
        label_x = max(0, min(x0, picture.width - width))
        draw.rectangle((label_x, label_y, label_x + width, label_y + height), fill=color)
        place = (label_x + unit - left, label_y + unit - top)
        draw.text(place, text, fill=(0, 0, 0), font=font)
    return np.asarray(picture)


def save_with_boxes(image: IndexedImage, path: Path, *, min_score: float = 0.0) -> None:
    """Writes a JPEG of an indexed image, at full size, with its boxes.

    Raises: SourceError or DecodingError where the picture can't be had; UsageError where the file
        can't be written.
    """
    content = open_source(image.source).read(image.key)
    boxes = [box for box in image.boxes if box.score >= min_score]
    drawn = draw_boxes(decode(content.data, allow_truncated=bool(image.warning)).pixels, boxes)
    try:
        path.write_bytes(encode_jpeg(drawn, quality=92))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give another file with --output") from error
