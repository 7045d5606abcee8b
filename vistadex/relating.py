"""Relations derived from the boxes of indexed images, into the catalog: on, under, next_to …"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from vistadex.catalog import Catalog, Connection, boxed, choosing, reading, registering, writing
from vistadex.catalog.registering import KnownAnalyzer, RegisteredAnalyzer
from vistadex.catalog.runs import Recorder
from vistadex.errors import QueryError, UsageError
from vistadex.progress import Progress, Silent
from vistadex.records import IntArray, Json, Model, Relations, Task
from vistadex.relations import (
    MOST_RELATIONS,
    RULES,
    Derived,
    definitions_hash,
    derive_counted,
    known_predicates,
)

IN_TRANSACTION = 500
"""Images that are read, and then written, at once."""
GEOMETRY_MODEL = "geometry:"
"""How the identity of the model begins that is no file but a version of the definitions."""


@dataclass(slots=True, kw_only=True)
class RelateSummary:
    """How a run of relate() went."""

    model: str = ""
    """Whose boxes."""
    images: int = 0
    """Looked at."""
    related: int = 0
    """Images in which relations were found."""
    relations: int = 0
    left_out: int = 0
    """Relations for which an image had no place: it has relations.MOST_RELATIONS better ones."""
    boxes_left_out: int = 0
    """Boxes without relations, whatever lies near: crowds, those without an area in the picture,
    and the least sure of more than relations.MOST_BOXES."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Geometry:
    """The definitions of relations as an analyzer of boxes; see records.Analyzer."""

    parameters: Mapping[str, Json]
    name: str = writing.GEOMETRY
    task: Task = "relater"
    classes: tuple[str, ...] = ()
    card: Mapping[str, Json] = field(default_factory=lambda: _card())

    @property
    def sha256(self) -> str:
        """Identity of the definitions; told from that of a file by its beginning."""
        return GEOMETRY_MODEL + definitions_hash()[: 64 - len(GEOMETRY_MODEL)]

    def load(self) -> Model:
        """Raises UsageError: it looks at boxes, not at pictures."""
        raise UsageError(
            f"{self.name}: derives relations from boxes, expected a model that looks at pictures; "
            "run `vistadex relate`"
        )


def _card() -> dict[str, Json]:
    meanings = {name: rule.meaning for name, rule in RULES.items()}
    return {"name": writing.GEOMETRY, "task": "relater", "predicates": meanings}


def relate(
    query: str = "",
    *,
    model: str | None = None,
    catalog: str | Path | Catalog | None = None,
    predicates: Sequence[str] | None = None,
    min_score: float = 0.5,
    only: Literal["new", "all"] = "new",
    progress: Progress | None = None,
) -> RelateSummary:
    """Derives relations from the boxes that a model, or people, have put into images.

    They enter the catalog as results of the model "geometry", a transaction at a time, so that a
    run that was stopped goes on where it was. When boxes of an image are replaced, what was derived
    from them goes, and the image is new again. What was derived from the same boxes with other
    predicates, another min_score or older definitions is replaced, image by image.

    Args:
        query: only images that this finds; see vistadex.grammar.
        model: whose boxes: a detector, or "human"; None: the only detector that has looked, or
            where none has, the only origin of annotations. With several parameters, the latest.
        catalog: file name or URL; None: the setting.
        predicates: of relations.PREDICATES; None: all. With other ones all images are new.
        min_score: relations with a lower score are not kept; likewise.
        only: new: images whose boxes were not looked at in this way; all: every image, again.
        progress: is told how far the run is.
    Raises: UsageError, QueryError or CatalogError where nothing can be derived.
    """
    started = time.monotonic()
    chosen = known_predicates(predicates)
    if not 0 < min_score <= 1:
        raise UsageError(f"min_score={min_score}: expected above 0 to 1")
    if only not in ("new", "all"):
        raise UsageError(f"only={only!r}: expected 'new' or 'all'")
    store = catalog if isinstance(catalog, Catalog) else Catalog(catalog)
    try:
        recorder = Recorder(store, "relate", query or "all images", progress or Silent())
        run = _Run(store, model, chosen, min_score, only, recorder)
        with recorder:
            run.relate(run.images(query))
            store.refresh()
            recorder.summary = asdict(run.summary)
    finally:
        if store is not catalog:
            store.close()
    run.summary.seconds = time.monotonic() - started
    return run.summary


