"""Labelers: services in the cloud that name what is in pictures, as analyzers among others.

Pictures leave this machine only where a labeler was named, and each costs money:

from vistadex import labelers
model = labelers.labeler("google-vision", max_calls=100).load()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vistadex.errors import UsageError
from vistadex.labelers.calls import Calls
from vistadex.labelers.contract import LabelOptions, Price, Service
from vistadex.labelers.labeling import Labeler
from vistadex.registry import lookup

__all__ = ["LABELERS", "NAMES", "Cost", "LabelOptions", "Labeler", "Price", "cost", "labeler"]

LABELERS: Mapping[str, str] = {
    "google-vision": "vistadex.labelers.google_vision:GoogleVision",
    "rekognition": "vistadex.labelers.rekognition:Rekognition",
    "rekognition-boxes": "vistadex.labelers.rekognition:RekognitionBoxes",
}
"""A labeler's name leads to its service."""
NAMES = tuple(LABELERS)


def labeler(
    name: str,
    *,
    max_calls: int | None = None,
    calls_per_second: float | None = None,
    min_score: float = 0.25,
    max_labels: int = 50,
    size: int = 1024,
    timeout_s: float = 60,
) -> Labeler:
    """The analyzer that asks a service about pictures. Nothing is sent before its model is used.

    Args:
        name: one of NAMES.
        max_calls: pictures to send at most, over all threads and retries; None: no bound.
        calls_per_second: pictures to send in a second; None: what the service allows a newcomer.
        min_score, max_labels, size, timeout_s: see LabelOptions.
    Raises: UsageError for an unknown name or an option that can't be; MissingExtraError where the
        service's library is not installed.
    """
    service: type[Service] = lookup(LABELERS, name, "labeler")
    options = LabelOptions(
        max_labels=max_labels, min_score=min_score, size=size, timeout_s=timeout_s
    )
    pace = service.calls_per_second if calls_per_second is None else calls_per_second
    return Labeler(name, service, options, Calls(name, max_calls, pace))


@dataclass(frozen=True, slots=True)
class Cost:
    """What pictures cost, as an estimate: free amounts and discounts are left out."""

    usd: float
    text: str
    """The sum with the price and where that stands."""


def cost(name: str, calls: int, usd_per_1000: float | None = None) -> Cost:
    """What so many pictures cost at the listed price, or at the one that is given.

    Raises: UsageError for an unknown name or a price below 0; MissingExtraError where the service's
        library is not installed.
    """
    price: Price = lookup(LABELERS, name, "labeler").price
    if usd_per_1000 is not None and not 0 <= usd_per_1000 < float("inf"):
        raise UsageError(f"price_per_1000 {usd_per_1000}: expected dollars for 1,000 pictures")
    unit = price.usd_per_1000 if usd_per_1000 is None else usd_per_1000
    source = f"list price, not checked: {price.source}" if usd_per_1000 is None else "as given"
    usd = calls * unit / 1000
    return Cost(usd, f"about ${usd:,.2f} at ${unit:,.2f} for 1,000 pictures ({source})")
