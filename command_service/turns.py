"""Taking turns, by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shared.errors import Unavailable


@dataclass
class TurnDidNotCome(Unavailable):
    code = "overloaded"
    title = "Too many commands are waiting"

    @property
    def detail(self) -> str:
        return "Too many commands on this order are waiting. Nothing was done; try again shortly."


class Turns:
    """One lock a name, kept only while somebody holds it or waits for it."""

    def __init__(self, longest_wait: float) -> None:
        """`longest_wait` in seconds."""
        self._longest_wait = longest_wait
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def take(self, name: str) -> AsyncIterator[None]:
        """Raises `TurnDidNotCome`."""
        lock, users = self._locks.get(name) or (asyncio.Lock(), 0)
        self._locks[name] = (lock, users + 1)
        try:
            await self._acquire(lock)
            try:
                yield
            finally:
                lock.release()
        finally:
            lock, users = self._locks[name]
            if users == 1:
                del self._locks[name]
            else:
                self._locks[name] = (lock, users - 1)

    async def _acquire(self, lock: asyncio.Lock) -> None:
        # While the log is away, each holder waits as long as it may; those behind it must not add that up.
        try:
            async with asyncio.timeout(self._longest_wait):
                await lock.acquire()
        except TimeoutError:
            raise TurnDidNotCome from None
