"""Who says what of an image: which model or whose annotations, of each class and relation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from typing_extensions import TypedDict

from vistadex import jsonable
from vistadex.catalog import Catalog, reading, registering
from vistadex.web import queries, views
from vistadex.web.api import ImageId, TheCatalog

SENTENCES_AT_FIRST = 12

Saying = TypedDict(
    "Saying", {"class": str, "model": str, "by_people": bool, "score": float, "boxes": int}
)
Saying.__doc__ = "A class of an image as one model, or some people, say it."


class Sayings(TypedDict):
    """What each model, and people, say of an image as a whole: by class, the surest first."""

    classes: list[Saying]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A relation in words."""

    text: str
    href: str | None
    score: str
    model: str
    by_people: bool
    path: str
    """Both boxes as one SVG path; empty where none is known."""


def origins(catalog: TheCatalog, id: ImageId) -> Sayings:
    """Which model, or whose annotations, say of an image which class, and how surely."""
    seen = set(catalog.image(id).analyzer_ids)
    found: dict[tuple[str, str], Saying] = {}
    with catalog.reading() as connection:
        for one in registering.all_analyzers(connection):
            if one.id not in seen:
                continue
            said = reading.classes_of(connection, [id], one.id).get(id, [])
            by_people = one.sha256.startswith(reading.ANNOTATIONS)
            for name, score, boxes in said:
                known = found.get((name, one.name))
                if (score or boxes) and (known is None or known["score"] < score):
                    found[name, one.name] = {
                        "class": name,
                        "model": one.name,
                        "by_people": by_people,
                        "score": score,
                        "boxes": boxes,
                    }
    return {"classes": sorted(found.values(), key=lambda one: (-one["score"], one["class"]))}


def people(catalog: Catalog) -> frozenset[str]:
    """The names under which annotations came into the catalog."""
    with catalog.reading() as connection:
        every = registering.all_analyzers(connection)
    return frozenset(one.name for one in every if one.sha256.startswith(reading.ANNOTATIONS))


def by_class(said: Sayings) -> dict[str, list[Saying]]:
    """What is said of each class."""
    found: dict[str, list[Saying]] = {}
    for one in said["classes"]:
        found.setdefault(one["class"], []).append(one)
    return found


def sentences(image: jsonable.Image, by: Collection[str]) -> list[Sentence]:
    """The relations of an image in words; `by` names the people."""
    return [
        Sentence(
            f"{one['subject']} · {one['predicate']} · {one['object']}",
            queries.relation_href(one["subject"], one["predicate"], one["object"]),
            views.score(one["score"]),
            one["model"],
            one["model"] in by,
            outlines([one["subject_box"], one["object_box"]]),
        )
        for one in image["relations"]
    ]


def outlines(boxes: Sequence[jsonable.Box | None]) -> str:
    """Boxes as one SVG path, in pixels of the upright picture."""
    known = filter(None, boxes)
    return "".join(f"M{x0:g} {y0:g}H{x1:g}V{y1:g}H{x0:g}z" for x0, y0, x1, y1 in known)
