"""Measures how far the read model is behind, says so to PostgreSQL, and that the projector lives.

In a task of its own: a projector that is stuck must be seen to fall behind, not to stand still at its last figure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from projector.stores import AWAY, Store
from projector.worker import State, Worker
from shared import event_store, progress
from shared.logs import get_logger
from shared.metrics import (
    PROJECTION_CHECKPOINT,
    PROJECTION_HEAD,
    PROJECTION_LAG_EVENTS,
    PROJECTION_LAG_SECONDS,
    PROJECTION_PARKED,
)
from shared.postgres import CONNECTION_LOST
from shared.read_model_keys import Checkpoint
from shared.waiting import wait_for

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
        labels = worker.projection, str(worker.partition)
        self._checkpoint = PROJECTION_CHECKPOINT.labels(*labels)
        self._lag_events = PROJECTION_LAG_EVENTS.labels(*labels)
        self._parked = PROJECTION_PARKED.labels(*labels)
        self._lag_seconds = PROJECTION_LAG_SECONDS.labels(*labels)

    async def run(self) -> None:
        """Until cancelled after `stop`. A cancellation alone may be lost in a client library's error handling."""
        async with asyncio.TaskGroup() as tasks:  # side by side: a server that hangs holds up only its own part
            tasks.create_task(self._repeat(self._beat))
            tasks.create_task(self._repeat(self._measure))

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
            self._parked.set(await self._store.count_parked())
            await self._say_alive(self._store)
            self._worker.reached_store()
        except (*AWAY, asyncpg.PostgresError) as error:
            _log.warning("no heartbeat, the read model is away or refuses", projection=self._name, error=str(error))

    async def _measure(self) -> None:
        at = self._at
        try:
            lag = await event_store.read_lag(self._log, None if at is None else at.token)
            if self._known and self._is_active():
                await progress.report(self._log, self._name, at, self.partition, self._worker.layout.partitions)
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            _log.warning("lag not measured, PostgreSQL is away or refuses", projection=self._name, error=str(error))
            return
        PROJECTION_HEAD.set(lag.head)
        self._checkpoint.set(lag.position)
        self._lag_events.set(lag.events)
        self._lag_seconds.set(lag.seconds)

    async def _say_alive(self, store: Store) -> None:
        if self._is_active():
            await self._worker.say_alive(store)

    def _is_active(self) -> bool:
        """Who stands by says nothing: heartbeat and progress are the active projector's."""
        return self._worker.epoch is not None and self._worker.state is not State.STANDBY
