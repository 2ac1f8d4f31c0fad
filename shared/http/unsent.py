"""A bound of the answers that clients do not read: of all connections of a process together."""

from __future__ import annotations

import asyncio
from typing import Protocol

from shared.metrics import CONNECTIONS_CUT

MAX_UNSENT_BYTES = 48 * 2**20


class Connection(Protocol):
    transport: asyncio.Transport

    def cut(self) -> None:
        """Closes the connection at once."""


class Unsent:
    """The connections whose clients are slower than their answers. Where those take too many bytes of memory together,
    it cuts the one that has been slow for the longest time."""

    max_bytes = MAX_UNSENT_BYTES

    def __init__(self) -> None:
        self._slow: dict[Connection, None] = {}

    def add(self, connection: Connection) -> None:
        self._slow[connection] = None
        sizes = {slow: slow.transport.get_write_buffer_size() for slow in self._slow}
        excess = sum(sizes.values()) - self.max_bytes
        for slow, size in sizes.items():
            if excess <= 0:
                return
            excess -= size
            self.remove(slow)
            CONNECTIONS_CUT.inc()
            slow.cut()

    def remove(self, connection: Connection) -> None:
        self._slow.pop(connection, None)
