"""How often a password may be tried: each failure of an address makes the next wait longer."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from dataclasses import dataclass

MAX_ADDRESSES = 10_000
"""Of which failures are remembered; of more, the one longest unused is forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast failures add up, and how fast they are forgotten."""

    free: int
    """Failures without a wait; each one more doubles it, from a second on."""
    forget_s: float
    """One failure is forgotten in this time."""
    longest_s: float


ADDRESS = Pace(free=5, forget_s=300, longest_s=900)
EVERYONE = Pace(free=50, forget_s=5, longest_s=30)
"""Of all addresses together, so that many of them get no further than a few."""


@dataclass(slots=True)
class _Failures:
    number: float = 0.0
    at: float = 0.0

    def left(self, pace: Pace, now: float) -> float:
        """Failures that are not forgotten yet."""
        return max(0.0, self.number - (now - self.at) / pace.forget_s)

    def wait_s(self, pace: Pace, now: float) -> float:
        """Seconds until the next try; 0: now."""
        if self.number <= pace.free:
            return 0.0
        wait = min(pace.longest_s, math.exp2(min(self.number - pace.free - 1, 32)))
        return max(0.0, self.at + wait - now)


class Throttle:
    """Failures by client address and of all, in memory; of one process."""

    def __init__(self) -> None:
        self._everyone = _Failures()
        self._addresses: OrderedDict[str, _Failures] = OrderedDict()

    def wait_s(self, address: str, now: float | None = None) -> float:
        """Seconds until a client may try again; 0: it may now."""
        now = time.monotonic() if now is None else now
        own = self._addresses.get(_network(address), _Failures())
        return max(own.wait_s(ADDRESS, now), self._everyone.wait_s(EVERYONE, now))

    def failed(self, address: str, now: float | None = None) -> None:
        """Counts a wrong try."""
        now = time.monotonic() if now is None else now
        network = _network(address)
        own = self._addresses.get(network, _Failures())
        self._addresses[network] = _Failures(own.left(ADDRESS, now) + 1, now)
        self._addresses.move_to_end(network)
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)
        self._everyone = _Failures(self._everyone.left(EVERYONE, now) + 1, now)


def _network(address: str) -> str:
    """The address, of IPv6 its network: one client has all of it."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 6:
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return address
