"""Measures how far the read model is behind, says so to PostgreSQL, and that the projector lives.

In a task of its own: a projector that is stuck must be seen to fall behind, not to stand still at its last figure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import asyncpg
from prometheus_client import Gauge

from projector.stores import AWAY
from projector.worker import Worker
from shared.aio import wait_for
from shared.eventstore import log as event_log
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

_OF_LAG = (PROJECTION_CHECKPOINT, PROJECTION_LAG_EVENTS, PROJECTION_LAG_SECONDS)

_log = get_logger()


class Monitor:
    """Of one partition, whoever works on it."""

    def __init__(self, worker: Worker[Any], log: asyncpg.Pool[asyncpg.Record], seconds: float) -> None:
        self._name = worker.projection
        self.partition = worker.partition
        self._store = worker.store
        self._log = log
        self._worker = worker
        self._seconds = seconds
        self._known = False  # where the read model is; until then nothing is said of it
        self._at: Checkpoint | None = None
        self._stop = asyncio.Event()
        self._labels = worker.projection, str(worker.partition)

    async def run(self) -> None:
        """Until cancelled after `stop`. A cancellation alone may be lost in a client library's error handling."""
        try:
            async with asyncio.TaskGroup() as tasks:  # side by side: a server that hangs holds up only its own part
                tasks.create_task(self._repeat(self._beat))
                tasks.create_task(self._repeat(self._measure))
        finally:
            self._forget(*_OF_LAG, PROJECTION_PARKED)  # of a partition that the next generation may not have

    def stop(self) -> None:
        self._stop.set()

    async def _repeat(self, act: Callable[[], Awaitable[None]]) -> None:
        while not self._stop.is_set():
            try:
                await act()
            except Exception as error:  # noqa: BLE001 - a monitor that ends would leave a projector that seems dead
                _log.error("the monitor failed; trying again", projection=self._name, exc_info=error)
            await wait_for(self._stop, self._seconds)

    async def _beat(self) -> None:
        try:
            self._at, self._known = await self._store.checkpoint(), True
            PROJECTION_PARKED.labels(*self._labels).set(await self._store.count_parked())
            if self._worker.speaks:
                await self._worker.say_alive(self._store)
            else:
                await self._worker.listen(self._store)
            self._worker.reached_store()
        except (*AWAY, asyncpg.PostgresError) as error:
            _log.warning("no heartbeat, the read model is away or refuses", projection=self._name, error=str(error))

    async def _measure(self) -> None:
        at = self._at
        try:
            lag = await event_log.read_lag(self._log, None if at is None else at.token)
            if self._known and self._worker.speaks:
                await progress.report(self._log, self._name, at, self.partition, self._worker.layout.partitions)
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            _log.warning("lag not measured, PostgreSQL is away or refuses", projection=self._name, error=str(error))
            self._forget(PROJECTION_LAG_EVENTS, PROJECTION_LAG_SECONDS)
            return
        PROJECTION_HEAD.set(lag.head)
        for gauge, value in zip(_OF_LAG, (lag.position, lag.events, lag.seconds), strict=True):
            gauge.labels(*self._labels).set(value)

    def _forget(self, *gauges: Gauge) -> None:
        """Nothing is said rather than the last figure for ever."""
        for gauge in gauges:
            with suppress(KeyError):
                gauge.remove(*self._labels)
