"""Annotations of other tools into the catalog, as results of the model "human".

The annotation file is read once into a spool that is sorted by picture, and walked beside the
listing of the pictures: any number of either in flat memory, whatever their order.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from vistadex.boxes import turn
from vistadex.catalog import Catalog, reading, writing
from vistadex.decoding import PictureSize, read_size
from vistadex.errors import DecodingError, SourceError, SourceMissingError, UsageError
from vistadex.formats import About, Format, Problems, open_format
from vistadex.progress import Progress, Silent
from vistadex.records import (
    AnnotatedImage,
    Annotation,
    Classification,
    Detections,
    ImageEntry,
    Json,
    Model,
    Outcome,
    Task,
)
from vistadex.sources import Source, Target, named_as_picture, open_source
from vistadex.sources.retrying import with_retries
from vistadex.sources.spool import Spool

HEADER_BYTES = 64 << 10
"""What is read of a picture to learn its size; the whole where its header is longer."""
OVERHANG = 1.0
"""A box stays as it is stated where it leaves its picture by no more pixels: rounding does that."""
_Pair: TypeAlias = tuple[ImageEntry, AnnotatedImage]


@dataclass(slots=True, kw_only=True)
class ImportSummary:
    """How a run of import_annotations() went."""

    images: int = 0
    """Named in the annotations."""
    imported: int = 0
    boxes: int = 0
    class_names: int = 0
    without_annotation: int = 0
    """Pictures of the source that the annotations don't name."""
    turned: int = 0
    """Images whose boxes were given for the picture as stored and not as shown."""
    problems: dict[str, int] = field(default_factory=dict)
    """What could not be used, by kind."""
    first_problems: list[str] = field(default_factory=list)
    losses: dict[str, int] = field(default_factory=dict)
    """What the file says and the catalog has no place for, with how often."""
    report: str | None = None
    """The file with every problem."""
    seconds: float = 0.0


def import_annotations(
    format: str,
    path: str | Path,
    *,
    images: str | Path | None = None,
    model: str = "human",
    reference: str | None = None,
    report: Path | None = None,
    catalog: str | Path | Catalog | None = None,
    progress: Progress | None = None,
) -> ImportSummary:
    """Enters what annotation files say of pictures into the catalog, beside what models find.

    Importing again puts what the file says now in place of what it said before, image by image.

    Args:
        format: one of vistadex.formats.FORMATS.
        path: the annotation file, folder or archive, local or in a bucket.
        images: the folder, bucket, archive or manifest with the pictures, as it is indexed; None
            where the format has a place for them.
        model: the name under which they stand in the catalog: whose annotations they are.
        reference: for coco-results, the instances file that explains its numbers.
        report: file that gets every problem, one JSON object a line.
        catalog: file name or URL, made where it is missing; None: the setting.
        progress: is told how far the run is.
    Raises: UsageError, FormatError, SourceError or CatalogError where nothing can be imported; a
        damaged line, or a picture that is missing, is counted in the summary.
    """
    started = time.monotonic()
    chosen = open_format(format)
    if report is not None and report.resolve() == Path(path).resolve():
        raise UsageError(f"{report}: holds the annotations; choose another --report")
    store = catalog if isinstance(catalog, Catalog) else Catalog(catalog, create=True)
    try:
        with Problems(report) as problems, Spool() as spool:
            pictures = _Pictures.of(chosen, str(path), None if images is None else str(images))
            run = _Import(store, pictures, problems, spool, progress or Silent())
            run.collect(chosen.read(str(path), problems, reference))
            run.register(model, chosen.about(str(path)))
            run.walk()
            summary = run.summary
            summary.problems = dict(problems.counts.most_common())
            summary.first_problems = [str(one) for one in problems.first]
            summary.losses = dict(problems.losses)
            summary.report = str(report) if report is not None and problems.counts else None
    finally:
        if store is not catalog:
            store.close()
    summary.seconds = time.monotonic() - started
    return summary


@dataclass(frozen=True, slots=True)
class AnnotationOrigin:
    """Whose annotations these are, as an analyzer that has looked at images already."""

    name: str
    task: Task
    classes: tuple[str, ...]
    card: Mapping[str, Json]
    parameters: Mapping[str, Json] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Identity; told from that of a file by its beginning."""
        return origin_id(self.name, self.task)

    def load(self) -> Model:
        """Raises UsageError: people can't be called."""
        raise UsageError(f"{self.name}: is an origin of annotations, expected a model to run")


def origin_id(name: str, task: Task) -> str:
    """What stands in the catalog in place of a file's SHA-256."""
    digest = hashlib.sha256(f"{task}/{name}".encode()).hexdigest()
    return reading.ANNOTATIONS + digest[: 64 - len(reading.ANNOTATIONS)]


