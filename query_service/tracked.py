"""One connection to Redis on which the read script runs, and on which Redis tells which keys have changed since.

Client-side caching as Redis offers it (https://redis.io/docs/latest/develop/reference/client-side-caching/): it
remembers which keys were read on a connection with tracking, the keys that a script reads among them, and tells the
first change of each after that. It does so on the same connection as the answers, so in one order with them: by the
time an answer has arrived, every change that it shows has been told.

redis-py reads from a connection only while a call waits for its answer. Here one task reads all the time, because
news of a change must not wait for the next question.
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
from shared.redis import REDIS_DOWN

_CONNECT_SECONDS = 2.0
_OPTIONS: dict[str, Any] = {
    "protocol": 3,
    # Each write would be a task; who asks has a time-out for the whole.
    "socket_timeout": None,
    # Whatever the URL says: both would read from the connection beside the task that does.
    "health_check_interval": 0,
    "maint_notifications_config": None,
}

Note = Callable[[Any], None]
Changed = Callable[[Sequence[bytes] | None], None]


@dataclass(frozen=True, slots=True)
class _Told:
    """Which keys have changed; None: all."""

    keys: Sequence[bytes] | None


class Tracked:
    """Connects when first asked. `changed` is told the keys; None for all of them, also when the connection is lost.

    `heard_at` (of `monotonic`) is when Redis last said anything.
    """

    def __init__(self, redis: Redis, script: str, changed: Changed) -> None:
        self.heard_at = -inf
        self._pool = redis.connection_pool
        self._script = script
        self._digest = sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._changed = changed
        self._closed = False
        self._connecting = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._pinging: asyncio.Task[None] | None = None
        self._asked: deque[tuple[asyncio.Future[Any], Note]] = deque()

    async def ask(self, keys: Sequence[str], arguments: Sequence[Any], note: Note) -> list[Any]:
        """What the script answers. `note` is given it as well, before anything is told that happened afterwards.

        Raises what `REDIS_DOWN` names. Who gives up waiting gives up the connection.
        """
        command = "EVALSHA", self._digest, len(keys), *keys, *arguments
        answer: list[Any]
        try:
            answer = await self._ask(command, note)
        except (RedisConnectionError, NoScriptError):
            # The server was restarted since the last question, or its scripts were flushed: connecting loads it.
            answer = await self._ask(command, note)
        return answer

    def ping(self) -> None:
        """Lets Redis say something, so that it was heard of; nobody waits for it."""
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.create_task(self._ping(), name="tracked-ping")

    async def close(self) -> None:
        self._closed = True
        reading = self._reading
        self._lose(RedisConnectionError("closed"))
        await cancel(reading, self._pinging)

    async def _ping(self) -> None:
        if self._connection is not None:  # connecting is for who needs an answer
            with suppress(*REDIS_DOWN):  # who asks next is told
                await self._ask(("PING",), lambda _: None)

    async def _ask(self, command: Sequence[Any], note: Note) -> Any:
        connection = self._connection or await self._connect()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append((answer, note))
        try:
            await connection.send_command(*command)
            return await answer
        except BaseException as error:
            unanswered = answer.cancel() or answer.cancelled()
            if not unanswered:
                answer.exception()  # seen, also where it was sending that failed
            # What was answered with an error has left the connection as it was.
            if (unanswered or isinstance(error, NoScriptError)) and connection is self._connection:
                self._lose(RedisConnectionError("given up"))
            raise

    async def _connect(self) -> AbstractConnection:
        # In bounded time, whoever asks: others wait for the lock.
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
                except BaseException:  # cancelled, too: nobody else knows of it yet
                    await connection.disconnect(nowait=True)
                    raise
                parser: Any = connection._parser  # noqa: SLF001 - redis-py offers no other way
                parser.set_invalidation_push_handler(_told)
                parser.set_pubsub_push_handler(_nothing)
                self._connection = connection
                self._reading = asyncio.create_task(self._read(connection), name="tracked")
                await asyncio.sleep(0)  # now it has begun, and so closes the connection whenever it is cancelled
                if self._connection is None:
                    raise RedisConnectionError("lost as soon as it was made")
            return connection

    async def _read(self, connection: AbstractConnection) -> None:
        """All that Redis says, in its order, until the connection is lost."""
        lost: BaseException = RedisConnectionError("reading has ended")
        try:
            while True:
                try:
                    # Returns at each push: else a push would be read by the call that read the one before, a level
                    # deeper each time.
                    said = await connection.read_response(disable_decoding=True, timeout=inf, push_request=True)
                except ResponseError as error:
                    said = error
                self.heard_at = monotonic()
                if isinstance(said, _Told):
                    self._changed(said.keys)
                elif said is not None:
                    self._answer(said)
        except (OSError, RedisError) as error:
            lost = error
        finally:
            if connection is self._connection:
                self._reading = None  # that is this task, which has yet to close the connection
                self._lose(lost)
            await connection.disconnect(nowait=True)

    def _answer(self, said: Any) -> None:
        answer, note = self._asked.popleft()
        if answer.done():
            return
        if isinstance(said, ResponseError):
            answer.set_exception(said)
            return
        try:
            note(said)
        except Exception as error:  # noqa: BLE001 - it belongs to who asked
            answer.set_exception(error)
        else:
            answer.set_result(said)

    def _lose(self, error: BaseException) -> None:
        """Forgets the connection. What was asked on it fails."""
        asked, self._asked = self._asked, deque()
        self._connection = None
        self.heard_at = -inf
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        self._changed(None)
        for answer, _ in asked:
            if not answer.done():
                answer.set_exception(error)


# What redis-py gives for a push is returned as what was read. An error raised here it would only log.
async def _told(push: list[Any]) -> _Told:
    return _Told(push[1])


async def _nothing(_: list[Any]) -> None:
    """For a push that nobody has asked for; it must not be taken for an answer."""
