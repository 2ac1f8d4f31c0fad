"""Connections, and the bytes that they hold, are bounded in all and for each client; others are served meanwhile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from fastapi import FastAPI

from shared.http.limits import MAX_HELD_BYTES, MAX_HELD_BYTES_PER_CLIENT
from shared.http.protocol import ServerProtocol
from shared.http.server import serve
from shared.settings import Settings
from tests.hostile.connections import Client, connected, limited, server
from tests.running import eventually, free_ports

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ANOTHER_ADDRESS = "127.0.0.2"


@asynccontextmanager
async def many(port: int, count: int, address: str = "127.0.0.1") -> AsyncIterator[list[Client]]:
    """Connections that have had an answer."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(port, address)) for _ in range(count)]
        for client in clients:
            client.send(GET)
            assert (await client.answer()).status == 200
        yield clients


async def is_refused(port: int, address: str = "127.0.0.1") -> bool:
    async with connected(port, address) as client:
        answer = await client.answer()
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "too-many-connections", "1")
        return await client.is_closed()


async def is_served(port: int) -> bool:
    async with connected(port) as client:
        client.send(GET)
        return (await client.answer()).status == 200


@pytest.mark.promise("requests", "A process has at most `MAX_CONNECTIONS` connections, and frees each that ends")
@pytest.mark.bound("all", "connections, with a head and a body of 4 KiB each")
async def test_more_connections_than_all_may_have_are_refused() -> None:
    async with server(limited(max_connections=5)) as port:
        async with many(port, 5):
            assert await is_refused(port)
            assert await is_refused(port, ANOTHER_ADDRESS)
        await eventually(lambda: is_served(port))


@pytest.mark.promise("requests", "One address has at most `MAX_CONNECTIONS_PER_CLIENT`; others are served meanwhile")
async def test_one_address_cannot_have_all_connections() -> None:
    async with server(limited(max_connections_per_client=5)) as port, many(port, 5):
        assert await is_refused(port)
        async with many(port, 5, ANOTHER_ADDRESS):
            assert await is_refused(port, ANOTHER_ADDRESS)


async def test_a_trusted_proxy_has_connections_for_many_clients() -> None:
    limits = limited(max_connections_per_client=5, trusted_proxies="10.0.0.0/8,127.0.0.1")
    async with server(limits) as port, many(port, 20):
        pass


@pytest.mark.promise("requests", "Large bodies without an answer take at most 32 MiB, 8 MiB of one client")
async def test_large_bodies_are_bounded_for_each_client() -> None:
    size = 512 * 1024
    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % size

    async with server() as port, AsyncExitStack() as stack:

        async def half_sent(address: str) -> Client:
            """A client whose body lacks one byte."""
            client = await stack.enter_async_context(connected(port, address))
            client.send(head)
            await client.reader.readuntil(b"\r\n\r\n")
            client.send(b"a" * (size - 1))
            await client.writer.drain()
            return client

        async def fill(address: str) -> list[Client]:
            clients = [await half_sent(address) for _ in range(MAX_HELD_BYTES_PER_CLIENT // size)]
            refused = await half_sent(address)
            answer = await refused.answer()
            assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "overloaded", "1")
            return clients

        clients = MAX_HELD_BYTES // MAX_HELD_BYTES_PER_CLIENT
        filled = [await fill(f"127.0.0.{number}") for number in range(1, 1 + clients)]

        async with connected(port, "127.0.0.99") as other:
            other.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size)
            assert (await other.answer()).code == "overloaded", "together they have all"
        async with connected(port, "127.0.0.99") as small:
            small.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"a" * 1_000)
            assert (await small.answer()).status == 200, "small bodies need nothing of it"

        for client in filled[0]:
            client.send(b"a")
            assert (await client.answer()).body == b"%d 3" % size
        async with connected(port) as again:
            again.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size)
            assert (await again.answer()).status == 200, "what was answered is given back"


@pytest.mark.promise(
    "requests", "Large heads are bounded in bytes, in all and for each client; small ones are not refused"
)
@pytest.mark.parametrize("rest", [b"", b"\r\nContent-Length: 2\r\n\r\n{"], ids=["incomplete", "complete"])
async def test_large_heads_are_bounded_for_each_client(rest: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 8_000 + b"\r\nX-B: " + b"b" * 7_000 + rest
    fit = MAX_HELD_BYTES_PER_CLIENT // len(head)
    async with server() as port, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(port)) for _ in range(fit + 20)]
        for client in clients:
            client.send(head)
        answers = [await client.answer() for client in clients[fit + 5 :]]
        assert {(answer.status, answer.code) for answer in answers} == {(503, "overloaded")}
        assert await is_served(port), "small ones need nothing of it"
        async with connected(port, ANOTHER_ADDRESS) as other:
            other.send(
                head.replace(b"POST", b"GET").replace(b"\r\nContent-Length: 2", b"").removesuffix(b"{") + b"\r\n\r\n"
            )
            assert (await other.answer()).status == 200


@pytest.mark.parametrize("path", [b"/", b"/nowhere"])
async def test_a_chunked_body_without_end_is_refused_at_its_bound(path: bytes) -> None:
    async with server() as port, connected(port) as client:
        client.send(b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" % path)
        client.send((b"10000\r\n" + b"a" * 0x10000 + b"\r\n") * 9)
        answer = await client.answer()
        assert (answer.status, answer.code) == (413, "body-too-large")


def settings(**changes: object) -> Settings:
    given = {"database_url": "postgresql://nobody", "redis_url": "redis://nobody", **changes}
    return Settings.model_validate(given)


async def test_the_kernel_notices_a_peer_that_is_gone() -> None:
    sockets: list[socket.socket] = []

    class Seen(ServerProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            sockets.append(transport.get_extra_info("socket"))

    [port] = free_ports(1)
    serving = asyncio.create_task(serve(FastAPI(), port, settings(), Seen))
    await eventually(lambda: _listens(port))
    async with connected(port) as client:
        client.send(GET)
        await client.reader.readuntil(b"\r\n\r\n")
        accepted = sockets[-1]
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 60_000
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
