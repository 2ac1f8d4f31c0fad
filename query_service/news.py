"""News of the read model's progress: wakes who waits for a position."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from shared.consistency import ConsistencyToken, MalformedToken
from shared.errors import Unavailable
from shared.logs import get_logger
from shared.read_model_keys import PartitionKeys, read_live_checkpoint
from shared.redis import REDIS_DOWN

MAX_WAITING = 10_000
LOOK_SECONDS = 0.1  # between looks at the checkpoint, while somebody waits
SILENCE_SECONDS = 10.0  # without a message before the subscription is asked whether it lives
RECONNECT_SECONDS = 0.5

_log = get_logger()


@dataclass
class TooManyWaiting(Unavailable):
    code = "too-many-waiting"
    title = "The service is overloaded"

    @property
    def detail(self) -> str:
        return f"{MAX_WAITING} queries are waiting for their Consistency-Token."


class News:
    """Start it with `start`; every positive answer of `wait` means that it is worth looking again, no more."""

    def __init__(self, redis: Redis, keys: PartitionKeys) -> None:
        self.count = 0  # of positions heard of
        self._position = 0  # the last one
        self._redis = redis
        self._keys = keys
        self._waiting: defaultdict[int, set[asyncio.Future[None]]] = defaultdict(set)
        self._wanted: list[int] = []  # heap of the positions in `_waiting`, and some that nobody wants any more
        self._number_waiting = 0
        self._closing = False
        self._listening: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._listening = asyncio.create_task(self._listen(), name="news")

    async def close(self) -> None:
        self._closing = True  # a cancellation alone may be lost in the client library's error handling
        for task in (self._listening, self._looking):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    async def wait(self, position: int, seen: int, deadline: float) -> bool:
        """True when there is news of `position` or later; False at the deadline (the event loop's clock).

        `seen` is `count` as it was before the caller looked: news since then is not waited for again. Raises
        `TooManyWaiting`.
        """
        if self.count != seen and self._position >= position:
            return True
        if self._number_waiting >= MAX_WAITING:
            raise TooManyWaiting
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="news-look")
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._add(position, told)
        try:
            async with asyncio.timeout_at(deadline):
                await told
        except TimeoutError:
            return False
        else:
            return True
        finally:
            self._remove(position, told)

    def _add(self, position: int, told: asyncio.Future[None]) -> None:
        if position not in self._waiting:
            heappush(self._wanted, position)
        self._waiting[position].add(told)
        self._number_waiting += 1

    def _remove(self, position: int, told: asyncio.Future[None]) -> None:
        self._number_waiting -= 1
        if (others := self._waiting.get(position)) is not None:
            others.discard(told)
            if not others:
                del self._waiting[position]
        if len(self._wanted) > 2 * len(self._waiting) + 64:
            self._wanted = list(self._waiting)
            heapify(self._wanted)

    def _tell(self, position: int) -> None:
        self.count += 1
        self._position = position
        while self._wanted and self._wanted[0] <= position:
            for told in self._waiting.pop(heappop(self._wanted), ()):
                if not told.done():
                    told.set_result(None)

    async def _listen(self) -> None:
        while not self._closing:
            try:
                async with self._redis.pubsub() as subscription:
                    await subscription.subscribe(self._keys.channel)
                    await self._receive(subscription)
            except REDIS_DOWN as error:
                _log.warning("no news of the read model, Redis is away", error=str(error))
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _receive(self, subscription: PubSub) -> None:
        """Until the subscription has been silent for too long, even when asked."""
        asked = False
        while not self._closing:
            message = await subscription.get_message(timeout=SILENCE_SECONDS)
            if message is None:
                if asked:
                    return
                await subscription.ping()
            asked = message is None
            if message is not None and message["type"] == "message":
                with suppress(MalformedToken):  # not ours; the next look tells
                    self._tell(ConsistencyToken.decode(message["data"].decode()).position)

    async def _look(self) -> None:
        """Covers lost publications, as long as somebody waits."""
        try:
            while self._number_waiting and not self._closing:
                with suppress(*REDIS_DOWN):  # whoever waits learns it from the next read or from the deadline
                    checkpoint = await read_live_checkpoint(self._redis, self._keys)
                    if checkpoint is not None and checkpoint.position != self._position:
                        self._tell(checkpoint.position)
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._looking = None
