"""Connections to Redis or Valkey: to one server, or to a Cluster."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisClusterException, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.settings import Settings

# Errors of an unreachable or restarting server (`RedisError` also covers LOADING and READONLY answers), or
# a Cluster that lacks a node.
REDIS_DOWN = (OSError, RedisError, RedisClusterException)

__all__ = ["REDIS_DOWN", "create_redis", "is_cluster"]

_CLUSTER = "+cluster://"
ANSWER_SECONDS = 5.0  # for a command, connecting included where need be
# After which idle connections, and those that only read, are replaced. Their server may have been demoted, and the
# address may lead to another one by now: no command of a reader fails because of that.
SESSION_SECONDS = 30.0


class _Server(Redis):
    """Bounds each command as a whole, and replaces connections to a server that was demoted.

    With `socket_timeout`, redis-py makes each write a task (`asyncio.wait_for`, on Python 3.11): what is ready to be
    sent would wait for whatever else the event loop has to do.
    """

    _expires_at = 0.0

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        async with asyncio.timeout(ANSWER_SECONDS):
            if monotonic() >= self._expires_at:
                await self._expire()
            try:
                return await super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]
            except ReadOnlyError:
                await self._expire()
                raise

    async def _expire(self) -> None:
        """Closes the connections that no command uses; each connects again when it is used next."""
        self._expires_at = monotonic() + SESSION_SECONDS
        # The pool's own `disconnect` waits, and a command could take a connection meanwhile.
        for connection in [*self.connection_pool._available_connections]:  # noqa: SLF001 - redis-py offers no other way
            await connection.disconnect(nowait=True)


class _Cluster(RedisCluster):
    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().execute_command(*arguments, **options)
        except AttributeError as error:
            # When a node is away, redis-py drops its connections, also one that another task is about to write to: it
            # finds itself without a writer then.
            raise RedisConnectionError("the connection was dropped before it was used") from error


def create_redis(settings: Settings) -> Redis:
    """A client with bounded time-outs that connects when first used.

    One immediate retry covers a connection that the server closed while it was idle; beyond that the caller decides.
    """
    url = settings.redis_url.get_secret_value()
    options: dict[str, Any] = {
        "socket_connect_timeout": 2.0,
        "socket_timeout": None,  # said, because redis-py has one of its own where it is not
        "socket_keepalive": True,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError, RedisTimeoutError)),
    }
    if _CLUSTER in url:
        # It has the same methods, and every call of ours names keys of one partition only, so of one node.
        options["socket_timeout"] = ANSWER_SECONDS
        return cast("Redis", _Cluster.from_url(url.replace(_CLUSTER, "://", 1), **options))
    # Not told apart by library: redis-py would read its package's metadata from disk for every connection.
    return _Server.from_url(url, driver_info=None, **options)


def is_cluster(redis: Redis) -> bool:
    return isinstance(redis, RedisCluster)
