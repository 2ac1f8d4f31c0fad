"""Slots for reads that cost much, shared fairly among clients."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from shared.errors import Unavailable

MAX_WAITING = 1_000  # requests
MAX_WAITING_OF_CLIENT = 100
WAIT_SECONDS = 10.0  # for a slot


@dataclass
class TooManyCostlyReads(Unavailable):
    code = "too-many-costly-reads"
    title = "The service is overloaded"
    retry_after = 2.0

    @property
    def detail(self) -> str:
        return "Too many reads that cost much are waiting, of this client or of all."


class FairQueue:
    """At most `slots` at once, and fewer of one client, so that a slot is left for another one. The clients that wait
    are served in turn, the requests of each in their order."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._slots_of_client = max(1, slots // 2)
        self._active: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # the next client first
        self._number_waiting = 0

    @asynccontextmanager
    async def slot(self, client: str) -> AsyncIterator[None]:
        """Raises `TooManyCostlyReads` where too many requests wait, or after `WAIT_SECONDS`."""
        if not self._take(client):
            await self._wait(client)
        try:
            yield
        finally:
            self._release(client)

    def _take(self, client: str) -> bool:
        if not self._free or client in self._waiting or self._active[client] >= self._slots_of_client:
            return False
        self._free -= 1
        self._active[client] += 1
        return True

    async def _wait(self, client: str) -> None:
        own = self._waiting.get(client, ())
        if self._number_waiting >= MAX_WAITING or len(own) >= MAX_WAITING_OF_CLIENT:
            raise TooManyCostlyReads
        served: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(served)
        self._number_waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await served
        except TimeoutError:
            self._give_up(client, served)
            raise TooManyCostlyReads from None
        except asyncio.CancelledError:
            self._give_up(client, served)
            raise

    def _give_up(self, client: str, served: asyncio.Future[None]) -> None:
        if served.done() and not served.cancelled():  # it got a slot in the same turn of the loop
            self._release(client)
        else:
            self._leave(client, served)

    def _leave(self, client: str, served: asyncio.Future[None]) -> None:
        self._waiting[client].remove(served)
        self._number_waiting -= 1
        if not self._waiting[client]:
            del self._waiting[client]

    def _release(self, client: str) -> None:
        self._free += 1
        self._active[client] -= 1
        if not self._active[client]:
            del self._active[client]
        for waiting in [*self._waiting]:
            if not self._free:
                return
            if self._active[waiting] < self._slots_of_client:
                self._serve(waiting)

    def _serve(self, client: str) -> None:
        requests = self._waiting[client]
        served = next((one for one in requests if not one.done()), None)
        if served is None:
            return  # each has been cancelled and leaves soon
        self._leave(client, served)
        if client in self._waiting:
            self._waiting.move_to_end(client)
        self._free -= 1
        self._active[client] += 1
        served.set_result(None)


class FairPool:
    """Connections of a pool, one for each slot of a `FairQueue`."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], slots: int) -> None:
        self._pool = pool
        self._queue = FairQueue(slots)

    @asynccontextmanager
    async def acquire(self, client: str) -> AsyncIterator[PoolConnectionProxy[asyncpg.Record]]:
        """Raises `TooManyCostlyReads`."""
        async with self._queue.slot(client), self._pool.acquire() as connection:
            yield connection
