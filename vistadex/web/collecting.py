"""Collections: the list of them, putting images in and taking them out, and their page."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel, Field, ValidationError, field_validator
from typing_extensions import TypedDict

from vistadex import jsonable
from vistadex.errors import UsageError
from vistadex.web import pages, problems, queries
from vistadex.web.api import MAX_ID, MAX_TEXT, TheCatalog

M = TypeVar("M", bound=BaseModel)
MAX_IDS = 100_000
"""In one request; a query puts in as many as it finds."""


class CollectionList(TypedDict):
    """Every collection, by name."""

    collections: list[jsonable.Collection]


class Collected(TypedDict):
    """A collection and how many images came in, or went out."""

    collection: jsonable.Collection
    changed: int


class Images(BaseModel):
    """Which images go into a collection: those of some ids, else those that a query finds."""

    name: Annotated[
        str, Field(min_length=1, max_length=255, description="made where there is none")
    ]
    ids: Annotated[
        list[Annotated[int, Field(ge=1, le=MAX_ID)]],
        Field(max_length=MAX_IDS, description="images by id; in a form with commas between"),
    ] = []
    q: Annotated[
        str | None,
        Field(max_length=MAX_TEXT, description="needed without ids: all that this finds"),
    ] = None
    remove: Annotated[bool, Field(description="takes them out")] = False

    @field_validator("ids", mode="before")
    @classmethod
    def _with_commas(cls, given: object) -> object:
        return [one for one in given.split(",") if one] if isinstance(given, str) else given


class Renamed(BaseModel):
    """The new name of a collection."""

    name: Annotated[str, Field(min_length=1, max_length=255, description="the new name")]


def _documented(sent: type[BaseModel], answer: type) -> dict[str, Any]:
    kind = {"schema": sent.model_json_schema()}
    listed = {"encoding": {"ids": {"style": "form", "explode": False}}} if sent is Images else {}
    types = {"application/json": kind, "application/x-www-form-urlencoded": kind | listed}
    return {
        "methods": ["POST"],
        "response_model": answer,
        "responses": problems.documented(400, 403, 404),
        "openapi_extra": {"requestBody": {"required": True, "content": types}},
    }


COLLECT, RENAME = _documented(Images, Collected), _documented(Renamed, jsonable.Collection)
"""Of the two routes that take JSON as well as forms."""
REMOVE: dict[str, Any] = {
    "methods": ["DELETE"],
    "response_model": jsonable.Collection,
    "responses": problems.documented(400, 403, 404),
}
REMOVE_BY_FORM = REMOVE | {"methods": ["POST"]}


async def _sent(request: Request) -> dict[str, Any]:
    """The fields of a form or of a JSON object.

    Raises: UsageError for anything else.
    """
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            found = json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise UsageError("the body is no JSON that can be read") from error
        if not isinstance(found, dict):
            raise UsageError("the body is no JSON object, expected one with a name")
        return found
    form = await request.form()
    return {name: ",".join(map(str, form.getlist(name))) for name in form}


async def _images(request: Request) -> Images:
    return _read(Images, await _sent(request))


async def _renamed(request: Request) -> Renamed:
    return _read(Renamed, await _sent(request))


def _read(model: type[M], sent: dict[str, Any]) -> M:
    try:
        return model.model_validate(sent)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


CollectionId = Annotated[int, Path(ge=1, le=2**31 - 1, description="the collection's id")]


def collections(catalog: TheCatalog) -> CollectionList:
    """Every collection with its number of images, by name."""
    return {"collections": [jsonable.collection(one) for one in catalog.collections()]}


def collect(
    request: Request, catalog: TheCatalog, images: Annotated[Images, Depends(_images)]
) -> Any:
    """Puts images into a collection, which is made where there is none, or takes them out.

    Browsers are led to its images.

    Raises: UsageError where no images are meant: a name alone is more often a mistake.
    """
    if not images.ids and images.q is None:
        raise UsageError(
            f"collection {images.name!r}: no images are named; give ids, or a query as q, which "
            "means all images where it is empty"
        )
    work = catalog.uncollect if images.remove else catalog.collect
    if images.ids:
        done = work(images.name, images.ids)
    else:
        done = work(images.name, query=images.q)
    found: Any = {"collection": jsonable.collection(done.collection), "changed": done.changed}
    return _led(request, queries.collection_href(done.collection.name), found)


def rename(
    request: Request,
    catalog: TheCatalog,
    id: CollectionId,
    new: Annotated[Renamed, Depends(_renamed)],
) -> Any:
    """Gives a collection another name."""
    found = jsonable.collection(catalog.rename_collection(id, new.name))
    return _led(request, "/collections", found)


def remove(request: Request, catalog: TheCatalog, id: CollectionId) -> Any:
    """Removes a collection, and says what it was; its images stay in the catalog."""
    return _led(request, "/collections", jsonable.collection(catalog.delete_collection(id)))


def _led(request: Request, href: str, answer: Any) -> Any:
    """The answer for programs; browsers are sent to a page."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(href, 303)
    return answer


def page(request: Request, catalog: TheCatalog) -> Response:
    """Every collection with a link to its images, renamed and deleted in place."""
    found = collections(catalog)["collections"]
    return pages.rendered(request, "collections.html", found=found)
