"""Limits how many requests a client sends: token buckets in a table of fixed size."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from time import monotonic_ns
from typing import Any

from shared.errors import Limited
from shared.http.response_headers import Headers
from shared.settings import Settings

CELLS = 2**18  # of 8 bytes, however many clients there are
DEFAULT_RATE = 200  # requests a second, where callers are identified

_SECOND = 10**9  # nanoseconds

DESCRIBED: Mapping[str, Any] = {
    "RateLimit-Policy": {
        "description": "Requests that a client may send at once (`q`), and the seconds in which so many are allowed"
        " again (`w`); draft-ietf-httpapi-ratelimit-headers. Missing where there is no limit.",
        "schema": {"type": "string"},
        "example": '"requests";q=1000;w=5',
    },
    "RateLimit": {
        "description": "Requests that the client may send now (`r`). To stay within its rate, it spreads them over so"
        " many seconds (`t`).",
        "schema": {"type": "string"},
        "example": '"requests";r=998;t=5',
    },
}


@dataclass
class TooManyRequests(Limited):
    """`rate` requests a second are allowed on average, `burst` at once."""

    rate: int
    burst: int
    code = "too-many-requests"
    title = "The client sends requests too fast"
    retry_after = 1.0

    @property
    def detail(self) -> str:
        return (
            f"One client may send {self.rate} requests a second on average, and {self.burst} at once. Nothing was done."
        )


class RateLimit:
    """A bucket is the time at which it is full again (the generic cell rate algorithm), in the cell of its client.

    Nothing is evicted, so no number of clients gives one its requests back. Clients whose cells are the same share a
    bucket; `hash` is keyed with a secret of the process, so none chooses with whom.
    """

    def __init__(self, rate: int, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._cost = _SECOND // rate  # of a request, in nanoseconds
        self._capacity = burst * self._cost
        self._full_at = array("q", bytes(8 * CELLS))
        self._policy = b"ratelimit-policy", b'"requests";q=%d;w=%d' % (burst, ceil(burst / rate))

    @staticmethod
    def of(settings: Settings) -> RateLimit | None:
        rate = settings.rate_limit
        if rate is None:
            rate = DEFAULT_RATE if settings.auth == "jwt" else 0
        return RateLimit(rate, settings.rate_limit_burst) if rate else None

    def take(self, client: str) -> int:
        """Counts a request of the client. Returns how many more it may send now. Raises `TooManyRequests`."""
        now = monotonic_ns()
        cell = hash(client) % CELLS
        full_at = max(now, self._full_at[cell]) + self._cost
        left = self._capacity - (full_at - now)
        if left < 0:
            raise TooManyRequests(self._rate, self._burst)
        self._full_at[cell] = full_at
        return left // self._cost

    def give_back(self, client: str) -> None:
        """Of a request that `take` counted: it turned out to be another client's."""
        self._full_at[hash(client) % CELLS] -= self._cost

    def headers(self, left: int) -> Headers:
        """Of an answer. The requests that are left, spread over `t` seconds, come at the rate that is allowed."""
        return self._policy, (b"ratelimit", b'"requests";r=%d;t=%d' % (left, max(1, ceil(left / self._rate))))
