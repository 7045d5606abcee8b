"""The catalog's images as annotation formats want them, and the bytes of their pictures."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from vistadex.catalog import Catalog, FoundClass, IndexedImage, choosing, reading, registering
from vistadex.errors import QueryError, SourceError, SourceMissingError
from vistadex.formats import About, Problems
from vistadex.records import NOMINAL_SIDE, AnnotatedImage, Annotation, Json, Relation, Task
from vistadex.sources import Source, local_key, open_source
from vistadex.sources.places import AddressError, Places, address
from vistadex.sources.retrying import with_retries

AT_A_TIME = 500
"""Images whose classes are read at once."""
Corners = tuple[float, float, float, float]

SIZE_NEEDS: Mapping[str, Literal["always", "pixels", "sides", "never"]] = {
    "coco": "always",
    "voc": "always",
    "coco-results": "pixels",
    "yolo": "sides",
    "vrd": "pixels",
    "imagefolder": "never",
    "class-tables": "never",
}
"""What a format needs of pictures' sizes. always: width and height; pixels: boxes in them; sides:
like the others a size to divide by, or fractions, but as a frame of NOMINAL_SIDE."""
MACHINE = "machine"
"""Whose labels Open Images tells apart from those of people."""
WITH_ORIGINS = frozenset({"open-images"})
"""Formats that have labels of a machine beside what people said."""
WITH_ABSENT = frozenset({"open-images"})
"""Formats that say with a score of 0 that a class is not there."""
WITH_RELATIONS = frozenset({"open-images", "class-tables", "vrd"})
"""Formats that name classes which no image has: what things are related to, and what is absent."""


CURES: Mapping[str, str] = {
    "no-size": "index the pictures, or choose another format",
    "changed-picture": "index the pictures again",
}
"""What helps against some kinds of refusal."""


class Refusal(NamedTuple):
    """Why an image can't be written."""

    kind: str
    """What is counted together."""
    what: str


