"""Indexing: sources and models in, a filled catalog out. Two processes may fill one catalog."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vistadex import models, settings
from vistadex.engines.local import LocalEngine
from vistadex.errors import UsageError, VistadexError
from vistadex.labelers.running import Labeling
from vistadex.models import color_layout
from vistadex.models.store import ModelStore
from vistadex.progress import Progress, Silent
from vistadex.progress import peak_rss_bytes as peak_rss_bytes
from vistadex.records import Analyzer, Task
from vistadex.sources import Source, open_source

if TYPE_CHECKING:
    from vistadex.catalog import Catalog
    from vistadex.planning import Only, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a run of index() went."""

    images: int
    """Listed in the sources (with only="failed": known as failed)."""
    indexed: int
    """Analyzed and committed in this run."""
    unchanged: int
    """Left alone: already analyzed, or known to be bad, in the version that is there."""
    failed: int
    """Committed with a reason instead of results in this run."""
    vanished: int
    """Known to the catalog but gone from the sources."""
    pruned: int
    """Vanished ones that were removed from the catalog."""
    seconds: float
    images_per_s: float
    """Indexed and failed images per second of the whole run."""
    peak_rss_bytes: int
    """Most memory that this process has held."""
    failures: Mapping[str, int]
    """Failed images of this run by reason."""
    refused: int = 0
    """Indexed ones that the labeler did not take: each has a warning, and is tried again."""
    calls: int = 0
    """Pictures sent to a labeling service in this run, those sent again included."""
    calls_usd: float = 0.0
    """What they cost at the listed or given price: an estimate."""
    left: int = 0
    """Images that wait for a run with more calls."""
    left_usd: float = 0.0


