"""Keeps one partition of a read model up to date for as long as the process lives: standby, active, or stuck and trying
again.

No outside failure ends it: it gives the lease back, so that another projector may do better, waits a little longer each
time and starts over from the read model's own checkpoint. `projector.projector_process` assigns the leases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Generic, NamedTuple

from projector.byte_budget import ByteBudget
from projector.engine import Engine
from projector.process_name import PROCESS_NAME
from projector.projection import D, Projection
from projector.routing import PoisonEvent
from projector.stores.generation_store import GenerationStore
from projector.stores.store import UNAVAILABLE, Store
from projector.worker_status import WorkerState, WorkerStatus
from shared.aio import wait_for
from shared.eventstore.blockers import SlowCallMonitor
from shared.eventstore.feed import Feed
from shared.eventstore.lease import Lease
from shared.eventstore.subscription import LogSession
from shared.logs import get_logger
from shared.read_models.keys import Generations, lease_name
from shared.settings import Settings

POLL_SECONDS = 0.25  # between reads of which generation is live, and of retries that operators request
FINISH_SECONDS = 5.0  # for the batch in hand, where the work is to end; a stop in all is to take 20 s at most
BREAK_OFF_SECONDS = 3.0  # for a server to let go of it

_log = get_logger()


class LiveGeneration(NamedTuple):
    """The live generation, and into how many partitions it is divided."""

    generation: int
    partitions: int

    @classmethod
    def of(cls, generations: Generations) -> LiveGeneration:
        return cls(generations.live, generations.partitions_of(generations.live))


class PartitionWorker(Generic[D]):
    """One partition of a generation of a read model, as this process sees it."""

    def __init__(
        self,
        settings: Settings,
        projection: Projection[D],
        generation_store: GenerationStore,
        live: LiveGeneration,
        partition: int,
        slow_calls: SlowCallMonitor,
        on_change: Callable[[], None],
        budget: ByteBudget,
    ) -> None:
        """`on_change` is called when it has given its lease back, and when it would take it again."""
        self.live = live
        self.partition = partition
        self.lease_name = lease_name(projection.name, live.generation, partition)
        self.store = generation_store.store(live.generation, partition, live.partitions)
        self.status = WorkerStatus(projection.name, partition, settings.heartbeat_stale_seconds)
        self._settings = settings
        self._projection = projection.part(partition, live.partitions)
        self._generation_store = generation_store
        self._on_change = on_change
        self._slow_calls = slow_calls
        self._budget = budget
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._held: Lease | None = None  # by that task
        self._retired = False

    @property
    def projection(self) -> str:
        return self._projection.name

    @property
    def feed(self) -> Feed:
        return self._projection.feed

    @property
    def idle(self) -> bool:
        """Neither at work nor waiting after a failure."""
        return self._task is None and not self._retired

    def is_candidate(self, session: LogSession) -> bool:
        """Whether it would do the work with a lease of that session, as far as it knows.

        After a failure others may do better, so it leaves them the partition, and tries again only where there is no
        other. While it still works with the lease of a session that is lost, it could not take another.
        """
        free = self._task is None or (self._held is not None and self._held.session is session)
        waiting = self.status.state is WorkerState.STUCK and self._task is not None
        return free and self.status.may_retry and self.status.store_reached and not waiting and not self._retired

    def start(self, held: Lease) -> None:
        """Works until `stop`, until another generation is live, or until it fails; then gives the lease back."""
        self._stop.clear()
        self._held = held
        self._task = asyncio.create_task(self._work(held), name=f"projector-{self.lease_name}")

    def stop(self) -> None:
        """Ends the work after the current batch."""
        self._stop.set()
        self._wake.set()

    def retire(self) -> None:
        """As `stop`, and for ever."""
        self._retired = True
        self.stop()

    async def join(self) -> None:
        """Returns when the current batch is finished, or cancelled because it takes long, as the removal of a whole
        read model may. Fence and checkpoint see to it that a batch is applied whole or not at all."""
        if (task := self._task) is None:
            return
        _, late = await asyncio.wait([task], timeout=FINISH_SECONDS)
        if late:
            _log.warning("slow batch cancelled", projection=self.projection, partition=self.partition)
            if not task.cancelling():
                task.cancel()
            await asyncio.wait([task], timeout=BREAK_OFF_SECONDS)

    def wake(self) -> None:
        self._wake.set()

    def stand_by(self) -> None:
        self.status.stand_by()

    async def send_heartbeat(self) -> None:
        status = self.status
        if status.epoch is not None:
            await self.store.heartbeat(status.epoch, PROCESS_NAME, status.state, status.cause, status.poison)

    async def read_heartbeat(self) -> None:
        """That of the active worker. Where there is none, it writes down what keeps it from the work itself."""
        status, stale_seconds = self.status, self._settings.heartbeat_stale_seconds
        status.received_heartbeat(
            await self.store.heartbeat_age(PROCESS_NAME, status.state, status.inactive_because, stale_seconds)
        )

    async def _work(self, held: Lease) -> None:
        seconds = 0.0
        try:
            await self._project(held)
        except asyncio.CancelledError:
            pass  # broken off by `join`; the lease is given back as ever
        except Exception as error:  # noqa: BLE001 - told apart, logged and tried again; never skipped
            seconds = self.status.fail(error)
            if isinstance(error, UNAVAILABLE):
                await self._generation_store.reconnect()
        try:
            await held.release()
            self._on_change()
            await self._wait_to_retry(seconds)
        finally:
            self._task = self._held = None
            self._on_change()

    async def _project(self, held: Lease) -> None:
        store, settings = self.store, self._settings
        size, on_poison = settings.projector_batch_size, settings.projector_on_poison
        partitions = self.live.partitions
        engine = Engine(self._projection, store, held, size, on_poison, budget=self._budget, partitions=partitions)
        requested: frozenset[str] = frozenset()
        poll_at = 0.0
        while not self._stop.is_set():
            # Where the store was emptied or replaced, another generation may be live, too.
            if engine.checkpoint is None or monotonic() >= poll_at:
                if LiveGeneration.of(await self._generation_store.generations()) != self.live:
                    return
                requested = await store.retries()
                poll_at = monotonic() + POLL_SECONDS
            # Cleared before reading: a hint that comes while we read is kept for the wait below.
            self._wake.clear()
            try:
                with self._slow_calls.watch(self._projection.name):
                    more = await engine.step(requested)
            except PoisonEvent as raised:
                self.status.stop_before(raised, held.epoch)
                await self._answer(store, requested)
                raise
            self.status.activate(held.epoch, self.live.generation)
            if requested and engine.checkpoint is not None:
                await self._answer(store, requested)
                requested = frozenset()
            if not more:
                # Polling is always enough: a hint may be lost.
                await wait_for(self._wake, self._settings.projector_poll_seconds)

    async def _answer(self, store: Store, requested: frozenset[str]) -> None:
        """Reports the status, and then that the request was tried: the client reads in this order."""
        await self.send_heartbeat()
        if requested:
            await store.retried(requested)

    async def _wait_to_retry(self, seconds: float) -> None:
        """Until the time is over, or an operator requests a retry."""
        deadline = monotonic() + seconds
        while not self._stop.is_set() and (left := deadline - monotonic()) > 0:
            await wait_for(self._stop, min(left, POLL_SECONDS))
            with suppress(*UNAVAILABLE):  # then there can be no request
                if self.status.poison and await self.store.retries():
                    return
