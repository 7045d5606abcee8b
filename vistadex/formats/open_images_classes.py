"""The classes of Open Images: their ids, their names, and which is below which."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from vistadex.errors import FormatError
from vistadex.formats.contract import About, Problems
from vistadex.formats.csv_rows import CsvRow, csv_rows
from vistadex.formats.files import opened
from vistadex.formats.folders import MAX_TEXT_BYTES, is_storable, shown
from vistadex.formats.open_images_layout import MID, ROOT_MID, OpenImagesFiles, is_class_header
from vistadex.records import Json

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class OpenImagesClasses:
    """The vocabulary of a set."""

    names: Mapping[str, str]
    """By id, in the order of the files; no name comes twice."""
    parents: tuple[Pair, ...]
    """Class and the class above it, by name."""
    described: bool
    """Whether there are class descriptions; without, an id is its own name."""

    def name_of(self, mid: str) -> str | None:
        """The class of an id; None for an unknown one."""
        return self.names.get(mid) if self.described else mid

    @property
    def external_ids(self) -> dict[str, str]:
        """Ids by name, but for those that were made of the name when it was written."""
        return {
            name: mid for mid, name in self.names.items() if mid == name or mid != slug_of(name)
        }


def slug_of(name: str) -> str:
    """The id under which a class is written that has none; one that looks like an id stays."""
    return name if MID.fullmatch(name) else f"/v/{quote(name, safe='')}"


def read_classes(path: str, files: OpenImagesFiles, problems: Problems) -> OpenImagesClasses:
    """The classes that a set describes.

    Args:
        path: of the set, for messages.
    Raises: FormatError where the hierarchy can't be read; SourceError.
    """
    names = _names(files.class_descriptions, problems)
    if not files.class_descriptions:
        problems.add(
            "no-class-descriptions",
            path,
            found="no class descriptions",
            expected="a file such as class-descriptions.csv",
            cure="classes are called by their ids; copy the file there to have their names",
        )
    classes = OpenImagesClasses(names, (), bool(files.class_descriptions))
    if files.hierarchy is None:
        return classes
    pairs = sorted(set(_known_pairs(files.hierarchy, classes, problems)))
    return OpenImagesClasses(names, tuple(pairs), classes.described)


def _names(paths: Iterable[str], problems: Problems) -> dict[str, str]:
    """Names by id: one that is missing is the id, one that another class has gets the id added."""
    stated: dict[str, str] = {}
    places: dict[str, str] = {}
    for path in paths:
        for number, row in enumerate(csv_rows(path)):
            place = f"{path} line {row.line}"
            if wrong := _wrong(row):
                _note(problems, "bad-row", place, wrong, "the id and the name of a class")
            elif not (number == 0 and is_class_header(row.fields)):
                mid, name = row.fields
                known = stated.get(mid, "")
                if known and name and known != name:
                    found = f"{mid} is {shown(name)}, and was {shown(known)} before"
                    _note(problems, "several-names", place, found, "one name", "the first stays")
                stated[mid] = known or name
                places.setdefault(mid, place)
    return _each_once(stated, places, problems)


def _wrong(row: CsvRow) -> str:
    """Why a row names no class; "" where it does."""
    if row.wrong:
        return row.wrong
    if len(row.fields) != 2:
        return f"{len(row.fields)} fields"
    return "" if row.fields[0].strip() else "no id"


def _each_once(
    stated: Mapping[str, str], places: Mapping[str, str], problems: Problems
) -> dict[str, str]:
    names: dict[str, str] = {}
    taken = set[str]()
    for mid, name in stated.items():
        if not name.strip():
            cure = "it is called by its id; add the name"
            _note(problems, "no-name", places[mid], f"no name of {mid}", "a name", cure)
            name = mid
        own = name
        while own in taken:
            own = f"{own} ({mid})"
        if own != name:
            found = f"{mid} is called {shown(name)} like another class"
            cure = f"it is called {shown(own)}"
            _note(problems, "same-name", places[mid], found, "another name for each class", cure)
        names[mid] = own
        taken.add(own)
    return names


def _known_pairs(path: str, classes: OpenImagesClasses, problems: Problems) -> Iterator[Pair]:
    """The hierarchy by names; what it names that is no class is a problem, once for each."""
    reported = {ROOT_MID}
    for below, above in _pairs(_tree(path), path, problems):
        for mid in (below, above):
            if classes.name_of(mid) is None and mid not in reported:
                reported.add(mid)
                found = f"LabelName {shown(mid)}"
                cure = "it is left out of the hierarchy; add it to the class descriptions"
                _note(problems, "unknown-class", path, found, "a described class", cure)
        child, parent = classes.name_of(below), classes.name_of(above)
        unnamed_root = above == ROOT_MID and not classes.described
        if child is not None and parent is not None and not unnamed_root:
            yield child, parent


def _tree(path: str) -> Json:
    """Raises: FormatError."""
    with opened(path) as file:
        data = file.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        what = f"more than {MAX_TEXT_BYTES} bytes, expected a hierarchy of classes"
        raise FormatError(f"{path}: {what}; check that it is the right file")
    try:
        tree: Json = json.loads(data)
    except (ValueError, RecursionError) as error:
        what = f"no JSON ({str(error)[:100]}), expected a hierarchy of classes"
        raise FormatError(f"{path}: {what}; copy it again") from error
    return tree


def _pairs(tree: Json, path: str, problems: Problems) -> Iterator[Pair]:
    """Ids of a class and of the one above it, in the order of the file."""
    waiting: list[tuple[Json, str]] = [(tree, "")]
    while waiting:
        node, above = waiting.pop()
        if not isinstance(node, Mapping):
            cure = "it is left out of the hierarchy; correct the file"
            found = f"{shown(json.dumps(node))} below {above or 'the top'}"
            _note(problems, "bad-class", path, found, "an object with LabelName", cure)
            continue
        mid = node.get("LabelName", "")
        if not isinstance(mid, str) or not is_storable(mid):
            found = f"LabelName {shown(json.dumps(mid))}"
            _note(problems, "bad-class", path, found, "the id of a class", "correct the file")
            mid = ""
        if above and mid:
            yield mid, above
        below, parts = node.get("Subcategory", []), node.get("Part", [])
        if isinstance(parts, list) and parts:
            problems.lose("parts of classes", len(parts))
        if isinstance(below, list):
            waiting.extend((child, mid) for child in reversed(below))


def _note(
    problems: Problems,
    kind: str,
    place: str,
    found: str,
    expected: str,
    cure: str = "it is left out; correct the line",
) -> None:
    problems.add(kind, place, found=found, expected=expected, cure=cure)


def ids_of(names: Iterable[str], about: About) -> dict[str, str]:
    """The id of each class to write: its own, or one that is made of its name; none comes twice."""
    ids: dict[str, str] = {}
    taken = set[str]()
    listed = sorted({*names, *about.external_ids, *(one for pair in about.parents for one in pair)})
    for name in listed:
        mid = about.external_ids.get(name)
        if mid and mid not in taken:
            ids[name] = mid
            taken.add(mid)
    for name in listed:
        if name not in ids:
            mid = slug_of(name)
            while mid in taken:
                mid += "-"
            ids[name] = mid
            taken.add(mid)
    return dict(sorted(ids.items()))


def hierarchy_of(parents: Iterable[Pair], ids: Mapping[str, str]) -> str:
    """The hierarchy as JSON, as it is published; a class with several above it stands below each.

    Raises: FormatError where it is too deep to be written.
    """
    below: dict[str, list[str]] = {}
    pairs = list(parents)
    for child, parent in pairs:
        below.setdefault(parent, []).append(child)
    children = {child for child, _ in pairs}
    tops = [name for name in below if name not in children]
    nodes: dict[str, dict[str, Json]] = {}
    trees = [_subtree(name, below, ids, nodes) for name in tops]
    # What only stands in circles has no top of its own.
    trees += [_subtree(name, below, ids, nodes) for name in below if name not in nodes]
    if len(trees) == 1:
        whole: Json = trees[0]
    elif ROOT_MID in ids.values():
        whole = {"Subcategory": trees}
    else:
        whole = {"LabelName": ROOT_MID, "Subcategory": trees}
    try:
        return json.dumps(whole, indent=1)
    except RecursionError as error:
        what = "the hierarchy of classes is too deep, expected some hundred levels at most"
        raise FormatError(f"{what}; correct it") from error


def _subtree(
    top: str,
    below: Mapping[str, list[str]],
    ids: Mapping[str, str],
    nodes: dict[str, dict[str, Json]],
) -> dict[str, Json]:
    """A class with all below it; what stands elsewhere with its own classes is only named."""
    whole: dict[str, Json] = {"LabelName": ids[top]}
    nodes[top] = whole
    waiting = [(top, whole)]
    while waiting:
        name, node = waiting.pop()
        made: list[Json] = []
        for child in below.get(name, ()):
            one: dict[str, Json] = {"LabelName": ids[child]}
            made.append(one)
            if child not in nodes:
                nodes[child] = one
                waiting.append((child, one))
        if made:
            node["Subcategory"] = made
    return whole
