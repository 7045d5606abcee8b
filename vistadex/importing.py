"""Annotations of other tools into the catalog, as results of the model "human".

The annotation file is read once into a spool that is sorted by picture, and walked beside the
listing of the pictures: any number of either in flat memory, whatever their order.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from vistadex.catalog import Catalog, reading, registering, writing
from vistadex.catalog.runs import Recorder
from vistadex.decoding import PictureSize, read_size
from vistadex.errors import DecodingError, SourceError, SourceMissingError, UsageError
from vistadex.fitting import Fitting, Origin, names_in, stated_size
from vistadex.formats import About, Format, Problems, open_format
from vistadex.loading import LoadSummary, can_load, load_open_images
from vistadex.origins import AnnotationOrigin, origin_id, origin_name
from vistadex.progress import Progress, Silent
from vistadex.records import (
    NOMINAL_SIDE,
    AnnotatedImage,
    Annotation,
    Detections,
    ImageEntry,
    Json,
    Relation,
    Relations,
    Task,
)
from vistadex.sources import Source, Target, named_as_picture, open_source, place_of
from vistadex.sources.retrying import with_retries
from vistadex.sources.spool import Spool

HEADER_BYTES = 64 << 10
"""What is read of a picture to learn its size; the whole where its header is longer."""
UNSEEN_AT_A_TIME = 2000
"""Images in one transaction where no picture is read."""
_Pair: TypeAlias = tuple[ImageEntry, list[AnnotatedImage]]
"""A picture, and what each origin says of it."""


def stem_of(name: str) -> str:
    """A picture's name without folders and ending."""
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


@dataclass(slots=True, kw_only=True)
class ImportSummary:
    """How a run of import_annotations() went."""

    images: int = 0
    """Named in the annotations."""
    imported: int = 0
    boxes: int = 0
    relations: int = 0
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
    image_url: str | None = None,
    attributes: Sequence[str] | None = None,
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
            where the format has a place for them, or is of use without (open-images, class-tables,
            vrd).
        image_url: where pictures are shown from that are not at hand: an address with the image's
            attributes, {image_id} or {key} in it, as https://host/{split}/{image_id}.jpg.
        attributes: which attributes of images are kept, by name; None: all.
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
    recorder = Recorder(store, "import", f"{format} from {path}", progress or Silent())
    try:
        with recorder:
            if images is None and chosen.columnar and can_load(path):
                loaded = load_open_images(
                    path,
                    catalog=store,
                    model=model,
                    image_url=image_url,
                    attributes=attributes,
                    report=report,
                    progress=recorder,
                )
                summary = _loaded(loaded)
                recorder.summary = asdict(summary)
                return summary
            with Problems(report) as problems, Spool() as spool:
                pictures = _Pictures.of(chosen, str(path), None if images is None else str(images))
                run = _Import(store, pictures, problems, spool, recorder)
                wanted = _kept(chosen.read(str(path), problems, reference), attributes, problems)
                run.collect(wanted)
                run.register(model, chosen.about(str(path)), image_url)
                run.walk()
                store.refresh()
                summary = run.summary
                summary.turned = run.fitting.turned
                summary.problems = dict(problems.counts.most_common())
                summary.first_problems = [str(one) for one in problems.first]
                summary.losses = dict(problems.losses)
                summary.report = str(report) if report is not None and problems.counts else None
            summary.seconds = time.monotonic() - started
            recorder.summary = asdict(summary)
    finally:
        if store is not catalog:
            store.close()
    return summary


def _kept(
    images: Iterator[AnnotatedImage], names: Sequence[str] | None, problems: Problems
) -> Iterator[AnnotatedImage]:
    """The images with those of their attributes alone that are wanted."""
    for image in images:
        if names is None:
            yield image
            continue
        for name in image.attributes.keys() - set(names):
            problems.lose(f"attributes {name!r}, which --attributes leaves out")
        kept = {name: value for name, value in image.attributes.items() if name in names}
        yield replace(image, attributes=kept)


def _loaded(done: LoadSummary) -> ImportSummary:
    """How a load by column went, as any import."""
    return ImportSummary(
        images=done.images,
        imported=done.images,
        boxes=done.boxes,
        relations=done.relations,
        class_names=done.class_names,
        problems=done.problems,
        first_problems=done.first_problems,
        losses=done.losses,
        report=done.report,
        seconds=done.seconds,
    )


