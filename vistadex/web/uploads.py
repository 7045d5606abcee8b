"""Pictures that a visitor sends: read within limits of number, bytes, pixels and time.

A request that goes beyond a limit is refused as a whole. Nothing is kept here: what is larger
than a megabyte lies in an unnamed temporary file while the request is read.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from vistadex.errors import (
    UploadsBusyError,
    UploadTimeoutError,
    UploadTooLargeError,
    UsageError,
)

M = TypeVar("M", bound=BaseModel)
MAX_FIELDS = 50
MAX_NAME = 255
MAX_REQUESTS = 8
"""Requests with files that are read or answered at a time: their bytes are in memory."""
DECODING = threading.Semaphore(2)
"""Uploads that are decoded at a time, whatever their requests: each may take a few hundred MB."""

_PLACES = threading.BoundedSemaphore(MAX_REQUESTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """What a request may bring."""

    max_files: int = 20
    max_file_bytes: int = 32_000_000
    max_bytes: int = 128 << 20
    """Of the whole request."""
    max_pixels: int = 50_000_000
    """Of one picture."""
    timeout_s: float = 60
    """For all bytes of the request to come."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a request."""

    name: str
    """As the visitor's machine calls it, without folders; for messages, never a path to open."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """What a request brought: files in their order, and the last value of each other field."""

    files: tuple[Upload, ...]
    fields: Mapping[str, str] = field(default_factory=dict)


def uploaded(limits: UploadLimits) -> Callable[[Request], AsyncIterator[Form]]:
    """A dependency that reads the files of a multipart request.

    Raises (when it reads): UsageError for a body that can't be read or has no file;
        UploadTooLargeError; UploadTimeoutError; UploadsBusyError, before anything of it is read.
    """

    async def read(request: Request) -> AsyncIterator[Form]:
        _check_announced(request, limits)
        if not _PLACES.acquire(blocking=False):
            raise UploadsBusyError(
                f"{request.url.path}: {MAX_REQUESTS} requests with files are being answered, which "
                "is the limit; try again in a moment"
            )
        try:
            yield await _in_time(request, limits)
        finally:
            _PLACES.release()

    return read


async def _in_time(request: Request, limits: UploadLimits) -> Form:
    try:
        async with asyncio.timeout(limits.timeout_s):
            return await _form(request, limits)
    except TimeoutError as error:
        raise UploadTimeoutError(
            f"{request.url.path}: the files did not arrive within {limits.timeout_s:g} s; "
            "send fewer or smaller ones"
        ) from error


def read_fields(form: Form, kind: type[M]) -> M:
    """What the fields of a form say; those that nobody asked for are passed over.

    Raises: UsageError that names the field.
    """
    known = {name: value for name, value in form.fields.items() if name in kind.model_fields}
    try:
        return kind.model_validate(known)
    except ValueError as error:
        problems: Any = getattr(error, "errors", list)()
        said = "; ".join(f"{one['loc'][-1]}: {one['msg'].lower()}" for one in problems)
        raise UsageError(said or str(error)) from error


def documented(field_name: str, **fields: Mapping[str, Any]) -> dict[str, Any]:
    """The request's body for OpenAPI: files under a name, and other fields with their schemas."""
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
    schema = {
        "type": "object",
        "properties": {field_name: files, **fields},
        "required": [field_name],
    }
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


def _check_announced(request: Request, limits: UploadLimits) -> None:
    """Refuses what is too much by its own words, before any of it is read."""
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        given = repr(kind) if kind else "of no stated type"
        raise UsageError(
            f"{request.url.path}: the body is {given}, expected multipart/form-data with a file"
        )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limits.max_bytes:
        raise _too_large(request, limits)


async def _form(request: Request, limits: UploadLimits) -> Form:
    limited = Request(request.scope, _counted(request, limits))
    try:
        form = await limited.form(max_files=limits.max_files, max_fields=MAX_FIELDS)
    except HTTPException as error:
        if error.status_code != 400:  # the server's own limits
            raise
        raise _unreadable(request, limits, error.detail) from error
    except ClientDisconnect as error:  # nobody reads the answer
        raise UsageError(f"{request.url.path}: the body broke off; send it again") from error
    try:
        return await _read(request, form, limits)
    finally:
        await form.close()


def _counted(request: Request, limits: UploadLimits) -> Callable[[], Coroutine[Any, Any, Message]]:
    """The request's messages, until they are too many bytes."""
    seen = 0

    async def receive() -> Message:
        nonlocal seen
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > limits.max_bytes:
            raise _too_large(request, limits)
        return message

    return receive


async def _read(request: Request, form: FormData, limits: UploadLimits) -> Form:
    files: list[Upload] = []
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            fields[name] = value
            continue
        shown = _shown_name(value.filename or "")
        if (value.size or 0) > limits.max_file_bytes:
            raise UploadTooLargeError(
                f"{shown}: {value.size:,} bytes, at most {limits.max_file_bytes:,} are taken; "
                "send a smaller picture"
            )
        data = await value.read()
        if data or value.filename:  # a browser sends an empty, nameless file where none is chosen
            files.append(Upload(shown, data))
    if not files:
        raise UsageError(f"{request.url.path}: no file in the request; choose a picture")
    return Form(tuple(files), fields)


def _shown_name(name: str) -> str:
    """A file's own name, printable, and no longer than it needs to be told apart."""
    own = name.replace("\\", "/").rpartition("/")[2][:MAX_NAME]
    return "".join(letter for letter in own if letter.isprintable()) or "upload"


def _unreadable(request: Request, limits: UploadLimits, detail: str) -> UsageError:
    if detail.startswith("Too many files"):
        return UploadTooLargeError(
            f"{request.url.path}: more than {limits.max_files} files; send them in several requests"
        )
    return UsageError(
        f"{request.url.path}: not readable as multipart/form-data ({detail.rstrip('.').lower()})"
    )


def _too_large(request: Request, limits: UploadLimits) -> UploadTooLargeError:
    return UploadTooLargeError(
        f"{request.url.path}: the request has more than {limits.max_bytes:,} bytes, which is the "
        "limit; send fewer or smaller files"
    )