class _Run:
    """One run over many images, with the boxes of one analyzer."""

    def __init__(
        self,
        catalog: Catalog,
        model: str | None,
        predicates: tuple[str, ...],
        min_score: float,
        only: Literal["new", "all"],
        progress: Progress,
    ) -> None:
        self.catalog, self.predicates, self.min_score = catalog, predicates, min_score
        self.only, self.progress = only, progress
        with catalog.reading() as connection:
            self.source = _whose(registering.all_analyzers(connection), model)
            parameters = boxed.parameters_hash(connection, self.source.id)
        self.summary = RelateSummary(model=self.source.name)
        self.geometry = Geometry(
            {
                "of": self.source.name,
                "of_sha256": self.source.sha256,
                "of_parameters": parameters,
                "of_analyzer": self.source.id,
                "predicates": list(predicates),
                "min_score": min_score,
                "at_most": MOST_RELATIONS,
            }
        )
        self.registered: RegisteredAnalyzer = catalog.transaction(
            lambda connection: registering.register_analyzer(connection, self.geometry)
        )

    def images(self, query: str) -> IntArray:
        """Rising ids of the images to look at; eight bytes each."""
        with self.catalog.reading() as connection:
            if self.only == "new":
                ids = boxed.waiting(connection, self.source.id, self.registered.id)
            else:
                ids = boxed.analyzed(connection, self.source.id)
            if not query:
                return ids
            return np.intersect1d(ids, choosing.found_by(connection, query), assume_unique=True)

    def relate(self, ids: IntArray) -> None:
        """Derives and writes the relations of these images."""
        for start in range(0, len(ids), IN_TRANSACTION):
            some = ids[start : start + IN_TRANSACTION].tolist()
            while some:
                some = self._relate(some)
            done = min(start + IN_TRANSACTION, len(ids))
            self.progress.update(listed=len(ids), listing=False, done=done, failed=0)

    def _relate(self, ids: list[int]) -> list[int]:
        """Does these images but for those that others change meanwhile, which it returns."""
        with self.catalog.reading() as connection:
            revision = reading.revision(connection)
            if self.only == "new":  # Another process may have done some by now.
                ids = boxed.waiting(connection, self.source.id, self.registered.id, ids).tolist()
            boxes = boxed.boxes_of(connection, ids, self.source.id)
        found = {id_: self._derive(some) for id_, some in boxes.items()}

        def write(connection: Connection) -> set[int]:
            changed = boxed.changed_since(connection, revision, ids)
            unchanged = {
                id_: (boxes[id_].version, Relations(one.relations))
                for id_, one in found.items()
                if id_ not in changed
            }
            boxed.remove_superseded(
                connection, self.source.id, self.registered.id, sorted(unchanged)
            )
            writing.write_relations(connection, self.registered, unchanged)
            return changed

        changed = self.catalog.transaction(write) if found else set()
        for id_ in found.keys() - changed:
            self.summary.images += 1
            self.summary.related += bool(found[id_].relations)
            self.summary.relations += len(found[id_].relations)
            self.summary.left_out += found[id_].left_out
            self.summary.boxes_left_out += found[id_].boxes_left_out + boxes[id_].crowds
        return sorted(changed)

    def _derive(self, one: boxed.Boxes) -> Derived:
        return derive_counted(
            np.array(one.boxes_xyxy, np.float64),
            one.class_names,
            np.array(one.scores, np.float64),
            size_wh=one.size_wh,
            predicates=self.predicates,
            min_score=self.min_score,
            at_most=MOST_RELATIONS,
        )


def _whose(known: Sequence[KnownAnalyzer], model: str | None) -> KnownAnalyzer:
    """The analyzer whose boxes are meant; of several parameters, that with the latest.

    Raises: QueryError where there is none, or it is not clear which.
    """
    detectors = [one for one in known if one.task == "detector"]
    names = sorted({one.name for one in detectors})
    if not names:
        raise QueryError("no boxes in the catalog; `vistadex index` or `import` brings some")
    if model is None:
        people = {one.name for one in detectors if one.sha256.startswith(reading.ANNOTATIONS)}
        candidates = sorted(set(names) - people) or names
        if len(candidates) > 1:
            raise QueryError(
                f"{len(candidates)} have boxes, say whose with --model: {', '.join(names)}"
            )
        model = candidates[0]
    if model not in names:
        raise QueryError(f"no boxes of {model!r} in the catalog; there are: {', '.join(names)}")
    return max(one for one in detectors if one.name == model)
