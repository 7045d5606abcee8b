"""Asking models about pictures that visitors send: what is in them, with boxes and scores.

Pictures go the way that `vistadex index` takes them, so the answers are the same to the last
digit; nothing of them is kept here (see keeping.py).
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


@dataclass(frozen=True, slots=True)
class Looked:
    """The files of a request after a model has looked at them."""

    asked: Asked
    files: tuple[Upload, ...]
    seen: tuple[Seen | None, ...]
    """Of each file, in their order; None: not in time."""
    seconds: float

    @property
    def previews(self) -> list[str]:
        """A small JPEG of each file, as Seen has it."""
        return [one.preview if one is not None else "" for one in self.seen]


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
    return ask(askable, offer, sent.files, question.min_score)


def ask(
    askable: Askable,
    offer: Offer,
    files: Sequence[Upload],
    min_score: float | None,
) -> Answer:
    """What a model says of files.

    Raises: UsageError; ModelError; MissingExtraError; LabelerError where a service answers about
        none of them.
    """
    usual = 0.0 if offer.kind == "classify" else USUAL_MIN_SCORE
    least = usual if min_score is None else min_score
    if least < FLOOR and offer.kind != "classify":
        raise UsageError(f"min_score: {least:g}, expected {FLOOR} to 1 of what is not a classifier")
    return answered(look(askable, offer, files), least)


def look(
    askable: Askable, offer: Offer, files: Sequence[Upload], *, previews: bool = False
) -> Looked:
    """Has a model look at files, and with `previews` makes a small JPEG of each.

    Raises: like ask.
    """
    started = time.monotonic()
    asked = askable.ready(offer)
    works = [partial(_look, asked, file, previews) for file in files]
    seen = in_time(asked.pool, works, ANSWERED_WITHIN_S)
    failures = [one.error for one in seen if one is not None and one.error is not None]
    if len(failures) == len(files):
        raise failures[0]
    return Looked(asked, tuple(files), tuple(seen), round(time.monotonic() - started, 3))


def answered(looked: Looked, least: float) -> Answer:
    """What a model has seen, without what is less sure than that."""
    asked = looked.asked
    return {
        "model": asked_model(asked, least),
        "min_score": least,
        "files": [
            _file(*both, asked, least) for both in zip(looked.files, looked.seen, strict=True)
        ],
        "seconds": looked.seconds,
    }


def asked_model(asked: Asked, least: float) -> AskedModel:
    """Who answers, with such a minimum."""
    return {
        "name": asked.analyzer.name,
        "sha256": asked.analyzer.sha256,
        "task": asked.analyzer.task,
        "parameters": dict(asked.parameters(least)),
    }


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
        "error": error_of(seen),
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


def error_of(seen: Seen | None) -> AskedError | None:
    """Why a file has no answer; None where it has one."""
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