def _need_no_file(known: Sequence[registering.KnownAnalyzer], name: str) -> None:
    """Raises: UsageError where a model of that name has looked itself: the two would be mixed."""
    if any(one.name == name and not one.sha256.startswith(reading.ANNOTATIONS) for one in known):
        raise UsageError(f"--model {name}: is a model that has looked at images; choose another")


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Where the pictures are, and how an annotation's file name becomes a key there."""

    uri: str
    """Address of the source."""
    source: Source | None
    """None where the pictures are not at hand."""
    prefix: str = ""
    """What keys have before the file names."""
    below: str = ""
    """What file names have before the keys."""
    by_stem: bool = False
    """Whether a file name stands for a picture of that name in any folder, with any ending."""

    @classmethod
    def of(cls, chosen: Format, path: str, images: str | None) -> _Pictures:
        """As the user says, or else as the format does.

        Raises: UsageError where neither says it.
        """
        root = chosen.root(path)
        if images is None and chosen.pictures_optional:
            return cls(place_of(path), None)
        if images is None and chosen.below_path:
            return cls.at(open_source(root))
        if images is None and chosen.pictures is not None:
            source = open_source(root)
            if isinstance(source, Target):
                return cls.at(open_source(f"{source.uri}/{chosen.pictures}"))
            return cls.at(source, prefix=chosen.pictures + "/")
        if images is None:
            raise UsageError(f"{path}: does not say where its pictures are; add --images SOURCE")
        source = open_source(images)
        top = open_source(root).uri + "/" if chosen.below_path else ""
        if top and source.uri.startswith(top):
            return cls.at(source, below=source.uri[len(top) :] + "/")
        return cls.at(source, by_stem=chosen.pictures_optional)

    @classmethod
    def at(
        cls, source: Source, *, prefix: str = "", below: str = "", by_stem: bool = False
    ) -> _Pictures:
        """Those of a source."""
        return cls(source.uri, source, prefix, below, by_stem)

    def key(self, file_name: str) -> str | None:
        """The key of an annotation's picture; None where it lies outside of the source."""
        if "://" in file_name:
            return file_name.removeprefix(self.uri.rstrip("/") + "/")
        if self.by_stem:
            return stem_of(file_name)
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
        self.names: dict[Origin, set[str]] = {}
        """Classes by who names them, and how."""
        self.registered: dict[Origin, registering.RegisteredAnalyzer] = {}
        self.index: dict[Origin, dict[str, int]] = {}
        self.fitting = Fitting(self.index, problems)
        self.source_id = 0

    def collect(self, images: Iterator[AnnotatedImage]) -> None:
        """Reads all annotations into the spool."""
        for image in images:
            self.summary.images += not image.origin
            for task, names in names_in(image).items():
                self.names.setdefault(Origin(image.origin, task), set()).update(names)
            key = self.pictures.key(image.file_name)
            if key is None:
                self.problems.lose("images of other folders than --images")
                continue
            self.spool.add(key, _to_json(image))
        self.summary.class_names = len(set[str]().union(*self.names.values()))

    def register(self, model: str, about: About, image_url: str | None) -> None:
        """Enters the source, and who says what, into the catalog."""
        with self.catalog.writing() as connection:
            _need_no_file(registering.all_analyzers(connection), model)
            uri = self.pictures.uri
            self.source_id = registering.register_source(connection, uri, image_url)
            for one in sorted(self.names):
                names = tuple(sorted(self.names[one]))
                name = origin_name(model, one.name)
                known = reading.model_card(connection, origin_id(name, one.task))
                card = self._card(known, name, one.task, about)
                origin = AnnotationOrigin(name, one.task, names, card)
                self.registered[one] = registering.register_analyzer(connection, origin)
                self.index[one] = {name: i for i, name in enumerate(names)}
            registering.describe_classes(
                connection, about.external_ids, about.descriptions, about.parents
            )

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
        """Goes through pictures and annotations together, in key order.

        Raises: SourceError where the pictures can't be listed.
        """
        if self.pictures.source is None:
            self._walk_unseen()
        elif self.pictures.by_stem:
            with Spool() as by_key:
                self._find_by_stem(self.pictures.source, by_key)
                self._walk_pictures(self.pictures.source, by_key)
        else:
            self._walk_pictures(self.pictures.source, self.spool)

    def _walk_unseen(self) -> None:
        """Takes annotations whose pictures are not at hand."""
        groups = self.spool.groups()
        while some := list(islice(groups, UNSEEN_AT_A_TIME)):
            self._take([(ImageEntry(key, None, ""), self._said(values)) for key, values in some])
            self._report()

    def _find_by_stem(self, source: Source, by_key: Spool) -> None:
        """Puts the annotations of each picture under its key, where they name it by its stem."""
        with Spool() as keys:
            for page in source.pages():
                for entry in page:
                    if named_as_picture(entry.key):
                        keys.add(stem_of(entry.key), entry.key)
            there = keys.groups()
            current = next(there, None)
            for stem, values in self.spool.groups():
                while current is not None and current[0] < stem:
                    current = next(there, None)
                if current is None or current[0] != stem:
                    self._no_picture(stem, values)
                    continue
                for key in current[1]:
                    for value in values:
                        by_key.add(key, value)

    def _walk_pictures(self, source: Source, spool: Spool) -> None:
        rows = spool.groups()
        current = next(rows, None)
        listed = 0
        for page in source.pages():
            pairs: list[_Pair] = []
            for entry in page:
                while current is not None and current[0] < entry.key:
                    self._no_picture(*current)
                    current = next(rows, None)
                if current is not None and current[0] == entry.key:
                    pairs.append((entry, self._said(current[1])))
                    current = next(rows, None)
                else:
                    self.summary.without_annotation += named_as_picture(entry.key)
            self._take(pairs)
            listed += len(page)
            self._report()
        if not listed:
            raise SourceMissingError(f"{source.uri}: no files found; check --images")
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

    def _said(self, values: Sequence[str]) -> list[AnnotatedImage]:
        """What each origin says of an image."""
        by_origin: dict[str, list[AnnotatedImage]] = {}
        for image in map(_from_json, values):
            by_origin.setdefault(image.origin, []).append(image)
        return [self._only(images) for images in by_origin.values()]

    def _only(self, images: Sequence[AnnotatedImage]) -> AnnotatedImage:
        """The one thing that is said of an image; the last where it is named more than once."""
        image = images[-1]
        for earlier in images[:-1]:
            self.problems.add(
                "same-picture",
                earlier.place,
                found=f"{image.file_name} is described again at {image.place}",
                expected="each picture once",
                cure="the last is used; merge the two",
            )
        return image

    def _no_picture(self, key: str, values: Sequence[str]) -> None:
        image = self._said(values)[0]
        self.problems.add(
            "no-picture",
            image.place,
            found=f"no picture {key!r} in {self.pictures.uri}",
            expected="the name of a picture that is there",
            cure="check --images, or add the picture",
        )

    def _take(self, pairs: Sequence[_Pair]) -> None:
        """Enters the annotations of a page of pictures, in one transaction."""
        sizes = self._sizes(pairs)
        seen = self.pictures.source is not None
        outcomes = [
            outcome
            for (entry, images), size in zip(pairs, sizes, strict=True)
            if size is not None
            and (outcome := self.fitting.outcome(entry, images, size, seen=seen)) is not None
        ]
        if not outcomes:
            return
        analyzers = list(self.registered.values())
        self.catalog.transaction(
            lambda connection: writing.write_annotations(
                connection, self.source_id, analyzers, outcomes
            )
        )
        self.summary.imported += len(outcomes)
        for result in (one for outcome in outcomes for one in outcome.results):
            if isinstance(result, Detections):
                self.summary.boxes += len(result.scores)
            elif isinstance(result, Relations):
                self.summary.relations += len(result.relations)

    def _sizes(self, pairs: Sequence[_Pair]) -> list[PictureSize | None]:
        """The size of each picture: as the catalog knows it, else from its header."""
        with self.catalog.reading() as connection:
            keys = [entry.key for entry, _ in pairs]
            known = reading.known_sizes(connection, self.source_id, keys)

        source = self.pictures.source
        if source is None:
            return [_unseen_size(images, known.get(entry.key)) for entry, images in pairs]

        def size(pair: _Pair) -> PictureSize | str:
            entry, images = pair
            version, width, height = known.get(entry.key, ("", 0, 0))
            stated = {stated_size(image) for image in images} - {None}
            if width and version == entry.version and stated <= {(width, height)}:
                return PictureSize(width, height, 1, width, height)
            return _read_size(source, entry)

        threads = source.read_ahead
        if threads:
            with ThreadPoolExecutor(threads) as pool:
                found = list(pool.map(size, pairs))
        else:
            found = list(map(size, pairs))
        return [self._good(source, *pair, one) for pair, one in zip(pairs, found, strict=True)]

    def _good(
        self,
        source: Source,
        entry: ImageEntry,
        images: Sequence[AnnotatedImage],
        size: PictureSize | str,
    ) -> PictureSize | None:
        if not isinstance(size, str):
            return size
        self.problems.add(
            "bad-picture",
            images[0].place,
            found=f"{source.image_uri(entry.key)}: {size}",
            expected="a picture whose size can be read",
            cure="restore the picture and import again",
        )
        return None


