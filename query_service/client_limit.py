"""Bounds what one client has open at once, so that it leaves some to the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shared.errors import Limited

WAITING = "queries that wait for a Consistency-Token"


@dataclass
class ClientLimitReached(Limited):
    """`limited` names what the client has too many of."""

    limited: str
    most: int
    code = "client-limit-reached"
    title = "The client has too many requests open"
    retry_after = 5.0

    @property
    def detail(self) -> str:
        return f"This client has {self.most} {self.limited} open, which is the most for one client."


class ClientLimit:
    def __init__(self, limited: str, most: int) -> None:
        self._limited = limited
        self._most = most
        self._open: Counter[str] = Counter()

    @contextmanager
    def slot(self, client: str) -> Iterator[None]:
        """Counts one while it is open. Raises `ClientLimitReached`."""
        if self._open[client] >= self._most:
            raise ClientLimitReached(self._limited, self._most)
        self._open[client] += 1
        try:
            yield
        finally:
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]
