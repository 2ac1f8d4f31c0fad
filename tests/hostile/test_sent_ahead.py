"""Requests that are sent before earlier ones are answered cost a bounded number of bytes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import cast

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cli.stack.embedded_server import free_port
from command_service.admission import Limit, protocol
from shared.http.limits import MAX_HELD_BYTES_PER_CLIENT, SENT_AHEAD_BYTES
from shared.http.protocol import ServerProtocol
from tests.hostile.connections import connected, lifespan, limited, server
from tests.running import running_app

MIB = 2**20
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"


class Held:
    """An application that answers when it is told to. `protocols` are those of its connections."""

    def __init__(self) -> None:
        self.answers = asyncio.Semaphore(0)
        self.requests = 0
        self.protocols: set[ServerProtocol] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        self.requests += 1
        self.protocols.add(scope["state"]["protocol"])
        await self.answers.acquire()
        await Response(b"")(scope, receive, send)

    def answer(self, requests: int) -> None:
        for _ in range(requests):
            self.answers.release()

    @property
    def waiting(self) -> int:
        """Requests that were sent ahead."""
        return sum(len(one.pipeline) for one in self.protocols)


@pytest.mark.promise("memory", "Requests that a client sends ahead are not read before those before them are answered")
async def test_the_next_requests_are_read_when_those_before_are_answered() -> None:
    app = Held()
    async with server(app=app) as port, connected(port) as client:
        for _ in range(50):
            client.send(GET * 200)
            app.answer(1)
            assert (await client.answer()).status == 200
        assert app.waiting < 1_000
        app.answer(20_000)


@pytest.mark.promise("memory", "Requests that one client sends ahead are bounded over all of its connections")
@pytest.mark.bound("all", "heads and bodies over 4 KiB, and requests sent ahead, that have no answer yet")
async def test_requests_sent_ahead_are_bounded_for_each_client() -> None:
    app = Held()
    many = GET * 1_000
    async with server(app=app) as port, connected(port) as one, connected(port) as two, connected(port) as three:
        for client in (one, two, three):
            client.send(many)
        assert await three.is_closed()
        assert app.waiting <= MAX_HELD_BYTES_PER_CLIENT // SENT_AHEAD_BYTES
        async with connected(port, "127.0.0.2") as other:
            other.send(many)
            app.answer(20_000)
            for client in (one, two, other):
                for _ in range(1_000):
                    assert (await client.answer()).status == 200


@pytest.mark.promise("memory", "A client that does not read refusals is read no further")
async def test_refusals_that_are_not_read_do_not_add_up() -> None:
    limit = Limit(0.03, 1)
    limit.commands = 0
    transports: list[asyncio.Transport] = []

    class Watched(limited(protocol(limit))):  # type: ignore[misc]  # a subclass of the protocol that is given
        def connection_made(self, transport: asyncio.Transport) -> None:
            transports.append(transport)
            super().connection_made(transport)

    app = Held()
    port = free_port()
    async with running_app(app, port, cast("type[ServerProtocol]", Watched)), connected(port) as client:
        cast("asyncio.Transport", client.writer.transport).pause_reading()
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(2):
                while True:
                    client.send(POST * 1_000)
                    await client.writer.drain()
        assert transports[0].get_write_buffer_size() < 4 * MIB
        client.writer.transport.abort()
