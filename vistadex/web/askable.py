"""What pictures can be asked with: the models of the store, and labelers that the operator named.

Few models stay loaded and few pictures are in work at a time, so that memory stays flat whatever
visitors send.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from vistadex import labelers, models, settings
from vistadex.decoding import use_one_thread
from vistadex.errors import CallsUsedUpError, LabelerError, UnknownModelError, UsageError
from vistadex.models.analyzers import load_once
from vistadex.models.store import ModelStore
from vistadex.records import Analyzer, Json, Model, Task

T = TypeVar("T")
log = logging.getLogger(__name__)
Kind: TypeAlias = Literal["detect", "classify", "label"]
TASKS: Mapping[Task, Kind] = {"detector": "detect", "classifier": "classify"}

FLOOR = 0.05
"""The score with which models run: what is less sure is never asked for, and a higher minimum only
leaves boxes out."""
MAX_LOADED = 3
AT_WORK = 2
"""Pictures that models look at at a time, and as many that labelers are asked about."""
LABELER_TIMEOUT_S = 20
UNLIMITED = models.RunOptions(min_score=FLOOR)


@dataclass(frozen=True, slots=True)
class Offer:
    """A model or labeler that can be asked."""

    kind: Kind
    name: str
    task: Task
    terms: str = ""
    """What asking it means where that is not free: who gets the pictures, what it costs."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A model that is ready, and what identifies its results."""

    analyzer: Analyzer
    model: Model
    pool: ThreadPoolExecutor

    def indexing(self, min_score: float) -> Analyzer:
        """The analyzer that a run with such a minimum has; a labeler has its own."""
        if isinstance(self.analyzer, models.ModelAnalyzer):
            options = replace(self.analyzer.options, min_score=min_score)
            return models.ModelAnalyzer(self.analyzer.file, options)
        return self.analyzer

    def parameters(self, min_score: float) -> Mapping[str, Json]:
        """Everything beside the file that changes results with such a minimum."""
        analyzer = self.indexing(min_score)
        if analyzer is self.analyzer:
            return {**analyzer.parameters, "min_score": min_score}
        return analyzer.parameters


class Askable:
    """The models and labelers of one app."""

    def __init__(self, names: Sequence[str] = (), max_calls: int | None = None) -> None:
        """Labelers by name may send so many pictures each until the app ends.

        Raises: UsageError for an unknown labeler, or one without a bound.
        """
        if bool(names) != (max_calls is not None):
            raise UsageError(
                "a labeler charges for each picture that visitors send, expected how many at most: "
                "give --labeler NAME and --max-calls N together"
            )
        self._labelers = {name: _Labeler(name, max_calls or 0) for name in names}
        self._store = ModelStore(Path(settings.value("models", None, str)))
        self._loaded: OrderedDict[str, Asked] = OrderedDict()
        self._lock = threading.Lock()
        self._models = ThreadPoolExecutor(AT_WORK, "asking", use_one_thread)
        self._services = ThreadPoolExecutor(AT_WORK, "labeling", use_one_thread)

    def close(self) -> None:
        """Lets the threads go; pictures that wait are dropped."""
        for pool in (self._models, self._services):
            pool.shutdown(wait=False, cancel_futures=True)

    def offers(self) -> list[Offer]:
        """What can be asked, each kind by name.

        Raises: ModelError where a card of the store is damaged.
        """
        found = [
            Offer(TASKS[file.card.task], file.card.name, file.card.task)
            for file in self._store.list()
            if file.card.task in TASKS
        ]
        found.sort(key=lambda one: list(TASKS).index(one.task))
        return [*found, *(labeler.offer() for labeler in self._labelers.values())]

    def find(self, kind: Kind, name: str) -> Offer:
        """The model of that kind and name; without a name the usual one, or else the only one.

        Raises: UnknownModelError; UsageError where there is more than one to choose from.
        """
        offers = [one for one in self.offers() if one.kind == kind]
        names = [one.name for one in offers]
        usual = settings.value("detector", None, str) if kind == "detect" else ""
        wanted = name or (usual if usual in names else "")
        for one in offers:
            if one.name == wanted:
                return one
        if not wanted and len(offers) == 1:
            return offers[0]
        known = ", ".join(names) or f"none; {_HOW_TO_GET[kind]}"
        if not wanted and offers:
            raise UsageError(f"model: expected one of {known}")
        near = tuple(get_close_matches(wanted, names, 3, 0.4))
        what = f"model {wanted!r} is unknown" if wanted else f"there is no model to {kind} with"
        raise UnknownModelError(f"{what}; there are: {known}", near)

    def ready(self, offer: Offer) -> Asked:
        """What was offered, loaded; only the MAX_LOADED models used last stay so.

        Raises: ModelError or MissingExtraError where the file can't be used; LabelerError.
        """
        if offer.kind == "label":
            labeler = self._labelers[offer.name].renewed()
            try:
                return Asked(labeler, labeler.load(), self._services)
            except LabelerError as error:
                raise for_visitors(offer.name, error) from error
        file = self._store.get(offer.name)
        with self._lock:
            known = self._loaded.pop(file.sha256, None)
            if known is None or known.analyzer.card != file.card.to_dict():
                while len(self._loaded) >= MAX_LOADED:
                    self._loaded.popitem(last=False)
                analyzer = models.ModelAnalyzer(file, UNLIMITED)
                known = Asked(analyzer, load_once(file, offer.name, UNLIMITED), self._models)
            self._loaded[file.sha256] = known
            return known


