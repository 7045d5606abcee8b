"""Every exception that Vistadex raises, each with its CLI exit code and HTTP status.

    VistadexError
    ├── UsageError               a setting or argument is wrong
    │   ├── QueryError           a search query can't be read or names an unknown class
    │   ├── MissingExtraError    an optional library is not installed
    │   ├── BusyError            as many jobs as may be are at work
    │   ├── UploadTooLargeError  a request has more files or bytes than are taken
    │   ├── UploadTimeoutError   the bytes of a request came too slowly
    │   └── UploadsBusyError     as many requests with files as may be are being answered
    ├── NotFoundError            the image, model or class does not exist
    │   └── UnknownModelError    there is no such model to ask
    ├── SourceError              a folder or bucket can't be listed or read
    │   ├── SourceMissingError   the folder, bucket or key does not exist
    │   ├── SourceDeniedError    the source refuses the credentials or permissions at hand
    │   ├── SourceTooLargeError  a file has more bytes than were to be read into memory
    │   └── SourceUnavailableError   the source did not answer; trying again may help
    ├── ModelError               a model file can't be used
    │   └── ModelQuestionError   the file alone does not say how to use it
    ├── AccuracyDropError        a quantized model lost more than was allowed
    ├── LabelerError             a labeling service can't be used
    │   └── CallsUsedUpError     no more pictures may be sent to it in this run
    ├── CatalogError             the catalog can't be opened, read or written
    ├── FormatError              an annotation file can't be read or written
    └── DecodingError            bytes are not a picture that can be read

Messages say: place: what is wrong, what was expected, what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class VistadexError(Exception):
    """Anything that Vistadex reports to its user; catch this to catch them all."""

    exit_code = 1
    http_status = 500


class UsageError(VistadexError):
    """A setting or argument is wrong."""

    exit_code = 2
    http_status = 400


class QueryError(UsageError):
    """A search query can't be read, or names a class the catalog does not know."""

    def __init__(self, message: str, suggestions: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.suggestions = suggestions


class MissingExtraError(UsageError):
    """An optional library is not installed; the message names the extra."""


class BusyError(UsageError):
    """As many jobs as may be are at work."""

    http_status = 409


class UploadTooLargeError(UsageError):
    """A request has more files or bytes than are taken."""

    http_status = 413


class UploadTimeoutError(UsageError):
    """The bytes of a request came too slowly."""

    http_status = 408


class UploadsBusyError(UsageError):
    """As many requests with files as are taken at a time are being answered."""

    http_status = 503
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "2"}


class NotFoundError(VistadexError):
    """The image, model or class that was asked for does not exist."""

    exit_code = 3
    http_status = 404


class UnknownModelError(NotFoundError):
    """There is no such model to ask; `suggestions` are the nearest names."""

    def __init__(self, message: str, suggestions: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.suggestions = suggestions


class SourceError(VistadexError):
    """A folder or bucket can't be listed or read."""

    exit_code = 4
    http_status = 502


class SourceMissingError(SourceError):
    """The folder, bucket or key does not exist."""

    http_status = 404


class SourceDeniedError(SourceError):
    """The source refuses the credentials or permissions at hand."""


class SourceTooLargeError(SourceError):
    """A file has more bytes than were to be read into memory; None: how many is not stated."""

    def __init__(self, message: str, size_bytes: int | None = None) -> None:
        super().__init__(message)
        self.size_bytes = size_bytes


class SourceUnavailableError(SourceError):
    """The source did not answer or broke off; trying again may help."""


class ModelError(VistadexError):
    """A model file can't be used."""

    exit_code = 5
    http_status = 400


class ModelQuestionError(ModelError):
    """The model file alone does not say how to use it; the message says what to add."""


class AccuracyDropError(VistadexError):
    """A quantized model lost more accuracy than was allowed; nothing was stored."""

    exit_code = 10
    http_status = 409


class LabelerError(VistadexError):
    """A labeling service can't be used: credentials, permission, quota, or no answer."""

    exit_code = 9
    http_status = 502


class CallsUsedUpError(LabelerError):
    """As many pictures as the user allowed have been sent to a labeling service."""

    http_status = 429


class CatalogError(VistadexError):
    """The catalog can't be opened, read or written."""

    exit_code = 6


class FormatError(VistadexError):
    """An annotation file can't be read or written as a whole; single damaged lines are reported."""

    exit_code = 8
    http_status = 400


class DecodingError(VistadexError):
    """Bytes are not a picture that can be read; `reason` is one of records.FAILURE_REASONS."""

    exit_code = 7
    http_status = 415

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
