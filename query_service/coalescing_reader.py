"""Coalesced reads: the reads of one turn of the event loop travel to Redis in one round trip.

While a round trip is under way the next batch accumulates, so a busy service makes few large round trips and an idle
one answers at once. One script reads everything of a partition atomically with the partition's checkpoint, so every
result knows which position of which log it shows. A list is merged from the pages of all partitions, and shows as much
of the log as the slowest one.

Documents that were read before come from the client-side cache until Redis invalidates them
([decision 21](../docs/decisions/0021-cache-documents-with-client-side-tracking.md)).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from time import monotonic
from typing import Any

from redis.asyncio import Redis

from query_service.client_side_cache import ClientSideCache
from query_service.partition_reads import PartitionReads, Read, by_partition, lagging_partition, merge_pages
from query_service.read_result import (
    Document,
    IndexPage,
    LiveGeneration,
    ReadModelUnavailable,
    ReadPosition,
    ReadResult,
)
from query_service.tracking_connection import TrackingConnection
from shared.errors import Unavailable
from shared.eventstore.token import ConsistencyToken
from shared.metrics import CACHED_READS, REDIS_BATCH_READS
from shared.read_models.keys import SORT_KEY_TIME_DIGITS, Checkpoint, PartitionKeys
from shared.redis import REDIS_DOWN, is_cluster

# Keys read in one round trip; Redis does nothing else meanwhile (about a millisecond). The script also bounds the bytes
# of documents: those that it does not read are read in the next round trip.
MAX_COST = 1_000
MAX_QUEUED = 10_000
READ_SECONDS = 2.0
# A connection can die silently, so the cache answers only for this long after the last message on it. While there are
# reads, the reader pings Redis in time. A result without a token can be older than what Redis has by this, and by the
# time that an invalidation travels.
TRUST_SECONDS = 0.05


@dataclass
class TooManyReads(Unavailable):
    code = "too-many-reads"
    title = "The service is overloaded"

    @property
    def detail(self) -> str:
        return f"{MAX_QUEUED} reads are waiting for Redis."


class CoalescingReader:
    """Reads one read model, which is partitioned by document id."""

    def __init__(self, redis: Redis, projection: str, cache_bytes: int = 0) -> None:
        """Caches documents up to `cache_bytes`; 0: none. Caches none of a Cluster, whose nodes would each invalidate
        their own keys."""
        self._projection = projection
        self._live = LiveGeneration(1, 0, 1)
        script = (files("query_service") / "read.lua").read_text("utf-8")
        self._script = redis.register_script(script)
        self._cache = ClientSideCache(projection, cache_bytes)
        caches = cache_bytes > 0 and not is_cluster(redis)
        self._tracking = TrackingConnection(redis, script, self._cache.invalidate) if caches else None
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Read] = deque()
        self._round: asyncio.Task[None] | None = None
        self._last: dict[int, tuple[list[bytes | None], ReadPosition | None]] = {}  # by partition

    def document(
        self, document_id: str, at_least: ConsistencyToken | None = None
    ) -> asyncio.Future[ReadResult[Document]]:
        """From the cache only where that has reached the token; a result from Redis may not have reached it.

        Raises `ReadModelUnavailable` or `TooManyReads`.
        """
        cached = self._find(document_id, at_least)
        if cached is None:
            return self._enqueue(document_id, None, 1)
        CACHED_READS.inc()
        result: asyncio.Future[ReadResult[Document]] = self._loop.create_future()
        result.set_result(cached)
        return result

    def _find(self, document_id: str, at_least: ConsistencyToken | None) -> ReadResult[Document] | None:
        if self._tracking is None or (silence := monotonic() - self._tracking.received_at) >= TRUST_SECONDS:
            return None
        if silence > TRUST_SECONDS / 2:
            self._tracking.ping()  # now, so that later reads need not wait for the answer
        return self._cache.find(document_id, at_least)

    def page(self, index: str, after: str | None, limit: int) -> asyncio.Future[ReadResult[IndexPage]]:
        """The newest `limit` documents of an index, or those after the entry `after`. Raises as `document`."""
        return self._enqueue(index, "+" if after is None else f"({after}", limit)

    def _enqueue(self, name: str, start: str | None, limit: int) -> asyncio.Future[ReadResult[Any]]:
        if len(self._queue) >= MAX_QUEUED:
            raise TooManyReads
        result: asyncio.Future[ReadResult[Any]] = self._loop.create_future()
        self._queue.append(Read(name, start, limit, result))
        if self._round is None:
            # A task starts in the next turn of the loop: after all requests that are ready in this one.
            self._round = self._loop.create_task(self._read_until_empty())
        return result

    async def _read_until_empty(self) -> None:
        try:
            while self._queue:
                batch = list(self._next_batch())
                try:
                    async with asyncio.timeout(READ_SECONDS):
                        await self._read(batch)
                except REDIS_DOWN as error:
                    _fail(batch, ReadModelUnavailable(), error)
                except Exception as error:  # noqa: BLE001 - the callers get it
                    _fail(batch, error, error.__cause__)
        finally:
            self._round = None
            # Only when cancelled at shutdown.
            while self._queue:
                self._queue.popleft().result.cancel()

    def _next_batch(self) -> Iterator[Read]:
        cost = 0
        while self._queue and cost < MAX_COST:
            read = self._queue.popleft()
            if not read.result.done():  # else the client has disconnected
                cost += read.limit if read.start is None else read.limit * self._live.partitions
                yield read

    async def _read(self, batch: list[Read]) -> None:
        if not batch:
            return
        REDIS_BATCH_READS.observe(len(batch))
        while True:
            live = self._live
            reads = by_partition(batch, live.partitions)
            # Partition 0 is always read: it says whether the generation is still live.
            calls = [self._call(live, partition, its) for partition, its in reads.items()]
            # Without the tasks of `gather` for a single call.
            answers = [await calls[0]] if len(calls) == 1 else await _all(calls)
            if not isinstance(answers[0][0], int):
                break
            self._live = LiveGeneration(*answers[0])  # another generation is live now, or was during the read
        if live.partitions > 1:
            self._resolve_many(reads, answers)

    async def _call(self, live: LiveGeneration, partition: int, reads: PartitionReads) -> list[Any]:
        keys = PartitionKeys(self._projection, partition, live.number)
        names = [
            keys.meta,
            *(keys.document(read.name) for read in reads.documents),
            *(keys.index(read.name) for read in reads.pages),
        ]
        if partition == 0:
            names.append(keys.generations)
        starts = [argument for read in reads.pages for argument in (read.start or "+", read.limit)]
        counts = len(reads.documents), len(reads.pages)
        arguments = [*counts, keys.documents, SORT_KEY_TIME_DIGITS, *live, *starts]
        on_answer = partial(self._on_answer, live, partition, reads)
        if self._tracking is not None:
            answer: list[Any] = await self._tracking.call(names, arguments, on_answer)
        else:
            answer = await self._script(names, arguments)
            on_answer(answer)
        return answer

    def _on_answer(self, live: LiveGeneration, partition: int, reads: PartitionReads, answer: list[Any]) -> None:
        """Caches the answer of one partition. A single partition's reads are resolved here rather than in `_read`: each
        turn of a busy event loop would take half a millisecond."""
        raw, *values = answer
        if isinstance(raw, int):
            return  # that generation is not live
        if self._tracking is not None:
            found = zip(reads.documents, values, strict=False)
            documents = {read.name: Document._make(value) for read, value in found if value is not None}
            self._cache.store(live, partition, self._at(partition, raw), documents)
        if live.partitions == 1:
            self._resolve_one(reads, answer)

    def _resolve_one(self, reads: PartitionReads, answer: list[Any]) -> None:
        raw, *values = answer
        at = self._at(0, raw)
        self._resolve_documents(reads.documents, values, at, 0)
        for read, value in zip(reads.pages, values[len(reads.documents) :], strict=True):
            _resolve(read, ReadResult(at, IndexPage(value[0], value[1:])))

    def _resolve_documents(self, reads: list[Read], values: list[Any], at: ReadPosition | None, partition: int) -> None:
        """Those that the script did not read are the next to be read."""
        unread = []
        for read, value in zip(reads, values, strict=False):
            if value is None:
                unread.append(read)
            else:
                _resolve(read, ReadResult(at, Document._make(value), partition))
        self._queue.extendleft(reversed(unread))

    def _resolve_many(self, reads: dict[int, PartitionReads], answers: list[list[Any]]) -> None:
        positions: list[ReadPosition | None] = []
        parts: list[list[list[bytes]]] = []  # of partitions, of pages
        for (partition, its), (raw, *values) in zip(reads.items(), answers, strict=True):
            positions.append(at := self._at(partition, raw))
            self._resolve_documents(its.documents, values, at, partition)
            parts.append(values[len(its.documents) :])
        pages = reads[0].pages
        if not pages:
            return
        checkpoints = [None if at is None else at.checkpoint for at in positions]
        slowest = Checkpoint.slowest(checkpoints)
        at = None if slowest is None else ReadPosition.of(slowest)
        lagging = lagging_partition(checkpoints)
        for read, *values in zip(pages, *parts, strict=True):
            _resolve(read, ReadResult(at, merge_pages(values, read.limit), lagging))

    def _at(self, partition: int, raw: list[bytes | None]) -> ReadPosition | None:
        last_raw, at = self._last.get(partition, ([], None))
        if raw != last_raw:
            *fields, code = raw
            checkpoint = Checkpoint.parse(fields)
            at = None if checkpoint is None else ReadPosition.of(checkpoint, int(code or 1))
            self._last[partition] = raw, at
        return at

    async def close(self) -> None:
        if self._round is not None:
            self._round.cancel()
            await asyncio.wait([self._round])
        if self._tracking is not None:
            await self._tracking.close()


async def _all(calls: list[Coroutine[Any, Any, list[Any]]]) -> list[list[Any]]:
    """Raises the first error once all calls have ended: none goes on after the time-out of its round."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]


def _resolve(read: Read, result: ReadResult[Any]) -> None:
    if not read.result.done():
        read.result.set_result(result)


def _fail(batch: list[Read], error: Exception, cause: BaseException | None) -> None:
    error.__cause__ = cause
    for read in batch:
        if not read.result.done():
            read.result.set_exception(error)
