"""How far relations derived from boxes are what people say: Stanford VRD, tuned on one half.

The images are split in two halves. --tune looks for the limits of vistadex.relations.RULES on one
half; the table is always of the other one.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import tables

from vistadex.catalog import Catalog, registering, writing
from vistadex.origins import AnnotationOrigin
from vistadex.records import Detections, ImageEntry, Outcome
from vistadex.relating import relate
from vistadex.relations import (
    MEASURES,
    MOST_BOXES,
    PREDICATES,
    RULES,
    Condition,
    Pairs,
    Rule,
    derive,
    derive_counted,
)

SEED = 7
SAID_AS: Mapping[str, str] = {
    "on": "on, on the top of, sit on, stand on, ride, park on, lying on, sleep on, rest on, "
    "skate on, drive on",
    "under": "under, beneath, sit under, stand under",
    "above": "above, over",
    "below": "below",
    "left_of": "on the left of",
    "right_of": "on the right of",
    "inside_of": "in, inside",
    "contains": "contain",
    "next_to": "next to, sleep next to, sit next to, stand next to, park next, walk next to, near, "
    "beside, walk beside, by, adjacent to",
}
"""What people say in VRD for each of our predicates; they have no word for overlaps, and what else
they say (wear, has, behind, hold …) is not to be seen in boxes."""
NOT_DERIVED: Mapping[str, str] = {
    "behind": "behind, stand behind, sit behind, park behind",
    "in_front_of": "in the front of",
}
"""What boxes do not tell well enough: the table says how well."""
BEHIND = Rule(
    "the subject stands higher, and the two do not cover each other wholly",
    (
        Condition("down", -0.45, -0.3),
        Condition("foot", 0.85, -0.2),
        Condition("shared", 0.8, -0.2),
        Condition("overlap_y", -0.75, 0.5),
    ),
)
"""The best rule that was found for behind."""
OURS = {word: name for name, words in (SAID_AS | NOT_DERIVED).items() for word in words.split(", ")}


def converse(name: str) -> str:
    """The predicate that holds of the object and the subject."""
    if name in NOT_DERIVED:
        return next(other for other in NOT_DERIVED if other != name)
    if RULES[name].symmetric:
        return name
    return RULES[name].converse or next(
        other for other, rule in RULES.items() if rule.converse == name
    )


@dataclass(frozen=True)
class Scene:
    """An image with what people say of it."""

    boxes_xyxy: Any
    """(N, 4): each box with each of its classes once."""
    class_ids: tuple[int, ...]
    triplets: tuple[tuple[int, str, int], ...]
    """Subject, what people say, object."""

    def size_wh(self) -> tuple[int, int]:
        """Not known: VRD's annotations don't say it."""
        return 0, 0


def scenes(folder: Path) -> list[Scene]:
    """The annotated images of VRD in an order that is theirs for ever."""
    said = json.loads((folder / "annotations_test.json").read_text(encoding="utf-8"))
    words = json.loads((folder / "predicates.json").read_text(encoding="utf-8"))
    found = []
    for name in sorted(said):
        numbers: dict[tuple[int, ...], int] = {}
        triplets = []
        for one in said[name]:
            ends = []
            for part in ("subject", "object"):
                y0, y1, x0, x1 = one[part]["bbox"]
                thing = (one[part]["category"], x0, y0, x1, y1)
                ends.append(numbers.setdefault(thing, len(numbers)))
            triplets.append((ends[0], words[one["predicate"]], ends[1]))
        boxes = np.array([thing[1:] for thing in numbers], float).reshape(-1, 4)
        class_ids = tuple(thing[0] for thing in numbers)
        found.append(Scene(boxes, class_ids, tuple(dict.fromkeys(triplets))))
    return found


def halves(found: Sequence[Scene]) -> tuple[list[Scene], list[Scene]]:
    """The half to tune on, and the half to report."""
    shuffled = list(found)
    random.Random(SEED).shuffle(shuffled)
    middle = len(shuffled) // 2
    return shuffled[:middle], shuffled[middle:]


def truth(scene: Scene) -> dict[tuple[int, int], set[str]]:
    """Our predicates for every pair of which people say anything, in both directions.

    Whoever says that a is on b says that b is under a.
    """
    pairs: dict[tuple[int, int], set[str]] = {}
    for subject, word, object_ in scene.triplets:
        if subject == object_:
            continue
        there = pairs.setdefault((subject, object_), set())
        back = pairs.setdefault((object_, subject), set())
        if word in OURS:
            there.add(OURS[word])
            back.add(converse(OURS[word]))
    return pairs


def derived(scene: Scene) -> dict[tuple[str, int, int], float]:
    """The score of every relation that follows from the boxes, both ways where it is symmetric."""
    names = [f"{i:05}" for i in range(len(scene.boxes_xyxy))]
    assert len(names) <= MOST_BOXES
    sure = np.ones(len(names))
    size_wh = scene.size_wh()
    found: dict[tuple[str, int, int], float] = {}
    for one in derive_counted(
        scene.boxes_xyxy, names, sure, size_wh=size_wh, min_score=1e-6, at_most=10**9
    ).relations:
        subject, object_ = int(one.subject), int(one.object)
        found[one.predicate, subject, object_] = one.score
        if RULES[one.predicate].symmetric:
            found[one.predicate, object_, subject] = one.score
    return found


def average_precision(scores: Any, wanted: Any) -> float:
    """The area under the steps of precision over recall; equal scores are one step."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(scores[order][1:] != scores[order][:-1], True)
    right = np.cumsum(wanted[order])[last]
    precision = right / (np.flatnonzero(last) + 1)
    return float((np.diff(right, prepend=0) * precision).sum() / max(1, right[-1]))


