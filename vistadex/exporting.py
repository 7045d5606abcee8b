"""What the catalog knows of images, written in an annotation format of other tools."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from vistadex.assembling import (
    AT_A_TIME,
    MACHINE,
    WITH_ORIGINS,
    Assembler,
    Pictures,
    Refusal,
    note,
)
from vistadex.catalog import Catalog, IndexedImage, reading
from vistadex.errors import FormatError, SourceError, UsageError
from vistadex.formats import Format, Problems, open_format
from vistadex.origins import origin_name
from vistadex.progress import Progress, Silent
from vistadex.records import AnnotatedImage
from vistadex.sources import open_target


@dataclass(slots=True, kw_only=True)
class ExportSummary:
    """How a run of export_annotations() went."""

    path: str = ""
    """What was written."""
    images: int = 0
    boxes: int = 0
    relations: int = 0
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
        model: whose boxes and classes; "human" for what was imported. Open Images gets the labels
            of a machine that were imported with them, too.
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
            assemblers = _assemblers(store, format, model, min_score)
            run = _Export(assemblers, chosen, part, pictures, problems)
            run.progress = progress or Silent()
            try:
                own = assemblers[0]
                chosen.write(part, run.images(query), own.class_names(), own.about())
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


def _assemblers(
    catalog: Catalog, format: str, model: str, min_score: float
) -> tuple[Assembler, ...]:
    """Who assembles what the model said, and what a machine said beside it."""
    own = Assembler(catalog, format, model, min_score)
    machine = origin_name(model, MACHINE)
    labels = [one for one in own.others if one.name == machine and one.task == "classifier"]
    if format not in WITH_ORIGINS or not labels:
        return (own,)
    return own, Assembler(catalog, format, machine, min_score, labels_of=MACHINE)


def _why(query: str, model: str, problems: Problems) -> str:
    left_out = ", ".join(f"{number} {kind}" for kind, number in problems.counts.items())
    found = f"the images that {query!r} finds" if query else "the catalog's images"
    return f"{found} have nothing of {model!r}" + (f" ({left_out})" if left_out else "")


class _Export:
    """One export: the catalog's images as the format wants them."""

    def __init__(
        self,
        assemblers: Sequence[Assembler],
        chosen: Format,
        part: Path,
        pictures: bool,
        problems: Problems,
    ) -> None:
        self.assemblers, self.format, self.part = assemblers, chosen, part
        self.problems = problems
        self.progress: Progress = Silent()
        self.summary = ExportSummary()
        self.pictures = Pictures() if pictures else None

    def images(self, query: str) -> Iterator[AnnotatedImage]:
        """Every image to write, with its picture in place where that is wanted.

        An image of which two origins speak comes once for each, one after the other.
        """
        catalog = self.assemblers[0].catalog
        with catalog.reading() as connection:
            shared = reading.shared_keys(connection)
        taken: set[str] = set()
        for found, said in self._assembled(catalog.walk(query)):
            if found.key in taken:
                what = f"another image is named {said[0].file_name}"
                note(self.problems, found, Refusal("same-name", what))
                continue
            if found.key in shared:
                taken.add(found.key)
            refusal = self._place(found, said[0])
            if refusal is not None:
                note(self.problems, found, refusal)
                continue
            self.summary.images += 1
            self.progress.update(
                listed=self.summary.images, listing=True, done=self.summary.images, failed=0
            )
            for image in said:
                self.summary.boxes += len(image.boxes or ())
                self.summary.relations += len(image.relations or ())
                yield image

    def _assembled(
        self, images: Iterable[IndexedImage]
    ) -> Iterator[tuple[IndexedImage, list[AnnotatedImage]]]:
        """Those images of which anybody said something; what can't be written is a problem."""
        waiting = iter(images)
        while some := list(islice(waiting, AT_A_TIME)):
            each = zip(*(one.each(some) for one in self.assemblers), strict=True)
            for found, made in zip(some, each, strict=True):
                refused = [one for _, one in made if isinstance(one, Refusal)]
                said = [one for _, one in made if isinstance(one, AnnotatedImage)]
                if refused:
                    note(self.problems, found, refused[0])
                elif said:
                    yield found, said

    def _place(self, found: IndexedImage, image: AnnotatedImage) -> Refusal | None:
        """Copies the picture where that is wanted; why the image can't be written."""
        try:
            place = self.format.picture_path(image)
        except FormatError as error:
            return Refusal("not-writable", str(error))
        if self.pictures is None:
            return None
        if place is None:
            raise UsageError("this format has no place for pictures; leave --pictures out")
        data = self.pictures.read(found)
        if isinstance(data, Refusal):
            return data
        try:
            open_target(self.part).write(place, [data], len(data))
        except SourceError as error:
            return Refusal("unreadable", str(error))
        self.summary.pictures += 1
        return None
