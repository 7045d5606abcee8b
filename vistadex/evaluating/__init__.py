"""How good, fast and large a model is on annotated pictures.

from vistadex import evaluate
done = evaluate("yolox_nano", "coco/instances_val.json", images="coco/images/val")
done.metrics["AP"], done.speed.p50_ms, done.size_bytes
done.write_report(Path("report"))
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from vistadex import settings
from vistadex.annotated import AnnotatedSet, open_annotated
from vistadex.catalog import Catalog
from vistadex.errors import UsageError
from vistadex.evaluating.finding import find_file
from vistadex.evaluating.judging import Judged, JudgedClasses, confusion_of
from vistadex.evaluating.naming import Naming, name_classes
from vistadex.evaluating.results import (
    ClassResult,
    Counting,
    Curve,
    ErrorKind,
    Evaluation,
    Metric,
    Speed,
)
from vistadex.evaluating.running import Run, forget_peak, run, time_alone
from vistadex.models import ModelFile, ModelStore, RunOptions
from vistadex.models.analyzers import ModelAnalyzer, load_once
from vistadex.progress import Progress, Silent, peak_rss_bytes
from vistadex.records import Analyzer, Failure, Model, Result

__all__ = [
    "ClassResult",
    "Counting",
    "Curve",
    "ErrorKind",
    "Evaluation",
    "Speed",
    "evaluate",
]


def evaluate(
    model: str | Path | ModelFile | Analyzer,
    data: str | Path | AnnotatedSet,
    *,
    format: str = "auto",
    images: str | Path | None = None,
    split: str | None = None,
    query: str | None = None,
    catalog: str | Path | Catalog | None = None,
    metric: Metric = "coco",
    names: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    limit: int | None = None,
    min_score: float = 0.001,
    nms_iou: float = 0.65,
    count_score: float = 0.25,
    iou: float = 0.5,
    size: int | None = None,
    rectangular: bool | None = None,
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "auto",
    tile: int | None = None,
    overlap: float = 0.2,
    threads: int | None = None,
    timed: int = 50,
    models: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Runs a detector or classifier over annotated pictures, and measures what it says.

    Args:
        model: name in the store, .onnx or .tflite file, or an Analyzer.
        data: as open_annotated() takes it, with format, images, split, query and catalog; or a set.
        metric: how detections are measured: coco, voc2007, voc2010 or open-images.
        names: what the model calls a class of the data, where it calls it otherwise.
        only: classes of the data that are judged; None: all, and the model must know each.
        limit: only the first so many images.
        min_score: boxes with a lower score are not even looked at; AP needs low ones.
        nms_iou: of two boxes of a class that overlap more, the better remains.
        count_score: boxes with this score count in the confusion matrix, error kinds and pictures.
        iou: overlap from which two boxes are one object there.
        size, rectangular, device, runtime, precision, tile, overlap: as for index().
        threads: images in work at a time; None: the setting, 0: one per core.
        timed: pictures that are timed one by one after the run; 0: none.
        models: folder of the model store; None: the setting.
        progress: is told how far the run is.
    Raises: UsageError, NotFoundError, ModelError, FormatError or SourceError before the first image
        where model and data don't go together; never for a bad image, which is listed.
    """
    started = time.monotonic()
    counting = Counting(min_score=count_score, iou=iou)
    _check(metric, limit, timed)
    opened = _opened(data, format, images, split, query, catalog)
    opened = opened if limit is None else opened.subset(range(min(limit, len(opened))))
    options = RunOptions(
        min_score=min_score,
        nms_iou=nms_iou,
        size=size,
        rectangular=rectangular,
        device=device,
        runtime=runtime,
        precision=precision,
        tile=tile,
        overlap=overlap,
    )
    chosen = _Chosen.of(model, _task(opened), options, models)
    naming = name_classes(opened, chosen.name, chosen.analyzer.classes, names=names, only=only)
    forget_peak()
    loaded = chosen.load(options)
    ran = run(loaded, opened, threads=threads, progress=progress or Silent())
    speed = time_alone(loaded, opened, ran, timed)
    peak = peak_rss_bytes()
    judging = _Judging(chosen, opened, naming, counting, ran)
    parts = judging.detector(metric) if _task(opened) == "detector" else judging.classifier()
    return Evaluation(
        **parts,
        **judging.known(),
        counting=counting,
        speed=speed,
        peak_mib=peak / 2**20,
        seconds=time.monotonic() - started,
    )


def _check(metric: str, limit: int | None, timed: int) -> None:
    if metric not in get_args(Metric):
        known = ", ".join(get_args(Metric))
        raise UsageError(f"metric {metric!r} is unknown, expected one of {known}; correct --metric")
    if (limit is not None and limit < 1) or timed < 0:
        raise UsageError(f"limit={limit}, timed={timed}: expected 1 or more, and 0 or more")


