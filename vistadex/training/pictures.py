"""Pictures of a training set, decoded once and kept on disk at the size that training needs.

Every process reads the same files, so the system's page cache holds each picture once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vistadex.annotated import AnnotatedSet
from vistadex.decoding import decode
from vistadex.errors import DecodingError, SourceError
from vistadex.records import Pixels
from vistadex.training.augmenting import Truth

IGNORED = 0.0
"""Weight of a region in which nothing counts: a crowd, or a box marked as difficult."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of a set with their boxes; picklable."""

    data: AnnotatedSet
    long_side: int
    """Pixels of the longer side at most."""
    folder: Path
    """Where decoded pictures are kept."""
    max_bytes: int
    """What they may take; pictures beyond that are decoded each time."""
    keep_difficult: bool = True

    def __len__(self) -> int:
        return len(self.data.images)

    def get(self, i: int) -> Truth:
        """One picture with its boxes at the size that it comes in.

        Raises: DecodingError or SourceError if it can't be read.
        """
        image = self.data.images[i]
        pixels = self._pixels(i)
        factor = np.array(
            [pixels.shape[1] / image.width, pixels.shape[0] / image.height] * 2, np.float32
        )
        weights = np.where(image.crowd, IGNORED, 1.0).astype(np.float32)
        if not self.keep_difficult:
            weights[image.difficult] = IGNORED
        return Truth(pixels, image.boxes * factor, image.labels.astype(np.int64), weights)

    def _pixels(self, i: int) -> Pixels:
        if (i + 1) * self.long_side**2 * 3 > self.max_bytes:
            return self._decoded(i)
        path = self.folder / f"{i}.npy"
        try:
            kept: Pixels = np.load(path)
            return kept
        except (OSError, ValueError):
            pixels = self._decoded(i)
        self._keep(path, pixels)
        return pixels

    def _decoded(self, i: int) -> Pixels:
        pixels = decode(self.data.read(i), min_long_side=self.long_side).pixels
        height, width = pixels.shape[:2]
        scale = self.long_side / max(height, width)
        if scale >= 1:
            return pixels
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)

    def _keep(self, path: Path, pixels: Pixels) -> None:
        """Writes a picture so that nobody reads half of it; a full disk is no error."""
        part = path.with_name(f"{path.stem}.{os.getpid()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                np.save(file, pixels)
            os.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)


UNREADABLE = (DecodingError, SourceError)
"""What makes a picture a bad one, and training goes on without it."""
