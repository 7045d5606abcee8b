"""Three plain CSV tables: classes with descriptions, labels of images, relations in images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vistadex.errors import FormatError
from vistadex.formats.contract import About, Format, Problems, classes_there
from vistadex.formats.csv_files import CsvFiles
from vistadex.formats.csv_rows import csv_rows
from vistadex.formats.folders import names_in, place_in, root_and_name, shown
from vistadex.formats.open_images_layout import file_name_of, image_id_of
from vistadex.records import AnnotatedImage, Relation
from vistadex.sources import named_as_picture, open_source
from vistadex.sources.spool import Spool

CLASSES, LABELS, RELATIONS = "classes.csv", "image_labels.csv", "relations.csv"
COLUMNS: Mapping[str, tuple[str, ...]] = {
    CLASSES: ("Label", "Description"),
    LABELS: ("ImageId", "Label"),
    RELATIONS: ("ImageId", "Label1", "Relation", "Label2"),
}
_MAY_BE_EMPTY = "Description"


class ClassTablesFormat(Format):
    """A folder with `classes.csv`, `image_labels.csv` and `relations.csv`, or some of them."""

    pictures_optional = True
    losses = (
        "boxes, those of relations too",
        "scores of classes and relations",
        "classes that an image was looked at for and does not have",
        "attributes of images and boxes, widths and heights",
        "whose classes and relations are, where they are a machine's",
        "images without classes and relations",
        "ids of classes and their hierarchy",
    )

    def read(
        self, path: str, problems: Problems, reference: str | None = None
    ) -> Iterator[AnnotatedImage]:
        """See Format: by rising name. Rows may come in any order; it is its own reference."""
        files = _find(path, problems)
        known = _classes(files, problems)
        if known is None:
            cure = "every label is taken for a class; add the table to have them checked"
            expected, found = f"{CLASSES} (Label, Description)", f"no {CLASSES}"
            problems.add("no-classes", path, found=found, expected=expected, cure=cure)
        with Spool() as spool:
            for name in (LABELS, RELATIONS):
                for place, (image_id, *said) in _rows(files, name, problems):
                    labels = said if name == LABELS else [said[0], said[2]]
                    if _all_known(place, labels, known, problems):
                        spool.add(file_name_of(image_id), json.dumps([place, said]))
            for file_name, values in spool.groups():
                yield _image(file_name, [json.loads(value) for value in values])

    def about(self, path: str) -> About:
        """See Format: what classes mean."""
        found = _classes(_find(path, Problems()), Problems()) or {}
        return About(descriptions={name: text for name, text in found.items() if text})

    def write(
        self,
        out: Path,
        images: Iterable[AnnotatedImage],
        classes: tuple[str, ...],
        about: About,
    ) -> None:
        """See Format. All three tables, each with its header."""
        with CsvFiles(out) as files:
            for name, columns in COLUMNS.items():
                files.add(name, columns)
            for label in sorted({*classes, *about.descriptions}):
                files.add(CLASSES, [label, about.descriptions.get(label, "")])
            for image in images:
                _write_image(files, image)


def _write_image(files: CsvFiles, image: AnnotatedImage) -> None:
    key = image_id_of(image.file_name)
    for name in classes_there(image):
        files.add(LABELS, [key, name])
    triplets = ((one.subject, one.predicate, one.object) for one in image.relations or ())
    for triplet in dict.fromkeys(triplets):
        files.add(RELATIONS, [key, *triplet])


@dataclass(frozen=True, slots=True)
class _Table:
    """Where a table is, and the order of its columns."""

    path: str
    header: bool
    positions: tuple[int, ...]
    width: int


def _find(path: str, problems: Problems) -> dict[str, _Table]:
    """The tables by their names; other files are reported.

    Raises: FormatError where there is none; SourceError.
    """
    if root_and_name(path, (".csv", ".csv.gz"))[1]:
        expected = f"expected the folder with {', '.join(COLUMNS)}"
        raise FormatError(f"{path}: is one file, {expected}; name the folder")
    found: dict[str, _Table] = {}
    for name, failure in sorted(names_in(open_source(path))):
        place, table = place_in(path, name), name.lower().removesuffix(".gz")
        if not failure and table in COLUMNS and table not in found:
            found[table] = _table(place, COLUMNS[table])
        elif failure or not (name.startswith(".") or named_as_picture(name)):
            what = failure or (
                f"the same as {table} beside it" if table in found else "another file"
            )
            expected = f"one of {', '.join(COLUMNS)}, plain or gzipped"
            cure = "it is passed over; take it away"
            problems.add("unknown-file", place, found=what, expected=expected, cure=cure)
    if not found.keys() & {LABELS, RELATIONS}:
        what = f"has neither {LABELS} nor {RELATIONS}, expected one of them or both"
        raise FormatError(f"{path}: {what}; check the path")
    return found


def _table(path: str, columns: Sequence[str]) -> _Table:
    """How a table is laid out: by its header, or as the columns stand here without one."""
    first = next(csv_rows(path), None)
    names = [one.strip().lower() for one in first.fields] if first is not None else []
    wanted = [one.lower() for one in columns]
    if set(wanted) <= set(names):
        return _Table(path, True, tuple(names.index(one) for one in wanted), len(names))
    return _Table(path, False, tuple(range(len(columns))), len(columns))


def _rows(
    files: Mapping[str, _Table], name: str, problems: Problems
) -> Iterator[tuple[str, list[str]]]:
    """Places and values, in the order of COLUMNS."""
    if name not in files:
        return
    table, columns = files[name], COLUMNS[name]
    for number, row in enumerate(csv_rows(table.path)):
        if number == 0 and table.header:
            continue
        place, wrong, values = f"{table.path} line {row.line}", row.wrong, list[str]()
        if not wrong and len(row.fields) != table.width:
            wrong = f"{len(row.fields)} fields"
        if not wrong:
            values = [row.fields[position] for position in table.positions]
            pairs = zip(columns, values, strict=True)
            empty = [one for one, value in pairs if not value.strip() and one != _MAY_BE_EMPTY]
            wrong = f"no {empty[0]}" if empty else ""
        if wrong:
            expected = f"{table.width} fields with {', '.join(columns)}"
            cure = "it is left out; correct the line"
            problems.add("bad-row", place, found=wrong, expected=expected, cure=cure)
        else:
            yield place, values


def _classes(files: Mapping[str, _Table], problems: Problems) -> dict[str, str] | None:
    """Descriptions by label; None where there is no table of classes."""
    if CLASSES not in files:
        return None
    classes: dict[str, str] = {}
    for place, (label, description) in _rows(files, CLASSES, problems):
        known = classes.setdefault(label, description)
        if known and description and known != description:
            found, cure = f"another description of {label!r}", "the first stays; correct one"
            problems.add("contradiction", place, found=found, expected="one each", cure=cure)
        classes[label] = known or description
    return classes


def _all_known(
    place: str, labels: Sequence[str], known: Mapping[str, str] | None, problems: Problems
) -> bool:
    """Whether all labels are classes; the first that is not is reported."""
    unknown = next((one for one in labels if known is not None and one not in known), None)
    if unknown is not None:
        cure = f"the row is left out; correct it, or add the class to {CLASSES}"
        found = f"the label {shown(unknown)}"
        expected = f"a class of {CLASSES}"
        problems.add("unknown-class", place, found=found, expected=expected, cure=cure)
    return unknown is None


def _image(file_name: str, rows: Sequence[tuple[str, list[str]]]) -> AnnotatedImage:
    """The rows of one image together."""
    labels = dict.fromkeys(said[0] for _, said in rows if len(said) == 1)
    triplets = dict.fromkeys((*said,) for _, said in rows if len(said) == 3)
    relations = tuple(Relation(one, name, two) for one, name, two in triplets)
    return AnnotatedImage(
        file_name=file_name,
        place=rows[0][0],
        classes=tuple(labels) or None,
        relations=relations or None,
    )
