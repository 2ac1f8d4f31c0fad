"""Keeps one read model up to date for as long as the process lives: standby, active, or stuck and trying again.

Nothing that goes wrong outside ends it: it lets go of the lease, so that another projector may do better, waits
a little longer each time and starts over from what the read model's own checkpoint says.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from enum import StrEnum
from time import monotonic
from typing import Generic

import asyncpg

from projector import lease
from projector.engine import Engine
from projector.folding import PoisonEvent
from projector.generations import lease_name
from projector.projection import D, Projection
from projector.stores import AWAY, Fenced, OtherCode, Shelf
from shared.logs import get_logger
from shared.settings import Settings

STANDBY_SECONDS = 1.0
GENERATION_SECONDS = 0.25  # between looks at which generation is live
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0
LAST_POISON_RETRY_SECONDS = 30.0

_log = get_logger()


class State(StrEnum):
    STARTING = "starting"
    STANDBY = "standby"  # another projector is active
    ACTIVE = "active"
    STUCK = "stuck"  # `Worker.reason` says why


class Worker(Generic[D]):
    def __init__(self, settings: Settings, projection: Projection[D], shelf: Shelf) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.state = State.STARTING
        self.reason = "The projector has not connected yet."
        self.epoch: int | None = None  # of its last lease
        self._settings = settings
        self._projection = projection
        self._shelf = shelf
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._failures = 0

    @property
    def projection(self) -> str:
        return self._projection.name

    @property
    def working(self) -> bool:
        """Whether it does its work or stands by for the one that does; else `reason` says what keeps it."""
        return self.state in (State.ACTIVE, State.STANDBY)

    def stop(self) -> None:
        """Lets `run` return after the batch in hand."""
        self._stop.set()
        self._wake.set()

    async def run(self) -> None:
        while not self._stop.is_set():
            try:
                async with lease.connect(self._settings, self._wake.set) as connection:
                    await self._take_part(connection)
            except Exception as error:  # noqa: BLE001 - told apart, logged and tried again below; never skipped
                await self._recover_from(error)

    async def _take_part(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        while not self._stop.is_set():
            generation = (await self._shelf.generations()).live
            if held := await lease.try_acquire(connection, lease_name(self._projection.name, generation)):
                await self._project(held, generation)
                return  # the lease ends with its connection
            if self.state is not State.STANDBY:
                _log.info("standing by, another projector is active", projection=self._projection.name)
            self.state, self._failures = State.STANDBY, 0
            await _wait_for(self._stop, STANDBY_SECONDS)

    async def _project(self, held: lease.Lease, generation: int) -> None:
        """Until another generation is the live one."""
        store = self._shelf.store(generation)
        engine = Engine(self._projection, store, held, self._settings.projector_batch_size)
        look_at = 0.0
        while not self._stop.is_set():
            # Where the store was emptied or replaced, what is live may be another one, too.
            if engine.checkpoint is None or monotonic() >= look_at:
                if (await self._shelf.generations()).live != generation:
                    return
                look_at = monotonic() + GENERATION_SECONDS
            # Cleared before reading: a hint that comes while we read is kept for the sleep below.
            self._wake.clear()
            more = await engine.step()
            if self.state is not State.ACTIVE:
                _log.info("projecting", projection=self._projection.name, generation=generation, epoch=held.epoch)
            self.state, self.epoch, self._failures = State.ACTIVE, held.epoch, 0
            if not more:
                # Polling is always enough: a hint may be lost.
                await _wait_for(self._wake, self._settings.projector_poll_seconds)

    async def _recover_from(self, error: Exception) -> None:
        longest = LAST_RETRY_SECONDS
        match error:
            case PoisonEvent(event=event):
                longest = LAST_POISON_RETRY_SECONDS
                self.reason = f"Stopped before an event that cannot be applied: {error}"
                _log.error(
                    "stopped before an event that cannot be applied; nothing is skipped",
                    projection=self._projection.name,
                    position=event.position,
                    stream_id=event.stream_id,
                    event_type=event.event_type,
                    schema_version=event.schema_version,
                    error=str(error.__cause__),
                    exc_info=error.__cause__,
                )
            case OtherCode():
                # During a deploy the other program goes on with it; afterwards a rebuild makes a generation of ours.
                if self.reason != str(error):
                    _log.warning("standing by", projection=self._projection.name, reason=str(error))
                self.state, self.reason, self._failures = State.STANDBY, str(error), 0
                await _wait_for(self._stop, STANDBY_SECONDS)
                return
            case Fenced():
                self.reason = "Another projector has taken over."
                _log.warning(
                    "another projector has taken over; going back to standby",
                    projection=self._projection.name,
                    epoch=self.epoch,
                )
            case _ if isinstance(error, AWAY):
                self.reason = f"PostgreSQL or Redis is away or refuses: {type(error).__name__}: {error}"
                _log.warning(
                    "PostgreSQL or Redis is away or refuses; trying again",
                    projection=self._projection.name,
                    error=repr(error),
                )
                await self._shelf.reconnect()
            case _:
                self.reason = f"{type(error).__name__}: {error}"
                _log.error("the projector failed; trying again", projection=self._projection.name, exc_info=error)
        self.state = State.STUCK
        delay = min(longest, FIRST_RETRY_SECONDS * 2 ** min(self._failures, 20))
        self._failures += 1
        await _wait_for(self._stop, delay)


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    """Returns when the event is set or the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
