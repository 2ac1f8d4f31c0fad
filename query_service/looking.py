"""Waiting for a position by looking: for whatever publishes nothing, such as the head of a replica of the log.

All who wait share the looks, so many cost no more than one, and nobody waiting costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shared.errors import Unavailable

LOOK_SECONDS = 0.05


class Looks:
    """`position` says where it is now; it raises `Unavailable` when that cannot be told."""

    count = 0  # of looks that were published; none ever is

    def __init__(self, position: Callable[[], Awaitable[int]]) -> None:
        self._position = position
        self._look: asyncio.Task[int | None] | None = None

    async def wait(self, position: int, seen: int, deadline: float, partition: int = 0) -> bool:
        """True when it is worth asking again; False at the deadline (the event loop's clock). `seen` and `partition`
        mean nothing: it is looked for what all partitions have reached."""
        del seen, partition
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    if self._look is None or self._look.done():
                        self._look = asyncio.create_task(self._look_soon(), name="look")
                    found = await asyncio.shield(self._look)
                    if found is None or found >= position:
                        return True
        except TimeoutError:
            return False

    async def _look_soon(self) -> int | None:
        """None when the position cannot be read, which those who wait learn better from their own next question."""
        await asyncio.sleep(LOOK_SECONDS)
        try:
            return await self._position()
        except Unavailable:
            return None

    async def close(self) -> None:
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait([self._look])
