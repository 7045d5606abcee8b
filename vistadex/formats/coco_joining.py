"""COCO's lists of images, annotations and categories, joined by their ids into annotated images.

They may stand in any order, and in two files (results beside the instances they refer to).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping

from vistadex.formats.coco_fields import (
    Categories,
    Damage,
    Fields,
    box_corners,
    id_key,
    number_of,
    object_fields,
    score_of,
    shown,
    whole_number,
)
from vistadex.formats.contract import Problems
from vistadex.records import FLAGS, AnnotatedImage, Annotation, Json

LISTS_PASSED_OVER = frozenset({"segmentation", "keypoints", "segments_info"})
"""Long fields of annotations, of which only is counted that they hold something."""
LOST = (*sorted(LISTS_PASSED_OVER), "caption")
"""What annotations say that a box can't hold."""
OWN_FLAGS = FLAGS[1:]
"""Flags that COCO has no field for; they are written and read under their own names."""

SCHEMA = """
    CREATE TABLE image (
        number INTEGER PRIMARY KEY, id TEXT, file_name TEXT, data TEXT, usable INT DEFAULT 1);
    CREATE TABLE annotation (
        number INTEGER PRIMARY KEY, id TEXT, image TEXT, data TEXT, repeated INT DEFAULT 0);
"""
_INDEXES = (
    "CREATE INDEX image_id ON image (id)",
    "CREATE INDEX annotation_image ON annotation (image)",
)
_SEVERAL_NAMES = """
    UPDATE image SET usable = 0
    WHERE id IN (SELECT id FROM image GROUP BY id HAVING min(file_name) <> max(file_name))
    RETURNING number, id, file_name
"""
_SAME_AGAIN = """
    UPDATE image SET usable = 0
    WHERE usable AND number NOT IN (SELECT min(number) FROM image WHERE usable GROUP BY id)
    RETURNING number, id, file_name
"""
_SEVERAL_IDS = """
    UPDATE image SET usable = 0
    WHERE usable AND number NOT IN (SELECT min(number) FROM image WHERE usable GROUP BY file_name)
    RETURNING number, id, file_name
"""
_REPEATED_IDS = """
    UPDATE annotation SET repeated = 1 WHERE number IN (
        SELECT number FROM (
            SELECT number, id, lag(id) OVER (ORDER BY id, number) AS previous
            FROM annotation WHERE id IS NOT NULL
        ) WHERE id = previous
    )
"""
_WITHOUT_IMAGE = """
    SELECT number, id, image, EXISTS (SELECT 1 FROM image WHERE image.id = annotation.image)
    FROM annotation
    WHERE NOT EXISTS (SELECT 1 FROM image WHERE image.id = annotation.image AND usable)
    ORDER BY number
"""


