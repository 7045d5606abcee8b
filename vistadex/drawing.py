"""Boxes drawn into pictures: one color per class, the same everywhere."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vistadex.catalog import FoundBox, IndexedImage
from vistadex.decoding import decode, encode_jpeg
from vistadex.errors import UsageError
from vistadex.records import Pixels
from vistadex.sources import open_source

PEOPLE = frozenset({"human"})
"""Whose boxes are drawn dashed and without a score."""
Color = tuple[int, int, int]
Corners = tuple[float, float, float, float]
_DARK = (0, 0, 0)
GAP = 8
"""White pixels between pictures."""


def hue(class_name: str) -> int:
    """A class's hue in degrees, the same in every picture and page."""
    return zlib.crc32(class_name.encode()) * 137 % 360


def draw_boxes(
    pixels: Pixels, boxes: Iterable[FoundBox], people: Collection[str] = PEOPLE
) -> Pixels:
    """A copy of an RGB picture at full size with boxes, class names and scores.

    Args:
        boxes: the surest is drawn last, above the others.
        people: names of those that are no models: their boxes are dashed.
    """
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    unit = max(2, round(max(picture.size) / 400))
    font = ImageFont.load_default(size=max(10, 6 * unit))
    ordered = sorted(boxes, key=lambda one: one.score)
    for box in ordered:
        x0, y0, x1, y1 = box.box_xyxy
        corners = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        dash = 6 * unit if box.model in people else 0
        _outline(draw, corners, _color(box.class_name, 0.62), unit, dash)
    taken: list[Corners] = []
    for box in reversed(ordered):
        text = box.class_name if box.model in people else f"{box.class_name} {box.score:.2f}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        size_wh = right - left + 2 * unit, bottom - top + 2 * unit
        place = _label_place(box.box_xyxy, size_wh, picture.size, taken)
        taken.append(place)
        draw.rectangle(place, fill=_color(box.class_name, 0.72))
        draw.text((place[0] + unit - left, place[1] + unit - top), text, fill=_DARK, font=font)
    return np.asarray(picture)


def _color(class_name: str, lightness: float) -> Color:
    red, green, blue = colorsys.hls_to_rgb(hue(class_name) / 360, lightness, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def _outline(
    draw: ImageDraw.ImageDraw, corners: Corners, color: Color, unit: int, dash: int
) -> None:
    """A rectangle with a thin dark rim, so that it is seen on any ground.

    Args:
        dash: pixels of a dash and of the gap behind it; 0 for a whole line.
    """
    rim = max(1, unit // 3)
    x0, y0, x1, y1 = map(round, corners)
    draw.rectangle((x0 - rim, y0 - rim, x1 + rim, y1 + rim), outline=_DARK, width=rim)
    if not dash:
        draw.rectangle((x0, y0, x1, y1), outline=color, width=unit)
        return
    for start in range(x0, x1 + 1, 2 * dash):
        end = min(start + dash, x1)
        draw.rectangle((start, y0, end, y0 + unit - 1), fill=color)
        draw.rectangle((start, max(y0, y1 - unit + 1), end, y1), fill=color)
    for start in range(y0, y1 + 1, 2 * dash):
        end = min(start + dash, y1)
        draw.rectangle((x0, start, x0 + unit - 1, end), fill=color)
        draw.rectangle((max(x0, x1 - unit + 1), start, x1, end), fill=color)


def _label_place(
    box: Corners, size_wh: tuple[float, float], picture_wh: tuple[int, int], taken: list[Corners]
) -> Corners:
    """Where a label lies: above its box, else inside at the top, below, or inside at the bottom.

    The first of these places that is inside the picture and free; else the first inside.
    """
    x0, y0, _, y1 = box
    width, height = size_wh
    left = max(0.0, min(x0, picture_wh[0] - width))
    tops = [top for top in (y0 - height, y0, y1, y1 - height) if 0 <= top <= picture_wh[1] - height]
    places = [(left, top, left + width, top + height) for top in tops]
    free = (place for place in places if not any(_touch(place, one) for one in taken))
    return next(free, places[0] if places else (left, 0.0, left + width, height))


def _touch(one: Corners, other: Corners) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def beside(pictures: Sequence[Pixels]) -> Pixels:
    """Pictures in one row, white between them; the smaller ones end above white."""
    height = max(one.shape[0] for one in pictures)
    width = sum(one.shape[1] for one in pictures) + GAP * (len(pictures) - 1)
    row = np.full((height, width, 3), 255, np.uint8)
    left = 0
    for one in pictures:
        row[: one.shape[0], left : left + one.shape[1]] = one
        left += one.shape[1] + GAP
    return row


def below(rows: Sequence[Pixels]) -> Pixels:
    """Pictures in one column, as beside() puts them in a row."""
    turned: Pixels = beside([np.swapaxes(one, 0, 1) for one in rows]).swapaxes(0, 1)
    return turned


def fitted(pixels: Pixels, long_side: int) -> Pixels:
    """The picture at a size with no longer side."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def save(pixels: Pixels, path: Path) -> None:
    """Writes a picture in the format that the file's ending names.

    Raises: UsageError where it can't be written.
    """
    try:
        Image.fromarray(pixels).save(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{path}: {why}, expected to write a .png or .jpg; name another"
        ) from error


def save_with_boxes(
    image: IndexedImage, path: Path, *, min_score: float = 0.0, apart: bool = False
) -> None:
    """Writes a JPEG of an indexed image, at full size, with its boxes.

    Args:
        apart: draw the picture twice, side by side: with people's boxes, and with those of models.
    Raises: SourceError or DecodingError where the picture can't be had; UsageError where the file
        can't be written.
    """
    content = open_source(image.source).read(image.key)
    boxes = [box for box in image.boxes if box.score >= min_score]
    pixels = decode(content.data, allow_truncated=bool(image.warning)).pixels
    if apart:
        theirs = [box for box in boxes if box.model in PEOPLE]
        found = [box for box in boxes if box.model not in PEOPLE]
        drawn = beside([draw_boxes(pixels, theirs), draw_boxes(pixels, found)])
    else:
        drawn = draw_boxes(pixels, boxes)
    try:
        path.write_bytes(encode_jpeg(drawn, quality=92))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give another file with --output") from error
