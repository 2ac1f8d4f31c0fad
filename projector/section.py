"""One projection in this process: a worker and a monitor for each partition of the generation that is live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import asyncpg

from projector.lag import Monitor
from projector.projection import Projection
from projector.stores import AWAY, Shelf
from projector.worker import Layout, Worker
from shared.aio import wait_for
from shared.eventstore.blockers import SlowCallMonitor
from shared.failpoints import failpoint
from shared.logs import get_logger
from shared.postgres import connect
from shared.read_models.keys import Generations
from shared.settings import Settings

LOOK_SECONDS = 1.0  # between looks at which generation is live, besides those of the workers

_log = get_logger()


class Section:
    def __init__(
        self,
        settings: Settings,
        projection: Projection[Any],
        shelf: Shelf,
        log: asyncpg.Pool[asyncpg.Record],
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is called when there are other workers, or one of them gave its lease back."""
        self.workers: list[Worker[Any]] = []
        self.reason = f"{projection.name}: The projector has not connected yet."  # that there are no workers
        self._settings = settings
        self._projection = projection
        self._shelf = shelf
        self._log = log
        self._on_change = on_change
        self._wanted = settings.partitions_of(projection.name)
        self._stalls = SlowCallMonitor(partial(connect, settings, "stalls"), settings.long_transaction_seconds)
        self._layout: Layout | None = None
        self._monitors: list[Monitor] = []
        self._monitoring: list[asyncio.Task[None]] = []
        self._look = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Follows the generation that is live until stopped; the leases of its workers are the crew's."""
        while not self._stop.is_set():
            self._look.clear()
            try:
                await self._follow(await self._generations())
            except AWAY as error:
                self.reason = f"{self._projection.name}: PostgreSQL or Redis is away or refuses: {error!r}"
            except Exception as error:  # noqa: BLE001 - said, and tried again
                self.reason = f"{self._projection.name}: {error!r}"
                _log.error("the read model cannot be looked at", projection=self._projection.name, exc_info=error)
            await wait_for(self._look, LOOK_SECONDS)
        await self._dismiss()
        await self._stalls.close()

    def stop(self) -> None:
        self._stop.set()
        self._look.set()

    async def _generations(self) -> Generations:
        failpoint("projection.starting", self._projection.name)
        generations = await self._shelf.generations()
        if self._wanted > 1 and generations == Generations():
            return await self._shelf.settle(self._wanted)
        return generations

    async def _follow(self, generations: Generations) -> None:
        layout = Layout.of(generations)
        if layout == self._layout:
            return
        await self._dismiss()
        self._layout = layout
        self.workers = [
            Worker(self._settings, self._projection, self._shelf, layout, partition, self._stalls, self._changed)
            for partition in range(layout.partitions)
        ]
        self._monitors = [Monitor(worker, self._log, self._settings.heartbeat_seconds) for worker in self.workers]
        self._monitoring = [
            asyncio.create_task(monitor.run(), name=f"projector-lag-{monitor.partition}") for monitor in self._monitors
        ]
        self._on_change()
        if layout.partitions != self._wanted:
            _log.warning(
                "the live generation keeps its number of partitions; `orders projections rebuild` makes one with the"
                " number that is set",
                projection=self._projection.name,
                generation=layout.generation,
                partitions=layout.partitions,
                set=self._wanted,
            )

    def _changed(self) -> None:
        """Perhaps because another generation is live now."""
        self._look.set()
        self._on_change()

    async def _dismiss(self) -> None:
        """Ends what is done for another generation."""
        for worker in self.workers:
            worker.dismiss()
        for monitor, task in zip(self._monitors, self._monitoring, strict=True):
            monitor.stop()
            task.cancel()
        if self._monitoring:
            await asyncio.wait(self._monitoring)
        await asyncio.gather(*(worker.ended() for worker in self.workers))
        self.workers, self._monitors, self._monitoring = [], [], []
