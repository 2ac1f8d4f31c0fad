"""A client of server-sent events that does what the standard requires of browsers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx

from tests.running import eventually


class EventSource:
    """What it received so far. `last_id` is the id with which a browser would resume, `first_id` the first one."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Any]] = []  # (id, data)
        self.comments: list[str] = []
        self.problems: list[Any] = []  # the data of events of that name
        self.first_id = ""
        self.last_id = ""
        self.retry_ms: int | None = None
        self.headers = httpx.Headers()
        self.ended = False  # by the server, orderly
        self.lost = False  # the connection
        self._data: list[str] = []
        self._id = ""
        self._name = ""  # of the event that is being read

    @property
    def positions(self) -> list[int]:
        return [data["position"] for _, data in self.messages]

    async def until(self, count: int, seconds: float = 10.0) -> None:
        """Until there are so many messages."""
        await eventually(lambda: len(self.messages) >= count, seconds)

    async def until_it_began(self) -> None:
        await eventually(lambda: self.last_id)

    async def until_reached(self, position: int) -> None:
        await eventually(lambda: self.last_id and int(self.last_id) >= position)

    async def read(self, answer: httpx.Response) -> None:
        try:
            async for line in answer.aiter_lines():
                self._take(line)
            self.ended = True
        except httpx.TransportError:
            self.lost = True

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "" if line:
                self.comments.append(value)
            case "":
                self.last_id = self._id
                self.first_id = self.first_id or self._id
                if self._data:
                    data = json.loads("\n".join(self._data))
                    if self._name == "problem":
                        self.problems.append(data)
                    else:
                        self.messages.append((self._id, data))
                self._data, self._name = [], ""
            case "id":
                self._id = value
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "retry":
                self.retry_ms = int(value)
            case _:
                raise AssertionError(line)


@asynccontextmanager
async def following(
    client: httpx.AsyncClient, path: str, last_id: int | str | None = None, **headers: str
) -> AsyncIterator[EventSource]:
    """Follows a path while the context is open; sends `last_id` as Last-Event-ID. Fails unless the answer is 200."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if last_id is not None:
        sent["Last-Event-ID"] = str(last_id)
    source = EventSource()
    async with client.stream("GET", path, headers=sent, timeout=httpx.Timeout(10, read=None)) as answer:
        assert answer.status_code == 200, await answer.aread()
        source.headers = answer.headers
        reading = asyncio.create_task(source.read(answer))
        try:
            yield source
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
