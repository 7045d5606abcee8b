"""Sets of annotated pictures, for training and for measuring, whatever format they come in.

Shape letters: N boxes of an image, K classes that are said of the whole of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from vistadex import records
from vistadex.assembling import Assembler, Refusal, note
from vistadex.catalog import Catalog
from vistadex.decoding import PictureSize, read_size
from vistadex.errors import DecodingError, FormatError, SourceError, UsageError
from vistadex.fitting import Fitting, Origin
from vistadex.formats import Format, Problem, Problems, open_format
from vistadex.formats.folders import SPLITS, top_names
from vistadex.formats.open_images_layout import find as find_open_images
from vistadex.records import Classification, Detections, DoubleArray, FloatArray, ImageEntry
from vistadex.sources import Content, Source, Target, named_as_picture, open_source, place_of
from vistadex.sources.retrying import with_retries

CATALOG = "catalog"
"""What stands in place of a path where the annotations are those of a catalog."""
PEOPLE = "human"
"""Whose annotations a catalog's are."""
_HEADER_BYTES = 64 << 10
"""What is read of a picture to learn its size; the whole where its header is longer."""
_AT_A_TIME = 500
_BOXES = Origin("", "detector")
_LABELS = Origin("", "classifier")
_PARTS = {"trainval": frozenset({"train", "val", "trainval"})}
"""Splits that are several."""
BoolArray = NDArray[np.bool_]
LabelArray = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One picture of a set, and the truth about it."""

    uri: str
    """The picture's path or address."""
    key: str
    """The picture's name below its source."""
    width: int
    """Columns of the upright picture."""
    height: int
    boxes: FloatArray
    """(N, 4) xyxy, pixels of the upright picture, half-open."""
    labels: LabelArray
    """(N,) positions in the set's classes."""
    crowd: BoolArray
    """(N,) COCO's iscrowd: several things in one box."""
    difficult: BoolArray
    """(N,) VOC's flag: neither finding nor missing it counts."""
    area: DoubleArray
    """(N,) pixels of the object where the file says it (COCO's segments), else of the box."""
    group_of: BoolArray
    """(N,) Open Images' IsGroupOf; the same flag as crowd."""
    classes_of_image: LabelArray
    """(K,) classes of the whole image."""
    classes_absent: LabelArray
    """(K,) classes that people have looked for and not found."""


class _Names(dict[str, int]):
    """Classes in the order in which they are first named."""

    def __missing__(self, name: str) -> int:
        self[name] = len(self)
        return self[name]


class _Kept(Problems):
    """Problems of which every one is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Problem] = []

    def add(self, kind: str, place: str, *, found: str, expected: str, cure: str) -> None:
        """See Problems."""
        super().add(kind, place, found=found, expected=expected, cure=cure)
        self.all.append(Problem(kind, place, found, expected, cure))


@dataclass(frozen=True, slots=True)
class _Packed(Sequence[AnnotatedImage]):
    """Images as a few long arrays, which processes share where they are forked.

    A Python object for each image would be copied to every process as soon as it is looked at.
    """

    sources: tuple[Source, ...]
    source_of: NDArray[np.int32]
    keys: tuple[str, ...]
    sizes: NDArray[np.int32]
    starts: NDArray[np.int64]
    """Where an image's boxes begin, its labels, and the classes that it does not have."""
    boxes: FloatArray
    labels: LabelArray
    flags: BoolArray
    area: DoubleArray
    present: LabelArray
    absent: LabelArray

    @classmethod
    def of(
        cls, sources: tuple[Source, ...], source_of: Sequence[int], images: Sequence[AnnotatedImage]
    ) -> _Packed:
        """The images one behind the other."""
        lengths = [(len(i.labels), len(i.classes_of_image), len(i.classes_absent)) for i in images]
        starts = np.zeros((len(images) + 1, 3), np.int64)
        starts[1:] = np.cumsum(np.array(lengths, np.int64).reshape(-1, 3), axis=0)
        flags = [np.stack([one.crowd, one.difficult], axis=1) for one in images]
        none = np.zeros(0, np.int32)
        return cls(
            sources,
            np.array(source_of, np.int32),
            tuple(one.key for one in images),
            np.array([(one.width, one.height) for one in images], np.int32).reshape(-1, 2),
            starts,
            np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes for one in images)]),
            np.concatenate([none, *(one.labels for one in images)]),
            np.concatenate([np.zeros((0, 2), np.bool_), *flags]),
            np.concatenate([np.zeros(0), *(one.area for one in images)]),
            np.concatenate([none, *(one.classes_of_image for one in images)]),
            np.concatenate([none, *(one.classes_absent for one in images)]),
        )

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, at: int) -> AnnotatedImage: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[AnnotatedImage]: ...
    def __getitem__(self, at: int | slice) -> AnnotatedImage | Sequence[AnnotatedImage]:
        if isinstance(at, slice):
            return [self[one] for one in range(len(self))[at]]
        at = range(len(self))[at]
        boxes, present, absent = (
            slice(*pair) for pair in zip(self.starts[at], self.starts[at + 1], strict=True)
        )
        key, flags = self.keys[at], self.flags[boxes]
        return AnnotatedImage(
            self.sources[self.source_of[at]].image_uri(key),
            key,
            int(self.sizes[at, 0]),
            int(self.sizes[at, 1]),
            self.boxes[boxes],
            self.labels[boxes],
            flags[:, 0],
            flags[:, 1],
            self.area[boxes],
            flags[:, 0],
            self.present[present],
            self.absent[absent],
        )


