"""The stylesheet and the scripts: read once, as every page asks whether they are still the same."""

from __future__ import annotations

from hashlib import blake2b
from mimetypes import guess_type
from pathlib import Path
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope


class _File(NamedTuple):
    data: bytes
    media_type: str | None
    tag: str


class ReadOnce(StaticFiles):
    """Files of a folder as they were when the app began."""

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder)
        self._files: dict[str, _File] = {}
        for path in folder.iterdir():
            if path.is_file():
                data = path.read_bytes()
                tag = f'"{blake2b(data, digest_size=12).hexdigest()}"'
                self._files[path.name] = _File(data, guess_type(path.name)[0], tag)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or that the browser has it; all else as StaticFiles answers it."""
        found = self._files.get(path) if scope["method"] == "GET" else None
        if found is None:
            return await super().get_response(path, scope)
        headers = {"ETag": found.tag}
        if found.tag in Headers(scope=scope).get("if-none-match", ""):
            return Response(None, 304, headers)
        return Response(found.data, 200, headers, found.media_type)
