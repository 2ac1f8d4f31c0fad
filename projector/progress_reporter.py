"""Reports heartbeat, checkpoint and lag of a partition, whichever process works on it.

In a task of its own: the lag of a projector that is stuck must be seen to grow, not to keep its last value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import asyncpg
from prometheus_client import Gauge

from projector.partition_worker import PartitionWorker
from projector.stores.store import UNAVAILABLE
from projector.worker_status import WorkerState
from shared.aio import wait_for
from shared.eventstore import log as event_log
from shared.eventstore.feed import EVENT_LOG
from shared.logs import get_logger
from shared.metrics import (
    PROJECTION_CHECKPOINT,
    PROJECTION_HEAD,
    PROJECTION_LAG_EVENTS,
    PROJECTION_LAG_SECONDS,
    PROJECTION_PARKED,
)
from shared.postgres import CONNECTION_LOST
from shared.read_models import progress
from shared.read_models.keys import Checkpoint
from shared.read_models.lag import HeadHistory

STARTING_POLL_SECONDS = 0.05

_OF_LAG = (PROJECTION_CHECKPOINT, PROJECTION_LAG_EVENTS, PROJECTION_LAG_SECONDS)

_log = get_logger()


class ProgressReporter:
    def __init__(self, worker: PartitionWorker[Any], log: asyncpg.Pool[asyncpg.Record], seconds: float) -> None:
        self._name = worker.projection
        self.partition = worker.partition
        self._store = worker.store
        self._log = log
        self._worker = worker
        self._seconds = seconds
        self._known = False  # where the read model is; until then nothing is reported
        self._at: Checkpoint | None = None
        self._heads = HeadHistory()
        self._stop = asyncio.Event()
        self._labels = worker.projection, str(worker.partition)

    async def run(self) -> None:
        """Until cancelled after `stop`. A cancellation alone may be lost in a client library's error handling."""
        try:
            async with asyncio.TaskGroup() as tasks:  # side by side: a server that hangs holds up only its own part
                tasks.create_task(self._repeat(self._report_heartbeat))
                tasks.create_task(self._repeat(self._report_lag))
        finally:
            self._remove(*_OF_LAG, PROJECTION_PARKED)  # of a partition that the next generation may not have

    def stop(self) -> None:
        self._stop.set()

    async def _repeat(self, act: Callable[[], Awaitable[None]]) -> None:
        while not self._stop.is_set():
            try:
                await act()
            except Exception as error:  # noqa: BLE001 - without it, a projector that works would seem to have stopped
                _log.error("progress reporter failed; retrying", projection=self._name, exc_info=error)
            await self._pause()

    async def _pause(self) -> None:
        """A heartbeat. It ends when the worker has started, so that what the worker does first is reported at once."""
        end = monotonic() + self._seconds
        starting = self._is_starting
        while starting is self._is_starting and not self._stop.is_set() and (left := end - monotonic()) > 0:
            await wait_for(self._stop, min(left, STARTING_POLL_SECONDS) if starting else left)

    @property
    def _is_starting(self) -> bool:
        return self._worker.status.state is WorkerState.STARTING

    async def _report_heartbeat(self) -> None:
        try:
            self._at, self._known = await self._store.checkpoint(), True
            PROJECTION_PARKED.labels(*self._labels).set(await self._store.count_parked())
            if self._worker.status.reports:
                await self._worker.send_heartbeat()
            else:
                await self._worker.read_heartbeat()
            self._worker.status.store_reached = True
        except (*UNAVAILABLE, asyncpg.PostgresError) as error:
            _log.warning("heartbeat not sent", projection=self._name, error=str(error))

    async def _report_lag(self) -> None:
        at = self._at
        try:
            lag = await event_log.read_lag(self._log, None if at is None else at.token, self._worker.feed)
            if self._known and self._worker.status.reports:
                await progress.report(self._log, self._name, at, self.partition, self._worker.live.partitions)
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            _log.warning("lag not measured", projection=self._name, error=str(error))
            self._remove(PROJECTION_LAG_EVENTS, PROJECTION_LAG_SECONDS)
            return
        if self._worker.feed is EVENT_LOG:
            PROJECTION_HEAD.set(lag.head)
        PROJECTION_CHECKPOINT.labels(*self._labels).set(lag.position)
        PROJECTION_LAG_EVENTS.labels(*self._labels).set(lag.events)
        now = monotonic()
        self._heads.add(lag.head, now)
        if lag.seconds is None:
            self._remove(PROJECTION_LAG_SECONDS)
        else:
            least = self._heads.least_age(lag.position, now)
            PROJECTION_LAG_SECONDS.labels(*self._labels).set(max(lag.seconds, least))

    def _remove(self, *gauges: Gauge) -> None:
        """No value rather than the last one for ever."""
        for gauge in gauges:
            with suppress(KeyError):
                gauge.remove(*self._labels)
