"""A picture with its boxes drawn into it, to keep."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import quote

import numpy as np
from fastapi import Query, Request
from fastapi.responses import Response
from PIL import Image
from pydantic import BaseModel, Field

from vistadex.catalog import FoundBox, IndexedImage
from vistadex.decoding import decode, encode_jpeg
from vistadex.drawing import draw_boxes
from vistadex.records import Pixels
from vistadex.web import problems
from vistadex.web.api import ImageId, TheCatalog
from vistadex.web.pictures import Pictures
from vistadex.web.saying import people

MOST_SIDE = 8192
"""A larger picture is drawn smaller, with its boxes."""
MOST_NAMED = 1000

DOCUMENTED: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {
            "description": "The picture with its boxes",
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("image/jpeg", "image/png")
            },
        },
        **problems.documented(400, 404, 415, 502),
    },
}


class DrawnAsked(BaseModel):
    """Which boxes are drawn, and as what."""

    min_score: Annotated[
        float, Field(ge=0, le=1, description="boxes with a lower score are left out")
    ] = 0.0
    classes: Annotated[
        list[str] | None,
        Field(max_length=MOST_NAMED, description="only boxes of these; without: of all"),
    ] = None
    models: Annotated[
        list[str] | None,
        Field(max_length=MOST_NAMED, description="only boxes of these models, or people"),
    ] = None
    format: Literal["jpeg", "png"] = "jpeg"


TheDrawn = Annotated[DrawnAsked, Query()]


async def drawn(request: Request, catalog: TheCatalog, id: ImageId, asked: TheDrawn) -> Response:
    """The picture with its boxes drawn into it, upright; those of people are dashed."""
    pictures: Pictures = request.app.state.pictures

    def make() -> tuple[bytes, str]:
        image, by = catalog.image(id), people(catalog)
        data = pictures.content(id).data
        with pictures.decoding:
            shown = decode(
                data, max_pixels=pictures.max_pixels, allow_truncated=bool(image.warning)
            )
            pixels = _bounded(shown.pixels)
            shown_boxes = draw_boxes(pixels, _boxes(image, pixels, asked), by)
            return _encoded(shown_boxes, asked.format), image.key

    data, key = await pictures.in_thread(make)
    name = PurePosixPath(key).stem + "-boxes." + ("png" if asked.format == "png" else "jpg")
    headers = {
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
    }
    return Response(data, 200, headers, f"image/{asked.format}")


def _bounded(pixels: Pixels) -> Pixels:
    rows, columns = pixels.shape[:2]
    if max(rows, columns) <= MOST_SIDE:
        return pixels
    picture = Image.fromarray(pixels)
    picture.thumbnail((MOST_SIDE, MOST_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _boxes(image: IndexedImage, pixels: Pixels, asked: DrawnAsked) -> Iterator[FoundBox]:
    """The boxes that are asked for, in pixels of what is drawn; none where no size is known."""
    if not (image.width and image.height):
        return
    across, down = pixels.shape[1] / image.width, pixels.shape[0] / image.height
    for box in image.boxes:
        if box.score < asked.min_score:
            continue
        if asked.classes is not None and box.class_name not in asked.classes:
            continue
        if asked.models is not None and box.model not in asked.models:
            continue
        x0, y0, x1, y1 = box.box_xyxy
        yield box._replace(box_xyxy=(x0 * across, y0 * down, x1 * across, y1 * down))


def _encoded(pixels: Pixels, kind: str) -> bytes:
    if kind == "jpeg":
        return encode_jpeg(pixels, quality=92)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
