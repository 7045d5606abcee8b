"""Data sets to train with: random images of some classes, split, in a format of other tools."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from vistadex.assembling import AT_A_TIME, Assembler, is_nominal, scaled
from vistadex.catalog import Catalog, IndexedImage, choosing
from vistadex.catalog.hashes import NEAR_DISTANCE
from vistadex.catalog.runs import Recorder
from vistadex.datasets.delivering import empty_bucket, local_path, move, upload
from vistadex.datasets.grouping import alike_apart, grouped
from vistadex.datasets.layouts import open_layout, restricted
from vistadex.datasets.picking import Picked, Picking
from vistadex.datasets.pictures import GATHERINGS
from vistadex.duplicates import MAX_DISTANCE
from vistadex.errors import CatalogError, FormatError, UsageError
from vistadex.formats import About, Problems
from vistadex.progress import Progress, Silent
from vistadex.records import NOMINAL_SIDE, AnnotatedImage, IntArray
from vistadex.sources import Target
from vistadex.splitting import SPLITS, Labels, read_shares
from vistadex.splitting import split as split_images

__all__ = [
    "NEAR_DUPLICATE",
    "DatasetPlan",
    "DatasetSummary",
    "build_dataset",
    "class_list",
    "id_list",
    "plan_dataset",
]

NEAR_DUPLICATE = "near-duplicate"
"""Groups by likeness alone, which are kept together whatever else images are grouped by."""
ADDRESSES = "pictures.csv"
"""Where a set without pictures says where they are."""
MOST_SUBJECT = 500
"""Characters that say what a run makes."""
MOST_TO_DRAW_FROM = 50_000
"""Images of all classes from which plan_dataset() draws as build_dataset() does."""


@dataclass(slots=True, kw_only=True)
class DatasetSummary:
    """How a run of build_dataset() went."""

    path: str = ""
    images: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    """Images in each split."""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Images of each class in each split; an image counts for each of its classes."""
    missing: dict[str, int] = field(default_factory=dict)
    """How many images there are too few of a class."""
    absent: dict[str, list[str]] = field(default_factory=dict)
    """Splits that have no image of a class."""
    pictures: int = 0
    """Copied or linked."""
    boxes: int = 0
    groups: int = 0
    largest_group: int = 0
    """Images that had to stay together."""
    ungrouped: int = 0
    """Images without the attribute to group by: each is a group by itself."""
    near_duplicates: int = 0
    """Images that look like another one of the set, kept in one split with it."""
    near_duplicates_apart: int = 0
    """Groups of these in two splits, counted when all was split: 0."""
    not_compared: int = 0
    """Images without a perceptual hash: unread, or with too little to see."""
    max_distance: int = 0
    """Bits in which hashes of pictures that look alike may differ."""
    replaced: int = 0
    """Images that were chosen and could not be used; the next in line are in their places."""
    problems: dict[str, int] = field(default_factory=dict)
    """Why, by kind."""
    first_problems: list[str] = field(default_factory=list)
    losses: tuple[str, ...] = ()
    """What the format has no place for."""
    report: str | None = None
    """The file with every problem."""
    seconds: float = 0.0


@dataclass(slots=True)
class DatasetPlan:
    """What a data set would hold."""

    available: dict[str, int]
    """Images of each class to draw from."""
    summary: DatasetSummary
    """Counts, splits and missing as they would be."""
    exact: bool = False
    """Whether images were drawn and split as for the set; unreadable ones are not known yet. Else
    each class is counted by itself, and images with several are counted several times."""