@dataclass(frozen=True)
class AnnotatedSet:
    """Annotated pictures with their classes. Picklable; reading is safe in threads."""

    name: str
    classes: tuple[str, ...]
    images: Sequence[AnnotatedImage]
    problems: list[Problem] = field(default_factory=list)
    """Boxes and pictures that are not among these, or not as they are stated."""
    parents: tuple[tuple[str, str], ...] = ()
    """The hierarchy where the set has one: class and the class above it."""
    splits: Mapping[str, int] = field(default_factory=dict)
    """How many images of each split the whole data has; "" for none."""
    sources: tuple[Source, ...] = ()
    """Where the pictures are."""
    source_of: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """The position in sources for each image."""

    def __len__(self) -> int:
        return len(self.images)

    def read(self, i: int) -> bytes:
        """The bytes of a picture's file.

        Raises: SourceError.
        """
        source, key = self.sources[int(self.source_of[i])], self.images[i].key
        content: Content = with_retries(lambda: source.read(key))
        return content.data

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> AnnotatedSet:
        """Some of the images, in the order that is given."""
        some = [int(i) for i in indices]
        source_of = [int(self.source_of[i]) for i in some]
        images = _Packed.of(self.sources, source_of, [self.images[i] for i in some])
        return replace(self, images=images, source_of=images.source_of)


def open_annotated(
    data: str | Path,
    *,
    format: str = "auto",
    images: str | Path | None = None,
    split: str | None = None,
    catalog: str | Path | Catalog | None = None,
    query: str | None = None,
) -> AnnotatedSet:
    """The annotated pictures of a data set, each with its size and boxes in upright pixels.

    Of every picture the header is read: boxes are fitted to it, as the EXIF orientation wants. What
    can't be used is among the problems of the set, and the rest goes on.

    Args:
        data: annotation file or folder as it is imported; or "catalog" for what people said of
            the images of a catalog.
        format: one of vistadex.formats.FORMATS, "catalog", or "auto" to tell it from the files.
        images: folder, bucket or archive with the pictures, where the format has no place for them.
        split: only its images: train, val or test, or as the files call it; "trainval" is both.
        catalog: file name or URL; None: the setting.
        query: only images of the catalog that this finds.
    Raises: UsageError, FormatError, SourceError, CatalogError or QueryError where there is nothing
        that can be used; the message says what was expected.
    """
    if str(data) == CATALOG or format == CATALOG:
        said = _catalog_said(catalog, query or "", images)
        name = f"catalog {query}".strip() if query else CATALOG
    elif query is not None or catalog is not None:
        what = f"{data}: a query asks a catalog, expected {CATALOG!r} as the data"
        raise UsageError(f"{what}; write {CATALOG} in its place, or leave the query out")
    else:
        chosen = guess_format(str(data)) if format == "auto" else format
        said = _file_said(open_format(chosen), str(data), None if images is None else str(images))
        name = place_of(data).rstrip("/").rpartition("/")[2]
    reading = _Reading(said, _wanted(split))
    kept = list(reading.images())
    _need_some(str(data), split, reading, bool(kept))
    return reading.as_set(name if split is None else f"{name} {split}", kept)


