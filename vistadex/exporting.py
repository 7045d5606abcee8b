"""What the catalog knows of images, written in an annotation format of other tools."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from vistadex.catalog import Catalog, FoundClass, IndexedImage, reading
from vistadex.errors import FormatError, QueryError, SourceError, UsageError
from vistadex.formats import About, Format, Problems, open_format
from vistadex.progress import Progress, Silent
from vistadex.records import AnnotatedImage, Annotation, Json
from vistadex.sources import Source, local_key, open_source, open_target
from vistadex.sources.retrying import with_retries

AT_A_TIME = 500
"""Images whose classes are read at once."""


@dataclass(slots=True, kw_only=True)
class ExportSummary:
    """How a run of export_annotations() went."""

    path: str = ""
    """What was written."""
    images: int = 0
    boxes: int = 0
    pictures: int = 0
    """Copied."""
    problems: dict[str, int] = field(default_factory=dict)
    """Images that are not in what was written, by kind."""
    first_problems: list[str] = field(default_factory=list)
    losses: tuple[str, ...] = ()
    """What the format has no place for."""
    report: str | None = None
    """The file with every problem."""
    seconds: float = 0.0


def export_annotations(
    format: str,
    out: Path,
    *,
    query: str = "",
    model: str = "human",
    min_score: float = 0.0,
    pictures: bool = False,
    report: Path | None = None,
    catalog: str | Path | Catalog | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Writes what people or a model said of images as files of other tools.

    It is written beside its place and moved there when it is complete.

    Args:
        format: one of vistadex.formats.FORMATS.
        out: the file or folder to write; there must be none yet.
        query: only images that this finds; see vistadex.grammar.
        model: whose boxes and classes; "human" for what was imported.
        min_score: boxes and classes with a lower score are left out.
        pictures: copy the pictures to where the format has them.
        report: file that gets every problem, one JSON object a line.
        catalog: file name or URL; None: the setting.
        progress: is told how far the run is.
    Raises: UsageError, QueryError, FormatError or CatalogError where nothing can be written.
    """
    started = time.monotonic()
    chosen = open_format(format)
    if out.exists():
        raise UsageError(f"{out}: is there already; choose another name, or remove it")
    if not 0 <= min_score <= 1:
        raise UsageError(f"min_score={min_score}: expected 0 to 1")
    if report is not None and report.resolve() == out.resolve():
        raise UsageError(f"{report}: is what is to be written; choose another --report")
    store = catalog if isinstance(catalog, Catalog) else Catalog(catalog)
    try:
        with ExitStack() as stack:
            if store is not catalog:
                stack.callback(store.close)
            folder = tempfile.mkdtemp(prefix=f".writing-{out.name}-", dir=out.parent)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            part = Path(folder) / out.name
            problems = stack.enter_context(Problems(report))
            run = _Export(store, chosen, part, model, min_score, pictures, problems)
            run.progress = progress or Silent()
            try:
                chosen.write(part, run.images(query), run.class_names(), run.about())
            except FormatError as error:
                raise FormatError(str(error).replace(str(part), str(out))) from error
            if not run.summary.images:
                raise FormatError(f"{out}: nothing to write: {_why(query, model, problems)}")
            os.replace(part, out)
    except OSError as error:
        raise FormatError(f"{out}: can't be written: {error.strerror or error}") from error
    run.summary.path = str(out)
    run.summary.problems = dict(problems.counts.most_common())
    run.summary.first_problems = [str(one) for one in problems.first]
    run.summary.losses = chosen.losses
    run.summary.report = str(report) if report is not None and problems.counts else None
    run.summary.seconds = time.monotonic() - started
    return run.summary


def _why(query: str, model: str, problems: Problems) -> str:
    left_out = ", ".join(f"{number} {kind}" for kind, number in problems.counts.items())
    found = f"the images that {query!r} finds" if query else "the catalog's images"
    return f"{found} have nothing of {model!r}" + (f" ({left_out})" if left_out else "")


