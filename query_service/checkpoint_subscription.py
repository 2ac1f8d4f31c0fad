"""Wakes queries that wait for a position of a read model in Redis, by the checkpoints that the projector publishes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf
from time import monotonic

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from shared.aio import cancel
from shared.errors import Unavailable
from shared.eventstore.token import MalformedToken
from shared.logs import get_logger
from shared.read_models import checkpoint_message
from shared.read_models.checkpoints import read_checkpoint, read_generations
from shared.read_models.keys import Generations, PartitionKeys
from shared.redis import ANSWER_SECONDS, REDIS_DOWN, SESSION_SECONDS

MAX_WAITING = 10_000
POLL_SECONDS = 0.1  # between polls of the checkpoint while a query waits
SILENCE_SECONDS = 10.0  # without a message before the subscription is pinged
RECONNECT_SECONDS = 0.5
MAX_RETRY_SECONDS = 10.0  # after a defect

_log = get_logger()


@dataclass
class TooManyWaiting(Unavailable):
    code = "too-many-waiting"
    title = "The service is overloaded"

    @property
    def detail(self) -> str:
        return f"{MAX_WAITING} queries are waiting for their Consistency-Token."


class _Waiters:
    """The queries that wait for positions of one partition."""

    def __init__(self) -> None:
        self.updated_at = 0  # `CheckpointSubscription.count` at the last update
        self.position = 0  # as of then
        self._futures: defaultdict[int, set[asyncio.Future[None]]] = defaultdict(set)
        self._wanted: list[int] = []  # heap of the positions in `_futures`, and of some that no query wants any more

    def __bool__(self) -> bool:
        return bool(self._futures)

    def add(self, position: int, reached: asyncio.Future[None]) -> None:
        if position not in self._futures:
            heappush(self._wanted, position)
        self._futures[position].add(reached)

    def remove(self, position: int, reached: asyncio.Future[None]) -> None:
        if (others := self._futures.get(position)) is not None:
            others.discard(reached)
            if not others:
                del self._futures[position]
        if len(self._wanted) > 2 * len(self._futures) + 64:
            self._wanted = list(self._futures)
            heapify(self._wanted)

    def wake(self, up_to: float) -> None:
        """Wakes the queries that wait for that position or an earlier one."""
        while self._wanted and self._wanted[0] <= up_to:
            for reached in self._futures.pop(heappop(self._wanted), ()):
                if not reached.done():
                    reached.set_result(None)


class CheckpointSubscription:
    """Call `start` first. A true result of `wait` only means that another read is worth it."""

    def __init__(self, redis: Redis, projection: str) -> None:
        self.count = 0  # of positions received
        self._redis = redis
        self._keys = PartitionKeys(projection)
        self._partitions: defaultdict[int, _Waiters] = defaultdict(_Waiters)
        self._generations: Generations | None = None  # as of the last poll
        self._number_waiting = 0
        self._closing = False
        self._subscribing: asyncio.Task[None] | None = None
        self._polling: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._subscribing = asyncio.create_task(self._subscribe(), name="checkpoint-subscription")

    async def close(self) -> None:
        self._closing = True  # a cancellation alone may be lost in the client library's error handling
        await cancel(self._subscribing, self._polling)

    async def wait(self, position: int, seen: int, deadline: float, partition: int = 0) -> bool:
        """True when that position of the partition, or a later one, was received; False at the deadline (the event
        loop's clock).

        `seen` is `count` before the caller's read: positions received since then are not waited for again. Raises
        `TooManyWaiting`.
        """
        waiters = self._partitions[partition]
        if waiters.updated_at > seen and waiters.position >= position:
            return True
        if self._number_waiting >= MAX_WAITING:
            raise TooManyWaiting
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll(), name="checkpoint-poll")
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters.add(position, reached)
        self._number_waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await reached
        except TimeoutError:
            return False
        else:
            return True
        finally:
            self._number_waiting -= 1
            waiters.remove(position, reached)

    def _update(self, partition: int, position: int) -> None:
        self.count += 1
        waiters = self._partitions[partition]
        waiters.updated_at, waiters.position = self.count, position
        waiters.wake(position)

    async def _subscribe(self) -> None:
        pause = RECONNECT_SECONDS
        while not self._closing:
            try:
                await self._redis.ping()  # the client of a Cluster learns of its nodes by its first command
                async with self._redis.pubsub() as subscription:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await subscription.psubscribe(self._keys.channels)
                    await self._receive(subscription)
                pause = 0.0
            except REDIS_DOWN as error:
                _log.warning("checkpoint subscription lost", error=str(error))
                pause = RECONNECT_SECONDS
            except Exception as error:  # noqa: BLE001 - a defect; without the subscription every wait takes longer
                _log.error("checkpoint subscription failed", exc_info=error)
                pause = min(max(2 * pause, RECONNECT_SECONDS), MAX_RETRY_SECONDS)
            await asyncio.sleep(pause)

    async def _receive(self, subscription: PubSub) -> None:
        """Returns when the subscription has not answered a ping, or is to be replaced."""
        pinged = False
        until = monotonic() + SESSION_SECONDS
        while not self._closing and monotonic() < until:
            message = await subscription.get_message(timeout=SILENCE_SECONDS)
            if message is None:
                if pinged:
                    return
                await subscription.ping()
            pinged = message is None
            if message is not None and message["type"] == "pmessage":
                with suppress(MalformedToken, ValueError):  # not of a projector of this version; the next poll helps
                    partition = self._keys.partition_of_channel(message["channel"].decode())
                    self._update(partition, checkpoint_message.decode(message["data"]).position)

    async def _poll(self) -> None:
        """Makes up for lost messages while queries wait."""
        try:
            while self._number_waiting and not self._closing:
                try:
                    await self._poll_once()
                except REDIS_DOWN:
                    pass  # the waiting queries get the error from their next read, or the deadline passes
                except Exception as error:  # noqa: BLE001 - a defect; other queries wait, too
                    _log.error("checkpoint poll failed", exc_info=error)
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._polling = None

    async def _poll_once(self) -> None:
        generations = await read_generations(self._redis, self._keys)
        live = self._keys.of(generations.live).each(generations.partitions_of(generations.live))
        awaited = [keys for keys in live if self._partitions[keys.partition]]
        found = await asyncio.gather(*(read_checkpoint(self._redis, keys) for keys in awaited))
        for keys, checkpoint in zip(awaited, found, strict=True):
            if checkpoint is not None and checkpoint.position != self._partitions[keys.partition].position:
                self._update(keys.partition, checkpoint.position)
        if generations != self._generations:  # the number of partitions may have changed
            self._generations = generations
            for waiters in self._partitions.values():
                waiters.wake(inf)
