"""A process's connection to the log: its leases are held by it, and all its projections read the log through it.

Each event is read once, however many follow the log here: the last batches are remembered for those who come later.
What is not there yet is never remembered, so nobody learns of an event later than by asking the log itself.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import asyncpg

from shared import postgres
from shared.eventstore import log as event_log
from shared.eventstore.log import Head, StoredEvent
from shared.settings import Settings

# The server ends a session that asks nothing for so long, and with it the leases of a process that is paused: its
# kernel would keep the connection alive for ever. One that is at work looks at its leases far more often than that.
# (One stopped within a statement is ended by `transaction_timeout`, from PostgreSQL 17 on: see `shared.postgres`.)
IDLE_SECONDS = 10.0
ANSWER_SECONDS = 10.0  # a statement that takes longer means that the connection is dead
REMEMBERED = 4  # batches; few, for the reason in decision 16

PROCESS_NAME = f"{socket.gethostname()}:{os.getpid()}"  # by which operators know it


class Batch(NamedTuple):
    """Events in order without a gap; `more`: there may be others after them already."""

    events: list[StoredEvent]
    more: bool


class Session:
    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()
        self._batches: deque[tuple[Batch, int]] = deque(maxlen=REMEMBERED)
        self._hints = 0  # that the log had grown

    @property
    def pid(self) -> int:
        """By which PostgreSQL knows it."""
        return self._connection.get_server_pid()

    @property
    def lost(self) -> bool:
        return self._connection.is_closed()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """The connection, for one caller at a time. Raises what is in `shared.postgres.CONNECTION_LOST`."""
        async with self._turn:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    yield self._connection
            except TimeoutError:
                self._connection.terminate()  # so that those who wait for their turn learn it at once
                raise

    async def read(self, after: int, limit: int) -> Batch:
        """At most `limit` events after a position."""
        if (known := self._remembered(after, limit)) is not None:
            return known
        async with self.turn() as connection:
            if (known := self._remembered(after, limit)) is not None:  # somebody else has read it meanwhile
                return known
            hints = self._hints
            events = await event_log.read_batch(connection, after, limit)
        batch = Batch(events, len(events) == limit)
        if events:
            self._batches.append((batch, hints))
        return batch

    def _remembered(self, after: int, limit: int) -> Batch | None:
        for nr, ((events, more), hints) in enumerate(reversed(self._batches)):
            if events[0].position <= after + 1 <= events[-1].position:
                start = after + 1 - events[0].position
                some = events[start : start + limit]
                return Batch(some, more or nr > 0 or hints != self._hints or len(some) < len(events) - start)
        return None

    def hint(self) -> None:
        """The log may have grown since."""
        self._hints += 1

    def forget(self) -> None:
        """What was read before: it may be of another log, or of another past of this one."""
        self._batches.clear()

    async def read_one(self, position: int) -> StoredEvent:
        """What the log has there now."""
        async with self.turn() as connection:
            return (await event_log.read_batch(connection, position - 1, 1))[0]

    async def read_head(self) -> Head:
        async with self.turn() as connection:
            return await event_log.read_head(connection)

    async def read_stream_page(self, stream_id: str, after_version: int) -> list[StoredEvent]:
        """At most `event_log.PAGE` events of one stream after a version."""
        async with self.turn() as connection:
            return await event_log.read_stream_page(connection, stream_id, after_version, event_log.PAGE)


@asynccontextmanager
async def open_session(
    settings: Settings, on_event: Callable[[], None], idle_seconds: float = IDLE_SECONDS
) -> AsyncIterator[Session]:
    """One that calls `on_event` when the log may have grown, and when the connection is lost."""
    connection = await postgres.connect(settings, "projector")
    try:
        await connection.execute(f"set idle_session_timeout = {round(idle_seconds * 1_000)}", timeout=ANSWER_SECONDS)
        session = Session(connection)

        def on_notify(*_: object) -> None:
            session.hint()
            on_event()

        connection.add_termination_listener(lambda *_: on_event())
        await connection.add_listener(event_log.CHANNEL, on_notify)
        yield session
    finally:
        # Not close(): that waits for the server, which may be the one that is gone.
        connection.terminate()
