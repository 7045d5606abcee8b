"""From what a model says of pictures to measures: detections and classes against the truth.

Shape letters: I images, D detections of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from vistadex import metrics
from vistadex.annotated import AnnotatedSet
from vistadex.evaluating.naming import Naming
from vistadex.evaluating.results import (
    BACKGROUND,
    ClassResult,
    Counting,
    Curve,
    ErrorKind,
    Metric,
    Mistaken,
)
from vistadex.metrics import Found, Truth
from vistadex.metrics.coco import RECALLS
from vistadex.metrics.open_images import ImageLabels
from vistadex.metrics.voc import Year
from vistadex.records import Classification, Detections, IntArray, Result

_CURVE_POINTS = 200


@dataclass(frozen=True)
class Judged:
    """The truth and what a model says, of the pictures that it has seen."""

    truth: Truth
    found: Found
    naming: Naming
    counting: Counting
    seen: Sequence[int]
    """Positions of these pictures in the set; images of truth and found count so, too."""
    sizes_wh: IntArray
    """(I, 2) of every picture of the set."""
    labels: ImageLabels
    parents: Mapping[int, Sequence[int]]
    not_in_data: Mapping[str, int]

    @classmethod
    def of(
        cls,
        data: AnnotatedSet,
        results: Mapping[int, Result],
        naming: Naming,
        counting: Counting,
    ) -> Judged:
        """Everything as arrays; detections of classes that are not judged are left out."""
        said, labels = _truth(data, results, naming)
        found, left_out = _found(results, naming, counting.min_score)
        place = {name: i for i, name in enumerate(naming.classes)}
        parents: dict[int, list[int]] = {}
        for name, parent in data.parents:
            if name in place and parent in place:
                parents.setdefault(place[name], []).append(place[parent])
        sizes = np.array([(one.width, one.height) for one in data.images], np.int64)
        return cls(
            said,
            found,
            naming,
            counting,
            sorted(results),
            sizes.reshape(-1, 2),
            labels,
            parents,
            left_out,
        )

    @cached_property
    def sure(self) -> Found:
        """Detections with scores that count."""
        return self.found.take(self.found.scores >= self.counting.min_score)

    @cached_property
    def kinds(self) -> metrics.ErrorKinds:
        """The errors among those that count."""
        return metrics.error_kinds(self.truth, self.sure, iou=self.counting.iou)

    @cached_property
    def confusion(self) -> metrics.Confusion:
        """Which class is taken for which."""
        score, iou = self.counting.min_score, self.counting.iou
        return metrics.confusion(self.truth, self.found, min_score=score, iou=iou)

    def errors(self) -> list[ErrorKind]:
        """Every kind of error, most frequent first."""
        gains = metrics.error_kinds(self.truth, self.found, iou=self.counting.iou).gains
        counts = self.kinds.counts
        kinds = [
            ErrorKind(name=name, meaning=meaning, count=counts[name], gain=gains[name])
            for name, meaning in metrics.KINDS.items()
        ]
        return sorted(kinds, key=lambda one: -one.count)

    def measured(self, metric: Metric) -> Measured:
        """The measures of one kind."""
        if metric == "coco":
            return _by_coco(self)
        if metric == "open-images":
            by_class = metrics.open_images_ap(
                self.truth, self.found, labels=self.labels, parents=self.parents
            )
            return _by_area("mAP_open_images", by_class, self.naming.classes)
        year: Year = 2007 if metric == "voc2007" else 2010
        by_class = metrics.voc_ap(self.truth, self.found, year=year)
        return _by_area(f"mAP_{metric}", by_class, self.naming.classes)

    def single_object(self, size_wh: tuple[int, int] | None) -> dict[str, float]:
        """Measures of sets in which each picture shows one thing; none for others."""
        if size_wh is None or not self.seen:
            return {}
        order = np.full(len(self.sizes_wh), -1)
        order[list(self.seen)] = np.arange(len(self.seen))
        one = metrics.single_object_measures(
            replace(self.truth, images=order[self.truth.images], image_count=len(self.seen)),
            replace(self.found, images=order[self.found.images]),
            sizes_wh=self.sizes_wh[list(self.seen)],
            size_wh=size_wh,
        )
        if one is None:
            return {}
        return {"accuracy": one.accuracy, "box_mse": one.box_mse, "mean_iou": one.mean_iou}

    def per_class(self, measured: Measured) -> list[ClassResult]:
        """One row for each class."""
        counts = self.confusion.counts
        rows = []
        for i, name in enumerate(self.naming.classes):
            hits, said, true = int(counts[i, i]), int(counts[:, i].sum()), int(counts[i].sum())
            rows.append(
                ClassResult(
                    name=name,
                    truth=true,
                    found=said,
                    precision=hits / said if said else None,
                    recall=hits / true if true else None,
                    measures=measured.per_class[i],
                )
            )
        return rows


@dataclass(frozen=True, slots=True)
class Measured:
    """Measures in all and by class, and curves."""

    numbers: dict[str, float]
    per_class: list[dict[str, float]]
    curves: list[Curve]
    """By class; COCO's mean of all first."""