def for_visitors(name: str, error: LabelerError) -> LabelerError:
    """What visitors are told of it: services name accounts and files, which the log alone gets."""
    if isinstance(error, CallsUsedUpError):
        return error
    log.error("%s", error)
    return LabelerError(
        f"{name}: the service can't be used now, the log of this server says why; try again later, "
        "or ask a model of this machine"
    )


_HOW_TO_GET: Mapping[Kind, str] = {
    "detect": "add one with vistadex models add FILE.onnx",
    "classify": "add one with vistadex models add FILE.onnx",
    "label": "name one with vistadex serve --labeler NAME --max-calls N",
}


class _Labeler:
    """A labeling service within a bound of calls that outlasts its failures."""

    def __init__(self, name: str, max_calls: int) -> None:
        """Raises: UsageError, MissingExtraError; LabelerError where credentials are missing."""
        self.name = name
        self._most = max_calls
        self._lock = threading.Lock()
        self._current = self._new()
        self._current.load()

    @property
    def _left(self) -> int:
        return self._most - self._current.calls.used

    def offer(self) -> Offer:
        """What asking it means now."""
        left = self._left
        terms = (
            f"{self.name} is a service in the cloud, which gets the pictures; {left:,} more can be "
            f"sent, {labelers.cost(self.name, left).text}"
        )
        return Offer("label", self.name, self._current.task, terms)

    def renewed(self) -> labelers.Labeler:
        """What asks the service: a new one after a failure, with the calls that are left.

        Raises: CallsUsedUpError.
        """
        with self._lock:
            if self._left < 1:
                raise CallsUsedUpError(
                    f"{self.name}: all pictures that the operator allowed have been sent; start "
                    "vistadex serve again with a new --max-calls, or ask a model of this machine"
                )
            if self._current.calls.failure is not None:
                self._most = self._left
                self._current = self._new()
            return self._current

    def _new(self) -> labelers.Labeler:
        return labelers.labeler(
            self.name, max_calls=self._most, min_score=FLOOR, timeout_s=LABELER_TIMEOUT_S
        )


def in_time(
    pool: ThreadPoolExecutor, works: Sequence[Callable[[], T]], seconds: float
) -> list[T | None]:
    """What each work gives, in their order; None for those that were not done in time."""
    until = time.monotonic() + seconds
    futures: list[Future[T]] = [pool.submit(work) for work in works]
    found: list[T | None] = []
    try:
        for future in futures:
            try:
                found.append(future.result(max(0.0, until - time.monotonic())))
            except TooLate:
                found.append(None)
    finally:
        for future in futures:
            future.cancel()
    return found
