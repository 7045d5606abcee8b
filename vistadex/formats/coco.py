"""COCO instances: one JSON file with images, annotations and categories, plain or gzipped."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from vistadex.errors import FormatError
from vistadex.formats.coco_fields import Categories, Damage
from vistadex.formats.coco_joining import LISTS_PASSED_OVER, OWN_FLAGS, SCHEMA, Joining
from vistadex.formats.coco_json import Document
from vistadex.formats.contract import About, Format, Problems
from vistadex.formats.files import created
from vistadex.formats.scratch import scratch
from vistadex.records import AnnotatedImage, Annotation, Json

LISTS = {"images": frozenset[str](), "annotations": LISTS_PASSED_OVER, "categories": frozenset()}
_OWN_KEYS = {"images", "annotations", "categories"}
_BOX_FIELDS = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "score"}
_LARGEST_ID = 1 << 53
"""Beyond it readers that know only one kind of number do not tell ids apart."""

_WRITTEN = """
    CREATE TABLE image (number INTEGER PRIMARY KEY, id INTEGER UNIQUE, data TEXT);
    CREATE TABLE annotation (
        number INTEGER PRIMARY KEY, id INTEGER UNIQUE, image INTEGER, data TEXT);
"""


class CocoFormat(Format):
    """Annotations as COCO publishes them."""

    losses = (
        "classes of whole images",
        "whether an image without boxes was looked at: the file says it has none",
        "whether it is unknown if a box is a crowd: the file says it is none",
        "ids that are not whole numbers from 1 on, or not unique: replaced by others",
        "relations",
    )

    def read(
        self, path: str, problems: Problems, reference: str | None = None
    ) -> Iterator[AnnotatedImage]:
        """See Format. Places are positions in the file's lists: `a.json annotations[17] id 1234`.

        The file is its own reference.
        """
        with scratch(SCHEMA) as rows:
            joining = Joining(rows, problems, instances=path, annotations=f"{path} annotations")
            document = Document(path, lists=LISTS)
            for key, number, value in document.items():
                joining.add(key, number, value)
            check_is_coco(document)
            for key in document.passed_over:
                problems.lose(key)
            yield from joining.joined(says_boxes=_OWN_KEYS <= set(document.keys))

    def about(self, path: str) -> About:
        """See Format: category ids, and as attributes what else stands beside the lists.

        What is more to a category, such as its supercategory, is below `categories` by name.
        """
        document = Document(path, lists={"categories": frozenset()})
        categories = Categories()
        for _, _, value in document.items():
            try:
                categories.add(value)
            except Damage:
                continue  # It is reported by read().
        check_is_coco(document)
        attributes = {**document.values, "categories": categories.extras}
        return About(category_ids=categories.ids, attributes=attributes)

    def write(
        self,
        out: Path,
        images: Iterable[AnnotatedImage],
        classes: tuple[str, ...],
        about: About,
    ) -> None:
        """See Format. Gzipped where the name ends in .gz; category ids are kept."""
        ids = category_ids(classes, about.category_ids)
        with scratch(_WRITTEN) as rows, created(out) as file:
            for image in images:
                _keep(rows, image, ids)
            for table in ("image", "annotation"):
                highest = f"(SELECT coalesce(max(id), 0) FROM {table})"
                rows.execute(f"UPDATE {table} SET id = {highest} + number WHERE id IS NULL")
            for text in _document(rows, ids, about):
                file.write(text)


def check_is_coco(document: Document) -> None:
    """Whether what has been read to its end is a file of COCO instances.

    Raises: FormatError where it is not; it says what was found.
    """
    if document.is_list:
        what = "is a list, as COCO results are, expected an object with images"
        cure = "read it with --format coco-results and its instances file as --reference"
        raise FormatError(f"{document.path}: {what}; {cure}")
    if "images" not in document.keys:
        found = f"has the keys {', '.join(document.keys)}" if document.keys else "has no keys"
        expected = "images, annotations and categories"
        cure = "give the file with the instances, or another --format"
        raise FormatError(f"{document.path}: {found}, expected {expected}; {cure}")


def category_ids(classes: Iterable[str], known: Mapping[str, int]) -> dict[str, int]:
    """The number of each class: as known, unless another has it, else the next free from 1 on."""
    ids: dict[str, int] = {}
    used: set[int] = set()
    for name, number in known.items():
        if number not in used:
            ids[name] = number
            used.add(number)
    free = 1
    for name in sorted({*classes, *known} - set(ids)):
        while free in used:
            free += 1
        ids[name] = free
        used.add(free)
    return dict(sorted(ids.items(), key=lambda item: item[1]))


def box_field(box: tuple[float, float, float, float]) -> list[float]:
    """COCO's x, y, width, height, in the fewest decimals that lead back to the same corners."""
    x0, y0, x1, y1 = box
    return [x0, y0, _length(x0, x1), _length(y0, y1)]


