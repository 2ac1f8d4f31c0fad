"""A client that is slow, silent or gone holds a connection for a bounded time, and no place among the requests."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from time import monotonic

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from command_service.admission import Limit, protocol
from shared.http.limits import Deadlines
from shared.http.protocol import ServerProtocol
from shared.settings import Settings
from tests.hostile.connections import Client, connected, echo, limited, server
from tests.orders import order_body
from tests.running import running_command_service

QUICK = Deadlines(first_byte=0.2, head=0.2, body=0.2, read=0.2, close=0.2, idle=0.2, resolution=0.02)
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with server(limited(deadlines=QUICK)) as port:
        yield port


@pytest.fixture
async def client(port: int) -> AsyncIterator[Client]:
    async with connected(port) as client:
        yield client


async def a_deadline_passes(port: int) -> None:
    """Each is as long as the others."""
    async with connected(port) as silent:
        assert await silent.is_closed()


class TestAConnection:
    @pytest.mark.promise("requests", "A connection that sends nothing is closed after 30 s")
    async def test_without_a_byte_is_closed(self, client: Client) -> None:
        assert await client.is_closed()

    async def test_without_a_request_is_closed(self, client: Client) -> None:
        client.send(b"\r\n\r\n")
        assert await client.is_closed()

    @pytest.mark.promise("requests", "An idle connection stays open for `KEEP_ALIVE_SECONDS`")
    async def test_that_is_idle_is_closed(self, client: Client) -> None:
        client.send(GET)
        assert (await client.answer()).status == 200
        assert await client.is_closed()

    @pytest.mark.parametrize("parts", [1, 100], ids=["in one piece", "in many pieces"])
    @pytest.mark.promise("requests", "A client that reads nothing of its answer for 30 s is disconnected")
    async def test_whose_client_reads_nothing_is_cut(self, parts: int) -> None:
        lost = asyncio.Event()

        async def answer_at_length(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await echo(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for left in reversed(range(parts)):
                body = b"a" * (50_000_000 // parts)
                await send({"type": "http.response.body", "body": body, "more_body": left > 0})

        class Noted(ServerProtocol):
            limits = ServerProtocol.limits._replace(deadlines=QUICK)

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                lost.set()

        async with server(Noted, answer_at_length) as port:
            lost.clear()
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(GET)
                async with asyncio.timeout(10):
                    await lost.wait()


class TestARequest:
    @pytest.mark.parametrize(
        "sent",
        [
            b"G",
            b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ",
            POST,
            POST + b"a",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
        ],
        ids=["a letter", "half a head", "no body", "a byte of a body", "half a chunked body", "asks and sends nothing"],
    )
    @pytest.mark.promise("requests", "A head that takes 15 s, or a body below 1 KiB/s, is answered 408")
    async def test_that_does_not_arrive_is_answered_408(self, client: Client, sent: bytes) -> None:
        client.send(sent)
        if b"Expect" in sent:
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        answer = await client.answer()
        assert (answer.status, answer.code, answer.headers["connection"]) == (408, "request-timeout", "close")
        assert await client.is_closed()

    async def test_that_arrives_in_drips_is_answered_408(self, client: Client) -> None:
        async def drip() -> None:
            client.send(b"GET / HTTP/1.1\r\n")
            while True:
                client.send(b"A: b\r\n")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert (await client.answer()).status == 408
        dripping.cancel()

    async def test_after_another_is_timed_too(self, client: Client) -> None:
        client.send(GET + GET[:10])
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 408

    async def test_whose_body_keeps_the_rate_may_take_longer(self, port: int, client: Client) -> None:
        size = 100_000
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"a" * (size - 1))
        await a_deadline_passes(port)
        client.send(b"a")
        assert (await client.answer()).status == 200

    async def test_in_progress_is_not_timed(self) -> None:
        may_answer = asyncio.Event()

        async def waits(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await may_answer.wait()
            await echo(scope, receive, send)

        async with server(limited(deadlines=QUICK), waits) as port, connected(port) as client:
            client.send(POST + b"a" * 10)
            await a_deadline_passes(port)
            may_answer.set()
            assert (await client.answer()).status == 200


@pytest.mark.promise("overload", "A request counts as load once its body is there")
async def test_requests_without_a_body_are_no_load() -> None:
    most = 10
    async with server(protocol(Limit(delay=0.1, most=most))) as port, AsyncExitStack() as slow:
        for sent in (POST, POST + b"a"):
            for _ in range(10 * most):
                client = await slow.enter_async_context(connected(port))
                client.send(sent)
        async with connected(port) as other:
            for _ in range(10):
                started = monotonic()
                other.send(POST + b"a" * 10)
                assert (await other.answer()).status == 200
                assert monotonic() - started < 1


@pytest.mark.promise("overload", "Clients that announce a body and send none delay no command")
async def test_orders_are_placed_while_clients_send_no_body(settings: Settings) -> None:
    few = Settings.model_validate({**settings.model_dump(), "append_queue_size": 50})
    head = b"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    async with running_command_service(few) as url, httpx.AsyncClient(base_url=url) as shop, AsyncExitStack() as slow:
        for _ in range(200):
            client = await slow.enter_async_context(connected(few.command_port, "127.0.0.2"))
            client.send(head + b"{")
        for _ in range(20):
            started = monotonic()
            assert (await shop.post("/orders", json=order_body())).status_code == 201
            assert monotonic() - started < 1


async def test_a_body_that_is_announced_as_too_large_is_refused_at_once() -> None:
    async with server() as port, connected(port) as client:
        started = monotonic()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 524289\r\n\r\n")
        assert (await client.answer()).status == 413
        assert monotonic() - started < 1


async def test_a_server_that_stops_refuses_the_request_that_has_not_arrived() -> None:
    class Seen(ServerProtocol):
        last: ServerProtocol

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            Seen.last = self

    async with server(Seen) as port, connected(port) as client, connected(port) as idle:
        idle.send(GET)
        await idle.answer()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n")
        await client.reader.readuntil(b"\r\n\r\n")
        for connection in list(Seen.last.connections):
            connection.shutdown()
        answer = await client.answer()
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "shutting-down", "1")
        assert await client.is_closed()
        assert await idle.is_closed()
