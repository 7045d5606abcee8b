"""Connections to web servers: kept, through proxies, and to public hosts alone where asked for."""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3 import connection as connecting
from urllib3 import exceptions as foreign

from vistadex.errors import SourceDeniedError, SourceUnavailableError

KEPT_CONNECTIONS = 32

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""Stand for the IPv4 address in their last four bytes (NAT64)."""
_PLATFORM = {ipaddress.IPv4Address("168.63.129.16")}
"""Public by its number, but Azure's own service inside of each of its machines."""


def public_addresses(host: str, port: int | None) -> list[str]:
    """The addresses of a host; at least one.

    Raises: SourceDeniedError if one of them is in a private network.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise SourceUnavailableError(
            f"{host}: no network, or no host of that name; connect this machine or check the "
            "address"
        ) from error
    addresses = [str(one[4][0]) for one in found]
    if not all(is_public(one) for one in addresses):
        raise SourceDeniedError(
            f"{host}: lies in a private network, expected a public address where metadata names "
            "it; `vistadex serve --allow-private-addresses` reads from such ones, too"
        )
    return addresses


def is_public(address: str) -> bool:
    """Whether an IP address is that of a host on the internet, not of a private network or none."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found in _TRANSLATED:
            inner: ipaddress.IPv4Address | None = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        else:
            inner = found.ipv4_mapped or found.sixtofour
        if inner is None:
            return found in _GLOBAL_UNICAST and found.is_global
        found = inner
    return found.is_global and not (found.is_multicast or found.is_reserved or found in _PLATFORM)


class _PublicConnection(connecting.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connected(self, super()._new_conn)


class _PublicTlsConnection(connecting.HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _connected(self, super()._new_conn)


class _PublicPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PublicConnection


class _PublicTlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _PublicTlsConnection


class PublicPools(urllib3.PoolManager):
    """Connections that are made to public addresses alone, whatever a name leads to meanwhile."""

    def __init__(self, maxsize: int) -> None:
        super().__init__(maxsize=maxsize)
        self.pool_classes_by_scheme = {"http": _PublicPool, "https": _PublicTlsPool}


def _connected(
    connection: connecting.HTTPConnection, connect: Callable[[], socket.socket]
) -> socket.socket:
    """A socket to one of the addresses that were checked, which are not looked up again."""
    host = connection.host
    *others, last = public_addresses(host, connection.port)
    try:
        for connection.host in others:
            with suppress(foreign.HTTPError):
                return connect()
        connection.host = last
        return connect()
    finally:
        connection.host = host


@cache
def pool(process: int, proxy: str, public_only: bool) -> urllib3.PoolManager:
    """The connections of one process; a forked one must not share its parent's."""
    if not proxy:
        kind = PublicPools if public_only else urllib3.PoolManager
        return kind(maxsize=KEPT_CONNECTIONS)
    user = urlsplit(proxy)
    login = f"{unquote(user.username)}:{unquote(user.password or '')}" if user.username else None
    headers = urllib3.make_headers(proxy_basic_auth=login)
    return urllib3.ProxyManager(proxy, proxy_headers=headers, maxsize=KEPT_CONNECTIONS)


def proxy_for(scheme: str, host: str) -> str:
    """The address of the proxy that the environment names for this host; empty: none."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all") or ""
    if not proxy or urllib.request.proxy_bypass(host):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"