class Joining:
    """Takes images and annotations in any order, then gives the annotated images."""

    def __init__(
        self,
        rows: sqlite3.Connection,
        problems: Problems,
        *,
        instances: str,
        annotations: str,
        need_score: bool = False,
    ) -> None:
        """Starts empty.

        Args:
            rows: an empty database with the tables of SCHEMA.
            instances: path of the file with images and categories.
            annotations: what stands before "[number]" in the place of an annotation.
            need_score: whether an annotation without a score is damaged.
        """
        self.categories = Categories()
        self._rows = rows
        self._problems = problems
        self._images_at = f"{instances} images"
        self._annotations_at = annotations
        self._categories_at = f"{instances} categories"
        self._need_score = need_score
        self._takers: Mapping[str, Callable[[int, Json], None]] = {
            "images": self._add_image,
            "annotations": self._add_annotation,
            "categories": self._add_category,
        }

    def add(self, key: str, number: int, value: Json) -> None:
        """Takes an item of a list: of images, annotations or categories."""
        self._takers[key](number, value)

    def _add_category(self, number: int, value: Json) -> None:
        try:
            self.categories.add(value)
        except Damage as damage:
            self._report(damage, f"{self._categories_at}[{number}]")

    def _add_image(self, number: int, value: Json) -> None:
        try:
            fields = object_fields(value)
            key, name = id_key(fields.get("id")), fields.get("file_name")
            if key is None or not isinstance(name, str) or not name:
                what = "an image without " + ("an id" if key is None else "a file_name")
                raise Damage("missing-field", what, "id and file_name", "add them")
        except Damage as damage:
            self._report(damage, f"{self._images_at}[{number}]")
            return
        self._rows.execute(
            "INSERT INTO image (number, id, file_name, data) VALUES (?, ?, ?, ?)",
            (number, key, name, json.dumps(fields)),
        )

    def _add_annotation(self, number: int, value: Json) -> None:
        try:
            fields = object_fields(value)
            lost = [name for name in LOST if fields.pop(name, None)]
            for name in lost:
                self._problems.lose(name)
            if "bbox" not in fields and ("caption" in lost or "segments_info" in lost):
                return
            image = id_key(fields.get("image_id"))
            if image is None:
                raise Damage("missing-field", "no image_id", "the id of an image", "add it")
        except Damage as damage:
            self._report(damage, f"{self._annotations_at}[{number}]")
            return
        if "keypoints" in lost:
            fields.pop("num_keypoints", None)
        self._rows.execute(
            "INSERT INTO annotation (number, id, image, data) VALUES (?, ?, ?, ?)",
            (number, id_key(fields.get("id")), image, json.dumps(fields)),
        )

    def joined(self, *, says_boxes: bool) -> Iterator[AnnotatedImage]:
        """The images in their order, with their annotations in theirs; to be called once.

        Args:
            says_boxes: whether an image without annotations has no boxes, or nothing is said.
        """
        for statement in _INDEXES:
            self._rows.execute(statement)
        if self.categories.merged:
            self._problems.lose("category ids that share a name", self.categories.merged)
        self._leave_out_images()
        self._rows.execute(_REPEATED_IDS)
        self._leave_out_annotations()
        query = "SELECT number, id, data FROM image WHERE usable ORDER BY number"
        for number, key, data in self._rows.execute(query):
            fields: Fields = json.loads(data)
            boxes = tuple(self._boxes(key))
            yield self._image(number, key, fields, boxes if boxes or says_boxes else None)

    def _image(
        self, number: int, key: str, fields: Fields, boxes: tuple[Annotation, ...] | None
    ) -> AnnotatedImage:
        place = f"{self._images_at}[{number}] id {key}"
        return AnnotatedImage(
            file_name=str(fields.pop("file_name")),
            place=place,
            width=self._side(fields, "width", place),
            height=self._side(fields, "height", place),
            boxes=boxes,
            attributes=fields,
        )

    def _side(self, fields: Fields, name: str, place: str) -> int | None:
        """The picture's width or height, where it is stated and can be."""
        value = fields.pop(name, None)
        pixels = whole_number(value)
        if pixels is not None and pixels > 0:
            return pixels
        if value is not None:
            what, cure = f"{name} {shown(value)}", "correct it; the picture itself is asked"
            expected = "a whole number of pixels above 0"
            self._report(Damage("bad-size", what, expected, cure), place)
        return None

    def _boxes(self, image: str) -> Iterator[Annotation]:
        query = "SELECT number, id, repeated, data FROM annotation WHERE image = ? ORDER BY number"
        for number, key, repeated, data in self._rows.execute(query, (image,)):
            fields: Fields = json.loads(data)
            place = self._annotation_place(number, key)
            if repeated:
                del fields["id"]
                cure = "number the annotations anew; this one goes on without its id"
                what = "an id that another annotation has"
                self._report(Damage("repeated-id", what, "an id of its own", cure), place)
            try:
                yield self._annotation(fields, place)
            except Damage as damage:
                self._report(damage, place)

    def _annotation(self, fields: Fields, place: str) -> Annotation:
        """The box that an annotation says; its fields are used up.

        Raises: Damage where it says none that can be used.
        """
        del fields["image_id"]
        name = self.categories.name(fields.pop("category_id", None))
        box = box_corners(fields.pop("bbox", None))
        score = score_of(fields.pop("score", None if self._need_score else 1.0))
        flags = self._flags(fields, place)
        if "area" in fields and number_of(fields["area"]) is None:
            what = f"area {shown(fields.pop('area'))}"
            cure = "correct it; the box goes on without it"
            self._report(Damage("bad-field", what, "a number", cure), place)
        return Annotation(name, box, score, flags, fields)

    def _flags(self, fields: Fields, place: str) -> Mapping[str, bool]:
        flags = {}
        crowd = fields.pop("iscrowd", None)
        if crowd in (0, 1):
            flags["crowd"] = bool(crowd)
        elif crowd is not None:
            cure = "correct it; the box goes on without it"
            self._report(Damage("bad-field", f"iscrowd {shown(crowd)}", "0 or 1", cure), place)
        for name in OWN_FLAGS:
            if name in fields and fields[name] in (0, 1):
                flags[name] = bool(fields.pop(name))
        return flags

    def _leave_out_images(self) -> None:
        for statement, kind, cure in (
            (_SEVERAL_NAMES, "repeated-id", "number the images anew; none with this id is used"),
            (_SAME_AGAIN, "repeated-image", "delete it; the first is used"),
            (_SEVERAL_IDS, "repeated-image", "merge the entries of one picture; the first is used"),
        ):
            for number, key, name in self._rows.execute(statement):
                what = f"the image {name!r} with id {key} beside another of that name or id"
                place = f"{self._images_at}[{number}] id {key}"
                self._report(Damage(kind, what, "each name and each id once", cure), place)

    def _leave_out_annotations(self) -> None:
        for number, key, image, exists in self._rows.execute(_WITHOUT_IMAGE):
            what = f"image_id {image}" + (", of an image that is left out" if exists else "")
            cure = "add the image, or correct the id"
            damage = Damage("unknown-image", what, "the id of an image", cure)
            self._report(damage, self._annotation_place(number, key))

    def _annotation_place(self, number: int, key: str | None) -> str:
        return f"{self._annotations_at}[{number}]" + (f" id {key}" if key is not None else "")

    def _report(self, damage: Damage, place: str) -> None:
        self._problems.add(
            damage.kind, place, found=damage.found, expected=damage.expected, cure=damage.cure
        )