def build_dataset(
    out: str | Path,
    *,
    classes: Sequence[str],
    per_class: int,
    split: str = "80/10/10",
    seed: int = 0,
    format: str = "coco",
    query: str = "",
    ids: Sequence[int] | None = None,
    group_by: str | None = None,
    stratify: bool = False,
    pictures: str = "copy",
    model: str = "human",
    min_score: float = 0.0,
    max_distance: int = NEAR_DISTANCE,
    report: Path | None = None,
    catalog: str | Path | Catalog | None = None,
    progress: Progress | None = None,
) -> DatasetSummary:
    """Writes random images of some classes as a data set with splits, for other tools.

    The same arguments give the same set from every catalog with the same images. Images that look
    alike are always in one split. A folder appears when it is complete; in a bucket annotations
    come last.

    Args:
        out: folder or bucket to write; there must be nothing yet.
        classes: which; only they are in the annotations.
        per_class: images of each. An image with several classes is one of each.
        split: percentages for train, val and test; one or two parts may be left out.
        seed: another one gives another set.
        format: coco, voc, yolo, open-images, imagefolder or automl-csv.
        query: only images that this finds; see vistadex.grammar.
        ids: only these images, by id; None: all.
        group_by: attribute whose images of one value stay in one split; NEAR_DUPLICATE for none.
        stratify: give each split its share of every class too.
        pictures: copy, link, or reference: only their addresses.
        model: whose boxes and classes; "human" for what was imported.
        min_score: boxes and classes with a lower score do not count.
        max_distance: bits in which perceptual hashes of images that look alike may differ.
        report: file that gets every image that could not be used, one JSON object a line.
        catalog: file name or URL; None: the setting.
        progress: is told how far the run is.
    Raises: UsageError, QueryError, FormatError, SourceError or CatalogError where nothing can be
        written.
    """
    started = time.monotonic()
    layout = open_layout(format)
    _check(classes, per_class, min_score, max_distance, pictures)
    store = catalog if isinstance(catalog, Catalog) else Catalog(catalog)
    with ExitStack() as stack:
        if store is not catalog:
            stack.callback(store.close)
        subject = f"{per_class:,} of each of {', '.join(classes)} as {format}"[:MOST_SUBJECT]
        recorder = Recorder(store, "dataset", subject, progress or Silent())
        stack.enter_context(recorder)
        place = local_path(out)
        target = _target(str(out), place, pictures)
        problems = stack.enter_context(Problems(report))
        try:
            folder = _folder(place, stack)
            gathering = GATHERINGS[pictures](folder / "gathered")
            reads = gathering.reads
            assembler = Assembler(store, format, model, min_score, sizes_follow=reads)
            picking = Picking(assembler, layout, gathering, problems, recorder)
            build = _Build(picking, classes, per_class, seed, read_shares(split))
            build.choose(query, None if group_by == NEAR_DUPLICATE else group_by, ids)
            build.divide(max_distance, stratify)
            build.write(folder / "set", None if target is None else str(out).rstrip("/"))
            if target is not None:
                upload(folder / "set", target, build.places)
            elif place is not None:
                move(folder / "set", place)
        except OSError as error:
            raise FormatError(f"{out}: can't be written: {error.strerror or error}") from error
        summary = build.summary
        summary.path, summary.losses = str(out), layout.losses
        summary.problems = dict(problems.counts.most_common())
        summary.first_problems = [str(one) for one in problems.first]
        summary.report = str(report) if report is not None and problems.counts else None
        summary.seconds = time.monotonic() - started
        recorder.summary = asdict(summary)
    return summary


def plan_dataset(
    catalog: Catalog,
    *,
    classes: Sequence[str],
    per_class: int,
    split: str = "80/10/10",
    seed: int = 0,
    format: str = "coco",
    query: str = "",
    ids: Sequence[int] | None = None,
    group_by: str | None = None,
    stratify: bool = False,
    pictures: str = "copy",
    model: str = "human",
    min_score: float = 0.0,
    most: int = 1000,
) -> DatasetPlan:
    """What build_dataset() would write, counted without reading a picture.

    Args:
        most: images to choose for an exact count; of more, each class is counted by itself.
        the others: as of build_dataset().
    Raises: UsageError, QueryError or FormatError, as build_dataset() would.
    """
    layout, shares = open_layout(format), read_shares(split)
    _check(classes, per_class, min_score, NEAR_DISTANCE, pictures)
    reads = pictures != "reference"
    assembler = Assembler(catalog, format, model, min_score, sizes_follow=reads)
    gathering = GATHERINGS["reference"](Path())
    picking = Picking(assembler, layout, gathering, Problems(None), Silent())
    build = _Build(picking, classes, per_class, seed, shares)
    available = picking.available(build.classes, query, ids)
    plan = DatasetPlan(dict(zip(build.classes, available, strict=True)), build.summary)
    wanted = [min(per_class, number) for number in available]
    if not any(wanted):
        return plan
    if sum(wanted) <= most and sum(available) <= MOST_TO_DRAW_FROM:
        build.choose(query, None if group_by == NEAR_DUPLICATE else group_by, ids)
        build.divide(NEAR_DISTANCE, stratify)
        plan.exact = True
        return plan
    plan.summary.splits = dict.fromkeys(SPLITS[: len(shares)], 0)
    for name, number in zip(build.classes, wanted, strict=True):
        build.summary.counts[name] = {
            one: round(number * share) for one, share in zip(SPLITS, shares, strict=False)
        }
        if number < per_class:
            build.summary.missing[name] = per_class - number
    return plan


