"""How large a request may be, and how slowly it may come."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vistadex.web import problems

MAX_BODY_BYTES = 1 << 20
MAX_UPLOAD_BYTES = 129 << 20
"""Of routes that take files, which have smaller limits of their own."""
BODY_S = 30.0
UPLOAD_S = 120.0
"""From the first look at a body until its end must be there."""


class Limits:
    """Refuses what is too large by its own words at once, and all else where it goes too far."""

    def __init__(self, app: ASGIApp, uploads: Collection[str]) -> None:
        """`uploads` are the paths that take files; may be filled later."""
        self.app = app
        self.uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        large = scope["path"] in self.uploads
        most, time_s = (MAX_UPLOAD_BYTES, UPLOAD_S) if large else (MAX_BODY_BYTES, BODY_S)
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdigit() and int(announced) > most:
            answer = problems.answer(413, "UsageError", f"{scope['path']}: {_too_large(most)}")
            answer.headers["Connection"] = "close"
            await answer(scope, receive, send)
            return
        await self.app(scope, _Body(receive, most, time_s).receive, send)


class _Body:
    """The messages of a request, until they are too many bytes or too late."""

    def __init__(self, receive: Receive, most: int, time_s: float) -> None:
        self._receive = receive
        self._most = most
        self._time_s = time_s
        self._until = 0.0
        self._bytes = 0
        self._whole = False

    async def receive(self) -> Message:
        """The next message.

        Raises: HTTPException, which the app answers in its own form.
        """
        if self._whole:  # Now it only waits for the client to go away.
            return await self._receive()
        self._until = self._until or asyncio.get_running_loop().time() + self._time_s
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            text = f"the body did not arrive within {self._time_s:g} s; send less"
            raise HTTPException(408, text, {"Connection": "close"}) from error
        self._whole = not message.get("more_body", False)
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._most:
            raise HTTPException(413, _too_large(self._most), {"Connection": "close"})
        return message


def _too_large(most: int) -> str:
    return f"the body has more than {most:,} bytes, which is the limit; send less"
