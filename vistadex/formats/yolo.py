"""YOLO: a text file of boxes beside each picture, and data.yaml with classes and splits."""

from __future__ import annotations

import posixpath
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import yaml

from vistadex.errors import FormatError, SourceError
from vistadex.formats.contract import About, Format, Problems
from vistadex.formats.folders import (
    Wanted,
    checked_name,
    clipped,
    lines_of,
    note_partial,
    note_unreadable,
    read_texts,
    root_and_name,
    shown,
    split_of,
    text_of,
    write_new,
)
from vistadex.formats.scratch import scratch
from vistadex.formats.yolo_layout import CLASS_LIST, YAML_SUFFIXES, Layout, Split, read_layout
from vistadex.formats.yolo_lines import LineReader
from vistadex.records import AnnotatedImage, Annotation
from vistadex.sources import Source, named_as_picture, open_source

PAGE = 1000
_Picture: TypeAlias = tuple[str, str | None, str]
"""A picture's key, its split, and the key of its labels."""


class YoloFormat(Format):
    """A folder with data.yaml, images/ and labels/ (or classes.txt in its place)."""

    below_path = True
    losses = (
        "scores",
        "flags (crowd, difficult, truncated, …)",
        "attributes of boxes, and of images other than split",
        "class names of whole images",
        "that an image is of no split: it goes to train",
        "relations",
    )

    def root(self, path: str) -> str:
        """See Format."""
        return root_and_name(path, YAML_SUFFIXES)[0]

    def read(
        self, path: str, problems: Problems, reference: str | None = None
    ) -> Iterator[AnnotatedImage]:
        """See Format; a picture without a label file has no boxes."""
        folder, name = root_and_name(path, YAML_SUFFIXES)
        source = open_source(folder)
        layout = read_layout(source, name)
        schema = (
            "CREATE TABLE file (key TEXT PRIMARY KEY, size INTEGER, used INTEGER) WITHOUT ROWID"
        )
        with scratch(schema) as rows:
            listing = _Listing(rows, source, problems)
            listing.fill()
            yield from _Reading(source, layout, listing, problems).images()

    def about(self, path: str) -> About:
        """See Format: the numbers of the classes."""
        folder, name = root_and_name(path, YAML_SUFFIXES)
        names = read_layout(open_source(folder), name).names
        # Numbers of categories count from 1; the order is what YOLO has.
        return About(category_ids={names[at]: at + 1 for at in sorted(names, reverse=True)})

    def write(
        self,
        out: Path,
        images: Iterable[AnnotatedImage],
        classes: tuple[str, ...],
        about: About,
    ) -> None:
        """See Format. Classes keep their numbers where these are 0, 1, 2 …, else their order."""
        names = numbered(classes, about.category_ids)
        ids = {name: at for at, name in enumerate(names)}
        splits: set[str] = set()
        for image in images:
            picture = self.picture_path(image)
            splits.add(picture.split("/")[1])
            lines = [_line(box, image, ids) for box in image.boxes or ()]
            write_new(out / label_key(picture), "".join(lines))
        top: dict[str, object] = {
            split: f"images/{split}" for split in ("train", "val", "test") if split in splits
        }
        top |= {"nc": len(names), "names": dict(enumerate(names))}
        text = yaml.safe_dump(top, allow_unicode=True, sort_keys=False, width=10**9)
        write_new(out / "data.yaml", text)

    def picture_path(self, image: AnnotatedImage) -> str:
        """See Format: `images/<split>/…`.

        Raises: FormatError for an image that can't be written.
        """
        if image.boxes is None:
            what = "nothing is said of boxes, expected boxes or that there are none"
            raise FormatError(f"{image.file_name}: {what}; leave it out")
        folder = f"images/{split_of(image) or 'train'}/"
        return folder + checked_name(image).removeprefix(folder)


def label_key(picture: str) -> str:
    """Where the boxes of a picture are: `labels` for the last `images` of its path, and .txt."""
    head, mark, tail = f"/{picture}".rpartition("/images/")
    stem = posixpath.splitext(f"{head}/labels/{tail}"[1:] if mark else picture)[0]
    return f"{stem}.txt"


def numbered(classes: Iterable[str], known: Mapping[str, int]) -> list[str]:
    """Class names by their number: by their known numbers, then the others by name."""
    ordered = sorted(known, key=lambda name: known[name])
    if sorted(known.values()) != list(range(1, len(known) + 1)):
        wanted = set(classes)
        ordered = [name for name in ordered if name in wanted]
    return ordered + sorted(set(classes) - set(ordered))