def dumped(value: Json, place: str) -> str:
    """A value as JSON, without NaN.

    Raises: FormatError.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError as error:
        what = f"{error}, expected finite numbers"
        raise FormatError(f"{place}: {what}; correct the annotation") from error


def _length(start: float, stop: float) -> float:
    # 224 + 175.2 - 224 is not 175.2, but both lead from 224 to the same stop.
    exact = stop - start
    rounded = (round(exact, digits) for digits in range(0, 13, 2))
    return next((length for length in rounded if start + length == stop), exact)


def _keep(rows: sqlite3.Connection, image: AnnotatedImage, ids: Mapping[str, int]) -> None:
    """Puts an image with its annotations aside until all ids are known."""
    if image.width is None or image.height is None:
        what = "no width and height, expected them"
        raise FormatError(f"{image.place}: {what}; index the picture first")
    fields: dict[str, Json] = {
        "file_name": image.file_name,
        "height": image.height,
        "width": image.width,
    }
    taken = {"id", *fields}
    fields.update({k: value for k, value in image.attributes.items() if k not in taken})
    number = _insert(rows, "image", image.attributes, dumped(fields, image.place))
    for box in image.boxes or ():
        data = dumped(_box_fields(box, ids), image.place)
        annotation = _insert(rows, "annotation", box.attributes, data)
        rows.execute("UPDATE annotation SET image = ? WHERE number = ?", (number, annotation))


def _insert(
    rows: sqlite3.Connection, table: str, attributes: Mapping[str, Json], data: str
) -> int | None:
    """Adds a row with its own id where it has one that can be kept; the row's number."""
    own = attributes.get("id")
    fits = isinstance(own, int) and not isinstance(own, bool) and 1 <= own <= _LARGEST_ID
    insert = f"INSERT OR IGNORE INTO {table} (id, data) VALUES (?, ?)"
    done = rows.execute(insert, (own if fits else None, data))
    if not done.rowcount:
        done = rows.execute(insert, (None, data))
    return done.lastrowid


def _box_fields(box: Annotation, ids: Mapping[str, int]) -> dict[str, Json]:
    """The annotation as COCO has it, but for its own id and the image's."""
    corners = box_field(box.box_xyxy)
    area = box.attributes.get("area")
    fields: dict[str, Json] = {
        "area": round(corners[2] * corners[3], 9) if area is None else area,
        "iscrowd": int(box.flags.get("crowd", False)),
        "bbox": corners,
        "category_id": ids[box.class_name],
    }
    if box.score != 1.0:
        fields["score"] = box.score
    fields.update({name: box.flags[name] for name in OWN_FLAGS if name in box.flags})
    taken = {*_BOX_FIELDS, *fields}
    return {**fields, **{key: box.attributes[key] for key in box.attributes if key not in taken}}


def _document(rows: sqlite3.Connection, ids: Mapping[str, int], about: About) -> Iterator[str]:
    """The text of the file, in the order of keys that COCO's own files have."""
    said = {key: value for key, value in about.attributes.items() if key not in _OWN_KEYS}
    top: dict[str, Json] = {"info": {}, "licenses": [], **said}
    yield "{"
    for key, value in top.items():
        yield f"{dumped(key, 'info')}: {dumped(value, key)}, "
    yield '"images": ['
    yield from _joined('{{"id": {}, {}', rows, "SELECT id, substr(data, 2) FROM image")
    yield '], "annotations": ['
    query = """
        SELECT annotation.id, image.id, substr(annotation.data, 2)
        FROM annotation JOIN image ON image.number = annotation.image
        ORDER BY annotation.number
    """
    yield from _joined('{{"id": {}, "image_id": {}, {}', rows, query)
    yield '], "categories": ['
    yield ", ".join(map(json.dumps, _categories(ids, about.attributes.get("categories"))))
    yield "]}\n"


def _joined(form: str, rows: sqlite3.Connection, query: str) -> Iterator[str]:
    between = ""
    for row in rows.execute(query):
        yield between + form.format(*row)
        between = ", "


def _categories(ids: Mapping[str, int], extras: Json) -> Sequence[Mapping[str, Json]]:
    more = extras if isinstance(extras, Mapping) else {}
    categories: list[Mapping[str, Json]] = []
    for name, number in ids.items():
        own = more.get(name)
        own = own if isinstance(own, Mapping) else {}
        categories.append({**own, "id": number, "name": name})
    return categories
