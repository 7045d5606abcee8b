"""Small files that ask for much: what they may cost."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.test_decoding import drawing, reason_of, saved
from tests.test_decoding_truncated import early_tiff
from vistadex.decoding import decode, headers, read_size
from vistadex.decoding.orientation import tiff_fields
from vistadex.errors import DecodingError

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
MEBIBYTE = 1 << 20
CHILD = """
import re, sys
from pathlib import Path
from vistadex.decoding import decode
from vistadex.errors import DecodingError
import vistadex.decoding.salvage
import PIL.PngImagePlugin, PIL.WebPImagePlugin
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
data = sys.stdin.buffer.read()
before = peak()
try:
    print(decode(data, allow_truncated=True).damage or "whole")
except DecodingError as error:
    print(f"{error.reason}: {error}")
print(peak() - before)
"""


def outcome_and_memory(data: bytes) -> tuple[str, int]:
    """What a process of its own says of decoding a picture, and the bytes that it took for it."""
    run = subprocess.run([sys.executable, "-c", CHILD], input=data, capture_output=True, check=True)
    said, taken = run.stdout.decode().splitlines()
    return said, int(taken)


def png_of_few_bytes(width: int, height: int) -> bytes:
    """The first 541 bytes of a transparent black picture."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    pixels = zlib.compress(bytes(MEBIBYTE))
    start = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return (b"\x89PNG\r\n\x1a\n" + start + struct.pack(">I4s", len(pixels), b"IDAT") + pixels)[:541]


@needs_proc
@pytest.mark.parametrize(
    ("side", "words"),
    [(14_000, "a part is read of at most 50 million pixels"), (7000, "can't fill 1% of its rows")],
)
def test_no_memory_is_taken_for_the_part_of_a_picture_of_few_bytes(side: int, words: str) -> None:
    said, taken = outcome_and_memory(png_of_few_bytes(side, side))
    assert said.startswith("truncated: PNG: breaks off before its end")
    assert words in said
    assert taken < 24 * MEBIBYTE


@pytest.mark.parametrize("format", ["BMP", "PPM", "PNG"])
def test_a_part_of_less_than_a_hundredth_is_truncated(format: str) -> None:
    noise = Image.fromarray(np.random.default_rng(5).integers(0, 256, (400, 300, 3), np.uint8))
    data = saved(noise, format)
    few = len(data) // 120 if format != "PNG" else 54
    header = data[:few] if format != "PNG" else png_of_few_bytes(5000, 5000)[:few]
    with pytest.raises(DecodingError, match="can't fill 1% of its rows") as caught:
        decode(header, allow_truncated=True)
    assert caught.value.reason == "truncated"
    assert "rows" in decode(data[: len(data) // 20], allow_truncated=True).damage


@needs_proc
@pytest.mark.parametrize(("format", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGB")])
def test_half_a_picture_takes_about_twice_the_memory_of_the_whole_one(
    format: str, mode: str
) -> None:
    blocks = np.random.default_rng(6).integers(0, 256, (375, 500, 3), np.uint8)
    picture = Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8))).convert(mode)
    options = {"compress_level": 1} if format == "PNG" else {"method": 0}
    data = saved(picture, format, **options)
    whole, for_whole = outcome_and_memory(data)
    half, for_half = outcome_and_memory(data[: len(data) // 2])
    assert whole == "whole"
    assert "are missing" in half
    assert for_half < 2.3 * for_whole


def test_a_part_that_is_read_in_bands_is_the_same_as_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture = drawing()
    for format, mode in [("PNG", "RGBA"), ("PNG", "P"), ("GIF", "P"), ("JPEG", "CMYK")]:
        data = saved(picture.convert(mode), format)
        half = data[: len(data) * 3 // 5]
        monkeypatch.setattr("vistadex.decoding.by_pillow.BAND_PIXELS", 1 << 20)
        at_once = decode(half, allow_truncated=True)
        monkeypatch.setattr("vistadex.decoding.by_pillow.BAND_PIXELS", 7 * 96)
        in_bands = decode(half, allow_truncated=True)
        assert np.array_equal(at_once.pixels, in_bands.pixels)
        assert at_once.damage == in_bands.damage != ""


def tiff_directory(*lines: tuple[int, int, int, int]) -> bytes:
    entries = b"".join(struct.pack("<HHII", *line) for line in lines)
    return b"II*\0" + struct.pack("<IH", 8, len(lines)) + entries + bytes(4)


def test_of_a_tag_that_is_repeated_the_first_counts() -> None:
    data = tiff_directory((256, 4, 1, 30), (257, 4, 1, 20), (274, 3, 1, 6), (274, 3, 1, 3))
    data = data + tiff_directory()
    assert read_size(data).orientation == 6
    many = tiff_directory((256, 4, 1, 30), *[(273, 4, 20_000, 0)] * 5000)
    assert set(tiff_fields(many, {256, 273})) == {256, 273}


def test_a_tiff_with_more_strips_or_tiles_than_it_can_have_is_corrupt() -> None:
    sides = ((256, 4, 1, 30), (257, 4, 1, 20), (277, 3, 1, 3))
    for tag, number, kind in [(273, 61, "strips"), (279, 61, "strips"), (324, 25, "tiles")]:
        data = tiff_directory(*sides, (322, 3, 1, 16), (323, 3, 1, 8), (tag, 4, number, 0))
        with pytest.raises(
            DecodingError, match=f"states {number} {kind}, expected at most"
        ) as caught:
            decode(data + bytes(4 * number))
        assert caught.value.reason == "corrupt"
        data = tiff_directory(*sides, (322, 3, 1, 16), (323, 3, 1, 8), (tag, 4, number // 5, 0))
        assert read_size(data + bytes(4 * number)).width == 30
    assert decode(early_tiff(1)).width == 96


def png_with_texts(*texts: bytes) -> bytes:
    """A picture with compressed XMP packets before its pixels."""
    chunks = b""
    for text in texts:
        body = b"iTXtXML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(text, 9)
        chunks += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = saved(drawing(), "PNG")
    return data[:33] + chunks + data[33:]


def test_the_texts_of_a_png_are_inflated_up_to_a_total(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counted(packet: bytes) -> int:
        seen.append(len(packet))
        return 0

    monkeypatch.setattr(headers, "xmp_orientation", counted)
    headers.read_png(png_with_texts(*[b" " * MEBIBYTE] * 40))
    assert sum(seen) == 4 * MEBIBYTE


def test_an_orientation_among_many_texts_of_a_png_counts() -> None:
    stated = b'<x:xmpmeta tiff:Orientation="6"/>'
    assert headers.read_png(png_with_texts(b" ", b"none", stated)).orientation == 6
    assert headers.read_png(png_with_texts(*[b" " * MEBIBYTE] * 3, stated)).orientation == 6


@pytest.mark.parametrize("packet", [b"II*\0", b""])
def test_a_tiff_without_sides_is_corrupt(packet: bytes) -> None:
    assert reason_of(tiff_directory((274, 3, 1, 6)) + packet) == "corrupt"
