"""JSON as a stream of the items of its lists, in flat memory; the home of ijson."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, TypeAlias, TypeVar

from ijson import JSONError
from ijson.backends import yajl2_c

from vistadex.errors import FormatError
from vistadex.formats.files import opened
from vistadex.records import Json

Item: TypeAlias = tuple[str, int, Json]
"""The key of a list ("" where the file is one list), the position in it, the value."""
_Events: TypeAlias = Iterator[tuple[str, Json]]

T = TypeVar("T")
MAX_DEPTH = 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_STARTS = ("start_map", "start_array")
_ENDS = ("end_map", "end_array")


class Document:
    """A JSON file with lists of objects at its top, read once from start to end."""

    def __init__(
        self, path: str, *, lists: Mapping[str, frozenset[str]], expected: str = "a COCO file"
    ) -> None:
        """Nothing is read yet.

        Args:
            path: of the file, as the user wrote it.
            expected: what it should be, for messages.
            lists: the keys of the lists to go through ("" for a file that is one list), with the
                fields of their objects to pass over: these become True where they hold something.
        """
        self.path = path
        self.keys: list[str] = []
        """Those at the top that have been met."""
        self.is_list = False
        self.values: dict[str, Json] = {}
        """What stands beside the lists: text, numbers, and COCO's info and licenses."""
        self.passed_over: list[str] = []
        """Keys of what else stands there."""
        self._lists = lists
        self._expected = expected

    def items(self) -> Iterator[Item]:
        """The items of the wanted lists as they stand in the file.

        Raises: FormatError where the file is not JSON, with the line and byte; SourceError.
        """
        return self._whole(self._top)

    def members(self) -> Iterator[tuple[str, Json]]:
        """The keys at the top with their values, one by one, as they stand in the file.

        Raises: FormatError where the file is no JSON object, with the line and byte; SourceError.
        """
        return self._whole(self._members)

    def _whole(self, read: Callable[[_Events], Iterator[T]]) -> Iterator[T]:
        with opened(self.path) as file:
            tracked = _Tracked(file)
            try:
                events = _events(tracked)
                yield from read(events)
                for _ in events:  # What follows the end is an error, too.
                    pass
            except JSONError as error:
                raise self._not_json(file, tracked, error) from error

    def _members(self, events: _Events) -> Iterator[tuple[str, Json]]:
        event, _ = next(events)
        if event != "start_map":
            what = f"no JSON object, expected {self._expected}"
            raise FormatError(f"{self.path}: {what}; check that it is one")
        for event, key in events:
            if event == "end_map":
                return
            first, value = next(events)
            yield str(key), self._built(events, first, value)

    def _top(self, events: _Events) -> Iterator[Item]:
        event, _ = next(events)
        if event == "start_array":
            self.is_list = True
            if "" in self._lists:
                yield from self._list_items("", events)
            else:
                _passes(events, event, None)
        elif event == "start_map":
            for event, key in events:
                if event == "end_map":
                    return
                yield from self._value(str(key), events)

    def _value(self, key: str, events: _Events) -> Iterator[Item]:
        self.keys.append(key)
        event, value = next(events)
        if key in self._lists:
            if event != "start_array":
                what = f'"{key}" is no list, expected a list of objects'
                raise FormatError(f"{self.path}: {what}; export the file again")
            yield from self._list_items(key, events)
        elif event not in _STARTS or key in ("info", "licenses"):
            self.values[key] = self._built(events, event, value)
        elif _passes(events, event, value) and key not in ("images", "annotations", "categories"):
            self.passed_over.append(key)

    def _list_items(self, key: str, events: _Events) -> Iterator[Item]:
        without = self._lists[key]
        index = 0
        for event, value in events:
            if event == "end_array":
                return
            yield key, index, self._built(events, event, value, without=without)
            index += 1

    def _built(
        self,
        events: _Events,
        event: str,
        value: Json,
        *,
        without: frozenset[str] = frozenset(),
        depth: int = 0,
    ) -> Json:
        """The value that begins with this event; fields of `without` only say if there is any."""
        if event not in _STARTS:
            return value
        if depth > MAX_DEPTH:
            what = f"values are nested more than {MAX_DEPTH} deep, expected {self._expected}"
            raise FormatError(f"{self.path}: {what}; check that it is one")
        if event == "start_array":
            made: list[Json] = []
            for event, value in events:
                if event == "end_array":
                    break
                made.append(self._built(events, event, value, depth=depth + 1))
            return made
        fields: dict[str, Json] = {}
        for event, name in events:
            if event == "end_map":
                break
            first, value = next(events)
            if name in without:
                fields[str(name)] = _passes(events, first, value)
            else:
                fields[str(name)] = self._built(events, first, value, depth=depth + 1)
        return fields

    def _not_json(self, file: BinaryIO, tracked: _Tracked, error: JSONError) -> FormatError:
        """The error with its exact place, found by reading again up to it."""
        exact = _Tracked(file, single_from=tracked.before)
        try:
            for _ in _events(exact):
                pass
        except JSONError as again:
            error = again
        found = re.search(r"error: ([^\n\\]*?)\.?(\n|\\n|$)", str(error))
        reason = found[1] if found else "unknown reason"
        if exact.ended:
            what = "the JSON breaks off at the end of the file, expected its closing brackets"
            return FormatError(f"{self.path} byte {exact.position:,}: {what}; copy it again")
        place = f"{self.path} line {exact.line:,} byte {exact.position:,}"
        what = f"not JSON here ({reason}), expected {self._expected}"
        return FormatError(f"{place}: {what}; correct it there, or export it again")


class _Tracked:
    """A file that knows how far it has been read."""

    def __init__(self, file: BinaryIO, single_from: int | None = None) -> None:
        """Starts over, behind a byte order mark.

        Args:
            single_from: from this byte on each read gives a single one, so that the reader of an
                error has not got ahead of it.
        """
        file.seek(0)
        self.position = len(_BYTE_ORDER_MARK)
        if file.read(self.position) != _BYTE_ORDER_MARK:
            file.seek(0)
            self.position = 0
        self.before = self.position
        """Where the last read began."""
        self.line = 1
        self.ended = False
        self._file = file
        self._single_from = single_from

    def read(self, size: int) -> bytes:
        if self._single_from is not None:
            size = min(size, max(1, self._single_from - self.position))
        data = self._file.read(size)
        self.before = self.position
        self.position += len(data)
        self.line += data.count(b"\n")
        self.ended = size > 0 and not data
        return data


def _events(tracked: _Tracked) -> _Events:
    events: _Events = yajl2_c.basic_parse(tracked, use_float=True)
    return events


def _passes(events: _Events, event: str, value: Json) -> bool:
    """Goes past the value that begins with this event; whether it holds anything."""
    if event not in _STARTS:
        return value not in (None, "")
    depth, number = 1, 0
    for event, _ in events:
        if event in _STARTS:
            depth += 1
        elif event in _ENDS:
            depth -= 1
            if not depth:
                break
        else:
            number += 1
    return number > 0
