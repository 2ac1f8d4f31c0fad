"""Locks by name, each held by one command at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from shared.errors import Unavailable


@dataclass
class LockTimeout(Unavailable):
    code = "overloaded"
    title = "Too many commands are waiting"

    @property
    def detail(self) -> str:
        return "Too many commands on the same aggregate are waiting. Nothing was done; try again shortly."


class KeyedLocks:
    """One lock a name, created on demand and dropped after its last user."""

    def __init__(self, timeout: float) -> None:
        """`timeout` in seconds."""
        self.timeout = timeout
        self.locks: dict[str, tuple[asyncio.Lock, int]] = {}  # and how many hold it or wait for it

    def hold(self, *names: str) -> AbstractAsyncContextManager[object]:
        """All of these locks, for the length of a block. Raises `LockTimeout` on entry."""
        return KeyedLock(self, names[0]) if len(names) == 1 else self._hold_all(names)

    @asynccontextmanager
    async def _hold_all(self, names: Sequence[str]) -> AsyncIterator[None]:
        async with AsyncExitStack() as held:
            for name in sorted(set(names)):  # in one order, so that no two commands wait for each other
                await held.enter_async_context(KeyedLock(self, name))
            yield


class KeyedLock:
    """Held for the length of its block. A class, because a generator costs every command five times as much."""

    __slots__ = ("_lock", "_locks", "_name")

    def __init__(self, locks: KeyedLocks, name: str) -> None:
        self._locks = locks
        self._name = name

    async def __aenter__(self) -> None:
        self._lock, users = self._locks.locks.get(self._name) or (asyncio.Lock(), 0)
        self._locks.locks[self._name] = (self._lock, users + 1)
        try:
            await self._acquire()
        except BaseException:  # cancellation included: the client disconnected
            self._leave()
            raise

    async def _acquire(self) -> None:
        if not self._lock.locked():
            await self._lock.acquire()  # at once; most streams get one command at a time
            return
        # While the log is away, each holder waits as long as it may; the waits of those behind it must not add up.
        try:
            async with asyncio.timeout(self._locks.timeout):
                await self._lock.acquire()
        except TimeoutError:
            raise LockTimeout from None

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()
        self._leave()

    def _leave(self) -> None:
        lock, users = self._locks.locks[self._name]
        if users == 1:
            del self._locks.locks[self._name]
        else:
            self._locks.locks[self._name] = (lock, users - 1)
