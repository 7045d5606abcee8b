"""Pictures that break off: refused, or their readable part with a word on what is missing."""

from __future__ import annotations

import random
import re
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from starlette.testclient import TestClient
from typer.testing import CliRunner

import vistadex
from tests.test_decoding import drawing, noisy, outcome_of, quiet, reason_of, saved
from tests.test_decoding_outcomes import exif, heic, interlaced_png
from vistadex.catalog import Catalog
from vistadex.cli import app
from vistadex.decoding import decode
from vistadex.decoding.orientation import upright
from vistadex.errors import DecodingError
from vistadex.jsonable import image as as_json
from vistadex.records import FAILURE_REASONS, DecodedImage
from vistadex.testing import RedSquareDetector, scene_jpeg
from vistadex.web import create_app

GREY = (128, 128, 128)
SIZE = (96, 80)


def gradient(mode: str = "RGB", seed: int = 3) -> Image.Image:
    """A picture of which no two rows are alike, without mid-grey."""
    rng = np.random.default_rng(seed)
    columns, rows = SIZE
    pixels = np.empty((rows, columns, 3), np.uint8)
    pixels[..., 0] = np.linspace(30, 120, rows)[:, None] + rng.integers(0, 20, (rows, columns))
    pixels[..., 1] = np.linspace(200, 250, columns)[None, :]
    pixels[..., 2] = rng.integers(0, 60, (rows, columns))
    return Image.fromarray(pixels).convert(mode)


def early_tiff(compression: int, orientation: int = 1) -> bytes:
    """A TIFF in strips of 8 rows whose directory comes first, deflated (8) or not (1)."""
    rows, columns = SIZE[1], SIZE[0]
    pixels = np.array(gradient())
    strips = [pixels[y : y + 8].tobytes() for y in range(0, rows, 8)]
    strips = [zlib.compress(strip) for strip in strips] if compression == 8 else strips
    n = len(strips)
    head = 8 + 2 + 11 * 12 + 4
    start = head + 6 + 8 * n
    offsets = [start + sum(map(len, strips[:i])) for i in range(n)]
    lines = [
        (256, 3, 1, columns),
        (257, 3, 1, rows),
        (258, 3, 3, head),
        (259, 3, 1, compression),
        (262, 3, 1, 2),
        (273, 4, n, head + 6),
        (274, 3, 1, orientation),
        (277, 3, 1, 3),
        (278, 3, 1, 8),
        (279, 4, n, head + 6 + 4 * n),
        (284, 3, 1, 1),
    ]
    directory = b"".join(struct.pack("<HHII", *line) for line in lines)
    values = struct.pack("<3H", 8, 8, 8) + struct.pack(f"<{2 * n}I", *offsets, *map(len, strips))
    return b"II*\0\x08\0\0\0\x0b\0" + directory + bytes(4) + values + b"".join(strips)


PARTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG": (lambda: saved(gradient(), "JPEG", quality=95), "rows from"),
    "grey JPEG": (lambda: saved(gradient("L"), "JPEG", quality=95), "rows from"),
    "CMYK JPEG": (lambda: saved(gradient("CMYK"), "JPEG", quality=95), "rows from"),
    "PNG": (lambda: saved(gradient(), "PNG"), "rows from"),
    "palette PNG": (lambda: saved(gradient().quantize(200), "PNG"), "rows from"),
    "RGBA PNG": (lambda: saved(gradient("RGBA"), "PNG"), "rows from"),
    "GIF": (lambda: saved(gradient("P"), "GIF", interlace=0), "rows from"),
    "transparent GIF": (
        lambda: saved(gradient("P"), "GIF", interlace=0, transparency=255),
        "rows from",
    ),
    "interlaced GIF": (lambda: saved(gradient("P"), "GIF"), "% of its pixels"),
    "BMP": (lambda: saved(gradient(), "BMP"), "rows up to"),
    "PPM": (lambda: saved(gradient(), "PPM"), "rows from"),
    "TIFF": (lambda: early_tiff(1), "rows from"),
    "deflated TIFF": (lambda: early_tiff(8), "rows from"),
    "WebP": (lambda: saved(gradient(), "WEBP", quality=95), "rows from"),
    "lossless WebP": (lambda: saved(gradient(), "WEBP", lossless=True), "rows from"),
    "WebP with alpha": (lambda: saved(gradient("RGBA"), "WEBP", exact=True), "rows from"),
}
"""Makers, and how their damage is told when the second half of the file is missing."""