def guess_format(data: str) -> str:
    """The name of the format that files at a path seem to have.

    Raises: FormatError where that can't be told; SourceError.
    """
    lower = data.rstrip("/").lower()
    for endings, name in (
        ((".json", ".json.gz"), "coco"),
        ((".yaml", ".yml"), "yolo"),
        ((".xml",), "voc"),
        ((".csv", ".csv.gz"), "automl-csv"),
    ):
        if lower.endswith(endings):
            return name
    names = list(top_names(open_source(data)))
    if "Annotations/" in names or any(one.lower().endswith(".xml") for one in names):
        return "voc"
    if any(one.endswith((".yaml", ".yml")) for one in names) or {"images/", "labels/"} <= {*names}:
        return "yolo"
    jsons = [one for one in names if one.lower().endswith((".json", ".json.gz"))]
    if jsons and "images/" in names:
        what = f"a folder with {', '.join(jsons[:3])}, expected the annotation file itself"
        raise FormatError(f"{data}: {what}; give {data.rstrip('/')}/{jsons[0]}")
    found = find_open_images(data)
    if found.boxes or found.labels:
        return "open-images"
    if any(one.endswith("/") for one in names):
        return "imagefolder"
    known = "VOC, COCO, YOLO, Open Images or a folder for each class"
    raise FormatError(f"{data}: no annotations are recognized, expected {known}; add --format")


class _Said(NamedTuple):
    """Where an image's picture is, and what is said of it."""

    source: Source
    key: str
    image: records.AnnotatedImage


@dataclass(slots=True)
class _Annotations:
    """What files or a catalog say, and of which classes."""

    said: Iterator[_Said]
    problems: _Kept
    order: Mapping[str, int]
    """The numbers of classes, where there are any."""
    parents: tuple[tuple[str, str], ...]


def _file_said(chosen: Format, path: str, images: str | None) -> _Annotations:
    problems = _Kept()
    about = chosen.about(path)
    pictures = _Pictures.of(chosen, path, images)

    def said() -> Iterator[_Said]:
        for image in chosen.read(path, problems):
            if not image.origin:
                yield from pictures.of_image(image, problems)

    return _Annotations(said(), problems, about.category_ids, about.parents)