def _need_no_file(known: Sequence[reading.Analyzer], name: str) -> None:
    """Raises: UsageError where a model of that name has looked itself: the two would be mixed."""
    if any(one.name == name and not one.sha256.startswith(reading.ANNOTATIONS) for one in known):
        raise UsageError(f"--model {name}: is a model that has looked at images; choose another")


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Where the pictures are, and how an annotation's file name becomes a key there."""

    source: Source
    prefix: str = ""
    """What keys have before the file names."""
    below: str = ""
    """What file names have before the keys."""

    @classmethod
    def of(cls, chosen: Format, path: str, images: str | None) -> _Pictures:
        """As the user says, or else as the format does.

        Raises: UsageError where neither says it.
        """
        root = chosen.root(path)
        if images is None and chosen.below_path:
            return cls(open_source(root))
        if images is None and chosen.pictures is not None:
            source = open_source(root)
            if isinstance(source, Target):
                return cls(open_source(f"{source.uri}/{chosen.pictures}"))
            return cls(source, prefix=chosen.pictures + "/")
        if images is None:
            raise UsageError(f"{path}: does not say where its pictures are; add --images SOURCE")
        source = open_source(images)
        top = open_source(root).uri + "/" if chosen.below_path else ""
        if top and source.uri.startswith(top):
            return cls(source, below=source.uri[len(top) :] + "/")
        return cls(source)

    def key(self, file_name: str) -> str | None:
        """The key of an annotation's picture; None where it lies outside of the source."""
        if "://" in file_name:
            return file_name.removeprefix(self.source.uri.rstrip("/") + "/")
        name = file_name.removeprefix("./")
        if not name.startswith(self.below):
            return None
        return self.prefix + name[len(self.below) :]