def _unseen_size(
    images: Sequence[AnnotatedImage], known: tuple[str, int, int] | None
) -> PictureSize:
    """The frame of boxes in a picture that is not at hand: as known, as stated, or nominal."""
    stated = [(one.width, one.height) for one in images if one.width and one.height]
    width, height = stated[0] if stated else (0, 0)
    if any(one.relative for one in images):
        width, height = NOMINAL_SIDE, NOMINAL_SIDE
    if known is not None:
        width, height = known[1:]
    return PictureSize(width or 0, height or 0, 1, width or 0, height or 0)


def _merged(old: Json, new: Json) -> Json:
    """What two sets say of themselves, side by side: lists joined, other values the new ones."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        return old + [one for one in new if one not in old]
    return new


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
    for name in ("boxes", "relations"):
        if values[name] is not None:
            values[name] = [[getattr(one, part) for part in one.__slots__] for one in values[name]]
    return json.dumps(values, ensure_ascii=False)


def _from_json(text: str) -> AnnotatedImage:
    values = json.loads(text)
    if values["boxes"] is not None:
        boxes = values["boxes"]
        values["boxes"] = tuple(Annotation(name, tuple(box), *more) for name, box, *more in boxes)
    for name in ("classes", "class_scores"):
        if values[name] is not None:
            values[name] = tuple(values[name])
    if values["relations"] is not None:
        values["relations"] = tuple(
            Relation(s, p, o, tuple(a) if a else None, tuple(b) if b else None, score)
            for s, p, o, a, b, score in values["relations"]
        )
    return AnnotatedImage(**values)