def _catalog_said(
    catalog: str | Path | Catalog | None, query: str, images: str | Path | None
) -> _Annotations:
    if images is not None:
        raise UsageError(f"--images {images}: a catalog knows its pictures; leave it out")
    problems = _Kept()
    store = catalog if isinstance(catalog, Catalog) else Catalog(catalog)
    assembler = Assembler(store, "open-images", PEOPLE, 0.0)
    about = assembler.about()

    def said() -> Iterator[_Said]:
        sources: dict[str, Source] = {}
        found = store.walk(query)
        try:
            while some := list(islice(found, _AT_A_TIME)):
                for one, image in assembler.each(some):
                    if isinstance(image, Refusal):
                        note(problems, one, image)
                    elif image is not None:
                        if one.source not in sources:
                            sources[one.source] = open_source(one.source)
                        yield _Said(sources[one.source], one.key, image)
        finally:
            if store is not catalog:
                store.close()

    return _Annotations(said(), problems, about.category_ids, about.parents)


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Where the pictures are that a file names, and what they are called there."""

    source: Source
    prefix: str = ""
    """What keys have before the file names."""
    by_stem: Mapping[str, Sequence[str]] | None = None
    """Keys by name without folder and ending, where files name pictures so."""

    @classmethod
    def of(cls, chosen: Format, path: str, images: str | None) -> _Pictures:
        """As the user says, or else as the format does.

        Raises: UsageError where neither says it; SourceError.
        """
        root = chosen.root(path)
        if images is not None:
            source = open_source(images)
            return cls(source, by_stem=_by_stem(source) if chosen.pictures_optional else None)
        if chosen.below_path:
            return cls(open_source(root))
        if chosen.pictures is not None:
            source = open_source(root)
            if isinstance(source, Target):
                return cls(open_source(f"{source.uri}/{chosen.pictures}"))
            return cls(source, prefix=f"{chosen.pictures}/")
        what = "does not say where its pictures are, expected a folder, bucket or archive"
        raise UsageError(f"{path}: {what}; add --images SOURCE")

    def of_image(self, image: records.AnnotatedImage, problems: Problems) -> Iterator[_Said]:
        """The picture of an image; several where only their names without folders are known."""
        if self.by_stem is None:
            name = image.file_name.removeprefix("./")
            yield _Said(self.source, self.prefix + name, image)
            return
        keys = self.by_stem.get(_stem(image.file_name), ())
        if not keys:
            _note_picture(problems, image, f"no picture {image.file_name!r} in {self.source.uri}")
        for key in keys:
            yield _Said(self.source, key, image)


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _by_stem(source: Source) -> Mapping[str, Sequence[str]]:
    keys: dict[str, list[str]] = {}
    for page in source.pages():
        for entry in page:
            if named_as_picture(entry.key):
                keys.setdefault(_stem(entry.key), []).append(entry.key)
    return keys


def _note_picture(problems: Problems, image: records.AnnotatedImage, found: str) -> None:
    cure = "the image is left out; restore the picture, or check --images"
    problems.add("bad-picture", image.place, found=found, expected="a picture", cure=cure)


def _wanted(split: str | None) -> Collection[str] | None:
    if split is None:
        return None
    return _PARTS.get(split, frozenset({split, SPLITS.get(split, split)}))


def _need_some(data: str, split: str | None, reading: _Reading, some: bool) -> None:
    """Raises: UsageError or FormatError where no image is left."""
    if some:
        return
    if split is not None and not any(reading.splits[one] for one in _wanted(split) or ()):
        known = ", ".join(sorted(one for one in reading.splits if one)) or "none, as nothing says"
        what = f"{data}: no image is of the split {split!r}"
        raise UsageError(f"{what}, expected one of those that are there ({known}); change --split")
    problems = reading.said.problems.all
    first = f" (the first problem: {problems[0]})" if problems else ""
    what = f"{data}: no annotated picture can be used{first}"
    raise FormatError(f"{what}, expected pictures with boxes or classes; check --format, --images")


class _Reading:
    """One reading of a set: pictures are matched with what is said of them."""

    def __init__(self, said: _Annotations, wanted: Collection[str] | None) -> None:
        self.said, self.wanted = said, wanted
        self.names = _Names()
        self.fitting = Fitting({_BOXES: self.names, _LABELS: self.names}, said.problems)
        self.splits: Counter[str] = Counter()
        self.sources: list[Source] = []
        self.source_of: list[int] = []

    def images(self) -> Iterator[AnnotatedImage]:
        """Every image that can be used, in the order of the files."""
        said = self._chosen()
        while some := list(islice(said, _AT_A_TIME)):
            for one, size in zip(some, _sizes(some), strict=True):
                if isinstance(size, str):
                    _note_picture(self.said.problems, one.image, size)
                elif (image := self._fitted(one, size)) is not None:
                    self._remember(one.source)
                    yield image

    def as_set(self, name: str, kept: Sequence[AnnotatedImage]) -> AnnotatedSet:
        """The images with their classes in order: by number where the set numbers them."""
        known = sorted(self.said.order, key=lambda one: self.said.order[one])
        classes = (*known, *sorted(set(self.names) - set(known)))
        place = {one: i for i, one in enumerate(classes)}
        order = np.array([place[one] for one in self.names], np.int32)
        ordered = [
            replace(
                image,
                labels=order[image.labels],
                classes_of_image=order[image.classes_of_image],
                classes_absent=order[image.classes_absent],
            )
            for image in kept
        ]
        images = _Packed.of(tuple(self.sources), self.source_of, ordered)
        return AnnotatedSet(
            name,
            classes,
            images,
            self.said.problems.all,
            self.said.parents,
            dict(self.splits),
            images.sources,
            images.source_of,
        )

    def _chosen(self) -> Iterator[_Said]:
        """What is said of pictures of the wanted split, of each once."""
        seen: set[tuple[str, str]] = set()
        for one in self.said.said:
            image = one.image
            if image.boxes is None and image.classes is None:
                continue
            split = str(image.attributes.get("split") or "")
            self.splits[split] += 1
            if self.wanted is not None and split not in self.wanted:
                continue
            if (one.source.uri, one.key) in seen:
                self._note_again(image)
                continue
            seen.add((one.source.uri, one.key))
            yield one

    def _note_again(self, image: records.AnnotatedImage) -> None:
        found = f"{image.file_name} is described again"
        cure = "the first is used; merge the two"
        problems = self.said.problems
        problems.add("same-picture", image.place, found=found, expected="each once", cure=cure)

    def _remember(self, source: Source) -> None:
        if not self.sources or self.sources[-1] is not source:
            known = [one.uri for one in self.sources]
            if source.uri not in known:
                self.sources.append(source)
            self.source_of.append(known.index(source.uri) if source.uri in known else len(known))
            return
        self.source_of.append(len(self.sources) - 1)

    def _fitted(self, one: _Said, size: PictureSize) -> AnnotatedImage | None:
        image = replace(one.image, relations=None)
        outcome = self.fitting.outcome(ImageEntry(one.key, None, ""), [image], size, seen=True)
        if outcome is None:
            return None
        boxes, labels = outcome.results
        found = boxes if isinstance(boxes, Detections) else _NOTHING
        said = labels if isinstance(labels, Classification) else Classification(_NONE, _NO_IDS)
        corners = np.asarray(found.boxes_xyxy, np.float64)
        sides = corners[:, 2:] - corners[:, :2]
        areas = [_area(more) for more in found.attributes]
        stated = np.array([np.nan if one is None else one for one in areas], np.float64)
        crowd = _flag(found, "crowd")
        return AnnotatedImage(
            one.source.image_uri(one.key),
            one.key,
            size.width,
            size.height,
            corners.astype(np.float32),
            found.class_ids.astype(np.int32),
            crowd,
            _flag(found, "difficult"),
            np.where(np.isnan(stated), sides[:, 0] * sides[:, 1], stated),
            crowd,
            said.class_ids[said.scores > 0].astype(np.int32),
            said.class_ids[said.scores <= 0].astype(np.int32),
        )


_NONE = np.zeros(0, np.float32)
_NO_IDS = np.zeros(0, np.int64)
_NOTHING = Detections(np.zeros((0, 4)), np.zeros(0), _NO_IDS)


def _area(attributes: Mapping[str, records.Json]) -> float | None:
    value = attributes.get("area")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _flag(found: Detections, name: str) -> BoolArray:
    return np.array([bool(one.get(name)) for one in found.flags], np.bool_)


def _sizes(said: Sequence[_Said]) -> Iterable[PictureSize | str]:
    """The size of each picture, or why it can't be had."""
    threads = max(one.source.read_ahead for one in said)
    if not threads:
        return map(_size, said)
    with ThreadPoolExecutor(threads, "sizes") as pool:
        return list(pool.map(_size, said))


def _size(one: _Said) -> PictureSize | str:
    source, key = one.source, one.key
    try:
        try:
            return read_size(with_retries(lambda: source.read_start(key, _HEADER_BYTES)))
        except DecodingError as error:
            if error.reason != "truncated":
                raise
            return read_size(with_retries(lambda: source.read(key)).data)
    except DecodingError as error:
        return f"{source.image_uri(key)}: {error}"
    except SourceError as error:
        return str(error)
