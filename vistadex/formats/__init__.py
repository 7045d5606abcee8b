"""Annotation formats: files of other tools ⇄ annotated images.

A new format is one class with the methods of `Format` and one line in FORMATS.
"""

from __future__ import annotations

from collections.abc import Mapping

from vistadex.formats.contract import About, Format, Problem, Problems
from vistadex.registry import lookup

__all__ = ["FORMATS", "About", "Format", "Problem", "Problems", "open_format"]

FORMATS: Mapping[str, str] = {
    "coco": "vistadex.formats.coco:CocoFormat",
    "coco-results": "vistadex.formats.coco_results:CocoResultsFormat",
    "voc": "vistadex.formats.voc:VocFormat",
    "yolo": "vistadex.formats.yolo:YoloFormat",
    "imagefolder": "vistadex.formats.imagefolder:ImageFolderFormat",
    "automl-csv": "vistadex.formats.automl_csv:AutomlCsvFormat",
    "open-images": "vistadex.formats.open_images:OpenImagesFormat",
    "class-tables": "vistadex.formats.class_tables:ClassTablesFormat",
    "vrd": "vistadex.formats.vrd:VrdFormat",
}
"""What a user writes, and the class that reads and writes it."""


def open_format(name: str) -> Format:
    """The format of that name.

    Raises: UsageError for an unknown name.
    """
    made: Format = lookup(FORMATS, name, "annotation format")()
    return made