def _by_coco(judged: Judged) -> Measured:
    ap = metrics.coco_ap(judged.truth, judged.found)
    names = judged.naming.classes
    curves = ap.precision[0, :, :, 0]
    known = [i for i in range(len(names)) if curves[0, i] >= 0]
    mean = curves[:, known].mean(axis=1) if known else np.zeros(len(RECALLS))
    all_ = [Curve(name="mean of all classes", recall=RECALLS, precision=mean)]
    each = [Curve(name=names[i], recall=RECALLS, precision=curves[:, i]) for i in known]
    return Measured(ap.numbers, [ap.of_class(i) for i in range(len(names))], all_ + each)


def _by_area(name: str, found: metrics.ClassAp, classes: Sequence[str]) -> Measured:
    curves = []
    for at in np.flatnonzero(found.per_class >= 0).tolist():
        recall, precision = found.curves[at]
        some = np.linspace(0, len(recall) - 1, min(len(recall), _CURVE_POINTS)).astype(int)
        curves.append(Curve(name=classes[at], recall=recall[some], precision=precision[some]))
    per_class = [{"AP50": float(one)} for one in found.per_class]
    return Measured({name: found.mean}, per_class, curves)


def _truth(
    data: AnnotatedSet, seen: Mapping[int, Result], naming: Naming
) -> tuple[Truth, ImageLabels]:
    order = sorted(seen)
    images = [naming.judged(data.images[i]) for i in order]
    columns = {
        name: np.concatenate([np.zeros(0), *(getattr(one, name) for one in images)])
        for name in ("labels", "area", "crowd", "difficult", "classes_of_image", "classes_absent")
    }
    there, absent = columns["classes_of_image"], columns["classes_absent"]
    truth = Truth.of(
        np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes for one in images)]),
        columns["labels"],
        np.repeat(order, [len(one.labels) for one in images]),
        image_count=len(data),
        class_count=len(naming.classes),
        area=columns["area"],
        crowd=columns["crowd"],
        difficult=columns["difficult"],
    )
    labels = ImageLabels(
        np.append(
            np.repeat(order, [len(one.classes_of_image) for one in images]),
            np.repeat(order, [len(one.classes_absent) for one in images]),
        ).astype(np.int64),
        np.append(there, absent).astype(np.int64),
        np.arange(len(there) + len(absent)) < len(there),
    )
    return truth, labels


