"""The past, read from the log itself: from PostgreSQL or a replica of it, never from Redis.

Every answer is found in one read-only snapshot together with the head of the log as it was in it, so that the answer's
Consistency-Token says exactly how much of the log it rests on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar
from uuid import UUID

import asyncpg

from query_service import time_travel
from query_service.log import Log, LogUnavailable
from query_service.looking import Looks
from query_service.time_travel import Moment, PastOrder
from shared.aggregates.order import stream_of
from shared.errors import Malformed, Unavailable
from shared.eventstore import log as event_log
from shared.eventstore.log import Head, StoredEvent
from shared.eventstore.token import ConsistencyToken
from shared.postgres import CONNECTION_LOST, create_pool
from shared.settings import Settings

ASK_SECONDS = 5.0  # for one snapshot, the wait for a free connection included
CONNECTIONS = 4

T = TypeVar("T")
Connection = event_log.Connection


@dataclass
class LogLagging(Unavailable):
    """The copy of the log that is read here did not reach the token in time."""

    position: int
    wanted: int
    code = "projection-lagging"  # what the contract promises of every token that is not reached
    title = "This copy of the log has not reached the Consistency-Token yet"

    @property
    def detail(self) -> str:
        return f"This copy of the log is at position {self.position}, the token asks for {self.wanted}."


@dataclass
class UnknownPosition(Malformed):
    position: int
    head: int
    code = "unknown-position"
    title = "The log does not reach so far"

    @property
    def detail(self) -> str:
        return (
            f"The log ends at position {self.head}, so no event was ever sent at {self.position}. If it was restored"
            " to an older state: read anew and follow from there."
        )


class Start(NamedTuple):
    """The events after `position` of that log are to be told."""

    log_id: UUID
    position: int


class Page(NamedTuple):
    """Events of an order at `version`; `more` follow them."""

    version: int
    events: list[StoredEvent]
    more: bool


class History:
    """Every method also gives the head of the log; `token` is what that must have reached, for at most `wait` seconds.

    Every method raises `LogUnavailable`, `LogLagging` and `UnknownLog`.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._log = Log(pool)
        self._looks = Looks(self._position)

    async def events(
        self, order_id: str, after_version: int, limit: int, token: ConsistencyToken | None = None, wait: float = 0.0
    ) -> tuple[Head, Page | None]:
        """At most `limit` events after a version, as stored; None when there is no such order."""

        async def question(connection: Connection) -> Page | None:
            version = await event_log.read_version(connection, stream_of(order_id))
            if version == 0:
                return None
            events = await event_log.read_stream_page(connection, stream_of(order_id), after_version, limit)
            return Page(version, events, more=bool(events) and events[-1].version < version)

        return await self._ask(question, token, wait)

    async def start(
        self, order_id: str | None, after: int | None, token: ConsistencyToken | None = None, wait: float = 0.0
    ) -> tuple[Head, Start | None]:
        """Where following an order, or any order, begins: after that position, or now; None when there is no such
        order. Raises `UnknownPosition`, too, when `after` is not reached in time."""

        async def question(connection: Connection) -> bool:
            return order_id is None or await event_log.read_version(connection, stream_of(order_id)) > 0

        head, known = await self._ask(question, token, wait)
        if after is not None and after > head.position:
            try:  # another copy of the log may have been ahead of this one
                head, known = await self._ask(question, ConsistencyToken(head.log_id, after), wait)
            except LogLagging as lagging:
                raise UnknownPosition(after, lagging.position) from lagging
        return head, Start(head.log_id, head.position if after is None else after) if known else None

    async def order(
        self, order_id: str, moment: Moment, token: ConsistencyToken | None = None, wait: float = 0.0
    ) -> tuple[Head, PastOrder | None]:
        """The order as it was; None before it existed. Raises what `codec.decode` raises, too."""

        async def question(connection: Connection) -> PastOrder | None:
            past: PastOrder | None = None
            async for event in event_log.read_stream(connection, stream_of(order_id)):
                if not moment.includes(event):
                    break
                past = time_travel.after(past, event)
            return past

        return await self._ask(question, token, wait)

    async def reached(self) -> ConsistencyToken:
        """How much of the log is here."""
        return (await self._log.head()).token

    async def _ask(
        self, question: Callable[[Connection], Awaitable[T]], token: ConsistencyToken | None, wait: float
    ) -> tuple[Head, T]:
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            try:
                async with asyncio.timeout(ASK_SECONDS), self._snapshot() as (connection, head):
                    wanted = 0 if token is None else token.position_in(head.log_id)
                    if wanted <= head.position:
                        return head, await question(connection)
            except (*CONNECTION_LOST, asyncpg.SerializationError) as error:
                # SerializationError: on a replica, the snapshot stood in the way of what came from the primary.
                raise LogUnavailable from error
            if not await self._looks.wait(wanted, 0, deadline):
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
        await self._looks.close()


@asynccontextmanager
async def open_history(settings: Settings) -> AsyncIterator[History]:
    """Connects when first asked, so that it starts without the server."""
    url = settings.history_database_url or settings.database_url
    pool = await create_pool(settings, "history", max_size=CONNECTIONS, url=url)
    history = History(pool)
    try:
        yield history
    finally:
        await history.close()
        pool.terminate()
