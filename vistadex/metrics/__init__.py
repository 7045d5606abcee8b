"""How good detectors and classifiers are: the field's measures, in NumPy alone.

from vistadex import metrics
truth = metrics.Truth.of(boxes_xyxy, classes, images, image_count=2, class_count=80)
found = metrics.Found.of(boxes_xyxy, scores, classes, images)
metrics.coco_ap(truth, found).numbers["AP"]
"""

from __future__ import annotations

from vistadex.metrics.classifying import ClassifierMeasures, classifier_measures
from vistadex.metrics.coco import CocoAp, coco_ap
from vistadex.metrics.columns import Found, Truth
from vistadex.metrics.confusing import Confusion, confusion
from vistadex.metrics.error_kinds import KINDS, ErrorKinds, error_kinds
from vistadex.metrics.open_images import open_images_ap
from vistadex.metrics.single_object import SingleObjectMeasures, single_object_measures
from vistadex.metrics.voc import ClassAp, voc_ap

__all__ = [
    "KINDS",
    "ClassAp",
    "ClassifierMeasures",
    "CocoAp",
    "Confusion",
    "ErrorKinds",
    "Found",
    "SingleObjectMeasures",
    "Truth",
    "classifier_measures",
    "coco_ap",
    "confusion",
    "error_kinds",
    "open_images_ap",
    "single_object_measures",
    "voc_ap",
]
