"""Decoding: what becomes pixels, and what is wrong with bytes that do not."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw, ImageOps

from vistadex.decoding import decode, encode_jpeg, format_of, looks_like_image
from vistadex.decoding.by_pillow import pillow_takes
from vistadex.decoding.sizes import READERS
from vistadex.errors import DecodingError
from vistadex.records import FAILURE_REASONS, DecodedImage, Pixels

quiet = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def drawing(width: int = 96, height: int = 64, mode: str = "RGB") -> Image.Image:
    """A picture that no turn or mirror maps onto itself."""
    image = Image.new("RGB", (width, height), (40, 120, 200))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 3, height // 4), fill=(250, 30, 30))
    draw.ellipse((width // 2, height // 2, width - 1, height - 1), fill=(240, 240, 40))
    return image.convert(mode)


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pillow_pixels(data: bytes, scale: int = 1) -> Pixels:
    image = Image.open(io.BytesIO(data))
    if scale > 1:
        image.draft(image.mode, (image.width // scale or 1, image.height // scale or 1))
    return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def reason_of(data: bytes, **options: int) -> str:
    with pytest.raises(DecodingError) as caught:
        decode(data, **options)
    assert caught.value.reason in FAILURE_REASONS
    assert str(caught.value)
    return caught.value.reason


def noisy(size: int = 64, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8))


def test_the_deliberately_bad_file_is_no_image(shared_data: Path) -> None:
    data = (shared_data / "imagenette" / "bad_image.JPEG").read_bytes()
    assert reason_of(data) == "not_an_image"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_exif_orientation_is_applied_at_every_scale(orientation: int, scale: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(drawing(), "JPEG", exif=exif, quality=95)
    image = decode(data, min_long_side=96 // scale)
    turned = orientation >= 5
    assert (image.width, image.height) == ((64, 96) if turned else (96, 64))
    assert np.array_equal(image.pixels, pillow_pixels(data, scale))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_beyond_jpeg(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    upright = decode(saved(drawing(), format, exif=exif, **options))
    exif[0x0112] = orientation
    expected = decode(saved(drawing(), "JPEG", exif=exif, quality=100))
    assert (upright.width, upright.height) == (expected.width, expected.height)
    assert np.abs(upright.pixels.astype(int) - expected.pixels).mean() < 4


def test_an_exif_block_that_says_nonsense_turns_nothing() -> None:
    plain = saved(drawing(), "JPEG")
    for block in (b"", b"II*\0", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\xff\xff", b"junk" * 9):
        payload = b"Exif\0\0" + block
        segment = b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
        assert np.array_equal(decode(plain[:2] + segment + plain[2:]).pixels, decode(plain).pixels)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("scale", [1, 2, 8])
def test_jpeg_of_every_kind_equals_pillow(mode: str, progressive: bool, scale: int) -> None:
    data = saved(drawing(mode=mode), "JPEG", progressive=progressive)
    image = decode(data, min_long_side=96 // scale)
    assert np.array_equal(image.pixels, pillow_pixels(data, scale))


INKS = {
    (0, 0, 0, 0): (255, 255, 255),
    (255, 0, 0, 0): (0, 255, 255),
    (0, 255, 0, 0): (255, 0, 255),
    (0, 0, 255, 0): (255, 255, 0),
    (0, 0, 0, 255): (0, 0, 0),
    (51, 204, 0, 0): (204, 51, 255),
    (102, 0, 51, 51): (122, 204, 163),
}
"""Inks and the color of white paper under them."""


def without_adobes_marker(data: bytes) -> bytes:
    at = data.index(b"Adobe") - 4
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


@pytest.mark.parametrize("inks", INKS)
@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("scale", [1, 8])
def test_inks_are_inverted_in_a_jpeg_with_adobes_marker_alone(
    inks: tuple[int, int, int, int], marked: bool, scale: int
) -> None:
    picture = Image.new("CMYK", (64, 64), inks)
    # Pillow writes inks inverted and with the marker.
    data = saved(picture if marked else ImageChops.invert(picture), "JPEG", quality=100)
    data = data if marked else without_adobes_marker(data)
    pixels = decode(data, min_long_side=64 // scale).pixels
    assert np.abs(pixels.astype(int) - INKS[inks]).max() <= 2
    part = decode(data[:-2], allow_truncated=True)
    assert np.abs(part.pixels[0].astype(int) - INKS[inks]).max() <= 2


@pytest.mark.parametrize(
    ("size", "needs", "scale"),
    [
        ((4000, 3000), {"min_long_side": 416}, 8),
        ((4000, 3000), {"min_long_side": 501}, 4),
        ((4000, 3000), {"min_long_side": 400, "min_short_side": 376}, 4),
        ((4000, 3000), {"min_short_side": 375}, 8),
        ((640, 480), {"min_long_side": 416}, 1),
        ((640, 480), {"min_long_side": 320}, 2),
        ((640, 480), {}, 1),
        ((1, 5000), {"min_long_side": 500}, 8),
    ],
)
def test_a_jpeg_comes_at_the_smallest_scale_that_serves(
    size: tuple[int, int], needs: dict[str, int], scale: int
) -> None:
    image = decode(saved(Image.new("RGB", size), "JPEG"), **needs)
    assert (image.width, image.height) == size
    assert image.pixels.shape == (-(-size[1] // scale), -(-size[0] // scale), 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "PPM"])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (33, 17)])
def test_every_format_is_read_at_odd_sizes(format: str, size: tuple[int, int]) -> None:
    image = decode(saved(drawing(*size), format))
    assert (image.width, image.height) == size
    assert image.pixels.shape == (size[1], size[0], 3)
    assert image.pixels.dtype == np.uint8


def test_the_table_of_formats_and_the_signatures_agree() -> None:
    for name in set(READERS) - {"HEIC"}:
        assert format_of(saved(drawing(), name.upper())) == name
    assert format_of(saved(drawing(), "JPEG")) == "JPEG"


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(format: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    pixels = decode(saved(Image.fromarray(ramp), format)).pixels
    assert np.array_equal(pixels[0, :, 0], np.arange(256))


def test_float_and_32_bit_pixels_span_the_grey_scale() -> None:
    for values in (np.linspace(0, 1, 256), np.linspace(0, 65535, 256), np.linspace(-9e6, 9e6, 256)):
        data = saved(Image.fromarray(values.astype(np.float32)[None]), "TIFF")
        pixels = decode(data).pixels
        assert (pixels.min(), pixels.max()) == (0, 255)
    data = saved(Image.fromarray(np.linspace(0, 65535, 256).astype(np.int32)[None]), "TIFF")
    assert decode(data).pixels[0, 255, 0] == 255


def test_transparency_lies_over_white() -> None:
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    clear.putpixel((3, 3), (0, 0, 255, 255))
    for data in (saved(clear, "PNG"), saved(clear, "WEBP", lossless=True)):
        pixels = decode(data).pixels
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert pixels[3, 3].tolist() == [0, 0, 255]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 90, 90, 90])
    palette.putpixel((1, 0), 1)
    for data in (saved(palette, "PNG", transparency=1), saved(palette, "GIF", transparency=1)):
        assert decode(data).pixels[0].tolist() == [[10, 20, 30], [255, 255, 255]]
    grey = Image.new("LA", (2, 2), (0, 128))
    assert decode(saved(grey, "PNG")).pixels[0, 0].tolist() == [127, 127, 127]


def test_a_palette_and_one_bit_become_rgb() -> None:
    assert np.array_equal(
        decode(saved(drawing(mode="P"), "PNG")).pixels, drawing(mode="P").convert("RGB")
    )
    assert set(np.unique(decode(saved(drawing(mode="1"), "PNG")).pixels)) == {0, 255}


def test_the_first_frame_stands_for_an_animation() -> None:
    frames = [Image.new("RGB", (9, 9), color) for color in ("red", "blue")]
    for format in ("GIF", "WEBP", "PNG"):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:])
        red, _, blue = decode(data).pixels[4, 4].tolist()
        assert red > 240 > 20 > blue


def test_an_empty_file_is_empty() -> None:
    assert reason_of(b"") == "empty"


@pytest.mark.parametrize(
    "data", [b"x", b"<!DOCTYPE html>", b"%PDF-1.7", b"BM and some text, not a bitmap", b"PK\3\4"]
)
def test_other_files_are_no_images(data: bytes) -> None:
    assert not looks_like_image(data)
    assert reason_of(data) == "not_an_image"


def test_videos_are_told_from_avif_and_heic() -> None:
    def start(*brands: bytes) -> bytes:
        body = b"ftyp" + brands[0] + b"\0\0\0\0" + b"".join(brands[1:])
        return struct.pack(">I", len(body) + 4) + body

    assert format_of(start(b"isom", b"avc1", b"mp41")) is None
    assert format_of(start(b"mif1", b"heic")) == "HEIC"
    assert format_of(start(b"mif1", b"avif")) == "AVIF"


@pytest.mark.parametrize("tenth", range(1, 10))
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_is_truncated(tenth: int, progressive: bool) -> None:
    data = saved(noisy(), "JPEG", progressive=progressive)
    assert reason_of(data[: len(data) * tenth // 10]) == "truncated"


@quiet
@pytest.mark.parametrize("tenth", range(1, 10))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF"])
def test_other_formats_cut_anywhere_are_never_ok(format: str, tenth: int) -> None:
    data = saved(noisy(), format)
    reason = reason_of(data[: len(data) * tenth // 10])
    assert reason in {"truncated", "corrupt", "not_an_image"}
    if format in {"PNG", "WEBP"}:
        assert reason == "truncated"


def test_the_end_of_a_thumbnail_is_not_the_end_of_a_jpeg() -> None:
    data = saved(noisy(), "JPEG")
    payload = b"Exif\0\0" + saved(noisy(16), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
    data = data[:2] + segment + data[2:]
    assert decode(data).width == 64
    assert reason_of(data[: len(data) // 2]) == "truncated"


def test_bytes_after_the_end_of_a_jpeg_do_no_harm() -> None:
    data = saved(noisy(), "JPEG")
    assert np.array_equal(decode(data + b"\0" * 999).pixels, decode(data).pixels)


def test_several_pictures_in_one_file_give_the_first() -> None:
    data = saved(drawing(), "MPO", save_all=True, append_images=[noisy()])
    assert decode(data).width == 96


def test_a_picture_with_all_its_pixels_but_more_than_the_limit_is_too_large() -> None:
    for format in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "PPM"):
        data = saved(drawing(), format)
        assert reason_of(data, max_pixels=96 * 64 - 1) == "too_large"
        assert decode(data, max_pixels=96 * 64).width == 96


def png_that_claims(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 99)
    chunks = (header, body, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


def jpeg_that_claims(width: int, height: int) -> bytes:
    data = bytearray(saved(drawing(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def webp_that_claims(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + sides
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("make", [png_that_claims, jpeg_that_claims, webp_that_claims])
def test_a_bomb_is_refused_without_taking_memory(make: Callable[[int, int], bytes]) -> None:
    code = (
        "import resource, sys; from vistadex.decoding import decode\n"
        "from vistadex.errors import DecodingError\n"
        "import PIL.PngImagePlugin, PIL.WebPImagePlugin\n"
        "data = sys.stdin.buffer.read()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: decode(data)\n"
        "except DecodingError as error: print(error.reason)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=make(60_000, 60_000), capture_output=True, check=True
    )
    reason, grown_kib = done.stdout.split()
    assert reason == b"too_large"
    assert int(grown_kib) < 10_000


def test_pillows_own_limit_does_not_stand_before_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for format in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "PPM"):
        assert decode(saved(drawing(), format)).width == 96
    assert decode(saved(drawing(mode="CMYK"), "JPEG")).width == 96
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_large_picture_waits_until_the_limit_of_pillow_is_its_own_to_lift() -> None:
    limit, seen, huge = Image.MAX_IMAGE_PIXELS, [], (20_000, 10_000)
    assert limit is not None
    first_is_done = threading.Event()

    def second() -> None:
        with pillow_takes(huge):
            first_is_done.wait(10)
            seen.append(Image.MAX_IMAGE_PIXELS)

    thread = threading.Thread(target=second)
    with pillow_takes(huge):
        thread.start()
        time.sleep(0.1)
    first_is_done.set()
    thread.join()
    assert seen == [None]
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_jpeg_whose_header_lies_is_corrupt() -> None:
    data = saved(drawing(), "JPEG")
    assert reason_of(jpeg_that_claims(0, 0)) == "corrupt"
    assert reason_of(data[:2] + b"\xff\xd9\0\0") == "corrupt"
    without_frame = data.replace(b"\xff\xc0", b"\xff\xe5", 1)
    assert reason_of(without_frame) == "corrupt"


def outcome_of(data: bytes, *, allow_truncated: bool = False) -> DecodedImage | str:
    try:
        return decode(data, max_pixels=10_000_000, allow_truncated=allow_truncated)
    except DecodingError as error:
        return error.reason


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "PPM"]), st.data())
@quiet
def test_flipped_bytes_give_an_image_or_a_reason(format: str, draw: st.DataObject) -> None:
    data = bytearray(ORIGINALS[format])
    for _ in range(draw.draw(st.integers(1, 8))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    outcome = outcome_of(bytes(data))
    assert isinstance(outcome, DecodedImage) or outcome in FAILURE_REASONS


ORIGINALS = {
    format: saved(noisy(24), format)
    for format in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "PPM")
}


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", *(v[:16] for v in ORIGINALS.values())]))
@quiet
def test_random_bytes_give_a_reason(tail: bytes, start: bytes) -> None:
    outcome = outcome_of(start + tail)
    assert isinstance(outcome, DecodedImage) or outcome in FAILURE_REASONS


def test_an_encoded_jpeg_comes_back() -> None:
    pixels = np.array(drawing())
    back = decode(encode_jpeg(pixels, quality=95)).pixels
    assert np.abs(back.astype(int) - pixels).mean() < 6
    assert len(encode_jpeg(pixels, quality=30)) < len(encode_jpeg(pixels, quality=95))


def test_decoding_equals_opencv_and_pillow_on_photographs(shared_data: Path) -> None:
    for path in sorted((shared_data / "coco" / "images" / "val").glob("*.jpg"))[:20]:
        data = path.read_bytes()
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert np.array_equal(decode(data).pixels, expected)
        assert np.array_equal(decode(data).pixels, pillow_pixels(data))