def _opened(
    data: str | Path | AnnotatedSet,
    format: str,
    images: str | Path | None,
    split: str | None,
    query: str | None,
    catalog: str | Path | Catalog | None,
) -> AnnotatedSet:
    if isinstance(data, AnnotatedSet):
        if (images, split, query, catalog, format) != (None, None, None, None, "auto"):
            what = f"{data.name}: is an open set, expected no format, images, split or query for it"
            raise UsageError(f"{what}; give them to open_annotated()")
        return data
    return open_annotated(
        data, format=format, images=images, split=split, catalog=catalog, query=query
    )


def _task(data: AnnotatedSet) -> str:
    """What the data is for: detector where it has boxes, else classifier."""
    return "detector" if any(len(one.labels) for one in data.images) else "classifier"


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The model that is judged."""

    analyzer: Analyzer
    file: ModelFile | None

    @classmethod
    def of(
        cls,
        model: str | Path | ModelFile | Analyzer,
        task: str,
        options: RunOptions,
        models: Path | None,
    ) -> _Chosen:
        """What is meant by a name, a file or an analyzer.

        Raises: NotFoundError or ModelError where there is none; UsageError where it is for
            another task than the data.
        """
        folder = settings.value("models", None if models is None else str(models), str)
        store = ModelStore(Path(folder))
        named = find_file(str(model), store) if isinstance(model, str | Path) else model
        file = named if isinstance(named, ModelFile) else None
        analyzer = ModelAnalyzer(named, options) if isinstance(named, ModelFile) else named
        if analyzer.task != task:
            has = "boxes" if task == "detector" else "classes of whole images, and no boxes"
            what = f"{analyzer.name}: is a model of the task {analyzer.task}, the data has {has}"
            raise UsageError(f"{what}, expected a {task}; choose another model or other data")
        return cls(analyzer, file)

    @property
    def name(self) -> str:
        """As the card says."""
        return self.analyzer.name

    @property
    def size_bytes(self) -> int:
        """Of the file; 0 for a model that has none."""
        return 0 if self.file is None else self.file.path.stat().st_size

    @property
    def size_wh(self) -> tuple[int, int] | None:
        """The input's size; None where it has none of its own."""
        return self.analyzer.size_wh if isinstance(self.analyzer, ModelAnalyzer) else None

    def load(self, options: RunOptions) -> Model:
        """The model with a session of its own, which ends with it."""
        if self.file is None:
            return self.analyzer.load()
        return load_once(self.file, str(self.file.path), options)


@dataclass(frozen=True, slots=True)
class _Judging:
    """What is put together into an Evaluation."""

    chosen: _Chosen
    data: AnnotatedSet
    naming: Naming
    counting: Counting
    ran: Run

    def results(self) -> dict[int, Result]:
        """What the model says, by position in the data."""
        outcomes = enumerate(self.ran.outcomes)
        return {i: one for i, one in outcomes if not isinstance(one, Failure)}

    def known(self) -> dict[str, Any]:
        """What is the same for every task."""
        kinds = Counter(one.kind for one in self.data.problems)
        failed = [
            (self.data.images[i].uri, one.message)
            for i, one in enumerate(self.ran.outcomes)
            if isinstance(one, Failure)
        ]
        return {
            "model": self.chosen.name,
            "sha256": self.chosen.analyzer.sha256,
            "data": self.data.name,
            "images": len(self.data) - len(failed),
            "failed": failed,
            "problems": dict(kinds.most_common()),
            "first_problems": [str(one) for one in self.data.problems[:10]],
            "size_bytes": self.chosen.size_bytes,
            "parameters": dict(self.chosen.analyzer.parameters),
            "pictures": self.data,
        }

    def detector(self, metric: Metric) -> dict[str, Any]:
        """What is measured of boxes."""
        judged = Judged.of(self.data, self.results(), self.naming, self.counting)
        measured = judged.measured(metric)
        classes, counts = confusion_of(judged)
        return {
            "task": "detection",
            "metric": metric,
            "metrics": measured.numbers | judged.single_object(self.chosen.size_wh),
            "per_class": judged.per_class(measured),
            "curves": measured.curves,
            "confusion_classes": classes,
            "confusion": counts,
            "errors": judged.errors(),
            "not_in_data": judged.not_in_data,
            "judged": judged,
        }

    def classifier(self) -> dict[str, Any]:
        """What is measured of classes of whole images."""
        judged = JudgedClasses.of(self.data, self.results(), self.naming)
        classes, counts = judged.confusion()
        return {
            "task": "classification",
            "metric": "accuracy",
            "metrics": judged.numbers(),
            "per_class": judged.per_class(),
            "confusion_classes": classes,
            "confusion": counts,
            "mistaken": judged.mistaken,
        }
