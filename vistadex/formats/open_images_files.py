"""The files of an Open Images set for reading by column, and the names of its classes."""

from __future__ import annotations

from collections.abc import Mapping

from vistadex.errors import FormatError
from vistadex.formats.contract import Problems
from vistadex.formats.open_images_classes import read_classes
from vistadex.formats.open_images_columns import Files
from vistadex.formats.open_images_layout import HUMAN, MACHINE, find

_OURS: Mapping[str | None, str | None] = {HUMAN: "", MACHINE: MACHINE, None: None}


def find_files(path: str, problems: Problems) -> Files:
    """The files of a set, gzipped or not, and what its classes are called.

    Raises: SourceError where they can't be had; FormatError where there is no list of images or no
        class descriptions.
    """
    found = find(path)
    for there, what in (
        (found.images, "list of images, expected a file such as train-images-with-rotation.csv"),
        (found.class_descriptions, "class descriptions, expected such as class-descriptions.csv"),
    ):
        if not there:
            raise FormatError(f"{path}: no {what}; copy it there")
    found.note_unknown(problems)
    classes = read_classes(path, found, problems)
    hierarchies = (found.hierarchy,) if found.hierarchy else ()
    return Files(
        found.images,
        [(name, _OURS[origin]) for name, _, origin in found.labels],
        found.boxes,
        found.relations,
        classes.names,
        classes.parents,
        classes.external_ids,
        (*found.class_descriptions, *hierarchies),
    )
