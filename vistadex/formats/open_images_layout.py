"""What the files of Open Images are called, and what their columns mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from vistadex.errors import FormatError, SourceError
from vistadex.formats.contract import Problems
from vistadex.formats.csv_rows import Type, first_row
from vistadex.formats.folders import names_in, number, place_in, root_and_name
from vistadex.records import Json
from vistadex.sources import Source, named_as_picture, open_source

Part: TypeAlias = Literal[
    "classes", "images", "labels", "boxes", "relations", "hierarchy", "predicates"
]
HUMAN, MACHINE = "human", "machine"

IMAGE_ID, SUBSET, CONFIDENCE, SOURCE = "ImageID", "Subset", "Confidence", "Source"
CORNERS = ("XMin", "YMin", "XMax", "YMax")
"""In the order of boxes here; the files have XMin, XMax, YMin, YMax."""
FLAG_COLUMNS: Mapping[str, str] = {
    "IsOccluded": "occluded",
    "IsTruncated": "truncated",
    "IsGroupOf": "crowd",
    "IsDepiction": "depiction",
    "IsInside": "inside",
}
"""Flags of boxes: 1 yes, 0 no, -1 unknown."""
CLASS_HEADERS = (("LabelName", "DisplayName"), ("label", "name"), ("id", "name"))
"""The first row of class descriptions; the published ones of older versions have none."""
IMAGE_COLUMNS = (
    IMAGE_ID, SUBSET, "OriginalURL", "OriginalLandingURL", "License", "AuthorProfileURL",
    "Author", "Title", "OriginalSize", "OriginalMD5", "Thumbnail300KURL", "Rotation",
)  # fmt: skip
LABEL_COLUMNS = (IMAGE_ID, SOURCE, "LabelName", CONFIDENCE)
BOX_COLUMNS = (
    IMAGE_ID, SOURCE, "LabelName", CONFIDENCE, "XMin", "XMax", "YMin", "YMax", *FLAG_COLUMNS
)  # fmt: skip
RELATION_COLUMNS = (
    IMAGE_ID, "LabelName1", "LabelName2", "XMin1", "XMax1", "YMin1", "YMax1",
    "XMin2", "XMax2", "YMin2", "YMax2", "RelationshipLabel",
)  # fmt: skip
ATTRIBUTES: Mapping[str, str] = {
    SUBSET: "split",
    "OriginalURL": "original_url",
    "OriginalLandingURL": "original_landing_url",
    "License": "license",
    "AuthorProfileURL": "author_profile_url",
    "Author": "author",
    "Title": "title",
    "OriginalSize": "original_size",
    "OriginalMD5": "original_md5",
    "Thumbnail300KURL": "thumbnail_300k_url",
    "Rotation": "rotation",
}
"""The attribute of an image that a column is; other columns keep their names."""
NUMBERS = ("Rotation", "OriginalSize")
"""Columns of the images that are numbers; their attributes are whole numbers where they can be."""
VALUES: Mapping[Part, Mapping[str, Type]] = {
    "labels": {IMAGE_ID: "text", SOURCE: "name", "LabelName": "name", CONFIDENCE: "number"},
    "boxes": {
        IMAGE_ID: "text",
        SOURCE: "name",
        "LabelName": "name",
        CONFIDENCE: "number",
        **dict.fromkeys(CORNERS, "number"),
        **dict.fromkeys(FLAG_COLUMNS, "flag"),
    },
    "relations": {
        IMAGE_ID: "text",
        "LabelName1": "name",
        "RelationshipLabel": "name",
        "LabelName2": "name",
        **{f"{corner}{i}": "number" for i in (1, 2) for corner in CORNERS},
    },
}
"""What is read of a part, and what its columns hold; others are counted as lost."""
NOTHING = ("", "-1")
"""What a column says where it says nothing."""
LABEL_SOURCES: Mapping[str, str] = {HUMAN: "verification", MACHINE: "machine"}
"""Source of a label that says no more than whose it is; it is written so."""
SAME = 1e-6
"""How far beyond the picture's border a corner may lie without a word."""
REQUIRED: Mapping[Part, tuple[str, ...]] = {
    "images": (IMAGE_ID,),
    "labels": (IMAGE_ID, "LabelName", CONFIDENCE),
    "boxes": (IMAGE_ID, "LabelName", *CORNERS),
    "relations": (IMAGE_ID, "LabelName1", "LabelName2", "RelationshipLabel"),
}
"""The columns that a file of a part can't do without."""
ALIASES: Mapping[str, str] = {"RelationLabel": "RelationshipLabel"}
"""Columns under another name, and the one that is used here."""

