"""Near copies: how long they take to find, how many are found, and how long hashes take to make."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import measuring
import numpy as np
import tables
from numpy.typing import NDArray

from vistadex.decoding import content_hash, decode, encode_jpeg, perceptual_hash
from vistadex.duplicates import hamming, near_groups
from vistadex.errors import DecodingError
from vistadex.records import Pixels

COPIES = 0.1
"""Share of the hashes that are those of others with some bits flipped."""
FLIPS = 4
CALLS = 300
AGREEMENT_DISTANCES = (2, 4, 6, 8, 10, 12)


def random_hashes(number: int, rng: np.random.Generator) -> NDArray[np.uint64]:
    """Hashes of which some are near to others."""
    made = rng.integers(0, 2**64, number, dtype=np.uint64)
    copies = made[rng.integers(0, number, int(number * COPIES))]
    for _ in range(FLIPS):
        bit = np.uint64(1) << rng.integers(0, 64, len(copies), dtype=np.uint64)
        copies ^= np.where(rng.random(len(copies)) < 0.5, bit, np.uint64(0))
    made[rng.permutation(number)[: len(copies)]] = copies
    return made


def scenes(number: int) -> dict[str, NDArray[np.uint64]]:
    """Hashes by what is difficult about them."""
    rng = np.random.default_rng(0)
    plain = random_hashes(number, rng)
    crowd = number // 10
    same, ball, shared = plain.copy(), plain.copy(), plain.copy()
    same[:crowd] = 7
    ball[:crowd] = 7
    for _ in range(3):
        ball[:crowd] ^= np.uint64(1) << rng.integers(0, 64, crowd, dtype=np.uint64)
    shared[:crowd] &= np.uint64((1 << 40) - 1)
    return {
        "random, a tenth near to others": plain,
        "a tenth equal": same,
        "a tenth within 3 bits of one hash": ball,
        "a tenth with the same 24 bits": shared,
    }


def grouped(hashes: NDArray[np.uint64], distance: int) -> dict[str, float]:
    """Seconds, and how many hashes were near to an earlier one."""
    started = time.perf_counter()
    groups = near_groups(hashes, distance)
    return {
        "seconds": time.perf_counter() - started,
        "copies": float(len(groups) - len(np.unique(groups))),
    }


def milliseconds(function: Any, argument: Any) -> float:
    """The least that a call takes."""
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        function(argument)
        times.append(time.perf_counter() - started)
    return min(times) * 1e3


def hashing(data: bytes, max_side: int) -> dict[str, float]:
    """Milliseconds for one picture: its bytes, its pixels, and decoding them for comparison."""
    pixels = cv2.resize(decode(data).pixels, (max_side, max_side * 3 // 4))
    return {
        "decode": milliseconds(decode, data),
        "content hash": milliseconds(content_hash, data),
        f"perceptual hash at {max_side} x {max_side * 3 // 4}": milliseconds(
            perceptual_hash, pixels
        ),
    }


def variants(data: bytes) -> dict[str, Pixels]:
    """Copies of a picture as they are met."""
    pixels = decode(data).pixels
    height, width = pixels.shape[:2]

    def cropped(share: float) -> Pixels:
        y, x = round(height * share), round(width * share)
        return np.ascontiguousarray(pixels[y : height - y, x : width - x])

    marked = pixels.copy()
    place = (width // 20, height - height // 20)
    cv2.putText(marked, "(c) 2020 photo", place, 0, width / 600, (255, 255, 255), 2)
    brighter: Pixels = np.clip(pixels.astype(np.int16) + 25, 0, 255).astype(np.uint8)
    halved: Pixels = cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return {
        "decoded at 1/2": decode(data, min_long_side=max(width, height) // 2).pixels,
        "decoded at 1/4": decode(data, min_long_side=max(width, height) // 4).pixels,
        "JPEG quality 60": decode(encode_jpeg(pixels, quality=60)).pixels,
        "JPEG quality 30": decode(encode_jpeg(pixels, quality=30)).pixels,
        "half the size": decode(encode_jpeg(halved)).pixels,
        "brighter by 25": brighter,
        "mark in a corner": marked,
        "1 % cut off each side": cropped(0.01),
        "2.5 % cut off each side": cropped(0.025),
        "5 % cut off each side": cropped(0.05),
    }


@dataclass
class Pictures:
    """Perceptual hashes of real photographs and of copies of every eighth of them."""

    hashes: list[int] = field(default_factory=list)
    of: list[int] = field(default_factory=list)
    """Which photograph each is, or is a copy of."""
    kinds: list[str] = field(default_factory=list)
    """What was done to it; "" for the photograph itself."""

    def add(self, pixels: Pixels, number: int, kind: str) -> None:
        looks = perceptual_hash(pixels)
        if looks is not None:
            self.hashes.append(looks)
            self.of.append(number)
            self.kinds.append(kind)


def real_pictures(paths: Sequence[Path]) -> Pictures:
    """Hashes of pictures, and of copies of every eighth."""
    found = Pictures()
    for number, path in enumerate(paths):
        data = path.read_bytes()
        try:
            found.add(decode(data).pixels, number, "")
        except DecodingError:
            continue
        if number % 8 == 0:
            for kind, pixels in variants(data).items():
                found.add(pixels, number, kind)
    return found


def agreement(found: Pictures, distances: Sequence[int]) -> dict[str, dict[str, float]]:
    """By distance: the share of copies that are near to their own picture, of each kind; how many
    of all are in its group, and how many groups of different pictures became one."""
    hashes = np.array(found.hashes, np.int64).view(np.uint64)
    of, kinds = np.array(found.of), np.array(found.kinds)
    whole = {number: hashes[i] for i, number in enumerate(found.of) if not found.kinds[i]}
    apart = hamming(hashes, np.array([whole.get(number, 0) for number in found.of], np.uint64))
    results = {}
    for distance in distances:
        groups = near_groups(hashes, distance)
        pairs = len({(int(a), int(b)) for a, b in zip(groups, of, strict=True)})
        joined = pairs - len(np.unique(groups))
        right = len(hashes) - pairs
        shares = {
            kind: float((apart[kinds == kind] <= distance).mean())
            for kind in dict.fromkeys(found.kinds)
            if kind
        }
        results[str(distance)] = {
            **shares,
            "recall of groups": right / max(1, int((kinds != "").sum())),
            "precision of groups": right / max(1, right + joined),
            "wrong joins": float(joined),
        }
    return results


def main() -> None:
    """Prints all tables."""
    parser = measuring.parser(__doc__)
    parser.add_argument("--number", type=int, default=1_000_000, help="hashes")
    parser.add_argument("--distances", type=int, nargs="+", default=[2, 4, 6, 8])
    parser.add_argument("--pictures", type=int, help="real pictures at most; all if not given")
    options = parser.parse_args()
    here = measuring.machine()
    found: dict[str, Any] = {}
    for name, hashes in scenes(options.number).items():
        for distance in options.distances:
            found[f"{name}; distance {distance}"] = grouped(hashes, distance)
            measuring.note(f"{name}; distance {distance}: done")
    rows = [[name, one["seconds"], int(one["copies"])] for name, one in found.items()]
    tables.show(f"{options.number:,} hashes", ["", "seconds", "near to an earlier one"], rows)
    folders = (measuring.SHARED_DATA / "imagenette", measuring.SHARED_DATA / "coco/images")
    paths = [path for folder in folders for path in sorted(folder.rglob("*.[jJ]*[gG]"))]
    pictures = real_pictures(paths[: options.pictures])
    shares = agreement(pictures, AGREEMENT_DISTANCES)
    rows = [[kind, *(one[kind] for one in shares.values())] for kind in next(iter(shares.values()))]
    title = f"{len(pictures.hashes):,} pictures, {sum(map(bool, pictures.kinds)):,} of them copies"
    tables.show(f"{title}: found at distance", ["", *shares], rows)
    picture = sorted((measuring.SHARED_DATA / "coco/images/val").glob("*.jpg"))[0]
    times = hashing(Path(picture).read_bytes(), 640)
    tables.show("One picture", ["", "ms"], [list(one) for one in times.items()])
    measuring.write_json(options, here, {"groups": found, "agreement": shares, "picture_ms": times})


if __name__ == "__main__":
    main()
