"""Questions that queries ask the log, or another feed, itself: its id, its head, and how far a read model is behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TypeAlias, TypeVar

import asyncpg

from shared.errors import Unavailable
from shared.eventstore import log as event_log
from shared.eventstore.blockers import Blocker, read_blockers
from shared.eventstore.feed import EVENT_LOG, Feed
from shared.eventstore.lease import ForeignHolder, read_foreign_holders
from shared.eventstore.token import ConsistencyToken, TokenBeyondLog
from shared.postgres import CONNECTION_LOST
from shared.read_models.lag import HeadHistory

_ANSWER_SECONDS = 5.0
MEASURE_SECONDS = 1.0  # for the lags of several checkpoints, or a head, before they count as unknown

T = TypeVar("T")


@dataclass
class LogUnavailable(Unavailable):
    code = "log-unavailable"
    title = "The event log cannot be reached"

    @property
    def detail(self) -> str:
        return "PostgreSQL does not answer, so the true end of the log is unknown."


Shown: TypeAlias = ConsistencyToken | None  # up to where something shows the log; None: it shows nothing


class LogReader:
    """Every method raises `LogUnavailable`, unless it says what it does instead."""

    def __init__(
        self,
        pool: asyncpg.Pool[asyncpg.Record],
        monitor_pool: asyncpg.Pool[asyncpg.Record] | None = None,
        feed: Feed = EVENT_LOG,
    ) -> None:
        """`monitor_pool` reads the blocking sessions: all connections of `pool` may be waiting for them."""
        self._pool = pool
        self._feed = feed
        self._monitor_pool = pool if monitor_pool is None else monitor_pool
        self._heads = HeadHistory()
        self._reading: asyncio.Task[event_log.Head] | None = None
        self._next: asyncio.Task[event_log.Head] | None = None

    async def check(self, token: ConsistencyToken) -> None:
        """Raises `UnknownLog` or `TokenBeyondLog` for a token that no acknowledgement or answer of this log can have
        carried."""
        head = await self.shared_head()
        if token.position_in(head.log_id) > head.position:
            raise TokenBeyondLog(token.position, head.position)

    async def shared_head(self) -> event_log.Head:
        """A head that was read after this call. The calls that come during one read share the next one, so that forged
        tokens cost no statement each."""
        if self._next is None:
            self._next = asyncio.create_task(self._read_next(self._reading), name="log-head")
        return await asyncio.shield(self._next)

    async def _read_next(self, reading: asyncio.Task[event_log.Head] | None) -> event_log.Head:
        if reading is not None:
            await asyncio.wait([reading])
        self._reading, self._next = self._next, None
        return await self.head()

    async def head(self) -> event_log.Head:
        return await _bounded(lambda: event_log.read_head(self._pool, self._feed))

    async def lag(self, shown: Shown) -> event_log.Lag:
        """The lag of a read model that shows the log up to there; in time not less than this process knows it to be."""
        lag = await _bounded(lambda: event_log.read_lag(self._pool, shown, self._feed))
        now = monotonic()
        self._heads.add(lag.head, now)
        if lag.seconds is None:
            return lag
        return lag._replace(seconds=max(lag.seconds, self._heads.least_age(lag.position, now)))

    async def lags(self, shown: Iterable[Shown]) -> tuple[event_log.Head | None, dict[Shown, event_log.Lag]]:
        """The head and the lag of each, as far as the log answers in time. While a session blocks the events, the head
        may be known and the lags are not."""
        head, lags = None, {}
        with suppress(TimeoutError, LogUnavailable):
            async with asyncio.timeout(MEASURE_SECONDS):
                head = await self.head()
                for each in dict.fromkeys(shown):
                    lags[each] = await self.lag(each)
        return head, lags

    async def blockers(self, old_seconds: float) -> list[Blocker]:
        """The sessions that block the log, and transactions that are older than `old_seconds`."""
        return await _bounded(lambda: read_blockers(self._monitor_pool, old_seconds))

    async def foreign_holders(self, leases: Collection[str]) -> list[ForeignHolder]:
        """The sessions that hold one of these leases and are no projector's."""
        return await _bounded(lambda: read_foreign_holders(self._monitor_pool, leases))


async def _bounded(question: Callable[[], Awaitable[T]]) -> T:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await question()
    except CONNECTION_LOST as error:
        raise LogUnavailable from error
