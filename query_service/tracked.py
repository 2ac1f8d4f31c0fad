"""One connection to Redis on which the read script runs, and on which Redis tells which keys have changed since.

Client-side caching as Redis offers it (https://redis.io/docs/latest/develop/reference/client-side-caching/): it
remembers which keys were read on a connection with tracking, the keys that a script reads among them, and tells each
change once. That comes on the same connection as the answers, so in one order with them: by the time an answer has
arrived, every change that it shows has been told.

redis-py reads from a connection only while a call waits for its answer. Here one task reads all the time, because
news of a change must not wait for the next question.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha1
from math import inf
from time import monotonic
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from shared.redis import REDIS_DOWN
from shared.waiting import cancel

Note = Callable[[Any], None]
Changed = Callable[[Sequence[bytes] | None], None]


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
        reading = self._reading
        self._lose(RedisConnectionError("closed"))
        await cancel(reading, self._pinging)

    async def _ping(self) -> None:
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
            answer.cancel()  # nobody waits for it any more
            # Other errors that Redis answers are of this question alone.
            of_the_connection = isinstance(error, NoScriptError) or not isinstance(error, ResponseError)
            if of_the_connection and connection is self._connection:
                self._lose(RedisConnectionError("given up"))
            raise

    async def _connect(self) -> AbstractConnection:
        async with self._connecting:
            if self._connection is None:
                # Its time-outs would each cost a task; whoever asks has one for the whole.
                options = self._pool.connection_kwargs | {"protocol": 3, "socket_timeout": None}
                connection = self._pool.connection_class(**options)
                try:
                    await connection.connect()  # type: ignore[no-untyped-call]
                    for command in (("CLIENT", "TRACKING", "ON"), ("SCRIPT", "LOAD", self._script)):
                        await connection.send_command(*command)
                        await connection.read_response()
                except BaseException:
                    await connection.disconnect(nowait=True)
                    raise
                parser: Any = connection._parser  # noqa: SLF001 - redis-py offers no other way
                parser.set_invalidation_push_handler(self._learn)
                self._connection = connection
                self._reading = asyncio.create_task(self._read(connection), name="tracked")
            return self._connection

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
                if said is not None:
                    self._answer(said)
        except (OSError, RedisError) as error:
            lost = error
        finally:
            if connection is self._connection:
                self._reading = None  # that is this task, which has yet to close the connection
                self._lose(lost)
            await connection.disconnect(nowait=True)

    async def _learn(self, push: list[Any]) -> None:
        self._changed(push[1])

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
