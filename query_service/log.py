"""The little that queries ask of the log itself: which one it is, and how far behind its true head a read model is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TypeAlias, TypeVar
from uuid import UUID

import asyncpg

from shared.errors import Unavailable
from shared.eventstore import log as event_log
from shared.eventstore.blockers import Blocker, read_stalls
from shared.eventstore.token import ConsistencyToken
from shared.postgres import CONNECTION_LOST

_ASK_SECONDS = 5.0
MEASURE_SECONDS = 1.0  # to say how far behind several are, before nobody knows
# So that a flood of foreign tokens does not become a flood of statements. What is remembered is that an id is not the
# log's, rather than the log's: one that is given in the meantime must not be refused.
_REMEMBER_SECONDS = 1.0
_REMEMBER_IDS = 1_000

T = TypeVar("T")


@dataclass
class LogUnavailable(Unavailable):
    code = "log-unavailable"
    title = "The event log cannot be reached"

    @property
    def detail(self) -> str:
        return "PostgreSQL does not answer, so the true end of the log is unknown."


Shown: TypeAlias = ConsistencyToken | None  # as far as something shows the log; None: it shows nothing


class Log:
    """Methods raise `LogUnavailable`, where they do not say what they do instead."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], aside: asyncpg.Pool[asyncpg.Record] | None = None) -> None:
        """`aside` is asked who is in the way: the connections of `pool` may all be waiting for them."""
        self._pool = pool
        self._aside = pool if aside is None else aside
        self._foreign: dict[UUID, float] = {}  # ids that were not the log's, and when

    async def has_id(self, log_id: UUID) -> bool:
        """Whether that is the log in PostgreSQL now, or was a second ago."""
        if monotonic() - self._foreign.get(log_id, float("-inf")) < _REMEMBER_SECONDS:
            return False
        if (await self.head()).log_id == log_id:
            return True
        if len(self._foreign) >= _REMEMBER_IDS:
            self._foreign.clear()
        self._foreign[log_id] = monotonic()
        return False

    async def head(self) -> event_log.Head:
        return await _ask(lambda: event_log.read_head(self._pool))

    async def lag(self, shown: Shown) -> event_log.Lag:
        """Of what shows the log up to there."""
        return await _ask(lambda: event_log.read_lag(self._pool, shown))

    async def standing(self, shown: Iterable[Shown]) -> tuple[event_log.Head | None, dict[Shown, event_log.Lag]]:
        """The head, and the lag of each: as much as the log says in time. Where somebody is in the way, the head may be
        known though the lags are not."""
        head, lags = None, {}
        with suppress(TimeoutError, LogUnavailable):
            async with asyncio.timeout(MEASURE_SECONDS):
                head = await self.head()
                for each in dict.fromkeys(shown):
                    lags[each] = await self.lag(each)
        return head, lags

    async def stalls(self, old_seconds: float) -> list[Blocker]:
        """Who is in the way of the log; transactions from that age on."""
        return await _ask(lambda: read_stalls(self._aside, old_seconds))


async def _ask(question: Callable[[], Awaitable[T]]) -> T:
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            return await question()
    except CONNECTION_LOST as error:
        raise LogUnavailable from error
