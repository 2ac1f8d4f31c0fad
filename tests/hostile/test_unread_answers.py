"""Clients that do not read their answers cost a bounded number of bytes together."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from prometheus_client import REGISTRY
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cli.stack.embedded_server import free_port
from shared.http.unsent import Unsent
from tests.hostile.connections import connected, echo
from tests.running import eventually, running_app

MIB = 2**20
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def eight_mib(scope: Scope, receive: Receive, send: Send) -> None:
    """More than the buffers of the kernel take."""
    if scope["type"] == "lifespan":
        await echo(scope, receive, send)
    else:
        await Response(bytes(8 * MIB))(scope, receive, send)


def cut() -> float:
    return REGISTRY.get_sample_value("orders_connections_cut_total") or 0.0


@pytest.mark.promise("memory", "Of clients that do not read their answers, the slowest is cut before memory runs out")
@pytest.mark.bound("all", "answers that clients do not read")
async def test_the_connection_that_has_been_slow_for_longest_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Unsent, "max_bytes", 20 * MIB)
    before = cut()
    port = free_port()
    async with running_app(eight_mib, port), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(port)) for _ in range(6)]
        for client in clients:
            client.send(REQUEST)
        await eventually(lambda: cut() - before >= 2)

        async with connected(port) as reader:
            reader.send(REQUEST)
            assert len((await reader.answer()).body) == 8 * MIB
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await clients[0].answer()
        for client in clients:
            client.writer.transport.abort()
