"""Pascal VOC: one XML file for each picture, with boxes in whole pixels that count from 1."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from vistadex.errors import FormatError, SourceError, SourceMissingError
from vistadex.formats.contract import About, Format, Problems
from vistadex.formats.folders import (
    SPLITS,
    LineFiles,
    Wanted,
    checked_name,
    clipped,
    entries_below,
    lines_of,
    note_partial,
    note_unreadable,
    number,
    read_texts,
    root_and_name,
    shown,
    split_of,
    text_of,
    write_new,
)
from vistadex.formats.scratch import scratch
from vistadex.formats.xml_tree import Damage, Element, parse_xml
from vistadex.records import AnnotatedImage, Annotation, Json
from vistadex.sources import Source, open_source

ANNOTATIONS = "Annotations/"
SETS = "ImageSets/Main/"
FLAGS = ("truncated", "difficult", "occluded")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SPLITS = {**SPLITS, "trainval": "trainval"}
_READ = {"name", "pose", "bndbox", *FLAGS}
_LOST = {"part": "parts of objects", "actions": "actions", "robndbox": "rotated boxes"}
_UNSPEAKABLE = re.compile("[^\t\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't hold, not even escaped, and ends of lines."""


class VocFormat(Format):
    """A folder with `Annotations/*.xml`, a folder of such files, or one of them."""

    pictures = "JPEGImages"
    losses = (
        "scores of boxes",
        "the flags crowd, depiction and inside",
        "attributes of boxes other than pose",
        "attributes of images other than split and database",
        "class names of whole images",
        "boxes of exactly one pixel (they read as a click without a box)",
        "relations",
    )

    def root(self, path: str) -> str:
        """See Format; the folder above Annotations, of which its files may be named."""
        return _place(path)[0]

    def read(
        self, path: str, problems: Problems, reference: str | None = None
    ) -> Iterator[AnnotatedImage]:
        """See Format."""
        root, key = _place(path)
        source = open_source(root)
        if not key:
            return _read_all(path, source, problems)
        image = _image(source.image_uri(key), "", source.read(key).data, problems)
        return iter([image] if image is not None else [])

    def write(
        self,
        out: Path,
        images: Iterable[AnnotatedImage],
        classes: tuple[str, ...],
        about: About,
    ) -> None:
        """See Format; `ImageSets/Main/<split>.txt` lists the images whose split is known."""
        with LineFiles() as sets:
            for image in images:
                stem = _checked(image).rpartition(".")[0]
                write_new(out / f"{ANNOTATIONS}{stem}.xml", _xml(image))
                if (split := split_of(image, _SPLITS)) is not None:
                    sets.add(out / f"{SETS}{split}.txt", stem)

    def picture_path(self, image: AnnotatedImage) -> str | None:
        """See Format.

        Raises: FormatError for an image that can't be written.
        """
        return f"{self.pictures}/{_checked(image)}"


def _place(path: str) -> tuple[str, str]:
    """The root of the data set that a path names, and the key of the file where it names one."""
    folder, name = root_and_name(path, (".xml",))
    head, mark, tail = folder.rstrip("/").rpartition("/")
    if f"{tail}/" != ANNOTATIONS:
        return folder, name
    return (head or "/") if mark else ".", f"{ANNOTATIONS}{name}" if name else ""


def _checked(image: AnnotatedImage) -> str:
    """The image's name, where it can be written.

    Raises: FormatError where not.
    """
    if image.boxes is None:
        what = "nothing is said of boxes, expected boxes or that there are none"
        raise FormatError(f"{image.file_name}: {what}; leave it out")
    return checked_name(image)


def _read_all(path: str, source: Source, problems: Problems) -> Iterator[AnnotatedImage]:
    top = ANNOTATIONS if next(entries_below(source, ANNOTATIONS), None) is not None else ""
    note_partial(problems, source)
    count = 0

    def wanted() -> Iterator[Wanted[str]]:
        nonlocal count
        for entry in entries_below(source, top):
            if entry.failure is not None:
                note_unreadable(problems, source.image_uri(entry.key), entry.failure.message)
            elif entry.key.lower().endswith(".xml"):
                count += 1
                yield entry.key, entry.key, entry.size_bytes

    schema = "CREATE TABLE split (name TEXT PRIMARY KEY, split TEXT, place TEXT) WITHOUT ROWID"
    with scratch(schema) as rows:
        splits = _Splits(rows, problems)
        if top:
            splits.load(source)
        for key, data in read_texts(source, wanted()):
            stem = key[len(top) : -len(".xml")]
            split = splits.take(stem)
            place = source.image_uri(key)
            if isinstance(data, bytes):
                image = _image(place, stem.rpartition("/")[0], data, problems, split)
                if image is not None:
                    yield image
            else:
                note_unreadable(problems, place, data)
        splits.note_unused()
    if not count:
        what = "no .xml files, expected Annotations/*.xml or a folder of .xml files"
        raise FormatError(f"{path}: {what}; check the path")


