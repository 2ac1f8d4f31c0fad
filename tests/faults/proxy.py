"""A proxy between our processes and a server, that can be cut, or go dead without a word in one direction or both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cli.stack.embedded_server import HOST, free_port


@dataclass(eq=False)
class _Line:
    """One connection. What it lost is gone for ever, as with a peer that vanished: it never works again."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    requests_lost: bool = False
    answers_lost: bool = False
    cut_at_answer: bool = False

    def abort(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class FaultProxy:
    """Listens on 127.0.0.1:`port` and passes everything on, both ways, to 127.0.0.1:`target`."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._listener: asyncio.Server | None = None
        self._lines: set[_Line] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self._requests_lost = False
        self._answers_lost = False
        self._awaited: tuple[bytes, Callable[[], None]] | None = None
        self._unanswered: bytes | None = None

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.refuse()
        if self._passing:
            await asyncio.wait(self._passing)

    def cut(self) -> None:
        """Resets every connection; new ones are welcome."""
        for line in self._lines:
            line.abort()

    async def refuse(self) -> None:
        """Resets every connection and takes no new ones."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.cut()

    def lead_to(self, target: int) -> None:
        """New connections lead to another server, as where a name's address changes; the others stay as they are."""
        self._target = target

    def before(self, request: bytes, action: Callable[[], None]) -> None:
        """Performs the action once, before it passes on the first request that contains these bytes."""
        self._awaited = request, action

    def cut_answer_to(self, request: bytes) -> None:
        """Resets the connection instead of passing on the answer to the first request that contains these bytes."""
        self._unanswered = request

    def lose(self, *, requests: bool, answers: bool) -> None:
        """Swallows what comes from the clients, or from the server, on every connection, new ones included; neither
        side is told, not even that the other has closed."""
        self._requests_lost, self._answers_lost = requests, answers
        for line in self._lines:
            line.requests_lost, line.answers_lost = line.requests_lost or requests, line.answers_lost or answers

    async def heal(self) -> None:
        """New connections work again."""
        self._requests_lost = self._answers_lost = False
        if self._listener is None:
            await self._listen()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._connected, HOST, self.port)

    async def _connected(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        try:
            server, to_server = await asyncio.open_connection(HOST, self._target)
        except OSError:
            to_client.transport.abort()
            self._passing.discard(task)
            return
        line = _Line(to_client, to_server, self._requests_lost, self._answers_lost)
        self._lines.add(line)
        try:
            await asyncio.gather(self._requests(line, client), self._answers(line, server))
        finally:
            line.abort()
            self._lines.discard(line)
            self._passing.discard(task)

    async def _requests(self, line: _Line, client: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await client.read(65_536):
                if self._awaited is not None and self._awaited[0] in data:
                    action, self._awaited = self._awaited[1], None
                    action()
                if self._unanswered is not None and self._unanswered in data:
                    line.cut_at_answer, self._unanswered = True, None
                if not line.requests_lost:
                    line.server.write(data)
                    await line.server.drain()
        if not line.requests_lost:
            line.abort()

    async def _answers(self, line: _Line, server: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while (data := await server.read(65_536)) and not line.cut_at_answer:
                if not line.answers_lost:
                    line.client.write(data)
                    await line.client.drain()
        if not line.answers_lost:
            line.abort()
