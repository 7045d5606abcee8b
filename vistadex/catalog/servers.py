"""What all database servers have in common: limits by the address's options, and its safe form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa

from vistadex.errors import MissingExtraError, UsageError

RECYCLE_S = 1800
"""Connections of this age are made anew: servers and firewalls drop idle ones without a word."""
LOCK_STATE = "SELECT revision FROM state WHERE id = 1 FOR UPDATE"
"""The first statement of a writing transaction: writers come one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Options of an address that are ours: postgresql://me@host/db?pool_size=4&lock_timeout=60."""

    pool_size: int = 5
    """Connections kept open."""
    pool_overflow: int = 10
    """Connections beyond these while all are in use."""
    pool_timeout: int = 30
    """Seconds to wait for a free connection."""
    connect_timeout: int = 10
    """Seconds to wait for the server."""
    statement_timeout: int = 300
    """Seconds that one statement of a reader may take; 0: any time."""
    lock_timeout: int = 300
    """Seconds that a writer waits for another one; 0: any time."""
    application_name: str = "vistadex"
    """How the server's list of connections calls them."""


def split_limits(url: sa.URL) -> tuple[Limits, sa.URL]:
    """The limits that an address sets, and the address with the other options.

    Raises: UsageError for a limit that is no number.
    """
    given: dict[str, Any] = {}
    for field in fields(Limits):
        if field.name not in url.query:
            continue
        value = url.query[field.name]
        text = value if isinstance(value, str) else value[-1]
        if isinstance(field.default, str):
            given[field.name] = text
        elif text.isdecimal() and len(text) < 8 and (int(text) or field.name not in _POSITIVE):
            given[field.name] = int(text)
        else:
            raise UsageError(
                f"{shown(url)}: {field.name}={text!r} is no number that fits; give one such as "
                f"{field.name}={field.default}"
            )
    rest = url.difference_update_query([field.name for field in fields(Limits)])
    return Limits(**given), rest


_POSITIVE = ("pool_size", "pool_timeout", "connect_timeout")


def shown(url: sa.URL) -> str:
    """The address for messages: no password, and no options, which may hold secrets, too."""
    host = url.host or next(
        (str(url.query[name]) for name in ("host", "unix_socket") if name in url.query), ""
    )
    backend = url.drivername.partition("+")[0]
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    return f"{backend}://{user}{host}{port}/{url.database or ''}"


def pooled(
    url: sa.URL, limits: Limits, connect_args: Mapping[str, object], extra: str
) -> sa.Engine:
    """An engine with a pool of connections that are tried before they are used.

    Args:
        extra: what of this package installs the driver.
    Raises: MissingExtraError where the driver is not installed.
    """
    from vistadex.catalog.columns import dumped

    try:
        return sa.create_engine(
            url,
            connect_args=dict(connect_args),
            pool_size=limits.pool_size,
            max_overflow=limits.pool_overflow,
            pool_timeout=limits.pool_timeout,
            pool_pre_ping=True,
            pool_recycle=RECYCLE_S,
            json_serializer=dumped,
            hide_parameters=True,
        )
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{shown(url)} needs the package {error.name!r}: pip install 'vistadex[{extra}]'"
        ) from error


def need_database(url: sa.URL) -> None:
    """Raises: UsageError where an address names no database."""
    if not url.database:
        raise UsageError(f"{shown(url)}: names no database; write {shown(url)}vistadex")