class _Import:
    """One import: the spool of annotations, and the walk beside the listing."""

    def __init__(
        self,
        catalog: Catalog,
        pictures: _Pictures,
        problems: Problems,
        spool: Spool,
        progress: Progress,
    ) -> None:
        self.catalog, self.pictures, self.problems = catalog, pictures, problems
        self.spool, self.progress = spool, progress
        self.summary = ImportSummary()
        self.names: dict[Task, set[str]] = {"detector": set(), "classifier": set()}
        self.said: set[Task] = set()
        self.registered: dict[Task, writing.RegisteredAnalyzer] = {}
        self.index: dict[Task, dict[str, int]] = {}
        self.source_id = 0

    def collect(self, images: Iterator[AnnotatedImage]) -> None:
        """Reads all annotations into the spool."""
        for image in images:
            self.summary.images += 1
            if image.boxes is not None:
                self.said.add("detector")
                self.names["detector"].update(box.class_name for box in image.boxes)
            if image.classes is not None:
                self.said.add("classifier")
                self.names["classifier"].update(image.classes)
            key = self.pictures.key(image.file_name)
            if key is None:
                self.problems.lose("images of other folders than --images")
                continue
            self.spool.add(key, _to_json(image))
        self.summary.class_names = len(self.names["detector"] | self.names["classifier"])

    def register(self, model: str, about: About) -> None:
        """Enters the source, and who says what, into the catalog."""
        with self.catalog.writing() as connection:
            _need_no_file(reading.all_analyzers(connection), model)
            self.source_id = writing.register_source(connection, self.pictures.source.uri)
            for task in sorted(self.said):
                names = tuple(sorted(self.names[task]))
                known = reading.model_card(connection, origin_id(model, task))
                card = self._card(known, model, task, about)
                origin = AnnotationOrigin(model, task, names, card)
                self.registered[task] = writing.register_analyzer(connection, origin)
                self.index[task] = {name: i for i, name in enumerate(names)}

    def _card(
        self, known: Mapping[str, Json], model: str, task: Task, about: About
    ) -> dict[str, Json]:
        """What was known of the origin, and what this set adds; a class keeps its number."""
        numbers = known.get("category_ids", {})
        ids: dict[str, Json] = dict(numbers) if isinstance(numbers, Mapping) else {}
        names = {number: name for name, number in ids.items()}
        for name, number in about.category_ids.items():
            holder = names.setdefault(number, name)
            if ids.setdefault(name, number) != number or holder != name:
                if holder != name and ids[name] == number:
                    del ids[name]  # an export gives it the next free one
                self._other_number(name, number, ids.get(name), str(holder))
        more = _merged(known.get("about", {}), dict(about.attributes))
        return {"name": model, "task": task, "category_ids": ids, "about": more}

    def _other_number(self, name: str, number: int, kept: Json, holder: str) -> None:
        """Notes that a class does not keep its number at export."""
        self.problems.add(
            "category-id",
            "categories",
            found=f"{name!r} has the number {number}",
            expected=f"{kept}, as before" if kept else f"a free one: {holder!r} has it",
            cure="an export writes another; import into another catalog to keep this one",
        )

    def walk(self) -> None:
        """Goes through pictures and annotations together, in key order."""
        rows = self.spool.groups()
        current = next(rows, None)
        listed = 0
        for page in self.pictures.source.pages():
            pairs: list[_Pair] = []
            for entry in page:
                while current is not None and current[0] < entry.key:
                    self._no_picture(*current)
                    current = next(rows, None)
                if current is not None and current[0] == entry.key:
                    pairs.append((entry, self._only(current[1])))
                    current = next(rows, None)
                else:
                    self.summary.without_annotation += named_as_picture(entry.key)
            self._take(pairs)
            listed += len(page)
            self._report()
        if not listed:
            uri = self.pictures.source.uri
            raise SourceMissingError(f"{uri}: no files found; check --images")
        while current is not None:
            self._no_picture(*current)
            current = next(rows, None)

    def _report(self) -> None:
        self.progress.update(
            listed=self.summary.images,
            listing=False,
            done=self.summary.imported,
            failed=self.problems.counts["no-picture"] + self.problems.counts["bad-picture"],
        )

    def _only(self, values: Sequence[str]) -> AnnotatedImage:
        """The one thing that is said of an image; the last where it is named more than once."""
        image = _from_json(values[-1])
        for earlier in map(_from_json, values[:-1]):
            self.problems.add(
                "same-picture",
                earlier.place,
                found=f"{image.file_name} is described again at {image.place}",
                expected="each picture once",
                cure="the last is used; merge the two",
            )
        return image

    def _no_picture(self, key: str, values: Sequence[str]) -> None:
        image = self._only(values)
        self.problems.add(
            "no-picture",
            image.place,
            found=f"no picture {key!r} in {self.pictures.source.uri}",
            expected="the name of a picture that is there",
            cure="check --images, or add the picture",
        )

    def _take(self, pairs: Sequence[_Pair]) -> None:
        """Enters the annotations of a page of pictures, in one transaction."""
        sizes = self._sizes(pairs)
        outcomes = [
            outcome
            for (entry, image), size in zip(pairs, sizes, strict=True)
            if size is not None and (outcome := self._outcome(entry, image, size)) is not None
        ]
        if not outcomes:
            return
        analyzers = [self.registered[task] for task in sorted(self.said)]
        with self.catalog.writing() as connection:
            writing.write_annotations(connection, self.source_id, analyzers, outcomes)
        self.summary.imported += len(outcomes)
        for outcome in outcomes:
            for result in outcome.results:
                self.summary.boxes += len(result.scores) if isinstance(result, Detections) else 0

    def _sizes(self, pairs: Sequence[_Pair]) -> list[PictureSize | None]:
        """The size of each picture: as the catalog knows it, else from its header."""
        with self.catalog.reading() as connection:
            keys = [entry.key for entry, _ in pairs]
            known = reading.known_sizes(connection, self.source_id, keys)

        def size(pair: _Pair) -> PictureSize | str:
            entry, image = pair
            version, width, height = known.get(entry.key, ("", 0, 0))
            if width and version == entry.version and _says(image) in (None, (width, height)):
                return PictureSize(width, height, 1, width, height)
            return _read_size(self.pictures.source, entry)

        threads = self.pictures.source.read_ahead
        if threads:
            with ThreadPoolExecutor(threads) as pool:
                found = list(pool.map(size, pairs))
        else:
            found = list(map(size, pairs))
        return [self._good(*pair, one) for pair, one in zip(pairs, found, strict=True)]

    def _good(
        self, entry: ImageEntry, image: AnnotatedImage, size: PictureSize | str
    ) -> PictureSize | None:
        if not isinstance(size, str):
            return size
        self.problems.add(
            "bad-picture",
            image.place,
            found=f"{self.pictures.source.image_uri(entry.key)}: {size}",
            expected="a picture whose size can be read",
            cure="restore the picture and import again",
        )
        return None

    def _outcome(
        self, entry: ImageEntry, image: AnnotatedImage, size: PictureSize
    ) -> Outcome | None:
        """What the catalog gets; None where the annotation is of another picture."""
        boxes = None if image.boxes is None else self._in_pixels(image, size)
        if image.boxes is not None and boxes is None:
            return None
        results = {
            "detector": None if boxes is None else self._detections(boxes),
            "classifier": None if image.classes is None else self._classification(image.classes),
        }
        entry = replace(entry, attributes=dict(image.attributes))
        ordered = tuple(results[task] for task in sorted(self.said))
        return Outcome(entry, size.width, size.height, ordered)

    def _in_pixels(self, image: AnnotatedImage, size: PictureSize) -> list[Annotation] | None:
        """The boxes in pixels of the upright picture; None where they are for another size."""
        boxes = image.boxes or ()
        corners = np.array([box.box_xyxy for box in boxes], np.float64).reshape(-1, 4)
        stated, upright = _says(image), (size.width, size.height)
        if image.relative:
            corners *= np.array(upright * 2)
        elif stated not in (None, upright):
            if size.orientation < 5 or stated != (size.stored_width, size.stored_height):
                self._other_size(image, size)
                return None
            corners = turn(corners, size.orientation, *stated)
            self.summary.turned += 1
        return [
            replace(box, box_xyxy=inside)
            for box, corner in zip(boxes, corners.tolist(), strict=True)
            if (inside := self._inside(image, box, corner, upright)) is not None
        ]

    def _other_size(self, image: AnnotatedImage, size: PictureSize) -> None:
        self.problems.add(
            "other-size",
            image.place,
            found=f"boxes for a picture of {image.width} x {image.height} pixels",
            expected=f"{size.width} x {size.height}, the size of {image.file_name}",
            cure="scale the boxes, or restore the picture that was annotated",
        )

    def _inside(
        self,
        image: AnnotatedImage,
        box: Annotation,
        corners: list[float],
        size_wh: tuple[int, int],
    ) -> tuple[float, float, float, float] | None:
        """A box, cut off where it leaves the picture; None where nothing is left of it."""
        width, height = size_wh
        x0, y0, x1, y1 = corners
        cut = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
        empty = cut[0] >= cut[2] or cut[1] >= cut[3]
        if not empty and max(-x0, -y0, x1 - width, y1 - height) <= OVERHANG:
            return x0, y0, x1, y1
        self.problems.add(
            "outside" if empty else "cut-off",
            image.place,
            found=f"{box.class_name} at {', '.join(f'{one:g}' for one in corners)}",
            expected=f"a box within {width} x {height} pixels",
            cure="it was left out; mend it" if empty else "it was cut off there; mend it",
        )
        return None if empty else cut

    def _detections(self, boxes: list[Annotation]) -> Detections:
        index = self.index["detector"]
        ordered = sorted(boxes, key=lambda box: -box.score)
        return Detections(
            np.array([box.box_xyxy for box in ordered], np.float64).reshape(-1, 4),
            np.array([box.score for box in ordered], np.float64),
            np.array([index[box.class_name] for box in ordered], np.int64),
            [box.flags for box in ordered],
            [box.attributes for box in ordered],
        )

    def _classification(self, names: Sequence[str]) -> Classification:
        index = self.index["classifier"]
        ids = np.array([index[name] for name in dict.fromkeys(names)], np.int64)
        return Classification(np.ones(len(ids), np.float32), ids)


