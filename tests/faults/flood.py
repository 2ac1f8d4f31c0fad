"""Connections that send what they are told and read nothing, and a client that sends much quickly."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from cli.stack.embedded_server import HOST
from tests.faults.shop import Process
from tests.hostile.connections import connected

ADDRESSES = 12
_AHEAD = 50  # requests of one connection at once; fewer than are refused
_MANY_LINES = b"".join(b"X-%02d: %b\r\n" % (number, b"a" * 32) for number in range(90))
_LARGE_LINES = b"".join(b"X-%02d: %b\r\n" % (number, b"a" * 150) for number in range(95))


def head(method: str, path: str, token: str, *lines: str) -> bytes:
    """Of a request with that bearer token."""
    return "\r\n".join(
        [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}", *lines, "", ""]
    ).encode()


def with_body(method: str, path: str, token: str, body: bytes) -> bytes:
    return head(method, path, token, "Content-Type: application/json", f"Content-Length: {len(body)}") + body


class Flood:
    """Connections from several addresses in turn."""

    def __init__(self, process: Process) -> None:
        self._port = process.port
        self._open: list[socket.socket] = []

    async def send(self, connections: int, *requests: bytes) -> None:
        """One of the requests, in turn, on each of so many new connections, as far as the service takes it."""
        loop = asyncio.get_running_loop()
        for number in range(connections):
            one = socket.socket()
            self._open.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
            one.bind((f"127.0.0.{len(self._open) % ADDRESSES + 20}", 0))
            one.setblocking(False)
            with suppress(ConnectionError, TimeoutError):
                await loop.sock_connect(one, (HOST, self._port))
                async with asyncio.timeout(1):  # the service reads on no longer
                    await loop.sock_sendall(one, requests[number % len(requests)])

    async def fill(self, connections: int) -> None:
        """So many connections: the first hold heads and bodies as large as may be, until no more of them are taken, all
        others as much as does not count."""
        begin = b"POST /orders HTTP/1.1\r\nHost: localhost\r\n"
        large = begin + _LARGE_LINES + b"Content-Length: 16000\r\n\r\n" + b"x" * 15_999
        small = begin + _MANY_LINES + b"Content-Length: 4000\r\n\r\n" + b"x" * 3_999
        await self.send(connections // 4, large)
        await self.send(connections - connections // 4, small)

    def close(self) -> None:
        for one in self._open:
            one.close()


@contextmanager
def flooding(process: Process) -> Iterator[Flood]:
    """With as many open files as may be."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    flood = Flood(process)
    try:
        yield flood
    finally:
        flood.close()


async def send_each(process: Process, requests: Sequence[bytes], connections: int = 8, ahead: int = _AHEAD) -> None:
    """Sends them on some connections, `ahead` at once on each. Each succeeds."""

    async def send(some: Sequence[bytes]) -> None:
        async with connected(process.port) as client:
            for first in range(0, len(some), ahead):
                batch = some[first : first + ahead]
                client.send(b"".join(batch))
                for _ in batch:
                    answer = await client.answer()
                    assert answer.status in {200, 201}, answer

    await asyncio.gather(*(send(requests[number::connections]) for number in range(connections)))
