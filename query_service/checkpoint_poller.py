"""Waits for a position by polling, where no message announces it, such as the head of a replica of the log.

All waiting queries share one poll; without a waiting query there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shared.errors import Unavailable

POLL_SECONDS = 0.05


class CheckpointPoller:
    """`position` reads the current position; it may raise `Unavailable`."""

    count = 0  # of received messages: a poller receives none

    def __init__(self, position: Callable[[], Awaitable[int]]) -> None:
        self._position = position
        self._poll: asyncio.Task[int | None] | None = None

    def start(self) -> None:
        """Does nothing: the first `wait` starts polling."""

    async def wait(self, position: int, seen: int, deadline: float, partition: int = 0) -> bool:
        """True when the position is reached or cannot be read; False at the deadline (the event loop's clock).

        `seen` and `partition` are ignored: the polled position is that of all partitions.
        """
        del seen, partition
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    if self._poll is None or self._poll.done():
                        self._poll = asyncio.create_task(self._poll_after_pause(), name="checkpoint-poller")
                    found = await asyncio.shield(self._poll)
                    if found is None or found >= position:
                        return True
        except TimeoutError:
            return False

    async def _poll_after_pause(self) -> int | None:
        """The position; None when it cannot be read: the waiting queries get the error from their own next read."""
        await asyncio.sleep(POLL_SECONDS)
        try:
            return await self._position()
        except Unavailable:
            return None

    async def close(self) -> None:
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.wait([self._poll])
