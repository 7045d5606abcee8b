"""The classes of the catalog: filtered and sorted, and what there is to say of a single one."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from vistadex import jsonable
from vistadex.catalog import Catalog, ClassCount, SearchResult, vocabulary
from vistadex.errors import NotFoundError
from vistadex.web import queries
from vistadex.web.api import MAX_LIMIT, TheCatalog

EXAMPLES = 4
LOOKED_AT = 200
"""So many images are looked at for some that can be shown."""


class ClassesAsked(BaseModel):
    """Which classes are listed, in which order: the state that the page's URL carries."""

    contains: Annotated[
        str, Field(max_length=255, description="only classes with these letters in the name")
    ] = ""
    prefix: Annotated[
        str, Field(max_length=255, description="only classes with a word that begins so")
    ] = ""
    sort: Annotated[
        Literal["images", "boxes", "name"],
        Field(description="most images, most boxes, or by name"),
    ] = "images"
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="how many on a page")] = 100
    offset: Annotated[int, Field(ge=0, le=10**9, description="how many to pass over")] = 0


TheClasses = Annotated[ClassesAsked, Query()]
TheName = Annotated[str, Query(min_length=1, max_length=255, description="the class's whole name")]


class Example(TypedDict):
    """An image that has a class."""

    id: int
    uri: str
    version: str
    width: int
    height: int
    score: float


AboutClass = TypedDict(
    "AboutClass",
    {
        "class": str,
        "images": int,
        "boxes": int,
        "description": str | None,
        "external_id": str | None,
        "parents": list[str],
        "children": list[str],
        "examples": list[Example],
    },
)
AboutClass.__doc__ = "A class with its place in the hierarchy, and the images that have it surest."


def classes(catalog: TheCatalog, asked: TheClasses) -> jsonable.ClassList:
    """Classes of the collection; with a prefix, whole names that begin so before others."""
    found = _chosen(catalog.classes(), asked)
    if asked.sort == "boxes":
        found.sort(key=attrgetter("boxes"), reverse=True)
    elif asked.sort == "name":
        found.sort(key=lambda one: (one.class_name.casefold(), one.class_name))
    elif prefix := asked.prefix.strip().casefold():
        found.sort(key=lambda one: not one.class_name.casefold().startswith(prefix))
    return jsonable.class_list(found[asked.offset : asked.offset + asked.limit], len(found))


def _chosen(every: list[ClassCount], asked: ClassesAsked) -> list[ClassCount]:
    inside = asked.contains.strip().casefold()
    word = asked.prefix.strip().casefold()
    if inside:
        every = [one for one in every if inside in one.class_name.casefold()]
    if word:
        every = [one for one in every if f" {word}" in f" {one.class_name.casefold()}"]
    return every


def about(catalog: TheCatalog, name: TheName) -> AboutClass:
    """One class: what is said of it, its counts, and a few images that have it surest."""
    with catalog.reading() as connection:
        known = vocabulary.described(connection, name)
    if known is None:
        raise NotFoundError(f"{name}: no class of the catalog; /classes lists all")
    counted = (one for one in catalog.classes() if one.class_name == name)
    count = next(counted, ClassCount(name, 0, 0))
    return {
        "class": name,
        "images": count.images,
        "boxes": count.boxes,
        "description": known.description,
        "external_id": known.external_id,
        "parents": list(known.parents),
        "children": list(known.children),
        "examples": _examples(catalog, name) if count.images else [],
    }


def _examples(catalog: Catalog, name: str) -> list[Example]:
    if not queries.can_name(name):
        return []
    query = queries.class_text(name)
    best = list(catalog.search(query, limit=EXAMPLES).results)
    if not all(map(_can_be_shown, best)):
        best = list(catalog.search(query, limit=LOOKED_AT).results)
        best.sort(key=_can_be_shown, reverse=True)
    return [
        {
            "id": one.image.id,
            "uri": one.image.uri,
            "version": one.image.version,
            "width": one.image.width,
            "height": one.image.height,
            "score": round(one.score, 6),
        }
        for one in best[:EXAMPLES]
    ]


def _can_be_shown(one: SearchResult) -> bool:
    return one.image.status == "ok" or one.image.image_url is not None
