"""Where a data set of each format has its pictures and annotations, as its users expect them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

from vistadex.errors import FormatError, UsageError
from vistadex.formats import About, open_format
from vistadex.records import AnnotatedImage
from vistadex.splitting import SPLITS

Images: TypeAlias = Callable[[str | None], Iterable[AnnotatedImage]]
"""The images of a split, or with None of all."""


class Layout:
    """The format's own: it has folders for splits, or lists of them."""

    def __init__(self, format: str, holds: Literal["boxes", "classes", "both"]) -> None:
        """Args:
        holds: what a format can say of images; where it is classes alone, those of boxes count
            as the image's.
        """
        self.format, self.holds = open_format(format), holds
        self.losses: tuple[str, ...] = self.format.losses

    def place(self, image: AnnotatedImage) -> str:
        """Where below the set a picture belongs.

        Raises: FormatError where the format can't hold the image.
        """
        stated = self.format.picture_path(image)
        return stated or f"images/{image.attributes['split']}/{image.file_name}"

    def named(self, image: AnnotatedImage, place: str, address: str | None) -> AnnotatedImage:
        """The image with its name as annotations say it.

        Args:
            place: of the picture below the set.
            address: of the picture where it is whole: in a bucket, or where it was.
        """
        return image

    def write(self, part: Path, images: Images, classes: tuple[str, ...], about: About) -> None:
        """Writes the annotations into a folder.

        Raises: FormatError.
        """
        self.format.write(part, images(None), classes, about)

    def check(self, classes: Sequence[str]) -> None:
        """Raises: FormatError for a class that the format can't hold."""
        for name in classes:
            image = AnnotatedImage(file_name="a.jpg", place=name, classes=(name,), boxes=())
            self.place(replace(image, attributes={"split": SPLITS[0]}))


class CocoLayout(Layout):
    """`annotations/instances_<split>.json` beside a folder of pictures for each split."""

    def place(self, image: AnnotatedImage) -> str:
        """See Layout.

        Raises: FormatError for an image that can't be written.
        """
        if image.boxes is None:
            what = "nothing is said of boxes, expected boxes or that there are none"
            raise FormatError(f"{image.file_name}: {what}; leave it out")
        return f"{image.attributes['split']}/{image.file_name}"

    def named(self, image: AnnotatedImage, place: str, address: str | None) -> AnnotatedImage:
        """See Layout: names are below the folder of the split."""
        if address is None:
            return image
        known = dict(image.attributes)
        return replace(image, attributes={**known, "coco_url": address})

    def write(self, part: Path, images: Images, classes: tuple[str, ...], about: About) -> None:
        """See Layout."""
        folder = part / "annotations"
        folder.mkdir(parents=True)
        for split in SPLITS:
            some = iter(images(split))
            first = next(some, None)
            if first is not None:
                path = folder / f"instances_{split}.json"
                self.format.write(path, _chained(first, some), classes, about)


class OpenImagesLayout(Layout):
    """The published files beside a folder of pictures for each split."""

    def place(self, image: AnnotatedImage) -> str:
        """See Layout."""
        return f"{self._word(image)}/{image.file_name}"

    def named(self, image: AnnotatedImage, place: str, address: str | None) -> AnnotatedImage:
        """See Layout: whose address is not known gets this one; splits have their own words."""
        known = {**image.attributes, "split": self._word(image)}
        if address is not None:
            known.setdefault("original_url", address)
        return replace(image, attributes=known)

    def _word(self, image: AnnotatedImage) -> str:
        split = str(image.attributes["split"])
        return "validation" if split == "val" else split


class AutomlLayout(Layout):
    """`automl.csv` with a line for each image: set, address, classes."""

    def __init__(self, format: str, holds: Literal["boxes", "classes", "both"]) -> None:
        super().__init__(format, holds)
        self.losses = ("boxes", "scores", "attributes of images but split", "widths and heights")

    def named(self, image: AnnotatedImage, place: str, address: str | None) -> AnnotatedImage:
        """See Layout: by whole address, or below the set."""
        return replace(image, file_name=address or place)

    def write(self, part: Path, images: Images, classes: tuple[str, ...], about: About) -> None:
        """See Layout."""
        part.mkdir(parents=True, exist_ok=True)
        self.format.write(part / "automl.csv", images(None), classes, about)


def _chained(first: AnnotatedImage, rest: Iterable[AnnotatedImage]) -> Iterable[AnnotatedImage]:
    yield first
    yield from rest


LAYOUTS: Mapping[str, Callable[[], Layout]] = {
    "coco": lambda: CocoLayout("coco", "boxes"),
    "voc": lambda: Layout("voc", "boxes"),
    "yolo": lambda: Layout("yolo", "boxes"),
    "open-images": lambda: OpenImagesLayout("open-images", "both"),
    "imagefolder": lambda: Layout("imagefolder", "classes"),
    "automl-csv": lambda: AutomlLayout("automl-csv", "classes"),
}
"""The formats that data sets are written in."""


def open_layout(format: str) -> Layout:
    """The layout of a format.

    Raises: UsageError for a format that data sets are not written in.
    """
    if format not in LAYOUTS:
        known = ", ".join(LAYOUTS)
        raise UsageError(f"format {format!r}: expected one of {known}; choose one")
    return LAYOUTS[format]()


def restricted(
    image: AnnotatedImage, classes: Sequence[str], holds: Literal["boxes", "classes", "both"]
) -> AnnotatedImage:
    """The image with only these classes, and only what the format can hold."""
    wanted = set(classes)
    boxes = image.boxes
    if boxes is not None:
        boxes = tuple(one for one in boxes if one.class_name in wanted)
    scores = image.class_scores or (1.0,) * len(image.classes or ())
    said = [pair for pair in zip(image.classes or (), scores, strict=True) if pair[0] in wanted]
    if holds == "classes":
        names = {name for name, score in said if score} | {one.class_name for one in boxes or ()}
        own = tuple(name for name in classes if name in names)
        return replace(image, boxes=None, classes=own, class_scores=(), relations=None)
    relations = image.relations
    if relations is not None:
        relations = tuple(one for one in relations if {one.subject, one.object} <= wanted)
    return replace(
        image,
        boxes=boxes,
        classes=None if image.classes is None else tuple(name for name, _ in said),
        class_scores=tuple(score for _, score in said) if image.class_scores else (),
        relations=relations,
    )


def labels(image: AnnotatedImage, holds: Literal["boxes", "classes", "both"]) -> set[str]:
    """The classes that a restricted image counts for: those that its annotations will show."""
    names = {one.class_name for one in image.boxes or ()}
    if holds == "boxes":
        return names
    scores = image.class_scores or (1.0,) * len(image.classes or ())
    return names | {name for name, score in zip(image.classes or (), scores, strict=True) if score}
