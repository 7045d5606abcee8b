"""Which class of a model is which of the data: by name, never by number."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np

from vistadex.annotated import AnnotatedImage, AnnotatedSet
from vistadex.errors import UsageError
from vistadex.records import IntArray

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Naming:
    """The classes of the data, and where a model's classes are among them."""

    classes: tuple[str, ...]
    """That are judged."""
    of_data: IntArray
    """The position in classes of each class of the data; -1: not judged."""
    of_model: IntArray
    """The position in classes of each class of the model; -1: the data does not have it."""
    model_classes: tuple[str, ...]

    def judged(self, image: AnnotatedImage) -> AnnotatedImage:
        """The image with only what is judged, numbered as in classes."""
        labels = self.of_data[image.labels]
        kept = labels >= 0
        present, absent = (
            self.of_data[some].astype(np.int32)
            for some in (image.classes_of_image, image.classes_absent)
        )
        return replace(
            image,
            boxes=image.boxes[kept],
            labels=labels[kept].astype(np.int32),
            crowd=image.crowd[kept],
            difficult=image.difficult[kept],
            area=image.area[kept],
            group_of=image.group_of[kept],
            classes_of_image=present[present >= 0],
            classes_absent=absent[absent >= 0],
        )


def name_classes(
    data: AnnotatedSet,
    model: str,
    model_classes: Sequence[str],
    *,
    names: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
) -> Naming:
    """Finds each class of the data among the model's, whatever its case.

    A model's class may be a list of synonyms, as ImageNet's are: `tench, Tinca tinca` is found as
    either, where no other class has that name.

    Args:
        names: what the model calls a class of the data, where it calls it otherwise.
        only: classes of the data that are judged; None: all.
    Raises: UsageError where the model lacks a class that is there, or a name is unknown.
    """
    names = names or {}
    for name in [*names, *(only or ())]:
        if name not in data.classes:
            what = f"{data.name}: has no class {name!r}, expected one of {_some(data.classes)}"
            raise UsageError(f"{what}; correct --names or --only")
    judged = [name for name in data.classes if only is None or name in only]
    known = _Known(model_classes)
    found = {name: known.places(names.get(name, name)) for name in judged}
    _need_known(data, model, model_classes, names, found)
    of_model = np.full(len(model_classes), -1, np.int64)
    for i, name in enumerate(judged):
        of_model[found[name]] = i
    place = {name: i for i, name in enumerate(judged)}
    of_data = np.array([place.get(name, -1) for name in data.classes], np.int64)
    return Naming(tuple(judged), of_data, of_model, tuple(model_classes))


class _Known:
    """A model's classes by name."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._by_name: dict[str, list[int]] = {}
        self._by_case: dict[str, list[int]] = {}
        self._by_synonym: dict[str, list[int]] = {}
        for i, name in enumerate(classes):
            self._by_name.setdefault(name, []).append(i)
            self._by_case.setdefault(name.casefold(), []).append(i)
            for synonym in {one.strip().casefold() for one in name.split(",")}:
                self._by_synonym.setdefault(synonym, []).append(i)

    def places(self, name: str) -> list[int]:
        """Every class of that name (ImageNet has two cranes), or the only one with the synonym."""
        low = name.casefold()
        exact = self._by_name.get(name) or self._by_case.get(low)
        synonyms = self._by_synonym.get(low, [])
        return exact or (synonyms if len(synonyms) == 1 else [])


def _need_known(
    data: AnnotatedSet,
    model: str,
    model_classes: Sequence[str],
    names: Mapping[str, str],
    found: Mapping[str, Sequence[int]],
) -> None:
    """Raises: UsageError for classes that the model lacks, or that two of the data share."""
    there = _occurring(data)
    lacking = [name for name, at in found.items() if not at and (name in there or name in names)]
    if lacking:
        what = f"{data.name}: {model} does not know {len(lacking)} of its classes"
        expected = f"({_some(lacking)}), expected them among {_some(model_classes)}"
        near = get_close_matches(names.get(lacking[0], lacking[0]), model_classes, 1)
        example = f"{lacking[0]}={near[0]}" if near else "DATA=MODEL"
        cure = f"say what it calls them, as --names '{example}', or judge others with --only"
        raise UsageError(f"{what} {expected}; {cure}")
    shared: dict[int, str] = {}
    for name, at in ((name, at) for name, places in found.items() for at in places):
        if shared.setdefault(at, name) != name:
            what = f"{data.name}: {shared[at]!r} and {name!r} are both {model_classes[at]!r}"
            raise UsageError(
                f"{what} of {model}, expected one; correct --names, or judge one --only"
            )


def _occurring(data: AnnotatedSet) -> set[str]:
    """Classes that some image has."""
    there: set[int] = set()
    for image in data.images:
        there.update(image.labels.tolist(), image.classes_of_image.tolist())
    return {data.classes[i] for i in there}


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(one) if "," in one else one for one in names[:_SHOWN]) + more