def class_list(text: str) -> list[str]:
    """The classes that a text such as `Apple,"Boat, sailing"` names.

    Raises: UsageError.
    """
    try:
        names = next(csv.reader([text], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise UsageError(f"classes {text!r}: {error}; expected names, as Apple,Boat") from error
    return [name.strip() for name in names]


def id_list(text: str) -> list[int]:
    """The ids that a text such as `3,14,15` names.

    Raises: UsageError.
    """
    try:
        return [int(one) for one in text.split(",")]
    except ValueError as error:
        raise UsageError(f"ids {text!r}: expected numbers, as 3,14,15") from error


def _check(
    classes: Sequence[str], per_class: int, min_score: float, max_distance: int, pictures: str
) -> None:
    """Raises: UsageError for what can't be meant."""
    if isinstance(classes, str) or not classes or not all(classes):
        raise UsageError(f"classes {classes!r}: expected names, as Apple,Boat")
    if per_class < 1:
        raise UsageError(f"per_class={per_class}: expected 1 or more")
    if not 0 <= min_score <= 1:
        raise UsageError(f"min_score={min_score}: expected 0 to 1")
    if not 0 <= max_distance <= MAX_DISTANCE:
        raise UsageError(f"max_distance={max_distance}: expected 0 to {MAX_DISTANCE}")
    if pictures not in GATHERINGS:
        raise UsageError(f"pictures {pictures!r}: expected one of {', '.join(GATHERINGS)}")


def _target(out: str, place: Path | None, pictures: str) -> Target | None:
    """The bucket to write to; None for a folder.

    Raises: UsageError where something is there.
    """
    if place is None:
        if pictures == "link":
            raise UsageError(f"{out}: a bucket can't hold links; use --pictures copy or reference")
        return empty_bucket(out)
    if os.path.lexists(place):
        raise UsageError(f"{out}: is there already; choose another name, or remove it")
    return None


def _folder(place: Path | None, stack: ExitStack) -> Path:
    """A folder for the time of the run: beside the place, so that the set can be moved there."""
    if place is None:
        folder = tempfile.mkdtemp(prefix="vistadex-dataset-")
    else:
        folder = tempfile.mkdtemp(prefix=f".writing-{place.name}-", dir=place.parent)
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


class _Build:
    """One data set on its way: chosen, divided, written."""

    def __init__(
        self,
        picking: Picking,
        classes: Sequence[str],
        per_class: int,
        seed: int,
        shares: tuple[float, ...],
    ) -> None:
        self.picking, self.assembler, self.layout = picking, picking.assembler, picking.layout
        self.per_class, self.seed, self.shares = per_class, seed, shares
        with self.assembler.catalog.reading() as connection:
            self.classes = choosing.known_classes(connection, classes)
        self.layout.check(self.classes)
        self.picked: list[Picked] = []
        self.splits: IntArray = np.zeros(0, np.int64)
        self.places: list[str] = []
        """Where pictures are, below the set."""
        self.summary = DatasetSummary()

    def choose(self, query: str, group_by: str | None, ids: Sequence[int] | None) -> None:
        """Chooses the images.

        Raises: FormatError where there are none; UsageError where none has what to group by.
        """
        picking = self.picking
        self.picked = picking.run(self.classes, self.per_class, self.seed, query, group_by, ids)
        if not self.picked:
            counts = picking.problems.counts.items()
            why = ", ".join(f"{number} {kind}" for kind, number in counts)
            what = f"no image of {', '.join(self.classes)} can be used" + (
                f" ({why})" if why else ""
            )
            cure = "look at --model, --query and --format: some formats hold boxes alone"
            raise FormatError(f"nothing to write: {what}; {cure}")
        if group_by is not None and all(one.group is None for one in self.picked):
            known = ", ".join(sorted(picking.attributes)) or "none"
            what = f"no image has the attribute; the images have: {known}"
            raise UsageError(f"group_by {group_by!r}: {what}; or use {NEAR_DUPLICATE}")
        self.summary.ungrouped = (
            0 if group_by is None else sum(one.group is None for one in self.picked)
        )
        self.summary.replaced = picking.refused

    def divide(self, max_distance: int, stratify: bool) -> None:
        """Gives each image its split, and counts."""
        groups = grouped(self.picked, max_distance)
        pairs = [(at, c) for at, one in enumerate(self.picked) for c in one.labels]
        table = np.array(pairs, np.int64).reshape(-1, 2)
        own = self.picking.ranks[[one.at for one in self.picked]]
        labels = Labels(table[:, 0], table[:, 1])
        self.splits = split_images(own, groups.of, self.shares, labels if stratify else None)
        summary, used = self.summary, SPLITS[: len(self.shares)]
        _, sizes = np.unique(groups.of, return_counts=True)
        summary.groups, summary.largest_group = len(sizes), int(sizes.max())
        summary.near_duplicates, summary.not_compared = groups.near, groups.not_compared
        summary.near_duplicates_apart = alike_apart(self.picked, self.splits, max_distance)
        summary.max_distance = max_distance
        summary.images = len(self.picked)
        found = np.zeros((len(self.classes), len(used)), np.int64)
        np.add.at(found, (table[:, 1], self.splits[table[:, 0]]), 1)
        numbers = np.bincount(self.splits, minlength=len(used)).tolist()
        summary.splits = dict(zip(used, numbers, strict=True))
        for name, row in zip(self.classes, found.tolist(), strict=True):
            summary.counts[name] = dict(zip(used, row, strict=True))
            if sum(row) < self.per_class:
                summary.missing[name] = self.per_class - sum(row)
            absent = [
                one for one, n, share in zip(used, row, self.shares, strict=True) if share and not n
            ]
            if absent and sum(row):
                summary.absent[name] = absent

    def write(self, part: Path, address: str | None) -> None:
        """Writes pictures and annotations into a folder.

        Args:
            address: of the set, where that is a bucket.
        Raises: FormatError, CatalogError, OSError.
        """
        gathering = self.picking.gathering
        part.mkdir()
        with ExitStack() as stack:
            rows = None
            if not gathering.places:
                file = stack.enter_context(
                    (part / ADDRESSES).open("x", encoding="utf-8", newline="")
                )
                rows = csv.writer(file, lineterminator="\n")
                rows.writerow(("url", "name", "split"))
            for found, image in self._images(None):
                place = self.layout.place(image)
                self.summary.boxes += len(image.boxes or ())
                if rows is not None:
                    split_ = str(image.attributes["split"])
                    rows.writerow((_address(found), place, split_))
                    continue
                path = part / place
                path.parent.mkdir(parents=True, exist_ok=True)
                gathering.put(found, path)
                self.places.append(place)
        self.summary.pictures = len(self.places)

        def named(split_: str | None) -> Iterator[AnnotatedImage]:
            for found, image in self._images(split_):
                place = self.layout.place(image)
                if gathering.places:
                    whole = None if address is None else f"{address}/{place}"
                else:
                    whole = _address(found)
                yield self.layout.named(image, place, whole)

        self.layout.write(part, named, self.classes, self._about())

    def _images(self, split_: str | None) -> Iterator[tuple[IndexedImage, AnnotatedImage]]:
        """The images of a split, or all, as the set has them but for their place.

        Raises: CatalogError where they are not any more what they were.
        """
        chosen = [
            (one, SPLITS[at])
            for one, at in zip(self.picked, self.splits.tolist(), strict=True)
            if split_ in (None, SPLITS[at])
        ]
        for start in range(0, len(chosen), AT_A_TIME):
            some = chosen[start : start + AT_A_TIME]
            found = self.assembler.catalog.images([one.id for one, _ in some])
            made = dict(zip((one.id for one in found), self.assembler.each(found), strict=True))
            for one, name in some:
                image, said = made.get(one.id, (None, None))
                if image is None or not isinstance(said, AnnotatedImage):
                    what = f"image {one.id} has changed while the data set was made"
                    raise CatalogError(f"{self.assembler.catalog.place}: {what}; run it again")
                own = restricted(_sized(said, image, one), self.classes, self.layout.holds)
                attributes = {**own.attributes, "split": name}
                yield image, replace(own, file_name=one.name, attributes=attributes)

    def _about(self) -> About:
        """What is said of the classes of the set, numbered as they were asked for."""
        about, own = self.assembler.about(), set(self.classes)
        kept = {
            name: {key: text for key, text in some.items() if key in own}
            for name, some in (("ids", about.external_ids), ("texts", about.descriptions))
        }
        return About(
            category_ids={name: at for at, name in enumerate(self.classes, 1)},
            attributes=about.attributes,
            external_ids=kept["ids"],
            descriptions=kept["texts"],
            parents=tuple(pair for pair in about.parents if own.issuperset(pair)),
        )


def _sized(image: AnnotatedImage, found: IndexedImage, picked: Picked) -> AnnotatedImage:
    """In pixels of the picture, where it was looked at."""
    if not picked.width or found.status != "unseen":
        return image
    if is_nominal(found):
        image = scaled(image, picked.width / NOMINAL_SIDE, picked.height / NOMINAL_SIDE)
    return replace(image, width=picked.width, height=picked.height, relative=False)


def _address(found: IndexedImage) -> str:
    """Where a picture is: on the web where it was never read."""
    if found.status == "unseen" and found.image_url is not None:
        return found.image_url
    return found.uri
