"""How many requests one caller may send, counted in this process."""

import math
import time
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Self

from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from starlette.requests import HTTPConnection

from facescreen.config import Settings
from facescreen.errors import RateLimitedError


class RateLimit:
    """So many requests in a window, which begins with the first of them.

    Args:
        limit: such as ``30/minute``; empty: any number.
    """

    def __init__(self, limit: str) -> None:
        self._limit = parse(limit) if limit else None
        self._counts = FixedWindowRateLimiter(MemoryStorage())

    async def take(self, caller: str) -> None:
        """Count a request, or raise :class:`RateLimitedError` if none is left."""
        if self._limit is not None and not await self._counts.hit(self._limit, caller):
            raise RateLimitedError(await self._seconds_left(caller))

    async def _seconds_left(self, caller: str) -> int:
        assert self._limit is not None  # noqa: S101 - else nothing is refused
        window = await self._counts.get_window_stats(self._limit, caller)
        return max(1, math.ceil(window.reset_time - time.time()))


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Of requests by address and by key, and of requests without a valid key by address."""

    per_address: RateLimit
    per_key: RateLimit
    failures: RateLimit

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            per_address=RateLimit(settings.rate_limit_per_address),
            per_key=RateLimit(settings.rate_limit_per_key),
            failures=RateLimit(settings.rate_limit_failures),
        )


def address_of(connection: HTTPConnection) -> str:
    """Whom a request is counted for: its IPv4 address, or its IPv6 /64, the smallest network that one site is given."""
    host = connection.client.host if connection.client else ""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    return str(address.ipv4_mapped or int(address) >> 64)
