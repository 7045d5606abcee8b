"""What the catalog knows as plain JSON: one shape for `--json`, the HTTP API and the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NotRequired

from typing_extensions import TypedDict

from vistadex import catalog

Box = tuple[float, float, float, float]

FoundClass = TypedDict("FoundClass", {"class": str, "score": float, "boxes": int})
FoundClass.__doc__ = "A class of one image: its best score and how many boxes."

FoundBox = TypedDict(
    "FoundBox",
    {
        "class": str,
        "score": float,
        "box": Box,
        "model": str,
        "flags": NotRequired[Mapping[str, bool]],
        "attributes": NotRequired[Mapping[str, Any]],
    },
)
FoundBox.__doc__ = "A box: [x0, y0, x1, y1] in pixels of the upright picture; what else is known."


class FoundRelation(TypedDict):
    """A relation in one image; boxes in pixels of the upright picture, null where not known."""

    subject: str
    predicate: str
    object: str
    score: float
    subject_box: Box | None
    object_box: Box | None
    model: str


class RelationCount(TypedDict):
    """A relation type with how many images and triplets have it."""

    subject: str
    predicate: str
    object: str
    images: int
    relations: int


class PredicateCount(TypedDict):
    """A predicate with how many images and triplets have it."""

    predicate: str
    images: int
    relations: int


ImagesOfClass = TypedDict("ImagesOfClass", {"class": str, "images": int})
ImagesOfClass.__doc__ = "How many images of a result have the class."


class ImagesOfPredicate(TypedDict):
    """How many images of a result have a relation with the predicate."""

    predicate: str
    images: int


class ImagesOfSource(TypedDict):
    """How many images of a result are of the source."""

    source: str
    images: int


class ImagesOfStatus(TypedDict):
    """How many images of a result are ok, failed, vanished or unseen."""

    status: str
    images: int


class ImagesOfOrigin(TypedDict):
    """How many images a query finds when only this model's word counts, or these people's."""

    model: str
    by_people: bool
    images: int


class Facets(TypedDict):
    """What is in the images that a query finds; `scores` and `box_sizes` have 20 bins of 0.05.

    Scores count images by their mean best score, sizes boxes by the square root of their share.
    """

    images: int
    classes: list[ImagesOfClass]
    predicates: list[ImagesOfPredicate]
    scores: list[int]
    box_sizes: list[int]
    sources: list[ImagesOfSource]
    statuses: list[ImagesOfStatus]
    origins: list[ImagesOfOrigin]


ClassCount = TypedDict("ClassCount", {"class": str, "images": int, "boxes": int})
ClassCount.__doc__ = "A class with how many images and boxes have it."


class SearchResult(TypedDict):
    """One image of a search; given as `after`, its cursor goes on behind it."""

    id: int
    uri: str
    version: str
    width: int
    height: int
    score: float
    matched: int
    status: str
    classes: list[FoundClass]
    boxes: list[FoundBox]
    relations: list[FoundRelation]
    image_url: str | None
    cursor: str


class SearchPage(TypedDict):
    """One page of a search. `total` is null behind the first page, `next` at the end."""

    query: str
    total: int | None
    results: list[SearchResult]
    next: str | None


class Image(TypedDict):
    """An image and everything that models found in it."""

    id: int
    uri: str
    source: str
    key: str
    version: str
    width: int
    height: int
    size_bytes: int
    status: str
    reason: str | None
    error: str | None
    warning: str | None
    attributes: Mapping[str, Any]
    indexed_at: str
    models: list[str]
    classes: list[FoundClass]
    boxes: list[FoundBox]
    relations: list[FoundRelation]
    absent: list[str]
    image_url: str | None
    collections: NotRequired[list[str]]


class Collection(TypedDict):
    """Images that people have put together; `made_at` in UTC, ISO 8601."""

    id: int
    name: str
    images: int
    made_at: str


class ClassList(TypedDict):
    """Classes, most images first; `total` counts all that match."""

    total: int
    classes: list[ClassCount]


class BadImage(TypedDict):
    """An image without results, and why."""

    id: int
    uri: str
    reason: str
    message: str
    size_bytes: int


class ErrorList(TypedDict):
    """A page of bad images; `next` is null at the end. `failures` counts all, by reason."""

    failures: dict[str, int]
    images: list[BadImage]
    next: int | None


class SourceStats(TypedDict):
    """One source of a catalog."""

    uri: str
    images: int
    failed: int
    vanished: int


class ModelStats(TypedDict):
    """One model with one set of parameters, and how many images it has seen."""

    name: str
    sha256: str
    task: str
    parameters: dict[str, Any]
    images: int


class Stats(TypedDict):
    """What is in a catalog."""

    images: int
    failed: int
    vanished: int
    boxes: int
    classes: int
    sources: list[SourceStats]
    models: list[ModelStats]
    failures: dict[str, int]


class SimilarImage(TypedDict):
    """An image that is like another; `similarity` is the cosine of their vectors."""

    similarity: float
    image: Image


class SimilarPage(TypedDict):
    """Images most like another. `by_content` is false where colors and layout were compared."""

    query: str
    model: str
    by_content: bool
    images: int
    results: list[SimilarImage]


def search_result(result: catalog.SearchResult) -> SearchResult:
    """One image of a search."""
    found = result.image
    return {
        "id": found.id,
        "uri": found.uri,
        "version": found.version,
        "width": found.width,
        "height": found.height,
        "score": round(result.score, 6),
        "matched": result.matched,
        "status": found.status,
        "classes": _classes(found.classes),
        "boxes": _boxes(found.boxes),
        "relations": _relations(found.relations),
        "image_url": found.image_url,
        "cursor": result.cursor,
    }


def search_page(page: catalog.SearchPage, total: int | None) -> SearchPage:
    """One page of a search; total where it was counted."""
    return {
        "query": page.query,
        "total": total,
        "results": [search_result(result) for result in page.results],
        "next": page.next,
    }


def image(found: catalog.IndexedImage) -> Image:
    """An image and everything that models found in it; the time in UTC, ISO 8601."""
    return {
        "id": found.id,
        "uri": found.uri,
        "source": found.source,
        "key": found.key,
        "version": found.version,
        "width": found.width,
        "height": found.height,
        "size_bytes": found.size_bytes,
        "status": found.status,
        "reason": found.reason,
        "error": found.error,
        "warning": found.warning,
        "attributes": dict(found.attributes),
        "indexed_at": datetime.fromtimestamp(found.indexed_at, UTC).isoformat(),
        "models": list(found.models),
        "classes": _classes(found.classes),
        "boxes": _boxes(found.boxes),
        "relations": _relations(found.relations),
        "absent": list(found.absent),
        "image_url": found.image_url,
    }


def collection(found: catalog.ImageCollection) -> Collection:
    """A collection with its number of images."""
    return {
        "id": found.id,
        "name": found.name,
        "images": found.images,
        "made_at": datetime.fromtimestamp(found.made_at, UTC).isoformat(),
    }


def similar_page(page: catalog.SimilarPage) -> SimilarPage:
    """The images most like another, with how many were compared."""
    return {
        "query": page.query,
        "model": page.model,
        "by_content": page.by_content,
        "images": page.images,
        "results": [
            {"similarity": round(one.similarity, 6), "image": image(one.image)}
            for one in page.results
        ],
    }


def relation_count(one: catalog.RelationCount) -> RelationCount:
    """A relation type with its counts."""
    return {
        "subject": one.subject,
        "predicate": one.predicate,
        "object": one.object,
        "images": one.images,
        "relations": one.relations,
    }


def predicate_count(one: catalog.PredicateCount) -> PredicateCount:
    """A predicate with its counts."""
    return {"predicate": one.predicate, "images": one.images, "relations": one.relations}


def facets(found: catalog.QueryFacets, most: int | None = None) -> Facets:
    """What is in the images of a result; only so many classes and predicates, None: all."""
    return {
        "images": found.images,
        "classes": [{"class": name, "images": number} for name, number in found.classes[:most]],
        "predicates": [
            {"predicate": name, "images": number} for name, number in found.predicates[:most]
        ],
        "scores": list(found.scores),
        "box_sizes": list(found.box_sizes),
        "sources": [{"source": uri, "images": number} for uri, number in found.sources],
        "statuses": [{"status": status, "images": number} for status, number in found.statuses],
        "origins": [
            {"model": one.name, "by_people": one.by_people, "images": one.images}
            for one in found.origins
        ],
    }


def class_count(one: catalog.ClassCount) -> ClassCount:
    """A class with its counts."""
    return {"class": one.class_name, "images": one.images, "boxes": one.boxes}


def class_list(classes: Sequence[catalog.ClassCount], total: int) -> ClassList:
    """Classes with their counts; total is how many there are beside these."""
    return {"total": total, "classes": [class_count(one) for one in classes]}


def bad_image(bad: catalog.BadImage) -> BadImage:
    """An image without results, and why."""
    return {
        "id": bad.id,
        "uri": bad.uri,
        "reason": bad.reason,
        "message": bad.message,
        "size_bytes": bad.size_bytes,
    }


def error_list(
    images: Sequence[catalog.BadImage], failures: Mapping[str, int], following: int | None
) -> ErrorList:
    """A page of bad images; following is the id to go on behind."""
    rows = [bad_image(one) for one in images]
    return {"failures": dict(failures), "images": rows, "next": following}


def stats(known: catalog.Stats) -> Stats:
    """Totals of a catalog, its sources and its models."""
    sources: list[SourceStats] = [
        {"uri": one.uri, "images": one.images, "failed": one.failed, "vanished": one.vanished}
        for one in known.sources
    ]
    models: list[ModelStats] = [
        {
            "name": one.name,
            "sha256": one.sha256,
            "task": one.task,
            "parameters": one.parameters,
            "images": one.images,
        }
        for one in known.models
    ]
    return {
        "images": known.images,
        "failed": known.failed,
        "vanished": known.vanished,
        "boxes": known.boxes,
        "classes": known.classes,
        "sources": sources,
        "models": models,
        "failures": dict(known.failures),
    }


def _classes(found: Sequence[catalog.FoundClass]) -> list[FoundClass]:
    return [{"class": one.class_name, "score": one.score, "boxes": one.boxes} for one in found]


def _relations(found: Sequence[catalog.FoundRelation]) -> list[FoundRelation]:
    return [
        {
            "subject": one.subject,
            "predicate": one.predicate,
            "object": one.object,
            "score": one.score,
            "subject_box": None if one.subject_xyxy is None else _rounded(one.subject_xyxy),
            "object_box": None if one.object_xyxy is None else _rounded(one.object_xyxy),
            "model": one.model,
        }
        for one in found
    ]


def _boxes(found: Sequence[catalog.FoundBox]) -> list[FoundBox]:
    return [_box(one) for one in found]


def _box(found: catalog.FoundBox) -> FoundBox:
    box: FoundBox = {
        "class": found.class_name,
        "score": found.score,
        "box": _rounded(found.box_xyxy),
        "model": found.model,
    }
    if found.flags:
        box["flags"] = dict(found.flags)
    if found.attributes:
        box["attributes"] = found.attributes
    return box


def _rounded(box: Box) -> Box:
    """Hundredths of a pixel: a float32 written as a decimal would feign thirteen digits more."""
    x0, y0, x1, y1 = box
    return (round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2))
