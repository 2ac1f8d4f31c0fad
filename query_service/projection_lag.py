"""How stale answers are: what `Projection-Lag` says.

One task for each source of answers measures its lag twice a second, so a query only reads a clock. An estimate is a
time: the source shows every event that was recorded before it. Its age grows while the source is stuck, while a server
is away and while nothing measures, so an answer never looks fresher than it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Protocol

from query_service.log_reader import LogReader
from query_service.projection_status import StatusQuery
from shared.aio import wait_for
from shared.errors import Unavailable
from shared.eventstore.token import ConsistencyToken
from shared.logs import get_logger
from shared.metrics import HEARTBEAT_AGE_SECONDS, QUERY_LAG_SECONDS

POLL_SECONDS = 0.5
# A source that showed everything counts as current for so long: until the next measurement, which may take its time.
_CURRENT_SECONDS = 1.5
FIRST_POLL_SECONDS = 1.0

HEADER = "Projection-Lag"
UNKNOWN = "unknown"

_log = get_logger()


class LagEstimate:
    """The lag of one source. Times are those of `monotonic`."""

    def __init__(self) -> None:
        self._complete_to: float | None = None  # every event recorded before is shown; None: unknown
        self._was_current = False  # no event had been recorded after it

    @property
    def milliseconds(self) -> int | None:
        """Upper bound of the age of the oldest event that is not shown; None: unknown."""
        if self._complete_to is None:
            return None
        age = monotonic() - self._complete_to
        return 0 if self._was_current and age < _CURRENT_SECONDS else round(age * 1_000)

    def update(self, at: float, lag_seconds: float | None) -> None:
        """The lag that was measured at that time; None: there is one, and it is not known."""
        self._complete_to = None if lag_seconds is None else at - lag_seconds
        self._was_current = lag_seconds == 0


class MaxLag:
    """The largest of several lags; unknown while one of them is."""

    def __init__(self, *lags: LagEstimate) -> None:
        self._lags = lags

    @property
    def milliseconds(self) -> int | None:
        every = [lag.milliseconds for lag in self._lags]
        known = [one for one in every if one is not None]
        return max(known, default=None) if len(known) == len(every) else None


class LagSource(Protocol):
    """What answers are read from."""

    async def measure(self) -> None:
        """Updates the estimate. Raises `Unavailable`."""


class ProjectionLag:
    """Measures a read model that a projector updates."""

    def __init__(self, name: str, lag: LagEstimate, status: StatusQuery, log: LogReader) -> None:
        self._name = name
        self._lag = lag
        self._status = status
        self._log = log
        self._heartbeat_at = float("-inf")

    async def measure(self) -> None:
        try:
            status = await self._status()
            at = monotonic()
            if status.heartbeat is not None:
                self._heartbeat_at = at - status.heartbeat.age_seconds
            checkpoint = status.checkpoint
            lag = await self._log.lag(None if checkpoint is None else checkpoint.token)
            self._lag.update(at, lag.seconds)
        finally:
            self._export()

    def _export(self) -> None:
        known = self._lag.milliseconds
        if known is not None:
            QUERY_LAG_SECONDS.labels(self._name).set(known / 1_000)
        else:
            with suppress(KeyError):  # no value rather than the last one
                QUERY_LAG_SECONDS.remove(self._name)
        HEARTBEAT_AGE_SECONDS.labels(self._name).set(monotonic() - self._heartbeat_at)


class ReplicaLag:
    """Measures a replica of the log; `reached` reads the token of the replica's end."""

    def __init__(self, lag: LagEstimate, reached: Callable[[], Awaitable[ConsistencyToken]], log: LogReader) -> None:
        self._lag = lag
        self._reached = reached
        self._log = log

    async def measure(self) -> None:
        reached = await self._reached()
        at = monotonic()
        self._lag.update(at, (await self._log.lag(reached)).seconds)


class LogLag:
    """Measures the log itself, which is current whenever it can be read."""

    def __init__(self, lag: LagEstimate, log: LogReader) -> None:
        self._lag = lag
        self._log = log

    async def measure(self) -> None:
        at = monotonic()
        await self._log.head()
        self._lag.update(at, 0.0)


@asynccontextmanager
async def poll_lag(sources: Collection[LagSource]) -> AsyncIterator[None]:
    """Measures every source while the context is open. Enters it once each was measured, or after a second."""
    stop = asyncio.Event()
    measured = [asyncio.Event() for _ in sources]
    # A task each: a server that hangs delays only its own sources.
    polling = [
        asyncio.create_task(_poll_until(stop, source, first), name="projection-lag")
        for source, first in zip(sources, measured, strict=True)
    ]
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_POLL_SECONDS):
                for first in measured:
                    await first.wait()
        yield
    finally:
        stop.set()  # a cancellation alone may be lost in a client library's error handling
        for task in polling:
            task.cancel()
        await asyncio.wait(polling)


async def _poll_until(stop: asyncio.Event, source: LagSource, measured: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await source.measure()
        except Unavailable:
            pass  # the estimate grows
        except Exception as error:  # noqa: BLE001 - whatever it is, the next measurement may succeed
            _log.warning("lag not measured", source=type(source).__name__, error=repr(error))
        measured.set()
        await wait_for(stop, POLL_SECONDS)
