"""How a service takes connections."""

from __future__ import annotations

import asyncio
import gc
import socket
from weakref import ref

from fastapi import FastAPI, HTTPException, Response

from shared.http.protocol import ServerProtocol
from shared.http.server import serve
from shared.settings import Settings
from tests.running import eventually, free_ports, running_app

CONNECTIONS = 200


class _Counted(ServerProtocol):
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


async def test_a_connection_that_was_closed_leaves_nothing_for_the_cyclic_collector() -> None:
    """It runs seldom, so clients that connect anew for each request would make the process grow."""
    [port] = free_ports(1)
    made: list[ref[ServerProtocol]] = []

    class Recorded(ServerProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            made.append(ref(self))

    gc.collect()
    gc.disable()
    try:
        async with running_app(_app(), port, Recorded):
            for _ in range(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                for path in (b"/", b"/fails", b"/nowhere"):
                    writer.write(b"POST %b HTTP/1.1\r\nHost: us\r\nContent-Length: 0\r\n\r\n" % path)
                    await reader.readuntil(b"\r\n\r\n")
                writer.close()
                await writer.wait_closed()
            assert len(made) >= 20
            await eventually(lambda: not any(protocol() for protocol in made))
    finally:
        gc.enable()


def _app() -> FastAPI:
    app = FastAPI()

    @app.post("/")
    async def answer() -> Response:
        return Response(status_code=204)

    @app.post("/fails")
    async def fail() -> Response:
        raise HTTPException(503)

    return app


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
