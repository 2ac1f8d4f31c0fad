"""The bytes that one connection holds of those that all may hold, until its requests are answered."""

from __future__ import annotations

from shared.http.open_connections import OpenConnections


class HeldBytes:
    def __init__(self, connections: OpenConnections, client: str | None) -> None:
        """`client` is None for a trusted proxy."""
        self._connections = connections
        self._client = client
        self._bytes = 0
        self._head = 0  # of these, of a head that is not complete

    def add(self, size: int) -> bool:
        """Whether there is space for so many bytes more; if so, they are held."""
        if not self._connections.take(self._client, size):
            return False
        self._bytes += size
        return True

    def grow_head(self, size: int) -> bool:
        """The same for the head that is arriving, which has so many bytes in all."""
        more, self._head = size - self._head, size
        return self.add(more)

    def end_head(self) -> None:
        """The next head is another one."""
        self._head = 0

    def release(self) -> None:
        if self._bytes:
            self._connections.give_back(self._client, self._bytes)
            self._bytes = self._head = 0