def agreement(found: Sequence[Scene]) -> dict[str, dict[str, Any]]:
    """Precision, recall and average precision by predicate."""
    triplets: dict[str, list[float]] = {name: [] for name in SAID_AS}
    rows: dict[str, list[tuple[float, bool]]] = {name: [] for name in SAID_AS}
    for scene in found:
        scores = derived(scene)
        for subject, word, object_ in scene.triplets:
            if OURS.get(word) in SAID_AS:
                triplets[OURS[word]].append(scores.get((OURS[word], subject, object_), 0.0))
        for (subject, object_), names in truth(scene).items():
            for name in SAID_AS:
                rows[name].append((scores.get((name, subject, object_), 0.0), name in names))
    return {name: _row(triplets[name], rows[name]) for name in SAID_AS}


def _row(triplets: Sequence[float], rows: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    scores, wanted = np.array(rows, float).reshape(-1, 2).T
    said = scores >= 0.5
    recall = float(np.mean(np.array(triplets) >= 0.5)) if triplets else None
    right = int((said & (wanted > 0)).sum())
    precision = right / int(said.sum()) if said.any() else None
    both = (precision or 0) + (recall or 0)
    return {
        "triplets": len(triplets),
        "recall": recall,
        "derived": int(said.sum()),
        "precision": precision,
        "by_chance": float(wanted.mean()),
        "F1": 2 * (precision or 0) * (recall or 0) / both if both else 0.0,
        "AP": average_precision(scores, wanted),
    }


def words(found: Sequence[Scene], most: int = 5) -> list[list[Any]]:
    """What people say, by falling share, of the pairs that each predicate is derived for."""
    said: dict[str, Counter[str]] = {name: Counter() for name in PREDICATES}
    for scene in found:
        scores = derived(scene)
        for subject, word, object_ in scene.triplets:
            for name in PREDICATES:
                if scores.get((name, subject, object_), 0) >= 0.5:
                    said[name][word] += 1
    rows: list[list[Any]] = []
    for name, counts in said.items():
        number = counts.total()
        shares = [f"{word} {n / number:.0%}" for word, n in counts.most_common(most)]
        rows.append([name, number, ", ".join(shares)])
    return rows


Kind = tuple[str, str, str]
"""Subject's class, predicate, object's class: what a search asks for."""


def kinds(scene: Scene, at_most: int) -> tuple[int, set[Kind]]:
    """How many relations an image has that may have so many, and of which kinds they are."""
    names = list(map(str, scene.class_ids))
    sure = np.ones(len(names))
    found = derive(scene.boxes_xyxy, names, sure, size_wh=(0, 0), at_most=at_most)
    return len(found), {(one.subject, one.predicate, one.object) for one in found}


def said_kinds(scene: Scene) -> Iterator[Kind]:
    """The kinds of what people say with a word that we have, as we would give them."""
    for subject, word, object_ in scene.triplets:
        name = OURS.get(word, "")
        ends = [str(scene.class_ids[subject]), str(scene.class_ids[object_])]
        if name in SAID_AS:
            first, second = sorted(ends) if RULES[name].symmetric else ends
            yield first, name, second


def places(found: Sequence[Scene], numbers: Sequence[int]) -> list[list[Any]]:
    """For each number of relations that an image may have: how many it has, the share of kinds that
    are kept, and the share kept of those that people say."""
    every = [kinds(scene, 10**9) for scene in found]
    number_of_kinds = sum(len(some) for _, some in every)
    said = [
        [one for one in said_kinds(s) if one in e[1]] for s, e in zip(found, every, strict=True)
    ]
    rows: list[list[Any]] = []
    for number in numbers:
        kept = [kinds(scene, number) for scene in found]
        also = sum(one in k[1] for k, some in zip(kept, said, strict=True) for one in some)
        rows.append(
            [
                number,
                sum(k[0] for k in kept) / len(found),
                sum(len(k[1]) for k in kept) / number_of_kinds,
                also / sum(map(len, said)),
            ]
        )
    return rows


def speed(found: Sequence[Scene], number: int, work: Path) -> dict[str, Any]:
    """Images/s of derive() alone, and of relate() on a catalog of so many images like VRD's."""
    boxes = [(one.boxes_xyxy, [str(c) for c in one.class_ids]) for one in found]
    started = time.perf_counter()
    for some, names in boxes:
        derive(some, names, np.ones(len(names)), size_wh=(0, 0))
    alone = len(boxes) / (time.perf_counter() - started)
    path = measuring.remove_catalog(work / "relations.db")
    names = tuple(map(str, range(100)))
    with Catalog(path, create=True) as catalog:
        for start in range(0, number, 500):
            outcomes = [
                _outcome(found[i % len(found)], i) for i in range(start, min(start + 500, number))
            ]
            with catalog.writing() as connection:
                source = registering.register_source(connection, "/vrd")
                origin = AnnotationOrigin("human", "detector", names, {})
                analyzer = registering.register_analyzer(connection, origin)
                writing.write_annotations(connection, source, [analyzer], outcomes)
    before = path.stat().st_size
    done = relate(catalog=path)
    return {
        "images": done.images,
        "boxes": sum(len(found[i % len(found)].boxes_xyxy) for i in range(number)),
        "relations": done.relations,
        "left_out": done.left_out,
        "derive_images_s": alone,
        "relate_images_s": done.images / done.seconds,
        "bytes_an_image": (path.stat().st_size - before) / max(1, done.images),
    }


def _outcome(scene: Scene, number: int) -> Outcome:
    sure = np.ones(len(scene.class_ids))
    found = Detections(scene.boxes_xyxy, sure, np.array(scene.class_ids, np.int64))
    return Outcome(ImageEntry(f"{number:09}.jpg", None, ""), results=(found,), seen=False)


STEPS = (-0.4, -0.2, -0.1, -0.05, 0.05, 0.1, 0.2, 0.4)
REACHES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0)
BOUNDS: Mapping[str, Sequence[tuple[float, float, float]]] = {
    "on": [(-0.3, 0.2, 0.25), (0.6, 1.0, 0.25), (0.5, 0.85, 0.15)],
    "above": [(-1.2, -0.5, 0.5), (-1.0, 0.0, 0.5), (0.0, 0.8, 0.2)],
    "left_of": [(-1.0, -0.5, 0.5), (0.0, 0.5, 0.5), (0.0, 0.7, 0.3)],
    "inside_of": [(0.75, 0.9, 0.1), (0.5, 0.85, 0.1)],
    "behind": [(-1.0, 0.0, 0.5), (0.5, 1.1, 0.25), (0.3, 1.0, 0.2), (-1.0, 0.5, 0.5)],
    "next_to": [(0.5, 0.9, 0.5), (-1.5, -0.25, 0.5), (0.0, 0.7, 0.3), (1.0, 3.0, 1.0)],
}
"""Where the limit of each condition is looked for, and its longest reach: outside, a word would
mean something else. People say only one thing of a pair, so what they leave unsaid would pull the
limits of rare words away."""


