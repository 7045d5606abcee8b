"""Where a model and the annotations of people differ: missed, invented and otherwise named."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vistadex.boxes import box_iou
from vistadex.catalog import Catalog, FoundBox, IndexedImage, reading, registering
from vistadex.catalog.registering import KnownAnalyzer
from vistadex.errors import QueryError, UsageError
from vistadex.records import FloatArray

IGNORED_SHARE = 0.5
"""What lies so far inside of a crowd or a difficult object is neither right nor wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One image in which the two differ."""

    id: int
    uri: str
    missed: tuple[str, ...]
    """Classes of boxes of the reference that the model does not have."""
    invented: tuple[str, ...]
    """Classes of boxes of the model that the reference does not have."""
    other_class: tuple[tuple[str, str], ...]
    """Objects that both have: the class of the reference, and of the model."""

    @property
    def number(self) -> int:
        """How many boxes differ."""
        return len(self.missed) + len(self.invented) + len(self.other_class)


@dataclass(slots=True, kw_only=True)
class Comparison:
    """How a model and a reference differ over many images."""

    model: str
    reference: str
    images: int = 0
    """Seen by both."""
    agreed: int = 0
    """Boxes that both have, with the same class."""
    missed: int = 0
    invented: int = 0
    other_class: int = 0
    left_out: tuple[str, ...] = ()
    """Classes that only one of the two knows; their boxes are not compared."""
    differences: list[Difference] = field(default_factory=list)
    """The images with most differing boxes, most first."""


def compare(
    *,
    model: str | None = None,
    reference: str = "human",
    query: str = "",
    min_score: float = 0.25,
    iou: float = 0.5,
    limit: int = 20,
    catalog: str | Path | Catalog | None = None,
) -> Comparison:
    """The images in which a model differs most from what people annotated.

    Boxes that overlap are one object: first those of one class, the best overlap first, then the
    rest whatever their class. Boxes that are marked as crowd or difficult are not asked for, and
    what lies in them is not held against the model.

    Args:
        model: a detector that has looked at the images; None: the only one that has.
        reference: what it is compared with: "human", or another detector.
        query: only images that this finds; see vistadex.grammar.
        min_score: boxes of the model with a lower score do not count.
        iou: intersection over union from which two boxes are one object.
        limit: images to list.
        catalog: file name or URL; None: the setting.
    Raises: QueryError where there is no such model; UsageError for a number out of range.
    """
    if not (0 < iou <= 1 and 0 <= min_score <= 1 and limit >= 0):
        raise UsageError(
            f"iou={iou}, min_score={min_score}, limit={limit}: "
            "expected above 0 to 1, 0 to 1, 0 or more"
        )
    if model == reference:
        raise UsageError(f"model and reference are both {model!r}, expected two; choose another")
    store = catalog if isinstance(catalog, Catalog) else Catalog(catalog)
    try:
        return _compare(store, model, reference, query, min_score, iou, limit)
    finally:
        if store is not catalog:
            store.close()


def _compare(
    catalog: Catalog,
    model: str | None,
    reference: str,
    query: str,
    min_score: float,
    iou: float,
    limit: int,
) -> Comparison:
    with catalog.reading() as connection:
        known = [one for one in registering.all_analyzers(connection) if one.task == "detector"]
        theirs = _newest(known, reference)
        ours = _newest(known, model or _only(known, reference))
        named = [
            {
                *reading.model_card(connection, one.sha256).get("classes", ()),
                *reading.class_names(connection, one.id),
            }
            for one in (ours, theirs)
        ]
    both = named[0] & named[1]
    found = Comparison(model=ours.name, reference=theirs.name)
    seen: set[str] = set()
    best: list[tuple[int, int, Difference]] = []
    for image in catalog.walk(query):
        if not {ours.id, theirs.id} <= set(image.analyzer_ids) or image.status != "ok":
            continue
        seen.update(box.class_name for box in image.boxes)
        mine = [b for b in _of(image, ours, both) if b.score >= min_score]
        one = _difference(image, mine, _of(image, theirs, both), iou, found)
        if one.number and limit:
            row = (one.number, -one.id, one)
            (heapq.heappush if len(best) < limit else heapq.heappushpop)(best, row)
    found.left_out = tuple(sorted(seen - both))
    found.differences = [one for _, _, one in sorted(best, reverse=True)]
    return found


def _only(known: Sequence[KnownAnalyzer], reference: str) -> str:
    names = sorted({one.name for one in known} - {reference})
    if len(names) == 1:
        return names[0]
    if not names:
        raise QueryError(f"no detector to compare with {reference!r}; `vistadex index` runs one")
    raise QueryError(f"{len(names)} detectors, say which with --model: {', '.join(names)}")


def _newest(known: Sequence[KnownAnalyzer], name: str) -> KnownAnalyzer:
    """The analyzer of that name; with several parameters, that of the latest ones."""
    found = [one for one in known if one.name == name]
    if not found:
        names = ", ".join(sorted({one.name for one in known})) or "none yet"
        cure = "; `vistadex import` brings annotations" if name == "human" else ""
        raise QueryError(f"no boxes of {name!r} in the catalog; there are: {names}{cure}")
    return max(found)


def _of(image: IndexedImage, analyzer: KnownAnalyzer, names: set[str]) -> list[FoundBox]:
    return [b for b in image.boxes if b.analyzer_id == analyzer.id and b.class_name in names]


def _difference(
    image: IndexedImage,
    found: list[FoundBox],
    said: list[FoundBox],
    iou: float,
    total: Comparison,
) -> Difference:
    """Compares two sets of boxes of one image, and adds to the totals."""
    asked = [box for box in said if not _is_ignored(box)]
    overlap = box_iou(_corners(found), _corners(asked))
    same = np.array([[f.class_name == a.class_name for a in asked] for f in found], bool)
    same = same.reshape(len(found), len(asked))
    agreed = list(_pairs(np.where(same, overlap, np.float32(0)), iou))
    for i, j in agreed:
        overlap[i, :] = overlap[:, j] = 0
    renamed = list(_pairs(overlap, iou))
    matched_found = {i for i, _ in agreed + renamed}
    matched_asked = {j for _, j in agreed + renamed}
    ignored = [box for box in said if _is_ignored(box)]
    extra = [
        box for i, box in enumerate(found) if i not in matched_found and not _lies_in(box, ignored)
    ]
    one = Difference(
        id=image.id,
        uri=image.uri,
        missed=tuple(b.class_name for j, b in enumerate(asked) if j not in matched_asked),
        invented=tuple(box.class_name for box in extra),
        other_class=tuple((asked[j].class_name, found[i].class_name) for i, j in renamed),
    )
    total.images += 1
    total.agreed += len(agreed)
    total.missed += len(one.missed)
    total.invented += len(one.invented)
    total.other_class += len(one.other_class)
    return one


def _is_ignored(box: FoundBox) -> bool:
    return box.flags.get("crowd", False) or box.flags.get("difficult", False)


def _corners(boxes: Sequence[FoundBox]) -> FloatArray:
    return np.array([box.box_xyxy for box in boxes], np.float32).reshape(-1, 4)


def _pairs(overlap: FloatArray, iou: float) -> Iterator[tuple[int, int]]:
    """Rows and columns that belong together, the largest overlap first, each once."""
    overlap = overlap.copy()
    while overlap.size:
        i, j = np.unravel_index(int(overlap.argmax()), overlap.shape)
        if overlap[i, j] < iou:
            return
        yield int(i), int(j)
        overlap[i, :] = overlap[:, j] = 0


def _lies_in(box: FoundBox, areas: Sequence[FoundBox]) -> bool:
    x0, y0, x1, y1 = box.box_xyxy
    size = max((x1 - x0) * (y1 - y0), 1e-9)
    for area in areas:
        a0, b0, a1, b1 = area.box_xyxy
        shared = max(0.0, min(x1, a1) - max(x0, a0)) * max(0.0, min(y1, b1) - max(y0, b0))
        if shared / size >= IGNORED_SHARE:
            return True
    return False