def index(
    *sources: str | Path,
    detector: str | Path | Analyzer | None = None,
    classifier: str | Path | Analyzer | None = None,
    embedder: str | Path | Analyzer | None = None,
    labeler: str | None = None,
    max_calls: int | None = None,
    calls_per_second: float | None = None,
    price_per_1000: float | None = None,
    catalog: str | Path | Catalog | None = None,
    only: Only = "new",
    prune: bool = False,
    min_score: float = 0.25,
    size: int | None = None,
    rectangular: bool | None = None,
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "auto",
    tile: int | None = None,
    overlap: float = 0.2,
    threads: int | None = None,
    max_pixels: int | None = None,
    allow_truncated: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Analyzes every image of the sources, and keeps what was found in the catalog.

    Args:
        sources: folders, buckets (s3://bucket/prefix, gs://, az://), archives and manifests.
        detector, classifier, embedder: a model of the store, a model file, or an Analyzer; the
            embedder "color-layout" needs no model. With none of the three and no labeler, the
            setting `detector`, or else the only detector of the store.
        labeler: a service that names what is in pictures, one of labelers.NAMES. It gets every
            picture that is indexed, and charges for each.
        max_calls: pictures to send to it at most, each attempt counted; needed with a labeler.
            What it does not suffice for is left for the next run.
        calls_per_second: pictures to send in a second; None: what the service allows a newcomer.
        price_per_1000: dollars for 1,000 pictures in estimates; None: the listed price.
        catalog: file name or URL, made where it is missing; None: the setting.
        only: new: what is new or changed, or not seen by these models; failed: what has failed
            before; all: everything again.
        prune: remove images that are gone from the source, instead of marking them.
        min_score: boxes, and names by a labeler, with a lower score are not kept.
        size: long side in pixels to which pictures are scaled for the model; None: the model's.
        rectangular: pad pictures to their own shape instead of a square, a third faster; None:
            where the model's graph allows it.
        device: auto, cpu or cuda.
        runtime: auto, onnxruntime, openvino or litert; auto: the file's own.
        precision: auto, f32 or bf16, which needs openvino; auto: f32, or as the file was made.
        tile: side in pixels of the windows in which the detector goes over larger pictures at full
            size, beside the whole picture; None: whole pictures only.
        overlap: share of a window that the next one covers too, from 0 to below 0.9.
        threads: images in work at a time; None: the setting, 0: one per core.
        max_pixels: larger pictures are refused; None: the setting.
        allow_truncated: take the readable part of pictures that break off, with a warning.
        progress: is told how far the run is.
    Raises: UsageError, ModelError or CatalogError before the first image; SourceError at the end,
        after all that could be listed; LabelerError where a service can't be used, after what was
        labeled is in the catalog; never for a bad image, which gets a row with a reason.
    """
    started = time.monotonic()
    if not sources:
        raise UsageError("no source: name a folder, bucket, archive or manifest")
    opened = list({source.uri: source for source in map(open_source, sources)}.values())
    engine = LocalEngine(settings.value("threads", threads, int))
    labeling = Labeling(labeler, max_calls, calls_per_second, price_per_1000, min_score)
    analyzers = _analyzers(
        {"detector": detector, "classifier": classifier, "embedder": embedder},
        {"device": device, "runtime": runtime, "precision": precision},
        {
            "min_score": min_score,
            "size": size,
            "rectangular": rectangular,
            "tile": tile,
            "overlap": overlap,
        },
        labeling.analyzers,
    )
    loading = [threading.Thread(target=_load_early, args=(one,)) for one in analyzers]
    for thread in loading:
        thread.start()
    from vistadex.catalog import Catalog  # SQLAlchemy: 0.2 s, while the models load
    from vistadex.catalog.runs import Recorder
    from vistadex.planning import Run
    from vistadex.shards import Limits, process_shard

    limits = Limits(
        max_pixels=settings.value("max_pixels", max_pixels, int),
        max_file_bytes=settings.value("max_file_bytes", None, int),
        read_ahead_bytes=settings.value("read_ahead_bytes", None, int) // engine.threads,
        allow_truncated=allow_truncated,
    )
    store = catalog if isinstance(catalog, Catalog) else Catalog(catalog, create=True)
    recorder = Recorder(store, "index", _subject(opened, analyzers), progress or Silent())
    run = Run(store, analyzers, limits, only, prune, recorder)
    recorder.details = lambda: {"failures": dict(run.failures)}
    try:
        with recorder:
            run.register(opened)
            work = labeling.keeping(process_shard)
            with closing(engine.run(work, labeling.allowed(run.shards(opened)))) as results:
                for shard, outcomes in results:
                    run.commit(shard, outcomes)
                    labeling.settle(shard, outcomes)
            store.refresh()
            labeling.need_no_failure()
            summary = summarize(run, time.monotonic() - started, labeling)
            recorder.summary = asdict(summary)
    except KeyboardInterrupt:
        for shard, outcomes in labeling.unsettled():
            run.commit(shard, outcomes)
        raise
    finally:
        if store is not catalog:
            store.close()
    return summary


def _subject(sources: Sequence[Source], analyzers: Sequence[Analyzer]) -> str:
    """What a run works on, in a line."""
    names = ", ".join(one.name for one in analyzers)
    return f"{', '.join(one.uri for one in sources)} with {names}"


def _analyzers(
    chosen: Mapping[Task, str | Path | Analyzer | None],
    running: Mapping[str, Any],
    detection: Mapping[str, Any],
    labeling: tuple[Analyzer, ...] = (),
) -> tuple[Analyzer, ...]:
    """The analyzers that a call names; none named: the setting `detector`, or the only detector.

    Args:
        running: options of models.analyzer for every model.
        detection: options for detectors only.
        labeling: services; they come last, so that a picture which breaks a model costs nothing.
    """
    store = ModelStore(Path(settings.value("models", None, str)))
    named = {task: model for task, model in chosen.items() if model is not None}
    if not named and not labeling:
        setting = settings.value("detector", None, str)
        named = {"detector": setting} if setting else {}
    if not named and not labeling:
        file = models.default("detector", store)
        return (models.analyzer(file, **running, **detection),)
    found: list[Analyzer] = []
    for task, model in named.items():
        if task == "embedder" and str(model) == color_layout.NAME:
            found.append(color_layout.ColorLayout())
        elif isinstance(model, str | Path):
            file = models.resolve(str(model), task=task, store=store)
            options = detection if task == "detector" else {}
            found.append(models.analyzer(file, **running, **options))
        else:
            found.append(model)
    return (*found, *labeling)


def _load_early(analyzer: Analyzer) -> None:
    """Begins to load a model; what goes wrong is raised where the first shard needs it."""
    with suppress(VistadexError):
        analyzer.load()


def summarize(run: Run, seconds: float, labeling: Labeling) -> Summary:
    """The numbers of a run that took so long."""
    failed = run.failures.total()
    return Summary(
        images=run.listed,
        indexed=run.indexed,
        unchanged=run.unchanged,
        failed=failed,
        vanished=run.vanished,
        pruned=run.pruned,
        seconds=seconds,
        images_per_s=(run.indexed + failed) / seconds,
        peak_rss_bytes=peak_rss_bytes(),
        failures=dict(run.failures.most_common()),
        refused=run.refused,
        calls=labeling.calls,
        calls_usd=labeling.usd(labeling.calls),
        left=labeling.left,
        left_usd=labeling.usd(labeling.left),
    )
