"""Open Images' published CSV files as columns: millions of rows in seconds.

Shape letter: N rows of a block.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vistadex.formats import open_images_damage as wrong
from vistadex.formats.columns import (
    NO_SET,
    UNKNOWN,
    BoxColumns,
    Columns,
    Contradiction,
    ImageColumns,
    Kind,
    LabelColumns,
    RelationColumns,
    Vocabulary,
)
from vistadex.formats.contract import Problems
from vistadex.formats.csv_blocks import Block, header, read_blocks
from vistadex.formats.csv_rows import NO_FLAG, Type
from vistadex.formats.open_images_damage import Damage
from vistadex.formats.open_images_ids import ImageIds
from vistadex.formats.open_images_layout import (
    ALIASES,
    CONFIDENCE,
    CORNERS,
    FLAG_COLUMNS,
    IMAGE_ID,
    LABEL_SOURCES,
    MACHINE,
    NOTHING,
    NUMBERS,
    REQUIRED,
    SAME,
    SOURCE,
    SUBSET,
    VALUES,
    attribute_columns,
    attribute_of,
    attribute_value,
    file_name_of,
    named,
)
from vistadex.records import FLAGS, SCORE_SCALE, Json

Number = TypeVar("Number", np.int64, np.bool_)
_Ints: TypeAlias = NDArray[np.int64]
_Mask: TypeAlias = NDArray[np.bool_]


class Files(NamedTuple):
    """Where the parts of a set are, and what its classes are called."""

    images: Sequence[tuple[str, str]]
    """Path and split, which is "" where the file says it itself."""
    labels: Sequence[tuple[str, str | None]]
    """Path and origin, "" for people; None: a machine's where a row's Source says so."""
    boxes: Sequence[str]
    relations: Sequence[str]
    classes: Mapping[str, str]
    """Name by the set's own id."""
    parents: Sequence[tuple[str, str]] = ()
    """Class and the class above it, by name."""
    external_ids: Mapping[str, str] = {}
    """The set's own ids by name."""
    descriptions: Sequence[str] = ()
    """The files that classes and parents come from."""


