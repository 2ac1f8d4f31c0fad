"""The transport of an answer: its head and the beginning of its body leave in one write, which is one system call."""

from __future__ import annotations

import asyncio


class JoinedAnswer(asyncio.Transport):
    """Passes what an answer writes on to the connection. Keeps the head back until the first of the body follows; where
    that takes longer than the present turn of the event loop, as in an event stream, the head leaves alone."""

    def __init__(self, connection: asyncio.WriteTransport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._connection = connection
        self._loop = loop
        self._head: bytes | None = None
        self._alone: asyncio.Handle | None = None  # set once there was a head

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._alone is None:
            self._head = bytes(data)
            self._alone = self._loop.call_soon(self._send_head)
        elif self._head is not None:
            self._alone.cancel()
            head, self._head = self._head, None
            self._connection.writelines((head, data))
        else:
            self._connection.write(data)

    def close(self) -> None:
        self._send_head()
        self._connection.close()

    def is_closing(self) -> bool:
        return self._connection.is_closing()

    def _send_head(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._connection.write(head)
