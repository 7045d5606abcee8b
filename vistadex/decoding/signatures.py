"""Which format bytes are of: told from their start, never from a name."""

from __future__ import annotations

SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
SIGNATURE_BYTES = 64
"""How many of a file's first bytes looks_like_image needs to see."""

_BMP_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})


def looks_like_image(start: bytes) -> bool:
    """Whether a file's first SIGNATURE_BYTES bytes are those of a picture, HEIC included."""
    return format_of(start) is not None


def format_of(start: bytes) -> str | None:
    """The format that the first bytes announce: JPEG, a name of sizes.READERS, or None."""
    for signature, name in SIGNATURES:
        if start.startswith(signature):
            return name
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    if start[4:8] == b"ftyp":
        return _format_of_brands(start)
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    if start[:1] == b"P" and start[1:2] in b"123456" and start[2:3].isspace():
        return "PPM"
    return None


def _format_of_brands(start: bytes) -> str | None:
    end = min(int.from_bytes(start[:4], "big"), SIGNATURE_BYTES)
    brands = {start[i : i + 4] for i in range(8, end, 4)}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else None