SPLITS = ("train", "validation", "test")
_SPLIT_NAMES: Mapping[str, str] = {**dict.fromkeys(SPLITS, ""), "val": "validation"}
_FOLDERS = (*_SPLIT_NAMES,)
_START = r"(?:oidv\d+-)?(?:(train|validation|val|test)-)?"
_NAMES: tuple[tuple[Part, re.Pattern[str]], ...] = (
    ("classes", re.compile(r"(?:oidv\d+-)?class-descriptions(?:-boxable)?\.csv")),
    ("classes", re.compile(r"(?:oidv\d+-)?attributes?-descriptions?\.csv")),
    (
        "images",
        re.compile(rf"{_START}images(?:-boxable|-with-labels)?(?:-with-rotation)?\.csv"),
    ),
    ("images", re.compile(r"image_ids_and_rotation\.csv")),
    ("labels", re.compile(rf"{_START}annotations-(human|machine)-imagelabels(?:-boxable)?\.csv")),
    ("boxes", re.compile(rf"{_START}annotations-bbox\.csv")),
    ("relations", re.compile(rf"{_START}annotations-vrd\.csv")),
    ("predicates", re.compile(r"(?:[\w-]+-)?relationships?-descriptions?\.csv")),
    ("hierarchy", re.compile(r"[\w-]*hierarchy[\w-]*\.json")),
)
_HEADERS: tuple[tuple[Part, frozenset[str]], ...] = (
    ("relations", frozenset({IMAGE_ID, "LabelName1", "LabelName2"})),
    ("boxes", frozenset({IMAGE_ID, "LabelName", *CORNERS})),
    ("labels", frozenset({IMAGE_ID, "LabelName", CONFIDENCE})),
    ("images", frozenset({IMAGE_ID, SUBSET})),
    ("images", frozenset({IMAGE_ID, "OriginalURL"})),
    ("images", frozenset({IMAGE_ID, "Rotation"})),
)
MID = re.compile(r"/[a-z]/\S+")
"""What the ids of classes look like: machine-generated ids of a knowledge graph."""
ROOT_MID = "/m/0bl9f"
"""The top of the published hierarchy, Entity, which the class descriptions do not name."""
_WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)
_TABLE = (".csv", ".csv.gz")
_NOT_READ = "none of the files of Open Images that are read here"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenImagesFiles:
    """Where the parts of a set are."""

    class_descriptions: tuple[str, ...] = ()
    images: tuple[tuple[str, str], ...] = ()
    """Path, and split: "" where the rows have a column for it, or nothing says it."""
    labels: tuple[tuple[str, str, str | None], ...] = ()
    """Path, split, and HUMAN, MACHINE or None where the name does not say it: then a row whose
    Source is "machine" is a machine's."""
    boxes: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    hierarchy: str | None = None
    unknown: tuple[tuple[str, str], ...] = field(default=())
    """Path of what is none of these, and what it is."""

    def note_unknown(self, problems: Problems) -> None:
        """Reports each file that is not used, once."""
        for path, found in self.unknown:
            expected = "a file of Open Images, by its name or its columns"
            cure = "it is passed over; rename it as it was published, or take it away"
            problems.add("unknown-file", path, found=found, expected=expected, cure=cure)


def find(path: str) -> OpenImagesFiles:
    """The files of a folder, bucket or archive, or what a single file is.

    They may lie in it or in its folders train, validation and test, gzipped or not.

    Raises: SourceError where it can't be listed; FormatError where a file is damaged.
    """
    folder, name = root_and_name(path, (*_TABLE, ".json", ".json.gz"))
    found: dict[Part, list[tuple[str, str, str | None]]] = {}
    unknown: list[tuple[str, str]] = []
    plain = set[str]()
    keys = [name] if name else sorted(_keys(open_source(folder), unknown, folder))
    for key in keys:
        place = place_in(folder, key) if not name else path
        bare = key.removesuffix(".gz")
        if bare in plain:
            unknown.append((place, f"the same as {bare} beside it"))
            continue
        plain.add(bare)
        known = _by_name(bare) or _by_header(place, bare)
        if isinstance(known, str):
            unknown.append((place, known))
        elif known[0] == "hierarchy" and "hierarchy" in found:
            unknown.append((place, "a second hierarchy"))
        else:
            part, split, origin = known
            found.setdefault(part, []).append((place, split, origin))
    return _files(found, unknown)


def file_name_of(image_id: str) -> str:
    """The name of an image's picture: the published ids are names without .jpg."""
    return image_id if named_as_picture(image_id) else f"{image_id}.jpg"


