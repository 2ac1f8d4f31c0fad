"""The events of an order or a customer: first those that were, then those that come, without a gap between the two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import asyncpg

from query_service.live import log
from query_service.live.log import Progress, Subject
from query_service.live.tail import OTHER_LOG, NoLongerFollowed, Tail
from shared import postgres
from shared.errors import Unavailable
from shared.eventstore.log import Head
from shared.metrics import EVENT_STREAMS
from shared.postgres import CONNECTION_LOST
from shared.settings import Settings

CONNECTIONS = 2  # for reading the past; of their own, so that long ones do not keep history and time travel waiting
PAGE_SECONDS = 5.0  # for one page, the wait for a free connection included
RETRY_SECONDS = 0.25


@dataclass
class TooManyStreams(Unavailable):
    most: int
    code = "too-many-streams"
    title = "The service is overloaded"
    retry_after = 5.0

    @property
    def detail(self) -> str:
        return f"{self.most} event streams are open; this process offers no more."


class Feed:
    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], tail: Tail, most: int) -> None:
        self._pool = pool
        self._tail = tail
        self._most = most
        self._open = 0

    @contextmanager
    def room(self) -> Iterator[None]:
        """Of one stream, as long as it is open. Raises `TooManyStreams`."""
        if self._open >= self._most:
            raise TooManyStreams(self._most)
        self._open += 1
        EVENT_STREAMS.set(self._open)
        try:
            yield
        finally:
            self._open -= 1
            EVENT_STREAMS.set(self._open)

    async def follow(
        self, subject: Subject, log_id: UUID, after: int, pause: float, too_slow: Callable[[], None]
    ) -> AsyncGenerator[Progress, None]:
        """Every event of the subject after a position, for ever; progress without events after `pause` seconds.

        Those that were are read from the log as fast as they are taken. Once its end is reached, new ones come from
        the tail and wait in memory; whoever then lets too many wait loses the subscription and `too_slow` is called.
        Raises `NoLongerFollowed`.
        """
        position = after
        async for progress in self._past(subject, log_id, position, None):
            yield progress
            position = progress.position
        with self._tail.subscribe(subject, log_id, position, too_slow) as subscription:
            # What came between the last page and the subscription.
            async for progress in self._past(subject, log_id, position, subscription.since):
                yield progress
                position = progress.position
            while True:
                events, reached = await subscription.next(pause)
                new = [event for event in events if event.position > position]
                position = max(position, reached)
                yield Progress(new, position)

    async def _past(self, subject: Subject, log_id: UUID, after: int, until: int | None) -> AsyncIterator[Progress]:
        """Up to position `until`, or to the end of the log where it is None."""
        position = after
        while until is None or position < until:
            try:
                progress, head = await self._page(subject, position)
            except (*CONNECTION_LOST, asyncpg.SerializationError):
                await asyncio.sleep(RETRY_SECONDS)  # nothing is lost: it goes on from the same position
                yield Progress([], position)
                continue
            if head.log_id != log_id:
                raise NoLongerFollowed(OTHER_LOG)
            yield progress
            position = progress.position
            if until is None and position >= head.position:
                return

    async def _page(self, subject: Subject, after: int) -> tuple[Progress, Head]:
        async with asyncio.timeout(PAGE_SECONDS), self._pool.acquire() as connection:
            return await log.read_page(connection, subject, after)


@asynccontextmanager
async def open_feed(settings: Settings) -> AsyncIterator[Feed]:
    """From the log, or the replica of it that history is read from. Connects when somebody follows."""
    url = settings.history_database_url or settings.database_url
    pool = await postgres.create_pool(settings, "live", max_size=CONNECTIONS, url=url)
    tail = Tail(partial(postgres.connect, settings, "live", url))
    try:
        yield Feed(pool, tail, settings.sse_streams)
    finally:
        await tail.close()
        pool.terminate()
