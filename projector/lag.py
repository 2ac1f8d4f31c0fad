"""Measures how far the read model is behind, and says that the projector lives.

In a task of its own: a projector that is stuck must be seen to fall behind, not to stand still at its last figure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import asyncpg

from projector.stores import AWAY, Shelf, Store
from projector.worker import State, Worker
from shared import event_store
from shared.logs import get_logger
from shared.metrics import PROJECTION_CHECKPOINT, PROJECTION_HEAD, PROJECTION_LAG_EVENTS, PROJECTION_LAG_SECONDS
from shared.postgres import CONNECTION_LOST

_log = get_logger()


class Monitor:
    def __init__(
        self, name: str, shelf: Shelf, log: asyncpg.Pool[asyncpg.Record], worker: Worker[Any], seconds: float
    ) -> None:
        self._name = name
        self._shelf = shelf
        self._log = log
        self._worker = worker
        self._seconds = seconds
        self._position = 0
        self._stop = asyncio.Event()
        self._checkpoint = PROJECTION_CHECKPOINT.labels(name)
        self._lag_events = PROJECTION_LAG_EVENTS.labels(name)
        self._lag_seconds = PROJECTION_LAG_SECONDS.labels(name)

    async def run(self) -> None:
        """Until cancelled after `stop`. A cancellation alone may be lost in a client library's error handling."""
        async with asyncio.TaskGroup() as tasks:  # side by side: a server that hangs holds up only its own part
            tasks.create_task(self._repeat(self._beat))
            tasks.create_task(self._repeat(self._measure))

    def stop(self) -> None:
        self._stop.set()

    async def _repeat(self, act: Callable[[], Awaitable[None]]) -> None:
        while not self._stop.is_set():
            await act()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._stop.wait()

    async def _beat(self) -> None:
        try:
            store = self._shelf.store((await self._shelf.generations()).live)
            checkpoint = await store.checkpoint()
            self._position = 0 if checkpoint is None else checkpoint.position
            await self._say_alive(store)
        except AWAY as error:
            _log.warning("no heartbeat, the read model is away", projection=self._name, error=str(error))

    async def _measure(self) -> None:
        position = self._position
        try:
            head, age = await event_store.read_lag(self._log, position)
        except CONNECTION_LOST as error:
            _log.warning("lag not measured, PostgreSQL is away", projection=self._name, error=str(error))
            return
        PROJECTION_HEAD.set(head)
        self._checkpoint.set(position)
        self._lag_events.set(max(0, head - position))
        self._lag_seconds.set(age)

    async def _say_alive(self, store: Store) -> None:
        # Who stands by says nothing: the heartbeat is the active projector's.
        if self._worker.epoch is not None and self._worker.state is not State.STANDBY:
            await store.heartbeat(self._worker.epoch, self._worker.name, self._worker.state)