def _merged(old: Json, new: Json) -> Json:
    """What two sets say of themselves, side by side: lists joined, other values the new ones."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        return old + [one for one in new if one not in old]
    return new


def _says(image: AnnotatedImage) -> tuple[int, int] | None:
    """The size that the annotation states, where its boxes depend on it."""
    if image.boxes is None or image.relative or image.width is None or image.height is None:
        return None
    return image.width, image.height


def _read_size(source: Source, entry: ImageEntry) -> PictureSize | str:
    """A picture's size from its header, or why it can't be had."""
    if entry.failure is not None:
        return entry.failure.message
    try:
        try:
            return read_size(with_retries(lambda: source.read_start(entry.key, HEADER_BYTES)))
        except DecodingError as error:
            if error.reason != "truncated":
                raise
            return read_size(with_retries(lambda: source.read(entry.key)).data)
    except (DecodingError, SourceError) as error:
        return str(error)


def _to_json(image: AnnotatedImage) -> str:
    values = {name: getattr(image, name) for name in image.__slots__}
    if image.boxes is not None:
        values["boxes"] = [[getattr(box, name) for name in box.__slots__] for box in image.boxes]
    return json.dumps(values, ensure_ascii=False)


def _from_json(text: str) -> AnnotatedImage:
    values = json.loads(text)
    if values["boxes"] is not None:
        boxes = values["boxes"]
        values["boxes"] = tuple(Annotation(name, tuple(box), *more) for name, box, *more in boxes)
    if values["classes"] is not None:
        values["classes"] = tuple(values["classes"])
    return AnnotatedImage(**values)
