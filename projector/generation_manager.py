"""Generations of a read model: built beside the live one, compared, switched to, switched back, dropped.

A process of its own does that, such as `orders projections rebuild`. It holds the leases on all partitions of the
generation it works on, and goes on from their checkpoints when one before it was killed. The projectors follow the live
generation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from projector.byte_budget import ByteBudget
from projector.engine import BATCHES_BYTES, Engine
from projector.process_name import PROCESS_NAME
from projector.projection import Projection
from projector.stores.generation_store import GenerationStore
from projector.verification import Comparison
from shared.eventstore.lease import Lease, try_acquire
from shared.eventstore.subscription import LogSession, open_session
from shared.read_models.keys import Checkpoint, lease_name
from shared.settings import Settings

SWITCH_SECONDS = 30.0  # the longest that it may take to be as far as the live generation, which moves as well
_POLL_SECONDS = 0.01

Report = Callable[[int, int], None]  # (position reached, head of the log)


class OperationRefused(Exception):
    """It was not done; the message says why, and what to do."""


class GenerationDiffers(OperationRefused):
    """What was built is not what the log says."""

    def __init__(self, generation: int, comparison: Comparison) -> None:
        super().__init__(
            f"generation {generation} is not what a plain fold of the log gives: {comparison}. It was not switched to"
        )


class GenerationManager:
    """Builds, switches and drops the generations of one read model.

    Methods raise `OperationRefused`, what `Engine.step` raises, and what is in `UNAVAILABLE`.
    """

    def __init__(self, settings: Settings, projection: Projection[Any], generation_store: GenerationStore) -> None:
        self._settings = settings
        self._projection = projection
        self._generation_store = generation_store

    async def rebuild(self, report: Report, compare: Callable[[int], Awaitable[Comparison]]) -> int:
        """Builds a generation beside the live one, compares it with the log and switches to it; its number."""
        generations = await self._generation_store.generations()
        if generations.previous is not None:
            raise OperationRefused(
                f"generation {generations.previous} is still kept for a rollback:"
                f" `orders projections drop {self._projection.name}` removes it"
            )
        number = await self._generation_store.begin(self._settings.partitions_of(self._projection.name))
        async with self._engines(number) as (engines, leases):
            await self._catch_up(engines, leases[0].session, report)
            comparison = await compare(number)
            if comparison.differences:
                raise GenerationDiffers(number, comparison)
            await self._switch(engines, leases, number)
        return number

    async def rollback(self, report: Report) -> int:
        """Answers queries from the previous generation again, once that has caught up; its number."""
        previous = (await self._generation_store.generations()).previous
        if previous is None:
            raise OperationRefused(f"no earlier generation of {self._projection.name} is kept")
        async with self._engines(previous) as (engines, leases):
            await self._catch_up(engines, leases[0].session, report)
            await self._switch(engines, leases, previous)
        return previous

    async def drop(self) -> list[int]:
        """Removes every generation that is not live: the previous one, and one whose rebuild was given up."""
        numbers = (await self._generation_store.generations()).not_live
        for number in numbers:
            async with self._leases(number):
                if not await self._generation_store.drop(number):
                    raise OperationRefused(f"generation {number} is in use")
        return numbers

    @asynccontextmanager
    async def _leases(self, generation: int) -> AsyncIterator[list[Lease]]:
        """On every partition of the generation."""
        partitions = (await self._generation_store.generations()).partitions_of(generation)
        async with open_session(self._settings, lambda: None, idle_seconds=0) as session:
            held = []
            for partition in range(partitions):
                lease = await try_acquire(session, lease_name(self._projection.name, generation, partition))
                if lease is None:
                    raise OperationRefused(f"another process works on generation {generation}")
                held.append(lease)
            yield held

    @asynccontextmanager
    async def _engines(self, generation: int) -> AsyncIterator[tuple[list[Engine[Any]], list[Lease]]]:
        budget = ByteBudget(BATCHES_BYTES)
        async with self._leases(generation) as leases:
            yield [self._engine(generation, nr, lease, len(leases), budget) for nr, lease in enumerate(leases)], leases

    def _engine(
        self, generation: int, partition: int, lease: Lease, partitions: int, budget: ByteBudget
    ) -> Engine[Any]:
        store = self._generation_store.store(generation, partition, partitions, announce=False)
        projection, settings = self._projection.part(partition, partitions), self._settings
        size, on_poison = settings.projector_batch_size, settings.projector_on_poison
        return Engine(projection, store, lease, size, on_poison, budget=budget, partitions=partitions)

    async def _catch_up(self, engines: Sequence[Engine[Any]], session: LogSession, report: Report) -> None:
        more, head = True, 0
        while more:
            more = await _step(engines)
            checkpoints = [engine.checkpoint for engine in engines]
            position = min(0 if checkpoint is None else checkpoint.position for checkpoint in checkpoints)
            if position >= head:
                head = (await session.read_head(self._projection.feed)).position
            report(position, head)

    async def _switch(self, engines: Sequence[Engine[Any]], leases: Sequence[Lease], number: int) -> None:
        """The live one moves all the time: follows it until for a moment this one is no older."""
        live = (await self._generation_store.generations()).live
        seen: Sequence[Checkpoint | None] = ()
        for engine in engines:
            engine.prefetch = False  # else it is always a step behind, and the live one is not
        try:
            async with asyncio.timeout(SWITCH_SECONDS):
                await self._send_heartbeats(leases, number)
                while not await self._generation_store.switch(live, number, seen):
                    await asyncio.sleep(_POLL_SECONDS)
                    seen = await self._generation_store.checkpoints(live)
                    await _reach(engines, seen)
        except TimeoutError:
            raise OperationRefused(
                f"generation {number} did not get as far as the live one in {SWITCH_SECONDS:.0f} s"
            ) from None

    async def _send_heartbeats(self, leases: Sequence[Lease], number: int) -> None:
        """Of partitions that the live generation lacks: without one, they would seem to have no projector."""
        generations = await self._generation_store.generations()
        for partition in range(generations.partitions_of(generations.live), len(leases)):
            store = self._generation_store.store(number, partition, len(leases))
            await store.heartbeat(leases[partition].epoch, PROCESS_NAME, "active")


async def _reach(engines: Sequence[Engine[Any]], seen: Sequence[Checkpoint | None]) -> None:
    """As far as that, and no further than it takes: under load there is always more. One step need not be enough: the
    page that it applies may have been read before."""
    target = max((checkpoint.position for checkpoint in seen if checkpoint is not None), default=0)
    await _step(engines)
    while any(engine.checkpoint is not None and engine.checkpoint.position < target for engine in engines):
        await _step(engines)


async def _step(engines: Sequence[Engine[Any]]) -> bool:
    """The next batch of all, which is read from the log once; whether there may be more to do at once."""
    outcomes = await asyncio.gather(*(engine.step() for engine in engines), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return any(outcomes)
