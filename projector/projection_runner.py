"""One projection in this process: a worker and a progress reporter for each partition of the live generation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import asyncpg

from projector.byte_budget import ByteBudget
from projector.partition_worker import LiveGeneration, PartitionWorker
from projector.progress_reporter import ProgressReporter
from projector.projection import Projection
from projector.stores.generation_store import GenerationStore
from projector.stores.store import UNAVAILABLE
from shared.aio import wait_for
from shared.eventstore.blockers import SlowCallMonitor
from shared.failpoints import failpoint
from shared.logs import get_logger
from shared.postgres import connect
from shared.read_models.keys import Generations
from shared.settings import Settings

POLL_SECONDS = 1.0  # between reads of which generation is live, besides those of the workers

_log = get_logger()


class ProjectionRunner:
    def __init__(
        self,
        settings: Settings,
        projection: Projection[Any],
        generation_store: GenerationStore,
        log: asyncpg.Pool[asyncpg.Record],
        on_change: Callable[[], None],
        budget: ByteBudget,
    ) -> None:
        """`on_change` is called when there are other workers, or one of them gave its lease back. `budget` is shared by
        the projections of one kind of store."""
        self.workers: list[PartitionWorker[Any]] = []
        self.reason = f"{projection.name}: The projector has not connected yet."  # that there are no workers
        self._settings = settings
        self._projection = projection
        self._generation_store = generation_store
        self._log = log
        self._on_change = on_change
        self._budget = budget
        self._wanted = settings.partitions_of(projection.name)
        self._slow_calls = SlowCallMonitor(partial(connect, settings, "blockers"), settings.long_transaction_seconds)
        self._live: LiveGeneration | None = None
        self._reporters: list[ProgressReporter] = []
        self._reporting: list[asyncio.Task[None]] = []
        self._poll = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Follows the live generation until stopped; the projector process assigns the leases of its workers."""
        while not self._stop.is_set():
            self._poll.clear()
            try:
                await self._follow(await self._generations())
            except UNAVAILABLE as error:
                self.reason = f"{self._projection.name}: PostgreSQL or Redis is away or refuses: {error!r}"
            except Exception as error:  # noqa: BLE001 - said, and tried again
                self.reason = f"{self._projection.name}: {error!r}"
                _log.error("live generation not read", projection=self._projection.name, exc_info=error)
            await wait_for(self._poll, POLL_SECONDS)
        await self._retire_workers()
        await self._slow_calls.close()

    def stop(self) -> None:
        self._stop.set()
        self._poll.set()

    async def _generations(self) -> Generations:
        failpoint("projection.starting", self._projection.name)
        generations = await self._generation_store.generations()
        if self._wanted > 1 and generations == Generations():
            return await self._generation_store.initialise(self._wanted)
        return generations

    async def _follow(self, generations: Generations) -> None:
        live = LiveGeneration.of(generations)
        if live == self._live:
            return
        await self._retire_workers()
        self._live = live
        self.workers = [self._worker(live, partition) for partition in range(live.partitions)]
        beat = self._settings.heartbeat_seconds
        self._reporters = [ProgressReporter(worker, self._log, beat) for worker in self.workers]
        self._reporting = [
            asyncio.create_task(one.run(), name=f"projector-progress-{one.partition}") for one in self._reporters
        ]
        self._on_change()
        if live.partitions != self._wanted:
            _log.warning(
                "the live generation keeps its number of partitions; `orders projections rebuild` makes one with the"
                " number that is set",
                projection=self._projection.name,
                generation=live.generation,
                partitions=live.partitions,
                set=self._wanted,
            )

    def _worker(self, live: LiveGeneration, partition: int) -> PartitionWorker[Any]:
        return PartitionWorker(
            self._settings,
            self._projection,
            self._generation_store,
            live,
            partition,
            self._slow_calls,
            self._on_worker_change,
            self._budget,
        )

    def _on_worker_change(self) -> None:
        """Perhaps because another generation is live now."""
        self._poll.set()
        self._on_change()

    async def _retire_workers(self) -> None:
        for worker in self.workers:
            worker.retire()
        for reporter, task in zip(self._reporters, self._reporting, strict=True):
            reporter.stop()
            task.cancel()
        if self._reporting:
            await asyncio.wait(self._reporting)
        await asyncio.gather(*(worker.join() for worker in self.workers))
        self.workers, self._reporters, self._reporting = [], [], []