def _line(box: Annotation, image: AnnotatedImage, ids: Mapping[str, int]) -> str:
    corners = clipped(box, image)
    if corners is None or not image.width or not image.height:
        return ""
    x0, y0, x1, y1 = corners
    values = (
        (x0 + x1) / 2 / image.width,
        (y0 + y1) / 2 / image.height,
        (x1 - x0) / image.width,
        (y1 - y0) / image.height,
    )
    return f"{ids[box.class_name]} {' '.join(map(_decimal, values))}\n"


def _decimal(value: float) -> str:
    return f"{value:.12f}".rstrip("0").rstrip(".") or "0"


class _Listing:
    """The names of pictures and text files of a data set, on disk."""

    def __init__(self, rows: sqlite3.Connection, source: Source, problems: Problems) -> None:
        self._rows = rows
        self._source = source
        self._problems = problems
        self.unreadable: list[str] = []
        """Folders that could not be listed."""

    def fill(self) -> None:
        """Lists the source, once."""
        for page in self._source.pages():
            wanted = []
            for entry in page:
                if entry.failure is not None and entry.key.endswith("/"):
                    self.unreadable.append(entry.key)
                    place = self._source.image_uri(entry.key)
                    note_unreadable(self._problems, place, entry.failure.message)
                elif named_as_picture(entry.key) or entry.key.endswith(".txt"):
                    wanted.append((entry.key, entry.size_bytes))
            self._rows.executemany("INSERT OR IGNORE INTO file VALUES (?, ?, 0)", wanted)
        note_partial(self._problems, self._source)

    def has(self, key: str) -> bool:
        """Whether there is such a file."""
        return self.size(key) is not None

    def size(self, key: str) -> int | None:
        """The size of a file, -1 where the source does not say it; None where there is none."""
        found = self._rows.execute(
            "SELECT coalesce(size, -1) FROM file WHERE key = ?", (key,)
        ).fetchone()
        return None if found is None else int(found[0])

    def use(self, key: str) -> bool:
        """Marks a file as used; whether it was not yet."""
        changed = self._rows.execute("UPDATE file SET used = 1 WHERE key = ? AND NOT used", (key,))
        return changed.rowcount == 1

    def below(self, folder: str, *, unused: bool = False) -> Iterator[str]:
        """The files of a folder (`a/b/`; "" for all) in order, or those that nothing has used."""
        last, end = folder, f"{folder[:-1]}0" if folder else "\U0010ffff"
        condition = "AND NOT used" if unused else ""
        query = f"SELECT key FROM file WHERE key > ? AND key < ? {condition} ORDER BY key LIMIT ?"
        while page := self._rows.execute(query, (last, end, PAGE)).fetchall():
            for (last,) in page:
                yield last

    def is_known(self, key: str) -> bool:
        """Whether the listing says for certain if there is such a file."""
        return not self._source.partial and not key.startswith(tuple(self.unreadable))


