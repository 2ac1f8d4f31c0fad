"""A server of its own for a test, and a client that writes bytes of its choice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cli.stack.embedded_server import free_port
from shared.http.protocol import ServerProtocol
from tests.running import running_app

SECONDS = 10


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> Any:
        assert self.headers["content-type"] == "application/problem+json"
        return json.loads(self.body)["code"]


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, sent: bytes) -> None:
        self.writer.write(sent)

    async def answer(self) -> Answer:
        async with asyncio.timeout(SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, *lines = head.rstrip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(status.split()[1]), headers, body)

    async def is_closed(self) -> bool:
        """Whether the server ends the connection without another byte."""
        try:
            async with asyncio.timeout(SECONDS):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def connected(port: int, address: str = "127.0.0.1") -> AsyncIterator[Client]:
    """A client with this address, which begins with 127."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def lifespan(receive: Receive, send: Send) -> None:
    """Of an application that has nothing to start."""
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the length of the body and the number of headers."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    request = Request(scope, receive)
    body = await request.body()
    await Response(f"{len(body)} {len(scope['headers'])}")(scope, receive, send)


def limited(protocol: type[ServerProtocol] = ServerProtocol, **changes: Any) -> type[ServerProtocol]:
    """The protocol with other `ConnectionLimits`."""

    class Limited(protocol):  # type: ignore[misc, valid-type]  # a subclass of the protocol that is given
        limits = protocol.limits._replace(**changes)

    return Limited


@asynccontextmanager
async def server(protocol: type[ServerProtocol] = ServerProtocol, app: ASGIApp = echo) -> AsyncIterator[int]:
    """Runs the application; yields its port."""
    port = free_port()
    async with running_app(app, port, protocol):
        yield port
