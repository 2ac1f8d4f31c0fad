"""Connections to Redis or Valkey."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.settings import Settings

# What an unreachable or restarting server looks like (`RedisError` also covers LOADING and READONLY answers).
REDIS_DOWN = (OSError, RedisError)

__all__ = ["REDIS_DOWN", "create_redis"]


def create_redis(settings: Settings) -> Redis:
    """A client with bounded time-outs that connects when first used.

    One immediate retry covers a connection that the server closed while it was idle; beyond that the caller decides.
    """
    return Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_connect_timeout=2.0,
        socket_timeout=5.0,
        socket_keepalive=True,
        health_check_interval=0,
        retry=Retry(
            NoBackoff(),
            1,
            supported_errors=(RedisConnectionError, RedisTimeoutError),
        ),
    )
