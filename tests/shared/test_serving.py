"""How a service takes connections."""

from __future__ import annotations

import asyncio
import socket

from fastapi import FastAPI

from shared.settings import Settings
from shared.web import serve
from shared.wire import Wire
from tests.running import eventually, free_ports

CONNECTIONS = 200


class _Counted(Wire):
    made = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _Counted.made += 1


async def test_connections_that_wait_are_taken_many_in_one_turn_of_the_event_loop() -> None:
    [port] = free_ports(1)
    nobody = {"database_url": "postgresql://nobody", "redis_url": "redis://nobody"}
    settings = Settings.model_validate(nobody)
    serving = asyncio.create_task(serve(FastAPI(), port, settings, _Counted))
    await eventually(lambda: _listening(port))
    await eventually(lambda: _Counted.made == 1)

    # Blocking on purpose: none is taken while they arrive.
    clients = [socket.create_connection((settings.host, port)) for _ in range(CONNECTIONS)]
    turns = 0
    while _Counted.made < 1 + CONNECTIONS:
        await asyncio.sleep(0)
        turns += 1

    assert turns < CONNECTIONS / 4
    for client in clients:
        client.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
