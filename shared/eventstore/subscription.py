"""A subscription to the event log: one connection that holds leases, reads pages of events and listens for new ones.

The projector and live updates follow the log with it, and the projector every other feed (`shared.eventstore.feed`). A
consumer supplies its own checkpoint and reads the pages after it; one that must be the only one takes a lease
(`shared.eventstore.lease`). NOTIFY is a hint that may be lost: a consumer polls as well, always.

Each event is read once, however many consumers follow the log in a process: the last pages are cached. The end of the
log is never cached, so no consumer learns of an event later than by asking the log itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from sys import getsizeof
from typing import NamedTuple

import asyncpg
from pydantic import SecretStr

from shared import postgres
from shared.eventstore import log as event_log
from shared.eventstore.feed import EVENT_LOG, Feed
from shared.eventstore.log import Head, Page, StoredEvent
from shared.postgres import ServerDemoted, Target
from shared.settings import Settings

# The server ends a session that asks nothing for so long, and with it the leases of a process that is paused: its
# kernel would keep the connection alive for ever. An active process reads its leases far more often than that.
# (One stopped within a statement is ended by `transaction_timeout`, from PostgreSQL 17 on: see `shared.postgres`.)
IDLE_SECONDS = 10.0
ANSWER_SECONDS = 10.0  # a statement that takes longer means that the connection is dead
CACHED_PAGES = 4  # few: decision 16
CACHED_BYTES = 16 * 2**20  # of memory, and one page
MAX_PAGE_BYTES = event_log.PAGE_BYTES  # of events' JSON, and one event more

ROLE = "projector"  # the application's name ends with it; `foreign_lease_holders` knows it


class _CachedPage(NamedTuple):
    feed: Feed
    page: Page
    hints: int  # when it was read
    size: int  # of the JSON texts, in bytes of memory


class LogSession:
    """One connection, shared by the consumers of a process."""

    def __init__(
        self, connection: asyncpg.Connection[asyncpg.Record], pid: int, cached_pages: int = CACHED_PAGES
    ) -> None:
        """`pid`: by which PostgreSQL knows it."""
        self.pid = pid
        self._only_reads = postgres.takes_no_writes(connection)  # on every server, because of its role
        self._connection = connection
        self._lock = asyncio.Lock()
        self._max_pages = cached_pages
        self._pages: deque[_CachedPage] = deque()
        self._hints = 0  # that the log had grown

    @property
    def lost(self) -> bool:
        return self._connection.is_closed()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """The connection, for one caller at a time. Raises what is in `shared.postgres.CONNECTION_LOST`.

        It is closed when its server takes no writes any more: whatever is appended is appended elsewhere.
        """
        async with self._lock:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    yield self._connection
                if not self._only_reads and postgres.takes_no_writes(self._connection):
                    raise ServerDemoted
            except (TimeoutError, ServerDemoted, asyncpg.ReadOnlySQLTransactionError):
                self._connection.terminate()  # so that the callers that wait for the lock learn it at once
                raise

    async def read(self, after: int, limit: int, max_bytes: int | None = None, *, feed: Feed = EVENT_LOG) -> Page:
        """At most `limit` events after a position, of at most `max_bytes` (`MAX_PAGE_BYTES`) and one event more."""
        if (known := self._cached(feed, after, limit)) is not None:
            return known
        async with self.exclusive() as connection:
            if (known := self._cached(feed, after, limit)) is not None:  # another consumer has read it meanwhile
                return known
            hints = self._hints
            page = await event_log.read_page(connection, after, limit, max_bytes or MAX_PAGE_BYTES, feed=feed)
        if page.events:
            self._cache(feed, page, hints)
        return page

    def _cache(self, feed: Feed, page: Page, hints: int) -> None:
        """Evicts the oldest pages."""
        size = sum([getsizeof(event.data) + getsizeof(event.metadata) for event in page.events])
        self._pages.append(_CachedPage(feed, page, hints, size))
        while len(self._pages) > self._max_pages or (
            len(self._pages) > 1 and sum(cached.size for cached in self._pages) > CACHED_BYTES
        ):
            self._pages.popleft()

    def _cached(self, feed: Feed, after: int, limit: int) -> Page | None:
        later = False  # a page of the feed was read after this one
        for of_feed, (events, more), hints, _ in reversed(self._pages):
            if of_feed is not feed:
                continue
            if events[0].position <= after + 1 <= events[-1].position:
                start = after + 1 - events[0].position
                some = events[start : start + limit]
                return Page(some, more or later or hints != self._hints or len(some) < len(events) - start)
            later = True
        return None

    def notify(self) -> None:
        """A feed may have grown since the last read."""
        self._hints += 1

    def invalidate(self) -> None:
        """Drops the cached pages: they may be of another log, or of another past of this one."""
        self._pages.clear()

    async def read_one(self, position: int, feed: Feed = EVENT_LOG) -> StoredEvent:
        """What the feed has there now."""
        async with self.exclusive() as connection:
            return (await event_log.read_batch(connection, position - 1, 1, feed=feed))[0]

    async def read_head(self, feed: Feed = EVENT_LOG) -> Head:
        async with self.exclusive() as connection:
            return await event_log.read_head(connection, feed)

    async def read_stream_page(self, stream_id: str, after_version: int, feed: Feed = EVENT_LOG) -> list[StoredEvent]:
        """At most `event_log.PAGE` events of one stream after a version."""
        async with self.exclusive() as connection:
            return await event_log.read_stream_page(connection, stream_id, after_version, event_log.PAGE, feed=feed)


@asynccontextmanager
async def open_session(
    settings: Settings,
    on_event: Callable[[], None],
    idle_seconds: float = IDLE_SECONDS,
    *,
    role: str = ROLE,
    target: Target = "read-write",
    url: SecretStr | None = None,
    cached_pages: int = CACHED_PAGES,
) -> AsyncIterator[LogSession]:
    """One that calls `on_event` when the log may have grown, and when the connection is lost. A session with a replica
    (`url`) gets no notifications: it only polls."""
    connection = await postgres.connect(settings, role, target=target, url=url)
    try:
        await connection.execute(f"set idle_session_timeout = {round(idle_seconds * 1_000)}", timeout=ANSWER_SECONDS)
        session = LogSession(connection, await postgres.backend_pid(connection), cached_pages)

        def on_notify(*_: object) -> None:
            session.notify()
            on_event()

        connection.add_termination_listener(lambda *_: on_event())
        with suppress(asyncpg.ReadOnlySQLTransactionError):  # of a replica
            await connection.add_listener(event_log.CHANNEL, on_notify)
        yield session
    finally:
        # Not close(): that waits for the server, which may be the one that is gone.
        connection.terminate()
