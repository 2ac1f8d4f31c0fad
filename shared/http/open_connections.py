"""The open connections of one server: how many there are of each client, what they hold, and which are late."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from uvicorn.middleware.proxy_headers import _TrustedHosts

from shared.http.client import client_at
from shared.http.limits import (
    MAX_HELD_BYTES,
    MAX_HELD_BYTES_PER_CLIENT,
    ConnectionLimits,
)
from shared.http.unsent import Unsent
from shared.metrics import HTTP_CONNECTIONS, HTTP_CONNECTIONS_REFUSED


class Connection(Protocol):
    read_deadline: float  # of the event loop's clock
    write_deadline: float

    def expire(self) -> None:
        """Called once a deadline has passed."""


class OpenConnections:
    def __init__(self, limits: ConnectionLimits, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = limits
        self.unsent = Unsent()
        self.draining = False  # the server closes soon: each answer ends its connection
        self._loop = loop
        self._trusted = _TrustedHosts(limits.trusted_proxies)
        self._clients: dict[Connection, str | None] = {}
        self._connections_of: Counter[str] = Counter()
        self._held_bytes = 0
        self._held_bytes_of: Counter[str] = Counter()
        self._sweep_is_due = False

    def add(self, connection: Connection, address: str) -> bool:
        """False where there are too many connections, in all or of this client. Else `remove` has to follow."""
        limits = self.limits
        client = None if address in self._trusted else client_at(address)
        if len(self._clients) >= limits.max_connections:
            HTTP_CONNECTIONS_REFUSED.labels("all").inc()
            return False
        if client is not None:
            if self._connections_of[client] >= limits.max_connections_per_client:
                HTTP_CONNECTIONS_REFUSED.labels("client").inc()
                return False
            self._connections_of[client] += 1
        self._clients[connection] = client
        HTTP_CONNECTIONS.inc()
        if not self._sweep_is_due:
            self._sweep_is_due = True
            self._loop.call_later(limits.deadlines.resolution, self._sweep)
        return True

    def remove(self, connection: Connection) -> None:
        client = self._clients.pop(connection)
        HTTP_CONNECTIONS.dec()
        if client is not None:
            _subtract(self._connections_of, client, 1)

    def client_on(self, connection: Connection) -> str | None:
        """None for a trusted proxy's connection, and for one that was refused or lost."""
        return self._clients.get(connection)

    def client_of(self, connection: Connection, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The client that sends a request with these headers: on a proxy's connection, the one that it forwards."""
        client = self.client_on(connection)
        if client is None:
            forwarded = b",".join([value for name, value in headers if name == b"x-forwarded-for"])
            client = client_at(self._trusted.get_trusted_client_address(forwarded.decode("latin-1"))[0])
        return client

    def take(self, client: str | None, size: int) -> bool:
        """Whether a connection of the client may hold so many more bytes. If so, `give_back` has to follow."""
        if self._held_bytes + size > MAX_HELD_BYTES:
            return False
        if client is not None:
            if self._held_bytes_of[client] + size > MAX_HELD_BYTES_PER_CLIENT:
                return False
            self._held_bytes_of[client] += size
        self._held_bytes += size
        return True

    def give_back(self, client: str | None, size: int) -> None:
        self._held_bytes -= size
        if client is not None:
            _subtract(self._held_bytes_of, client, size)

    def _sweep(self) -> None:
        now = self._loop.time()
        late = [one for one in self._clients if one.read_deadline < now or one.write_deadline < now]
        for connection in late:
            connection.expire()
        self._sweep_is_due = bool(self._clients)
        if self._sweep_is_due:
            self._loop.call_later(self.limits.deadlines.resolution, self._sweep)


def _subtract(counts: Counter[str], client: str, count: int) -> None:
    counts[client] -= count
    if not counts[client]:
        del counts[client]
