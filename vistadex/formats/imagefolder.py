"""Image folder: pictures below a folder of their class, with metadata.csv or metadata.jsonl."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vistadex.errors import FormatError
from vistadex.formats.contract import About, Format, Problems, classes_there
from vistadex.formats.folders import (
    SPLITS,
    LineFiles,
    checked_name,
    note_partial,
    note_unreadable,
    shown,
    split_of,
    top_names,
)
from vistadex.formats.imagefolder_metadata import (
    FILE_NAME,
    LABEL,
    LABELS,
    METADATA,
    SCHEMA,
    Metadata,
    looks_like_metadata,
)
from vistadex.formats.scratch import scratch
from vistadex.records import AnnotatedImage, ImageEntry, Json
from vistadex.sources import Source, named_as_picture, open_source

_OWN = (FILE_NAME, LABEL, LABELS, "split")
"""Columns that are no attributes."""


class ImageFolderFormat(Format):
    """A folder with `<class>/…` or `<split>/<class>/…`, whose pictures may be described."""

    below_path = True
    losses = (
        "boxes",
        "scores",
        "attributes named file_name, label or labels",
        "that an image is of no split: it goes to train",
        "relations",
        "classes that were looked for and are not there",
    )

    def read(
        self, path: str, problems: Problems, reference: str | None = None
    ) -> Iterator[AnnotatedImage]:
        """See Format; files that are no pictures are passed over."""
        source = open_source(path)
        with scratch(SCHEMA) as rows:
            metadata = Metadata(rows, source, problems)
            yield from _Reading(source, metadata, problems).images()

    def write(
        self,
        out: Path,
        images: Iterable[AnnotatedImage],
        classes: tuple[str, ...],
        about: About,
    ) -> None:
        """See Format. `<split>/metadata.jsonl` describes each picture, with all of its classes."""
        with LineFiles() as described, scratch("CREATE TABLE name (it TEXT PRIMARY KEY)") as rows:
            for image in images:
                picture = self.picture_path(image)
                known = rows.execute("INSERT OR IGNORE INTO name VALUES (?)", (picture,))
                if not known.rowcount:
                    what = "two pictures would have this name"
                    raise FormatError(f"{out / picture}: {what}; rename one or export them apart")
                split, _, name = picture.partition("/")
                described.add(out / split / METADATA[1], _described(name, image))

    def picture_path(self, image: AnnotatedImage) -> str:
        """See Format: `<split>/<class>/…`, of the first class where there are several.

        Raises: FormatError for an image that can't be written.
        """
        classes = classes_there(image)
        if not classes:
            what = "has no class of the whole image, expected one at least"
            raise FormatError(f"{image.file_name}: {what}; leave it out")
        class_name = classes[0]
        if class_name[:1] in ("", ".") or "/" in class_name or "\0" in class_name:
            what = f"the class {shown(class_name)} can't be the name of a folder"
            raise FormatError(f"{image.file_name}: {what}; rename it")
        folder = f"{split_of(image) or 'train'}/{class_name}/"
        return folder + checked_name(image).removeprefix(folder)


def _described(name: str, image: AnnotatedImage) -> str:
    """A line of metadata.jsonl.

    Raises: FormatError.
    """
    classes = classes_there(image)
    row: dict[str, Json] = {FILE_NAME: name, LABEL: classes[0]}
    if len(classes) > 1:
        row[LABELS] = list(classes)
    row |= {key: value for key, value in image.attributes.items() if key not in _OWN}
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:
        what = f"its attributes can't be written as JSON ({error})"
        raise FormatError(f"{image.file_name}: {what}; leave it out") from error


class _Reading:
    """One reading of a data set."""

    def __init__(self, source: Source, metadata: Metadata, problems: Problems) -> None:
        self.source, self.metadata, self.problems = source, metadata, problems
        self.folders = _split_folders(source)

    def images(self) -> Iterator[AnnotatedImage]:
        """Every picture that has a class or is described, then descriptions without a picture."""
        for folder in ("", *self.folders):
            self.metadata.load(folder)
        count = 0
        for page in self.source.pages():
            for entry in page:
                if entry.failure is not None:
                    message = entry.failure.message
                    note_unreadable(self.problems, self.source.image_uri(entry.key), message)
                elif named_as_picture(entry.key):
                    count += 1
                    image = self._image(entry)
                    if image is not None:
                        yield image
                elif looks_like_metadata(entry.key):
                    self._check_place(entry.key)
        note_partial(self.problems, self.source)
        self.metadata.note_unused()
        if not count:
            what = "no pictures, expected some in folders named after their classes"
            raise FormatError(f"{self.source.uri}: {what}; check the path")

    def _check_place(self, key: str) -> None:
        folder, _, name = f"/{key}".rpartition("/")
        if name in METADATA and f"{folder}/"[1:] in ("", *self.folders):
            return
        found, cure = "a file of metadata that is not read", "move or convert it"
        expected = f"{' or '.join(METADATA)} at the top or in the folder of a split"
        place = self.source.image_uri(key)
        self.problems.add("bad-metadata", place, found=found, expected=expected, cure=cure)

    def _image(self, entry: ImageEntry) -> AnnotatedImage | None:
        top, _, rest = entry.key.partition("/")
        split = SPLITS[top] if f"{top}/" in self.folders else None
        class_name, mark, _ = (entry.key if split is None else rest).partition("/")
        described = self.metadata.take(entry.key)
        place = self.source.image_uri(entry.key)
        if not mark and described is None:
            found, expected = "a picture in no folder", "the folder of its class, or metadata"
            cure = "it is left out; move it"
            self.problems.add("no-class", place, found=found, expected=expected, cure=cure)
            return None
        attributes = dict(described or {})
        classes = self._classes(place, class_name if mark else None, attributes)
        if split is not None:
            attributes["split"] = split
        return AnnotatedImage(
            file_name=entry.key, place=place, classes=classes, attributes=attributes
        )

    def _classes(
        self, place: str, folder: str | None, attributes: dict[str, Json]
    ) -> tuple[str, ...] | None:
        """The classes of an image; takes them out of its attributes, where these name them."""
        stated = _stated(attributes, folder)
        if folder is not None and stated is not None and folder not in stated:
            found = f"the label {shown(', '.join(stated))} in the folder {shown(folder)}"
            cure = "the image gets no class; move the picture or rename the column"
            expected = "the same class in both"
            self.problems.add("class-conflict", place, found=found, expected=expected, cure=cure)
            return None
        if stated is not None:
            attributes.pop(LABEL, None)
            attributes.pop(LABELS, None)
        return stated or (None if folder is None else (folder,))


def _stated(attributes: Mapping[str, Json], folder: str | None) -> tuple[str, ...] | None:
    """The class names that metadata give; None where they give none, or numbers of classes."""
    labels = attributes.get(LABELS)
    if isinstance(labels, list):
        names = [one for one in labels if isinstance(one, str) and one]
        return tuple(dict.fromkeys(names)) if names and len(names) == len(labels) else None
    label = attributes.get(LABEL)
    if not isinstance(label, str) or not label:
        return None
    return (label,) if label == folder or not label.isdecimal() else None


def _split_folders(source: Source) -> tuple[str, ...]:
    """The folders at the top, where every one is named after a split; else none."""
    folders = []
    for name in top_names(source):
        if name.endswith("/"):
            if posixpath.dirname(name) not in SPLITS:
                return ()
            folders.append(name)
    return tuple(folders)
