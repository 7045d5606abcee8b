"""Every kind of picture has the right outcome: size, orientation and color, or the right reason."""

from __future__ import annotations

import io
import itertools
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from tests.test_decoding import drawing, noisy, png_that_claims, quiet, reason_of, saved
from vistadex.catalog import Catalog
from vistadex.decoding import PictureSize, decode, read_size
from vistadex.decoding.orientation import upright
from vistadex.errors import DecodingError
from vistadex.indexing import index
from vistadex.records import FAILURE_REASONS, Pixels
from vistadex.testing import MemorySource, RedSquareDetector

Color = tuple[int, int, int]
READ: dict[str, tuple[int, int, int, Color, Color, Color]] = {
    "16bit.cropped.tif": (64, 64, 1, (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "RGB_12__29x100.heif": (29, 100, 1, (60, 64, 193), (192, 64, 61), (60, 192, 193)),
    "RGB_8__128x128.heif": (128, 128, 1, (64, 64, 192), (64, 192, 192), (192, 64, 64)),
    "arrow.heic": (3024, 4032, 6, (159, 155, 150), (167, 162, 156), (160, 157, 155)),
    "chi.gif": (320, 240, 1, (248, 250, 243), (250, 251, 248), (250, 251, 248)),
    "dispose_bgnd.gif": (100, 100, 1, (74, 170, 247), (72, 169, 247), (72, 169, 247)),
    "exif-72dpi-int.jpg": (500, 450, 1, (92, 121, 180), (161, 170, 195), (85, 90, 101)),
    "exif_gps.jpg": (8, 8, 1, (0, 0, 0), (0, 0, 0), (0, 0, 0)),
    "frozenpond.mpo": (640, 480, 1, (83, 74, 65), (108, 104, 102), (134, 132, 130)),
    "hopper.bmp": (128, 128, 1, (94, 73, 81), (108, 117, 155), (81, 57, 54)),
    "hopper.ppm": (128, 128, 1, (94, 73, 81), (108, 117, 155), (81, 57, 54)),
    "hopper.webp": (128, 128, 1, (94, 73, 80), (107, 117, 155), (82, 57, 54)),
    "hopper_gray.jpg": (128, 128, 1, (80, 80, 80), (119, 119, 119), (64, 64, 64)),
    "hopper_orientation_6.jpg": (128, 128, 6, (94, 73, 81), (108, 117, 155), (81, 57, 54)),
    "hopper_orientation_8.jpg": (128, 128, 8, (94, 73, 81), (108, 117, 155), (81, 57, 54)),
    "icc_profile_big.jpg": (425, 250, 1, (1, 51, 135), (4, 58, 144), (95, 147, 189)),
    "iss634.gif": (245, 245, 1, (76, 120, 92), (131, 139, 89), (157, 142, 87)),
    "multiple_exif.jpg": (1, 1, 1, (0, 0, 0), (0, 0, 0), (0, 0, 0)),
    "pil123rgba.png": (162, 150, 1, (185, 172, 133), (206, 205, 203), (157, 166, 140)),
    "rot1mir0.avif": (640, 427, 5, (147, 165, 139), (157, 169, 136), (90, 92, 53)),
    "sugarshack.mpo": (640, 480, 1, (108, 100, 87), (84, 67, 54), (135, 128, 119)),
    "transparent.webp": (200, 150, 1, (181, 166, 209), (188, 199, 174), (237, 223, 218)),
    "truncated_app14.jpg": (100, 100, 1, (52, 8, 6), (33, 5, 4), (16, 3, 2)),
    "xmp_tags_orientation.png": (326, 268, 3, (197, 168, 110), (184, 155, 101), (207, 173, 118)),
}
"""Width, height and stored orientation; mean color of the quarters top left, top right and bottom
left, which tell all eight orientations apart. Each picture was looked at."""

REFUSED = {
    "broken.png": ("corrupt", "expected IHDR"),
    "decompression_bomb.gif": ("too_large", "65535 x 66601"),
    "kangaroo_00090_truncated.jpg": ("truncated", "end marker"),
    "truncated_image.png": ("truncated", "PNG"),
}


def quarters(pixels: Pixels) -> list[list[float]]:
    y, x = max(1, pixels.shape[0] // 2), max(1, pixels.shape[1] // 2)
    parts = (pixels[:y, :x], pixels[:y, -x:], pixels[-y:, :x])
    return [part.mean(axis=(0, 1)).tolist() for part in parts]


@quiet
@pytest.mark.parametrize("name", sorted(READ))
def test_every_odd_file_is_read_right(shared_data: Path, name: str) -> None:
    width, height, orientation, *colors = READ[name]
    data = (shared_data / "robust" / name).read_bytes()
    image = decode(data)
    assert (image.width, image.height, image.damage) == (width, height, "")
    assert image.pixels.shape == (height, width, 3)
    assert np.abs(np.array(quarters(image.pixels)) - colors).max() < 2
    size = read_size(data)
    assert (size.width, size.height, size.orientation) == (width, height, orientation)
    assert decode(data, allow_truncated=True).damage == ""


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_every_broken_file_has_its_reason(shared_data: Path, name: str) -> None:
    reason, words = REFUSED[name]
    with pytest.raises(DecodingError, match=words) as caught:
        decode((shared_data / "robust" / name).read_bytes())
    assert caught.value.reason == reason


def test_no_odd_file_is_left_out_of_the_tables(shared_data: Path) -> None:
    files = {path.name for path in (shared_data / "robust").iterdir()} - {"inventory.csv"}
    assert files == {*READ, *REFUSED}


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def xmp(orientation: int, form: str = 'tiff:Orientation="{}"') -> bytes:
    stated = form.format(orientation)
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description '
        f"{stated if '=' in stated else ''}>{stated if '<' in stated else ''}"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def heic(image: Image.Image, orientation: int = 1) -> bytes:
    """A HEIC file that states its orientation by irot and imir."""
    from pillow_heif.constants import HeifCompressionFormat
    from pillow_heif.misc import CtxEncode

    context, buffer = CtxEncode(HeifCompressionFormat.HEVC, quality=95), io.BytesIO()
    context.add_image(
        image.size, image.mode, image.tobytes(), image_orientation=orientation, primary=True
    )
    context.save(buffer)
    return buffer.getvalue()


def png_with_chunk(kind: bytes, body: bytes, *, late: bool = False) -> bytes:
    data = saved(drawing(), "PNG")
    at = data.index(b"IEND") - 4 if late else 33
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data[:at] + chunk + data[at:]


def png_with_xmp(orientation: int, *, packed: bool = False, late: bool = False) -> bytes:
    packet = zlib.compress(xmp(orientation)) if packed else xmp(orientation)
    head = b"XML:com.adobe.xmp\0" + (b"\1\0" if packed else b"\0\0") + b"\0\0"
    return png_with_chunk(b"iTXt", head + packet, late=late)


def png_with_raw_profile(orientation: int) -> bytes:
    block = exif(orientation).tobytes()
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    return saved(drawing(), "PNG", pnginfo=info)


def tiff_with_xmp(orientation: int) -> bytes:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    tags[700] = xmp(orientation)
    return saved(drawing(), "TIFF", tiffinfo=tags)


STATED: dict[str, Callable[[int], bytes]] = {
    "JPEG": lambda o: saved(drawing(), "JPEG", exif=exif(o), quality=100),
    "JPEG, XMP": lambda o: saved(drawing(), "JPEG", xmp=xmp(o), quality=100),
    "JPEG, both": lambda o: saved(drawing(), "JPEG", exif=exif(o), xmp=xmp(o % 8 + 1), quality=100),
    "MPO": lambda o: saved(
        drawing(), "MPO", exif=exif(o), save_all=True, append_images=[noisy()], quality=100
    ),
    "PNG": lambda o: saved(drawing(), "PNG", exif=exif(o)),
    "PNG, eXIf at the end": lambda o: png_with_chunk(b"eXIf", exif(o).tobytes()[6:], late=True),
    "PNG, raw profile": png_with_raw_profile,
    "PNG, XMP": png_with_xmp,
    "PNG, XMP packed": lambda o: png_with_xmp(o, packed=True),
    "PNG, XMP at the end": lambda o: png_with_xmp(o, late=True),
    "APNG": lambda o: saved(
        drawing(), "PNG", exif=exif(o), save_all=True, append_images=[drawing().rotate(90)]
    ),
    "WebP": lambda o: saved(drawing(), "WEBP", exif=exif(o), lossless=True),
    "WebP, alpha": lambda o: saved(drawing(mode="RGBA"), "WEBP", exif=exif(o), lossless=True),
    "WebP, XMP": lambda o: saved(drawing(), "WEBP", xmp=xmp(o), lossless=True),
    "WebP, both": lambda o: saved(
        drawing(), "WEBP", exif=exif(o), xmp=xmp(o % 8 + 1), lossless=True
    ),
    "TIFF": lambda o: saved(drawing(), "TIFF", exif=exif(o)),
    "TIFF, LZW": lambda o: saved(drawing(), "TIFF", exif=exif(o), compression="tiff_lzw"),
    "TIFF, XMP": tiff_with_xmp,
    "BigTIFF": lambda o: saved(drawing(), "TIFF", exif=exif(o), big_tiff=True),
    "AVIF": lambda o: saved(drawing(), "AVIF", exif=exif(o), quality=95),
    "HEIC": lambda o: heic(drawing(), o),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", STATED)
def test_each_orientation_of_each_kind_is_turned_once(kind: str, orientation: int) -> None:
    data = STATED[kind](orientation)
    image, expected = decode(data), upright(np.array(drawing()), orientation)
    assert image.pixels.shape == expected.shape
    assert np.abs(image.pixels.astype(int) - expected).mean() < 4
    turned = (64, 96) if orientation >= 5 else (96, 64)
    assert (image.width, image.height) == turned
    assert read_size(data) == PictureSize(*turned, orientation, 96, 64)


def test_our_turning_is_that_of_pillow() -> None:
    for orientation in range(1, 9):
        image = Image.open(io.BytesIO(saved(drawing(), "PNG", exif=exif(orientation))))
        expected = np.array(ImageOps.exif_transpose(image))
        assert np.array_equal(upright(np.array(drawing()), orientation), expected)


def test_xmp_states_an_orientation_as_attribute_or_element() -> None:
    for form in (
        'tiff:Orientation="{}"',
        "<tiff:Orientation>{}</tiff:Orientation>",
        "tiff:Orientation = '{}'",
    ):
        assert read_size(saved(drawing(), "JPEG", xmp=xmp(6, form))).orientation == 6


def test_an_orientation_that_does_not_exist_turns_nothing() -> None:
    for number in (0, 9, 255):
        for make in (STATED["JPEG"], STATED["PNG"], STATED["TIFF"], STATED["WebP, XMP"]):
            assert decode(make(number)).width == 96
            assert read_size(make(number)).orientation == 1


def test_exif_in_avif_and_heic_does_not_count_where_the_boxes_turn_nothing() -> None:
    data = bytearray(saved(drawing(), "AVIF", exif=exif(6), quality=95))
    data[data.index(b"irot") + 4] = 0
    image = decode(bytes(data))
    assert (image.width, image.height) == (96, 64)
    assert read_size(bytes(data)).orientation == 1


CMYK = Image.new("CMYK", (40, 30), (0, 255, 255, 0))
RED_16 = np.full((30, 40, 3), (0, 0, 65535), np.uint16)


def by_opencv(extension: str, pixels: object) -> bytes:
    return bytes(cv2.imencode(extension, pixels)[1].data)


def with_alpha(mode: str) -> Image.Image:
    """Red, on whose left half nothing is seen."""
    image = Image.new("RGBA", (40, 30), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 20, 30))
    return image.convert(mode)


def red(mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (40, 30), (255, 0, 0)).convert(mode)


KINDS: dict[str, Callable[[], bytes]] = {
    "progressive JPEG": lambda: saved(red(), "JPEG", progressive=True),
    "CMYK JPEG": lambda: saved(CMYK, "JPEG"),
    "PNG 16 bits": lambda: by_opencv(".png", RED_16),
    "PNG palette": lambda: saved(red("P"), "PNG"),
    "PNG palette, 1 bit": lambda: saved(red().quantize(2), "PNG", bits=1),
    "interlaced PNG": lambda: interlaced_png(np.array(red())),
    "PNG with a color profile": lambda: saved(red(), "PNG", icc_profile=b"\0" * 200),
    "lossless WebP": lambda: saved(red(), "WEBP", lossless=True),
    "GIF": lambda: saved(red(), "GIF"),
    "BMP 24 bits": lambda: saved(red(), "BMP"),
    "BMP palette": lambda: saved(red("P"), "BMP"),
    "BMP 32 bits": lambda: saved(red("RGBA"), "BMP"),
    "PPM": lambda: saved(red(), "PPM"),
    "PPM in words": lambda: b"P3 # words\n40 30\n255\n" + b"255 0 0\n" * 1200,
    "PPM 16 bits": lambda: b"P6\n40 30\n65535\n" + b"\xff\xff\0\0\0\0" * 1200,
    "TIFF": lambda: saved(red(), "TIFF"),
    "TIFF 16 bits": lambda: by_opencv(".tiff", RED_16),
    "CMYK TIFF": lambda: saved(CMYK, "TIFF"),
    "LAB TIFF": lambda: saved(red("LAB"), "TIFF"),
    "JPEG in TIFF": lambda: saved(red(), "TIFF", compression="jpeg"),
    "deflated TIFF": lambda: saved(red(), "TIFF", compression="tiff_adobe_deflate"),
    "palette TIFF": lambda: saved(red("P"), "TIFF"),
    "big-endian TIFF": lambda: plain_tiff(">"),
    "BigTIFF": lambda: plain_tiff("<", big=True),
    "tiled TIFF": lambda: plain_tiff("<", tile=(16, 16)),
    "AVIF": lambda: saved(red(), "AVIF"),
    "animated AVIF": lambda: saved(red(), "AVIF", save_all=True, append_images=[drawing(40, 30)]),
    "animated WebP": lambda: saved(red(), "WEBP", save_all=True, append_images=[drawing(40, 30)]),
    "animated GIF": lambda: saved(red(), "GIF", save_all=True, append_images=[drawing(40, 30)]),
    "APNG": lambda: saved(red(), "PNG", save_all=True, append_images=[drawing(40, 30)]),
    "TIFF of pages": lambda: saved(red(), "TIFF", save_all=True, append_images=[drawing(9, 9)]),
    "MPO": lambda: saved(red(), "MPO", save_all=True, append_images=[drawing()]),
    "HEIC": lambda: heic(red()),
}
"""Makers of a red picture of 40 x 30."""


def plain_tiff(order: str, *, big: bool = False, tile: tuple[int, int] | None = None) -> bytes:
    """A red TIFF, uncompressed, in whole or in tiles, with its directory before its pixels."""
    columns, rows = tile or (40, 30)
    number = -(-40 // columns) * -(-30 // rows)
    each = columns * rows * 3
    keys = (324, 325) if tile else (273, 279)
    long, entry = ("Q", 20) if big else ("I", 12)
    head = 16 if big else 8
    tags: dict[int, tuple[str, tuple[int, ...]]] = {
        **{256: ("H", (40,)), 257: ("H", (30,)), 258: ("H", (8, 8, 8)), 259: ("H", (1,))},
        **{262: ("H", (2,)), 277: ("H", (3,)), 284: ("H", (1,))},
        **({322: ("H", (columns,)), 323: ("H", (rows,))} if tile else {278: ("H", (30,))}),
    }
    free = head + struct.calcsize("Q" if big else "H") + (len(tags) + 2) * entry + (8 if big else 4)
    pixels = free + 6 + 8 * number
    tags[keys[0]] = ("I", tuple(pixels + i * each for i in range(number)))
    tags[keys[1]] = ("I", (each,) * number)
    extra, lines = b"", []
    for tag, (code, values) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(value) > (8 if big else 4):
            at, extra = free + len(extra), extra + value
            value = struct.pack(order + long, at)
        kind = {"H": 3, "I": 4}[code]
        lines.append(
            struct.pack(f"{order}HH{long}", tag, kind, len(values))
            + value.ljust(8 if big else 4, b"\0")
        )
    mark = b"II" if order == "<" else b"MM"
    start = mark + struct.pack(order + "HHHQ", 43, 8, 0, 16)
    if not big:
        start = mark + struct.pack(order + "HI", 42, 8)
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    directory = start + count + b"".join(lines) + bytes(8 if big else 4) + extra
    return directory.ljust(pixels, b"\0") + b"\xff\0\0" * (columns * rows) * number


def interlaced_png(pixels: Pixels) -> bytes:
    """A PNG in Adam7's seven passes, which neither Pillow nor OpenCV write."""
    rows, columns = pixels.shape[:2]
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
    body = b"".join(
        b"\0" + pixels[row, x::dx].tobytes()
        for x, y, dx, dy in (*passes, (0, 1, 1, 2))
        for row in range(y, rows, dy)
    )
    chunks = (
        b"IHDR" + struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 1),
        b"IDAT" + zlib.compress(body),
        b"IEND",
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks
    )


@quiet
@pytest.mark.parametrize("kind", KINDS)
def test_a_red_picture_of_each_kind_is_red_and_its_size_is_read(kind: str) -> None:
    data = KINDS[kind]()
    image = decode(data)
    assert (image.width, image.height) == (40, 30)
    assert np.abs(image.pixels.astype(int) - (255, 0, 0)).mean() < 6
    assert read_size(data) == PictureSize(40, 30, 1, 40, 30)


TRANSPARENT: dict[str, Callable[[], bytes]] = {
    "RGBA PNG": lambda: saved(with_alpha("RGBA"), "PNG"),
    "RGBA PNG, 16 bits": lambda: by_opencv(
        ".png",
        np.dstack([RED_16, np.repeat([[0] * 20 + [65535] * 20], 30, 0).astype(np.uint16)]),
    ),
    "LA PNG": lambda: saved(with_alpha("LA"), "PNG"),
    "PNG palette with tRNS": lambda: saved(two_colors("P"), "PNG", transparency=0),
    "RGB PNG with tRNS": lambda: saved(two_colors("RGB"), "PNG", transparency=(0, 0, 250)),
    "grey PNG with tRNS": lambda: saved(two_colors("L"), "PNG", transparency=28),
    "grey PNG, 16 bits, with tRNS": lambda: grey_16_with_trns(),
    "GIF": lambda: saved(two_colors("P"), "GIF", transparency=0),
    "WebP": lambda: saved(with_alpha("RGBA"), "WEBP"),
    "lossless WebP": lambda: saved(with_alpha("RGBA"), "WEBP", lossless=True),
    "AVIF": lambda: saved(with_alpha("RGBA"), "AVIF"),
    "HEIC": lambda: heic(with_alpha("RGBA")),
    "TIFF": lambda: saved(with_alpha("RGBA"), "TIFF"),
}


def two_colors(mode: str) -> Image.Image:
    """Red, blue on the left half."""
    image = red()
    image.paste((0, 0, 250), (0, 0, 20, 30))
    if mode != "P":
        return image.convert(mode)
    palette = Image.new("P", (40, 30), 1)
    palette.putpalette([0, 0, 250, 255, 0, 0])
    palette.paste(0, (0, 0, 20, 30))
    return palette


def grey_16_with_trns() -> bytes:
    values = np.full((30, 40), 20_000, np.uint16)
    values[:, :20] = 300
    data = by_opencv(".png", values)
    body = b"tRNS" + struct.pack(">H", 300)
    at = data.index(b"IDAT") - 4
    return data[:at] + b"\0\0\0\2" + body + struct.pack(">I", zlib.crc32(body)) + data[at:]


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_what_is_transparent_is_white_in_each_kind(kind: str) -> None:
    data = TRANSPARENT[kind]()
    pixels = decode(data).pixels
    assert pixels[:, :18].min() >= 250
    assert pixels[:, 22:, 2].max() <= 90
    assert read_size(data) == PictureSize(40, 30, 1, 40, 30)


def test_opencv_and_pillow_give_the_same_pixels_of_png() -> None:
    """Kinds that OpenCV reads: grey, RGB and palettes at 1 to 16 bits."""
    rng = np.random.default_rng(1)
    images = [drawing(mode=mode) for mode in ("1", "L", "P", "RGB")]
    grey = Image.fromarray(rng.integers(0, 256, (31, 33), np.uint8))
    files = [saved(image, "PNG") for image in images]
    files += [saved(grey.quantize(2**bits), "PNG", bits=bits) for bits in (1, 2, 4, 8)]
    files.append(by_opencv(".png", rng.integers(0, 65536, (31, 33, 3), np.uint16)))
    for data in files:
        expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(decode(data).pixels, expected)


def test_opencv_and_pillow_give_the_same_pixels_of_other_formats(shared_data: Path) -> None:
    paths = sorted((shared_data / "coco" / "images" / "val").glob("*.jpg"))[:3]
    for path, (format, options) in itertools.product(
        paths, [("WEBP", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("PPM", {})]
    ):
        with Image.open(path) as image:
            data = saved(image.convert("RGB"), format, **options)
        expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(decode(data).pixels, expected)


def test_a_gamma_chunk_changes_no_pixels() -> None:
    data = png_with_chunk(b"gAMA", struct.pack(">I", 100_000))
    assert np.array_equal(decode(data).pixels, np.array(drawing()))


@quiet
def test_a_kind_of_tiff_that_is_not_read_is_unsupported() -> None:
    for data in (by_opencv(".tiff", np.zeros((30, 40, 3), np.float32)), plain_tiff(">", big=True)):
        assert reason_of(data) == "unsupported"
        assert read_size(data) == PictureSize(40, 30, 1, 40, 30)


def test_heic_without_its_extra_is_unsupported_and_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    data = (shared_data / "robust" / "RGB_8__128x128.heif").read_bytes()
    with pytest.raises(DecodingError, match=r"pip install 'vistadex\[heif\]'") as caught:
        decode(data)
    assert caught.value.reason == "unsupported"
    assert caught.value.reason in FAILURE_REASONS
    assert read_size(data).width == 128


def test_heic_of_odd_sides_is_cropped_to_them() -> None:
    for size in ((33, 17), (1, 1), (65, 2)):
        data = heic(drawing(*size))
        image = decode(data)
        assert (image.width, image.height) == size
        assert read_size(data) == PictureSize(*size, 1, *size)


# read_size


def size_or_reason(data: bytes) -> PictureSize | str:
    try:
        return read_size(data)
    except DecodingError as error:
        return error.reason


def test_the_first_bytes_are_enough_or_it_says_so(shared_data: Path) -> None:
    for name in READ:
        data = (shared_data / "robust" / name).read_bytes()
        for length in (1, 8, 30, 200, 1000, 10_000, 65_536):
            allowed = {read_size(data)}
            if length < len(data):
                allowed |= {"truncated", "not_an_image"}
            assert size_or_reason(data[:length]) in allowed


@pytest.mark.parametrize("kind", [*KINDS, *TRANSPARENT])
def test_a_size_from_a_part_of_a_file_is_never_wrong(kind: str) -> None:
    data = {**KINDS, **TRANSPARENT}[kind]()
    right = PictureSize(40, 30, 1, 40, 30)
    for length in range(1, len(data), max(1, len(data) // 200)):
        assert size_or_reason(data[:length]) in {right, "truncated", "not_an_image"}


def test_a_photograph_needs_only_its_start(shared_data: Path) -> None:
    for path in sorted((shared_data / "coco" / "images" / "val").glob("*.jpg"))[:20]:
        data = path.read_bytes()
        assert read_size(data[:4096]) == read_size(data)


def test_a_size_of_nothing_is_refused() -> None:
    for data, reason in [
        (b"", "empty"),
        (b"text", "not_an_image"),
        (png_that_claims(0, 5), "corrupt"),
        (b"P6\n0 9\n255\n", "corrupt"),
        (b"P6 40", "truncated"),
        (b"P6 forty", "corrupt"),
        (b"GIF89a\x05\0\x05\0\0\0\0;", "corrupt"),
        (b"RIFF\x10\0\0\0WEBPICCP" + bytes(20), "corrupt"),
        (b"\0\0\0\x14ftypavif\0\0\0\0avif", "truncated"),
        (b"\0\0\0\x14ftypavif\0\0\0\0avif" + b"\0\0\0\x0cmeta" + bytes(4), "corrupt"),
        (b"\0\0\0\x14ftypavis\0\0\0\0avis" + b"\0\0\0\x08moov", "unsupported"),
        (saved(drawing(), "BMP")[:20], "truncated"),
        (saved(drawing(), "PNG")[:20], "truncated"),
        (saved(drawing(), "WEBP")[:20], "truncated"),
    ]:
        with pytest.raises(DecodingError) as caught:
            read_size(data)
        assert caught.value.reason == reason, data


# bombs


def claims(data: bytes, *places: tuple[int, str, int]) -> bytes:
    """A file with other numbers at some places."""
    changed = bytearray(data)
    for at, layout, value in places:
        struct.pack_into(layout, changed, at, value)
    return bytes(changed)


def ispe_claims(data: bytes) -> bytes:
    at = data.index(b"ispe") + 8
    return claims(data, (at, ">I", 60_000), (at + 4, ">I", 60_000))


BOMBS: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: png_that_claims(60_000, 60_000),
    "TIFF": lambda: claims(
        tiff := plain_tiff("<"),
        (tiff.index(struct.pack("<HHI", 256, 3, 1)) + 8, "<H", 60_000),
        (tiff.index(struct.pack("<HHI", 257, 3, 1)) + 8, "<H", 60_000),
    ),
    "lossy WebP": lambda: claims(saved(drawing(), "WEBP"), (26, "<H", 0x3FFF), (28, "<H", 0x3FFF)),
    "lossless WebP": lambda: claims(saved(drawing(), "WEBP", lossless=True), (21, "<I", 0xFFFFFFF)),
    "GIF": lambda: claims(saved(drawing(), "GIF"), (6, "<H", 60_000), (8, "<H", 60_000)),
    "BMP": lambda: claims(saved(drawing(), "BMP"), (18, "<i", 60_000), (22, "<i", -60_000)),
    "PPM": lambda: b"P6\n60000 60000\n255\n" + bytes(99),
    "AVIF": lambda: ispe_claims(saved(drawing(), "AVIF")),
    "HEIC": lambda: ispe_claims(heic(drawing())),
}


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("allow", ["", "allow_truncated=True"])
def test_a_bomb_of_each_kind_is_refused_from_its_header(kind: str, allow: str) -> None:
    code = (
        "import resource, sys; from vistadex.decoding import decode\n"
        "from vistadex.errors import DecodingError\n"
        "data = sys.stdin.buffer.read()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"try: decode(data, {allow})\n"
        "except DecodingError as error: print(error.reason)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=BOMBS[kind](), capture_output=True, check=True
    )
    reason, grown_kib = done.stdout.split()
    assert reason == b"too_large"
    assert int(grown_kib) < 5_000


def test_a_text_in_a_png_is_not_inflated_without_end() -> None:
    packed = zlib.compress(bytes(200_000_000), 9)
    data = png_with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed)
    assert read_size(data).orientation == 1


def test_an_image_is_tried_again_once_its_extra_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"a.heic": heic(drawing()), "b.png": saved(drawing(), "PNG")}
    source = MemorySource.create("one-heic", files)
    with Catalog(str(tmp_path / "catalog.db"), create=True) as catalog:

        def run() -> tuple[int, int, dict[str, int]]:
            summary = index(source.uri, detector=RedSquareDetector(), catalog=catalog)
            return summary.indexed, summary.unchanged, dict(summary.failures)

        with monkeypatch.context() as without:
            without.setitem(sys.modules, "pillow_heif", None)
            assert run() == (1, 0, {"unsupported": 1})
            assert run() == (0, 1, {"unsupported": 1})
        assert run() == (1, 1, {})
        assert run() == (0, 2, {})
