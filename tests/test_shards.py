"""The pipeline's outcomes carry hashes of what was read, whatever came of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from vistadex.decoding import content_hash, decode, perceptual_hash
from vistadex.records import ImageEntry, Outcome
from vistadex.shards import Limits, Shard, process_shard
from vistadex.testing import MemorySource, RedSquareDetector, scene_jpeg

SCENE = [("red square", 20, 30, 40), ("blue square", 100, 60, 25)]


def outcomes(
    files: dict[str, bytes], detector: RedSquareDetector | None = None, *missing: str
) -> dict[str, Outcome]:
    """What a shard of all files gives, and of files that are not there."""
    MemorySource.create("shards", files)
    entries = tuple(ImageEntry(key, None, "1") for key in [*files, *missing])
    limits = Limits(
        max_pixels=10**8, max_file_bytes=1 << 30, read_ahead_bytes=1 << 24, allow_truncated=True
    )
    shard = Shard("memory://shards", entries, (detector or RedSquareDetector(),), limits)
    return {one.entry.key: one for one in process_shard(shard)}


def test_a_decoded_image_has_both_hashes() -> None:
    data = scene_jpeg(SCENE)
    found = outcomes({"a.jpg": data})["a.jpg"]
    assert found.content_hash == content_hash(data)
    assert found.perceptual_hash == perceptual_hash(decode(data).pixels) is not None


def test_bytes_that_are_no_picture_have_a_content_hash() -> None:
    found = outcomes({"a.jpg": b"\xff\xd8\xffnothing"}, None, "gone.jpg")
    assert found["a.jpg"].failure is not None
    assert found["a.jpg"].content_hash == content_hash(b"\xff\xd8\xffnothing")
    assert found["a.jpg"].perceptual_hash is None
    assert found["gone.jpg"].failure is not None
    assert found["gone.jpg"].content_hash is None


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_image_that_breaks_the_model_keeps_its_hashes(batch_size: int) -> None:
    files = {"a.jpg": scene_jpeg(SCENE), "b.jpg": scene_jpeg(SCENE, (200, 150))}
    detector = RedSquareDetector(fail_on_width=200, batch_size=batch_size)
    found = outcomes(files, detector)
    assert found["a.jpg"].failure is None
    broken = found["b.jpg"]
    assert broken.failure is not None
    assert (broken.failure.reason, broken.width, broken.results) == ("internal", 0, ())
    assert broken.content_hash == content_hash(files["b.jpg"])
    assert broken.perceptual_hash == perceptual_hash(decode(files["b.jpg"]).pixels)


def test_a_broken_picture_has_no_looks() -> None:
    data = scene_jpeg(SCENE, (640, 480))
    found = outcomes({"a.jpg": data[: len(data) // 2]})["a.jpg"]
    assert found.failure is None
    assert found.warning
    assert found.content_hash is not None
    assert found.perceptual_hash is None


def test_the_hash_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    pixels = decode(scene_jpeg(SCENE)).pixels
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter, clockwise
    stored = Image.fromarray(np.rot90(pixels).copy())
    stored.save(tmp_path / "turned.png", exif=exif)
    cv2.imwrite(str(tmp_path / "plain.png"), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    files = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    found = outcomes(files)
    assert found["turned.png"].perceptual_hash == found["plain.png"].perceptual_hash is not None
    assert found["turned.png"].content_hash != found["plain.png"].content_hash
