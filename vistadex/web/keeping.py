"""Keeping pictures that visitors sent: stored in the operator's place, and indexed as it would be.

A picture is stored under the hash of its bytes, so that nothing of its name reaches a path, and the
same picture is one file however often it is kept.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from vistadex import settings
from vistadex.catalog import Catalog, Connection, kept, registering, writing
from vistadex.decoding import content_hash, format_of
from vistadex.errors import (
    NotFoundError,
    SourceError,
    SourceMissingError,
    UploadTooLargeError,
    UsageError,
)
from vistadex.models import RunOptions
from vistadex.records import Detections, ImageEntry, Outcome
from vistadex.sources import open_target
from vistadex.sources.retrying import with_retries
from vistadex.web import problems, uploads
from vistadex.web.askable import Askable, Asked, Offer
from vistadex.web.asking import (
    AskedError,
    AskedModel,
    Looked,
    TheFiles,
    asked_model,
    chosen,
    error_of,
    look,
)

log = logging.getLogger(__name__)
R = TypeVar("R")

MIN_SCORE = RunOptions().min_score
"""What `vistadex index` keeps where nothing else is said."""
_ENDINGS = {"JPEG": "jpg", "TIFF": "tif"}
"""Where a format's files are not called like the format."""


class KeptFile(TypedDict):
    """What became of one file."""

    name: str
    image: int | None
    """Its id in the catalog; null where it could not be read."""
    is_new: bool
    """False where the same bytes had been kept before."""
    error: AskedError | None


class Kept(TypedDict):
    """What became of files, in their order, and whose results the catalog now has of them."""

    model: AskedModel
    files: list[KeptFile]


class Wanted(BaseModel):
    """What is sent beside the files."""

    model: Annotated[str, Field(max_length=300)] = ""


DOCUMENTED: Mapping[str, Any] = {
    "responses": problems.documented(400, 403, 404, 408, 413, 502, 503),
    "openapi_extra": uploads.documented(
        "files",
        model={
            "type": "string",
            "description": "a detector or classifier by name, or as detect/yolox_nano; empty: the "
            "usual detector",
        },
    ),
}


class Keeping:
    """The place where pictures are kept. Safe in threads, and beside other processes."""

    def __init__(self, catalog: Catalog, place: str) -> None:
        """Opens the place; a folder is made where it is missing.

        Raises: UsageError, SourceError.
        """
        self.catalog = catalog
        self.target = open_target(place)
        self.most_bytes = settings.value("keep_max_bytes", None, int)
        self._lock = threading.Lock()

    def keep(self, looked: Looked) -> list[KeptFile]:
        """Stores the pictures among the files, and enters what was seen in them.

        Raises: UploadTooLargeError where they would be more than may be kept, before any is stored;
            SourceError where the place can't be used: what had been stored until then is entered.
        """
        pictures: dict[str, tuple[bytes, Outcome]] = {}
        keys: list[str | None] = []
        for file, seen in zip(looked.files, looked.seen, strict=True):
            outcome = seen.outcome if seen is not None else None
            good = outcome is not None and outcome.failure is None
            keys.append(key_of(file.data) if good else None)
            if outcome is not None and keys[-1] is not None:
                pictures[keys[-1]] = file.data, outcome
        with self._lock:
            new = self._store(looked.asked, pictures)
        with self.catalog.reading() as connection:
            ids = kept.ids_by_key(connection, self.target.uri, pictures)
        return [
            {
                "name": file.name,
                "image": ids[key] if key is not None else None,
                "is_new": key in new,
                "error": error_of(seen),
            }
            for file, seen, key in zip(looked.files, looked.seen, keys, strict=True)
        ]

    def _store(self, asked: Asked, pictures: Mapping[str, tuple[bytes, Outcome]]) -> set[str]:
        """Writes what is not there yet, enters all of it, and says what was new."""
        outcomes: list[Outcome] = []
        new: set[str] = set()
        try:
            there = {key: self._stat(key) for key in pictures}
            self._need_room([data for key, (data, _) in pictures.items() if there[key] is None])
            for key, (data, outcome) in pictures.items():
                entry = there[key] or self._write(key, data)
                if there[key] is None:
                    new.add(key)
                outcomes.append(_indexed(outcome, entry))
        except SourceError as error:
            log.error("%s", error)
            raise SourceError(
                "the place for kept pictures can't be used now, the log of this server says why; "
                "try again later: what is there already is not stored twice"
            ) from error
        finally:
            if outcomes:
                self._enter(asked, outcomes)
        return new

    def _stat(self, key: str) -> ImageEntry | None:
        try:
            return with_retries(lambda: self.target.stat(key))
        except SourceMissingError:
            return None

    def _write(self, key: str, data: bytes) -> ImageEntry:
        with_retries(lambda: self.target.write(key, [data], len(data)))
        return with_retries(lambda: self.target.stat(key))

    def _need_room(self, new: list[bytes]) -> None:
        if not new:
            return
        with self.catalog.reading() as connection:
            held = kept.held_bytes(connection, self.target.uri)
        if held + sum(map(len, new)) > self.most_bytes:
            raise UploadTooLargeError(
                f"{held:,} bytes are kept already, and {self.most_bytes:,} may be; nothing of this "
                "request was kept. The operator can raise keep_max_bytes, or remove pictures"
            )

    def _enter(self, asked: Asked, outcomes: list[Outcome]) -> None:
        """Puts results into the catalog as `vistadex index` of the place does."""

        def work(connection: Connection) -> None:
            source_id = registering.register_source(connection, self.target.uri)
            analyzer = registering.register_analyzer(connection, asked.indexing(MIN_SCORE))
            writing.write_outcomes(connection, source_id, [analyzer], outcomes)

        self.catalog.transaction(work)


