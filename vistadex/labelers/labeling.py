"""Labeler: a labeling service as an analyzer, and what asks it about pictures."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import NoReturn

import numpy as np

from vistadex.errors import CallsUsedUpError, LabelerError
from vistadex.labelers import calls as allowed
from vistadex.labelers.calls import Calls
from vistadex.labelers.contract import Answer, Busy, Label, LabelOptions, Refused, Service
from vistadex.labelers.pictures import to_jpeg
from vistadex.records import (
    Classification,
    DecodedImage,
    Detections,
    Failure,
    Json,
    Result,
    Task,
)

MAX_NAME = 255
"""Letters of a class name that the catalog keeps."""

_loading = threading.Lock()


@dataclass(frozen=True, slots=True)
class Labeler:
    """A service and what it is asked for. Implements records.Analyzer; picklable."""

    name: str
    service: type[Service]
    options: LabelOptions
    calls: Calls
    _loaded: list[LabelingModel] = field(default_factory=list, repr=False, compare=False)

    def __reduce__(self) -> tuple[object, ...]:
        return Labeler, (self.name, self.service, self.options, self.calls)

    @property
    def sha256(self) -> str:
        """Identity of the service; told from that of a file by its beginning."""
        return f"labeler:{self.name}"

    @property
    def task(self) -> Task:
        """classifier, or detector where it gives boxes."""
        return self.service.task

    @property
    def classes(self) -> tuple[str, ...]:
        """None: a service has no list of its names, so results carry theirs."""
        return ()

    @property
    def card(self) -> Mapping[str, Json]:
        """What is known about it."""
        return {"name": self.name, "task": self.task, "service": True}

    @property
    def parameters(self) -> Mapping[str, Json]:
        """What changes results."""
        asked = asdict(self.options)
        del asked["timeout_s"]
        return {**self.service.parameters, **asked}

    def load(self) -> LabelingModel:
        """What asks the service; made once, and nothing is sent yet.

        Raises: LabelerError where credentials are missing.
        """
        with _loading:
            if not self._loaded:
                service = self.service(self.options)
                self._loaded.append(LabelingModel(service, self.options, self.calls))
            return self._loaded[0]


class LabelingModel:
    """Asks a service about pictures: in batches, within the calls allowed. See records.Model."""

    def __init__(self, service: Service, options: LabelOptions, calls: Calls) -> None:
        self.min_long_side = options.size
        self.min_short_side = service.min_side
        self.batch_size = service.images_per_request
        self._service = service
        self._options = options
        self._calls = calls
        self._has_answered = False
        """Whether anything came: calls may be used up by a service that is not there."""
        self._paid: dict[bytes, Answer] = {}
        """Answers that no one has got yet: where a batch breaks off, they are not asked again."""

    def analyze(self, images: Sequence[DecodedImage]) -> list[Result | Failure]:
        """What the service names in each picture, or why it does not take it.

        Raises: CallsUsedUpError where the calls allowed do not suffice for all; LabelerError where
            the service can't be used. Answers that came before are given when asked again.
        """
        service, options = self._service, self._options
        jpegs = [
            to_jpeg(
                image.pixels,
                size=options.size,
                min_side=service.min_side,
                max_bytes=service.bytes_per_request,
            )
            for image in images
        ]
        keys = [blake2b(jpeg, digest_size=16).digest() for jpeg in jpegs]
        got: dict[bytes, Answer] = {}
        for key in keys:
            if (known := self._paid.pop(key, None)) is not None:
                got[key] = known
        unknown = {key: jpeg for key, jpeg in zip(keys, jpegs, strict=True) if key not in got}
        try:
            for part in _requests(unknown, service.images_per_request, service.bytes_per_request):
                self._ask(part, got)
        except LabelerError:
            self._paid.update(got)
            raise
        return [self._result(got[key], image) for key, image in zip(keys, images, strict=True)]

    def _ask(self, part: Mapping[bytes, bytes], got: dict[bytes, Answer]) -> None:
        """Gets the answers to one request, asking again for those that did not come."""
        waiting = part
        busy: Busy | None = None
        for attempt in range(allowed.ATTEMPTS):
            if busy is not None:
                self._calls.back_off(attempt - 1, str(busy), busy.wait_s)
            try:
                busy = self._ask_once(waiting, got)
            except CallsUsedUpError as error:
                if busy is None or self._has_answered:
                    raise
                self._gone(f"{busy}, and there are no calls left to try again", error)
            if busy is None:
                return
            waiting = {key: jpeg for key, jpeg in waiting.items() if key not in got}
        if len(waiting) == len(part):
            self._gone(f"{busy}, {allowed.ATTEMPTS} times", busy)
        # The service answers, but not about these.
        got.update((key, Refused(f"no answer: {busy}")) for key in waiting)

    def _gone(self, said: str, cause: Exception | None) -> NoReturn:
        """Ends the run, as the service does not answer."""
        error = LabelerError(
            f"{self._calls.place}: {said}; nothing is lost, run it again later, with a lower "
            "--calls-per-second if a quota is used up"
        )
        self._calls.end(error)
        raise error from cause

    def _ask_once(self, waiting: Mapping[bytes, bytes], got: dict[bytes, Answer]) -> Busy | None:
        """Keeps the answers to a request; Busy where some did not come."""
        self._calls.take(len(waiting))
        try:
            answers = self._service.ask(list(waiting.values()))
        except Busy as busy:
            return busy
        except Refused as refused:
            if len(waiting) > 1:  # which of them it was is not said
                for key, jpeg in waiting.items():
                    self._ask({key: jpeg}, got)
                return None
            answers = [refused]
        except LabelerError as error:
            self._calls.fail(error)
        found = None
        for key, answer in zip(waiting, answers, strict=True):
            if isinstance(answer, Busy):
                found = answer
            else:
                got[key] = answer
                self._has_answered = True
        return found

    def _result(self, answer: Answer, image: DecodedImage) -> Result | Failure:
        if isinstance(answer, Busy | Refused):
            return Failure("refused", f"{self._calls.place}: {answer}")
        options = self._options
        wanted = [one for one in answer if one.name and one.score >= options.min_score]
        wanted.sort(key=lambda one: (-one.score, one.name))
        wanted = wanted[: options.max_labels]
        if self._service.task == "detector":
            return _detections(wanted, image, options.min_score)
        return Classification(
            np.array([min(1.0, one.score) for one in wanted], np.float32),
            np.arange(len(wanted), dtype=np.int64),
            tuple(one.name[:MAX_NAME] for one in wanted),
        )


def _detections(labels: Sequence[Label], image: DecodedImage, min_score: float) -> Detections:
    """The boxes of labels, in pixels of the picture at full size, by falling score."""
    width, height = image.width, image.height
    found = [
        (min(1.0, score), i, (x0 * width, y0 * height, x1 * width, y1 * height))
        for i, label in enumerate(labels)
        for score, (x0, y0, x1, y1) in label.boxes
        if score >= min_score
    ]
    found.sort(key=lambda one: -one[0])
    boxes = np.array([box for _, _, box in found], np.float32).reshape(-1, 4)
    return Detections(
        boxes.clip(0, [width, height, width, height]).astype(np.float32),
        np.array([score for score, _, _ in found], np.float32),
        np.array([i for _, i, _ in found], np.int64),
        names=tuple(label.name[:MAX_NAME] for label in labels),
    )


def _requests(
    jpegs: Mapping[bytes, bytes], images: int, max_bytes: int
) -> Iterator[dict[bytes, bytes]]:
    """Pictures in parts of so many images and bytes at most."""
    part: dict[bytes, bytes] = {}
    weight = 0
    for key, jpeg in jpegs.items():
        if part and (len(part) == images or weight + len(jpeg) > max_bytes):
            yield part
            part, weight = {}, 0
        part[key] = jpeg
        weight += len(jpeg)
    if part:
        yield part