def image_id_of(file_name: str) -> str:
    """The id under which an image is written; file_name_of() of it leads back.

    Raises: FormatError for a name that no id leads back to.
    """
    stem = file_name.removesuffix(".jpg")
    if stem and stem != file_name and not named_as_picture(stem):
        return stem
    if not named_as_picture(file_name):
        what = "has no picture's ending, expected one such as .jpg"
        raise FormatError(f"{file_name}: {what}; rename it at its source or leave it out")
    return file_name


def attribute_of(column: str) -> str:
    """What a column of the images is called as an attribute."""
    return ATTRIBUTES.get(column, column)


def attribute_columns(path: str, names: Sequence[str], *, split: str) -> list[str]:
    """The columns of a list of images that become attributes.

    Args:
        split: what the file's name says, in place of the column for it; "" for nothing.
    Raises: FormatError where two become the same one.
    """
    found: dict[str, str] = {"split": SUBSET} if split else {}
    for name in names:
        if name == IMAGE_ID or (split and name == SUBSET):
            continue
        other = found.setdefault(attribute_of(name), name)
        if other != name:
            what = f"the columns {other} and {name} are the same attribute, expected one of them"
            raise FormatError(f"{path} line 1: {what}; correct the file")
    return [name for name in found.values() if not (split and name == SUBSET)]


def attribute_value(column: str, text: str) -> Json:
    """What a column of the images says: a number where it is one, whole where it can be."""
    if column not in NUMBERS:
        return text
    if _WHOLE.fullmatch(text):
        return int(text)
    value = number(text)
    if value is None:
        return text
    return int(value) if value.is_integer() else value


def named(columns: Sequence[str]) -> list[str]:
    """Names of columns as they are used here."""
    return [ALIASES.get(one.strip(), one.strip()) for one in columns]


def is_class_header(fields: Sequence[str]) -> bool:
    """Whether a row of class descriptions names columns instead of a class."""
    return tuple(one.strip() for one in fields) in CLASS_HEADERS


def _keys(source: Source, unknown: list[tuple[str, str]], folder: str) -> Iterator[str]:
    """Files at the top and in the folders of splits, but for pictures and what is hidden."""
    for prefix in ("", *(f"{one}/" for one in _FOLDERS)):
        for name, failure in names_in(source, prefix):
            if failure:
                unknown.append((place_in(folder, prefix + name), failure))
            elif not name.startswith(".") and not named_as_picture(name):
                yield prefix + name


def _by_name(key: str) -> tuple[Part, str, str | None] | None:
    """What a published name says; None for another."""
    folder, _, name = key.rpartition("/")
    for part, pattern in _NAMES:
        if match := pattern.fullmatch(name.lower()):
            groups = match.groups()
            split = (groups[0] if groups else None) or folder
            return part, _SPLIT_NAMES.get(split) or split, groups[1] if len(groups) > 1 else None
    return None


def _by_header(place: str, key: str) -> tuple[Part, str, str | None] | str:
    """What the first row says; a text where it is none of the known ones."""
    if not key.lower().endswith(".csv"):
        return _NOT_READ
    try:
        row = first_row(place)
    except (FormatError, SourceError) as error:
        return str(error)
    if row is None or row.wrong:
        return row.wrong if row is not None else "an empty file"
    folder = key.rpartition("/")[0]
    columns = {one.strip() for one in row.fields}
    for part, needed in _HEADERS:
        if needed <= columns:
            return part, _SPLIT_NAMES.get(folder) or folder, None
    if is_class_header(row.fields) or (len(row.fields) == 2 and MID.fullmatch(row.fields[0])):
        return "classes", "", None
    return f"{_NOT_READ}: it begins with {','.join(row.fields)[:60]!r}"


def _files(
    found: Mapping[Part, list[tuple[str, str, str | None]]], unknown: list[tuple[str, str]]
) -> OpenImagesFiles:
    def paths(part: Part) -> tuple[str, ...]:
        return tuple(path for path, _, _ in found.get(part, ()))

    return OpenImagesFiles(
        class_descriptions=paths("classes"),
        images=tuple((path, _stated(path, split)) for path, split, _ in found.get("images", ())),
        labels=tuple(found.get("labels", ())),
        boxes=paths("boxes"),
        relations=paths("relations"),
        hierarchy=next(iter(paths("hierarchy")), None),
        unknown=tuple(unknown),
    )


def _stated(path: str, split: str) -> str:
    """The split that a file's name says, unless its rows say it themselves."""
    row = first_row(path)
    return "" if row is not None and SUBSET in [one.strip() for one in row.fields] else split
