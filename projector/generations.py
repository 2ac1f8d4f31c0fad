"""Generations of a read model: built beside the live one, compared, switched to, switched back, dropped.

Who does that is a process of its own, such as `orders projections rebuild`. It holds the lease on the generation it
works on, and goes on from that generation's checkpoint when one before it was killed. The projectors follow whatever
generation is live.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from projector import lease
from projector.engine import Engine
from projector.projection import Projection
from projector.stores import Shelf
from projector.verification import Comparison
from shared import event_store
from shared.read_model_keys import PartitionKeys
from shared.settings import Settings

SWITCH_SECONDS = 30.0  # the longest that it may take to be as far as the live generation, which moves as well
_LOOK_SECONDS = 0.01

Report = Callable[[int, int], None]  # (position reached, head of the log)


class Refused(Exception):
    """It was not done; the message says why, and what to do."""


class Differs(Refused):
    """What was built is not what the log says."""

    def __init__(self, generation: int, comparison: Comparison) -> None:
        super().__init__(
            f"generation {generation} is not what a plain fold of the log gives: {comparison}. It was not switched to"
        )


def lease_name(projection: str, generation: int) -> str:
    return PartitionKeys(projection, generation=generation).prefix


class Caretaker:
    """Looks after the generations of one read model. Methods raise `Refused`, what `Engine.step` raises, and `AWAY`."""

    def __init__(self, settings: Settings, projection: Projection[Any], shelf: Shelf) -> None:
        self._settings = settings
        self._projection = projection
        self._shelf = shelf

    async def rebuild(self, report: Report, compare: Callable[[int], Awaitable[Comparison]]) -> int:
        """Builds a generation beside the live one, compares it with the log and switches to it; its number."""
        generations = await self._shelf.generations()
        if generations.previous is not None:
            raise Refused(
                f"generation {generations.previous} is still kept for a rollback:"
                f" `orders projections drop {self._projection.name}` removes it"
            )
        number = await self._shelf.add()
        async with self._engine(number) as (engine, connection):
            await self._catch_up(engine, connection, report)
            comparison = await compare(number)
            if comparison.differences:
                raise Differs(number, comparison)
            await self._switch(engine, number)
        return number

    async def rollback(self, report: Report) -> int:
        """Answers queries from the previous generation again, once that has caught up; its number."""
        previous = (await self._shelf.generations()).previous
        if previous is None:
            raise Refused(f"no earlier generation of {self._projection.name} is kept")
        async with self._engine(previous) as (engine, connection):
            await self._catch_up(engine, connection, report)
            await self._switch(engine, previous)
        return previous

    async def drop(self) -> list[int]:
        """Removes every generation that is not live: the previous one, and one whose rebuild was given up."""
        generations = await self._shelf.generations()
        numbers = sorted({nr for nr in generations[1:] if nr is not None})
        for number in numbers:
            async with self._lease(number):
                if not await self._shelf.drop(number):
                    raise Refused(f"generation {number} is in use")
        return numbers

    @asynccontextmanager
    async def _lease(self, generation: int) -> AsyncIterator[lease.Lease]:
        async with lease.connect(self._settings, lambda: None, idle_seconds=0) as connection:
            held = await lease.try_acquire(connection, lease_name(self._projection.name, generation))
            if held is None:
                raise Refused(f"another process works on generation {generation}")
            yield held

    @asynccontextmanager
    async def _engine(self, generation: int) -> AsyncIterator[tuple[Engine[Any], event_store.Connection]]:
        async with self._lease(generation) as held:
            store = self._shelf.store(generation, announce=False)
            yield Engine(self._projection, store, held, self._settings.projector_batch_size), held.connection

    async def _catch_up(self, engine: Engine[Any], connection: event_store.Connection, report: Report) -> None:
        more = True
        while more:
            more = await engine.step()
            head = (await event_store.read_head(connection)).position
            report(0 if engine.checkpoint is None else engine.checkpoint.position, head)

    async def _switch(self, engine: Engine[Any], number: int) -> None:
        """The live one moves all the time: follows it until for a moment this one is no older."""
        try:
            async with asyncio.timeout(SWITCH_SECONDS):
                while not await self._shelf.switch((await self._shelf.generations()).live, number):
                    while await engine.step():
                        pass
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise Refused(f"generation {number} did not get as far as the live one in {SWITCH_SECONDS:.0f} s") from None
