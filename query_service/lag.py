"""How stale answers are: what `Projection-Lag` says.

One task for each source of answers looks at it twice a second, whatever is asked, so that a query pays for a look at
the clock. What is remembered is a time: all that was recorded before it is shown. Its age grows while the source is
stuck, while a server is away and while nobody looks, so an answer never looks better than it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Protocol

from query_service.log import Log
from query_service.standing import Ask
from shared.aio import wait_for
from shared.errors import Unavailable
from shared.eventstore.token import ConsistencyToken
from shared.logs import get_logger
from shared.metrics import HEARTBEAT_AGE_SECONDS, QUERY_LAG_SECONDS

LOOK_SECONDS = 0.5
# What was seen to show everything counts as current for so long: until the next look, which may take its time.
_CURRENT_SECONDS = 1.5
FIRST_LOOK_SECONDS = 1.0

HEADER = "Projection-Lag"
UNKNOWN = "unknown"

_log = get_logger()


class Lag:
    """Of one source. Times are those of `monotonic`."""

    def __init__(self) -> None:
        self._complete_to: float | None = None  # all that was recorded before is shown; None: nobody knows
        self._was_current = False  # nothing had been recorded after

    @property
    def milliseconds(self) -> int | None:
        """At most so old is an event that is not shown; None before anything is known."""
        if self._complete_to is None:
            return None
        age = monotonic() - self._complete_to
        return 0 if self._was_current and age < _CURRENT_SECONDS else round(age * 1_000)

    def learn(self, at: float, lag_seconds: float) -> None:
        """It was so far behind at that time."""
        self._complete_to, self._was_current = at - lag_seconds, lag_seconds == 0


class Furthest:
    """The lag of whichever is furthest behind."""

    def __init__(self, *lags: Lag) -> None:
        self._lags = lags

    @property
    def milliseconds(self) -> int | None:
        every = [lag.milliseconds for lag in self._lags]
        known = [one for one in every if one is not None]
        return max(known) if len(known) == len(every) else None


class Source(Protocol):
    """What answers are read from."""

    async def look(self) -> None:
        """Learns its lag. Raises `Unavailable`."""


class ReadModel:
    """A source that a projector keeps up to date."""

    def __init__(self, name: str, lag: Lag, ask: Ask, log: Log) -> None:
        self._name = name
        self._lag = lag
        self._ask = ask
        self._log = log
        self._beat_at = float("-inf")

    async def look(self) -> None:
        try:
            standing = await self._ask()
            at = monotonic()
            if standing.heartbeat is not None:
                self._beat_at = at - standing.heartbeat.age_seconds
            checkpoint = standing.checkpoint
            behind = await self._log.lag(None if checkpoint is None else checkpoint.token)
            self._lag.learn(at, behind.seconds)
        finally:
            self._measure()

    def _measure(self) -> None:
        known = self._lag.milliseconds
        if known is not None:
            QUERY_LAG_SECONDS.labels(self._name).set(known / 1_000)
        HEARTBEAT_AGE_SECONDS.labels(self._name).set(monotonic() - self._beat_at)


class Replica:
    """A copy of the log; `reached` says how much of it is there."""

    def __init__(self, lag: Lag, reached: Callable[[], Awaitable[ConsistencyToken]], log: Log) -> None:
        self._lag = lag
        self._reached = reached
        self._log = log

    async def look(self) -> None:
        reached = await self._reached()
        at = monotonic()
        self._lag.learn(at, (await self._log.lag(reached)).seconds)


class Itself:
    """The log, which shows all there is to whoever reaches it."""

    def __init__(self, lag: Lag, log: Log) -> None:
        self._lag = lag
        self._log = log

    async def look(self) -> None:
        at = monotonic()
        await self._log.head()
        self._lag.learn(at, 0.0)


@asynccontextmanager
async def looking_at(sources: Collection[Source]) -> AsyncIterator[None]:
    """Looks at every one meanwhile. Begins when each was looked at once, or with what is known after a second."""
    stop = asyncio.Event()
    looked = [asyncio.Event() for _ in sources]
    # A task each: a server that hangs holds up only what is kept there.
    looking = [
        asyncio.create_task(_look_until(stop, source, first), name="projection-lag")
        for source, first in zip(sources, looked, strict=True)
    ]
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                for first in looked:
                    await first.wait()
        yield
    finally:
        stop.set()  # a cancellation alone may be lost in a client library's error handling
        for task in looking:
            task.cancel()
        await asyncio.wait(looking)


async def _look_until(stop: asyncio.Event, source: Source, looked: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await source.look()
        except Unavailable:
            pass  # said by the lag, which grows
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look may succeed
            _log.warning("lag not measured", source=type(source).__name__, error=repr(error))
        looked.set()
        await wait_for(stop, LOOK_SECONDS)
