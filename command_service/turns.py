"""Taking turns, by name."""

from __future__ import annotations

import asyncio
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
        self.longest_wait = longest_wait
        self.locks: dict[str, tuple[asyncio.Lock, int]] = {}  # and how many hold it or wait for it

    def take(self, name: str) -> Turn:
        """Raises `TurnDidNotCome`."""
        return Turn(self, name)


class Turn:
    """Lasts as long as its block. A class, because a generator would cost every command five times as much."""

    __slots__ = ("_lock", "_name", "_turns")

    def __init__(self, turns: Turns, name: str) -> None:
        self._turns = turns
        self._name = name

    async def __aenter__(self) -> None:
        self._lock, users = self._turns.locks.get(self._name) or (asyncio.Lock(), 0)
        self._turns.locks[self._name] = (self._lock, users + 1)
        try:
            await self._acquire()
        except BaseException:  # cancelled, too: the client went away
            self._leave()
            raise

    async def _acquire(self) -> None:
        if not self._lock.locked():
            await self._lock.acquire()  # at once; most orders are changed by one command at a time
            return
        # While the log is away, each holder waits as long as it may; those behind it must not add that up.
        try:
            async with asyncio.timeout(self._turns.longest_wait):
                await self._lock.acquire()
        except TimeoutError:
            raise TurnDidNotCome from None

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()
        self._leave()

    def _leave(self) -> None:
        lock, users = self._turns.locks[self._name]
        if users == 1:
            del self._turns.locks[self._name]
        else:
            self._turns.locks[self._name] = (lock, users - 1)
