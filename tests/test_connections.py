"""Addresses of private networks: known by any name, never connected to where that is the rule."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web_site import Site, emptied, running, without_proxies
from vistadex import connections
from vistadex.connections import is_public
from vistadex.downloads import download, fetch, head
from vistadex.errors import SourceDeniedError, SourceUnavailableError
from vistadex.sources.places import Places

_proxies = pytest.fixture(autouse=True)(without_proxies)

PRIVATE = """
127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 0.0.0.0 100.64.0.1 224.0.0.1 240.0.0.1
255.255.255.255 192.0.2.1 198.18.0.1 168.63.129.16 :: ::1 fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254
ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1::
2002:a00:1:: 2001:db8::1 2001::1 fec0::1
"""
NAMES = """
127.0.0.1 localhost [::1] [::ffff:127.0.0.1] 0x7f.1 2130706433 0177.0.0.1 127.1 0 localhost.
LOCALHOST
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_addresses_of_private_networks_are_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"],
)
def test_public_addresses_are_known(address: str) -> None:
    assert is_public(address)


@pytest.fixture(scope="module")
def _site() -> Iterator[Site]:
    yield from running()


@pytest.fixture
def site(_site: Site) -> Site:
    connections.pool.cache_clear()  # of a test that took this machine for a public one
    return emptied(_site)


@pytest.mark.parametrize("host", NAMES.split())
def test_nothing_is_sent_to_a_private_host_by_any_name(site: Site, host: str) -> None:
    url = f"http://{host}:{site.server_port}/a.bin"
    for read in (fetch, head):
        with pytest.raises((SourceDeniedError, SourceUnavailableError), match=r"private|no host"):
            read(url, public_only=True)
    assert site.log == []


def test_a_download_is_refused_likewise(site: Site, tmp_path: Path) -> None:
    with pytest.raises(SourceDeniedError, match="--allow-private-addresses"):
        download(f"{site.url}/a.bin", tmp_path / "a.bin", public_only=True)
    assert site.log == []
    assert list(tmp_path.iterdir()) == []


def test_without_the_rule_private_hosts_are_read(site: Site) -> None:
    assert fetch(f"{site.url}/a.bin").data
    with pytest.raises(SourceDeniedError):  # and the kept connection is not used again
        fetch(f"{site.url}/a.bin", public_only=True)


def resolving(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[list[str]]]) -> dict[str, int]:
    """A resolver that gives other addresses each time it is asked; how often it was."""
    asked: dict[str, int] = {}
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *rest: object, **more: object) -> list[object]:
        if host not in names:
            return real(host, port, *rest, **more)  # type: ignore[arg-type]
        answers = names[host]
        addresses = answers[min(asked.get(host, 0), len(answers) - 1)]
        asked[host] = asked.get(host, 0) + 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def as_public(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Takes some addresses of this machine for public ones."""
    real = connections.is_public
    monkeypatch.setattr(connections, "is_public", lambda one: one in addresses or real(one))


def test_a_name_is_looked_up_once_so_that_it_can_not_change_its_mind(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_public(monkeypatch, "127.0.0.2")
    asked = resolving(monkeypatch, {"rebinding.example": [["127.0.0.2"], ["127.0.0.1"]]})
    with pytest.raises(SourceUnavailableError):  # nobody answers at the address that was checked
        fetch(f"http://rebinding.example:{site.server_port}/a.bin", public_only=True)
    assert asked == {"rebinding.example": 1}
    assert site.log == []


def test_a_name_with_one_private_address_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_public(monkeypatch, "127.0.0.1")
    resolving(monkeypatch, {"mixed.example": [["127.0.0.1", "10.0.0.1"]]})
    with pytest.raises(SourceDeniedError, match=r"^mixed\.example: lies in a private network"):
        fetch(f"http://mixed.example:{site.server_port}/a.bin", public_only=True)
    assert site.log == []


def test_a_public_host_is_read_under_its_own_name(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_public(monkeypatch, "127.0.0.1", "127.0.0.9")
    resolving(monkeypatch, {"public.example": [["127.0.0.9", "127.0.0.1"]]})
    place = f"public.example:{site.server_port}"
    assert fetch(f"http://{place}/a.bin", public_only=True).data == site.files["/a.bin"].data
    assert [one[2]["Host"] for one in site.log] == [place]


@pytest.mark.parametrize("host", ["10.0.0.1", "[::1]", "169.254.169.254", "private.example"])
def test_no_redirect_leads_to_a_private_host(
    site: Site, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    as_public(monkeypatch, "127.0.0.1")
    resolving(monkeypatch, {"private.example": [["192.168.0.1"]]})
    first, second = site.files["/a.bin"], f"{site.url}/b.bin"
    first.status, first.location = 302, second
    site.files["/b.bin"] = type(first)(status=307, location=f"http://{host}/c.bin")
    with pytest.raises(SourceDeniedError, match="private network"):
        fetch(f"{site.url}/a.bin", public_only=True)
    assert len(site.log) == 2


def test_a_proxy_is_not_asked_for_private_hosts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.url)
    with pytest.raises(SourceDeniedError):
        fetch("http://10.0.0.1/a.bin", public_only=True)
    assert site.log == []


def test_places_and_manifests_keep_to_the_rule(site: Site, tmp_path: Path) -> None:
    from vistadex.sources import open_source

    source, key = Places(local=False, public_only=True).locate(f"{site.url}/a.bin")
    with pytest.raises(SourceDeniedError):
        source.read_within(key, 10_000_000)
    for ask in (source.stat, source.read, lambda key: list(source.chunks(key))):
        with pytest.raises(SourceDeniedError):
            ask(key)
    with pytest.raises(SourceDeniedError):
        source.read_range(key, 0, 5)
    (tmp_path / "list.txt").write_text(f"{site.url}/a.bin\n")
    manifest = open_source(tmp_path / "list.txt")
    assert manifest.read(f"{site.url}/a.bin").data
    site.log.clear()
    manifest.only_public()
    with pytest.raises(SourceDeniedError):
        manifest.read(f"{site.url}/a.bin")
    assert site.log == []
