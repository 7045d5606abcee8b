"""Hashes of bytes and looks: what changes them, what does not, and what has none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from vistadex.decoding import content_hash, decode, encode_jpeg, perceptual_hash
from vistadex.records import Pixels


def distance(a: int | None, b: int | None) -> int:
    assert a is not None
    assert b is not None
    return ((a ^ b) & (1 << 64) - 1).bit_count()


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    made: Pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return made


@pytest.fixture(scope="module")
def photographs(shared_data: Path) -> list[bytes]:
    files = sorted((shared_data / "coco/images/val").glob("*.jpg"))
    return [path.read_bytes() for path in files[::4]]


def test_content_hash_is_blake2b_of_sixteen_bytes() -> None:
    assert content_hash(b"abc") == hashlib.blake2b(b"abc", digest_size=16).digest()
    assert content_hash(b"") != content_hash(b"\0")


def test_perceptual_hash_fits_a_signed_column(photographs: list[bytes]) -> None:
    found = [perceptual_hash(decode(data).pixels) for data in photographs]
    assert all(one is not None and -(2**63) <= one < 2**63 for one in found)
    assert min(one or 0 for one in found) < 0 < max(one or 0 for one in found)


def test_scaled_decoding_changes_few_bits(photographs: list[bytes]) -> None:
    for side, most, mean in ((256, 6, 1.0), (128, 10, 1.5)):
        found = []
        for data in photographs:
            whole, part = decode(data), decode(data, min_long_side=side // 2)
            assert part.pixels.shape[1] < whole.pixels.shape[1]
            found.append(distance(perceptual_hash(whole.pixels), perceptual_hash(part.pixels)))
        assert max(found) <= most
        assert np.mean(found) <= mean


def test_quality_and_size_change_few_bits(photographs: list[bytes]) -> None:
    again, smaller = [], []
    for data in photographs:
        pixels = decode(data).pixels
        height, width = pixels.shape[:2]
        own = perceptual_hash(pixels)
        coarse = decode(encode_jpeg(pixels, quality=60)).pixels
        again.append(distance(own, perceptual_hash(coarse)))
        half = perceptual_hash(resized(pixels, width // 2, height // 2))
        smaller.append(distance(own, half))
    assert max(again) <= 4
    assert max(smaller) <= 4


def test_other_photographs_are_far(photographs: list[bytes]) -> None:
    found = [perceptual_hash(decode(data).pixels) for data in photographs]
    least = min(distance(a, b) for i, a in enumerate(found) for b in found[:i])
    assert least > 12


def test_a_mirrored_or_turned_picture_is_another(photographs: list[bytes]) -> None:
    pixels = decode(photographs[0]).pixels
    own = perceptual_hash(pixels)
    assert distance(own, perceptual_hash(pixels[:, ::-1])) > 20
    assert distance(own, perceptual_hash(np.rot90(pixels))) > 20


def test_a_large_picture_has_the_hash_of_a_small_one(photographs: list[bytes]) -> None:
    pixels = decode(photographs[1]).pixels
    height, width = pixels.shape[:2]
    large: Pixels = cv2.resize(pixels, (width * 5 + 3, height * 5 + 2))
    assert distance(perceptual_hash(pixels), perceptual_hash(large)) <= 2


def gradient(down: float, across: float) -> Pixels:
    grey = np.add.outer(np.linspace(0, down, 480), np.linspace(0, across, 640))
    return np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((480, 640, 3), 255, np.uint8),
        np.zeros((1, 1, 3), np.uint8),
        gradient(0, 250),
        gradient(120, 130),
        np.random.default_rng(0).normal(128, 10, (480, 640, 3)).astype(np.uint8),
    ],
    ids=["white", "one pixel", "gradient", "slanted gradient", "faint noise"],
)
def test_a_picture_without_structure_has_no_looks(pixels: Pixels) -> None:
    assert perceptual_hash(pixels) is None
    assert perceptual_hash(decode(encode_jpeg(pixels, quality=60)).pixels) is None


def test_a_few_words_on_a_white_page_have_looks() -> None:
    page = np.full((480, 640, 3), 255, np.uint8)
    other = page.copy()
    cv2.putText(page, "hello world", (50, 100), 0, 1, (0, 0, 0), 2)
    cv2.putText(other, "bill of sale", (300, 400), 0, 1, (0, 0, 0), 2)
    assert distance(perceptual_hash(page), perceptual_hash(other)) > 12
