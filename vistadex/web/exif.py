"""What a camera wrote into a picture's file: read when asked for, from the original bytes."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Query, Request
from PIL import Image
from typing_extensions import TypedDict

from vistadex.decoding import format_of
from vistadex.decoding.by_pillow import PILLOW_ERRORS, format_class
from vistadex.web.api import ImageId
from vistadex.web.pictures import Pictures

MOST_BYTES = 1 << 20
"""A larger block is no camera's."""
MOST_LETTERS = 200
EXIF_IFD, GPS_IFD = 0x8769, 0x8825

WithPosition = Annotated[
    bool, Query(description="whether to say where it was taken, where the file knows")
]


class Position(TypedDict):
    """Where on Earth, in degrees; south and west are below 0."""

    latitude: float
    longitude: float


class Exif(TypedDict):
    """What a file says of how it was taken.

    Without being asked for, a position is only said to be there: `has_position`.
    """

    fields: dict[str, str]
    has_position: bool
    position: Position | None


async def exif(request: Request, id: ImageId, position: WithPosition = False) -> Exif:
    """What the camera wrote into an image's file."""
    pictures: Pictures = request.app.state.pictures
    found = await pictures.in_thread(lambda: read_exif(pictures.content(id).data))
    return found if position else {**found, "position": None}


def read_exif(data: bytes) -> Exif:
    """The fields that a person may want to know, as text; none where the file has none.

    Odd values are left out: a damaged block is no reason to show nothing at all.
    """
    try:
        block = _block(data)
        main, shot, place = dict(block), block.get_ifd(EXIF_IFD), block.get_ifd(GPS_IFD)
    except (*PILLOW_ERRORS, Image.DecompressionBombError):
        return {"fields": {}, "has_position": False, "position": None}
    position = _position(place)
    fields = {name: text for name, text in _fields(main, shot).items() if text}
    return {"fields": fields, "has_position": position is not None, "position": position}


def _block(data: bytes) -> Image.Exif:
    """The block as its format keeps it; no pixel is decoded."""
    kind = format_of(data)
    block = Image.Exif()
    if kind is None or kind in ("GIF", "BMP", "PPM"):
        return block
    picture = format_class(kind)(io.BytesIO(data))
    if kind == "TIFF":
        return picture.getexif()
    raw = picture.info.get("exif")
    if isinstance(raw, bytes) and len(raw) <= MOST_BYTES:
        block.load(raw)
    return block


def _fields(main: Mapping[int, Any], shot: Mapping[int, Any]) -> dict[str, str]:
    return {
        "Camera": _camera(_text(main.get(0x010F)), _text(main.get(0x0110))),
        "Lens": _text(shot.get(0xA434)),
        "Taken": _time(shot.get(0x9003) or main.get(0x0132), shot.get(0x9011)),
        "Exposure": _seconds(_number(shot.get(0x829A))),
        "Aperture": _said("f/{:.3g}", _number(shot.get(0x829D))),
        "ISO": _said("{:.0f}", _number(shot.get(0x8827))),
        "Focal length": _focal(_number(shot.get(0x920A)), _number(shot.get(0xA405))),
        "Compensation": _said("{:+.2g} EV", _number(shot.get(0x9204), least=-100.0)),
        "Flash": _flash(shot.get(0x9209)),
        "Description": _text(main.get(0x010E)),
        "By": _text(main.get(0x013B)),
        "Copyright": _text(main.get(0x8298)),
        "Software": _text(main.get(0x0131)),
    }


def _text(value: Any) -> str:
    """Text on one line, at most MOST_LETTERS long; empty for what is no text."""
    if isinstance(value, str):  # Pillow takes every byte for a letter of Latin-1.
        value = value.encode("latin-1", "replace")
    if not isinstance(value, bytes):
        return ""
    try:
        text = value[: 8 * MOST_LETTERS].decode("utf-8")
    except UnicodeDecodeError:
        text = value[: 8 * MOST_LETTERS].decode("latin-1")
    text = text.split("\0")[0]
    text = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return text if len(text) <= MOST_LETTERS else text[:MOST_LETTERS] + "…"


def _number(value: Any, least: float = 0.0) -> float | None:
    """A finite number of at least `least`, the first of several; None for anything else."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    try:
        number = float(value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if math.isfinite(number) and least <= number < 1e9 else None


def _said(form: str, number: float | None) -> str:
    return form.format(number) if number else ""


def _camera(make: str, model: str) -> str:
    """The maker is left out where the model begins with it."""
    brand = make.split(" ")[0].casefold()
    return model if brand and model.casefold().startswith(brand) else f"{make} {model}".strip()


def _time(value: Any, offset: Any) -> str:
    found = re.match(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)", _text(value))
    if not found or found[1] == "0000":
        return ""
    zone = re.fullmatch(r"[+-]\d\d:\d\d", _text(offset))
    day = f"{found[1]}-{found[2]}-{found[3]} {found[4]}"
    return f"{day} {zone[0]}" if zone else day


def _seconds(value: float | None) -> str:
    if not value:
        return ""
    return f"1/{1 / value:.0f} s" if value < 0.3 else f"{value:.3g} s"


def _focal(length: float | None, as_35_mm: float | None) -> str:
    if not length:
        return ""
    known = f"{length:.3g} mm"
    return f"{known} ({as_35_mm:.0f} mm on 35 mm film)" if as_35_mm else known


def _flash(value: Any) -> str:
    if not isinstance(value, int):
        return ""
    return "fired" if value & 1 else "did not fire"


def _position(place: Mapping[int, Any]) -> Position | None:
    latitude = _degrees(place.get(2), _text(place.get(1)), "NS", 90)
    longitude = _degrees(place.get(4), _text(place.get(3)), "EW", 180)
    if latitude is None or longitude is None:
        return None
    return {"latitude": latitude, "longitude": longitude}


def _degrees(value: Any, side: str, sides: str, most: float) -> float | None:
    """Degrees, minutes and seconds as one number."""
    if not isinstance(value, tuple) or len(value) != 3 or side not in tuple(sides):
        return None
    parts = [_number(one) for one in value]
    if None in parts:
        return None
    total = sum(part / by for part, by in zip(parts, (1, 60, 3600), strict=True) if part)
    if total > most:
        return None
    return round(-total if side == sides[1] else total, 6)
