"""A projector process: every projection, and its share of the leases on their partitions.

Each partition has a worker of its own, so that one that is stuck stops no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import asyncpg
from redis.asyncio import Redis

from projector.assignment import Assignment, PartitionOwners
from projector.byte_budget import ByteBudget
from projector.engine import BATCHES_BYTES
from projector.foreign_leases import ForeignLeaseMonitor
from projector.membership import Membership, read_owners
from projector.partition_worker import PartitionWorker
from projector.projection_runner import ProjectionRunner
from projector.projections import PROJECTIONS
from projector.stores.factory import open_generation_store
from projector.worker_status import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS
from shared.aio import wait_for
from shared.eventstore.lease import try_acquire
from shared.eventstore.subscription import LogSession, open_session
from shared.http.operations import NotReady
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST
from shared.settings import Settings

POLL_SECONDS = 1.0  # between reads of the holders of leases
HANDOVER_POLL_SECONDS = 0.2  # while a partition is to be handed over to this process

_log = get_logger()


class ProjectorProcess:
    def __init__(self, settings: Settings, redis: Redis, database: asyncpg.Pool[asyncpg.Record]) -> None:
        self._settings = settings
        # One for each kind of store: where one hangs, the projections of another go on.
        budgets = {one.store: ByteBudget(BATCHES_BYTES) for one in PROJECTIONS.values()}
        self._runners = [
            ProjectionRunner(
                settings,
                one.projection,
                open_generation_store(one, redis, database),
                database,
                self._poll_now,
                budgets[one.store],
            )
            for one in PROJECTIONS.values()
        ]
        self._reason = "The projector has not connected yet."
        self._foreign = ""  # the foreign sessions that hold leases
        self._failures = 0
        self._poll = asyncio.Event()
        self._stop = asyncio.Event()

    async def ready(self) -> None:
        """Raises `NotReady` unless every worker is active or stands by for an active one."""
        reasons = [runner.reason for runner in self._runners if not runner.workers]
        reasons += [
            f"{worker.projection}: {worker.status.reason}" for worker in self._workers() if not worker.status.working
        ]
        if self._reason or self._foreign or reasons:
            raise NotReady(" ".join([*filter(None, [self._reason, self._foreign]), *dict.fromkeys(reasons)]))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Until the block ends; the batches in hand are finished, those that take long are broken off."""
        following = [asyncio.create_task(runner.run(), name="projection-runner") for runner in self._runners]
        leasing = asyncio.create_task(self._hold_leases(), name="projector-leases")
        try:
            yield
        finally:
            self._stop.set()
            self._poll_now()
            for runner in self._runners:
                runner.stop()
            await asyncio.wait([*following, leasing])

    def _workers(self) -> Iterable[PartitionWorker[Any]]:
        return (worker for runner in self._runners for worker in runner.workers)

    def _poll_now(self) -> None:
        self._poll.set()

    def _on_event(self) -> None:
        """The log may have grown, or the session is over."""
        for worker in self._workers():
            worker.wake()

    async def _hold_leases(self) -> None:
        """Takes its share of the leases until stopped, with one session after another."""
        while not self._stop.is_set():
            try:
                async with open_session(self._settings, self._on_event) as session:
                    await self._share_leases(session)
                    await asyncio.gather(*(worker.join() for worker in self._stop_workers()))
            except Exception as error:  # noqa: BLE001 - told apart, logged and tried again; never skipped
                self._stop_workers()  # the leases are gone; a worker that hangs blocks no other
                self._log_failure(error)
                delay = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(self._failures, 20))
                self._failures += 1
                await wait_for(self._stop, delay)

    def _log_failure(self, error: Exception) -> None:
        self._reason = f"No leases: {type(error).__name__}: {error}"
        if isinstance(error, CONNECTION_LOST):
            _log.warning("postgresql unavailable; retrying", error=repr(error))
        else:
            _log.error("projector failed; retrying", exc_info=error)

    async def _share_leases(self, session: LogSession) -> None:
        membership, assignment, foreign = Membership(session), Assignment(session.pid), ForeignLeaseMonitor(session)
        while not self._stop.is_set():
            self._poll.clear()
            workers = {worker.lease_name: worker for worker in self._workers()}
            await membership.join([name for name, worker in workers.items() if worker.is_candidate(session)])
            owners, elsewhere = await read_owners(session, workers)
            assigned = assignment.assign(owners, elsewhere, monotonic())
            handover = False
            for one in owners:
                mine = assigned.get(one.name) == session.pid
                handover |= mine and one.holder != session.pid
                await self._act(session, workers[one.name], one, mine=mine)
            await foreign.check(workers)
            self._foreign = " ".join(
                f"Lease {holder.lease!r} is held by a foreign session: pid {holder.pid}, user {holder.user}."
                for holder in foreign.holders
            )
            self._reason, self._failures = "", 0
            await wait_for(self._poll, HANDOVER_POLL_SECONDS if handover else POLL_SECONDS)

    async def _act(
        self, session: LogSession, worker: PartitionWorker[Any], owners: PartitionOwners, *, mine: bool
    ) -> None:
        if owners.holder == session.pid:
            if not mine:
                worker.stop()
        elif worker.idle:
            if owners.holder is None and (mine or not owners.candidates):
                await self._start(session, worker)
            else:
                worker.stand_by()

    async def _start(self, session: LogSession, worker: PartitionWorker[Any]) -> None:
        if (held := await try_acquire(session, worker.lease_name)) is None:
            return  # another process was faster
        if worker.idle:
            worker.start(held)
        else:
            await held.release()  # another generation is live now

    def _stop_workers(self) -> list[PartitionWorker[Any]]:
        workers = [*self._workers()]
        for worker in workers:
            worker.stop()
        return workers
