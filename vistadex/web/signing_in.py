"""The login page: a key is exchanged for a session's cookie."""

from __future__ import annotations

import math
import re
import time
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from vistadex.web import pages
from vistadex.web.access import SESSION_S, Keys, cookie_name
from vistadex.web.throttle import Throttle

_OWN_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")
"""A path of this app: what browsers take for another host is none."""


def add_routes(app: FastAPI) -> None:
    """Puts the login page, signing in and signing out into the app."""
    app.state.throttle = Throttle()
    shown = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)
    shown.add_api_route("/login", login_page)
    shown.add_api_route("/login", login, methods=["POST"])
    shown.add_api_route("/logout", logout, methods=["POST"])
    app.include_router(shown)


def login_page(request: Request, next: str = "/") -> Response:
    """The form for a password or token."""
    return _form(request, next, "")


async def login(request: Request) -> Response:
    """Gives a session for a right key; a wrong one costs time."""
    keys: Keys = request.app.state.keys
    throttle: Throttle = request.app.state.throttle
    fields = parse_qs((await request.body()).decode(errors="replace"), max_num_fields=10)
    following = fields.get("next", ["/"])[0]
    address = request.client.host if request.client else ""
    # From here on nothing is awaited: attempts that come together are counted one after another.
    if wait_s := math.ceil(throttle.wait_s(address)):
        text = f"Too many wrong attempts; wait {wait_s} seconds"
        answer = _form(request, following, text, 429)
        answer.headers["Retry-After"] = str(wait_s)
        return answer
    if not keys.opens(fields.get("key", [""])[0]):
        throttle.failed(address)
        return _form(request, following, "That is not the password or token", 401)
    answer = RedirectResponse(_own(following), 303)
    answer.set_cookie(
        cookie_name(request),
        keys.session(time.time()),
        max_age=SESSION_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


def logout(request: Request) -> Response:
    """Takes the session's cookie away, and what the browser has kept of the pictures."""
    answer = RedirectResponse("/login", 303)
    secure = request.url.scheme == "https"
    answer.delete_cookie(cookie_name(request), httponly=True, samesite="strict", secure=secure)
    answer.headers["Clear-Site-Data"] = '"cache"'
    return answer


def _form(request: Request, following: str, problem: str, status: int = 200) -> Response:
    return pages.rendered(request, "login.html", status, following=_own(following), problem=problem)


def _own(path: str) -> str:
    """The path where it is one of this app, else the first page."""
    return path if _OWN_PATH.fullmatch(path) else "/"
