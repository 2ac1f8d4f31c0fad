"""Coalesced reads: what the requests of one event-loop turn ask for travels to Redis in one round trip.

While one is under way the next accumulates, so a busy service makes few large round trips and an idle one answers at
once. One script reads all that is asked of a partition atomically together with its checkpoint, so every answer knows
exactly which position of which log it shows. Against MULTI/EXEC the script costs the client a quarter of the CPU time:
64 reads make one reply to parse instead of 130.

A list is merged from the pages of all partitions, and shows as much of the log as the one that is furthest behind.

A document that was read before is answered from memory while Redis, which tells what changes, has not told that it did
([decision 21](../docs/decisions/0021-documents-are-remembered-until-they-change.md)).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from time import monotonic
from typing import Any, NamedTuple

from redis.asyncio import Redis

from query_service.reading import At, Document, Layout, Page, Reading
from query_service.remembered import Remembered
from query_service.tracked import Tracked
from shared.errors import Unavailable
from shared.eventstore.token import ConsistencyToken
from shared.metrics import REDIS_BATCH_READS, REMEMBERED_READS
from shared.read_models.keys import PLACE_TIME_DIGITS, Checkpoint, PartitionKeys, partition_of
from shared.redis import REDIS_DOWN, is_cluster

# Keys looked up in one round trip; Redis does nothing else meanwhile (about a millisecond).
MAX_COST = 1_000
MAX_QUEUED = 10_000
READ_SECONDS = 2.0
# A connection can die without a word, so what is remembered is not believed for longer than that after the last one.
# While there are reads, Redis is asked for a word in time. An answer to a query without a token can be older than what
# Redis has by so much, and by what is still on its way.
TRUST_SECONDS = 0.05


@dataclass
class ReadModelUnavailable(Unavailable):
    server: str = "Redis"
    code = "read-model-unavailable"
    title = "The read model cannot be reached"

    @property
    def detail(self) -> str:
        return f"{self.server}, where the read model is kept, does not answer."


@dataclass
class TooManyReads(Unavailable):
    code = "too-many-reads"
    title = "The service is overloaded"

    @property
    def detail(self) -> str:
        return f"{MAX_QUEUED} reads are waiting for Redis."


class _Read(NamedTuple):
    name: str  # of the document or the index
    start: str | None  # None: a document; else a page of an index, from there
    limit: int
    answer: asyncio.Future[Reading[Any]]


class _Share(NamedTuple):
    """What one partition is asked for."""

    documents: list[_Read]
    pages: list[_Read]


class Reader:
    """Of one read model. Its partition key is the document's id."""

    def __init__(self, redis: Redis, projection: str, remember_bytes: int = 0) -> None:
        """Remembers documents of so many bytes; 0: none. Of a Cluster none, each node would tell of its own keys."""
        self._projection = projection
        self._layout = Layout(1, 0, 1)
        script = (files("query_service.read_models") / "read.lua").read_text("utf-8")
        self._script = redis.register_script(script)
        self._remembered = Remembered(projection, remember_bytes)
        remembers = remember_bytes > 0 and not is_cluster(redis)
        self._tracked = Tracked(redis, script, self._remembered.forget) if remembers else None
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Read] = deque()
        self._round: asyncio.Task[None] | None = None
        self._last: dict[int, tuple[list[bytes | None], At | None]] = {}  # by partition

    def document(self, document_id: str, at_least: ConsistencyToken | None = None) -> asyncio.Future[Reading[Document]]:
        """From memory only where that shows what the token asks for; an answer from Redis may show less.

        Raises `ReadModelUnavailable` or `TooManyReads`.
        """
        known = self._find(document_id, at_least)
        if known is None:
            return self._enqueue(document_id, None, 1)
        REMEMBERED_READS.inc()
        answer: asyncio.Future[Reading[Document]] = self._loop.create_future()
        answer.set_result(known)
        return answer

    def _find(self, document_id: str, at_least: ConsistencyToken | None) -> Reading[Document] | None:
        if self._tracked is None or (silent := monotonic() - self._tracked.heard_at) >= TRUST_SECONDS:
            return None
        if silent > TRUST_SECONDS / 2:
            self._tracked.ping()  # now, so that later reads need not wait for the answer
        return self._remembered.find(document_id, at_least)

    def page(self, index: str, after: str | None, limit: int) -> asyncio.Future[Reading[Page]]:
        """The newest `limit` documents of an index, or those that follow the place `after`. Raises as `document`."""
        return self._enqueue(index, "+" if after is None else f"({after}", limit)

    def _enqueue(self, name: str, start: str | None, limit: int) -> asyncio.Future[Reading[Any]]:
        if len(self._queue) >= MAX_QUEUED:
            raise TooManyReads
        answer: asyncio.Future[Reading[Any]] = self._loop.create_future()
        self._queue.append(_Read(name, start, limit, answer))
        if self._round is None:
            # A task starts in the next turn of the loop: after all requests that are ready in this one.
            self._round = self._loop.create_task(self._read_until_empty())
        return answer

    async def _read_until_empty(self) -> None:
        try:
            while self._queue:
                batch = list(self._next_batch())
                try:
                    async with asyncio.timeout(READ_SECONDS):
                        await self._read(batch)
                except REDIS_DOWN as error:
                    _fail(batch, ReadModelUnavailable(), error)
                except Exception as error:  # noqa: BLE001 - it belongs to those who asked
                    _fail(batch, error, error.__cause__)
        finally:
            self._round = None
            # Only when cancelled at shutdown.
            while self._queue:
                self._queue.popleft().answer.cancel()

    def _next_batch(self) -> Iterator[_Read]:
        cost = 0
        while self._queue and cost < MAX_COST:
            read = self._queue.popleft()
            if not read.answer.done():  # else the client went away
                cost += read.limit if read.start is None else read.limit * self._layout.partitions
                yield read

    async def _read(self, batch: list[_Read]) -> None:
        if not batch:
            return
        REDIS_BATCH_READS.observe(len(batch))
        while True:
            layout = self._layout
            shares = _divide(batch, layout.partitions)
            # A generation is live as long as partition 0 says so: it is always asked.
            questions = [self._ask(layout, partition, share) for partition, share in shares.items()]
            # Without the tasks of `gather` where there is nothing to gather.
            answers = [await questions[0]] if len(questions) == 1 else await _all(questions)
            if not isinstance(answers[0][0], int):
                break
            self._layout = Layout(*answers[0])  # another generation is live now, or was while this one was read
        if layout.partitions > 1:
            self._answer_from_many(shares, answers)

    async def _ask(self, layout: Layout, partition: int, share: _Share) -> list[Any]:
        keys = PartitionKeys(self._projection, partition, layout.generation)
        names = [
            keys.meta,
            *(keys.document(read.name) for read in share.documents),
            *(keys.index(read.name) for read in share.pages),
        ]
        if partition == 0:
            names.append(keys.generations)
        starts = [argument for read in share.pages for argument in (read.start or "+", read.limit)]
        counts = len(share.documents), len(share.pages)
        arguments = [*counts, keys.documents, PLACE_TIME_DIGITS, *layout, *starts]
        note = partial(self._note, layout, partition, share)
        if self._tracked is not None:
            found: list[Any] = await self._tracked.ask(names, arguments, note)
        else:
            found = await self._script(names, arguments)
            note(found)
        return found

    def _note(self, layout: Layout, partition: int, share: _Share, found: list[Any]) -> None:
        """What a partition has answered. A single one is all there is to wait for, so who asked is told at once: each
        turn of a busy event loop would take half a millisecond."""
        raw, *values = found
        if isinstance(raw, int):
            return  # that layout is not live
        if self._tracked is not None:
            read = {one.name: Document._make(value) for one, value in zip(share.documents, values, strict=False)}
            self._remembered.learn(layout, partition, self._at(partition, raw), read)
        if layout.partitions == 1:
            self._answer_from_one(share, found)

    def _answer_from_one(self, share: _Share, found: list[Any]) -> None:
        raw, *values = found
        at = self._at(0, raw)
        for read, value in zip(share.documents, values, strict=False):
            _answer(read, Reading(at, Document._make(value)))
        for read, value in zip(share.pages, values[len(share.documents) :], strict=True):
            _answer(read, Reading(at, Page(value[0], value[1:])))

    def _answer_from_many(self, shares: dict[int, _Share], answers: list[list[Any]]) -> None:
        every: list[At | None] = []
        parts: list[list[list[bytes]]] = []  # of partitions, of pages
        for (partition, share), (raw, *values) in zip(shares.items(), answers, strict=True):
            every.append(at := self._at(partition, raw))
            for read, value in zip(share.documents, values, strict=False):
                _answer(read, Reading(at, Document._make(value), partition))
            parts.append(values[len(share.documents) :])
        pages = shares[0].pages
        if not pages:
            return
        checkpoints = [None if at is None else at.checkpoint for at in every]
        together = Checkpoint.slowest(checkpoints)
        at = None if together is None else At(together, together.token.encode())
        behind = _furthest_behind(checkpoints)
        for read, *values in zip(pages, *parts, strict=True):
            _answer(read, Reading(at, _merge(values, read.limit), behind))

    def _at(self, partition: int, raw: list[bytes | None]) -> At | None:
        last_raw, at = self._last.get(partition, ([], None))
        if raw != last_raw:
            checkpoint = Checkpoint.parse(raw)
            at = None if checkpoint is None else At(checkpoint, checkpoint.token.encode())
            self._last[partition] = raw, at
        return at

    async def close(self) -> None:
        if self._round is not None:
            self._round.cancel()
            await asyncio.wait([self._round])
        if self._tracked is not None:
            await self._tracked.close()


