"""Ending tasks."""

from __future__ import annotations

import asyncio

import pytest

from shared.aio import cancel


async def test_a_task_ends_though_its_first_cancellation_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.aio.CANCEL_AGAIN_SECONDS", 0.01)
    lost = 0

    async def lose_one() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
                if lost > 1:
                    raise

    careless, done = asyncio.create_task(lose_one()), asyncio.create_task(asyncio.sleep(0))
    await done
    await cancel(careless, done, None)

    assert careless.cancelled()
    assert lost == 2
