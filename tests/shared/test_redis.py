"""Connections to Redis: no command waits for ever, and a late answer is given to no other command."""

from __future__ import annotations

import pytest

from shared import redis as connections
from shared.redis import REDIS_DOWN, create_redis
from shared.settings import Settings

PAUSED_MS = 300


async def test_a_command_that_is_not_answered_in_time_is_given_up_with_its_answer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with create_redis(settings) as redis:
        await redis.client_pause(PAUSED_MS)
        with monkeypatch.context() as patch:
            patch.setattr(connections, "ANSWER_SECONDS", 0.05)
            with pytest.raises(REDIS_DOWN):
                await redis.echo("late")

        assert await redis.echo("in time") == b"in time"


async def test_idle_connections_are_replaced(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SESSION_SECONDS", 0.0)
    async with create_redis(settings) as redis:
        assert await redis.client_id() != await redis.client_id()
