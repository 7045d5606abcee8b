"""The door of the app: refuses requests for other hosts and sets the headers of every answer."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vistadex.web import problems
from vistadex.web.headers import set_headers

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
HEALTH = "/health"
"""Answered under any name: probes ask the address of the container that they have started."""


class Guard:
    """Another name in the Host header is a foreign page leading a browser here: DNS rebinding."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self.app = app
        self.hosts = None if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                set_headers(MutableHeaders(scope=message))
            await send(message)

        name = host_name(Headers(scope=scope).get("host", ""))
        known = self.hosts is None or name in self.hosts
        if not (known or scope["path"] == HEALTH):
            text = f"host {name!r}: not served here; open the address that `vistadex serve` prints"
            await problems.answer(400, "UsageError", text)(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)


def host_name(header: str) -> str:
    """The name in a Host header: without port and brackets, in small letters."""
    name, colon, port = header.strip().rpartition(":")
    if not colon or not port.isdigit() or (":" in name and not name.endswith("]")):
        name = header.strip()
    return name.strip("[]").lower()
