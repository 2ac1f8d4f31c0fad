"""Waiting for an event, but not for ever; and for tasks to end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

CANCEL_AGAIN_SECONDS = 1.0


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Returns when the event is set or the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def cancel(*tasks: asyncio.Task[Any] | None) -> None:
    """Returns when they have ended. One that goes on is cancelled again: a cancellation may be lost in a client
    library's error handling."""
    left = {task for task in tasks if task is not None and not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_SECONDS)
