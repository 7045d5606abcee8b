"""Images like another, like a part of it, or like a picture that a visitor sends."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import Depends, Query, Request
from pydantic import BaseModel, Field

from vistadex import jsonable, settings
from vistadex.catalog import Catalog, IndexedImage, SimilarPage
from vistadex.errors import NotFoundError
from vistadex.finding_similar import embedded, read_box
from vistadex.web import uploads, views
from vistadex.web.api import MAX_LIMIT, MAX_TEXT, USUAL_LIMIT, ImageId, TheCatalog
from vistadex.web.uploads import Form, UploadLimits

LIMITS = UploadLimits(max_files=1, max_bytes=33 << 20)
MOST_PARTS = 12
"""Boxes of an image that its page offers to look for."""


class SimilarAsked(BaseModel):
    """What is to be found: the state that the page's URL carries."""

    q: Annotated[
        str, Field(max_length=MAX_TEXT, description="only images that this query finds")
    ] = ""
    box: Annotated[
        str,
        Field(
            max_length=100,
            description="compare only this part: x0,y0,x1,y1 in pixels of the upright picture",
        ),
    ] = ""
    model: Annotated[
        str,
        Field(max_length=255, description="whose vectors to compare: name or SHA-256 prefix"),
    ] = ""
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="how many at most")] = USUAL_LIMIT


TheSimilar = Annotated[SimilarAsked, Query()]
TheUpload = Annotated[Form, Depends(uploads.uploaded(LIMITS))]
DOCUMENTED = uploads.documented(
    "file",
    **{
        name: {key: value for key, value in field.items() if key != "title"}
        for name, field in SimilarAsked.model_json_schema()["properties"].items()
    },
)


@dataclass(frozen=True, slots=True)
class Part:
    """A box of an image, and the page of what is like it."""

    label: str
    href: str


def similar(
    request: Request, catalog: TheCatalog, id: ImageId, asked: TheSimilar
) -> jsonable.SimilarPage:
    """Images most like one of the catalog, or like a part of it, most similar first."""
    return jsonable.similar_page(similar_to(request, catalog, id, asked))


def similar_to(request: Request, catalog: Catalog, id: int, asked: SimilarAsked) -> SimilarPage:
    """What similar() says, not as JSON yet."""
    model = asked.model or None
    if not asked.box:
        return catalog.similar(id, query=asked.q, limit=asked.limit, model=model)
    embedder = catalog.embedders(model)[0]
    box = read_box(asked.box)
    data = request.app.state.pictures.content(id).data
    broken = bool(catalog.image(id).warning)
    with uploads.DECODING:
        vector = embedded(embedder, data, box=box, place=f"image {id}", allow_truncated=broken)
    return catalog.similar(
        vector, query=asked.q, limit=asked.limit, model=embedder.sha256, without=id
    )


def similar_to_upload(catalog: TheCatalog, sent: TheUpload) -> jsonable.SimilarPage:
    """Images most like a picture that is sent along; nothing of it is kept."""
    return jsonable.similar_page(similar_to_file(catalog, sent))


def similar_to_file(catalog: Catalog, sent: Form) -> SimilarPage:
    """What similar_to_upload() says, not as JSON yet."""
    asked = uploads.read_fields(sent, SimilarAsked)
    embedder = catalog.embedders(asked.model or None)[0]
    file = sent.files[0]
    with uploads.DECODING:
        vector = embedded(
            embedder,
            file.data,
            box=read_box(asked.box) if asked.box else None,
            place=file.name,
            max_pixels=min(LIMITS.max_pixels, settings.value("max_pixels", None, int)),
        )
    return catalog.similar(vector, query=asked.q, limit=asked.limit, model=embedder.sha256)


def why_nothing(catalog: Catalog) -> str:
    """What to run where no image has been embedded yet; empty where some have."""
    try:
        catalog.embedders()
    except NotFoundError as error:
        return str(error)
    return ""


def tiles(page: SimilarPage) -> list[views.Tile]:
    """The results as tiles of the grid, with their similarity."""
    return [_tile(one.image, one.similarity) for one in page.results]


def _tile(image: IndexedImage, similarity: float) -> views.Tile:
    tile = views.tile(image, href=f"/image/{image.id}", caption=views.score(similarity))
    return dataclasses.replace(tile, text=f"{tile.text}, similarity {similarity:.2f}")


def parts(image: jsonable.Image) -> list[Part]:
    """The boxes of an image, largest first, each with the page of what is like it."""
    boxes = [one for one in image["boxes"] if image["status"] == "ok"]
    boxes.sort(key=lambda one: -(one["box"][2] - one["box"][0]) * (one["box"][3] - one["box"][1]))
    return [
        Part(
            one["class"],
            f"/similar/{image['id']}?box=" + ",".join(f"{max(0, side):g}" for side in one["box"]),
        )
        for one in boxes[:MOST_PARTS]
    ]


def name_of(image: jsonable.Image) -> str:
    """What a heading calls an image."""
    return PurePosixPath(image["key"]).name or image["key"]
