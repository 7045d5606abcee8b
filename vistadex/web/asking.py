"""Asking models about pictures that visitors send: what is in them, with boxes and scores.

Pictures go the way that `vistadex index` takes them, so the answers are the same to the last
digit; nothing of them is kept.
"""

from __future__ import annotations

import io
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, cast

from fastapi import Depends, Request
from PIL import Image
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from vistadex import settings
from vistadex.decoding import decode
from vistadex.errors import LabelerError, UnknownModelError, UsageError
from vistadex.jsonable import Box, FoundClass
from vistadex.records import (
    SCORE_SCALE,
    Classification,
    Detections,
    ImageEntry,
    Outcome,
    stored_score,
)
from vistadex.shards import Limits, look_at
from vistadex.web import problems, uploads
from vistadex.web.askable import FLOOR, Askable, Asked, Kind, Offer, for_visitors, in_time
from vistadex.web.uploads import Form, Upload, UploadLimits

LIMITS = UploadLimits(max_bytes=64_000_000)
ANSWERED_WITHIN_S = 60.0
PREVIEW_SIDE = 640
USUAL_MIN_SCORE = 0.25

AskedBox = TypedDict("AskedBox", {"class": str, "score": float, "box": Box})
AskedBox.__doc__ = "A box: [x0, y0, x1, y1] in pixels of the upright picture."


class AskedError(TypedDict):
    """Why a file has no answer: one of the reasons of failed images, `unavailable` or `timeout`."""

    reason: str
    message: str


class AskedFile(TypedDict):
    """What was found in one file, surest first; a classifier gives no boxes."""

    name: str
    size_bytes: int
    width: int
    height: int
    classes: list[FoundClass]
    boxes: list[AskedBox]
    error: AskedError | None
    seconds: float


class AskedModel(TypedDict):
    """Who answered, and with which parameters."""

    name: str
    sha256: str
    task: str
    parameters: dict[str, Any]


class Answer(TypedDict):
    """What a model says of each file, in their order."""

    model: AskedModel
    min_score: float
    files: list[AskedFile]
    seconds: float


class Question(BaseModel):
    """What is sent beside the files."""

    model: Annotated[
        str, Field(max_length=255, description="a name; empty: the usual or only one of its kind")
    ] = ""
    min_score: Annotated[
        float | None,
        Field(ge=0, le=1, allow_inf_nan=False, description="leave out what is less sure"),
    ] = None


TheFiles = Annotated[Form, Depends(uploads.uploaded(LIMITS))]


@dataclass(frozen=True, slots=True)
class Seen:
    """One file after a model has looked at it."""

    outcome: Outcome | None
    """None: not in time, or the service does not answer."""
    error: LabelerError | None
    seconds: float
    preview: str
    """A small JPEG as an address; empty where there is none or none was wanted."""


def detect(request: Request, sent: TheFiles) -> Answer:
    """What a detector finds in each file; `model` is one of the store."""
    return _answered(request, "detect", sent)


def classify(request: Request, sent: TheFiles) -> Answer:
    """What a classifier names in each file; `model` is one of the store."""
    return _answered(request, "classify", sent)


def label(request: Request, sent: TheFiles) -> Answer:
    """What a labeler, a service in the cloud that gets the files, names in each."""
    return _answered(request, "label", sent)


DOCUMENTED: Mapping[str, Any] = {
    "responses": problems.documented(400, 404, 408, 413, 429, 502, 503),
    "openapi_extra": uploads.documented(
        "files",
        model={"type": "string", "description": "a name; empty: the usual or only one of its kind"},
        min_score={
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": f"leave out what is less sure; usually {USUAL_MIN_SCORE}, for "
            f"classifiers 0; others take {FLOOR} or more",
        },
    ),
}
ROUTES: Mapping[str, Callable[..., Answer]] = {
    "/api/v1/detect": detect,
    "/api/v1/classify": classify,
    "/api/v1/label": label,
}


def _answered(request: Request, kind: Kind, sent: Form) -> Answer:
    question = uploads.read_fields(sent, Question)
    askable: Askable = request.app.state.askable
    offer = askable.find(kind, question.model)
    return ask(askable, offer, sent.files, question.min_score)[0]


def ask(
    askable: Askable,
    offer: Offer,
    files: Sequence[Upload],
    min_score: float | None,
    *,
    previews: bool = False,
) -> tuple[Answer, list[str]]:
    """What a model says of files, and with `previews` an address with a small JPEG of each.

    Raises: UsageError; ModelError; MissingExtraError; LabelerError where a service answers about
        none of them.
    """
    started = time.monotonic()
    usual = 0.0 if offer.kind == "classify" else USUAL_MIN_SCORE
    least = usual if min_score is None else min_score
    if least < FLOOR and offer.kind != "classify":
        raise UsageError(f"min_score: {least:g}, expected {FLOOR} to 1 of what is not a classifier")
    asked = askable.ready(offer)
    works = [partial(_look, asked, file, previews) for file in files]
    seen = in_time(asked.pool, works, ANSWERED_WITHIN_S)
    failures = [one.error for one in seen if one is not None and one.error is not None]
    if len(failures) == len(files):
        raise failures[0]
    answer: Answer = {
        "model": {
            "name": offer.name,
            "sha256": asked.analyzer.sha256,
            "task": offer.task,
            "parameters": dict(asked.parameters(least)),
        },
        "min_score": least,
        "files": [_file(*both, asked, least) for both in zip(files, seen, strict=True)],
        "seconds": round(time.monotonic() - started, 3),
    }
    return answer, [one.preview if one is not None else "" for one in seen]


