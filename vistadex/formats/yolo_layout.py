"""What a YOLO data set says of itself: the classes and splits of data.yaml; the home of yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from vistadex.errors import FormatError, SourceMissingError
from vistadex.formats.folders import (
    MAX_TEXT_BYTES,
    SPLITS,
    is_storable,
    number,
    shown,
    text_of,
    top_names,
)
from vistadex.sources import Source

YAML_SUFFIXES = (".yaml", ".yml")
CLASS_LIST = "classes.txt"


@dataclass(frozen=True, slots=True)
class Split:
    """One split as data.yaml names it."""

    name: str
    place: str
    entries: tuple[str, ...]
    """Folders and lists of pictures, as they stand there."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Classes and splits of a data set."""

    place: str
    """The file that says it."""
    names: Mapping[int, str]
    splits: tuple[Split, ...] = ()
    """Empty where there is no data.yaml."""
    folder: str = ""
    """What data.yaml calls its `path`."""
    keypoint_values: int | None = None
    """How many numbers follow the box on each line, in a set of keypoints."""


def read_layout(source: Source, name: str) -> Layout:
    """What data.yaml says, or the list of classes where there is none.

    Args:
        name: of the file; "" to look for it.
    Raises: FormatError where it can't be used; SourceError.
    """
    name = name or _yaml_name(source)
    if name:
        return _Yaml(source, name).layout()
    keys = (CLASS_LIST, f"labels/{CLASS_LIST}")
    for key in keys:
        try:
            data = source.read(key).data
        except SourceMissingError:
            continue
        place = source.image_uri(key)
        return Layout(place, _class_list(place, data))
    what = f"neither data.yaml nor {' nor '.join(keys)}, expected one to name the classes"
    raise FormatError(f"{source.uri}: {what}; add it, or check the path")


def _yaml_name(source: Source) -> str:
    names = [name for name in top_names(source) if name.lower().endswith(YAML_SUFFIXES)]
    if len(names) < 2 or "data.yaml" in names:
        return "data.yaml" if "data.yaml" in names else "".join(names)
    what = f"{len(names)} YAML files ({', '.join(names[:3])}), expected one or data.yaml"
    raise FormatError(f"{source.uri}: {what}; give the file itself")


def _class_list(place: str, data: bytes) -> Mapping[int, str]:
    text = text_of(data)
    if text is None:
        raise FormatError(f"{place}: is not UTF-8, expected a class name on each line; save it so")
    lines = [line.strip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    for at, line in enumerate(lines, 1):
        if not line:
            what = "is empty, expected a class name, as the order gives the numbers"
            raise FormatError(f"{place} line {at}: {what}; name it or remove the line")
    return dict(enumerate(lines))


class _Yaml:
    """data.yaml as nodes that know their lines; every scalar is taken as text."""

    def __init__(self, source: Source, name: str) -> None:
        self.place = source.image_uri(name)
        data = source.read(name).data
        self.nodes: dict[str, yaml.Node] = {}
        for key, value in self._pairs(self._root(data), "keys, as `names:`"):
            self.nodes[key.value] = value

    def layout(self) -> Layout:
        """What the file says.

        Raises: FormatError.
        """
        names = self._names()
        self._check_number(names)
        splits = tuple(self._splits())
        if not splits:
            what = "names no train, val or test, expected one at least"
            raise FormatError(f"{self.place}: {what}; add the folders with the pictures")
        folder = self.nodes.get("path")
        text = "" if folder is None else self._text(folder, "a folder")
        return Layout(self.place, names, splits, text, self._keypoint_values())

    def _root(self, data: bytes) -> yaml.Node:
        if len(data) > MAX_TEXT_BYTES:
            what = f"{len(data)} bytes, expected a data.yaml of at most {MAX_TEXT_BYTES}"
            raise FormatError(f"{self.place}: {what}; check that it is the right file")
        try:
            root = yaml.compose(data, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"{self.place} line {mark.line + 1}" if mark else self.place
            what = f"{error.problem or error.context}, expected YAML"
            raise FormatError(f"{place}: {what}; correct it") from error
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
            what = f"can't be read ({str(error).splitlines()[0]}), expected YAML in UTF-8"
            raise FormatError(f"{self.place}: {what}; correct it") from error
        if root is None:
            raise FormatError(f"{self.place}: is empty, expected `names:` and `train:`; write them")
        return root

    def _names(self) -> dict[int, str]:
        node = self.nodes.get("names")
        names: dict[int, str] = {}
        if isinstance(node, yaml.SequenceNode):
            names = {at: self._text(item, "a class name") for at, item in enumerate(node.value)}
        elif node is not None:
            for key, value in self._pairs(node, "class names"):
                at = self._whole(key)
                if at in names:
                    raise self._error(key, f"the number {at} again", "each number once")
                names[at] = self._text(value, "a class name")
        if not names:
            raise FormatError(f"{self.place}: no `names:`, expected the class names; add them")
        return names

    def _check_number(self, names: Mapping[int, str]) -> None:
        node = self.nodes.get("nc")
        if node is not None and self._whole(node) != len(names):
            found = f"nc {node.value} and {len(names)} names"
            raise self._error(node, found, "as many names as nc says")

    def _splits(self) -> Iterator[Split]:
        for key in SPLITS:
            node = self.nodes.get(key)
            if node is None or node.tag == "tag:yaml.org,2002:null" or node.value in ("", []):
                continue
            items = node.value if isinstance(node, yaml.SequenceNode) else [node]
            entries = tuple(self._text(item, "a folder or a list of pictures") for item in items)
            yield Split(SPLITS[key], f"{self.place} line {_line(node)}", entries)

    def _keypoint_values(self) -> int | None:
        node = self.nodes.get("kpt_shape")
        if node is None:
            return None
        if not isinstance(node, yaml.SequenceNode) or len(node.value) != 2:
            raise self._error(node, "a kpt_shape", "two numbers, as [17, 3]")
        return self._whole(node.value[0]) * self._whole(node.value[1])

    def _pairs(self, node: yaml.Node, expected: str) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, f"a {node.id}", expected)
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, f"a {key.id}", "a plain key")
            yield key, value

    def _text(self, node: yaml.Node, expected: str) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, f"a {node.id}", expected)
        if not node.value or not is_storable(node.value):
            raise self._error(node, shown(node.value), expected)
        return str(node.value)

    def _whole(self, node: yaml.Node) -> int:
        value = number(node.value) if isinstance(node, yaml.ScalarNode) else None
        if value is None or value < 0 or value != int(value) or value > 10**6:
            what = shown(node.value) if isinstance(node, yaml.ScalarNode) else f"a {node.id}"
            raise self._error(node, what, "a whole number from 0 on")
        return int(value)

    def _error(self, node: yaml.Node, found: str, expected: str) -> FormatError:
        return FormatError(
            f"{self.place} line {_line(node)}: {found}, expected {expected}; correct it"
        )


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
