"""What templates draw: tiles of the grid, boxes over a picture, colors and numbers as text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from vistadex import jsonable
from vistadex.catalog import FoundBox, IndexedImage, SearchResult
from vistadex.drawing import hue
from vistadex.grammar import parse
from vistadex.records import NOMINAL_SIDE
from vistadex.web import queries
from vistadex.web.api import Asked
from vistadex.web.pictures import picture_tag

MAX_TILE_BOXES = 40
NARROWEST, WIDEST = 0.45, 3.2
"""Width to height of a tile; pictures beyond are cropped in the grid, never on their own page."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of the grid."""

    id: int
    href: str
    src: str
    width: int
    height: int
    ratio: float
    caption: str
    text: str
    """What a screen reader says in place of the picture."""
    paths: list[tuple[int, str]]
    """Hue and SVG path of each class's boxes."""


@dataclass(frozen=True, slots=True)
class ImageView:
    """What the image page needs beside the image itself."""

    original: str
    """Address of the picture."""
    shown: str
    """What is drawn: of a failed image its thumbnail, which is a placeholder where need be."""
    width: int
    height: int
    nominal: bool
    """Whether width and height are no pixels: boxes are known as fractions alone."""
    labels: list[tuple[jsonable.FoundBox, str, float, float]]
    """Boxes with their labels' places: side from which, and how far from there and from the top,
    in percent of the picture; none where the picture's size is not known."""
    text: str


def tiles(results: Iterable[SearchResult], asked: Asked) -> list[Tile]:
    """Results as tiles; the boxes are those of the classes asked for, or all."""
    terms = parse(asked.q).terms
    wanted = {term.class_name.casefold() for term in terms if term.relation is None}
    # A cursor has digits and dots alone: no sign that an address writes otherwise.
    before, after = queries.search_href(asked, after="*").removeprefix("/").split("after=%2A")
    return [
        tile(
            result.image,
            href=f"/image/{result.image.id}{before}after={result.cursor}{after}",
            caption=score(result.score) if result.matched else "",
            wanted=wanted,
        )
        for result in results
    ]


def tile(image: IndexedImage, *, href: str, caption: str, wanted: Collection[str] = ()) -> Tile:
    """An image as a tile.

    Args:
        wanted: classes whose boxes are drawn, in small letters; of none: all.
    """
    nominal = image.width == NOMINAL_SIDE
    width, height = (4, 3) if nominal else (image.width or 4, image.height or 3)
    uri = image.uri
    return Tile(
        id=image.id,
        href=href,
        src=picture_href("thumbnail", image.id, uri, image.version),
        width=width,
        height=height,
        ratio=round(min(WIDEST, max(NARROWEST, width / height)), 3),
        caption=caption,
        text=_said(((one.class_name, one.score) for one in image.classes[:5]), uri),
        paths=_paths(image.boxes, wanted) if image.width and not nominal else [],
    )


def _paths(boxes: Sequence[FoundBox], wanted: Collection[str]) -> list[tuple[int, str]]:
    drawn = [one for one in boxes if not wanted or one.class_name.casefold() in wanted]
    by_class: dict[str, list[str]] = {}
    for one in drawn[:MAX_TILE_BOXES]:
        x0, y0, x1, y1 = map(round, one.box_xyxy)
        by_class.setdefault(one.class_name, []).append(f"M{x0} {y0}H{x1}V{y1}H{x0}z")
    return [(hue(name), "".join(parts)) for name, parts in by_class.items()]


def _said(classes: Iterable[tuple[str, float]], uri: str) -> str:
    said = ", ".join(f"{name} {score(value)}" for name, value in classes)
    return said or uri.rpartition("/")[2]


def picture_href(kind: str, id: int, uri: str, version: str) -> str:
    """The address of an original or a thumbnail that may be kept until its version changes."""
    return f"/{kind}/{id}?v={picture_tag(uri, version)}"


def image_view(image: jsonable.Image) -> ImageView:
    """Where the image page draws what."""
    width, height = image["width"] or 4, image["height"] or 3
    original, thumbnail = (
        picture_href(kind, image["id"], image["uri"], image["version"])
        for kind in ("picture", "thumbnail")
    )
    return ImageView(
        original=original,
        shown=thumbnail if image["status"] == "failed" else original,
        width=width,
        height=height,
        nominal=width == NOMINAL_SIDE,
        labels=[
            (one, *_label_place(one["box"], width, height))
            for one in image["boxes"]
            if image["width"]
        ],
        text=_said(((one["class"], one["score"]) for one in image["classes"][:5]), image["uri"]),
    )


def _label_place(box: jsonable.Box, width: int, height: int) -> tuple[str, float, float]:
    """At the box's left corner, or at its right one where the label would leave the picture."""
    x0, y0, x1, _ = box
    top = round(100 * y0 / height, 2)
    if x0 > 0.7 * width:
        return "right", max(0.0, round(100 - 100 * x1 / width, 2)), top
    return "left", round(100 * x0 / width, 2), top


def shares(numbers: Sequence[int]) -> list[float]:
    """Each of some numbers as its share of the largest."""
    most = max(numbers, default=0) or 1
    return [round(one / most, 4) for one in numbers]


def number(value: int) -> str:
    """1234567 as 1,234,567."""
    return f"{value:,}"


def size(size_bytes: float) -> str:
    """Bytes in the unit that leaves up to three digits."""
    units = ["bytes", "kB", "MB", "GB"]
    while size_bytes >= 999.5 and len(units) > 1:
        size_bytes /= 1000
        units.pop(0)
    return f"{size_bytes:.3g} {units[0]}"


def score(value: float) -> str:
    """Two decimals; a sum of scores may be above 1."""
    return f"{value:.2f}"


def minute(iso_time: str) -> str:
    """A UTC time to the minute."""
    return datetime.fromisoformat(iso_time).strftime("%Y-%m-%d %H:%M UTC")


def routes(openapi: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every route with its parameters, and an address to try where it can be read without any."""
    found = []
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            parameters = operation.get("parameters", [])
            needs = any(one.get("required") for one in parameters)
            found.append(
                {
                    "method": method.upper(),
                    "path": path,
                    "about": operation.get("description", ""),
                    "parameters": parameters,
                    "href": quote(path) if method == "get" and not needs else None,
                }
            )
    return found
