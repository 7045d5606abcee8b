"""The headers of every answer that limit what a browser does with it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders

HEADERS = {
    # data: holds small pictures that are kept nowhere else; an image runs no script.
    # Attributes only: a tile's place needs its picture's proportions, known to the server alone.
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; script-src 'self'; style-src 'self'; "
        "style-src-attr 'unsafe-inline'; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def set_headers(headers: MutableHeaders) -> None:
    """Adds HEADERS, and asks for revalidation where the answer says nothing of keeping it."""
    for name, value in HEADERS.items():
        headers[name] = value
    headers.setdefault("Cache-Control", "no-cache")