class _Export:
    """One export: the catalog's images as the format wants them."""

    def __init__(
        self,
        catalog: Catalog,
        chosen: Format,
        part: Path,
        model: str,
        min_score: float,
        pictures: bool,
        problems: Problems,
    ) -> None:
        self.catalog, self.format, self.part = catalog, chosen, part
        self.min_score, self.problems = min_score, problems
        self.pictures = pictures
        self.progress: Progress = Silent()
        self.summary = ExportSummary()
        self.sources: dict[str, Source] = {}
        with catalog.reading() as connection:
            known = reading.all_analyzers(connection)
        self.analyzers = [one for one in known if one.name == model and one.task != "embedder"]
        self.others = [one for one in known if one not in self.analyzers]
        if not self.analyzers:
            names = ", ".join(sorted({one.name for one in known})) or "none yet"
            raise QueryError(f"no model is named {model!r}; known are: {names}")

    def class_names(self) -> tuple[str, ...]:
        with self.catalog.reading() as connection:
            names = [reading.class_names(connection, one.id) for one in self.analyzers]
        return tuple(sorted({name for some in names for name in some}))

    def about(self) -> About:
        ids: dict[str, int] = {}
        attributes: dict[str, Json] = {}
        # A detector's classes have the numbers that annotations have given them.
        order = [*self.others, *self.analyzers]
        with self.catalog.reading() as connection:
            cards = [reading.model_card(connection, one.sha256) for one in order]
        for card in cards:
            for name, number in card.get("category_ids", {}).items():
                ids = {other: n for other, n in ids.items() if n != number}
                ids[name] = number
        for card in cards[len(self.others) :]:
            attributes |= card.get("about", {})
        return About(category_ids=ids, attributes=attributes)

    def images(self, query: str) -> Iterator[AnnotatedImage]:
        """Every image to write, with its picture in place where that is wanted."""
        with self.catalog.reading() as connection:
            shared = reading.shared_keys(connection)
        taken: set[str] = set()
        for found, image in self._annotated(self.catalog.walk(query)):
            if found.key in taken:
                self.problem(found, "same-name", f"another image is named {image.file_name}")
                continue
            if found.key in shared:
                taken.add(found.key)
            if not self._place(found, image):
                continue
            self.summary.images += 1
            self.summary.boxes += len(image.boxes or ())
            self.progress.update(
                listed=self.summary.images, listing=True, done=self.summary.images, failed=0
            )
            yield image

    def problem(self, found: IndexedImage, kind: str, what: str) -> None:
        """Notes an image that is left out."""
        self.problems.add(
            kind,
            found.uri,
            found=what,
            expected="an image that can be written",
            cure="narrow the query, for instance with source:NAME",
        )

    def _annotated(
        self, images: Iterator[IndexedImage]
    ) -> Iterator[tuple[IndexedImage, AnnotatedImage]]:
        """The images that this model has seen, as the format gets them."""
        while some := list(islice(images, AT_A_TIME)):
            classes: dict[int, dict[int, list[FoundClass]]] = {}
            with self.catalog.reading() as connection:
                for one in self.analyzers:
                    if one.task == "classifier":
                        ids = [found.id for found in some]
                        classes[one.id] = reading.classes_of(connection, ids, one.id)
            for found in some:
                # With other parameters a model is another analyzer: the newest counts.
                seen = sorted(one for one in self.analyzers if one.id in found.analyzer_ids)
                newest = {one.task: one.id for one in seen}
                if newest and self._is_whole(found):
                    said = classes.get(newest.get("classifier", 0), {}).get(found.id, [])
                    yield found, self._image(found, newest, said)

    def _is_whole(self, found: IndexedImage) -> bool:
        if found.status != "ok" or not found.width:
            self.problem(found, found.status, f"the picture is {found.reason or found.status}")
            return False
        return True

    def _image(
        self, found: IndexedImage, newest: Mapping[str, int], said: Sequence[FoundClass]
    ) -> AnnotatedImage:
        boxes, classes = None, None
        if "detector" in newest:
            boxes = tuple(self._boxes(found, newest["detector"]))
        if "classifier" in newest:
            classes = tuple(one.class_name for one in said if one.score >= self.min_score)
        return AnnotatedImage(
            file_name=local_key(found.source, found.key),
            place=found.uri,
            width=found.width,
            height=found.height,
            boxes=boxes,
            classes=classes,
            attributes=found.attributes,
        )

    def _boxes(self, found: IndexedImage, analyzer_id: int) -> Iterator[Annotation]:
        for box in found.boxes:
            if box.analyzer_id == analyzer_id and box.score >= self.min_score:
                yield Annotation(
                    box.class_name, box.box_xyxy, box.score, box.flags, dict(box.attributes)
                )

    def _place(self, found: IndexedImage, image: AnnotatedImage) -> bool:
        """Copies the picture where that is wanted; whether the image can be written."""
        try:
            place = self.format.picture_path(image)
        except FormatError as error:
            self.problem(found, "not-writable", str(error))
            return False
        if not self.pictures:
            return True
        if place is None:
            raise UsageError("this format has no place for pictures; leave --pictures out")
        source = self.sources.get(found.source) or open_source(found.source)
        self.sources[found.source] = source
        try:
            content = with_retries(lambda: source.read(found.key))
            if content.version not in ("", found.version):
                what = "the picture has changed since it was indexed or annotated"
                self.problem(found, "changed-picture", what)
                return False
            open_target(self.part).write(place, [content.data], len(content.data))
        except SourceError as error:
            self.problem(found, "unreadable", str(error))
            return False
        self.summary.pictures += 1
        return True
