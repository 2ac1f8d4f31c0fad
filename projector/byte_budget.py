"""A bound of the bytes that several tasks hold in memory together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Held:
    """Bytes that a task holds; it may give some back before it ends."""

    def __init__(self, budget: ByteBudget, size: int) -> None:
        self.size = size
        self._budget = budget

    def shrink(self, size: int) -> None:
        """To so many bytes, where it holds more."""
        if size < self.size:
            self._budget.give_back(self.size - size)
            self.size = size


class ByteBudget:
    """Tasks wait for it in the order in which they ask. One that asks for more than all of it gets all of it."""

    def __init__(self, total: int) -> None:
        self.free = total
        self._total = total
        self._waiting = asyncio.Lock()  # held by the first of those that wait
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[Held]:
        size = min(size, self._total)
        async with self._waiting:
            while self.free < size:
                self._freed.clear()
                await self._freed.wait()
            self.free -= size
        held = Held(self, size)
        try:
            yield held
        finally:
            held.shrink(0)

    def give_back(self, size: int) -> None:
        self.free += size
        self._freed.set()
