"""The events that match a filter: first those of the past, then new ones, without a gap between the two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import asyncpg

from query_service.client_limit import ClientLimit
from query_service.fair_queue import FairPool, TooManyCostlyReads
from query_service.live import held_events, stream_filter
from query_service.live.held_events import HeldByStream, HeldEvents
from query_service.live.log_tail import OTHER_LOG, LogTail, SubscriptionClosed
from query_service.live.stream_filter import EventBatch, StreamFilter
from shared import postgres
from shared.errors import Unavailable
from shared.eventstore.log import Head
from shared.eventstore.subscription import open_session
from shared.metrics import EVENT_STREAMS
from shared.postgres import CONNECTION_LOST
from shared.settings import Settings

PAGES = 2  # of the past, read at once; separate, so that they do not delay history and time travel
PAGE_SECONDS = 5.0  # for one page
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


class Subscriptions:
    def __init__(self, pool: FairPool, tail: LogTail, most: int, most_of_client: int) -> None:
        self._pool = pool
        self._tail = tail
        self._most = most
        self._of_client = ClientLimit("event streams", most_of_client)
        self._held = HeldEvents(held_events.MAX_BYTES)
        self._open = 0

    @contextmanager
    def slot(self, client: str, cut_off: Callable[[], None]) -> Iterator[HeldByStream]:
        """Counts one event stream while it is open. `cut_off` closes its connection. Raises `TooManyStreams` and
        `ClientLimitReached`."""
        if self._open >= self._most:
            raise TooManyStreams(self._most)
        with self._of_client.slot(client), self._held.stream(cut_off) as held:
            self._open += 1
            EVENT_STREAMS.set(self._open)
            try:
                yield held
            finally:
                self._open -= 1
                EVENT_STREAMS.set(self._open)

    async def follow(
        self, of: StreamFilter, log_id: UUID, after: int, pause: float, client: str, held: HeldByStream
    ) -> AsyncGenerator[EventBatch, None]:
        """Every matching event after a position, for ever; an empty batch after `pause` seconds without one.

        Past events are read from the log as fast as the consumer takes them. From the end of the log on, new events
        come from the tail and are buffered; a consumer that leaves too many in the buffer is cut off. `held` counts
        what was read and not yet taken. Raises `SubscriptionClosed`.
        """
        position = after
        async for batch in self._past(of, log_id, position, None, client):
            held.hold(batch.events)
            yield batch
            held.release(batch.events)
            position = batch.position
            del batch  # what is not held any more must not stay in memory while the stream waits
        with self._tail.subscribe(of, log_id, position, held) as subscription:
            # The events between the last page and the subscription.
            async for batch in self._past(of, log_id, position, subscription.since, client):
                held.hold(batch.events)
                yield batch
                held.release(batch.events)
                position = batch.position
                del batch
            while True:
                events, reached = await subscription.next(pause)
                new = [event for event in events if event.position > position]
                position = max(position, reached)
                yield EventBatch(new, position)
                held.release(events)
                del events, new

    async def _past(
        self, of: StreamFilter, log_id: UUID, after: int, until: int | None, client: str
    ) -> AsyncIterator[EventBatch]:
        """Up to position `until`; None: up to the end of the log."""
        position = after
        while until is None or position < until:
            try:
                batch, head = await self._page(of, position, client)
            except (*CONNECTION_LOST, asyncpg.SerializationError, TooManyCostlyReads):
                await asyncio.sleep(RETRY_SECONDS)  # then it continues from the same position
                yield EventBatch([], position)
                continue
            if head.log_id != log_id:
                raise SubscriptionClosed(OTHER_LOG)
            yield batch
            position = batch.position
            del batch
            if until is None and position >= head.position:
                return

    async def _page(self, of: StreamFilter, after: int, client: str) -> tuple[EventBatch, Head]:
        async with self._pool.acquire(client) as connection, asyncio.timeout(PAGE_SECONDS):
            return await stream_filter.read_page(connection, of, after)


@asynccontextmanager
async def open_subscriptions(settings: Settings) -> AsyncIterator[Subscriptions]:
    """Follows the log, or the replica of it that history is read from. Connects at the first subscription."""
    url, target = postgres.history_server(settings)
    pool = await postgres.create_pool(settings, "live", max_size=PAGES, target=target, url=url)
    tail = LogTail(partial(open_session, settings, role="live", target=target, url=url, cached_pages=0))
    try:
        yield Subscriptions(FairPool(pool, PAGES), tail, settings.sse_streams, settings.sse_streams_per_client)
    finally:
        await tail.close()
        pool.terminate()
