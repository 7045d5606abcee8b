"""COCO results: one JSON list of boxes with scores, explained by an instances file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from vistadex.errors import FormatError
from vistadex.formats.coco import LISTS, box_field, check_is_coco, dumped
from vistadex.formats.coco_fields import whole_number
from vistadex.formats.coco_joining import LISTS_PASSED_OVER, SCHEMA, Joining
from vistadex.formats.coco_json import Document
from vistadex.formats.contract import About, Format, Problems
from vistadex.formats.files import created
from vistadex.formats.scratch import scratch
from vistadex.records import AnnotatedImage, Json


class CocoResultsFormat(Format):
    """What a detector found, as COCO's evaluation takes it."""

    losses = (
        "images: only their ids are written, and those without boxes not at all",
        "classes: only their ids are written",
        "flags and attributes of boxes",
        "classes of whole images",
        "relations",
    )

    def read(
        self, path: str, problems: Problems, reference: str | None = None
    ) -> Iterator[AnnotatedImage]:
        """See Format. All images of the reference: those without results have no boxes.

        Args:
            reference: the instances file that the ids are of.
        """
        if reference is None:
            what = "COCO results name images and classes by numbers, expected the instances file"
            raise FormatError(f"{path}: {what} that explains them; name it with --reference")
        with scratch(SCHEMA) as rows:
            joining = Joining(
                rows, problems, instances=reference, annotations=path, need_score=True
            )
            explained = Document(reference, lists={key: LISTS[key] for key in _EXPLAINING})
            for key, number, value in explained.items():
                joining.add(key, number, value)
            check_is_coco(explained)
            results = Document(path, lists={"": LISTS_PASSED_OVER})
            for _, number, value in results.items():
                joining.add("annotations", number, value)
            _check_is_list(results)
            yield from joining.joined(says_boxes=True)

    def write(
        self,
        out: Path,
        images: Iterable[AnnotatedImage],
        classes: tuple[str, ...],
        about: About,
    ) -> None:
        """See Format. Ids are those of the instances file; none is invented.

        Raises: FormatError also for an image or class with boxes and without its id.
        """
        with scratch(_IDS) as seen, created(out) as file:
            between = ""
            file.write("[")
            for image in images:
                if not image.boxes:
                    continue
                image_id = _image_id(image)
                if not seen.execute(_SEE, (image_id, image.place)).rowcount:
                    what = f"the id {image_id}, which another image has, expected its own"
                    raise FormatError(f"{image.place}: {what}; export one source at a time")
                for box in image.boxes:
                    result: dict[str, Json] = {
                        "image_id": image_id,
                        "category_id": _category_id(box.class_name, about, image.place),
                        "bbox": box_field(box.box_xyxy),
                        "score": box.score,
                    }
                    file.write(between + dumped(result, image.place))
                    between = ", "
            file.write("]\n")


_EXPLAINING = ("images", "categories")
_IDS = "CREATE TABLE seen (id INTEGER PRIMARY KEY, place TEXT);"
_SEE = "INSERT OR IGNORE INTO seen (id, place) VALUES (?, ?)"


def _image_id(image: AnnotatedImage) -> int:
    own = whole_number(image.attributes.get("id"))
    if own is None:
        what = "no id, expected the image's number in the instances file"
        cure = "import the instances file for these pictures first"
        raise FormatError(f"{image.place}: {what}; {cure}")
    return own


def _category_id(class_name: str, about: About, place: str) -> int:
    if class_name not in about.category_ids:
        what = f"the class {class_name!r} has no number, expected its id in the instances file"
        cure = "import that file first, or export its classes only"
        raise FormatError(f"{place}: {what}; {cure}")
    return about.category_ids[class_name]


def _check_is_list(document: Document) -> None:
    if not document.is_list:
        keys = ", ".join(document.keys) or "nothing"
        what = f"has {keys} at its top, expected a list of results"
        raise FormatError(f"{document.path}: {what}; read an instances file with --format coco")