class Tuning:
    """Looks for the conditions of rules that tell best what people say of one half."""

    def __init__(self, found: Sequence[Scene]) -> None:
        measured: dict[str, list[Any]] = {name: [] for name in MEASURES}
        wanted: list[set[str]] = []
        for scene in found:
            pairs = truth(scene)
            if not pairs:
                continue
            at = tuple(np.array(list(pairs)).T)
            with np.errstate(divide="ignore", invalid="ignore"):
                everything = Pairs(scene.boxes_xyxy)
                for name, measure in MEASURES.items():
                    measured[name].append(measure(everything)[at])
            wanted += pairs.values()
        self.measured = {name: np.concatenate(parts) for name, parts in measured.items()}
        self.wanted = {
            name: np.array([name in one for one in wanted]) for name in set(OURS.values())
        }

    def degree(self, conditions: Sequence[Condition]) -> Any:
        """How far all of them hold."""
        return np.minimum.reduce([one.degree(self.measured[one.measure]) for one in conditions])

    def agreement(self, name: str, conditions: Sequence[Condition]) -> float:
        """F1 over the pairs of which people say anything."""
        said, wanted = self.degree(conditions) >= 0.5, self.wanted[name]
        return float(2 * (said & wanted).sum() / max(1, said.sum() + wanted.sum()))

    def tuned(self, name: str, rule: Rule) -> Rule:
        """The rule with the best limits, and then with the reaches that rank best."""
        best = list(rule.conditions)
        value = self.agreement(name, best)
        better = True
        while better:
            better = False
            for i, step in product(range(len(best)), STEPS):
                trial = list(best)
                trial[i] = replace(best[i], limit=round(best[i].limit + step, 3))
                low, high, _ = BOUNDS[name][i]
                inside = low <= trial[i].limit <= high
                if inside and (new := self.agreement(name, trial)) > value + 1e-3:
                    best, value, better = trial, new, True
        return replace(rule, conditions=tuple(self._reaches(name, best)))

    def _reaches(self, name: str, best: list[Condition]) -> list[Condition]:
        value = average_precision(self.degree(best), self.wanted[name])
        for i in list(range(len(best))) * 2:
            for size in REACHES:
                if size > BOUNDS[name][i][2]:
                    continue
                trial = list(best)
                trial[i] = replace(best[i], reach=float(np.copysign(size, best[i].reach)))
                new = average_precision(self.degree(trial), self.wanted[name])
                if new > value + 1e-4:
                    best, value = trial, new
        return best