def _look(asked: Asked, file: Upload, wants_preview: bool) -> Seen:
    started = time.monotonic()
    limits = Limits(
        max_pixels=min(LIMITS.max_pixels, settings.value("max_pixels", None, int)),
        max_file_bytes=LIMITS.max_file_bytes,
        read_ahead_bytes=0,
    )
    outcome, error = None, None
    try:
        entry = ImageEntry(file.name, len(file.data), "")
        outcome = look_at(entry, file.data, [asked.model], limits)
    except LabelerError as raised:
        error = for_visitors(asked.analyzer.name, raised)
    seconds = round(time.monotonic() - started, 3)
    shows = wants_preview and outcome is not None and outcome.failure is None
    return Seen(outcome, error, seconds, _preview(file.data, limits) if shows else "")


def _preview(data: bytes, limits: Limits) -> str:
    """A picture that was decoded before, small, as an address that holds it."""
    decoded = decode(data, min_long_side=PREVIEW_SIDE, max_pixels=limits.max_pixels)
    small = Image.fromarray(decoded.pixels)
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def _file(file: Upload, seen: Seen | None, asked: Asked, least: float) -> AskedFile:
    shown: AskedFile = {
        "name": file.name,
        "size_bytes": len(file.data),
        "width": 0,
        "height": 0,
        "classes": [],
        "boxes": [],
        "error": _error(seen),
        "seconds": ANSWERED_WITHIN_S if seen is None else seen.seconds,
    }
    if seen is None or seen.outcome is None or seen.outcome.failure is not None:
        return shown
    shown["width"], shown["height"] = seen.outcome.width, seen.outcome.height
    result = cast("Detections | Classification", seen.outcome.results[0])
    found = list(_found(result, asked.analyzer.classes, least))
    best: dict[str, FoundClass] = {}
    for name, score, box in found:
        one = best.setdefault(name, {"class": name, "score": score, "boxes": 0})
        one["boxes"] += box is not None
    shown["classes"] = list(best.values())
    shown["boxes"] = [
        {"class": name, "score": score, "box": box} for name, score, box in found if box is not None
    ]
    return shown


def _error(seen: Seen | None) -> AskedError | None:
    if seen is None:
        text = f"no answer within {ANSWERED_WITHIN_S:g} s; send fewer or smaller files"
        return {"reason": "timeout", "message": text}
    if seen.error is not None:
        return {"reason": "unavailable", "message": str(seen.error)}
    failure = seen.outcome.failure if seen.outcome is not None else None
    return None if failure is None else {"reason": failure.reason, "message": failure.message}


def _found(
    result: Detections | Classification, classes: Sequence[str], least: float
) -> Iterator[tuple[str, float, Box | None]]:
    """Class name, score and box, by falling score, as the catalog would give them back."""
    names = result.names or classes
    boxes = result.boxes_xyxy.tolist() if isinstance(result, Detections) else None
    for i in (result.scores >= least).nonzero()[0].tolist():
        score = stored_score(float(result.scores[i])) / SCORE_SCALE
        box = None if boxes is None else cast(Box, tuple(round(side, 2) for side in boxes[i]))
        yield names[int(result.class_ids[i])], score, box


class PageQuestion(BaseModel):
    """What the form of the page says."""

    model: Annotated[str, Field(max_length=300)] = ""
    """Kind and name, as detect/yolox_nano."""
    min_score: Annotated[float, Field(ge=FLOOR, le=1, allow_inf_nan=False)] = USUAL_MIN_SCORE


@dataclass(frozen=True, slots=True)
class Row:
    """A bar of a card, and its box."""

    class_name: str
    score: float
    box: Box | None
    hidden: bool


@dataclass(frozen=True, slots=True)
class Card:
    """One file on the page."""

    file: AskedFile
    preview: str
    rows: list[Row]

    @property
    def hidden(self) -> int:
        """Rows below the minimum."""
        return sum(row.hidden for row in self.rows)


def cards(answer: Answer, previews: Sequence[str], min_score: float) -> list[Card]:
    """An answer as cards, on which what is less sure is hidden, to be shown by a script."""
    found = []
    for file, preview in zip(answer["files"], previews, strict=True):
        pairs: list[tuple[str, float, Box | None]] = [
            (one["class"], one["score"], one["box"]) for one in file["boxes"]
        ] or [(one["class"], one["score"], None) for one in file["classes"]]
        rows = [Row(*one, hidden=one[1] < min_score) for one in pairs]
        found.append(Card(file, preview, rows))
    return found


def chosen(askable: Askable, offers: Sequence[Offer], model: str) -> Offer:
    """The offer that the form's choice names; without one, the usual detector or else the first.

    Raises: UnknownModelError.
    """
    by_choice = {f"{one.kind}/{one.name}": one for one in offers}
    if model in by_choice:
        return by_choice[model]
    if model:
        raise UnknownModelError(f"model {model!r} is unknown; there are: {', '.join(by_choice)}")
    if not offers:
        return askable.find("detect", "")
    return by_choice.get(f"detect/{settings.value('detector', None, str)}", offers[0])
