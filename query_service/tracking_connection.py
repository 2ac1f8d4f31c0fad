"""A connection to Redis that runs the read script and receives the invalidations of the keys that the script reads.

This is client-side caching as Redis offers it
(https://redis.io/docs/latest/develop/reference/client-side-caching/): Redis tracks the keys that are read on the
connection, and sends the first change of each. It sends changes and answers on the same connection in one order, so an
answer comes after the invalidation of every change that it shows.

redis-py reads from a connection only while a call waits for its answer. Here one task reads all the time, because an
invalidation must not wait for the next call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha1
from math import inf
from time import monotonic
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from shared.aio import cancel
from shared.redis import REDIS_DOWN, SESSION_SECONDS

_CONNECT_SECONDS = 2.0
_OPTIONS: dict[str, Any] = {
    "protocol": 3,
    # With a time-out, redis-py makes each write a task. The caller bounds the whole call.
    "socket_timeout": None,
    # Whatever the URL says: both would read from the connection beside the reading task.
    "health_check_interval": 0,
    "maint_notifications_config": None,
}

OnAnswer = Callable[[Any], None]
OnInvalidation = Callable[[Sequence[bytes] | None], None]


@dataclass(frozen=True, slots=True)
class _Invalidation:
    """The keys that have changed; None: all of them."""

    keys: Sequence[bytes] | None


class TrackingConnection:
    """Connects at the first call. `on_invalidation` gets the changed keys; None for all of them, also when the
    connection is lost.

    `received_at` (of `monotonic`) is when Redis last sent anything.
    """

    def __init__(self, redis: Redis, script: str, on_invalidation: OnInvalidation) -> None:
        self.received_at = -inf
        self._pool = redis.connection_pool
        self._script = script
        self._digest = sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._on_invalidation = on_invalidation
        self._closed = False
        self._expires_at = inf
        self._connecting = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._pinging: asyncio.Task[None] | None = None
        self._pending: deque[tuple[asyncio.Future[Any], OnAnswer]] = deque()

    async def call(self, keys: Sequence[str], arguments: Sequence[Any], on_answer: OnAnswer) -> list[Any]:
        """Runs the script and returns its answer. `on_answer` gets the answer as well, before any later invalidation.

        Raises the errors in `REDIS_DOWN`. A caller that is cancelled closes the connection.
        """
        command = "EVALSHA", self._digest, len(keys), *keys, *arguments
        answer: list[Any]
        try:
            answer = await self._send(command, on_answer)
        except (RedisConnectionError, NoScriptError):
            # The server was restarted since the last call, or its scripts were flushed: connecting loads the script.
            answer = await self._send(command, on_answer)
        return answer

    def ping(self) -> None:
        """Makes Redis send something, which moves `received_at`. Does not wait for it."""
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.create_task(self._ping(), name="tracking-ping")

    async def close(self) -> None:
        self._closed = True
        reading = self._reading
        self._disconnect(RedisConnectionError("closed"))
        await cancel(reading, self._pinging)

    async def _ping(self) -> None:
        if self._connection is not None:  # only a call connects
            with suppress(*REDIS_DOWN):  # the next call gets the error
                await self._send(("PING",), lambda _: None)

    async def _send(self, command: Sequence[Any], on_answer: OnAnswer) -> Any:
        if monotonic() >= self._expires_at and not self._pending:
            self._disconnect(RedisConnectionError("replaced"))
        connection = self._connection or await self._connect()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.append((answer, on_answer))
        try:
            await connection.send_command(*command)
            return await answer
        except BaseException as error:
            unanswered = answer.cancel() or answer.cancelled()
            if not unanswered:
                answer.exception()  # marks it as retrieved, also when sending failed
            # An error answer leaves the connection usable; only a missing script needs a new one.
            if (unanswered or isinstance(error, NoScriptError)) and connection is self._connection:
                self._disconnect(RedisConnectionError("given up"))
            raise

    async def _connect(self) -> AbstractConnection:
        # In bounded time, whichever call connects: others wait for the lock.
        async with self._connecting, asyncio.timeout(_CONNECT_SECONDS):
            if self._closed:
                raise RedisConnectionError("closed")
            connection = self._connection
            if connection is None:
                connection = self._pool.connection_class(**self._pool.connection_kwargs | _OPTIONS)
                try:
                    await connection.connect()  # type: ignore[no-untyped-call]
                    for command in (("CLIENT", "TRACKING", "ON"), ("SCRIPT", "LOAD", self._script)):
                        await connection.send_command(*command)
                        await connection.read_response()
                except BaseException:  # cancelled, too: nothing else refers to it yet
                    await connection.disconnect(nowait=True)
                    raise
                parser: Any = connection._parser  # noqa: SLF001 - redis-py offers no other way
                parser.set_invalidation_push_handler(_as_invalidation)
                parser.set_pubsub_push_handler(_ignore)
                self._connection = connection
                self._expires_at = monotonic() + SESSION_SECONDS
                self._reading = asyncio.create_task(self._read(connection), name="tracking-connection")
                await asyncio.sleep(0)  # the task has begun, and so closes the connection whenever it is cancelled
                if self._connection is None:
                    raise RedisConnectionError("lost as soon as it was made")
            return connection

    async def _read(self, connection: AbstractConnection) -> None:
        """Handles each message from Redis in order, until the connection is lost."""
        lost: BaseException = RedisConnectionError("reading has ended")
        try:
            while True:
                try:
                    # Returns at each push: else the call that read one push would read the next, one level deeper.
                    message = await connection.read_response(disable_decoding=True, timeout=inf, push_request=True)
                except ResponseError as error:
                    message = error
                self.received_at = monotonic()
                if isinstance(message, _Invalidation):
                    self._on_invalidation(message.keys)
                elif message is not None:
                    self._answer(message)
        except (OSError, RedisError) as error:
            lost = error
        finally:
            if connection is self._connection:
                self._reading = None  # that is this task, which has yet to close the connection
                self._disconnect(lost)
            await connection.disconnect(nowait=True)

    def _answer(self, message: Any) -> None:
        answer, on_answer = self._pending.popleft()
        if answer.done():
            return
        if isinstance(message, ResponseError):
            answer.set_exception(message)
            return
        try:
            on_answer(message)
        except Exception as error:  # noqa: BLE001 - the caller gets it
            answer.set_exception(error)
        else:
            answer.set_result(message)

    def _disconnect(self, error: BaseException) -> None:
        """Drops the connection and fails the pending calls."""
        pending, self._pending = self._pending, deque()
        self._connection = None
        self._expires_at = inf
        self.received_at = -inf
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        self._on_invalidation(None)
        for answer, _ in pending:
            if not answer.done():
                answer.set_exception(error)


# redis-py returns the result of a push handler from `read_response`. It would only log an error raised here.
async def _as_invalidation(push: list[Any]) -> _Invalidation:
    return _Invalidation(push[1])


async def _ignore(_: list[Any]) -> None:
    """Drops any other push, which must not be taken for an answer."""