class Assembler:
    """Puts together what one model, or people, said of images."""

    def __init__(
        self,
        catalog: Catalog,
        format: str,
        model: str,
        min_score: float,
        *,
        sizes_follow: bool = False,
        labels_of: str = "",
    ) -> None:
        """Args:
            format: for which it is, by name.
            model: whose boxes, classes and relations.
            min_score: what has a lower score is left out.
            sizes_follow: the pictures are going to be read: those of unknown size are not left out,
                and their boxes stay as the catalog has them.
            labels_of: only the model's classes of whole images, as the word of this origin.
        Raises: QueryError for an unknown model.
        """
        self.catalog, self.format, self.model = catalog, format, model
        self.min_score, self.sizes_follow = min_score, sizes_follow
        with catalog.reading() as connection:
            known = registering.all_analyzers(connection)
        self.origin = labels_of or (MACHINE if model == MACHINE else "")
        tasks = ("classifier",) if labels_of else ("detector", "classifier", "relater")
        self.analyzers = [one for one in known if one.name == model and one.task in tasks]
        self.others = [one for one in known if one not in self.analyzers]
        if not self.analyzers:
            names = ", ".join(sorted({one.name for one in known})) or "none yet"
            raise QueryError(f"no model is named {model!r}; known are: {names}")

    def analyzer_ids(self, *tasks: Task) -> list[int]:
        """The catalog's numbers of the model with all its parameters, for these tasks."""
        return [one.id for one in self.analyzers if one.task in tasks]

    def class_names(self) -> tuple[str, ...]:
        """Every class that the model has found, sorted; for formats that also name what is absent
        or related, every class there is."""
        with self.catalog.reading() as connection:
            if self.format in WITH_RELATIONS:
                return choosing.every_class(connection)
            names = [reading.class_names(connection, one.id) for one in self.analyzers]
        return tuple(sorted({name for some in names for name in some}))

    def about(self) -> About:
        """What there is to say beside the images: numbers and ids of classes, licenses."""
        ids: dict[str, int] = {}
        attributes: dict[str, Json] = {}
        # A detector's classes have the numbers that annotations have given them.
        order = [*self.others, *self.analyzers]
        with self.catalog.reading() as connection:
            cards = [reading.model_card(connection, one.sha256) for one in order]
            external_ids, descriptions, parents = choosing.vocabulary(connection)
        for card in cards:
            for name, number in card.get("category_ids", {}).items():
                ids = {other: n for other, n in ids.items() if n != number}
                ids[name] = number
        for card in cards[len(self.others) :]:
            attributes |= card.get("about", {})
        return About(
            category_ids=ids,
            attributes=attributes,
            external_ids=external_ids,
            descriptions=descriptions,
            parents=parents,
        )

    def each(
        self, images: Sequence[IndexedImage]
    ) -> Iterator[tuple[IndexedImage, AnnotatedImage | Refusal | None]]:
        """A few images in their order; None for those that the model has not seen."""
        said: dict[int, dict[int, list[FoundClass]]] = {}
        with self.catalog.reading() as connection:
            for id_ in self.analyzer_ids("classifier"):
                said[id_] = reading.classes_of(connection, [one.id for one in images], id_)
        for found in images:
            # With other parameters a model is another analyzer: the newest counts.
            seen = sorted(one for one in self.analyzers if one.id in found.analyzer_ids)
            newest = {one.task: one.id for one in seen}
            if not newest:
                yield found, None
                continue
            classes = said.get(newest.get("classifier", 0), {}).get(found.id, [])
            image = self._image(found, newest, classes)
            yield found, self._refusal(found, image) or self._fitted(image)

    def _image(
        self, found: IndexedImage, newest: Mapping[str, int], said: Sequence[FoundClass]
    ) -> AnnotatedImage:
        """As the catalog has it: boxes in pixels, or in a frame of NOMINAL_SIDE."""
        boxes, classes, relations = None, None, None
        scores: tuple[float, ...] = ()
        if "detector" in newest:
            boxes = tuple(self._boxes(found, newest["detector"]))
        if "classifier" in newest:
            kept = [one for one in said if self._is_kept(one)]
            classes = tuple(one.class_name for one in kept)
            scores = tuple(one.score for one in kept)
        if "relater" in newest:
            relations = tuple(self._relations(found, newest["relater"]))
        return AnnotatedImage(
            file_name=local_key(found.source, found.key),
            place=found.uri,
            width=found.width,
            height=found.height,
            boxes=boxes,
            classes=classes,
            class_scores=() if all(score == 1 for score in scores) else scores,
            relations=relations,
            origin=self.origin,
            attributes=found.attributes,
        )

    def _is_kept(self, one: FoundClass) -> bool:
        if not one.score and not one.boxes:
            return self.format in WITH_ABSENT
        return one.score >= self.min_score

    def _boxes(self, found: IndexedImage, analyzer_id: int) -> Iterator[Annotation]:
        for box in found.boxes:
            if box.analyzer_id == analyzer_id and box.score >= self.min_score:
                yield Annotation(
                    box.class_name, box.box_xyxy, box.score, box.flags, dict(box.attributes)
                )

    def _relations(self, found: IndexedImage, analyzer_id: int) -> Iterator[Relation]:
        for one in found.relations:
            if one.analyzer_id == analyzer_id and one.score >= self.min_score:
                corners = one.subject_xyxy, one.object_xyxy
                yield Relation(one.subject, one.predicate, one.object, *corners, one.score)

    def _refusal(self, found: IndexedImage, image: AnnotatedImage) -> Refusal | None:
        """Why the image can't be written as it is known; None where it can."""
        if found.status not in ("ok", "unseen") or (found.status == "ok" and not found.width):
            return Refusal(found.status, f"the picture is {found.reason or found.status}")
        if self.sizes_follow:
            return None
        needs = SIZE_NEEDS.get(self.format)
        sized = found.width > 0 and not is_nominal(found)
        boxed = bool(image.boxes or image.relations)
        if (
            (needs == "always" and not sized)
            or (needs == "pixels" and is_nominal(found) and boxed)
            or (needs in ("sides", None) and not found.width and boxed)
        ):
            return Refusal("no-size", "the picture was never read, so its size is unknown")
        return None

    def _fitted(self, image: AnnotatedImage) -> AnnotatedImage:
        """With fractions in place of a nominal size, where the format does not divide itself."""
        if self.sizes_follow or SIZE_NEEDS.get(self.format) == "sides":
            return image
        if (image.width, image.height) == (NOMINAL_SIDE, NOMINAL_SIDE):
            scaled_ = scaled(image, 1 / NOMINAL_SIDE, 1 / NOMINAL_SIDE)
            return replace(scaled_, width=None, height=None, relative=True)
        return image if image.width else replace(image, width=None, height=None)