class OpenImagesColumns:
    """An Open Images folder, read by column."""

    def __init__(self, files: Files, attributes: Collection[str] | None = None) -> None:
        """
        Args:
            attributes: what is kept of what the lists say of images; None: everything.
        """
        self._files = files
        self._attributes = None if attributes is None else frozenset(attributes)
        self._ids = ImageIds()
        self._kept = False
        self._mids = pa.array(list(files.classes), pa.string())
        self._predicates: dict[str, int] = {}
        self._labels = dict(files.labels)
        self.files: Mapping[Kind, Sequence[str]] = {
            "labels": list(self._labels),
            "boxes": files.boxes,
            "relations": files.relations,
        }
        """What is read for each kind."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The names of classes, and of the predicates that were read so far."""
        classes = self._files.classes
        return Vocabulary(
            tuple(classes.values()),
            tuple(self._predicates),
            self._files.external_ids,
            parents=tuple(self._files.parents),
        )

    @property
    def origins(self) -> Sequence[tuple[str, Kind]]:
        """Who says what, most rows first."""
        files = self._files
        found: list[tuple[str, Kind]] = [
            (origin, "labels")
            for origin in (MACHINE, "")
            if {origin, None} & set(self._labels.values())
        ]
        found += [("", "boxes")] if files.boxes else []
        return found + ([("", "relations")] if files.relations else [])

    def fingerprint(self) -> str:
        """Of the names, sizes and times of all files."""
        files = self._files
        paths = [path for path, _ in [*files.images, *files.labels]]
        paths += [*files.boxes, *files.relations, *files.descriptions]
        stated = [(path, *_stat(path)) for path in paths]
        kept = None if self._attributes is None else sorted(self._attributes)
        text = json.dumps([stated, *files.images, *files.labels, kept, list(files.classes.items())])
        return hashlib.sha256(text.encode()).hexdigest()

    def images(self, problems: Problems) -> Iterator[ImageColumns]:
        """Every image of the lists, in their order."""
        for path, split in self._files.images:
            columns = self._image_columns(path, split, problems)
            if self._attributes is not None and "split" not in self._attributes:
                split = ""
            for block in read_blocks(path, columns, problems):
                empty = pc.match_substring_regex(block.columns[IMAGE_ID], r"^\s*$")
                none = empty.to_numpy(zero_copy_only=False)
                good = _good(block, problems, [_Check(none, lambda _: wrong.no_image_id())])
                columns_ = block.columns
                if not good.all():
                    chosen = pa.array(good)
                    columns_ = {name: one.filter(chosen) for name, one in columns_.items()}
                order = self._ids.add(columns_[IMAGE_ID])
                keys = _file_names(columns_[IMAGE_ID])
                yield ImageColumns(keys, order, *_described(columns_, split))
        self._ids.finish()

    def _image_columns(self, path: str, split: str, problems: Problems) -> dict[str, Type]:
        """The columns of a list of images that are kept."""
        columns: dict[str, Type] = {IMAGE_ID: "text"}
        for name in attribute_columns(path, header(path), split=split):
            if self._attributes is None or attribute_of(name) in self._attributes:
                columns[name] = "name" if name in _FEW else "text"
            else:
                problems.lose(f"columns {name} of lists of images, which were not asked for")
        return columns

    def repeated(self) -> _Ints:
        """(M, 2) positions of images that were named before, and of the first of each."""
        return self._ids.repeated

    def read(self, kind: Kind, file: str, problems: Problems) -> Iterator[Columns]:
        """What a file says; rows that can't be used become problems."""
        if kind == "labels":
            return self._read_labels(file, problems)
        return (
            self._read_boxes(file, problems)
            if kind == "boxes"
            else self._read_relations(file, problems)
        )

    def _read_labels(self, path: str, problems: Problems) -> Iterator[Columns]:
        for block in _blocks(path, "labels", problems):
            _lose_sources(block, "how a label was made (Source)", problems, LABEL_SOURCES.values())
            classes = self._classes(block.columns["LabelName"])
            scores, no_score = _scores(block)
            checks = [_unknown_class(block, classes, "LabelName"), no_score]
            images, good = self._known(block, problems, checks)
            origin = self._labels[path]
            if origin is not None:
                yield LabelColumns(images[good], classes[good], scores[good], origin)
                continue
            of_machine = np.zeros(block.rows, bool)
            if SOURCE in block.columns:
                sources = block.columns[SOURCE]
                known = np.array([one == MACHINE for one in sources.dictionary.to_pylist()], bool)
                of_machine = _picked(known, sources)
            for name, chosen in ((MACHINE, good & of_machine), ("", good & ~of_machine)):
                yield LabelColumns(images[chosen], classes[chosen], scores[chosen], name)

    def _read_boxes(self, path: str, problems: Problems) -> Iterator[Columns]:
        for block in _blocks(path, "boxes", problems):
            _lose_sources(block, "how a box was drawn (Source)", problems)
            classes = self._classes(block.columns["LabelName"])
            scores, no_score = _scores(block)
            flags, no_flag = _flags(block)
            corners = _Corners.of(block)
            checks = [_unknown_class(block, classes, "LabelName"), no_score, *no_flag]
            images, good = self._known(block, problems, [*checks, *corners.checks()], corners)
            if good.all():
                yield BoxColumns(images, classes, scores, corners.cut, flags)
            else:
                yield BoxColumns(
                    images[good], classes[good], scores[good], corners.cut[good], flags[good]
                )

    def _read_relations(self, path: str, problems: Problems) -> Iterator[Columns]:
        for block in _blocks(path, "relations", problems):
            subjects = self._classes(block.columns["LabelName1"])
            objects = self._classes(block.columns["LabelName2"])
            subject, object_ = (_Corners.of(block, one, optional=True) for one in ("1", "2"))
            names = block.columns["RelationshipLabel"]
            empty = np.array([not one.strip() for one in names.dictionary.to_pylist()], bool)
            checks = [
                _unknown_class(block, subjects, "LabelName1"),
                _unknown_class(block, objects, "LabelName2"),
                _Check(_picked(empty, names), lambda _: wrong.no_predicate()),
                *subject.checks(),
                *object_.checks(),
            ]
            images, good = self._known(block, problems, checks, subject, object_)
            yield RelationColumns(
                images[good],
                subjects[good],
                self._predicate_ids(names, good),
                objects[good],
                np.full(int(good.sum()), SCORE_SCALE),
                np.concatenate([subject.cut, object_.cut], axis=1)[good],
            )

    def _known(
        self, block: Block, problems: Problems, checks: Sequence[_Check], *corners: _Corners
    ) -> tuple[_Ints, _Mask]:
        """(N,) positions of images, and which rows can be used; what is wrong is reported."""
        ids = block.columns[IMAGE_ID]
        images = self._ids.find(ids)
        unknown = images < 0
        without_id = np.zeros(block.rows, bool)
        for row in np.flatnonzero(unknown).tolist():
            without_id[row] = not ids[row].as_py().strip()
        nameless = _Check(without_id, lambda _: wrong.no_image_id())
        good = _good(block, problems, [nameless, *checks])
        for one in corners:
            one.report_cuts(block, good, problems)
        unlisted = _Check(unknown & good, lambda row: wrong.unknown_image_id(ids[row].as_py()))
        return images, good & _good(block, problems, [unlisted])

    def _classes(self, names: pa.DictionaryArray) -> _Ints:
        """(N,) positions of classes by their ids; -1 for one that no description names."""
        known = pc.index_in(names.dictionary, self._mids)
        table = known.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return _picked(table, names)

    def _predicate_ids(self, names: pa.DictionaryArray, good: NDArray[np.bool_]) -> _Ints:
        """Positions of predicates of the rows that are good."""
        indices: NDArray[np.int32] = names.indices.to_numpy(zero_copy_only=False)[good]
        texts = names.dictionary.to_pylist()
        table = np.zeros(len(texts), np.int64)
        for i in np.unique(indices).tolist():
            table[i] = self._predicates.setdefault(texts[i], len(self._predicates))
        return table[indices]

    def contradicts(self, place: str, found: Contradiction, problems: Problems) -> None:
        """Notes a contradiction as a problem."""
        if found.is_class:
            scores = [float(str(one)) for one in found.values]
            wrong.several_scores(found.what, scores).report(problems, place)
        else:
            wrong.several_values(found.what, *found.values).report(problems, place)

    def save(self, folder: Path) -> None:
        """Keeps what was learned from the images, and the predicates so far."""
        if not self._kept:
            self._ids.save(folder)
            self._kept = True
        part = folder / "predicates.part"
        part.write_text(json.dumps(list(self._predicates)))
        os.replace(part, folder / "predicates.json")

    def restore(self, folder: Path) -> None:
        """Takes up what save() has kept."""
        self._ids.restore(folder)
        self._kept = True
        names = json.loads((folder / "predicates.json").read_text())
        self._predicates = {name: i for i, name in enumerate(names)}


