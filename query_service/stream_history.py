"""The events of a stream, read from the log itself: from PostgreSQL or a replica of it, never from Redis.

Every answer comes from one read-only snapshot together with the head of the log in it, so the answer's
Consistency-Token says exactly how much of the log the answer shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar
from uuid import UUID

import asyncpg

from query_service.checkpoint_poller import CheckpointPoller
from query_service.log_reader import LogReader, LogUnavailable
from query_service.point_in_time import PointInTime
from shared.errors import Malformed, Unavailable
from shared.eventstore import log as event_log
from shared.eventstore.log import Head, StoredEvent
from shared.eventstore.token import ConsistencyToken
from shared.postgres import CONNECTION_LOST, create_pool, history_server
from shared.settings import Settings

SNAPSHOT_SECONDS = 5.0  # for one snapshot, the wait for a free connection included
CONNECTIONS = 4

T = TypeVar("T")
Connection = event_log.Connection


@dataclass
class LogLagging(Unavailable):
    """This copy of the log did not reach the token in time."""

    position: int
    wanted: int
    code = "projection-lagging"  # the contract promises this code for every token that is not reached
    title = "This copy of the log has not reached the Consistency-Token yet"

    @property
    def detail(self) -> str:
        return f"This copy of the log is at position {self.position}, the token asks for {self.wanted}."


@dataclass
class UnknownPosition(Malformed):
    position: int
    head: int
    code = "unknown-position"
    title = "The log does not reach that position"

    @property
    def detail(self) -> str:
        return (
            f"The log ends at position {self.head}, so no event was ever sent at {self.position}. If it was restored"
            " to an older state, read again and follow from there."
        )


class ResumePoint(NamedTuple):
    """Live updates begin after `position` of that log."""

    log_id: UUID
    position: int


class HistoryPage(NamedTuple):
    """Events of a stream that is at `version`; `more` says whether others follow them."""

    version: int
    events: list[StoredEvent]
    more: bool


class StreamHistory:
    """Every method also returns the head of the log. It waits up to `wait` seconds for the log to reach `token`.

    Every method raises `LogUnavailable`, `LogLagging` and `UnknownLog`.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._log = LogReader(pool)
        self._poller = CheckpointPoller(self._position)

    async def events(
        self, stream_id: str, after_version: int, limit: int, token: ConsistencyToken | None = None, wait: float = 0.0
    ) -> tuple[Head, HistoryPage | None]:
        """At most `limit` events after a version, as stored; None when there is no such stream."""

        async def read(connection: Connection) -> HistoryPage | None:
            version = await event_log.read_version(connection, stream_id)
            if version == 0:
                return None
            events = await event_log.read_stream_page(connection, stream_id, after_version, limit)
            return HistoryPage(version, events, more=bool(events) and events[-1].version < version)

        return await self._read(read, token, wait)

    async def resume_point(
        self, stream_id: str | None, after: int | None, token: ConsistencyToken | None = None, wait: float = 0.0
    ) -> tuple[Head, ResumePoint | None]:
        """Where live updates begin: after the position `after`, or at the head; None when there is no such stream.

        Raises `UnknownPosition`, too, when the log does not reach `after` in time.
        """

        async def exists(connection: Connection) -> bool:
            return stream_id is None or await event_log.read_version(connection, stream_id) > 0

        head, found = await self._read(exists, token, wait)
        if after is not None and after > head.position:
            try:  # the client may come from a replica that is ahead of this one
                head, found = await self._read(exists, ConsistencyToken(head.log_id, after), wait)
            except LogLagging as lagging:
                raise UnknownPosition(after, lagging.position) from lagging
        return head, ResumePoint(head.log_id, head.position if after is None else after) if found else None

    async def fold(
        self,
        stream_id: str,
        point: PointInTime,
        apply: Callable[[T | None, StoredEvent], T],
        token: ConsistencyToken | None = None,
        wait: float = 0.0,
    ) -> tuple[Head, T | None]:
        """The fold of the events that count at that point in time; None without any. Raises what `apply` raises."""

        async def read(connection: Connection) -> T | None:
            state: T | None = None
            async for event in event_log.read_stream(connection, stream_id):
                if not point.includes(event):
                    break
                state = apply(state, event)
            return state

        return await self._read(read, token, wait)

    async def reached(self) -> ConsistencyToken:
        """The end of this copy of the log."""
        return (await self._log.head()).token

    async def _read(
        self, read: Callable[[Connection], Awaitable[T]], token: ConsistencyToken | None, wait: float
    ) -> tuple[Head, T]:
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            try:
                async with asyncio.timeout(SNAPSHOT_SECONDS), self._snapshot() as (connection, head):
                    wanted = 0 if token is None else token.position_in(head.log_id)
                    if wanted <= head.position:
                        return head, await read(connection)
            except (*CONNECTION_LOST, asyncpg.SerializationError) as error:
                # SerializationError: on a replica, what came from the primary conflicted with the snapshot.
                raise LogUnavailable from error
            if not await self._poller.wait(wanted, 0, deadline):
                raise LogLagging(head.position, wanted)

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[tuple[Connection, Head]]:
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection, await event_log.read_head(connection)

    async def _position(self) -> int:
        return (await self._log.head()).position

    async def close(self) -> None:
        await self._poller.close()


@asynccontextmanager
async def open_history(settings: Settings) -> AsyncIterator[StreamHistory]:
    """Connects at the first read, so that the service starts without the server."""
    url, target = history_server(settings)
    pool = await create_pool(settings, "history", max_size=CONNECTIONS, target=target, url=url)
    history = StreamHistory(pool)
    try:
        yield history
    finally:
        await history.close()
        pool.terminate()