class _Splits:
    """What ImageSets/Main says: names with their split, on disk."""

    def __init__(self, rows: sqlite3.Connection, problems: Problems) -> None:
        self._rows = rows
        self._problems = problems

    def load(self, source: Source) -> None:
        """Reads train.txt, val.txt and test.txt; trainval.txt for what these do not name."""
        for split in ("train", "val", "test", "trainval"):
            key = f"{SETS}{split}.txt"
            try:
                for line, data in lines_of(source, key):
                    self._add(split, f"{source.image_uri(key)} line {line}", data)
            except SourceMissingError:
                continue
            except SourceError as error:
                note_unreadable(self._problems, source.image_uri(key), error)

    def _add(self, split: str, place: str, data: bytes) -> None:
        text = text_of(data)
        if text is None:
            found, cure = shown(repr(data[:60])), "save the list as UTF-8"
            self._problems.add("bad-line", place, found=found, expected="UTF-8", cure=cure)
            return
        name = text.strip()
        if not name:
            return
        known = self._rows.execute("SELECT split FROM split WHERE name = ?", (name,)).fetchone()
        if known is None:
            self._rows.execute("INSERT INTO split VALUES (?, ?, ?)", (name, split, place))
        elif split != "trainval":
            found = f"{shown(name)}, which is in {known[0]} already"
            cure = f"it counts as {known[0]}; name it once"
            expected = "each name in one split"
            self._problems.add("split-twice", place, found=found, expected=expected, cure=cure)

    def take(self, name: str) -> str | None:
        """The split of a file, whose name then counts as used."""
        name = name.strip()
        row = self._rows.execute("SELECT split FROM split WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        self._rows.execute("DELETE FROM split WHERE name = ?", (name,))
        return str(row[0])

    def note_unused(self) -> None:
        """Notes names without a file."""
        for name, place in self._rows.execute("SELECT name, place FROM split"):
            found, expected = f"{shown(name)}, which has no file", f"{ANNOTATIONS}{name}.xml"
            cure = "add the file or take the name from the list"
            self._problems.add("no-annotations", place, found=found, expected=expected, cure=cure)


def _image(
    place: str, folder: str, data: bytes, problems: Problems, split: str | None = None
) -> AnnotatedImage | None:
    """What a file says; None where it can't be used.

    Args:
        folder: of the file, below that with all of them; pictures lie likewise.
    """
    root = parse_xml(data)
    if isinstance(root, Damage) or root.tag != "annotation":
        found = root.found if isinstance(root, Damage) else f"<{root.tag[:60]}>"
        place, cure = f"{place} line {root.line}", "repair or remove the file"
        expected = "XML with the root <annotation>"
        problems.add("bad-xml", place, found=found, expected=expected, cure=cure)
        return None
    file_name = _file_name(root, place, folder, problems)
    if file_name is None:
        return None
    attributes: dict[str, Json] = {} if split is None else {"split": split}
    if database := root.text_at("source", "database"):
        attributes["database"] = database
    objects = list(root.all("object"))
    boxes = tuple(box for one in objects if (box := _box(one, place, problems)) is not None)
    return AnnotatedImage(
        file_name=file_name,
        place=place,
        width=_side(root, "width", place, problems),
        height=_side(root, "height", place, problems),
        # Where no object could be used, it is not said that there are none.
        boxes=boxes if boxes or not objects else None,
        attributes=attributes,
    )


def _file_name(root: Element, place: str, folder: str, problems: Problems) -> str | None:
    name = root.text_at("filename") or ""
    if "." not in name.rpartition("/")[2] or name.startswith("/") or ".." in name.split("/"):
        found = f"the <filename> {shown(name)}" if name else "no <filename>"
        expected, cure = "a picture's name with its extension", "write it whole, as a.jpg"
        problems.add("bad-name", place, found=found, expected=expected, cure=cure)
        return None
    return f"{folder}/{name}" if folder and "/" not in name else name


def _side(root: Element, tag: str, place: str, problems: Problems) -> int | None:
    text = root.text_at("size", tag)
    if not text or not text.strip():
        return None
    value = number(text)
    if value is None or value < 0 or value != int(value):
        found, cure = f"the {tag} {shown(text)}", "it is not used; correct it"
        expected = "whole pixels, or 0 for unknown"
        problems.add("bad-size", place, found=found, expected=expected, cure=cure)
        return None
    return int(value) or None


def _box(element: Element, place: str, problems: Problems) -> Annotation | None:
    place = f"{place} line {element.line}"
    for child in element.children:
        if child.tag not in _READ:
            problems.lose(_LOST.get(child.tag, "other elements of objects"))
    name = element.text_at("name")
    if not name:
        cure = "the box is left out; add <name>"
        problems.add("no-class", place, found="no <name>", expected="a class name", cure=cure)
        return None
    corners = _corners(element, name, place, problems)
    if corners is None:
        return None
    pose = element.text_at("pose")
    return Annotation(
        name,
        corners,
        flags=_flags(element, place, problems),
        attributes={} if not pose else {"pose": pose},
    )


def _corners(
    element: Element, name: str, place: str, problems: Problems
) -> tuple[float, float, float, float] | None:
    """The box, half-open from 0, without what lies left of the picture or above it."""
    texts = [element.text_at("bndbox", corner) for corner in CORNERS]
    numbers = [number(text) for text in texts if text is not None]
    xmin, ymin, xmax, ymax = [*numbers, None, None, None, None][:4]
    where = " ".join(f"{corner} {text}" for corner, text in zip(CORNERS, texts, strict=True))
    found = f"{shown(name)} at {where[:120]}"
    if len(numbers) < 4 or xmin is None or ymin is None or xmax is None or ymax is None:
        expected, cure = "four numbers", "the box is left out; correct it"
    elif xmax <= max(0, xmin - 1) or ymax <= max(0, ymin - 1):
        expected = "xmin <= xmax and ymin <= ymax, in the picture"
        cure = "the box is left out; correct it"
    elif xmin == xmax and ymin == ymax:
        expected, cure = "a box larger than one pixel", "the box is left out; draw it or remove it"
    elif xmin >= 1 and ymin >= 1:
        return xmin - 1, ymin - 1, xmax, ymax
    else:
        expected = "pixels that count from 1"
        cure = (
            "the box is clipped to the picture; "
            "if the set counts from 0, all its boxes lie one pixel too far up and left: add 1"
        )
        problems.add("cut-off", place, found=found, expected=expected, cure=cure)
        return max(0.0, xmin - 1), max(0.0, ymin - 1), xmax, ymax
    problems.add("bad-box", place, found=found, expected=expected, cure=cure)
    return None


def _flags(element: Element, place: str, problems: Problems) -> dict[str, bool]:
    flags = {}
    for flag in FLAGS:
        text = (element.text_at(flag) or "").strip()
        if text in ("0", "1"):
            flags[flag] = text == "1"
        elif text not in ("", "Unspecified"):
            found, cure = f"{flag} {shown(text)}", "the flag is left out, the box is kept"
            problems.add("bad-flag", place, found=found, expected="0 or 1", cure=cure)
    return flags


def _xml(image: AnnotatedImage) -> str:
    lines = ["<annotation>", "\t<folder>JPEGImages</folder>"]
    lines.append(f"\t<filename>{_escaped(image.file_name, image)}</filename>")
    if isinstance(database := image.attributes.get("database"), str):
        lines.append(f"\t<source><database>{_escaped(database, image)}</database></source>")
    size = f"<width>{image.width or 0}</width><height>{image.height or 0}</height>"
    lines.append(f"\t<size>{size}</size>")
    for box in image.boxes or ():
        lines += _object_lines(box, image)
    lines.append("</annotation>\n")
    return "\n".join(lines)


def _object_lines(box: Annotation, image: AnnotatedImage) -> list[str]:
    corners = clipped(box, image)
    if corners is None:
        return []
    lines = ["\t<object>", f"\t\t<name>{_escaped(box.class_name, image)}</name>"]
    if isinstance(pose := box.attributes.get("pose"), str):
        lines.append(f"\t\t<pose>{_escaped(pose, image)}</pose>")
    lines += [f"\t\t<{flag}>{box.flags[flag]:d}</{flag}>" for flag in FLAGS if flag in box.flags]
    x0, y0, x1, y1 = corners
    numbers = zip(CORNERS, (x0 + 1, y0 + 1, x1, y1), strict=True)
    inside = "".join(f"<{corner}>{_decimal(value)}</{corner}>" for corner, value in numbers)
    return [*lines, f"\t\t<bndbox>{inside}</bndbox>", "\t</object>"]


def _decimal(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".")


def _escaped(text: str, image: AnnotatedImage) -> str:
    if found := _UNSPEAKABLE.search(text):
        what = f"{shown(text)} has the character {found.group()!r}, which XML can't hold"
        raise FormatError(f"{image.file_name}: {what}, expected text; rename it")
    return escape(text)