class _Reading:
    """One reading of a data set."""

    def __init__(
        self, source: Source, layout: Layout, listing: _Listing, problems: Problems
    ) -> None:
        self.source, self.layout, self.listing = source, layout, listing
        self.problems = problems
        self.label_folders: set[str] = set()
        self.lines = LineReader(layout.names, layout.keypoint_values, problems)

    def images(self) -> Iterator[AnnotatedImage]:
        """Every picture of every split, then what is wrong with the labels that are left."""
        self._note_same_names()
        count = 0
        for picture, data in read_texts(self.source, self._wanted()):
            count += 1
            image = self._image(picture, data)
            if image is not None:
                yield image
        for folder in sorted(self.label_folders):
            self._note_unused(folder)
        if not count:
            what = "no pictures, expected some in images/ or where data.yaml says"
            raise FormatError(f"{self.source.uri}: {what}; check the path and data.yaml")

    def _wanted(self) -> Iterator[Wanted[_Picture]]:
        for key, split in self._pictures():
            label = label_key(key)
            size = self.listing.size(label)
            self.listing.use(label)
            yield (key, split, label), None if size is None else label, size

    def _image(self, picture: _Picture, data: bytes | SourceError | None) -> AnnotatedImage | None:
        key, split, label = picture
        place = self.source.image_uri(label)
        boxes: tuple[Annotation, ...] | None = ()
        if isinstance(data, SourceError):
            note_unreadable(self.problems, place, data)
            return None
        if data is not None:
            boxes = self.lines.boxes(place, data)
        elif not self.listing.is_known(label):
            boxes = None
        return AnnotatedImage(
            file_name=key,
            place=place if data is not None else self.source.image_uri(key),
            relative=True,
            boxes=boxes,
            attributes={} if split is None else {"split": split},
        )

    def _pictures(self) -> Iterator[tuple[str, str | None]]:
        """Every picture with its split."""
        if not self.layout.splits:
            folder = "images/" if next(self.listing.below("images/"), None) else ""
            yield from ((key, None) for key in self._pictures_below(folder))
        for split in self.layout.splits:
            for entry in split.entries:
                for key, place in self._named(split, entry):
                    if self.listing.use(key):
                        yield key, split.name
                    else:
                        self._note_twice(key, place)

    def _named(self, split: Split, entry: str) -> Iterator[tuple[str, str]]:
        """The pictures of a folder or list, with the place that names them."""
        found = self._resolved(split, entry)
        if found.endswith(".txt"):
            yield from self._listed(found)
        else:
            yield from ((key, split.place) for key in self._pictures_below(found))

    def _resolved(self, split: Split, entry: str) -> str:
        """The key of a list, or a folder with "/" at its end, that data.yaml names."""
        for key in _candidates(entry, self.layout.folder, self.source.uri):
            if key.endswith(".txt") and self.listing.has(key):
                return key
            folder = f"{key}/" if key else ""
            if next(self.listing.below(folder), None) is not None:
                return folder
        what = f"{shown(entry)} is not below {self.source.uri}, expected a folder or a list (.txt)"
        cure = "correct it, or put data.yaml into the folder of the data set"
        raise FormatError(f"{split.place}: {what}; {cure}")

    def _pictures_below(self, folder: str) -> Iterator[str]:
        if folder:
            self.label_folders.add(label_key(f"{folder}a.jpg").removesuffix("a.txt"))
        return (key for key in self.listing.below(folder) if named_as_picture(key))

    def _listed(self, list_key: str) -> Iterator[tuple[str, str]]:
        """The pictures that a text file names, seen from its folder or from the root."""
        for at, data in lines_of(self.source, list_key):
            place = f"{self.source.image_uri(list_key)} line {at}"
            line = text_of(data)
            if line is not None and not line.strip():
                continue
            keys = _candidates((line or "").strip(), posixpath.dirname(list_key), self.source.uri)
            found = next((key for key in keys if self.listing.has(key)), None)
            if found is not None:
                yield found, place
                continue
            expected, cure = "the name of a picture in the data set", "correct or remove it"
            what = shown(repr(data[:60]) if line is None else line)
            self.problems.add("no-picture", place, found=what, expected=expected, cure=cure)

    def _note_same_names(self) -> None:
        first: dict[str, int] = {}
        for at, name in self.layout.names.items():
            if first.setdefault(name, at) != at:
                found = f"{at} and {first[name]} are both {shown(name)}"
                expected, cure = "a name for each number", "they become one class; name them apart"
                place = self.layout.place
                self.problems.add("same-class", place, found=found, expected=expected, cure=cure)

    def _note_twice(self, key: str, place: str) -> None:
        found = f"{key}, which was named before"
        cure = "the first split counts; name it once"
        expected = "each picture in one split"
        self.problems.add("split-twice", place, found=found, expected=expected, cure=cure)

    def _note_unused(self, folder: str) -> None:
        for key in self.listing.below(folder, unused=True):
            if key.endswith(".txt") and posixpath.basename(key) != CLASS_LIST:
                place = self.source.image_uri(key)
                found, expected = "labels without a picture", "a picture of the same name"
                cure = "add the picture or remove the file"
                self.problems.add("no-picture", place, found=found, expected=expected, cure=cure)


def _candidates(entry: str, folder: str, root: str) -> Iterator[str]:
    """The keys that a path of data.yaml may mean, the likeliest first; none leads out."""
    entry = entry.removeprefix(f"{root}/")
    for path in (posixpath.join(folder, entry), entry, entry.removeprefix("../")):
        key = posixpath.normpath(path)
        if not key.startswith(("/", "..")):
            yield "" if key == "." else key
