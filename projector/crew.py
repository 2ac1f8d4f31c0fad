"""Every projection of a projector process, and the leases on their partitions, which the processes share.

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

from projector.lease import Candidacy, look, try_acquire
from projector.projections import PROJECTIONS, Registered
from projector.section import Section
from projector.session import Session, open_session
from projector.sharing import Sharing, Sighting
from projector.stores import Shelf
from projector.stores.postgres_shelf import PostgresShelf
from projector.stores.redis import RedisShelf
from projector.worker import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, Worker
from shared.aio import wait_for
from shared.http.application import NotReady
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST
from shared.settings import Settings

LOOK_SECONDS = 1.0  # between looks at who holds what
EXPECTING_SECONDS = 0.2  # while a partition is to be handed over to us

_log = get_logger()


class Crew:
    def __init__(self, settings: Settings, redis: Redis, database: asyncpg.Pool[asyncpg.Record]) -> None:
        self._settings = settings
        self._sections = [
            Section(settings, one.projection, shelf_of(one, redis, database), database, self._look_again)
            for one in PROJECTIONS
        ]
        self._reason = "The projector has not connected yet."
        self._failures = 0
        self._look = asyncio.Event()
        self._stop = asyncio.Event()

    async def ready(self) -> None:
        """Raises `NotReady` unless every worker does its work or stands by for the one that does."""
        reasons = [section.reason for section in self._sections if not section.workers]
        reasons += [f"{worker.projection}: {worker.reason}" for worker in self._workers() if not worker.working]
        if self._reason or reasons:
            raise NotReady(" ".join([*filter(None, [self._reason]), *dict.fromkeys(reasons)]))

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Until the block ends; the batches in hand are finished, those that take long are broken off."""
        following = [asyncio.create_task(section.run(), name="projector-section") for section in self._sections]
        leading = asyncio.create_task(self._lead(), name="projector-leases")
        try:
            yield
        finally:
            self._stop.set()
            self._look_again()
            for section in self._sections:
                section.stop()
            await asyncio.wait([*following, leading])

    def _workers(self) -> Iterable[Worker[Any]]:
        return (worker for section in self._sections for worker in section.workers)

    def _look_again(self) -> None:
        self._look.set()

    def _on_event(self) -> None:
        """The log may have grown, or the session is over."""
        for worker in self._workers():
            worker.wake()

    async def _lead(self) -> None:
        """Takes part in the sharing of leases until stopped, with one session after another."""
        while not self._stop.is_set():
            try:
                async with open_session(self._settings, self._on_event) as session:
                    await self._take_part(session)
                    await asyncio.gather(*(worker.ended() for worker in self._let_go()))
            except Exception as error:  # noqa: BLE001 - told apart, logged and tried again; never skipped
                self._let_go()  # the leases are gone; who hangs somewhere else holds up nobody
                self._say(error)
                delay = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(self._failures, 20))
                self._failures += 1
                await wait_for(self._stop, delay)

    def _say(self, error: Exception) -> None:
        self._reason = f"No leases: {type(error).__name__}: {error}"
        if isinstance(error, CONNECTION_LOST):
            _log.warning("PostgreSQL is away or refuses; trying again", error=repr(error))
        else:
            _log.error("the projector failed; trying again", exc_info=error)

    async def _take_part(self, session: Session) -> None:
        candidacy, sharing = Candidacy(session), Sharing(session.pid)
        while not self._stop.is_set():
            self._look.clear()
            workers = {worker.lease_name: worker for worker in self._workers()}
            await candidacy.stand([name for name, worker in workers.items() if worker.standing(session)])
            seen, elsewhere = await look(session, workers)
            shares = sharing.share_out(seen, elsewhere, monotonic())
            expecting = False
            for one in seen:
                mine = shares.get(one.name) == session.pid
                expecting |= mine and one.holder != session.pid
                await self._act(session, workers[one.name], one, mine=mine)
            self._reason, self._failures = "", 0
            await wait_for(self._look, EXPECTING_SECONDS if expecting else LOOK_SECONDS)

    async def _act(self, session: Session, worker: Worker[Any], seen: Sighting, *, mine: bool) -> None:
        if seen.holder == session.pid:
            if not mine:
                worker.let_go()
        elif worker.idle:
            if seen.holder is None and (mine or not seen.candidates):
                await self._start(session, worker)
            else:
                worker.stand_by()

    async def _start(self, session: Session, worker: Worker[Any]) -> None:
        if (held := await try_acquire(session, worker.lease_name)) is None:
            return  # somebody was faster
        if worker.idle:
            worker.start(held)
        else:
            await held.release()  # another generation is live now

    def _let_go(self) -> list[Worker[Any]]:
        workers = [*self._workers()]
        for worker in workers:
            worker.let_go()
        return workers


def shelf_of(registered: Registered, redis: Redis, database: asyncpg.Pool[asyncpg.Record]) -> Shelf:
    """Where the projection's read model is kept."""
    projection = registered.projection
    if registered.kept_in == "redis":
        return RedisShelf(redis, projection.name, projection.version)
    return PostgresShelf(database, projection.name, projection.rollups, projection.version)
