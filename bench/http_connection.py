"""A minimal HTTP/1.1 client connection for load: prepared request bytes, one request at a time.

Parses only what our servers answer: `content-length` in lower case, no chunked bodies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

OnAnswer = Callable[[int, bytes], None]  # (status, body)

_LENGTH = b"content-length: "


class HttpConnection(asyncio.Protocol):
    def __init__(self) -> None:
        self._received = b""
        self._on_answer: OnAnswer | None = None
        self._transport: asyncio.Transport | None = None
        self.broken = asyncio.get_running_loop().create_future()  # done when the connection is closed

    @classmethod
    async def open(cls, port: int) -> HttpConnection:
        return (await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port))[1]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, on_answer: OnAnswer) -> None:
        """Calls `on_answer` with the complete answer. Send the next request only after that."""
        assert self._transport is not None
        self._on_answer = on_answer
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            at = data.index(_LENGTH, 0, end) + len(_LENGTH)
            length = int(data[at : data.index(b"\r", at)])
            if len(data) >= end + 4 + length:
                self._received = b""
                assert self._on_answer is not None
                self._on_answer(int(data[9:12]), data[end + 4 :])
                return
        self._received = data

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.broken.done():
            self.broken.set_result(exc)


def get_request(path: str, **headers: str) -> bytes:
    return _head("GET", path, headers) + b"\r\n"


def json_request(method: str, path: str, body: bytes, **headers: str) -> bytes:
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    return _head(method, path, headers) + b"\r\n" + body


def _head(method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "".join(f"{line}\r\n" for line in lines).encode()