def tuned_rules(found: Sequence[Scene]) -> Iterator[tuple[str, Rule]]:
    """Every rule with conditions that people have a word for, tuned."""
    tuning = Tuning(found)
    for name, rule in RULES.items():
        if rule.conditions and name in SAID_AS:
            yield name, tuning.tuned(name, rule)


def behind(first: Sequence[Scene], second: Sequence[Scene]) -> dict[str, Any]:
    """How well the best rule for behind, tuned on one half, tells it on the other."""
    conditions = Tuning(first).tuned("behind", BEHIND).conditions
    tuning = Tuning(second)
    degree, wanted = tuning.degree(conditions), tuning.wanted["behind"]
    said = degree >= 0.5
    right = int((said & wanted).sum())
    return {
        "triplets": int(wanted.sum()),
        "recall": right / int(wanted.sum()),
        "derived": int(said.sum()),
        "precision": right / int(said.sum()),
        "by_chance": float(wanted.mean()),
        "F1": tuning.agreement("behind", conditions),
        "AP": average_precision(degree, wanted),
    }


HEADERS = ("predicate", "triplets", "recall", "derived", "precision", "by chance", "F1", "AP")


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument("--tune", action="store_true", help="print the limits that fit best")
    parser.add_argument("--images", type=int, help="only so many images")
    parser.add_argument("--speed", type=int, default=5000, help="images to derive relations of")
    options = parser.parse_args()
    folder = measuring.SHARED_DATA / "vrd"
    if not folder.exists():
        sys.exit(f"{folder}: not there; set VISTADEX_TEST_DATA to the folder of test data")
    here = measuring.machine()
    first, second = halves(scenes(folder)[: options.images])
    results: dict[str, Any] = {"images": len(second), "agreement": agreement(second)}
    if options.tune:
        found = dict(tuned_rules(first))
        for name, rule in found.items():
            print(f"{name}:")
            for one in rule.conditions:
                print(f"    {one}")
        results["tuned"] = {
            name: [[one.measure, one.limit, one.reach] for one in rule.conditions]
            for name, rule in found.items()
        }
    rows = [[name, *one.values()] for name, one in results["agreement"].items()]
    if options.tune:
        results["behind"] = behind(first, second)
        rows.append(["behind (not derived)", *results["behind"].values()])
    tables.show(f"{len(second)} images that the limits were not tuned on", HEADERS, rows)
    tables.show("what people say of them", ("predicate", "triplets", "words"), words(second))
    results["places"] = places(first + second, (10, 20, 30, 50, 75, 100))
    headers = ("at most", "relations an image", "kinds kept", "of those people say")
    tables.show("relations that an image may have", headers, results["places"])
    with measuring.work_folder(options.work) as work:
        results["speed"] = speed(first + second, options.speed, work)
    tables.show("speed", ("", "value"), [list(one) for one in results["speed"].items()])
    measuring.write_json(options, here, results)


if __name__ == "__main__":
    main()