async def _all(questions: list[Coroutine[Any, Any, list[Any]]]) -> list[list[Any]]:
    """Raises the first error, once all have ended: none goes on behind the time-out of its round."""
    answers = await asyncio.gather(*questions, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]


def _divide(batch: list[_Read], partitions: int) -> dict[int, _Share]:
    """By the partitions that have to be asked, in their order. A page has parts in each of them."""
    documents: dict[int, list[_Read]] = {0: []}
    pages = [read for read in batch if read.start is not None]
    for read in batch:
        if read.start is None:
            documents.setdefault(partition_of(read.name, partitions), []).append(read)
    asked = range(partitions) if pages else sorted(documents)
    return {partition: _Share(documents.get(partition, []), pages) for partition in asked}


def _merge(parts: list[list[bytes]], limit: int) -> Page:
    """One page of what each partition has for it: {next place, place, summary, place, summary ...}."""
    entries = sorted((entry for part in parts for entry in zip(part[1::2], part[2::2], strict=True)), reverse=True)
    more = len(entries) > limit or any(part[0] is not None for part in parts)
    del entries[limit:]
    return Page(entries[-1][0] if more else None, [summary for _, summary in entries])


def _furthest_behind(checkpoints: list[Checkpoint | None]) -> int:
    def progress(partition: int) -> tuple[bool, bool, int]:
        checkpoint = checkpoints[partition]
        if checkpoint is None:
            return False, False, 0
        return True, not checkpoint.rebuilding, checkpoint.position

    return min(range(len(checkpoints)), key=progress)


def _answer(read: _Read, reading: Reading[Any]) -> None:
    if not read.answer.done():
        read.answer.set_result(reading)


def _fail(batch: list[_Read], error: Exception, cause: BaseException | None) -> None:
    error.__cause__ = cause
    for read in batch:
        if not read.answer.done():
            read.answer.set_exception(error)
