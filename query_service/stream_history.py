"""The events of a stream, read from the log itself: from PostgreSQL or a replica of it, never from Redis.

Every answer comes from one read-only snapshot together with the head of the log in it, so the answer's
Consistency-Token says exactly how much of the log the answer shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import asyncpg

from query_service import chronology, time_travel
from query_service.checkpoint_poller import CheckpointPoller
from query_service.chronology import Period
from query_service.fair_queue import FairPool, TooManyCostlyReads
from query_service.log_reader import LogReader, LogUnavailable
from query_service.past_states import PastStates, restore
from query_service.point_in_time import PointInTime
from shared.aggregates.aggregate import Aggregate, PastState
from shared.errors import Malformed, Unavailable
from shared.eventstore import log as event_log
from shared.eventstore.log import Head, Page, StoredEvent
from shared.eventstore.token import ConsistencyToken, TokenBeyondLog
from shared.postgres import CONNECTION_LOST, create_pool, history_server
from shared.settings import Settings

SNAPSHOT_SECONDS = 6.0  # for the reads of one snapshot; a statement that takes 5 says that PostgreSQL is away
PAGES = 4  # of histories that are read at once
FOLDS = 2  # of past states, at once
PAGE_BYTES = 1024 * 1024  # of a page of a history, or of a fold, and one event more
FOLD_EVENTS = 500  # read at a time
_MICROSECOND = timedelta(microseconds=1)

T = TypeVar("T")
S = TypeVar("S")
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


class ChronologyPage(NamedTuple, Generic[S]):
    """Events of the first `version` events of a stream, in the order in which they occurred, `begun` by its first one.

    `before` is the state before the period, on its first page; None where nothing had occurred.
    """

    begun: StoredEvent
    version: int
    before: PastState[S] | None
    page: Page


class StreamHistory:
    """Reads for clients, from a copy of the log: a replica, or the log itself. `log` is the log itself.

    A stream of another owner than `owner` counts as none; None: every owner's counts.

    Every method also returns the head of the copy. It waits up to `wait` seconds for the copy to reach `token`. It
    raises `LogUnavailable`, `LogLagging`, `UnknownLog`, `TokenBeyondLog` and `TooManyCostlyReads`.
    """

    def __init__(self, pages: FairPool, folds: FairPool, copy: LogReader, log: LogReader) -> None:
        self._pages = pages
        self._folds = folds
        self._copy = copy
        self._log = log
        self._poller = CheckpointPoller(self._position)
        self._past_states = PastStates()

    async def events(
        self,
        stream_id: str,
        owner: str | None,
        after_version: int,
        limit: int,
        client: str,
        token: ConsistencyToken | None = None,
        wait: float = 0.0,
    ) -> tuple[Head, HistoryPage | None]:
        """At most `limit` events after a version, as stored, and of at most `PAGE_BYTES` and one event more; None when
        there is no such stream."""

        async def read(connection: Connection, _: Head) -> HistoryPage | None:
            version = await event_log.read_version(connection, stream_id, owner)
            if version == 0:
                return None
            events = await event_log.read_stream_page(connection, stream_id, after_version, limit, PAGE_BYTES)
            return HistoryPage(version, events, more=bool(events) and events[-1].version < version)

        return await self._read(self._pages, read, client, token, wait)

    async def resume_point(
        self,
        stream_id: str | None,
        owner: str | None,
        after: int | None,
        client: str,
        token: ConsistencyToken | None = None,
        wait: float = 0.0,
    ) -> tuple[Head, ResumePoint | None]:
        """Where live updates begin: after the position `after`, or at the head; None when there is no such stream.

        Raises `UnknownPosition`, too, when the log ends before `after`, or the copy does not reach it in time.
        """

        async def exists(connection: Connection, _: Head) -> bool:
            return stream_id is None or await event_log.read_version(connection, stream_id, owner) > 0

        head, found = await self._read_after(exists, after or 0, client, token, wait)
        return head, ResumePoint(head.log_id, head.position if after is None else after) if found else None

    async def log_page(
        self, after: int, limit: int, client: str, token: ConsistencyToken | None = None, wait: float = 0.0
    ) -> tuple[Head, Page]:
        """At most `limit` events of the log after a position, and of at most `PAGE_BYTES` and one event more.

        Raises `UnknownPosition` as `resume_point` does.
        """

        async def read(connection: Connection, _: Head) -> Page:
            return await event_log.read_page(connection, after, limit, PAGE_BYTES)

        return await self._read_after(read, after, client, token, wait)

    async def _read_after(
        self,
        read: Callable[[Connection, Head], Awaitable[T]],
        after: int,
        client: str,
        token: ConsistencyToken | None,
        wait: float,
    ) -> tuple[Head, T]:
        """Of a copy that has reached the position `after`. Raises `UnknownPosition`."""
        head, found = await self._read(self._pages, read, client, token, wait)
        if after <= head.position:
            return head, found
        try:  # the client may come from a replica that is ahead of this one
            return await self._read(self._pages, read, client, ConsistencyToken(head.log_id, after), wait)
        except LogLagging as lagging:
            raise UnknownPosition(after, lagging.position) from lagging
        except TokenBeyondLog as beyond:
            raise UnknownPosition(after, beyond.head) from beyond

    async def past_state(
        self,
        aggregate: Aggregate[S, Any],
        stream_id: str,
        owner: str | None,
        point: PointInTime,
        client: str,
        token: ConsistencyToken | None = None,
        wait: float = 0.0,
    ) -> tuple[Head, PastState[S] | None]:
        """The fold of the events that count at that point in time; None without any. A fold that takes too long raises
        `TooManyCostlyReads`, and the next one goes on from where it was.

        Raises what `time_travel.advance` raises, too.
        """

        async def find(connection: Connection, head: Head) -> PastState[S] | None:
            # Before the fold, whose time and errors would tell that there is a stream.
            if owner is not None and not await event_log.read_version(connection, stream_id, owner):
                return None
            return await self._fold(connection, head, aggregate, stream_id, point)

        return await self._read(self._folds, find, client, token, wait)

    async def chronology(
        self,
        aggregate: Aggregate[S, Any],
        stream_id: str,
        owner: str | None,
        period: Period,
        limit: int,
        client: str,
        token: ConsistencyToken | None = None,
        wait: float = 0.0,
    ) -> tuple[Head, ChronologyPage[S] | None]:
        """At most `limit` events of that period, in the order in which they occurred; None when there was no stream.

        Raises what `past_state` raises.
        """

        async def read(connection: Connection, head: Head) -> ChronologyPage[S] | None:
            if not await event_log.read_version(connection, stream_id, owner):
                return None
            if not (version := await chronology.version_at(connection, stream_id, period.known_at)):
                return None
            first = await event_log.read_stream_page(connection, stream_id, 0, 1)
            before = None
            if period.after is None and period.begin is not None:
                point = PointInTime(period.begin - _MICROSECOND, period.known_at)
                before = await self._fold(connection, head, aggregate, stream_id, point)
            page = await chronology.read_page(connection, stream_id, version, period, limit, PAGE_BYTES)
            return ChronologyPage(first[0], version if period.after is None else period.after.of_version, before, page)

        return await self._read(self._folds, read, client, token, wait)

    async def _fold(
        self, connection: Connection, head: Head, aggregate: Aggregate[S, Any], stream_id: str, point: PointInTime
    ) -> PastState[S] | None:
        saved = self._past_states.find(head.log_id, stream_id, point)
        past = None if saved is None else restore(aggregate, saved)
        # The event of the saved state is read once more: its hash tells whether the log still has it.
        version, more = 0 if saved is None else saved.version - 1, True
        complete = True  # no event was left out
        while more:
            events = await event_log.read_stream_page(connection, stream_id, version, FOLD_EVENTS, PAGE_BYTES)
            more = not event_log.is_last_page(events, FOLD_EVENTS, PAGE_BYTES)
            for event in events:
                version = event.version
                if saved is not None and version == saved.version:
                    if event.hash != saved.hash:
                        self._past_states.drop(head.log_id, stream_id)
                        return await self._fold(connection, head, aggregate, stream_id, point)
                elif point.is_over(event, aggregate.backdating):
                    return past
                elif point.includes(event):
                    past = time_travel.advance(aggregate, past, event)
                    if complete:
                        self._past_states.save(head.log_id, event, past)
                else:
                    complete = False
        return past

    async def reached(self) -> ConsistencyToken:
        """The end of this copy of the log."""
        return (await self._copy.head()).token

    async def _read(
        self,
        pool: FairPool,
        read: Callable[[Connection, Head], Awaitable[T]],
        client: str,
        token: ConsistencyToken | None,
        wait: float,
    ) -> tuple[Head, T]:
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            try:
                async with _snapshot(pool, client) as (connection, head):
                    wanted = 0 if token is None else token.position_in(head.log_id)
                    if wanted <= head.position:
                        return head, await read(connection, head)
            except (*CONNECTION_LOST, asyncpg.SerializationError) as error:
                # SerializationError: on a replica, what came from the primary conflicted with the snapshot.
                raise LogUnavailable from error
            if token is not None:
                with suppress(LogUnavailable):
                    await self._log.check(token)
            if not await self._poller.wait(wanted, 0, deadline):
                raise LogLagging(head.position, wanted)

    async def _position(self) -> int:
        return (await self._copy.head()).position

    async def close(self) -> None:
        await self._poller.close()


@asynccontextmanager
async def _snapshot(pool: FairPool, client: str) -> AsyncIterator[tuple[Connection, Head]]:
    async with (
        pool.acquire(client) as connection,
        _time_for_reads(),
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        yield connection, await event_log.read_head(connection)


@asynccontextmanager
async def _time_for_reads() -> AsyncIterator[None]:
    """Raises `TooManyCostlyReads` where the reads take too long although PostgreSQL answers each in time."""
    bound = asyncio.timeout(SNAPSHOT_SECONDS)
    try:
        async with bound:
            yield
    except TimeoutError as error:
        if bound.expired():
            raise TooManyCostlyReads from error
        raise


@asynccontextmanager
async def open_history(settings: Settings, log: LogReader) -> AsyncIterator[StreamHistory]:
    """Connects at the first read, so that the service starts without the server."""
    url, target = history_server(settings)
    size = PAGES + FOLDS + 1  # 1: for the head
    pool = await create_pool(settings, "history", max_size=size, target=target, url=url)
    history = StreamHistory(FairPool(pool, PAGES), FairPool(pool, FOLDS), LogReader(pool), log)
    try:
        yield history
    finally:
        await history.close()
        pool.terminate()