def _file_names(ids: pa.StringArray) -> list[str]:
    """(N,) as open_images_layout.file_name_of() has them."""
    if not pc.any(pc.match_substring(ids, ".")).as_py():
        found: list[str] = pc.binary_join_element_wise(ids, ".jpg", "").to_pylist()
        return found
    return [file_name_of(one) for one in ids.to_pylist()]


def _stat(path: str) -> tuple[str, int, int]:
    """What tells a file from one that it was before, or the archive in which it lies."""
    for one in (Path(path), *Path(path).parents):
        if one.is_file():
            stat = one.stat()
            return "", stat.st_size, stat.st_mtime_ns
    return uuid.uuid4().hex, 0, 0  # at an address: nobody knows


def _picked(table: NDArray[Number], names: pa.DictionaryArray) -> NDArray[Number]:
    """(N,) the table's values by the indices of a dictionary."""
    found: NDArray[Number] = table[names.indices.to_numpy(zero_copy_only=False)]
    return found


def _blocks(path: str, part: Kind, problems: Problems) -> Iterator[Block]:
    """The rows of a file; values of columns that there is no place for are counted as lost."""
    known = VALUES[part]
    lost = [name for name in named(header(path)) if name not in known]
    columns: dict[str, Type] = {**known, **dict.fromkeys(lost, "text")}
    optional = set(known) - set(REQUIRED[part])
    for block in read_blocks(path, columns, problems, optional, ALIASES):
        for name in lost:
            empty = pc.is_in(block.columns[name], pa.array(NOTHING))
            if number := block.rows - (pc.sum(empty).as_py() or 0):
                problems.lose(f"the column {name}", number)
        yield block