def _found(
    results: Mapping[int, Result], naming: Naming, min_score: float
) -> tuple[Found, dict[str, int]]:
    some = [(i, one) for i, one in sorted(results.items()) if isinstance(one, Detections)]
    theirs = np.concatenate([np.zeros(0, np.int64), *(one.class_ids for _, one in some)])
    scores = np.concatenate([np.zeros(0), *(one.scores for _, one in some)])
    classes = naming.of_model[theirs]
    found = Found.of(
        np.concatenate([np.zeros((0, 4)), *(one.boxes_xyxy for _, one in some)]),
        scores,
        classes,
        np.repeat([i for i, _ in some], [len(one.scores) for _, one in some]),
    )
    outside = np.bincount(theirs[(classes < 0) & (scores >= min_score)])
    names = {naming.model_classes[i]: int(n) for i, n in enumerate(outside) if n}
    return found.take(classes >= 0), dict(sorted(names.items(), key=lambda one: -one[1]))


@dataclass(frozen=True, slots=True)
class JudgedClasses:
    """Measures of a classifier."""

    measures: metrics.ClassifierMeasures
    naming: Naming
    mistaken: list[Mistaken]
    """The surest first."""

    @classmethod
    def of(cls, data: AnnotatedSet, results: Mapping[int, Result], naming: Naming) -> JudgedClasses:
        """Of those images that have a class which is judged."""
        labelled = [
            (i, labels)
            for i in sorted(results)
            if len(labels := naming.judged(data.images[i]).classes_of_image)
        ]
        best = np.full((len(labelled), 5), -1)
        scores = np.zeros((len(labelled), 5))
        said = {i: one for i, _ in labelled if isinstance(one := results[i], Classification)}
        for row, (i, _) in enumerate(labelled):
            number = min(5, len(said[i].scores))
            best[row, :number] = naming.of_model[said[i].class_ids[:number]]
            scores[row, :number] = said[i].scores[:number]
        measures = metrics.classifier_measures(
            np.repeat(np.arange(len(labelled)), [len(one) for _, one in labelled]),
            np.concatenate([one for _, one in labelled]).astype(np.int64),
            best,
            scores,
            class_count=len(naming.classes),
        )
        mistaken = [
            Mistaken(
                image=i,
                truth=", ".join(naming.classes[one] for one in labels),
                said=naming.model_classes[int(said[i].class_ids[0])],
                score=float(said[i].scores[0]),
            )
            for row, (i, labels) in enumerate(labelled)
            if len(said[i].scores) and best[row, 0] not in labels
        ]
        return cls(measures, naming, sorted(mistaken, key=lambda one: -one.score))

    def numbers(self) -> dict[str, float]:
        """The measures by name."""
        one = self.measures
        return {
            "accuracy": one.accuracy,
            "top5": one.top5,
            "balanced_accuracy": one.balanced_accuracy,
            "macro_f1": one.macro_f1,
            "calibration_error": one.calibration_error,
        }

    def per_class(self) -> list[ClassResult]:
        """One row for each class."""
        counts = self.measures.counts
        rows = []
        for i, name in enumerate(self.naming.classes):
            precision, recall = self.measures.precision[i], self.measures.recall[i]
            rows.append(
                ClassResult(
                    name=name,
                    truth=int(counts[i].sum()),
                    found=int(counts[:, i].sum()),
                    precision=float(precision) if precision >= 0 else None,
                    recall=float(recall) if recall >= 0 else None,
                )
            )
        return rows

    def confusion(self) -> tuple[list[str], list[list[int]]]:
        """Names and counts, with a column and a row for classes that are not judged."""
        counts = np.append(
            self.measures.counts, np.zeros((1, len(self.naming.classes) + 1), int), 0
        )
        if not counts[:, -1].any():
            return list(self.naming.classes), counts[:-1, :-1].tolist()
        return [*self.naming.classes, "another"], counts.tolist()


def confusion_of(judged: Judged) -> tuple[list[str], list[list[int]]]:
    """Names and counts of a detector's matrix, background last."""
    return [*judged.naming.classes, BACKGROUND], judged.confusion.counts.tolist()