@quiet
@pytest.mark.parametrize("kind", PARTS)
def test_the_readable_half_of_each_kind_is_right_and_the_rest_is_grey(kind: str) -> None:
    make, words = PARTS[kind]
    data = make()
    half = data[: len(data) * 6 // 10]
    assert reason_of(half) == "truncated"
    image, whole = decode(half, allow_truncated=True), decode(data)
    assert (image.width, image.height) == (whole.width, whole.height)
    assert re.search("breaks off before its end; .*" + words, image.damage)
    missing = (image.pixels == GREY).all(axis=2)
    assert 0.1 < missing.mean() < 0.8
    away = np.abs(image.pixels.astype(int) - whole.pixels).max(axis=2)[~missing]
    assert np.mean(away > 40) < 0.06  # lossy codecs smooth across the border


@quiet
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM", "JPEG"])
def test_the_rows_that_are_told_are_the_rows_that_are_missing(kind: str) -> None:
    data = PARTS[kind][0]()
    for tenth in (4, 6, 8):
        image = decode(data[: len(data) * tenth // 10], allow_truncated=True)
        rows = (image.pixels == GREY).all(axis=(1, 2))
        told = int(re.findall(r"about (\d+) of 80", image.damage)[0])
        whole = rows[told + 1 :] if "from" in image.damage else rows[: told - 1]
        assert whole.all()
        assert abs(whole.size - rows.sum()) <= 2


@quiet
@pytest.mark.parametrize("kind", PARTS)
def test_more_bytes_never_give_less(kind: str) -> None:
    data = PARTS[kind][0]()
    left = 1.0
    for part in range(10, 100, 10):
        try:
            image = decode(data[: len(data) * part // 100], allow_truncated=True)
        except DecodingError as error:
            image, reason = None, error.reason
            assert reason in ("truncated", "not_an_image") or kind == "deflated TIFF"
        missing = 1.0 if image is None else float((image.pixels == GREY).all(axis=2).mean())
        assert missing <= left + 0.01
        left = missing


def test_the_part_of_an_interlaced_png_is_told_by_its_share() -> None:
    data, whole = interlaced_png(np.array(gradient())), np.array(gradient())
    assert np.array_equal(decode(data).pixels, whole)
    image = decode(data[: len(data) // 2], allow_truncated=True)
    missing = (image.pixels == GREY).all(axis=2)
    assert re.search(f"about {round(100 * missing.mean())} % of its pixels", image.damage)
    assert np.array_equal(image.pixels[~missing], whole[~missing])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "deflated TIFF"])
def test_a_part_is_turned_upright_too(kind: str, orientation: int) -> None:
    plain, turned = (
        {
            "JPEG": lambda o: saved(gradient(), "JPEG", exif=exif(o), quality=95),
            "PNG": lambda o: saved(gradient(), "PNG", exif=exif(o)),
            "TIFF": lambda o: early_tiff(1, o),
            "deflated TIFF": lambda o: early_tiff(8, o),
        }[kind](number)
        for number in (1, orientation)
    )
    lost = len(plain) * 3 // 10
    expected = upright(decode(plain[:-lost], allow_truncated=True).pixels, orientation)
    image = decode(turned[:-lost], allow_truncated=True)
    assert np.array_equal(image.pixels, expected)
    assert ("columns" if orientation >= 5 else "rows") in image.damage


def test_a_progressive_jpeg_without_its_last_scans_lacks_detail_and_no_rows() -> None:
    data = saved(gradient(), "JPEG", progressive=True, quality=95)
    image, whole = decode(data[: len(data) * 7 // 10], allow_truncated=True), decode(data)
    assert re.search(r"only \d+ of its scans are whole: detail and color", image.damage)
    assert np.abs(image.pixels.astype(int) - whole.pixels).mean() < 20
    assert not (image.pixels == GREY).all(axis=2).any()


def test_a_progressive_jpeg_that_breaks_off_in_its_first_scan_lacks_rows() -> None:
    data = saved(noisy(160), "JPEG", progressive=True, quality=60)
    scans = [found.start() for found in re.finditer(b"\xff\xda", data)]
    image = decode(data[: (scans[0] * 3 + scans[1] * 2) // 5], allow_truncated=True)
    assert re.search(r"rows from about \d+ of 160", image.damage)


def test_a_jpeg_that_lacks_only_its_end_marker_lacks_next_to_nothing() -> None:
    data = saved(gradient(), "JPEG", quality=95)
    image = decode(data[:-2], allow_truncated=True)
    missing = (image.pixels == GREY).all(axis=2).mean()
    assert missing < 0.25
    assert image.damage


def test_the_first_frame_of_a_broken_animation_is_whole() -> None:
    other = noisy(96).crop((0, 0, 96, 64))
    for format, options in [("WEBP", {"lossless": True}), ("GIF", {}), ("PNG", {})]:
        data = saved(drawing(), format, save_all=True, append_images=[other], **options)
        image = decode(data[: len(data) - 40], allow_truncated=True)
        assert np.array_equal(image.pixels, decode(data).pixels)
        assert image.damage in ("", "WebP: breaks off before its end; no pixels are missing")


@quiet
@pytest.mark.parametrize("kind", [*PARTS, "AVIF", "HEIC"])
def test_a_header_alone_is_still_truncated(kind: str) -> None:
    makers = {name: make for name, (make, _) in PARTS.items()}
    makers |= {"AVIF": lambda: saved(gradient(), "AVIF"), "HEIC": lambda: heic(gradient())}
    data = makers[kind]()
    for length in (12, 20, 30):
        with pytest.raises(DecodingError) as caught:
            decode(data[:length], allow_truncated=True)
        assert caught.value.reason in ("truncated", "corrupt", "not_an_image")


@quiet
def test_avif_and_heic_are_read_whole_or_not_at_all() -> None:
    for data in (saved(gradient(), "AVIF"), heic(gradient())):
        assert reason_of(data[:-200], allow_truncated=True) == "truncated"


def test_other_faults_stay_faults() -> None:
    for data, reason in [
        (b"", "empty"),
        (b"text", "not_an_image"),
        (saved(gradient(), "PNG")[:60] + bytes(500) + b"IEND" + bytes(4), "corrupt"),
    ]:
        assert reason_of(data, allow_truncated=True) == reason


def test_size_limits_hold_for_parts() -> None:
    for kind in ("JPEG", "PNG", "WebP", "GIF"):
        data = PARTS[kind][0]()
        half = data[: len(data) // 2]
        assert reason_of(half, allow_truncated=True, max_pixels=96 * 80 - 1) == "too_large"
        assert decode(half, allow_truncated=True, max_pixels=96 * 80).damage


def test_a_whole_picture_has_no_damage() -> None:
    for make, _ in PARTS.values():
        data = make()
        image = decode(data, allow_truncated=True)
        assert image.damage == ""
        assert np.array_equal(image.pixels, decode(data).pixels)


def test_nothing_global_is_switched_while_a_part_is_read() -> None:
    data = PARTS["PNG"][0]()
    half, seen = data[: len(data) // 2], set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add((ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS))

    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    thread = threading.Thread(target=watch)
    thread.start()
    for _ in range(20):
        decode(half, allow_truncated=True)
    done.set()
    thread.join()
    assert seen == {before}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(PARTS)), st.floats(0, 1), st.randoms(use_true_random=False))
@quiet
def test_a_part_with_flipped_bytes_gives_an_image_or_a_reason(
    kind: str, share: float, chance: random.Random
) -> None:
    data = bytearray(WHOLE[kind])
    for _ in range(3):
        data[chance.randrange(len(data))] = chance.randrange(256)
    half = bytes(data[: round(len(data) * share)])
    outcome = outcome_of(half, allow_truncated=True)
    assert isinstance(outcome, DecodedImage) or outcome in FAILURE_REASONS


WHOLE = {kind: make() for kind, (make, _) in PARTS.items()}


# the whole way


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(str(tmp_path / "catalog.db"), create=True) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole scene, and one whose red square lies in the rows that are left."""
    place = tmp_path / "photos"
    place.mkdir()
    data = scene_jpeg([("red square", 10, 8, 40)])
    (place / "whole.jpg").write_bytes(data)
    (place / "part.jpg").write_bytes(data[: len(data) * 8 // 10])
    (place / "head.jpg").write_bytes(data[:100])
    return place


def test_a_part_is_indexed_with_a_warning_when_asked_for(catalog: Catalog, folder: Path) -> None:
    def run(*, allow_truncated: bool = False) -> tuple[int, int, dict[str, int]]:
        summary = vistadex.index(
            folder, detector=RedSquareDetector(), catalog=catalog, allow_truncated=allow_truncated
        )
        return summary.indexed, summary.unchanged, dict(summary.failures)

    part = str(folder / "part.jpg")
    assert run() == (1, 0, {"truncated": 2})
    assert catalog.image(part).reason == "truncated"
    assert run() == (0, 3, {})
    assert run(allow_truncated=True) == (1, 1, {"truncated": 1})
    known = catalog.image(part)
    assert (known.status, known.reason) == ("ok", None)
    assert "rows from about" in (known.warning or "")
    assert [box.class_name for box in known.boxes] == ["red square"]
    assert as_json(known)["warning"] == known.warning
    assert catalog.image(str(folder / "whole.jpg")).warning is None
    assert run(allow_truncated=True)[:2] == (0, 2)
    assert run() == (0, 3, {})


def test_show_draws_a_part_and_prints_the_warning(
    catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    vistadex.index(folder, detector=RedSquareDetector(), catalog=catalog, allow_truncated=True)
    drawn = tmp_path / "drawn.jpg"
    database = str(tmp_path / "catalog.db")
    command = ["show", str(folder / "part.jpg"), "-o", str(drawn), "--catalog", database]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "breaks off before its end; rows from about" in result.stdout
    assert decode(drawn.read_bytes()).width == 160


def test_the_page_and_the_thumbnail_of_a_part_are_there(
    catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    vistadex.index(folder, detector=RedSquareDetector(), catalog=catalog, allow_truncated=True)
    part = catalog.image(str(folder / "part.jpg"))
    with TestClient(create_app(catalog, tmp_path / "cache"), "http://127.0.0.1:8765") as client:
        assert "breaks off before its end" in client.get(f"/image/{part.id}").text
        thumbnail = client.get(f"/thumbnail/{part.id}")
        assert thumbnail.status_code == 200
        assert decode(thumbnail.content).width == 160


def test_the_option_reaches_the_pipeline(folder: Path, tmp_path: Path) -> None:
    assert asdict(
        vistadex.index(
            folder,
            detector=RedSquareDetector(),
            catalog=str(tmp_path / "other.db"),
            allow_truncated=True,
        )
    )["failures"] == {"truncated": 1}
