"""Errors as answers: one JSON shape, a page for browsers, a placeholder in a picture's place."""

from __future__ import annotations

import logging
from collections.abc import Callable
from html import escape
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from typing_extensions import TypedDict

from vistadex.errors import VistadexError
from vistadex.web.headers import set_headers

log = logging.getLogger(__name__)

PageMaker = Callable[[Request, int, str, list[str]], Response]
"""Makes the page of an error from request, status, message and suggestions."""

MEANINGS = {
    400: "A parameter or the query can't be read",
    403: "Not allowed here: --read-only, or a request from a foreign page",
    404: "Nothing has this id or name",
    408: "The bytes came too slowly",
    409: "As many runs as a page may start are at work",
    413: "More files or bytes than are taken",
    415: "The bytes are no picture that can be read",
    429: "A labeler's calls are used up",
    500: "The catalog can't be read, or an error in Vistadex",
    502: "The source does not give the picture",
    503: "Too many requests at a time; Retry-After says when to come back",
}


class Problem(TypedDict):
    """What went wrong: the exception's name, its message, and names that may have been meant."""

    type: str
    message: str
    suggestions: list[str]


class ProblemAnswer(TypedDict):
    """The one shape of every error."""

    error: Problem


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route for OpenAPI."""
    answers: dict[int | str, dict[str, Any]] = {
        status: {"model": ProblemAnswer, "description": MEANINGS[status]}
        for status in (*statuses, 500)
    }
    answers["default"] = {"model": ProblemAnswer, "description": "Any other error"}
    return answers


def answer(
    status: int, kind: str, message: str, suggestions: list[str] | None = None
) -> JSONResponse:
    """An error in the JSON shape."""
    body: ProblemAnswer = {
        "error": {"type": kind, "message": message, "suggestions": suggestions or []}
    }
    return JSONResponse(body, status)


def install(app: FastAPI, make_page: PageMaker) -> None:
    """Every error of the app becomes an answer in the form that the request can use."""

    def show(
        request: Request, status: int, kind: str, message: str, suggestions: list[str]
    ) -> Response:
        accepted = request.headers.get("accept", "")
        of_a_form = request.method == "POST" and "text/html" in accepted
        if request.url.path.startswith("/api/") and not of_a_form:
            return answer(status, kind, message, suggestions)
        if "text/html" in accepted:
            return make_page(request, status, message, suggestions)
        if "image/" in accepted and request.url.path.startswith(("/picture/", "/thumbnail/")):
            return placeholder(status, message)
        return answer(status, kind, message, suggestions)

    def known(request: Request, error: Exception) -> Response:
        assert isinstance(error, VistadexError)
        suggestions = list(getattr(error, "suggestions", ()))
        shown = show(request, error.http_status, type(error).__name__, str(error), suggestions)
        shown.headers.update(getattr(error, "headers", {}))
        return shown

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        problems = (f"{one['loc'][-1]}: {one['msg'].lower()}" for one in error.errors())
        return show(request, 400, "UsageError", "; ".join(problems), [])

    def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = "NotFoundError" if error.status_code == 404 else "UsageError"
        text = f"{request.method} {request.url.path}: {error.detail.lower()}; see /docs"
        shown = show(request, error.status_code, kind, text, [])
        shown.headers.update(error.headers or {})
        return shown

    def unforeseen(request: Request, error: Exception) -> Response:
        log.error("%s %s: %r", request.method, request.url.path, error)
        text = f"an error in Vistadex ({type(error).__name__}); please report it"
        shown = show(request, 500, "InternalError", text, [])
        set_headers(shown.headers)  # Starlette answers this one outside of every middleware.
        return shown

    app.add_exception_handler(VistadexError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(Exception, unforeseen)


def placeholder(status: int, message: str) -> Response:
    """A quiet picture in place of one that can't be shown; browsers draw it for any status."""
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="480" height="360" viewBox="0 0 480 360">'
        f"<title>{escape(message)}</title>"
        '<rect width="480" height="360" fill="#8882"/>'
        '<g fill="none" stroke="#888" stroke-width="2">'
        '<rect x="216" y="150" width="48" height="36" rx="4"/><path d="M212 192l56-48"/></g>'
        '<text x="240" y="216" fill="#888" font-family="sans-serif" font-size="14" '
        f'text-anchor="middle">{"not at hand" if status == 404 else "not readable"}</text></svg>'
    )
    return Response(svg, status, {"Cache-Control": "no-store"}, "image/svg+xml")