def is_nominal(found: IndexedImage) -> bool:
    """Whether only fractions of its sides are known of an image."""
    nominal = (found.width, found.height) == (NOMINAL_SIDE, NOMINAL_SIDE)
    return found.status == "unseen" and nominal


def scaled(image: AnnotatedImage, x: float, y: float) -> AnnotatedImage:
    """The image with all corners multiplied."""

    def corners(box: Corners) -> Corners:
        return box[0] * x, box[1] * y, box[2] * x, box[3] * y

    def related(one: Relation) -> Relation:
        subject = None if one.subject_xyxy is None else corners(one.subject_xyxy)
        object_ = None if one.object_xyxy is None else corners(one.object_xyxy)
        return replace(one, subject_xyxy=subject, object_xyxy=object_)

    boxes, relations = image.boxes, image.relations
    return replace(
        image,
        boxes=boxes and tuple(replace(one, box_xyxy=corners(one.box_xyxy)) for one in boxes),
        relations=relations and tuple(map(related, relations)),
    )


def note(problems: Problems, found: IndexedImage, why: Refusal) -> None:
    """Notes an image that is left out."""
    problems.add(
        why.kind,
        found.uri,
        found=why.what,
        expected="an image that can be written",
        cure=CURES.get(why.kind, "narrow the query, for instance with source:NAME"),
    )


class Pictures:
    """Reads the pictures of indexed images. Safe in threads."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._lock = threading.Lock()
        self._places = Places(local=False)

    def source(self, uri: str) -> Source:
        """The source, opened once.

        Raises: SourceError, UsageError.
        """
        with self._lock:
            if uri not in self._sources:
                self._sources[uri] = open_source(uri)
            return self._sources[uri]

    def read(self, found: IndexedImage) -> bytes | Refusal:
        """The bytes that the catalog knows; of a picture that was never read, also from the web.

        What has changed since, or can't be read, is refused.
        """
        try:
            try:
                content = with_retries(lambda: self.source(found.source).read(found.key))
            except SourceMissingError:
                if found.status != "unseen" or found.image_url is None:
                    raise
                return self._shown(found.image_url)
        except SourceError as error:
            return Refusal("unreadable", str(error))
        return _changed(found, content.version) or content.data

    def check(self, found: IndexedImage) -> Refusal | None:
        """Whether the picture is there as the catalog knows it, without reading all of it."""
        try:
            entry = with_retries(lambda: self.source(found.source).stat(found.key))
        except SourceError as error:
            return Refusal("unreadable", str(error))
        return _changed(found, entry.version)

    def _shown(self, url: str) -> bytes:
        """The bytes that a web address or a bucket gives.

        Raises: SourceError.
        """
        try:
            source, key = self._places.locate(address(url, ""))
        except AddressError as error:
            raise SourceError(f"{url}: {error}; correct --image-url") from error
        return with_retries(lambda: source.read(key)).data


def _changed(found: IndexedImage, version: str) -> Refusal | None:
    if not version or not found.version or version == found.version:
        return None
    return Refusal("changed-picture", "the picture has changed since it was indexed or annotated")
