"""News of the read model's progress: wakes who waits for a position."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from shared.aio import cancel
from shared.errors import Unavailable
from shared.eventstore.token import ConsistencyToken, MalformedToken
from shared.logs import get_logger
from shared.read_models.checkpoints import read_checkpoint, read_generations
from shared.read_models.keys import Generations, PartitionKeys
from shared.redis import ANSWER_SECONDS, REDIS_DOWN

MAX_WAITING = 10_000
LOOK_SECONDS = 0.1  # between looks at the checkpoint, while somebody waits
SILENCE_SECONDS = 10.0  # without a message before the subscription is asked whether it lives
RECONNECT_SECONDS = 0.5
LAST_RETRY_SECONDS = 10.0  # after a defect

_log = get_logger()


@dataclass
class TooManyWaiting(Unavailable):
    code = "too-many-waiting"
    title = "The service is overloaded"

    @property
    def detail(self) -> str:
        return f"{MAX_WAITING} queries are waiting for their Consistency-Token."


class _Waiting:
    """Those who wait for positions of one partition."""

    def __init__(self) -> None:
        self.heard_at = 0  # `News.count` when it was last heard of
        self.position = 0  # that was heard of then
        self._futures: defaultdict[int, set[asyncio.Future[None]]] = defaultdict(set)
        self._wanted: list[int] = []  # heap of the positions in `_futures`, and some that nobody wants any more

    def __bool__(self) -> bool:
        return bool(self._futures)

    def add(self, position: int, told: asyncio.Future[None]) -> None:
        if position not in self._futures:
            heappush(self._wanted, position)
        self._futures[position].add(told)

    def remove(self, position: int, told: asyncio.Future[None]) -> None:
        if (others := self._futures.get(position)) is not None:
            others.discard(told)
            if not others:
                del self._futures[position]
        if len(self._wanted) > 2 * len(self._futures) + 64:
            self._wanted = list(self._futures)
            heapify(self._wanted)

    def wake(self, up_to: float) -> None:
        """Who waits for no later position than that."""
        while self._wanted and self._wanted[0] <= up_to:
            for told in self._futures.pop(heappop(self._wanted), ()):
                if not told.done():
                    told.set_result(None)


class News:
    """Start it with `start`; every positive answer of `wait` means that it is worth looking again, no more."""

    def __init__(self, redis: Redis, projection: str) -> None:
        self.count = 0  # of positions heard of
        self._redis = redis
        self._keys = PartitionKeys(projection)
        self._partitions: defaultdict[int, _Waiting] = defaultdict(_Waiting)
        self._generations: Generations | None = None  # as last seen while somebody waited
        self._number_waiting = 0
        self._closing = False
        self._listening: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._listening = asyncio.create_task(self._listen(), name="news")

    async def close(self) -> None:
        self._closing = True  # a cancellation alone may be lost in the client library's error handling
        await cancel(self._listening, self._looking)

    async def wait(self, position: int, seen: int, deadline: float, partition: int = 0) -> bool:
        """True when there is news of `position` or later of that partition; False at the deadline (the event loop's
        clock).

        `seen` is `count` as it was before the caller looked: news since then is not waited for again. Raises
        `TooManyWaiting`.
        """
        waiting = self._partitions[partition]
        if waiting.heard_at > seen and waiting.position >= position:
            return True
        if self._number_waiting >= MAX_WAITING:
            raise TooManyWaiting
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="news-look")
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.add(position, told)
        self._number_waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await told
        except TimeoutError:
            return False
        else:
            return True
        finally:
            self._number_waiting -= 1
            waiting.remove(position, told)

    def _tell(self, partition: int, position: int) -> None:
        self.count += 1
        waiting = self._partitions[partition]
        waiting.heard_at, waiting.position = self.count, position
        waiting.wake(position)

    async def _listen(self) -> None:
        pause = RECONNECT_SECONDS
        while not self._closing:
            try:
                await self._redis.ping()  # the client of a Cluster learns of its nodes by its first command
                async with self._redis.pubsub() as subscription:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await subscription.psubscribe(self._keys.channels)
                    await self._receive(subscription)
                pause = RECONNECT_SECONDS
            except REDIS_DOWN as error:
                _log.warning("no news of the read model, Redis is away", error=str(error))
                pause = RECONNECT_SECONDS
            except Exception as error:  # noqa: BLE001 - a defect; without news, every wait would take longer
                _log.error("no news of the read model; listening again", exc_info=error)
                pause = min(2 * pause, LAST_RETRY_SECONDS)
            await asyncio.sleep(pause)

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
            if message is not None and message["type"] == "pmessage":
                with suppress(MalformedToken, ValueError):  # not ours; the next look tells
                    partition = self._keys.partition_of_channel(message["channel"].decode())
                    token, _, _ = message["data"].partition(b" ")  # what a projector adds is for others
                    self._tell(partition, ConsistencyToken.decode(token.decode()).position)

    async def _look(self) -> None:
        """Covers lost publications, as long as somebody waits."""
        try:
            while self._number_waiting and not self._closing:
                try:
                    await self._look_once()
                except REDIS_DOWN:
                    pass  # whoever waits learns it from the next read or from the deadline
                except Exception as error:  # noqa: BLE001 - a defect; others wait, too
                    _log.error("the checkpoint cannot be looked at", exc_info=error)
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._looking = None

    async def _look_once(self) -> None:
        generations = await read_generations(self._redis, self._keys)
        live = self._keys.of(generations.live).each(generations.partitions_of(generations.live))
        awaited = [keys for keys in live if self._partitions[keys.partition]]
        found = await asyncio.gather(*(read_checkpoint(self._redis, keys) for keys in awaited))
        for keys, checkpoint in zip(awaited, found, strict=True):
            if checkpoint is not None and checkpoint.position != self._partitions[keys.partition].position:
                self._tell(keys.partition, checkpoint.position)
        if generations != self._generations:  # there may be other partitions now
            self._generations = generations
            for waiting in self._partitions.values():
                waiting.wake(inf)