class _Check(NamedTuple):
    """A reason for which rows can't be used."""

    bad: _Mask
    """(N,)"""
    damage: Callable[[int], Damage]
    """Of a row."""


def _good(block: Block, problems: Problems, checks: Sequence[_Check]) -> _Mask:
    """(N,) which rows can be used; the others become problems, each with the first reason."""
    good = np.ones(block.rows, bool)
    for check in checks:
        bad = check.bad & good
        if bad.any():
            good &= ~bad
            for row in np.flatnonzero(bad).tolist():
                check.damage(row).report(problems, block.place(row))
    return good


def _lose_sources(block: Block, what: str, problems: Problems, kept: Collection[str] = ()) -> None:
    """Counts the rows whose Source says more than the catalog holds."""
    if SOURCE in block.columns:
        sources = block.columns[SOURCE]
        more = [bool(one) and one not in kept for one in sources.dictionary.to_pylist()]
        if number := int(_picked(np.array(more, bool), sources).sum()):
            problems.lose(what, number)


def _unknown_class(block: Block, classes: _Ints, column: str) -> _Check:
    names = block.columns[column]
    return _Check(classes < 0, lambda row: wrong.unknown_class(column, names[row].as_py()))


def _scores(block: Block) -> tuple[_Ints, _Check]:
    """(N,) millionths, and which are none between 0 and 1; 1 where the file has no column."""
    if CONFIDENCE not in block.columns:
        stated = np.ones(block.rows)
    else:
        stated = block.numbers(CONFIDENCE)
    bad = ~((stated >= 0) & (stated <= 1))
    scaled = np.rint(np.where(bad, 0, stated) * SCORE_SCALE)
    return scaled.astype(np.int64), _Check(bad, lambda row: wrong.bad_score(stated[row]))


class _Corners(NamedTuple):
    """Boxes of a block."""

    stated: NDArray[np.float64]
    """(N, 4) as the file has them."""
    cut: _Ints
    """(N, 4) in millionths, cut off at the picture's border; UNKNOWN where none are stated."""
    none: _Mask
    """(N,) where none are stated and none need be."""

    @classmethod
    def of(cls, block: Block, suffix: str = "", *, optional: bool = False) -> _Corners:
        """Those of columns."""
        stated = np.stack([block.numbers(f"{name}{suffix}") for name in CORNERS], axis=1)
        scaled = np.rint(np.where(np.isfinite(stated), stated, 0) * SCORE_SCALE)
        cut = np.clip(scaled, 0, SCORE_SCALE).astype(np.int64)
        none = np.asarray(np.isnan(stated).all(1)) if optional else np.zeros(block.rows, bool)
        cut[none] = UNKNOWN
        return cls(stated, cut, none)

    def checks(self) -> list[_Check]:
        """Boxes that are left out."""
        stated, cut = self.stated, self.cut
        finite = np.asarray(np.isfinite(stated).all(1))
        empty = finite & ((cut[:, 0] >= cut[:, 2]) | (cut[:, 1] >= cut[:, 3]))
        return [
            _Check(~finite & ~self.none, lambda row: wrong.bad_corners(stated[row])),
            _Check(empty, lambda row: wrong.no_area(stated[row])),
        ]

    def report_cuts(self, block: Block, good: _Mask, problems: Problems) -> None:
        """Notes the boxes of good rows that go on beyond their picture."""
        over = ((self.stated < -SAME) | (self.stated > 1 + SAME)).any(1)
        for row in np.flatnonzero(over & good).tolist():
            wrong.cut_off(self.stated[row]).report(problems, block.place(row))