def key_of(data: bytes) -> str:
    """The name of a picture in the place, made of its bytes alone: `3f/3f9a….jpg`."""
    name = content_hash(data).hex()
    format = format_of(data) or "bin"
    return f"{name[:2]}/{name}.{_ENDINGS.get(format, format.lower())}"


def _indexed(outcome: Outcome, entry: ImageEntry) -> Outcome:
    """The outcome as a run has it: of the file in its place, without what is less sure."""
    results = tuple(_sure(result) for result in outcome.results)
    return replace(outcome, entry=entry, results=results)


def _sure(result: R) -> R:
    """Boxes with the usual score of a run; what a classifier says is kept as it is."""
    if not isinstance(result, Detections):
        return result
    sure = result.scores >= MIN_SCORE
    return replace(
        result,
        boxes_xyxy=result.boxes_xyxy[sure],
        scores=result.scores[sure],
        class_ids=result.class_ids[sure],
    )


def keeping(request: Request) -> Keeping:
    """Where this app keeps pictures.

    Raises: NotFoundError where it keeps none.
    """
    found: Keeping | None = request.app.state.keeping
    if found is None:
        raise NotFoundError(
            "this server keeps no pictures; the operator starts it with --keep-to FOLDER_OR_URL"
        )
    return found


def offer_of(askable: Askable, model: str) -> Offer:
    """The model whose results are kept.

    Raises: UnknownModelError; UsageError for a labeler.
    """
    offers = askable.offers()
    by_name = {one.name: f"{one.kind}/{one.name}" for one in reversed(offers)}
    offer = chosen(askable, offers, by_name.get(model, model))
    if offer.kind == "label":
        raise UsageError(
            f"{offer.name}: pictures are kept with a detector or a classifier of this machine; "
            "choose one, and label them later with vistadex index --labeler"
        )
    return offer


def keep(request: Request, sent: TheFiles) -> Kept:
    """Keeps pictures, and what a detector or classifier finds in them: like an index of them.

    Pictures that were kept before are recognized by their bytes.
    """
    place = keeping(request)
    askable: Askable = request.app.state.askable
    offer = offer_of(askable, uploads.read_fields(sent, Wanted).model)
    looked = look(askable, offer, sent.files)
    return {"model": asked_model(looked.asked, MIN_SCORE), "files": place.keep(looked)}
