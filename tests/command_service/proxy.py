"""A wire between a client and a server that can be cut at the worst moment."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Proxy:
    """Listens on 127.0.0.1:`port` and passes everything on, both ways, to 127.0.0.1:`target`."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.cut_before_the_answer_to: bytes | None = None
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _pass_on(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        ends = {to_client, to_server}
        self._writers |= ends
        doomed = asyncio.Event()
        try:
            await asyncio.gather(self._requests(client, to_server, doomed), self._answers(server, to_client, doomed))
        except OSError:
            pass
        finally:
            for writer in ends:
                writer.transport.abort()
            self._writers -= ends

    async def _requests(
        self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await client.read(65_536):
            if self.cut_before_the_answer_to and self.cut_before_the_answer_to in data:
                doomed.set()
            to_server.write(data)
            await to_server.drain()
        to_server.transport.abort()

    async def _answers(
        self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await server.read(65_536):
            if doomed.is_set():
                break
            to_client.write(data)
            await to_client.drain()
        to_client.transport.abort()