def _flags(block: Block) -> tuple[_Ints, list[_Check]]:
    """(N,) flags as the catalog packs them, and where one is none of 1, 0 and -1."""
    packed = np.zeros(block.rows, np.int64)
    checks = []
    for column, name in FLAG_COLUMNS.items():
        values = block.flags(column)
        bad = (values < -1) | (values > 1)
        packed |= np.where(bad, 0, values.astype(np.int64) + 1) << 2 * FLAGS.index(name)
        if bad.any():
            checks.append(_Check(bad, _flag_damage(column, values)))
    return packed, checks


def _flag_damage(column: str, values: NDArray[np.int8]) -> Callable[[int], Damage]:
    def damage(row: int) -> Damage:
        return wrong.bad_flag(column, "" if values[row] == NO_FLAG else str(values[row]))

    return damage


_PLAIN = r'^[^"\\\x00-\x1f]*$'
"""Values that JSON need not escape."""
_WHOLE_NUMBER = "^(0|[1-9][0-9]{0,17}|)$"
_FEW = ("Subset", "License", "Rotation")
"""Columns with few different values."""
MOST_SETS = 1000
"""Combinations of their values in a block; where there are more, each image has its own."""


def _described(
    columns: Mapping[str, pa.Array], split: str
) -> tuple[list[str | None], list[str], NDArray[np.int32]]:
    """What is said of images beside their ids, as ImageColumns has it."""
    shared = {n: one for n, one in columns.items() if isinstance(one, pa.DictionaryArray)}
    if split:
        shared.pop(SUBSET, None)
    code = np.zeros(len(columns[IMAGE_ID]), np.int64)
    for one in shared.values():
        code = code * len(one.dictionary) + one.indices.to_numpy(zero_copy_only=False)
    _, first, set_of = np.unique(code, return_index=True, return_inverse=True)
    if len(first) > MOST_SETS:
        return _attributes(columns, split), [], np.full(len(code), NO_SET, np.int32)
    sets = [_json({n: one[row].as_py() for n, one in shared.items()}, split) for row in first]
    own = {n: one for n, one in columns.items() if not isinstance(one, pa.DictionaryArray)}
    numbers = np.array([NO_SET if one == "{}" else i for i, one in enumerate(sets)], np.int32)
    return _attributes(own, ""), sets, numbers[set_of]


def _attributes(columns: Mapping[str, pa.Array], split: str) -> list[str | None]:
    """(N,) JSON objects of what is said of images beside their ids."""
    rows = len(columns[IMAGE_ID])
    parts: list[pa.Array | str] = [f',"split":{json.dumps(split)}'] if split else []
    odd = np.zeros(rows, bool)
    named = {n: one for n, one in columns.items() if n != IMAGE_ID and not (split and n == SUBSET)}
    for name, values in named.items():
        if isinstance(values, pa.DictionaryArray):
            texts = [_json({name: one}, "")[1:-1] for one in values.dictionary.to_pylist()]
            table = pa.array([text and f",{text}" for text in texts], pa.string())
            parts.append(table.take(values.indices))
        elif pc.any(pc.not_equal(values, "")).as_py():
            quote = "" if name in NUMBERS else '"'
            plain = _WHOLE_NUMBER if name in NUMBERS else _PLAIN
            odd |= ~pc.match_substring_regex(values, plain).to_numpy(zero_copy_only=False)
            head = f',"{attribute_of(name)}":{quote}'
            whole = pc.binary_join_element_wise(head, values, quote, "")
            parts.append(pc.if_else(pc.equal(values, ""), "", whole))
    if all(isinstance(part, str) for part in parts):
        return [_json({}, split) if split else None] * rows
    joined = pc.utf8_slice_codeunits(pc.binary_join_element_wise(*parts, ""), 1)
    found = pc.if_else(
        pc.equal(joined, ""), None, pc.binary_join_element_wise("{", joined, "}", "")
    )
    all_texts: list[str | None] = found.to_pylist()
    for row in np.flatnonzero(odd).tolist():
        all_texts[row] = _json({name: one[row].as_py() for name, one in named.items()}, split)
    return all_texts


def _json(values: Mapping[str, str], split: str) -> str:
    """The same for a row with a value that JSON has to escape."""
    found: dict[str, Json] = {"split": split} if split else {}
    for name, value in values.items():
        if value:
            found[attribute_of(name)] = attribute_value(name, value)
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))
